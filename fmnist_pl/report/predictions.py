"""What a run predicted: the figures that comparisons look at, by the weights they are judged on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.report.evidence import Figures

# Those that were tested, as in the study, and the mean over the second half of the epochs.
JUDGED = {"tested": "the tested weights", "averaged": "averaged weights"}


def read_predictions(path: Path) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
    """Logits (N, C) and labels (N,) of the test images, from a `predictions.npz`.

    Returns:
        Logits of the weights that were tested, labels, logits of the averaged weights; those of
        the first images alone where the run has limited its test.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["logits"], arrays["labels"], arrays["averaged"]


def figures_of(
    result: Mapping[str, Any], config: Config, epochs: Sequence[Mapping[str, float]], path: Path
) -> dict[str, Figures]:
    """The figures of a finished run, by the keys of `JUDGED`.

    Args:
        result: of the run.
        config: its configuration.
        epochs: the rows of its `metrics.csv`.
        path: of its `predictions.npz`.

    Raises:
        UserError: the predictions are not of the images and classes that the run had.
    """
    logits, labels, averaged = read_predictions(path)
    images, classes = config.data.test_images, len(result["classes"])
    shapes_fit = labels.shape == (images,) and logits.shape == (images, classes)
    if not shapes_fit or averaged.shape != (len(averaged), classes) or len(averaged) > len(labels):
        raise UserError(
            f"logits {logits.shape}, averaged {averaged.shape} and labels {labels.shape} of other "
            "images."
        )
    labels, logits = labels[: len(averaged)], logits[: len(averaged)]  # those that were tested
    tested = Figures(
        test_acc=result["test/acc"],
        class_acc=np.array(list(result["test/acc_per_class"].values()), float).tolist(),
        confusion=np.array(result["test/confusion_matrix"]),
        right=logits.argmax(1) == labels,
        seconds=result["seconds"],
        **{
            f"{split}_{short}": [row[f"{split}/{name}"] for row in epochs]
            for split in ("train", "val")
            for short, name in (("acc", "acc"), ("loss", "cross_entropy"))
        },
    )
    guesses = averaged.argmax(1)
    pairs = np.bincount(labels * classes + guesses, minlength=classes**2)
    confusion = pairs.reshape(classes, classes)
    right = guesses == labels
    others = replace(
        tested,
        test_acc=float(right.mean()),
        class_acc=right_by_class(confusion).tolist(),
        confusion=confusion,
        right=right,
    )
    return {"tested": tested, "averaged": others}


def right_by_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Accuracy by class (C,) of counts (C, C); NaN of a class without an image."""
    with np.errstate(invalid="ignore"):
        accuracies: NDArray[np.float64] = confusion.diagonal() / confusion.sum(1)
    return accuracies
