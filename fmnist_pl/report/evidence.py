"""A contrast of models as measured: what the seeds and the test images say of it.

It is a number taken from runs of one seed, above zero where its claim is right. Two kinds of luck
could make it look right: that of the seeds, which an interval answers, and that of the test images,
which McNemar's test answers. It must survive both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import islice
from math import isnan, nan
from operator import le
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.report.statistics import (
    ERROR,
    LEVEL,
    ONCE,
    Errors,
    Rules,
    mcnemar,
    mean_interval,
    smallest_errors,
)


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
    seconds: float = nan  # of training


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold"
    EQUAL = "no difference"  # of the margin or more
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
    of_weights: bool = True  # False: of the curves of training, whichever weights are tested

    @property
    def suffix(self) -> str:
        """The unit behind a number: `5 points`, but `5%`."""
        return self.unit if self.unit.startswith("%") else f" {self.unit}"


@dataclass(frozen=True)
class Evidence:
    """A contrast as measured.

    Seeds and their interval speak of the recipe, on these test images; McNemar's test speaks of
    two trained nets, on test images like these. Its outcomes for several seeds share the images,
    so they are not pooled but counted: more than half significant in the direction of the claim
    at 2.5% (two-sided 5%) happens by chance at most once in 20, however dependent they are
    (B. Rüger, Metrika 25, 1978).
    """

    contrast: Contrast
    missing: tuple[str, ...]  # what the sweep lacks for it
    effects: Mapping[int, float]  # by seed
    published: float  # of the study's single run; NaN: unknown
    agrees: Mapping[int, bool]  # by seed, if it is asked: McNemar's test is significant for it
    seconds: Mapping[str, float]  # by arm, of training of one seed
    rules: Rules

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.effects.values())))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Of all seeds; where they are looked at several times, one that is good at each look."""
        effects = list(self.effects.values())
        return mean_interval(effects, 1 - self.rules.error(len(effects)))

    @property
    def mcnemar(self) -> tuple[int, int]:
        """Pairs of nets, a pair a seed: for which the test is significant, of all."""
        return sum(self.agrees.values()), len(self.agrees)

    def survives_mcnemar(self, seeds: int | None = None) -> bool:
        agrees = list(islice(self.agrees.values(), seeds))
        return not self.contrast.mcnemar or 2 * sum(agrees) > len(agrees)

    def smallest_errors(self, seeds: int | None = None) -> Errors:
        """Of the first so many seeds, or all; "positive" is not said without McNemar's test."""
        found = smallest_errors(list(islice(self.effects.values(), seeds)), self.rules.margin)
        return found if self.survives_mcnemar(seeds) else found._replace(positive=1.0)

    def verdict(self, seeds: int | None, allowed: Errors) -> Verdict:
        """Of the first so many seeds.

        Args:
            seeds: at least two; None: all.
            allowed: the probability of error that each may have.
        """
        positive, negative, equal, small = map(le, self.smallest_errors(seeds), allowed)
        if positive:
            return Verdict.HOLDS
        if equal and not negative:
            return Verdict.EQUAL
        return Verdict.FAILS if negative or small else Verdict.UNDECIDED

    def in_words(self) -> str:
        """The claim and, where there is one, the effect."""
        if not self.effects:
            return self.contrast.claim
        told = in_words(self.interval) if len(self.effects) > 1 else "one seed: no interval"
        return f"{self.contrast.claim}, {in_units(self.mean)}{self.contrast.suffix} ({told})"

    @property
    def next_look(self) -> int | None:
        """The number of seeds at which it is asked again, if that is planned."""
        return next((at for at, _ in self.rules.looks if at and at > len(self.effects)), None)

    def up_to(self, seeds: int | None) -> "Evidence":
        """Of the first so many seeds alone."""
        chosen = set(islice(self.effects, seeds))
        return replace(
            self,
            effects={seed: one for seed, one in self.effects.items() if seed in chosen},
            agrees={seed: one for seed, one in self.agrees.items() if seed in chosen},
        )

    def reason(self, verdict: Verdict) -> str:
        """Why the contrast does not hold or is undecided, for a reader new to intervals."""
        low, high = self.interval
        margin = f"{100 * self.rules.margin:.2g}{self.contrast.suffix}"
        if verdict is Verdict.FAILS:
            return "the opposite is the case" if high < 0 else f"no effect of {margin} or more"
        if verdict is Verdict.EQUAL:
            return f"it is less than {margin}, either way"
        significant, pairs = self.mcnemar
        images = (
            f"McNemar's test finds it in {significant} of {pairs} pairs of nets only, so other "
            "test images might show none"
        )
        if low <= 0:
            room = "the interval leaves room for an effect and for none"
            return room if self.survives_mcnemar() or self.mean <= 0 else f"{room}, and {images}"
        if self.next_look:
            return "it has not been asked at so many seeds"
        if self.survives_mcnemar():
            return "by itself it would hold, but among so many comparisons one looks so by chance"
        return f"the seeds agree, but {images}"


def in_units(effect: float) -> str:
    """An effect times 100 with its sign, to two digits, to three where those would be zeros."""
    digits = 3 if 5e-6 <= abs(effect) < 5e-5 else 2
    return f"{100 * effect:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def in_words(interval: tuple[float, float]) -> str:
    """As `95% interval +0.80 to +1.66`."""
    low, high = map(in_units, interval)
    return f"{100 * LEVEL:.0f}% interval {low} to {high}"


def measure(
    contrast: Contrast,
    sweep: Mapping[str, Mapping[int, Figures]],
    study: Mapping[str, Figures],
    rules: Rules = ONCE,
) -> Evidence:
    """A contrast on the seeds that all its arms have.

    Args:
        contrast: what to measure.
        sweep: by arm and seed the figures of the finished runs.
        study: by arm the published figures, where there are any.
        rules: by which it is judged.
    """
    arms, published = list(contrast.arms), nan
    if study.keys() >= set(arms):
        published = contrast.effect(*(study[arm] for arm in arms))
    lacking = [f"finished runs of {arm}" for arm in arms if not sweep.get(arm)]
    if not contrast.every and len(lacking) < len(arms):
        arms, lacking = [arm for arm in arms if sweep.get(arm)], []

    def evidence(
        missing: Sequence[str],
        effects: Mapping[int, float] | None = None,
        agrees: Mapping[int, bool] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> Evidence:
        found = effects or {}, published, agrees or {}, seconds or {}
        return Evidence(contrast, tuple(missing), *found, rules)

    if lacking:
        return evidence(lacking)
    names = " and ".join(dict.fromkeys(arms))
    seeds = sorted(set.intersection(*(set(sweep[arm]) for arm in arms)))
    runs = {seed: [sweep[arm][seed] for arm in arms] for seed in seeds}
    if any(len(run.val_loss) < contrast.epochs for each in runs.values() for run in each):
        return evidence([f"runs of at least {contrast.epochs} epochs"])
    effects = {seed: contrast.effect(*each) for seed, each in runs.items()}
    if any(map(isnan, effects.values())):
        return evidence([f"runs of {names} without NaN"])
    tested = {len(run.right) for each in runs.values() for run in each}
    if contrast.mcnemar and len(tested) > 1:
        return evidence([f"runs of {names} with the same number of tested images"])
    agrees = {
        seed: effects[seed] > 0 and mcnemar(first.right, second.right) < ERROR
        for seed, (first, second) in (runs.items() if contrast.mcnemar else ())
    }
    seconds = {arm: float(np.mean([run.seconds for run in sweep[arm].values()])) for arm in arms}
    if len(seeds) < 2:
        lacking = [f"two seeds of {names} (there {'is one' if seeds else 'is none in common'})"]
    return evidence(lacking, effects, agrees, seconds)
