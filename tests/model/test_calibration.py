"""Calibration against torchmetrics, scikit-learn and numbers by hand; known temperatures, found."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from fmnist_pl.model.calibration import (
    BINS,
    LIMITS,
    cross_entropy,
    figures,
    reliability,
    temperature,
)

IMAGES, CLASSES = 20_000, 10


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def drawn(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that come as often as their probabilities say."""
    logits = random.normal(0, 2, (IMAGES, CLASSES))
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(1)


@pytest.mark.parametrize("sharpness", [0.3, 1, 3])
def test_figures_are_those_of_other_libraries(
    sharpness: float, random: np.random.Generator
) -> None:
    logits, labels = drawn(random)
    logits *= sharpness
    probabilities = softmax(logits, axis=1)
    error = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), CLASSES, n_bins=BINS, norm="l1"
    )
    found = figures(logits, labels)
    assert found["ece"] == pytest.approx(error.item(), abs=1e-5)  # of single precision
    one_by_one = [brier_score_loss(labels == i, probabilities[:, i]) for i in range(CLASSES)]
    assert found["brier"] == pytest.approx(sum(one_by_one))
    assert cross_entropy(logits, labels) == pytest.approx(log_loss(labels, probabilities))


def test_figures_by_hand() -> None:
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.45, 0.55]])
    labels = np.array([0, 1, 1, 1])
    images, confidence, right = reliability(logits, labels)
    assert images[[8, 13]].tolist() == [2, 2]  # above 8 and 13 fifteenths
    assert (images.sum(), right[[8, 13]].tolist()) == (4, [2, 1])
    assert confidence[[8, 13]] == pytest.approx([1.15, 1.8])
    # Bins: |1.15 - 2| and |1.8 - 1|; Brier: twice the square of what the label lacks.
    lacking = np.array([0.1, 0.9, 0.4, 0.45])
    assert figures(logits, labels) == pytest.approx(
        {"ece": (0.85 + 0.8) / 4, "brier": 2 * (lacking**2).mean()}
    )
    assert cross_entropy(logits, labels) == pytest.approx(-np.log(1 - lacking).mean())


def test_a_bin_has_its_upper_edge() -> None:
    sure = reliability(np.array([[1000.0, 0.0], [0.0, 0.0]]), np.array([0, 0]))
    assert sure[:, 7].tolist() == [1, 0.5, 1]
    assert sure[:, -1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7, 6.0])
def test_the_temperature_is_found(factor: float, random: np.random.Generator) -> None:
    logits, labels = drawn(random)
    found = temperature(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.03)
    scaled = factor * logits / found
    assert figures(scaled, labels)["ece"] < 0.01
    # The derivative by one over the temperature: what is expected of the label's logit, less it.
    expected = (softmax(scaled, axis=1) * scaled).sum(1) - scaled[np.arange(IMAGES), labels]
    assert expected.mean() == pytest.approx(0, abs=1e-5)


def test_the_temperature_stays_within_limits(random: np.random.Generator) -> None:
    logits, labels = drawn(random)
    right = 1000 * np.eye(CLASSES)[labels]
    assert LIMITS[0] <= temperature(right, labels) <= LIMITS[1]
    assert temperature(right / 1000, labels) == pytest.approx(LIMITS[0], rel=1e-3)
    assert temperature(logits, random.integers(CLASSES, size=IMAGES)) == pytest.approx(
        LIMITS[1], rel=1e-3
    )
    assert LIMITS[0] <= temperature(np.zeros_like(logits), labels) <= LIMITS[1]
    assert figures(right, labels) == {"ece": 0, "brier": 0}
