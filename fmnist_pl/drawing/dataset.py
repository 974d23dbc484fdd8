"""What is drawn of the data set: arrays in, a matplotlib `Figure` out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fmnist_pl.data.protocol import check_classes
from fmnist_pl.drawing.style import bars, class_colours, show, styled, wrap


@styled
def first_image(image: NDArray[np.uint8], title: str) -> Figure:
    """One image (28, 28) with its pixels' places and values."""
    figure = Figure((4.2, 3.5))
    axes = figure.subplots()
    shown = axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title)
    axes.spines[:].set_visible(False)
    figure.colorbar(shown, label="pixel value")
    return figure


@styled
def image_sheet(
    images: NDArray[Any], labels: NDArray[Any], class_names: Sequence[str], columns: int = 5
) -> Figure:
    """Images (N, 28, 28) of labels (N,), each above the name of its class."""
    rows = -(-len(images) // columns)
    figure = Figure((1.4 * columns, 1.6 * rows))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1)
        show(axes, image)
        axes.set_xlabel(wrap(class_names[label]))
    return figure


@styled
def class_histogram(
    labels: NDArray[Any], classes: Mapping[str, Sequence[int]], class_names: Sequence[str]
) -> Figure:
    """How many images each original class has and, where they are regrouped, each new one.

    Args:
        labels: original, (N,).
        classes: name of each class to the original labels it takes.
        class_names: of the original classes, by label.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    home = {label: i for i, members in enumerate(classes.values()) for label in members}
    palette = class_colours(len(classes))
    original = [(name, counts[i], palette[home[i]]) for i, name in enumerate(class_names)]
    panels = {"original classes": original}
    if classes != check_classes({}, class_names):
        panels["as regrouped"] = [
            (name, counts[list(members)].sum(), colour)
            for (name, members), colour in zip(classes.items(), palette, strict=True)
        ]
    figure = Figure((4.6 * len(panels), 3.4))
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, classes_shown) in zip(row, panels.items(), strict=True):
        names, lengths, inks = zip(*classes_shown, strict=True)
        drawn = bars(axes, names, lengths, inks)
        axes.bar_label(drawn, [f"{n:,}" for n in lengths], padding=3)
        axes.set(title=title, xlabel="images")
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    return figure


@styled
def augmentation_gallery(rows: Mapping[str, NDArray[Any]], title: str = "") -> Figure:
    """A panel for each image, with one row below the other of what was made of it.

    Args:
        rows: label to float (K, n, 28, 28) in [0, 1]: n versions of each of K images.
        title: of the figure.
    """
    side, step, inches = 28, 30, 0.0195  # of a tile, from tile to tile, of a pixel
    width = max(tiles.shape[1] for tiles in rows.values()) * step
    panels = len(next(iter(rows.values())))
    size = 1.8 + panels * (width + 6) * inches, 0.4 + len(rows) * step * inches
    figure = Figure(size, layout="compressed")
    figure.suptitle(title)
    for k, axes in enumerate(figure.subplots(1, panels, squeeze=False)[0]):
        canvas = np.full((len(rows) * step, width), np.nan)
        for i, tiles in enumerate(rows.values()):
            left = (width - tiles.shape[1] * step) // 2
            for j, tile in enumerate(tiles[k]):
                canvas[i * step :, left + j * step :][:side, :side] = tile
        show(axes, canvas)
        if k == 0:
            axes.set_yticks([i * step + side / 2 for i in range(len(rows))], list(rows))
            axes.tick_params(length=0, labelsize=8)
    return figure
