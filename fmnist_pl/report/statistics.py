"""The arithmetic of verdicts: intervals, tests and their errors, and how many seeds they take.

Effects are numbers, one for each seed, taken to be normal and independent. SciPy computes;
`docs/statistics.md` says what each test assumes and how often it errs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

MARGIN = 0.002  # 20 of 10,000 test images; a smaller effect counts as none
LEVEL = 0.95
ERROR = 1 - LEVEL  # of a verdict
FEW_SEEDS = 5  # with fewer an interval is wide and rests on the assumption of a normal distribution
POWER = 0.8  # with which enough seeds decide
MOST_SEEDS = 1_000  # beyond this nobody asks how many


@dataclass(frozen=True)
class Rules:
    """What a report may say.

    Args:
        margin: the smallest effect that counts, as a share.
        looks: where seeds are added until all is decided: after how many it is asked, and what
            probability of error is spent on each of these looks. None: after all there are.
    """

    margin: float = MARGIN
    looks: tuple[tuple[int | None, float], ...] = ((None, ERROR),)

    def error(self, seeds: int) -> float:
        """What is spent on the last look that so many seeds allow; before the first, on that."""
        reached = [error for count, error in self.looks if (count or 0) <= seeds]
        return (reached or [self.looks[0][1]])[-1]


ONCE = Rules()


class Errors(NamedTuple):
    """A probability of error for each thing that can be said of an effect."""

    positive: float  # it is above zero
    negative: float  # it is below zero
    equal: float  # it is nearer to zero than the margin
    small: float  # it is below the margin


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of a mean; at least two values."""
    mean, error, free = moments(values)
    half = error * special.stdtrit(free, (1 + level) / 2)
    return float(mean - half), float(mean + half)


def moments(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, its standard error, and the degrees of freedom of that."""
    array = np.asarray(values, float)
    return array.mean(), array.std(ddof=1) / np.sqrt(len(array)), len(array) - 1


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Exact two-sided p-value of McNemar's test that two nets are right equally often.

    Args:
        first: which images (N,) one net has right.
        second: the same of the other.
    """
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    # Of so many tosses of a coin; its two tails are alike.
    return min(1.0, 2 * float(special.bdtr(min(wins, losses), wins + losses, 0.5)))


def smallest_errors(effects: Sequence[float], margin: float) -> Errors:
    """Of the mean effect; at least two effects.

    Above or below something is an end of the interval of Student's t, so both of its ends share
    the error; equality is two one-sided tests, of which each may have it all (D. J. Schuirmann,
    J. Pharmacokinet. Biopharm. 15, 1987).
    """
    mean, error, free = moments(effects)

    def above(bound: float) -> float:
        """One-sided p-value of the mean's being at most so much."""
        if error == 0:
            return 0.0 if mean > bound else 1.0
        return float(special.stdtr(free, (bound - mean) / error))

    def below(bound: float) -> float:
        if error == 0:
            return 0.0 if mean < bound else 1.0
        return float(special.stdtr(free, (mean - bound) / error))

    return Errors(2 * above(0), 2 * below(0), max(above(-margin), below(margin)), 2 * below(margin))


def holm(smallest: Sequence[float], error: float) -> list[float]:
    """Of several questions the error that each may have, so that all together have `error`.

    Args:
        smallest: of each the probability of error at which it is decided.
        error: the probability that any is decided wrongly (S. Holm, Scand. J. Stat. 6, 1979).

    Returns:
        In the order of the questions; 0 where an easier one is not decided.
    """
    allowed = [0.0] * len(smallest)
    for rank, which in enumerate(np.argsort(smallest, kind="stable")):
        allowed[which] = error / (len(smallest) - rank)
        if smallest[which] > allowed[which]:
            break
    return allowed


def spend(looks: Sequence[int], error: float = ERROR) -> tuple[tuple[int, float], ...]:
    """What probability of error each of several looks may have.

    The spending function of K. K. G. Lan and D. L. DeMets (Biometrika 70, 1983) that is near to
    Pocock's boundaries. That the looks share their seeds is not made use of, so the errors add up
    to at most `error` for any test.
    """
    spent = error * np.log(1 + (np.e - 1) * np.array([0, *looks]) / looks[-1])
    return tuple(zip(looks, np.diff(spent).tolist(), strict=True))


def times_chosen(scores: Sequence[Sequence[float]], draws: int = 10_000) -> NDArray[np.float64]:
    """How often each would be the best of mean score, with other seeds (a bootstrap over seeds).

    Args:
        scores: of each candidate, by seed.
        draws: of as many seeds of each.
    """
    rng = np.random.default_rng(0)
    means = [
        rng.multinomial(len(own), [1 / len(own)] * len(own), draws) @ np.array(own) / len(own)
        for own in scores
    ]
    return np.bincount(np.argmax(means, axis=0), minlength=len(scores)) / draws


def chance_of_decision(
    seeds: NDArray[Any],
    mean: NDArray[Any],
    deviation: NDArray[Any],
    margin: float,
    errors: tuple[float, float],
) -> NDArray[np.float64]:
    """With which probability so many seeds decide, if effects have this mean and deviation.

    Args:
        seeds: at least 2; with the two that follow, of shapes that fit.
        mean: of the effect.
        deviation: of the effect, over seeds.
        margin: as of `smallest_errors`.
        errors: of "above zero", 0 if that is never said, and of "below the margin" and "equal".
    """
    seeds, mean, deviation = (np.asarray(one, float)[..., None] for one in (seeds, mean, deviation))
    free = seeds - 1
    quantiles = (np.arange(20) + 0.5) / 20  # of the deviation that will be seen
    error = deviation / np.sqrt(seeds)
    seen = error * np.sqrt(stats.chi2.ppf(quantiles, free) / free)
    above = stats.t.isf(errors[0] / 2, free) * seen if errors[0] else inf
    small = margin - stats.t.isf(errors[1] / 2, free) * seen
    equal = margin - stats.t.isf(errors[1], free) * seen
    below = np.where(equal > 0, equal, small)
    open_ = stats.norm.cdf((above - mean) / error) - stats.norm.cdf((below - mean) / error)
    chance: NDArray[np.float64] = 1 - np.maximum(open_, 0).mean(-1)
    return chance


def seeds_needed(
    effects: Sequence[float], margin: float, errors: tuple[float, float]
) -> tuple[float, float, float]:
    """How many seeds in all would decide with a probability of `POWER`, and the interval of that.

    Mean and deviation are taken to be those seen; for the interval, drawn as the effects leave
    them open.

    Args:
        effects: at least two, by which it is undecided.
        margin: as of `smallest_errors`.
        errors: as of `chance_of_decision`.

    Returns:
        The number and the ends of its interval; infinite: more than `MOST_SEEDS`.
    """
    count, rng = len(effects), np.random.default_rng(0)
    mean, deviation = float(np.mean(effects)), float(np.std(effects, ddof=1))
    if deviation == 0:
        return inf, inf, inf  # more of the same decide nothing
    deviations = deviation * np.sqrt((count - 1) / rng.chisquare(count - 1, 200))
    means = mean + deviations / np.sqrt(count) * rng.normal(size=200)
    grid = np.unique(np.geomspace(count + 1, max(MOST_SEEDS, count + 2), 80).astype(int))
    chances = chance_of_decision(
        grid, np.r_[mean, means][:, None], np.r_[deviation, deviations][:, None], margin, errors
    )
    enough = chances >= POWER
    needed = np.where(enough.any(1), grid[enough.argmax(1)], inf)
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = np.quantile(needed[1:], tails, method="inverted_cdf")
    return float(needed[0]), float(low), float(high)
