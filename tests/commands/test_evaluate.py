"""A checkpoint alone gives the figures of its run; a harmful or damaged one is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score
from sklearn.model_selection import train_test_split
from torchmetrics.functional.classification import multiclass_calibration_error

from fmnist_pl.data import source
from fmnist_pl.data.catalogue import named
from fmnist_pl.evaluate import Options, work
from fmnist_pl.model import inference
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.options.command import DataOptions
from fmnist_pl.options.messages import UserError
from fmnist_pl.report.runs import State, read_run
from fmnist_pl.training.checkpoints import resumable
from fmnist_pl.training.fit import build_classifier
from fmnist_pl.training.folder import run
from tests.data.test_folders import fill

PICTURES = {
    *("class_accuracy.png", "confusion_matrix.png", "mistakes.png"),
    *("prediction_sheet.png", "predictions.png"),
}


@pytest.fixture
def checkpoint(finished_run: Path, tmp_path: Path) -> Path:
    """A copy, with nothing of its run beside it."""
    folder = tmp_path / "else where=1"
    folder.mkdir()
    return Path(shutil.copy(finished_run / "checkpoints" / "last.ckpt", folder / "mlp ~1.ckpt"))


def command(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fmnist_pl.evaluate", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as many as the run had
    )


def test_a_fresh_process_gives_the_figures_of_the_run(checkpoint: Path, finished_run: Path) -> None:
    done = command(f"checkpoint={checkpoint}", cwd=checkpoint.parent)
    assert (done.returncode, done.stderr) == (0, "")
    run = json.loads((finished_run / "result.json").read_text())
    folder = checkpoint.with_name("mlp ~1-test")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    del evaluation["checkpoint"], evaluation["split"], evaluation["images"]
    assert evaluation == {name: run[name] for name in evaluation}
    parts = ("acc", "loss", "cross_entropy", "penalty", "acc_per_class", "confusion_matrix")
    assert evaluation.keys() >= {"model", "seed", "classes", *(f"test/{part}" for part in parts)}
    assert f"accuracy       {run['test/acc']:.4f}\n" in done.stdout
    for name, accuracy in run["test/acc_per_class"].items():
        assert f"{name:11}    {accuracy:.4f}" in done.stdout
    assert {path.name for path in folder.iterdir()} == PICTURES | {"evaluation.json"}
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200


def test_validation_gives_the_figures_of_the_last_epoch(finished_run: Path) -> None:
    classifier = inference.load_classifier(finished_run / "checkpoints" / "last.ckpt")
    images, labels = inference.load_split(classifier, "val")
    predictions = inference.predict(classifier, images)
    result = inference.evaluate(classifier, predictions, labels, "val")
    run = json.loads((finished_run / "result.json").read_text())
    for name in ("acc", "loss", "cross_entropy", "penalty"):
        assert result[f"val/{name}"] == pytest.approx(run[f"val/{name}"], abs=1e-9)


def test_predictions_do_not_depend_on_the_threads_of_the_process(configured: Any) -> None:
    config = configured("model=cnn_bn_dropout_l1")
    net = Classifier(asdict(config.model), config.classes, config.optimizer).eval()
    images = source.load().test_images[:500]
    labels = torch.arange(500) % 10
    threads, given = torch.get_num_threads(), []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        predictions = inference.predict(net, images)
        given.append((predictions, inference.evaluate(net, predictions, labels, "test")))
        assert torch.get_num_threads() == number
    torch.set_num_threads(threads)
    for predictions, figures in given[1:]:
        np.testing.assert_array_equal(predictions.logits, given[0][0].logits)
        assert figures == given[0][1]


@pytest.fixture
def three_class(configured: Callable[..., Any]) -> Classifier:
    """Not trained, of another split than usual, and with a penalty."""
    config = configured("experiment=three_class", "model=cnn_bn_dropout_l2")
    return Classifier(
        asdict(config.model),
        config.classes,
        config.optimizer,
        data={"val_size": 700, "split_seed": 7},
    ).eval()


def test_the_splits_are_those_of_the_run(three_class: Classifier) -> None:
    data = source.load()
    group = np.array([0, 1, 0, 0, 0, 1, 0, 1, 2, 1])
    train, val, train_labels, val_labels = train_test_split(
        data.train_images, group[data.train_labels], test_size=700, random_state=7
    )
    test = data.test_images, group[data.test_labels]
    for split, wanted in {"train": (train, train_labels), "val": (val, val_labels)}.items():
        for tensor, array in zip(inference.load_split(three_class, split), wanted, strict=True):
            np.testing.assert_array_equal(tensor, array)
    for tensor, array in zip(inference.load_split(three_class, "test"), test, strict=True):
        np.testing.assert_array_equal(tensor, array)


def test_figures_are_scikit_learns(three_class: Classifier) -> None:
    images, labels = (part[:1500] for part in inference.load_split(three_class, "test"))
    predictions = inference.predict(three_class, images)
    result = inference.evaluate(three_class, predictions, labels, "test")
    guesses, labels = predictions.logits.argmax(1), labels.numpy()
    assert result["test/acc"] == pytest.approx(accuracy_score(labels, guesses), abs=1e-12)
    np.testing.assert_array_equal(
        result["test/confusion_matrix"], confusion_matrix(labels, guesses, labels=[0, 1, 2])
    )
    assert list(result["test/acc_per_class"]) == ["Top", "Bottom", "Accessories"]
    np.testing.assert_allclose(
        list(result["test/acc_per_class"].values()), recall_score(labels, guesses, average=None)
    )
    cross_entropy = log_loss(labels, softmax(predictions.logits.astype(float), axis=1))
    assert result["test/cross_entropy"] == pytest.approx(cross_entropy, abs=1e-6)
    probabilities = torch.from_numpy(softmax(predictions.logits.astype(float), axis=1))
    ece = multiclass_calibration_error(probabilities, torch.from_numpy(labels), 3, n_bins=15)
    assert result["test/ece"] == pytest.approx(ece.item(), abs=1e-6)
    brier = (probabilities.numpy() - np.eye(3)[labels]) ** 2
    assert result["test/brier"] == pytest.approx(brier.sum(1).mean(), abs=1e-12)
    kernels = [value for name, value in three_class.net.named_parameters() if value.ndim > 1]
    penalty = 1e-4 * sum(float(kernel.detach().double().square().sum()) for kernel in kernels)
    assert result["test/penalty"] == pytest.approx(penalty, rel=1e-6)
    assert result["test/loss"] == pytest.approx(cross_entropy + penalty, abs=1e-6)
    assert result["images"] == 1500


class Harmful:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_code_in_a_checkpoint_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    touched = tmp_path / "touched"
    torch.save({**content, "extra": Harmful(touched)}, checkpoint)
    with pytest.raises(UserError, match="nothing else is ever loaded"):
        inference.load_classifier(checkpoint)
    assert not touched.exists()
    torch.load(checkpoint, weights_only=False)
    assert touched.exists()  # it would have been


def saying(path: Path, data: Any) -> Classifier:
    """The classifier of a checkpoint that says this of its data."""
    options = torch.load(path, weights_only=True)["hyper_parameters"]
    change(hyper_parameters={**options, "data": data})(path)
    return inference.load_classifier(path)


@pytest.mark.parametrize("said", [None, {"val_size": 10_000, "split_seed": 42}])
def test_a_checkpoint_of_version_0_1_is_of_fashion_mnist(
    checkpoint: Path, said: Any, configured: Callable[..., Any]
) -> None:
    classifier = saying(checkpoint, said)
    assert classifier.hparams["data"]["name"] == "fashion_mnist"
    config = configured("model=mlp", "trainer.max_epochs=2", "trainer.limit_train_batches=300")
    assert resumable(checkpoint, build_classifier(config)) == checkpoint
    np.testing.assert_array_equal(
        inference.load_split(classifier, "test")[0], source.load().test_images
    )


def test_nothing_is_fetched_where_a_checkpoint_says(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def download(url: str) -> bytes:
        asked.append(url)
        raise OSError("refused")

    monkeypatch.setattr(source, "_download", download)
    monkeypatch.setenv("FMNIST_DATA_DIR", str(tmp_path / "cache"))
    evil = {"mirrors": ["http://evil/"], "debian_package": "evil", "root": str(tmp_path)}
    evil |= {"class_names": list("abcdefghij"), "val_size": 7, "split_seed": 8}
    classifier = saying(checkpoint, {"name": "mnist", **evil})
    with pytest.raises(UserError, match="No valid copy of MNIST"):
        inference.load_split(classifier, "test")
    assert [url.partition("/train-")[0] + "/" for url in asked] == named("mnist").mirrors
    asked.clear()
    classifier = saying(checkpoint, {"name": "mine", **evil})
    with pytest.raises(UserError, match=r"(?s)No valid copy of mine.*data.root=FOLDER"):
        inference.load_split(classifier, "test")
    assert not asked
    assert not (tmp_path / "cache" / "mine").exists()


@pytest.mark.parametrize(
    "said", [3, ["mnist"], {"name": ["mnist"]}, {"name": "mine", "class_names": 3}, {"colour": 1}]
)
def test_what_says_nothing_of_its_data_is_no_checkpoint(checkpoint: Path, said: Any) -> None:
    with pytest.raises(UserError, match="weights of something else than a run"):
        saying(checkpoint, said)


def test_other_classes_than_those_of_the_data_are_told(checkpoint: Path, tmp_path: Path) -> None:
    said = {"name": "mine", "format": "folders", "class_names": ["bag", "shoe"]}
    classifier = saying(checkpoint, said)
    with pytest.raises(UserError, match="label 2 does not exist"):
        inference.load_split(classifier, "test", str(fill(tmp_path / "p", {"bag": 2, "shoe": 2})))


def test_a_run_on_images_of_ones_own_is_evaluated_on_them(
    tmp_path: Path, configured: Callable[..., Any]
) -> None:
    photos = fill(tmp_path / "photos", {"bag": 28, "hat": 21, "shoe": 14})
    given = ("data=folder", f"data.root={photos}", "model=mlp", "trainer.max_epochs=1")
    result = run(configured(*given), tmp_path / "run")
    assert list(result["test/acc_per_class"]) == ["bag", "hat", "shoe"]
    assert np.sum(result["test/confusion_matrix"]) == 4 + 3 + 2
    checkpoint = str(tmp_path / "run/checkpoints/last.ckpt")
    with pytest.raises(UserError, match=r"data.root=FOLDER must be given"):
        work(Options(checkpoint))
    options = Options(checkpoint, data=DataOptions(str(photos)))
    work(options)
    evaluation = json.loads((tmp_path / "run/checkpoints/last-test/evaluation.json").read_text())
    assert evaluation["test/acc"] == result["test/acc"]
    assert evaluation["test/confusion_matrix"] == result["test/confusion_matrix"]
    assert read_run(tmp_path / "run").state is State.FINISHED


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change(**changes: Any) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        torch.save({**torch.load(path, weights_only=True), **changes}, path)

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "No such file or directory. A run's are in its folder: checkpoints/"),
    "truncated": (truncate, "no checkpoint, or a damaged one"),
    "damaged": (flip_a_bit, "no checkpoint, or a damaged one"),
    "empty": (lambda path: path.write_bytes(b""), "no checkpoint, or a damaged one"),
    "text": (lambda path: path.write_text("epoch,loss\n1,0.3\n"), "no checkpoint"),
    "tensor": (lambda path: torch.save(torch.ones(3), path), "weights of something else"),
    "weights": (
        lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path),
        "weights of something else than a run of fmnist_pl",
    ),
    "other weights": (
        change(state_dict=torch.nn.Linear(2, 2).state_dict()),
        "weights of something else than a run of fmnist_pl (RuntimeError: ",
    ),
    "other options": (
        change(hyper_parameters={"layers": 3}),
        "weights of something else than a run of fmnist_pl (KeyError: ",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_no_checkpoint_of_the_project_is_told_in_one_line(
    kind: str, checkpoint: Path
) -> None:
    spoil, message = SPOILT[kind]
    spoil(checkpoint)
    with pytest.raises(UserError) as raised:
        inference.load_classifier(checkpoint)
    told = str(raised.value)
    assert told.startswith(f"checkpoint={checkpoint}: ")
    assert message in told
    assert "\n" not in told


def test_the_command_fails_with_one_line_and_writes_nothing(checkpoint: Path) -> None:
    truncate(checkpoint)
    done = command(f"checkpoint={checkpoint}", cwd=checkpoint.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: checkpoint={checkpoint}: no checkpoint, or a damaged")
    assert done.stderr.count("\n") == 1
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_folder_that_cannot_be_is_named(checkpoint: Path) -> None:
    options = Options(str(checkpoint), folder=str(checkpoint))
    with pytest.raises(UserError, match=r"folder=.*mlp ~1.ckpt cannot be written: File exists"):
        work(options)
