"""How a statement about models is tested on runs of several seeds, and when it holds.

A conclusion is a few contrasts: numbers taken from runs of one seed, above zero where it is right.
Two kinds of luck could make it look right: that of the seeds, which an interval answers, and that
of the test images, which McNemar's test answers. It must survive both; SciPy computes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MARGIN = 0.002  # 20 of 10,000 test images; a smaller effect counts as none
LEVEL = 0.95
FEW_SEEDS = 5  # with fewer an interval is wide and rests on the assumption of a normal distribution


@dataclass(frozen=True, eq=False)
class Figures:
    """What the hypotheses look at in one finished run; accuracies in [0, 1], losses in nats."""

    test_acc: float
    class_acc: Sequence[float]  # (C,), on the test images
    confusion: NDArray[Any]  # (C, C), test images; rows are true classes, columns predictions
    right: NDArray[np.bool_]  # (N,), which test images
    train_acc: Sequence[float]  # (E,), by epoch, and so the rest; cross-entropy without penalty
    val_acc: Sequence[float]
    train_loss: Sequence[float]
    val_loss: Sequence[float]


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    UNTESTED = "cannot tell"  # runs or seeds are missing


@dataclass(frozen=True)
class Contrast:
    """A number from one run of each arm, all of one seed, that is above zero if `claim` is true."""

    claim: str
    arms: tuple[str, ...]
    effect: Callable[..., float]  # of the `Figures` of the arms, in their order
    unit: str = "points"  # of the effect times 100
    mcnemar: bool = False  # whether the effect is the lead of the first arm's net on the second's
    every: bool = True  # False: those of the arms that the sweep has
    epochs: int = 1  # without at least so many the effect has no meaning


@dataclass(frozen=True)
class Conclusion:
    statement: str
    test: str  # what must be seen for it to hold, in one sentence
    contrasts: tuple[Contrast, ...]


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of a mean; at least two values."""
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Exact two-sided p-value of McNemar's test that two nets are right equally often.

    Args:
        first: which images (N,) one net has right.
        second: the same of the other.
    """
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


@dataclass(frozen=True)
class Evidence:
    """A contrast as measured.

    Seeds and their interval speak of the recipe, on these test images; McNemar's test speaks of
    two trained nets, on test images like these. Its outcomes for several seeds share the images,
    so they are not pooled but counted: more than half significant in the direction of the claim
    at 2.5 % (two-sided 5 %) happens by chance at most once in 20, however dependent they are
    (B. Rüger, Metrika 25, 1978).
    """

    contrast: Contrast
    missing: tuple[str, ...]  # what the sweep lacks for it
    effects: Mapping[int, float]  # by seed
    published: float  # of the study's single run; NaN: unknown
    mcnemar: tuple[int, int] = (0, 0)  # pairs of nets, a pair a seed: significant for it, of all

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.effects.values())))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        return mean_interval(list(self.effects.values()), level)

    @property
    def survives_mcnemar(self) -> bool:
        significant, pairs = self.mcnemar
        return not self.contrast.mcnemar or 2 * significant > pairs

    def verdict(self, looks: int) -> Verdict:
        """Of this contrast alone.

        Args:
            looks: contrasts any of which would refute the conclusion; each must do so at
                1 - 5 % / looks (Bonferroni). That all of them hold needs no correction.
        """
        if self.missing:
            return Verdict.UNTESTED
        if self.interval()[0] > 0 and self.survives_mcnemar:
            return Verdict.HOLDS
        if self.interval(1 - (1 - LEVEL) / looks)[1] < MARGIN:
            return Verdict.FAILS
        return Verdict.UNDECIDED

    def in_words(self) -> str:
        """The claim and, where there is one, the effect."""
        if not self.effects:
            return self.contrast.claim
        return f"{self.contrast.claim}, {in_words(list(self.effects.values()), self.contrast.unit)}"

    def reason(self, verdict: Verdict) -> str:
        """Why the contrast does not hold or is undecided, for a reader new to intervals."""
        low, high = self.interval()
        if verdict is Verdict.FAILS:
            return "the opposite is the case" if high < 0 else "no effect to speak of"
        if low <= 0:
            return "the interval leaves room for no effect, so more seeds are needed"
        significant, pairs = self.mcnemar
        return (
            f"the seeds agree, but McNemar's test finds it in {significant} of {pairs} pairs of "
            "nets only, so other test images might show none"
        )


@dataclass(frozen=True)
class Finding:
    """A conclusion with its evidence."""

    conclusion: Conclusion
    evidence: tuple[Evidence, ...]

    def verdict_on(self, evidence: Evidence) -> Verdict:
        return evidence.verdict(looks=len(self.evidence))

    @property
    def verdict(self) -> Verdict:
        """It holds if every contrast does, and does not if any does not."""
        verdicts = {self.verdict_on(one) for one in self.evidence}
        for decisive in (Verdict.FAILS, Verdict.UNTESTED, Verdict.UNDECIDED):
            if decisive in verdicts:
                return decisive
        return Verdict.HOLDS

    @property
    def explanation(self) -> str:
        """The verdict's reasons, in words a student understands."""
        verdict = self.verdict
        if verdict is Verdict.UNTESTED:
            missing = dict.fromkeys(item for one in self.evidence for item in one.missing)
            return f"It takes {'; '.join(missing)}."
        decisive = [one for one in self.evidence if self.verdict_on(one) is verdict]
        seeds = min(len(one.effects) for one in decisive)
        if verdict is Verdict.HOLDS:
            weakest = min(decisive, key=lambda one: one.mean)
            subject = "It shows" if len(decisive) == 1 else "Every part of it shows"
            which = "that" if len(decisive) == 1 else "the smallest effect is that"
            reasons = [
                f"{subject} on {seeds} seeds, by more than luck explains: "
                f"{which} {weakest.in_words()}."
            ]
        else:
            opening = "Against it: that " if verdict is Verdict.FAILS else "Open: whether "
            claims: dict[str, list[str]] = {}  # by reason
            for one in decisive:
                claims.setdefault(one.reason(verdict), []).append(one.in_words())
            reasons = [f"{opening}{'; '.join(these)}: {why}." for why, these in claims.items()]
        if seeds < FEW_SEEDS:
            reasons.append(f"(Only {seeds} seeds: the intervals are wide.)")
        return " ".join(reasons)


def in_units(effect: float) -> str:
    """An effect times 100 with its sign, to two digits."""
    return f"{100 * effect:+.2f}".replace("-", "\N{MINUS SIGN}")


def in_words(effects: Sequence[float], unit: str = "points") -> str:
    """Mean effect over seeds and its interval, as `+1.23 points (95 % interval +0.80 to +1.66)`."""
    effect = f"{in_units(float(np.mean(effects)))} {unit}"
    if len(effects) < 2:
        return f"{effect} (one seed: no interval)"
    low, high = map(in_units, mean_interval(effects))
    return f"{effect} ({100 * LEVEL:.0f} % interval {low} to {high})"


def measure(
    contrast: Contrast, sweep: Mapping[str, Mapping[int, Figures]], study: Mapping[str, Figures]
) -> Evidence:
    """A contrast on the seeds that all its arms have.

    Args:
        contrast: what to measure.
        sweep: by arm and seed the figures of the finished runs.
        study: by arm the published figures, where there are any.
    """
    arms, published = list(contrast.arms), nan
    if study.keys() >= set(arms):
        published = contrast.effect(*(study[arm] for arm in arms))
    lacking = [f"finished runs of {arm}" for arm in arms if not sweep.get(arm)]
    if not contrast.every and len(lacking) < len(arms):
        arms, lacking = [arm for arm in arms if sweep.get(arm)], []
    if lacking:
        return Evidence(contrast, tuple(lacking), {}, published)

    seeds = sorted(set.intersection(*(set(sweep[arm]) for arm in arms)))
    runs = {seed: [sweep[arm][seed] for arm in arms] for seed in seeds}
    if any(len(run.val_loss) < contrast.epochs for each in runs.values() for run in each):
        return Evidence(contrast, (f"runs of at least {contrast.epochs} epochs",), {}, published)
    if len(seeds) < 2:
        names = " and ".join(dict.fromkeys(arms))
        lacking = [f"two seeds of {names} (there {'is one' if seeds else 'is none in common'})"]
    effects = {seed: contrast.effect(*each) for seed, each in runs.items()}
    if any(map(isnan, effects.values())):
        names = " and ".join(dict.fromkeys(arms))
        return Evidence(contrast, (f"runs of {names} without NaN",), {}, published)
    significant = pairs = 0
    for seed, (first, second) in runs.items() if contrast.mcnemar else ():
        pairs += 1
        significant += effects[seed] > 0 and mcnemar(first.right, second.right) < 1 - LEVEL
    return Evidence(contrast, tuple(lacking), effects, published, (significant, pairs))
