"""Labels that were made wrong are found, and what is found is shown, listed and counted."""

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fmnist_pl.data import source
from fmnist_pl.files import PREDICTIONS
from fmnist_pl.report import doubtful
from fmnist_pl.report.doubtful import against, find
from fmnist_pl.report.predictions import read_predictions
from fmnist_pl.report.summary import write_report
from fmnist_pl.report.variants import read_sweep
from fmnist_pl.training.folder import run
from tests.conftest import CLASS_NAMES


def flipped(
    labels: NDArray[np.int64], random: np.random.Generator, share: float = 0.01
) -> tuple[NDArray[np.int64], set[int]]:
    """Labels, some of them made another class of ten, and which."""
    chosen = random.choice(len(labels), round(share * len(labels)), replace=False)
    wrong = labels.copy()
    wrong[chosen] = (labels[chosen] + random.integers(1, 10, len(chosen))) % 10
    return wrong, set(chosen.tolist())


def precision_and_recall(found: list[doubtful.Image], wrong: set[int]) -> tuple[float, float]:
    right = len(wrong & {one.image for one in found})
    return right / len(found), right / len(wrong)


def test_nearly_all_nets_must_be_sure_of_the_same_class() -> None:
    nets = np.zeros((10, 4, 3))
    nets[:, 0, 1] = 9  # all are sure
    nets[:9, 1, 2], nets[9, 1, 1] = 9, 1  # nine are
    nets[:8, 2, 1], nets[8:, 2, 2] = 9, 9  # eight are
    nets[:, 3, 1] = 2  # none is sure
    [first, second] = against(nets, np.zeros(4, int), ["a", "b", "c"])
    sure = np.exp(9) / (np.exp(9) + 2)
    assert first == (0, 0, "a", 1, "b", 1, pytest.approx(sure))
    last = 1 / (2 + np.e)
    assert second == (1, 0, "a", 2, "c", 0.9, pytest.approx((9 * sure + last) / 10))
    assert against(nets, np.array([1, 2, 1, 1]), ["a", "b", "c"]) == []


def test_wrong_labels_are_found_among_images_that_mislead() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(10, size=10_000)
    # Of some images what all nets see is not clear, or another class.
    seen = 8 * np.eye(10)[labels] * random.beta(6, 1, (10_000, 1))
    seen += random.normal(0, 1, seen.shape)
    nets = (seen + random.normal(0, 1, seen.shape) for _ in range(6))
    given, wrong = flipped(labels, random)
    precision, recall = precision_and_recall(against(nets, given, CLASS_NAMES), wrong)
    assert precision > 0.95
    assert recall > 0.7


@pytest.fixture
def contradicted(made_up, tmp_path: Path) -> list[int]:
    """Of five runs of two models; test images of which they are all sure, and not of the label."""
    chosen = [7, 4321, 42]  # the surest first
    for arm, seed in (("mlp", 0), ("mlp", 1), ("cnn", 0), ("cnn", 1), ("cnn", 2)):
        made_up.run(folder := tmp_path / f"{arm}-{seed}", made_up.config(arm, seed))
        with np.load(folder / PREDICTIONS) as arrays:
            kept = dict(arrays)
        kept["logits"] = np.zeros_like(kept["logits"])
        others = (kept["labels"][chosen] + 1) % 10
        kept["logits"][chosen, others] = [9, 8, 7]
        np.savez(folder / PREDICTIONS, **kept)
    return chosen


def test_they_are_shown_listed_and_counted(contradicted: list[int], tmp_path: Path) -> None:
    write_report([tmp_path], tmp_path)
    with (tmp_path / "doubtful.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["image"]) for row in rows] == contradicted
    labels = source.load().test_labels
    for row, logit in zip(rows, (9, 8, 7), strict=True):
        label = labels[int(row["image"])]
        said = (label + 1) % 10
        assert (int(row["label"]), row["label_name"]) == (label, CLASS_NAMES[label])
        assert (int(row["said"]), row["said_name"]) == (said, CLASS_NAMES[said])
        probability = np.exp(logit) / (np.exp(logit) + 9)
        assert (float(row["share"]), float(row["probability"])) == (1, pytest.approx(probability))
    page, markdown = ((tmp_path / name).read_text() for name in ("report.html", "summary.md"))
    assert "On 3 of the test images at least 90% of 5 nets, of 2 models, say the" in page
    name = CLASS_NAMES[labels[7]]
    assert f'alt="Test image 7: labelled {name}, which 100% of the nets take for ' in page
    _, truth, _ = read_predictions(tmp_path / "cnn-0" / PREDICTIONS)
    for arm in ("mlp", "cnn"):
        rights = [
            read_predictions(folder / PREDICTIONS)[0].argmax(1) == truth
            for folder in sorted(tmp_path.glob(f"{arm}-?"))
        ]
        counts = np.array([right.sum() for right in rights])  # none of them is among the three
        cells = [
            f"{each.mean():.4f} ± {each.std(ddof=1):.4f}" for each in (counts / 1e4, counts / 9997)
        ]
        assert f"| {arm} | {' | '.join(cells)} |" in markdown


@pytest.mark.parametrize("gone", ["cnn-2", "cnn-?"])
def test_few_nets_or_one_model_cannot_tell(
    gone: str, contradicted: list[int], made_up, tmp_path: Path
) -> None:
    write_report([tmp_path], tmp_path)
    for folder in tmp_path.glob(gone):
        (folder / "result.json").unlink()
    for seed in range(2, 5):
        if gone == "cnn-?":
            made_up.run(tmp_path / f"mlp-{seed}", made_up.config("mlp", seed))
    write_report([tmp_path], tmp_path)
    assert not (tmp_path / "doubtful.csv").exists()
    for name in ("report.html", "summary.md"):
        assert "hardly a net gets right" not in (tmp_path / name).read_text()


def test_nets_of_other_classes_say_nothing_of_the_labels(made_up, tmp_path: Path) -> None:
    for arm, seed in (("vanilla", 0), ("vanilla", 1), ("cnn", 0), ("cnn", 1), ("cnn", 2)):
        config = made_up.config(arm, seed, embeddings="none")
        config.classes = made_up.config("three_class").classes
        made_up.run(tmp_path / f"{arm}-{seed}", config)
    sweep = read_sweep([tmp_path])
    assert [len(variant.finished) for variant in sweep.candidates] == [2, 3]
    assert find(sweep) is None


@pytest.mark.slow
def test_flipped_labels_are_found_by_real_nets(configured, tmp_path: Path) -> None:
    """Of 1% of the test labels, after training; what is found beside them counts against it."""
    for i, hidden in enumerate(["[128]", "[64,64]"] * 3):
        options = (f"model.hidden={hidden}", f"seed={i}", "trainer.max_epochs=4")
        shorter = ("experiment=vanilla", "embeddings=none", "pictures=false")
        run(configured(*shorter, *options), tmp_path / str(i))
    nets = [read_predictions(folder / PREDICTIONS)[0] for folder in sorted(tmp_path.iterdir())]
    labels = source.load().test_labels.astype(np.int64)
    given, wrong = flipped(labels, np.random.default_rng(0))
    precision, recall = precision_and_recall(against(nets, given, CLASS_NAMES), wrong)
    print(f"{len(against(nets, labels, CLASS_NAMES))} as labelled; {precision=:.3f}, {recall=:.3f}")
    assert precision > 0.3  # images that are labelled wrong anyway are among the others
    assert recall > 0.4
