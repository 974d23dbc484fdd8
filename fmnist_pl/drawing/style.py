"""What all pictures share: colours, type, and the pieces they are made of.

Size, resolution and layout are a figure's own: `figure.savefig(path)` is all it takes. Classes come
in the order of the `classes` mapping and keep their colours from picture to picture.
"""

from collections.abc import Sequence
from itertools import cycle, islice
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from numpy.typing import NDArray

# Ten colours that stay apart under every colour-vision deficiency: M. A. Petroff, "Accessible
# Color Sequences for Data Visualization", arXiv:2107.02270.
PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
RIGHT, WRONG = PALETTE[0], PALETTE[2]
MARKED = PALETTE[6]  # not to be trusted
GREY, INK = "#c4c4c4", "#333333"

styled = rc_context(
    {
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.constrained_layout.use": True,
        "figure.dpi": 130,
        "figure.facecolor": "white",
        "figure.titlesize": 10,
        "font.family": "DejaVu Sans",  # comes with matplotlib, and has the marks used below
        "font.size": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 3,
        "text.color": INK,
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
        "xtick.color": INK,
        "ytick.color": INK,
    }
)


def class_colours(count: int) -> list[str]:
    """One for each class; of more than ten, again from the first."""
    return list(islice(cycle(PALETTE), count))


def wrap(name: str) -> str:
    return fill(name, 18)


def bars(axes: Axes, names: Sequence[str], lengths: Sequence[Any], colours: Sequence[str]) -> Any:
    """Horizontal bars, first class on top, as thick for three classes as for ten."""
    axes.set_yticks(range(len(names)), [wrap(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    return axes.barh(range(len(names)), lengths, height=0.08 * len(names), color=colours)


def show(axes: Axes, image: NDArray[Any]) -> None:
    """An image, uint8 or float in [0, 1], 0 black, without axes; NaN is transparent."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
