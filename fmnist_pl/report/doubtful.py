"""Test images that hardly a net gets right: nearly all are sure of one and the same other class.

Either the label is wrong or the image misleads; the nets cannot tell which, so one is to look.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from fmnist_pl.data import source
from fmnist_pl.files import PREDICTIONS
from fmnist_pl.options.messages import UserError
from fmnist_pl.report.figures import Picture, thumbnail
from fmnist_pl.report.predictions import read_predictions
from fmnist_pl.report.variants import Sweep, Variant, mean_and_deviation

AGREEING = 0.9  # of the nets, at least, say the same other class
SURE = 0.9  # is at least the probability of that class, mean over all nets
NETS, MODELS = 5, 2  # it takes at least: nets of one kind have their mistakes in common
SHOWN = 40


class Image(NamedTuple):
    """A test image whose label is in doubt; the columns of `doubtful.csv`."""

    image: int  # its index in the test set
    label: int
    label_name: str
    said: int  # by the nets
    said_name: str
    share: float  # of the nets, that say so
    probability: float  # mean over all nets


@dataclass(frozen=True)
class Doubtful:
    """What the nets of a sweep say against the labels of their data set."""

    variants: Sequence[Variant]
    images: list[Image]  # the most probable first

    def in_words(self) -> str:
        """What was found, and what it means."""
        nets = sum(len(variant.finished) for variant in self.variants)
        text = (
            f"On {len(self.images) or 'none'} of the test images at least {100 * AGREEING:.0f}% "
            f"of {nets} nets, of {len(self.variants)} models, say the same class, which is not the "
            f"label's, and give it a probability of at least {100 * SURE:.0f}% on average."
        )
        if not self.images:
            return text
        return (
            f"{text} Either the label is wrong or the image misleads; the nets cannot tell which, "
            "so look. Without these images the models are more accurate, but that flatters them, "
            "for their own answers chose the images: it is about what wrong labels could explain, "
            "were all of these wrong."
        )

    def table(self) -> list[list[str]]:
        """Test accuracy by model, with them and without, over seeds; the head first."""
        indices = [one.image for one in self.images]
        rows = [["model", "all test images", f"without these {len(indices)}"]]
        for variant in self.variants:
            right = np.array([figures.right for figures in variant.figures().values()])
            accuracies = right.mean(1), np.delete(right, indices, axis=1).mean(1)
            rows.append([variant.label, *map(mean_and_deviation, accuracies)])
        return rows

    def pictures(self) -> list[tuple[Image, Picture]]:
        """Of the first of them; of none without the data set."""
        try:
            pixels = source.load(self.variants[0].config.data).test_images
        except UserError:
            return []
        return [
            (
                one,
                thumbnail(
                    pixels[one.image],
                    f"Test image {one.image}: labelled {one.label_name}, which {one.share:.0%} of "
                    f"the nets take for {one.said_name}",
                ),
            )
            for one in self.images[:SHOWN]
        ]


def find(sweep: Sweep) -> Doubtful | None:
    """What the finished runs of one data set, with its own classes, say; if they are enough.

    They are read one after another, so that a thousand take no more memory than one.
    """
    variants = [v for v in sweep.candidates if v.groups == [[i] for i in range(len(v.groups))]]
    paths = [run.folder / PREDICTIONS for v in variants for run in v.finished.values()]
    if len(paths) < NETS or len(variants) < MODELS:
        return None
    images = variants[0].config.data.test_images
    if any(len(one.right) != images for v in variants for one in v.figures().values()):
        return None  # of some runs a part of the images was tested
    labels, names = read_predictions(paths[0])[1], variants[0].classes
    return Doubtful(variants, against((read_predictions(path)[0] for path in paths), labels, names))


def against(
    logits: Iterable[NDArray[np.floating]], labels: NDArray[np.int64], names: Sequence[str]
) -> list[Image]:
    """The images on which nearly all nets are sure of the same class, and not of the label's.

    Args:
        logits: of one net after another, (N, C).
        labels: (N,).
        names: of the C classes.
    """
    images, nets = np.arange(len(labels)), 0
    probabilities, votes = np.zeros((2, len(labels), len(names)))
    for each in logits:
        probabilities += softmax(each.astype(float), axis=1)
        votes[images, each.argmax(1)] += 1
        nets += 1
    votes[images, labels] = -1
    said = votes.argmax(1)
    shares, means = votes[images, said] / nets, probabilities[images, said] / nets
    chosen = np.flatnonzero((shares >= AGREEING) & (means >= SURE))
    return [
        Image(i, labels[i], names[labels[i]], said[i], names[said[i]], shares[i], means[i])
        for i in chosen[np.argsort(-means[chosen], kind="stable")].tolist()
    ]
