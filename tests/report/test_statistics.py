from collections.abc import Sequence

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from fmnist_pl.report import conclusions
from fmnist_pl.report.conclusions import CONCLUSIONS, better
from fmnist_pl.report.evidence import Contrast, Evidence, Figures, Verdict, in_units, measure
from fmnist_pl.report.findings import Conclusion, Finding, duration
from fmnist_pl.report.judgement import Judgement, error_of_the_page, examine
from fmnist_pl.report.looks import undecided
from fmnist_pl.report.statistics import (
    ONCE,
    Rules,
    chance_of_decision,
    holm,
    mcnemar,
    mean_interval,
    seeds_needed,
    smallest_errors,
    spend,
    times_chosen,
)

IMAGES = 1000
DIFFERENCE = Contrast("a beats b", ("a", "b"), lambda a, b: a.test_acc - b.test_acc)


def figures(test_acc: float = 0.9, **others: object) -> Figures:
    """Of a run that has the first images right; ten epochs in which nothing changes."""
    flat = [0.5] * 10
    defaults = {
        "class_acc": [test_acc] * 10,
        "confusion": np.eye(10),
        "right": np.arange(IMAGES) < round(IMAGES * test_acc),
        "train_acc": flat,
        "val_acc": flat,
        "train_loss": flat,
        "val_loss": flat,
        "seconds": 60.0,
    }
    return Figures(test_acc, **(defaults | others))


def sweep(**accuracies: Sequence[float]) -> dict[str, dict[int, Figures]]:
    """By arm and seed, of test accuracies by arm."""
    return {arm: dict(enumerate(map(figures, values))) for arm, values in accuracies.items()}


STUDY = {"a": figures(0.93), "b": figures(0.90)}


def found(*evidence: Evidence, several: bool = False) -> Finding:
    """A conclusion that rests on this evidence."""
    contrasts = tuple(one.contrast for one in evidence)
    return Finding(Conclusion("A statement.", "A test.", contrasts, several), evidence)


def find(*contrasts: Contrast, **accuracies: Sequence[float]) -> Finding:
    runs = sweep(**accuracies)
    return found(*(measure(contrast, runs, STUDY) for contrast in contrasts))


def test_interval_is_students() -> None:
    # Standard deviation 1, so 4.302653 (two degrees of freedom) / sqrt(3) to each side.
    assert mean_interval([1, 2, 3]) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    values = np.random.default_rng(0).normal(0.01, 0.02, 7)
    for level in (0.95, 0.99):
        expected = DescrStatsW(values).tconfint_mean(1 - level)
        assert mean_interval(values, level) == pytest.approx(expected, rel=1e-12)


def test_effects_are_told_to_two_digits_or_three() -> None:
    told = {0.0203: "+2.03", 0.00005: "+0.01", 0.00003: "+0.003", -0.00001: "\N{MINUS SIGN}0.001"}
    assert {effect: in_units(effect) for effect in told} == told
    assert in_units(0) == "+0.00"


def test_mcnemar_is_exact() -> None:
    first, second = np.zeros(20, bool), np.zeros(20, bool)
    assert mcnemar(first, second) == 1
    first[:9], second[9] = True, True  # 9 to 1: 2 (1 + 10) / 2^10
    assert mcnemar(first, second) == pytest.approx(22 / 1024)
    first, second = np.random.default_rng(0).random((2, 500)) < [[0.8], [0.75]]
    table = [[(a & b).sum() for b in (second, ~second)] for a in (first, ~first)]
    assert mcnemar(first, second) == pytest.approx(reference_mcnemar(table, exact=True).pvalue)


def test_real_difference_holds() -> None:
    finding = find(DIFFERENCE, a=[0.92, 0.93, 0.91, 0.94, 0.92], b=[0.90, 0.90, 0.90, 0.91, 0.90])
    [evidence] = finding.evidence
    assert evidence.effects == pytest.approx({0: 0.02, 1: 0.03, 2: 0.01, 3: 0.03, 4: 0.02})
    assert evidence.published == pytest.approx(0.03)
    assert finding.verdict is Verdict.HOLDS
    # mean 2.2, standard deviation 0.8367, t 2.7764
    assert "+2.20 points (95% interval +1.16 to +3.24)" in finding.explanation
    assert "on 5 seeds" in finding.explanation


@pytest.mark.parametrize(
    ("a", "verdict", "words"),
    [
        ([0.88, 0.87, 0.89, 0.88, 0.88], Verdict.FAILS, "the opposite is the case"),
        ([0.9001, 0.8999, 0.9, 0.9001, 0.8998], Verdict.EQUAL, "less than 0.2 points, either way"),
        ([0.896, 0.901, 0.897, 0.899, 0.896], Verdict.FAILS, "no effect of 0.2 points or more"),
        # Within the margin, but on one side of zero for sure: it holds, or its opposite does.
        ([0.9009, 0.9011, 0.901, 0.9012, 0.901], Verdict.HOLDS, "+0.10 points"),
        ([0.8989, 0.8991, 0.899, 0.8992, 0.899], Verdict.FAILS, "the opposite is the case"),
        ([0.95, 0.86, 0.92, 0.88, 0.91], Verdict.UNDECIDED, "for an effect and for none"),
        ([0.92, 0.93], Verdict.UNDECIDED, "Only 2 seeds"),
        ([0.95], Verdict.UNTESTED, "two seeds of a and b (there is one)"),
        ([], Verdict.UNTESTED, "finished runs of a"),
    ],
)
def test_other_verdicts(a: list[float], verdict: Verdict, words: str) -> None:
    finding = find(DIFFERENCE, a=a, b=[0.9] * 5)
    assert finding.verdict is verdict
    assert words in finding.explanation


def test_runs_are_paired_by_seed() -> None:
    luck = np.array([0.1, -0.1, 0.05, -0.05, 0.0])  # common to both arms: it cancels
    b = 0.8 + luck
    assert find(DIFFERENCE, a=b + np.array([1, 1.1, 0.9, 1, 1]) / 100, b=b).verdict is Verdict.HOLDS
    runs = sweep(a=[0.9, 0.9, 0.9], b=[0.8, 0.8, 0.8])
    del runs["a"][0], runs["b"][2]
    evidence = measure(DIFFERENCE, runs, STUDY)
    assert list(evidence.effects) == [1]
    del runs["b"][1]
    assert "none in common" in measure(DIFFERENCE, runs, STUDY).missing[0]


def test_difference_must_survive_mcnemar() -> None:
    study = dict.fromkeys(("a", "b"), figures())
    lead = np.array([0.005, 0.005, 0.006, 0.004, 0.005])  # 5 in 1000 images: two-sided p 0.0625
    runs = sweep(a=0.9 + lead, b=[0.9] * 5)
    assert found(measure(DIFFERENCE, runs, study)).verdict is Verdict.HOLDS
    evidence = measure(better("a", "b"), runs, study)
    assert evidence.mcnemar == (1, 5)
    assert found(evidence).verdict is Verdict.UNDECIDED
    assert "More seeds would hardly decide it" in found(evidence).explanation
    assert "McNemar's test finds it in 1 of 5 pairs" in evidence.reason(Verdict.UNDECIDED)
    evidence = measure(better("a", "b"), sweep(a=0.9 + 2 * lead, b=[0.9] * 5), study)
    assert evidence.mcnemar == (5, 5)
    assert found(evidence).verdict is Verdict.HOLDS
    noisy = measure(better("a", "b"), sweep(a=0.9 + lead - [0, 0, 0, 0, 0.02], b=[0.9] * 5), study)
    assert "and for none, and McNemar's test finds it in 1 of 5" in noisy.reason(Verdict.UNDECIDED)
    half = measure(better("a", "b"), sweep(a=0.9 + lead[[0, 2, 0, 2]], b=[0.9] * 4), study)
    assert half.mcnemar == (2, 4)
    assert found(half).verdict is Verdict.UNDECIDED
    turned = measure(better("b", "a"), sweep(a=0.9 + 2 * lead, b=[0.9] * 5), study)
    assert turned.mcnemar == (0, 5)


def test_one_part_refuted_refutes_the_whole() -> None:
    upward = Contrast("a rises", ("a",), lambda a: a.test_acc - 0.8)
    absent = Contrast("b and c", ("b",), lambda b: b.test_acc)
    finding = find(DIFFERENCE, upward, absent, a=[0.85, 0.86, 0.84, 0.85, 0.85], b=[])
    assert finding.verdict is Verdict.UNTESTED
    downward = Contrast("a falls", ("a",), lambda a: 0.8 - a.test_acc)
    finding = find(upward, downward, absent, a=[0.85, 0.86, 0.84, 0.85, 0.85])
    assert finding.verdict is Verdict.FAILS
    assert finding.explanation.startswith("Against it: that a falls, \N{MINUS SIGN}5.00 points")
    assert "Only" not in finding.explanation


def test_refuting_takes_a_wider_interval_where_many_could() -> None:
    effects = np.array([-0.003, -0.016, 0.002, -0.012, -0.006])
    assert mean_interval(effects, 0.95)[1] < 0.002 < mean_interval(effects, 0.99)[1]
    evidence = measure(DIFFERENCE, sweep(a=0.9 + effects, b=[0.9] * 5), STUDY)
    assert found(evidence).verdict is Verdict.FAILS
    assert found(*[evidence] * 5).verdict is Verdict.UNDECIDED


def test_luck_alone_seldom_holds() -> None:
    rng = np.random.default_rng(0)
    verdicts = [
        find(DIFFERENCE, a=rng.normal(0.9, 0.01, 5), b=rng.normal(0.9, 0.01, 5)).verdict
        for _ in range(400)
    ]
    assert 1 <= verdicts.count(Verdict.HOLDS) <= 20  # 2.5% expected
    assert verdicts.count(Verdict.UNDECIDED) > 300


def test_effects_that_have_no_value() -> None:
    contrast = conclusions.overfits("a")
    runs = {"a": {seed: figures(train_loss=[0.5] * 3, val_loss=[0.5] * 3) for seed in range(3)}}
    assert measure(contrast, runs, STUDY).missing == ("runs of at least 4 epochs",)
    runs = {"a": {seed: figures(val_loss=[np.nan] * 10) for seed in range(3)}}
    evidence = measure(contrast, runs, STUDY)
    assert evidence.missing == ("runs of a without NaN",)
    assert not evidence.effects


def test_published_effects_are_those_the_study_printed() -> None:
    findings = examine({})
    assert {finding.verdict for finding in findings} == {Verdict.UNTESTED}
    published = [[one.published for one in finding.evidence] for finding in findings]
    assert published[0] == pytest.approx([0.8852 - 0.8590])
    assert published[1][0] == pytest.approx(0.9096 - 0.8590)
    assert published[1][1] == pytest.approx((0.9096 - 0.8590) - (0.9134 - 0.9096))
    assert published[2][1] == pytest.approx(0.9134 - 0.9096)
    assert published[5][0] == pytest.approx(0.9901 - 0.8852)
    assert np.isnan(published[6]).all()


def test_learning_curves_as_numbers() -> None:
    epochs = np.arange(10)
    run = figures(
        train_acc=[0.1, *[0.8] * 9],
        val_acc=[0.9, *[0.82] * 9],
        train_loss=np.exp(-0.2 * epochs),
        val_loss=np.r_[np.ones(5), np.exp(0.05 * epochs[5:])],
    )
    assert conclusions.train_below_val(run) == pytest.approx(0.02)
    assert conclusions.slope(run.train_loss) == pytest.approx(-0.2)
    assert conclusions.slope(run.val_loss) == pytest.approx(0.05)  # the first half does not count
    assert conclusions.overfits("a").effect(run) == pytest.approx(0.05)
    assert conclusions.gap_growth(run) == pytest.approx(0.25)


def test_classes_as_numbers() -> None:
    assert conclusions.smallest_class_lead(figures(class_acc=[0.99, 0.97, 0.95])) == pytest.approx(
        0.02
    )
    confusion = 90 * np.eye(10)
    confusion[0, 6], confusion[6, 0], confusion[4, 2] = 20, 10, 16
    confusion[5, 7], confusion[7, 5] = 4, 5
    total = confusion.sum()
    lead = conclusions.named_confusions_lead(figures(confusion=confusion))
    assert lead == pytest.approx((16 - 9) / total)
    other = figures(confusion=2 * confusion.T)
    assert conclusions.named_confusions_lead(figures(confusion=confusion), other) == (
        pytest.approx(lead)
    )


def test_each_conclusion_on_a_sweep_made_for_it() -> None:
    rng = np.random.default_rng(0)
    confusion = np.full((10, 10), 5) + 900 * np.eye(10)
    confusion[[0, 6, 2, 4], [6, 0, 4, 2]] = 100
    falling, rising = np.exp(-0.1 * np.arange(10)), np.exp(0.1 * np.arange(10))
    curves = {  # training and validation: accuracy, loss
        "vanilla": (0.95, 0.90, falling, rising),
        "three_class": (0.95, 0.90, falling**2, rising),
        "mlp": (0.85, 0.90, falling, falling),
    }
    accuracies = {
        "vanilla": 0.885,
        "three_class": 0.99,
        "mlp": 0.85,
        "cnn": 0.92,
        "cnn_bn": 0.94,
        "cnn_bn_dropout": 0.91,
        "cnn_bn_dropout_l2": 0.90,
        "cnn_bn_dropout_l1": 0.91,
    }
    runs: dict[str, dict[int, Figures]] = {}
    for arm, acc in accuracies.items():
        train, val, train_loss, val_loss = curves.get(arm, (0.9, 0.9, falling, falling))
        runs[arm] = {
            seed: figures(
                acc + rng.normal(0, 1e-4),
                right=np.arange(IMAGES) < round(acc * IMAGES),
                class_acc=[0.99, 0.99, 0.95 + rng.normal(0, 1e-3)],
                confusion=confusion,
                train_acc=[train] * 10,
                val_acc=[val] * 10,
                train_loss=train_loss,
                val_loss=val_loss,
            )
            for seed in range(5)
        }
    assert [finding.verdict for finding in examine(runs)] == [Verdict.HOLDS] * len(CONCLUSIONS)
    # The other way round, each where it is another arm's figures that decide.
    turned = runs | {"vanilla": runs["mlp"], "mlp": runs["vanilla"], "cnn_bn": runs["cnn"]}
    turned |= {"three_class": runs["mlp"], "cnn": runs["cnn_bn"]}
    verdicts = [str(finding.verdict) for finding in examine(turned)]
    assert verdicts == [
        *("does not hold", "holds", "does not hold", "does not hold"),
        *("holds", "no difference", "holds", "does not hold"),
    ]


def test_levels_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for mean in (-0.002, 0.0005, 0.003):
        effects = rng.normal(mean, 0.002, 8)
        ours, theirs = smallest_errors(effects, 0.002), DescrStatsW(effects)
        assert ours.equal == pytest.approx(theirs.ttost_mean(-0.002, 0.002)[0])
        assert ours.positive == pytest.approx(2 * theirs.ttest_mean(0, "larger")[1])
        assert ours.negative == pytest.approx(2 * theirs.ttest_mean(0, "smaller")[1])
        assert ours.small == pytest.approx(2 * theirs.ttest_mean(0.002, "smaller")[1])


def test_holms_correction_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.random(6) ** 4
        decided = [value <= most for value, most in zip(values, holm(values, 0.05), strict=True)]
        assert decided == multipletests(values, 0.05, "holm")[0].tolist()


def test_errors_of_looks_add_up() -> None:
    looks = spend((5, 10, 20, 40))
    assert [seeds for seeds, _ in looks] == [5, 10, 20, 40]
    assert sum(error for _, error in looks) == pytest.approx(0.05)
    # 0.05 ln(1 + 1.718282 / 8); 0.05 (ln(1 + 1.718282 / 4) - ln(1 + 1.718282 / 8))
    assert [error for _, error in looks[:2]] == pytest.approx([0.0097284, 0.0081403], abs=1e-6)


def test_a_look_decides_for_good() -> None:
    rules = Rules(looks=((3, 0.02), (6, 0.03)))
    lead = [0.05, 0.051, 0.049]

    def after(*effects: float) -> Finding:
        accuracies = sweep(a=0.5 + np.array(effects), b=[0.5] * len(effects))
        return found(measure(DIFFERENCE, accuracies, {}, rules))

    assert after(*lead[:2]).verdict is Verdict.UNDECIDED
    assert after(*lead).verdict is Verdict.HOLDS
    assert after(*lead, -0.3, 0.2, -0.3).verdict is Verdict.HOLDS
    assert after(0.05, -0.3, 0.2).verdict is Verdict.UNDECIDED
    assert after(0.05, -0.3, 0.2, *lead[:2]).verdict is Verdict.UNDECIDED  # no look at five
    [evidence] = after(*lead, 0.05).evidence
    assert evidence.interval == pytest.approx(mean_interval([*lead, 0.05], 0.98))


def test_a_number_of_seeds_decides_as_often_as_it_says() -> None:
    rng, errors = np.random.default_rng(0), (0.05, 0.05)
    for mean in (0.0, 0.001, 0.004, -0.002):
        seeds = np.array([10])
        [said] = chance_of_decision(seeds, np.array([mean]), np.array([0.004]), 0.002, errors)
        samples = [smallest_errors(rng.normal(mean, 0.004, 10), 0.002) for _ in range(2000)]
        decided = np.mean([min(sample) <= 0.05 for sample in samples])
        assert said == pytest.approx(decided, abs=0.04)


def test_seeds_that_are_needed_are_those_of_a_power_analysis() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 1, 6)
    effects = 0.01 + 0.01 * (effects - effects.mean()) / effects.std(ddof=1)
    # Far above the margin there is but one answer: of a t test with an effect of one deviation.
    expected = TTestPower().solve_power(1, alpha=0.05, power=0.8)
    needed, low, high = seeds_needed(effects, 0.0001, (0.05, 0.05))
    assert needed == pytest.approx(expected, rel=0.1)
    assert low <= needed < high
    assert seeds_needed(effects, 0.0001, (0.0, 0.05))[0] == np.inf  # "holds" is never said
    # Six seeds leave it open how many deviations the effect is, two of them as seen.
    draws = 2 * np.sqrt(rng.chisquare(5, 10_000) / 5) + rng.normal(size=10_000) / np.sqrt(6)
    most = TTestPower().solve_power(np.quantile(draws, 0.025), alpha=0.05, power=0.8)
    _, low, high = seeds_needed(effects + 0.01, 0.0001, (0.05, 0.05))
    assert low == 7  # one more than there are
    assert high == pytest.approx(most, rel=0.2)


def test_what_is_open_says_how_many_seeds_and_minutes_it_takes() -> None:
    runs = {
        arm: {seed: figures(acc, seconds=60.0) for seed, acc in enumerate(values)}
        for arm, values in {"a": [0.95, 0.86, 0.92, 0.88, 0.91], "b": [0.9] * 5}.items()
    }
    finding = found(measure(DIFFERENCE, runs, {}))
    [needed] = finding.needed
    assert needed
    assert needed.seeds > 5
    more = needed.seeds - 5
    assert f"{more:.0f} more, {duration(more * 120)} of training" in finding.explanation
    [shared, _] = found(*finding.evidence * 2, several=True).needed
    assert shared
    assert shared.seeds > needed.seeds  # as one of two claims that have one error together
    assert duration(150) == "2 minutes"
    assert duration(9000) == "2.5 hours"


def test_what_holds_and_is_less_than_the_margin_says_so() -> None:
    finding = find(DIFFERENCE, a=[0.9009, 0.9011, 0.901, 0.9012, 0.901], b=[0.9] * 5)
    assert finding.verdict is Verdict.HOLDS
    assert "It is less than 0.2 points, though." in finding.explanation
    finding = find(DIFFERENCE, a=[0.909, 0.911, 0.910, 0.912, 0.910], b=[0.9] * 5)
    assert "though" not in finding.explanation


def test_one_part_that_leans_against_it_decides_the_whole() -> None:
    parts = [
        measure(DIFFERENCE, sweep(a=0.9 + np.array(effects), b=[0.9] * 5), {})
        for effects in (
            [0.03, -0.02, 0.01, -0.01, 0.02],
            [-0.03, 0.02, -0.01, 0.01, -0.02],  # the same the other way round
            [-0.012, 0.008, -0.004, 0.004, -0.008],  # and less noisy
        )
    ]

    def told(*chosen: int, several: bool = False) -> float:
        finding = found(*(parts[i] for i in chosen), several=several)
        assert finding.verdict is Verdict.UNDECIDED
        return float(finding.outlook.split()[1])  # About ... seeds

    assert told(0, 1, 2) == found(*parts).needed[2].seeds
    assert "decide against it, for which one part is enough" in found(*parts).outlook
    assert told(0, 1) == found(*parts[:2]).needed[1].seeds
    assert told(0, 1, 2, several=True) == (found(*parts, several=True).needed[0].seeds)


def test_claims_of_their_own_share_the_error() -> None:
    effects = np.array([0.002, 0.009, 0.001, 0.012, 0.006])  # p 0.056 after no correction: 0.045
    effects = effects + 0.0008
    one = measure(DIFFERENCE, sweep(a=0.9 + effects, b=[0.9] * 5), STUDY)
    assert 0.025 < one.smallest_errors().positive < 0.05
    sure = measure(DIFFERENCE, sweep(a=0.9 + effects / 50 + 0.01, b=[0.9] * 5), STUDY)
    assert found(one, several=True).verdicts == (Verdict.HOLDS,)
    assert found(one, sure, several=True).verdicts == (Verdict.HOLDS, Verdict.HOLDS)
    both = found(one, one, sure, several=True)
    assert both.verdicts == (Verdict.UNDECIDED, Verdict.UNDECIDED, Verdict.HOLDS)
    assert "among so many comparisons" in both.evidence[0].reason(Verdict.UNDECIDED)


def test_the_smallest_error_is_that_of_the_weakest_part_or_of_the_strongest_against_it() -> None:
    rng = np.random.default_rng(0)
    parts = [
        measure(DIFFERENCE, sweep(a=0.9 + rng.normal(lead, 0.004, 6), b=[0.9] * 6), STUDY)
        for lead in (0.02, 0.015, -0.02, -0.01)
    ]
    p = [DescrStatsW(list(one.effects.values())).ttest_mean(0)[1] for one in parts]
    assert found(*parts[:2]).smallest_error == pytest.approx(max(p[:2]))
    assert found(*parts[2:]).verdict is Verdict.FAILS
    assert found(*parts[2:]).smallest_error <= 2 * min(p[2:])
    assert found(parts[0], several=True).smallest_error == pytest.approx(p[0])


def test_what_a_decided_conclusion_leaves_open_asks_for_no_seeds() -> None:
    refuted = measure(DIFFERENCE, sweep(a=[0.88, 0.87, 0.89, 0.88, 0.88], b=[0.9] * 5), STUDY)
    other = Contrast("c beats d", ("c", "d"), lambda c, d: c.test_acc - d.test_acc)
    unclear = measure(other, sweep(c=[0.95, 0.86, 0.92, 0.88, 0.91], d=[0.9] * 5), {})
    assert list(undecided(found(unclear))) == ["c", "d"]
    assert list(undecided(found(refuted, unclear))) == []
    assert list(undecided(found(refuted, unclear, several=True))) == ["c", "d"]


def test_what_stands_if_the_page_shares_one_error_is_holms() -> None:
    rng, fell = np.random.default_rng(0), 0
    for _ in range(10):
        findings = [
            find(DIFFERENCE, a=0.9 + rng.normal(0.004, 0.004, 6), b=[0.9] * 6) for _ in range(8)
        ]
        judgement = Judgement("tested", findings, None, None, {})
        decided = [one.verdict is not Verdict.UNDECIDED for one in findings]
        assert judgement.decided == [i for i, one in enumerate(decided, 1) if one]
        kept = multipletests([one.smallest_error for one in findings], 0.05, "holm")[0]
        assert judgement.standing == [i for i, one in enumerate(kept, 1) if one]
        fell += len(judgement.decided) - len(judgement.standing)
    assert fell > 0


def test_the_errors_of_a_page_are_those_of_both_columns() -> None:
    holds = find(DIFFERENCE, a=[0.92, 0.93, 0.91, 0.94, 0.92], b=[0.9] * 5)
    unclear = find(DIFFERENCE, a=[0.95, 0.86, 0.92, 0.88, 0.91], b=[0.9] * 5)
    columns = [
        Judgement(weights, findings, None, None, {})
        for weights, findings in (("tested", [holds, unclear]), ("averaged", [holds, holds]))
    ]
    said = error_of_the_page(columns, ONCE)
    assert "Of the 1 and 2 decided ones in a column at most 0.1 are wrong on average" in said
    assert "up to 10% at least one is" in said
    assert "are 1 with the tested weights and 1, 2 with averaged weights." in said
    assert "Of the 1 decided ones" in error_of_the_page(columns[:1] * 2, ONCE)
    assert error_of_the_page([Judgement("tested", [unclear], None, None, {})] * 2, ONCE) == ""


def test_the_choice_of_other_seeds_is_a_bootstrap() -> None:
    # Means of two drawn of (0, 1): 0, 0.5 twice, 1; of the other, always 0.6.
    assert times_chosen([[0.0, 1.0], [0.6, 0.6, 0.6]]) == pytest.approx([0.25, 0.75], abs=0.02)


def test_a_verdict_is_told_with_the_seeds_of_its_look() -> None:
    rules = Rules(looks=((3, 0.02), (6, 0.03)))
    effects = np.array([0.05, 0.051, 0.049, -0.3, 0.2, -0.3])
    finding = found(measure(DIFFERENCE, sweep(a=0.5 + effects, b=[0.5] * 6), {}, rules))
    assert "on 3 seeds" in finding.explanation
    assert "+5.00 points" in finding.explanation
    between = found(measure(DIFFERENCE, sweep(a=0.5 + effects[2:], b=[0.5] * 4), {}, rules))
    assert between.verdict is Verdict.UNDECIDED
    assert "It is asked next after 6 seeds." in between.explanation


def test_runs_tested_on_other_images_are_not_compared() -> None:
    runs = sweep(a=[0.95, 0.96], b=[0.9, 0.9])
    runs["b"] = {seed: figures(right=np.ones(250, bool)) for seed in range(2)}
    [missing] = measure(better("a", "b"), runs, {}).missing
    assert missing == "runs of a and b with the same number of tested images"
