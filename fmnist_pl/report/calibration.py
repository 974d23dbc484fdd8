"""Can one trust the probabilities? What a section of the page, and of `summary.md`, says of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmnist_pl.drawing import calibration as drawn
from fmnist_pl.files import PREDICTIONS
from fmnist_pl.model.calibration import BINS, reliability
from fmnist_pl.report.figures import Picture, picture
from fmnist_pl.report.predictions import read_predictions
from fmnist_pl.report.runs import CALIBRATION
from fmnist_pl.report.variants import Sweep, Variant

HEAD = ["model", "temperature"]
HEAD += [f"{name}{how}" for name in ("ECE", "Brier", "NLL") for how in ("", ", scaled")]
MEANING = (
    "A probability can be trusted if, of 100 answers given with 90%, about 90 are right. The "
    f"expected calibration error (ECE) is by how much that fails: answers are put into {BINS} bins "
    "by how sure they are, and it is the difference between confidence and accuracy in a bin, "
    "mean over all images. The Brier score and the negative log-likelihood (NLL, the "
    "cross-entropy) measure accuracy and trust in one; of each, less is better. Dividing the "
    "logits by a temperature changes no answer, only how sure it is: above 1, less. Each run "
    "chose its own on the validation images; the figures are of the test images."
)
CAPTION = (
    "Above: accuracy against confidence in bins of confidence, all seeds together. On the dashed "
    "line a net is right as often as it says; below it, it is too sure. Below: the share of the "
    f"images in each bin; the accuracy of fewer than {drawn.FEWEST} images is not shown."
)


def section(sweep: Sweep) -> dict[str, Any] | None:
    """What the page shows, where a run has finished."""
    if not (best := sweep.best):
        return None
    rows, words = table(sweep.finished), in_words(best)
    return {
        "meaning": MEANING,
        "table": rows,
        "words": words,
        "diagram": diagram(best),
        "caption": CAPTION,
    }


def table(variants: Sequence[Variant]) -> list[list[str]]:
    """Before and after scaling, mean and standard deviation over seeds; the head first."""
    return [HEAD, *([v.label, *map(v.spread, CALIBRATION)] for v in variants)]


def in_words(best: Variant) -> str:
    """What the table says of the best model."""
    temperature, before, after = (best.values(name).mean() for name in CALIBRATION[:3])
    return (
        f"On the validation images the logits of {best.label}, the best model, are best divided by "
        f"{temperature:.2f}: above 1, a net is surer than it should be, below 1, less sure. On the "
        f"test images what it says and how often it is right differ by {100 * before:.1f} points; "
        f"with its logits divided by that, by {100 * after:.1f}."
    )


def diagram(best: Variant) -> Picture:
    """Reliability before and after, over the images that were tested of all seeds together."""
    none = np.zeros((3, BINS))
    bins = {"before": none, "divided by the temperature": none}
    for run in best.finished.values():
        logits, labels, averaged = read_predictions(run.folder / PREDICTIONS)
        logits, labels = logits[: len(averaged)], labels[: len(averaged)]
        for name, divisor in zip(bins, (1, run.result["temperature"]), strict=True):
            bins[name] = bins[name] + reliability(logits / divisor, labels)
    alt = "; ".join(
        f"{name}, {confidence / images:.1%} sure and {right / images:.1%} right"
        for name, each in bins.items()
        for images, confidence, right in [each.sum(1)]
    )
    return picture(drawn.reliability(bins), f"Accuracy of {best.label} against confidence: {alt}")
