"""What a report judges of a sweep, on one kind of weights: the study's conclusions, and the best.

Every comparison is made twice, on the weights that were tested and on averaged ones: the first
speaks of the recipe as published, the second of nets that depend less on where training stops.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fmnist_pl.report.arms import ARMS
from fmnist_pl.report.conclusions import CONCLUSIONS, better, published_figures
from fmnist_pl.report.evidence import Figures, Verdict, measure
from fmnist_pl.report.findings import Conclusion, Finding
from fmnist_pl.report.predictions import JUDGED
from fmnist_pl.report.search import Search
from fmnist_pl.report.statistics import ERROR, ONCE, Rules, holm, times_chosen
from fmnist_pl.report.variants import Sweep, Variant

NOT_JUDGED = (
    "None of the study's eight conclusions can be told from these runs: it takes the study's "
    "models under the study's protocol, on Fashion-MNIST, from two seeds at least."
)


@dataclass(frozen=True)
class Judgement:
    """What is said of the runs with one kind of their weights."""

    weights: str  # a key of `JUDGED`
    findings: Sequence[Finding]  # the study's eight conclusions
    lead: Finding | None  # of the best model, or of what a search chose
    best: Variant | None  # on the validation images
    chosen: Mapping[str, float]  # by label, how often other seeds would choose it

    @property
    def subject(self) -> str:
        return JUDGED[self.weights]

    @property
    def tells(self) -> bool:
        """Whether the runs say something of a conclusion."""
        return any(one.verdict is not Verdict.UNTESTED for one in self.findings)

    @property
    def choice(self) -> str:
        """The best on the validation images, and whether other seeds would choose it."""
        if not self.best:
            return ""
        said = f"{self.best.label} is the best on the validation images"
        shares = sorted(self.chosen.items(), key=lambda each: -each[1])
        if len(shares) < 2:
            return f"{said}."
        told = ", ".join(f"{label} {share:.0%}" for label, share in shares if share >= 0.005)
        return f"{said}. With other seeds it would be (a bootstrap over those there are): {told}."

    @property
    def rivals(self) -> list[str]:
        """Those that the best model is not shown to be ahead of."""
        decisions = self.lead.decisions if self.lead else ()
        return [one.contrast.arms[1] for said, one in decisions if said is not Verdict.HOLDS]

    @property
    def decided(self) -> list[int]:
        """The numbers of the conclusions that are decided."""
        undecided = (Verdict.UNDECIDED, Verdict.UNTESTED)
        return [i for i, one in enumerate(self.findings, 1) if one.verdict not in undecided]

    @property
    def standing(self) -> list[int]:
        """The numbers of those that are, if all conclusions share one error (Holm)."""
        smallest = [one.smallest_error for one in self.findings]
        allowed = holm(smallest, ERROR)
        return [
            i
            for i, (one, most) in enumerate(zip(smallest, allowed, strict=True), 1)
            if one <= most and i in self.decided
        ]


def judge(sweep: Sweep, search: Search | None, rules: Rules) -> list[Judgement]:
    """By each kind of weights, as of `JUDGED`."""
    return [judge_by(sweep, search, rules, weights) for weights in JUDGED]


def judge_by(sweep: Sweep, search: Search | None, rules: Rules, weights: str) -> Judgement:
    arms = {arm: variant.figures(weights) for arm, variant in sweep.study.items()}
    findings = examine(arms, rules, weights)
    best = sweep.best_by(weights)
    if search:
        lead = search.lead(sweep, rules, weights)
        return Judgement(weights, findings, lead, best, {})
    lead = compare(sweep, best, rules, weights) if best else None
    return Judgement(weights, findings, lead, best, choices(sweep, weights))


def examine(
    sweep: Mapping[str, Mapping[int, Figures]], rules: Rules = ONCE, weights: str = "tested"
) -> list[Finding]:
    """The eight conclusions, in the study's order, on the figures by arm and seed."""
    study = {arm: published_figures(arm) for arm in ARMS} if weights == "tested" else {}
    return [
        Finding(each, tuple(measure(contrast, sweep, study, rules) for contrast in each.contrasts))
        for each in CONCLUSIONS
    ]


def compare(sweep: Sweep, best: Variant, rules: Rules, weights: str) -> Finding | None:
    """Whether the best on the validation images leads on the test images, over each of the others.

    The others are those of the same classes; None where there are none.
    """
    if not (conclusion := leadership(sweep, best)):
        return None
    figures = {v.label: v.figures(weights) for v in sweep.candidates}
    published = sweep.study.items() if weights == "tested" else ()
    study = {v.label: published_figures(arm) for arm, v in published}
    evidence = (measure(each, figures, study, rules) for each in conclusion.contrasts)
    return Finding(conclusion, tuple(evidence))


def leadership(sweep: Sweep, best: Variant) -> Conclusion | None:
    """The statement of `compare`."""
    others = [v for v in sweep.candidates if v.groups == best.groups and v is not best]
    if not others:
        return None
    return Conclusion(
        f"{best.label} is the best model.",
        "The best on the validation images has a higher test accuracy than each of the others.",
        tuple(better(best.label, v.label) for v in others),
        several=True,
    )


def choices(sweep: Sweep, weights: str) -> dict[str, float]:
    """By label, how often as many other seeds would choose it on the validation images."""
    scores = {v.label: list(v.validation(weights).values()) for v in sweep.candidates}
    if min(map(len, scores.values()), default=0) < 2:
        return {}
    return dict(zip(scores, times_chosen(list(scores.values())).tolist(), strict=True))


def error_of_the_page(judgements: Sequence[Judgement], rules: Rules) -> str:
    """What probability of error all verdicts on conclusions have together, in a sentence."""
    counts = [len(one.decided) for one in judgements]
    if not any(counts):
        return ""
    most, decided = max(counts), " and ".join(map(str, dict.fromkeys(counts)))
    once = len(rules.looks) == 1
    text = (
        f"Each verdict is wrong at most once in {1 / ERROR:.0f}"
        f"{'' if once else ', over all looks together'}. Of the {decided} decided ones in a column "
        f"at most {most * ERROR:.2g} are wrong on average, and with a probability of up to "
        f"{min(most * ERROR, 1):.0%} at least one is"
    )
    if not once:
        return f"{text}."
    stand = " and ".join(
        f"{', '.join(map(str, one.standing)) or 'none'} with {one.subject}" for one in judgements
    )
    return (
        f"{text}; if that is held to {ERROR:.0%} (Holm's correction over all eight), the "
        f"conclusions that still have theirs are {stand}."
    )
