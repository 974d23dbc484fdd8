"""The reliability diagram: how often a net is right, against how sure it is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fmnist_pl.drawing.style import GREY, INK, PALETTE, styled

FEWEST = 20  # images in a bin, below which its accuracy is luck


@styled
def reliability(bins: Mapping[str, NDArray[Any]]) -> Figure:
    """Accuracy against confidence, and below it how many images have that confidence.

    Args:
        bins: by what they are of, by bin of confidence (3, B): images, sums of confidence, right.
    """
    figure = Figure((6, 5.4))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="as right as sure")
    for (name, (images, confidence, right)), colour in zip(bins.items(), PALETTE, strict=False):
        some = images >= FEWEST
        looks: dict[str, Any] = {"color": colour, "label": name}
        upper.plot(confidence[some] / images[some], right[some] / images[some], "o-", **looks)
        lower.stairs(images / images.sum(), np.linspace(0, 1, len(images) + 1), **looks)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.grid(color=GREY, linewidth=0.5)
    upper.legend(loc="upper left")
    lower.set(xlabel="confidence: the probability of the answer", ylabel="share of\nimages")
    return figure
