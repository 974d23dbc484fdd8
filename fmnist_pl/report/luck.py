"""Where luck comes from: the spread of runs in which one source of chance varies, or all, or none.

Runs are one family if their options differ in `seeds.*` alone. In a variant of it the sources that
have no seed of their own vary with that of the run. Runs of which all four seeds are the same, in
whichever variants, are repetitions: there nothing varies.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fmnist_pl.options.schema import Seeds
from fmnist_pl.report.noise import entry
from fmnist_pl.report.recipes import recipe
from fmnist_pl.report.runs import FIGURES, Run
from fmnist_pl.report.statistics import FEW_SEEDS, LEVEL
from fmnist_pl.report.variants import Sweep, Variant

SOURCES = {
    "init": "initial weights",
    "order": "image order",
    "augment": "augmentation",
    "dropout": "dropout",
}
CAPTION = (
    "Mean test accuracy by weights; its standard deviation (sd) over the runs, with the 95% "
    "interval that chi-square gives where figures are normally distributed; and its variance as a "
    "share of that where all sources vary, with the interval of F. Nothing varies between runs of "
    "which all four seeds are the same."
)
BY_WEIGHTS = {"last": "last epoch", "averaged": "averaged weights"}


@dataclass(frozen=True)
class Spread:
    """Two runs or more of a family in which the same sources vary."""

    sources: tuple[str, ...]
    runs: Sequence[Run]

    @property
    def varies(self) -> str:
        if len(self.sources) == len(SOURCES):
            return "all"
        return " and ".join(SOURCES[source] for source in self.sources) or "nothing"

    def accuracies(self, weights: str = "last") -> NDArray[np.float64]:
        """On the test images (runs,), with some of the weights of each run."""
        return np.array([run.entries[entry(weights)] for run in self.runs])

    @property
    def same(self) -> bool:
        """Whether the runs have the same figures, to the last bit."""
        return len({tuple(run.entries[name] for name in FIGURES) for run in self.runs}) == 1


@dataclass(frozen=True)
class Family:
    """The spreads of a family: all sources, some, each alone, none, as far as there are runs."""

    of: Variant  # one of it
    spreads: Sequence[Spread]

    @property
    def all(self) -> Spread | None:
        return next((one for one in self.spreads if len(one.sources) == len(SOURCES)), None)

    @property
    def some(self) -> list[Spread]:
        return [one for one in self.spreads if one.sources and one is not self.all]

    @property
    def alone(self) -> list[Spread]:
        return [one for one in self.some if len(one.sources) == 1]

    def row(self, spread: Spread) -> list[str]:
        """What varies, how many runs, and for each of the weights mean, deviation and share."""
        cells = [spread.varies, str(len(spread.runs))]
        for weights in BY_WEIGHTS:
            own, share = spread.accuracies(weights), "-"
            if self.all and np.ptp(whole := self.all.accuracies(weights)):
                ratio, low, high = variance_ratio(own, whole)
                share = f"{ratio:.0%} ({low:.0%} to {high:.0%})"
            low, high = deviation_interval(own)
            deviation = f"{points(own)} ({100 * low:.2f} to {100 * high:.2f})"
            cells += [f"{own.mean():.4f}", deviation, "100%" if spread is self.all else share]
        return cells

    def in_words(self) -> list[str]:
        """What the spreads say, in sentences for a reader new to them."""
        said = []
        if self.all:
            last, averaged = map(points, map(self.all.accuracies, BY_WEIGHTS))
            said += [
                f"Where every source of chance varies, the test accuracy of the last epoch has a "
                f"standard deviation of {last} points over {len(self.all.runs)} runs; with weights "
                f"averaged over epochs, of {averaged}."
            ]
        if self.some:
            each = (f"{one.varies} {points(one.accuracies())}" for one in self.some)
            said += [
                "Where only these vary, the standard deviation of the last epoch is, in points: "
                f"{', '.join(each)}."
            ]
        moving = [values for one in self.alone if np.ptp(values := one.accuracies())]
        if len(moving) > 1 and min(map(len, moving)) >= FEW_SEEDS:
            p = stats.levene(*moving).pvalue
            which = (
                "The sources differ by more than luck explains"
                if p < 1 - LEVEL
                else "Which source alone gives more, these runs cannot tell"
            )
            said += [f"{which} (Levene's test, p = {p:.2g})."]
        alone = {source for one in self.alone for source in one.sources}
        whole = self.all.accuracies() if self.all else np.zeros(1)
        if alone >= {"init", "order", "augment"} and np.ptp(whole):
            total = sum(variance_ratio(one.accuracies(), whole)[0] for one in self.alone)
            said += [
                f"The variances of each alone add up to {total:.0%} of that of all. They need not "
                "come to 100%: training makes a small difference grow, wherever it came from."
            ]
        for one in self.spreads:
            if not one.sources:
                left = f"a standard deviation of {points(one.accuracies())} points still"
                what = "the same figures, to the last bit" if one.same else left
                said += [f"Where nothing varies, {len(one.runs)} runs have {what}."]
        fewest = min((len(one.runs) for one in self.spreads if one.sources), default=FEW_SEEDS)
        said += [f"(Only {fewest} runs: these figures are rough.)"] * (fewest < FEW_SEEDS)
        return [f"{self.of.name}: {said[0]}", *said[1:]]


def families(sweep: Sweep) -> list[Family]:
    """Those of a sweep of which it is known what fewer than all sources do."""
    groups: dict[str, list[Variant]] = defaultdict(list)
    for variant in sweep.finished:
        groups[recipe(replace(variant.config, seeds=Seeds()))].append(variant)
    found = [
        Family(members[0], spreads(members))
        for members in groups.values()
        if any(variant.config.seeds.own() for variant in members)
    ]
    return [one for one in found if any(each is not one.all for each in one.spreads)]


def spreads(variants: Iterable[Variant]) -> list[Spread]:
    """Of the variants of a family, those of most sources first; then of the repetitions."""
    found = []
    repetitions: dict[tuple[int, ...], list[Run]] = defaultdict(list)
    for variant in variants:
        own, runs = variant.config.seeds.own(), list(variant.finished.values())
        found.append(Spread(tuple(source for source in SOURCES if source not in own), runs))
        for run in runs:
            repetitions[tuple(own.get(source, run.seed) for source in SOURCES)].append(run)
    found = [one for one in found if one.sources]
    found.sort(key=lambda one: (-len(one.sources), [*map([*SOURCES].index, one.sources)]))
    found.append(Spread((), max(repetitions.values(), key=len)))
    return [one for one in found if len(one.runs) > 1]


def luck_table(sweep: Sweep) -> list[list[str]]:
    """A row for each spread, the head first; a standard deviation in points, with its interval."""
    others = [name for name in sweep.varied if name.partition(".")[0] != "seeds"]
    figures = [[name, "sd, points", "of the variance of all"] for name in BY_WEIGHTS.values()]
    return [
        ["model", *others, "what varies", "runs", *chain.from_iterable(figures)],
        *(
            [family.of.name, *family.of.values_of(others), *family.row(spread)]
            for family in families(sweep)
            for spread in family.spreads
        ),
    ]


def points(accuracies: NDArray[np.float64]) -> str:
    """Their standard deviation, times 100."""
    return f"{100 * accuracies.std(ddof=1):.2f}"


def deviation_interval(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """The chi-square interval of a standard deviation, for values (N,) normally distributed."""
    freedom = len(values) - 1
    ends = stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], freedom)
    low, high = values.std(ddof=1) * np.sqrt(freedom / ends)
    return float(low), float(high)


def variance_ratio(
    values: NDArray[np.float64], others: NDArray[np.float64], level: float = LEVEL
) -> tuple[float, float, float]:
    """The variance of values (N,) over that of others (M,), and its F interval."""
    ratio = values.var(ddof=1) / others.var(ddof=1)
    freedom = len(values) - 1, len(others) - 1
    low, high = ratio / stats.f.ppf([(1 + level) / 2, (1 - level) / 2], *freedom)
    return float(ratio), float(low), float(high)
