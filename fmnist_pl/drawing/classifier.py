"""What is drawn of classifiers: arrays in, a matplotlib `Figure` out; no files, no global state."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil
from textwrap import fill
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fmnist_pl.data.cutout import Cutout
from fmnist_pl.drawing.style import (
    GREY,
    INK,
    MARKED,
    PALETTE,
    RIGHT,
    WRONG,
    bars,
    class_colours,
    show,
    styled,
    wrap,
)

LOOKS = cycler(marker=["o", "s", "^", "D"]) * cycler(color=PALETTE)  # of runs
TOLD_APART = 4  # so many, where lines cross
COLUMNS = 4


@styled
def curves(runs: Mapping[str, Sequence[Mapping[str, float | str]]]) -> Figure:
    """Accuracy and loss by epoch, training dashed and validation solid.

    Args:
        runs: name of each run to the rows of its `metrics.csv`; more of them than can be told apart
            in one place have a place each, of one scale.
    """
    looks: dict[str, dict[str, Any]] = dict(zip(runs, cycle(LOOKS), strict=False))
    together = len(runs) <= TOLD_APART
    places = [list(runs)] if together else [[name] for name in runs]
    columns = min(len(places), COLUMNS)
    rows = ceil(len(places) / columns)
    lines = [wrap(name).count("\n") + 1 for name in runs]
    height = max(3.7, 0.2 * sum(lines)) if together else 0.6 + rows * (3 + 0.26 * max(lines))
    figure = Figure((9, height))
    halves = figure.subfigures(*((1, 2) if together else (2, 1)), squeeze=False)
    for half, (key, label) in zip(
        halves.flat, (("acc", "accuracy"), ("loss", "loss")), strict=True
    ):
        half.suptitle(label, fontsize=10)
        half.supxlabel("epoch", fontsize=10)
        grid = half.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for place in grid.flat[len(places) :]:
            place.remove()
        for axes, names in zip(grid.flat, places, strict=False):
            for name in names:
                epochs = [float(row["epoch"]) for row in runs[name]]
                for split, line, alpha in (("train", "--", 0.6), ("val", "-", 1)):
                    values = [float(row[f"{split}/{key}"]) for row in runs[name]]
                    axes.plot(epochs, values, line, alpha=alpha, **looks[name])
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.tick_params(labelbottom=True)
            axes.grid(axis="y", color=GREY, linewidth=0.5)
            if not together:
                axes.set_title(wrap(names[0]), fontsize=8)
    legend = {
        "training": Line2D([], [], color=INK, linestyle="--", alpha=0.6),
        "validation": Line2D([], [], color=INK),
    }
    if together:
        for name, look in looks.items():
            legend[wrap(name)] = Line2D([], [], linestyle="", markersize=6, **look)
    figure.legend(legend.values(), legend.keys(), loc="outside right center")
    return figure


@styled
def class_accuracy(
    accuracy: Mapping[str, Sequence[float] | NDArray[Any]],
    class_names: Sequence[str],
    title: str = "",
) -> Figure:
    """Accuracy of each class.

    Args:
        accuracy: name of the run to its figures (C,) in [0, 1]; what follows, as of the published
            study, is drawn beside it in grey.
        class_names: C names.
        title: of the figure.
    """
    thickness = 0.8 / len(accuracy)
    names = [wrap(name) for name in class_names]
    lines = max(name.count("\n") + 1 for name in names)
    figure = Figure((6, 0.9 + len(names) * max(0.3, 0.17 * lines, 0.18 * len(accuracy))))
    axes = figure.subplots()
    places = np.arange(len(names))
    for i, (name, values) in enumerate(accuracy.items()):
        place = places + (i - (len(accuracy) - 1) / 2) * thickness
        values = np.array(values, float)  # NaN for None: no such image
        bars = axes.barh(place, values, thickness, color=GREY if i else PALETTE[0], label=name)
        axes.bar_label(
            bars,
            ["" if np.isnan(value) else f"{value:.3f}" for value in values],
            padding=3,
            fontsize=8,
        )
    axes.set_yticks(places, names)
    axes.set(xlim=(0, 1), xlabel="accuracy", title=title)
    axes.invert_yaxis()
    if len(accuracy) > 1:
        figure.legend(loc="outside lower center", ncols=len(accuracy))
    return figure


@styled
def confusion_matrix(
    counts: NDArray[Any] | Sequence[Sequence[int]], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Counts (C, C), rows true and columns predicted, shaded by their share of the true class."""
    counts = np.asarray(counts)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    names = [wrap(name) for name in class_names]
    side = 0.52 * max(len(names), 4)
    figure = Figure((side + 2.4, side + 1.4), layout="compressed")
    axes = figure.subplots()
    norm = PowerNorm(0.5, 0, 1)  # confusions are a few per cent: bring them out
    shown = axes.imshow(shares, cmap="Blues", norm=norm)
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if norm(shares[i, j]) > 0.64 else INK if count else GREY
        axes.text(j, i, str(count), ha="center", va="center", color=colour)
    slope = 90 if any("\n" in name for name in names) else 45
    axes.set_xticks(
        range(len(names)), names, rotation=slope, ha="right", va="center", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    figure.colorbar(shown, label="share of the true class", ticks=ticks, format="{x:.0%}")
    return figure


@styled
def predictions(
    images: NDArray[Any],
    probabilities: NDArray[Any],
    class_names: Sequence[str],
    labels: NDArray[Any] | Sequence[int] | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 3,
    title: str = "",
    cutouts: Sequence[Cutout] = (),
    marks: Sequence[str] = (),
) -> Figure:
    """Each image beside its class probabilities; the prediction is blue if right, red if wrong.

    Args:
        images: (N, 28, 28), uint8 or float in [0, 1].
        probabilities: (N, C).
        class_names: C names.
        labels: true classes (N,); where none are known the prediction is black.
        captions: what to print below each image.
        columns: images in a row.
        title: of the figure.
        cutouts: the photos the images were cut out of, drawn beside them, the piece outlined.
        marks: why a prediction is not to be trusted; said beside it.
    """
    names = [wrap(name) for name in class_names]
    below = [wrap(caption) for caption in captions or [""] * len(images)]
    lines = max((caption.count("\n") for caption in below), default=0)
    height = max(1.5, 0.3 + 0.13 * len(names) * max(name.count("\n") + 1 for name in names))
    rows, columns = max(1, -(-len(images) // columns)), max(1, min(columns, len(images)))
    width = 5 if cutouts else 3.5
    figure = Figure((width * columns, rows * (height + 0.11 * lines) + 0.25 * bool(title)))
    figure.suptitle(title)
    cells = figure.subfigures(rows, columns, squeeze=False).flat
    for i, (image, shares, cell) in enumerate(zip(images, probabilities, cells, strict=False)):
        guess = int(np.argmax(shares))
        heading, ink, colours = (
            f"{class_names[guess]} {shares[guess]:.1%}",
            INK,
            [GREY] * len(names),
        )
        if labels is None:
            colours[guess] = INK
        elif guess == labels[i]:
            heading = f"\N{CHECK MARK} {heading}"
            colours[guess] = RIGHT
        else:
            heading, ink = f"\N{BALLOT X} {heading}, is {class_names[labels[i]]}", WRONG
            colours[guess], colours[labels[i]] = WRONG, RIGHT
        if marks and marks[i]:
            heading, ink = f"{heading}, {marks[i]}", MARKED
        cell.suptitle(
            fill(heading, 70 if cutouts else 48), x=0.03, ha="left", fontsize=9, color=ink
        )
        *given, left, right = cell.subplots(
            1, 2 + bool(cutouts), width_ratios=[1] * bool(cutouts) + [1, 1.1]
        )
        for axes in given:
            outline(axes, cutouts[i])
        show(left, image)
        left.set_anchor("N")
        # Captions of equal height keep the cells of a row in line.
        left.set_xlabel(below[i] + "\n " * (lines - below[i].count("\n")), fontsize=7)
        bars(right, names, shares, colours)
        right.set(xlim=(0, 1), xticks=[], facecolor="#f2f2f2")
        right.tick_params(labelsize=7, length=0)
        right.spines["bottom"].set_visible(False)
    return figure


def outline(axes: Axes, cutout: Cutout) -> None:
    """A photo with the outline of the piece that was found in it."""
    show(axes, cutout.photo)
    axes.contour(np.pad(cutout.mask, 1), [0.5], colors=MARKED, linewidths=1, extent=None)
    axes.set_anchor("N")


def mistakes(
    images: NDArray[Any],
    probabilities: NDArray[Any],
    class_names: Sequence[str],
    labels: NDArray[Any],
    count: int = 12,
    title: str = "",
) -> Figure:
    """The wrong predictions of highest probability, highest first; arguments as `predictions`."""
    guesses = probabilities.argmax(1)
    wrong = np.flatnonzero(guesses != labels)
    worst = wrong[np.argsort(-probabilities[wrong, guesses[wrong]], kind="stable")[:count]]
    return predictions(
        images[worst],
        probabilities[worst],
        class_names,
        labels[worst],
        captions=[f"image {i}" for i in worst],
        title=f"{title and title + ': '}{len(wrong):,} mistakes, the most confident first",
    )


@styled
def scatter(
    points: NDArray[Any], labels: NDArray[Any], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Points (N, 2) in the colours of their classes (N,), each class named where it is densest."""
    low, extent = points.min(0), np.ptp(points, axis=0).max()
    figure = Figure((7, 7))
    axes = figure.subplots()
    x, y = points.T
    palette = class_colours(len(class_names))
    axes.scatter(x, y, s=3, c=np.array(palette)[labels], linewidths=0, rasterized=True)
    taken: list[tuple[Any, Any]] = []  # centre and half size of each name, as shares of the extent
    for label in np.unique(labels):
        name = wrap(class_names[label])
        grid = ((points[labels == label] - low) / extent * 16).round() / 16
        places, counts = np.unique(grid, axis=0, return_counts=True)
        widest, breaks = max(map(len, name.split("\n"))), name.count("\n")
        half = np.array([0.01 + 0.006 * widest, 0.02 + 0.012 * breaks])
        free = np.array(
            [
                all((abs(place - centre) > half + other).any() for centre, other in taken)
                for place in places
            ]
        )
        centre = places[np.lexsort((counts, free))[-1]]  # of the free places the densest
        taken.append((centre, half))
        x, y = low + centre * extent
        axes.text(
            x,
            y,
            name,
            ha="center",
            va="center",
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": palette[label]},
        )
    axes.set(title=title, xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    return figure
