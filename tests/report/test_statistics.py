from collections.abc import Sequence

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.weightstats import DescrStatsW

from fmnist_pl.report import conclusions
from fmnist_pl.report.conclusions import CONCLUSIONS, better, examine
from fmnist_pl.report.statistics import (
    Conclusion,
    Contrast,
    Figures,
    Finding,
    Verdict,
    mcnemar,
    mean_interval,
    measure,
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
    }
    return Figures(test_acc, **(defaults | others))


def sweep(**accuracies: Sequence[float]) -> dict[str, dict[int, Figures]]:
    """By arm and seed, of test accuracies by arm."""
    return {arm: dict(enumerate(map(figures, values))) for arm, values in accuracies.items()}


STUDY = {"a": figures(0.93), "b": figures(0.90)}


def find(*contrasts: Contrast, **accuracies: Sequence[float]) -> Finding:
    runs = sweep(**accuracies)
    evidence = tuple(measure(contrast, runs, STUDY) for contrast in contrasts)
    return Finding(Conclusion("A statement.", "A test.", contrasts), evidence)


def test_interval_is_students() -> None:
    # Standard deviation 1, so 4.302653 (two degrees of freedom) / sqrt(3) to each side.
    assert mean_interval([1, 2, 3]) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    values = np.random.default_rng(0).normal(0.01, 0.02, 7)
    for level in (0.95, 0.99):
        expected = DescrStatsW(values).tconfint_mean(1 - level)
        assert mean_interval(values, level) == pytest.approx(expected, rel=1e-12)


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
    assert "+2.20 points (95 % interval +1.16 to +3.24)" in finding.explanation
    assert "on 5 seeds" in finding.explanation


@pytest.mark.parametrize(
    ("a", "verdict", "words"),
    [
        ([0.88, 0.87, 0.89, 0.88, 0.88], Verdict.FAILS, "the opposite is the case"),
        ([0.9001, 0.8999, 0.9, 0.9001, 0.8998], Verdict.FAILS, "no effect to speak of"),
        ([0.95, 0.86, 0.92, 0.88, 0.91], Verdict.UNDECIDED, "more seeds are needed"),
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
    assert measure(DIFFERENCE, runs, study).verdict(looks=1) is Verdict.HOLDS
    evidence = measure(better("a", "b"), runs, study)
    assert evidence.mcnemar == (1, 5)
    assert evidence.verdict(looks=1) is Verdict.UNDECIDED
    assert "McNemar's test finds it in 1 of 5 pairs" in evidence.reason(Verdict.UNDECIDED)
    evidence = measure(better("a", "b"), sweep(a=0.9 + 2 * lead, b=[0.9] * 5), study)
    assert evidence.mcnemar == (5, 5)
    assert evidence.verdict(looks=1) is Verdict.HOLDS
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
    assert evidence.verdict(looks=1) is Verdict.FAILS
    assert evidence.verdict(looks=5) is Verdict.UNDECIDED


def test_luck_alone_seldom_holds() -> None:
    rng = np.random.default_rng(0)
    verdicts = [
        find(DIFFERENCE, a=rng.normal(0.9, 0.01, 5), b=rng.normal(0.9, 0.01, 5)).verdict
        for _ in range(400)
    ]
    assert 1 <= verdicts.count(Verdict.HOLDS) <= 20  # 2.5 % expected
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
        *("holds", "does not hold", "holds", "does not hold"),
    ]
