"""Whether a net is right as often as its probabilities say, and the temperature that mends it.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
arXiv:1706.04599. Of N images: logits (N, C), probabilities (N, C), labels (N,).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15  # of equal width, as in the paper
LIMITS = (0.05, 20.0)  # of a temperature: for a net without a mistake the best would be 0


def figures(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> dict[str, float]:
    """Calibration error and Brier score of some predictions.

    Returns:
        `ece`: the expected calibration error, in [0, 1]: by how much confidence and accuracy differ
            in a bin of confidence, mean over the images.
        `brier`: the squared distance of the probabilities from 1 for the label and 0 for all else,
            summed over the classes, mean over the images; in [0, 2].
    """
    probabilities = softmax(logits.astype(float), axis=1)
    images, confidence, right = reliability(logits, labels)
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)
    distance = (probabilities**2).sum(1, keepdims=True) - 2 * of_label + 1
    return {
        "ece": float(np.abs(confidence - right).sum() / images.sum()),
        "brier": float(distance.mean()),
    }


def reliability(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a reliability diagram shows, as sums, so that those of several nets can be added.

    Returns:
        By bin of confidence, the highest probability, (3, BINS): number of images, sum of their
        confidence, number of those that are right. A bin has its upper edge, not its lower one.
    """
    confidence = softmax(logits.astype(float), axis=1).max(1)
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence)
    right = logits.argmax(1) == labels
    return np.array([np.bincount(bins, of, BINS) for of in (None, confidence, right)])


def cross_entropy(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The mean negative log-likelihood, in nats."""
    of_label = np.take_along_axis(log_softmax(logits.astype(float), axis=1), labels[:, None], 1)
    return float(-of_label.mean())


def temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """By what to divide logits so that their cross-entropy is least; within `LIMITS`.

    It has one minimum, since it is convex in one over the temperature.
    """
    found = minimize_scalar(
        lambda log: cross_entropy(logits / np.exp(log), labels),
        bounds=np.log(LIMITS),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))
