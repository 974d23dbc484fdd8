"""Embeddings against the classifier's own, scikit-learn's figures, and what TensorBoard serves."""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from fmnist_pl import projector as command
from fmnist_pl.data.datamodule import Batch
from fmnist_pl.drawing import projector
from fmnist_pl.model import inference
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import embed, load_classifier, load_split, predict
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Model
from tests.conftest import CLASS_NAMES

TEST, TRAIN = 200, 100  # images


@pytest.fixture(scope="module")
def classifier(finished_run: Path) -> Classifier:
    return load_classifier(finished_run / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def splits(classifier: Classifier) -> dict[str, Batch]:
    sizes = {"test": TEST, "train": TRAIN}
    whole = {split: load_split(classifier, split) for split in sizes}
    return {split: (whole[split][0][:n], whole[split][1][:n]) for split, n in sizes.items()}


def write(
    folder: Path, classifier: Classifier, splits: dict[str, Batch], prefix: str = ""
) -> dict[str, float]:
    embedded = {split: embed(classifier, *batch) for split, batch in splits.items()}
    return projector.write(folder, embedded, classifier.class_names, prefix)


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a run in a sweep, to write to."""
    return shutil.copytree(finished_run, tmp_path / "sweep" / "mlp-0")


@pytest.fixture(scope="module")
def projected(
    finished_run: Path,
    classifier: Classifier,
    splits: dict[str, Batch],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, float]]:
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("sweep") / "mlp-0")
    return folder, write(folder, classifier, splits)


class Server:
    """TensorBoard's own plugin over a folder, as the browser asks it."""

    def __init__(self, folder: Path) -> None:
        runs = EventMultiplexer().AddRunsFromDirectory(str(folder))
        runs.Reload()
        context = TBContext(
            logdir=str(folder), data_provider=MultiplexerDataProvider(runs, str(folder))
        )
        self.routes = ProjectorPlugin(context).get_plugin_apps()

    def get(self, route: str, **query: str) -> bytes:
        response = Client(self.routes[f"/{route}"]).get(query_string=query)
        assert response.status_code == 200, response.get_data()
        return response.get_data()

    def embeddings(self, run: str) -> dict[str, Any]:
        listed = json.loads(self.get("info", run=run))["embeddings"]
        return {entry["tensorName"]: entry for entry in listed}

    def tensor(self, run: str, name: str) -> np.ndarray:
        content = np.frombuffer(self.get("tensor", run=run, name=name), np.float32)
        return content.reshape(self.embeddings(run)[name]["tensorShape"])


def test_the_arrays_are_the_classifiers(
    projected: tuple[Path, dict[str, float]], classifier: Classifier, splits: dict[str, Batch]
) -> None:
    folder, accuracies = projected
    images, labels = splits["test"]
    expected = predict(classifier, images)
    with np.load(folder / "embeddings" / "test.npz") as file:
        arrays = dict(file)
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "embeddings": "float32",
        "tsne": "float32",
        "labels": "int64",
        "predictions": "int64",
    }
    assert np.array_equal(arrays["embeddings"], expected.embeddings)
    assert np.array_equal(arrays["labels"], labels)
    assert np.array_equal(arrays["predictions"], expected.logits.argmax(1))
    assert arrays["tsne"].shape == (TEST, 2)
    assert accuracies == {
        "embedding": leave_one_out(arrays["embeddings"], arrays["labels"]),
        "tsne": leave_one_out(arrays["tsne"], arrays["labels"]),
    }
    assert min(accuracies.values()) > 0.5


@pytest.mark.parametrize(("logdir", "run"), [("run", "."), ("sweep", "mlp-0")])
def test_tensorboard_serves_it(
    projected: tuple[Path, dict[str, float]],
    classifier: Classifier,
    splits: dict[str, Batch],
    logdir: str,
    run: str,
) -> None:
    folder, _ = projected
    server = Server(folder if logdir == "run" else folder.parent)
    assert json.loads(server.get("runs")) == [run]
    assert list(server.embeddings(run)) == ["test", "test-tsne", "train"]
    with np.load(folder / "embeddings" / "test.npz") as arrays:
        plane = arrays["tsne"]
    space = server.tensor(run, "test-tsne")
    assert np.array_equal(space[:, :2], plane)
    assert space.shape == (TEST, 3)
    assert not space[:, 2].any()
    for split, (images, labels) in splits.items():
        predictions = predict(classifier, images)
        assert np.array_equal(server.tensor(run, split), predictions.embeddings)
        table = server.get("metadata", run=run, name=split).decode().splitlines()
        assert table == ["Class\tName\tPrediction"] + [
            f"{label}\t{CLASS_NAMES[label]}\t{CLASS_NAMES[prediction]}"
            for label, prediction in zip(labels, predictions.logits.argmax(1), strict=True)
        ]
        entry = server.embeddings(run)[split]
        assert entry["sprite"]["singleImageDim"] == [28, 28]
        served = server.get("sprite_image", run=run, name=split)
        assert served == (folder / entry["sprite"]["imagePath"]).read_bytes()


def test_thumbnails_are_the_images(
    projected: tuple[Path, dict[str, float]], splits: dict[str, Batch]
) -> None:
    for split, (images, _) in splits.items():
        with Image.open(projected[0] / "embeddings" / f"{split}.png") as file:
            side = -(-(len(images) ** 0.5) // 1)
            assert file.size == (side * 28, side * 28)
            for i, image in enumerate(images):
                row, column = divmod(i, int(side))
                box = (column * 28, row * 28, column * 28 + 28, row * 28 + 28)
                assert np.array_equal(255 - np.asarray(file.crop(box)), image)


def test_thumbnails_of_all_images_fit_tensorboard() -> None:
    assert max(projector.sprite(np.zeros((60_000, 28, 28), np.uint8)).size) <= 8192


def test_names_cannot_break_the_table() -> None:
    table = projector.metadata(
        ["T-shirt\ttop", "two\r\nlines", "Größe"], np.array([0, 1, 2]), np.array([1, 2, 0])
    )
    assert [line.split("\t") for line in table.splitlines()] == [
        ["Class", "Name", "Prediction"],
        ["0", "T-shirt top", "two lines"],
        ["1", "two lines", "Größe"],
        ["2", "Größe", "T-shirt top"],
    ]


def test_what_is_there_under_other_names_stays(
    run_folder: Path, classifier: Classifier, splits: dict[str, Batch]
) -> None:
    config = run_folder / "projector_config.pbtxt"
    mine = 'embeddings { tensor_name: "mine" tensor_path: "mine.tsv" metadata_path: "names.tsv" }\n'
    config.write_text(mine)
    (run_folder / "mine.tsv").write_text("1\t2\n3\t4\n")
    test = {"test": splits["test"]}
    write(run_folder, classifier, test)
    fewer = {"test": (splits["test"][0][:150], splits["test"][1][:150])}
    write(run_folder, classifier, fewer, prefix="best-")
    write(run_folder, classifier, {"train": splits["train"]})

    server = Server(run_folder)
    shapes = {name: entry["tensorShape"] for name, entry in server.embeddings(".").items()}
    assert shapes == {
        "mine": [2, 2],
        "test": [TEST, 128],
        "test-tsne": [TEST, 3],
        "best-test": [150, 128],
        "best-test-tsne": [150, 3],
        "train": [TRAIN, 128],
    }
    assert np.array_equal(server.tensor(".", "mine"), [[1, 2], [3, 4]])
    assert server.embeddings(".")["mine"]["metadataPath"] == "names.tsv"

    before = config.read_text()
    write(run_folder, classifier, test)
    assert config.read_text() == before
    assert not list(run_folder.rglob("*.part"))


def test_a_damaged_configuration_is_named(
    run_folder: Path, classifier: Classifier, splits: dict[str, Batch]
) -> None:
    config = run_folder / "projector_config.pbtxt"
    config.write_text("embeddings { tensor_name: ")
    with pytest.raises(UserError, match=r"projector_config\.pbtxt: no configuration"):
        write(run_folder, classifier, splits)
    assert config.read_text() == "embeddings { tensor_name: "


def untrained(**options: Any) -> Classifier:
    classes = {name: [label] for label, name in enumerate(CLASS_NAMES)}
    return Classifier(asdict(Model("net", **options)), classes, {}).eval()


def test_a_classifier_that_says_nothing_can_be_looked_at(
    run_folder: Path, splits: dict[str, Batch]
) -> None:
    dead = untrained()
    with torch.no_grad():
        for parameter in dead.parameters():
            parameter.zero_()
    accuracies = write(run_folder, dead, {"test": splits["test"]})
    assert all(0 <= accuracy < 0.3 for accuracy in accuracies.values())
    server = Server(run_folder)
    assert not server.tensor(".", "test").any()
    assert np.isfinite(server.tensor(".", "test-tsne")).all()


def test_an_embedding_of_one_dimension_can_be_looked_at(
    run_folder: Path, splits: dict[str, Batch]
) -> None:
    narrow = untrained(hidden=[1])
    write(run_folder, narrow, {"test": splits["test"]})
    server = Server(run_folder)
    assert np.array_equal(
        server.tensor(".", "test")[:, :1], predict(narrow, splits["test"][0]).embeddings
    )
    assert server.tensor(".", "test-tsne").shape == (TEST, 3)


def test_embeddings_that_are_no_numbers_are_refused(
    run_folder: Path, splits: dict[str, Batch]
) -> None:
    diverged = untrained()
    with torch.no_grad():
        diverged.net.features[-2].bias[0] = torch.nan
    with pytest.raises(UserError, match="not finite numbers"):
        write(run_folder, diverged, splits)
    assert not list((run_folder / "embeddings").iterdir())


@pytest.mark.parametrize("installed", [True, False])
def test_tsne_keeps_clusters_apart_and_is_repeatable(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:  # as on Linux on ARM
        monkeypatch.setattr(projector, "find_spec", lambda name: None)
        monkeypatch.setitem(sys.modules, "openTSNE", None)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 60)
    points = (rng.normal(0, 1, (300, 20)) + 8 * rng.normal(0, 1, (5, 20))[labels]).astype("f4")
    plane = projector.tsne(points)
    assert plane.dtype == np.float32
    assert projector.knn_accuracy(plane, labels) == 1.0
    assert plane.tobytes() == projector.tsne(points).tobytes()


def leave_one_out(points: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy of scikit-learn's classifier, fitted anew to all points but one."""
    right = 0
    for i in range(len(points)):
        others = np.arange(len(points)) != i
        knn = KNeighborsClassifier(projector.NEIGHBOURS).fit(points[others], labels[others])
        right += knn.predict(points[i : i + 1])[0] == labels[i]
    return right / len(points)


def test_nearest_neighbours_as_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    points = rng.normal(0, 1, (200, 3)).astype("f4") + 0.8 * labels[:, None].astype("f4")
    accuracy = projector.knn_accuracy(points, labels)
    assert 0.3 < accuracy < 0.9
    assert accuracy == leave_one_out(points, labels)


def test_a_point_is_not_its_own_neighbour() -> None:
    # Eleven of one label on one spot, and one of another among them.
    labels = np.array([0] * 11 + [1])
    assert projector.knn_accuracy(np.zeros((12, 2), "f4"), labels) == 11 / 12


@pytest.fixture
def small_splits(monkeypatch: pytest.MonkeyPatch, splits: dict[str, Batch]) -> list[str]:
    """The command sees few images; the names of the splits it asked for."""
    asked = []

    def load_split(classifier: Classifier, split: str, root: str | None = None) -> Batch:
        asked.append(split)
        return splits[split]

    monkeypatch.setattr(inference, "load_split", load_split)
    return asked


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["projector", *arguments])
    with pytest.raises(SystemExit) as stop:
        command.main()
    return stop.value.code


def test_the_command_adds_to_the_run(
    run_folder: Path,
    small_splits: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoints = run_folder / "checkpoints"
    assert call(monkeypatch, f"checkpoint={checkpoints / 'last.ckpt'}") is None
    monkeypatch.chdir(checkpoints)
    assert call(monkeypatch, "checkpoint=best.ckpt", "embeddings=all") is None
    assert small_splits == ["test", "test", "train"]
    out = capsys.readouterr().out
    assert "best-train: 100 images" in out
    assert f"tensorboard --logdir {run_folder}\n" in out
    assert list(Server(run_folder.parent).embeddings("mlp-0")) == [
        *("last-test", "last-test-tsne"),
        *("best-test", "best-test-tsne", "best-train"),
    ]


@pytest.mark.parametrize("given", [False, True])
def test_a_checkpoint_elsewhere(
    tmp_path: Path,
    finished_run: Path,
    small_splits: list[str],
    monkeypatch: pytest.MonkeyPatch,
    given: bool,
) -> None:
    checkpoint = tmp_path / "a = b" / "mine.ckpt"
    checkpoint.parent.mkdir()
    shutil.copy(finished_run / "checkpoints" / "last.ckpt", checkpoint)
    folder = tmp_path / "new" / "folder" if given else checkpoint.parent
    options = [f"folder={folder}"] if given else []
    assert call(monkeypatch, f"checkpoint={checkpoint}", *options) is None
    assert list(Server(folder).embeddings(".")) == ["mine-test", "mine-test-tsne"]


def test_mistakes_are_told_in_a_line(
    tmp_path: Path,
    finished_run: Path,
    small_splits: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    checkpoint = f"checkpoint={finished_run / 'checkpoints' / 'last.ckpt'}"
    for arguments, message in (
        ((checkpoint, "embeddings=none"), "embeddings=none: must be one of test, all"),
        ((checkpoint, f"folder={tmp_path / 'file'}"), "cannot be written"),
        ((f"checkpoint={tmp_path / 'no.ckpt'}",), "No such file"),
    ):
        assert call(monkeypatch, *arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
