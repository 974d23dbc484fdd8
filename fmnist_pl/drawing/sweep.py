"""Pictures of what a sweep over numbers shows: accuracy against options, a search's history."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from fmnist_pl.drawing.style import GREY, INK, RIGHT, WRONG, styled, wrap

COLUMNS = 3  # of panels in a row
DECADE = 10  # options whose values span as much are drawn on a logarithmic scale
MANY = 8  # values of an option; of more of them only the ends are named
ROOM = 20  # characters below an axis


class Point(NamedTuple):
    """What was tried, and the metric from each seed."""

    options: Mapping[str, Any]
    values: Sequence[float]


class Axis:
    """Where the values of an option go: numbers by size, anything else one beside the other.

    Args:
        values: that occur.
        log: whether the scale is logarithmic; None: as far as they lie apart.
    """

    def __init__(self, values: Collection[Any], log: bool | None = None) -> None:
        self.numeric = all(type(value) in (int, float) for value in values)
        self.known = sorted(set(values)) if self.numeric else list(dict.fromkeys(values))
        if log is None and self.numeric:
            log = self.known[0] > 0 and self.known[-1] / self.known[0] >= DECADE
        self.log = self.numeric and bool(log)
        self.names = [f"{one:.4g}" if self.numeric else wrap(str(one)) for one in self.known]

    def place(self, value: Any) -> float:
        return float(value) if self.numeric else self.known.index(value)

    def share(self, value: Any) -> float:
        """The place between the lowest, 0, and the highest, 1."""
        scale = np.log if self.log else float
        low, high = (float(scale(self.place(end))) for end in (self.known[0], self.known[-1]))
        return (float(scale(self.place(value))) - low) / (high - low) if high > low else 0.5

    def label(self, axes: Axes) -> None:
        """Scale and ticks of a horizontal axis."""
        if self.log:
            axes.set_xscale("log")
            decades = np.log(self.known[-1] / self.known[0]) / np.log(DECADE)
            ticks = [(1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)][min(2, int(decades))]
            axes.xaxis.set_major_locator(LogLocator(subs=ticks))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if not self.numeric or (sum(map(len, self.names)) <= ROOM and not self.log):
            axes.set_xticks([self.place(value) for value in self.known], self.names)
            axes.xaxis.set_minor_locator(NullLocator())


def axes_of(points: Sequence[Point], log: Collection[str] | None = None) -> dict[str, Axis]:
    """By option, of those that vary.

    Args:
        points: what was tried.
        log: options of a logarithmic scale; None: each as far as its values lie apart.
    """
    names = dict.fromkeys(name for point in points for name in point.options)
    found = {name: [value_of(point, name) for point in points] for name in names}
    return {
        name: Axis(values, None if log is None else name in log)
        for name, values in found.items()
        if len(set(values)) > 1
    }


def value_of(point: Point, name: str) -> Any:
    """A number, or anything else as text."""
    value = point.options.get(name)
    return value if type(value) in (int, float) else str(value)


@styled
def by_option(points: Sequence[Point], axes: Mapping[str, Axis], metric: str) -> Figure:
    """The metric against each option: small, by seed; large, their mean."""
    rows, columns = -(-len(axes) // COLUMNS), min(len(axes), COLUMNS)
    figure = Figure(figsize=(max(4.5, 3.2 * columns), 2.8 * rows))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, (name, axis) in zip(panels, axes.items(), strict=False):
        for point in points:
            place = axis.place(value_of(point, name))
            panel.plot([place] * len(point.values), point.values, "o", color=GREY, markersize=2.5)
            panel.plot(place, np.mean(point.values), "o", color=RIGHT, markersize=5, alpha=0.8)
        axis.label(panel)
        panel.set_xlabel(name)
    for panel in panels[len(axes) :]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel(metric)
    return figure


@styled
def parallel(points: Sequence[Point], axes: Mapping[str, Axis], metric: str) -> Figure:
    """A line for each point through its options' values, in the colour of its metric."""
    means = [float(np.mean(point.values)) for point in points]
    colour = Normalize(min(means), max(means))
    figure = Figure(figsize=(1.9 * (len(axes) + 1), 3.4))
    panel = figure.subplots()
    end = Axis(means)
    for mean, point in sorted(zip(means, points, strict=True), key=lambda each: each[0]):
        places = [axis.share(value_of(point, name)) for name, axis in axes.items()]
        shade = colormaps["viridis_r"](colour(mean))
        panel.plot([*places, end.share(mean)], color=shade, alpha=0.8)
    for i, axis in enumerate([*axes.values(), end]):
        panel.axvline(i, color=INK, linewidth=0.8)
        for value, name in zip(axis.known, axis.names, strict=True):
            if len(axis.known) <= MANY or value in (axis.known[0], axis.known[-1]):
                panel.annotate(
                    name,
                    (i, axis.share(value)),
                    (3, 2),
                    textcoords="offset points",
                    size=7,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
                )
    panel.set_xticks(range(len(axes) + 1), [*map(wrap, axes), metric])
    panel.set_yticks([])
    panel.set_xlim(-0.1, len(axes) + 0.4)
    panel.spines[:].set_visible(False)
    return figure


@styled
def history(
    values: Sequence[float | None], without: Sequence[int], metric: str, sign: int
) -> Figure:
    """The value of each trial, and the best so far.

    Args:
        values: by number; None where there is none.
        without: numbers of trials that failed or were pruned.
        metric: what the values are.
        sign: 1 if more is better, else -1.
    """
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    numbers: NDArray[Any] = np.array([i for i, _ in known])
    figures = np.array([value for _, value in known])
    figure = Figure(figsize=(6.4, 3))
    axes = figure.subplots()
    axes.plot(numbers, figures, "o", color=RIGHT, markersize=4, label="trial")
    best = sign * np.maximum.accumulate(sign * figures)
    axes.step(numbers, best, where="post", color=INK, label="best so far")
    if without:
        lowest = [figures.min()] * len(without)
        axes.plot(without, lowest, "x", color=WRONG, markersize=5, label="failed or pruned")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


@styled
def importance(shares: Mapping[str, float]) -> Figure:
    """By option the share of the values' variance that it explains."""
    figure = Figure(figsize=(6.4, 0.7 + 0.4 * len(shares)))
    axes = figure.subplots()
    names = list(shares)
    axes.barh(range(len(names)), list(shares.values()), height=0.6, color=RIGHT)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of the variance")
    return figure
