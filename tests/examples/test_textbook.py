"""The textbook beside the package trains the same nets, step by step, on the same data."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.stats import chisquare, kstest, uniform
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from fmnist_pl.data import augment, source
from fmnist_pl.data.datamodule import derive_seed, split_indices, to_float
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.options.schema import Config
from fmnist_pl.report.arms import NETS

ROOT = Path(__file__).parents[2]
TEXTBOOK = ROOT / "examples" / "textbook.py"
MODELS = sorted(NETS)
STEPS = 20


@pytest.fixture(scope="module")
def textbook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("textbook", TEXTBOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What torchvision takes for its own download, left by the command that the file names."""
    folder = tmp_path_factory.mktemp("data")
    run("-m", "fmnist_pl.dataset", f"copy_to={folder}/FashionMNIST/raw")
    return folder


def run(*arguments: str) -> None:
    """A Python command in the root of the checkout, that ends well."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def scalars(folder: Path) -> dict[str, float]:
    """The last value of every curve in TensorBoard."""
    events = EventAccumulator(str(folder)).Reload()
    return {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}


def options(model: str) -> dict[str, Any]:
    with initialize_config_dir(str(TEXTBOOK.with_name("conf")), version_base="1.3"):
        composed: Any = OmegaConf.to_object(compose("config", [f"model={model}"]))
    return {**composed["model"], **composed["optimizer"]}


def test_the_textbook_is_short_and_stands_alone() -> None:
    source = TEXTBOOK.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 200
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import)]
    taken_from = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imported for alias in node.names]
    names += [node.module or "." for node in taken_from]
    assert "lightning" in names
    assert not [name for name in names if name.split(".")[0] in ("fmnist_pl", "")]


@pytest.mark.parametrize("model", MODELS)
def test_options_are_those_of_the_package(model: str, configured: Callable[..., Config]) -> None:
    config = configured(f"model={model}")
    expected = asdict(config.model) | {"lr": config.optimizer["lr"]}
    assert options(model) == {k: v for k, v in expected.items() if k not in ("name", "net")}


def tensors(module: nn.Module, grad: bool = False) -> list[Tensor]:
    """Weights and biases, or their gradients, layer by layer."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    parameters = [
        parameter
        for layer in module.modules()
        if isinstance(layer, kinds)
        for parameter in (layer.weight, layer.bias)
    ]
    return [(p.grad if grad else p).detach().clone() for p in parameters]


def as_keras(values: list[Tensor]) -> list[Tensor]:
    """The textbook's with the columns of the first dense layer after convolutions in our order.

    The package flattens (H, W, C), as Keras does, the textbook (C, H, W), as `nn.Flatten` does.
    """
    return [
        value.unflatten(1, (32, 7, 7)).permute(0, 2, 3, 1).flatten(1)
        if value.shape[-1] == 32 * 7 * 7
        else value
        for value in values
    ]


class Trace(L.Callback):
    """Losses, gradients and weights of every step, by whatever optimization."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.gradients: list[list[Tensor]] = []
        self.weights: list[list[Tensor]] = []  # before each step, and after the last

    def on_train_batch_start(self, *_: Any) -> None:
        if not self.losses:
            torch.manual_seed(0)  # of dropout

    def on_before_backward(self, trainer: Any, module: L.LightningModule, loss: Tensor) -> None:
        self.losses.append(loss.detach().clone())

    def on_before_optimizer_step(self, trainer: Any, module: L.LightningModule, _: Any) -> None:
        self.gradients.append(tensors(module, grad=True))
        self.weights.append(tensors(module))

    def on_train_end(self, trainer: Any, module: L.LightningModule) -> None:
        self.weights.append(tensors(module))


def trained(module: L.LightningModule, batches: list[Any]) -> Trace:
    """One epoch by Lightning's loop, through the module's own steps and its own optimizer."""
    trace = Trace()
    L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[trace],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return trace


def both(textbook: ModuleType, model: str, config: Config) -> tuple[Any, Classifier]:
    """The textbook's module and the package's."""
    theirs = textbook.Classifier(**options(model))
    return theirs, Classifier(asdict(config.model), config.classes, config.optimizer)


@pytest.mark.filterwarnings("ignore:.*`srun` command is available")
@pytest.mark.filterwarnings("ignore:.*no `val_dataloader`")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("model", MODELS)
def test_every_step_is_the_same(
    model: str, textbook: ModuleType, configured: Callable[..., Config]
) -> None:
    """Twenty steps in double precision, with dropout: losses, gradients, weights."""
    arrays = source.load()
    images = to_float(torch.from_numpy(arrays.train_images[: 32 * STEPS])).double()
    labels = torch.from_numpy(arrays.train_labels[: 32 * STEPS]).long()
    batches = list(zip(images.split(32), labels.split(32), strict=True))
    theirs, ours = both(textbook, model, configured(f"model={model}"))
    theirs, ours = theirs.double(), ours.double()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)  # both signs
    with torch.no_grad():
        start = as_keras(tensors(theirs))
        for parameter, value in zip(ours.parameters(), start, strict=True):
            parameter.copy_(value)

    one, other = trained(theirs, batches), trained(ours, batches)
    exact = {"rtol": 1e-9, "atol": 1e-9}
    assert len(one.losses) == len(one.gradients) == STEPS
    torch.testing.assert_close(other.losses, one.losses, **exact)
    # Batch norm takes the bias before it off again: its gradient is zero but for rounding, which
    # Adam divides by next to nothing.
    idle = (1, 5) if options(model)["batch_norm"] else ()
    for name, loose in (("gradients", ()), ("weights", idle)):
        for found, expected in zip(getattr(other, name), getattr(one, name), strict=True):
            pairs = zip(found, as_keras(expected), strict=True)
            for i, (ours_value, theirs_value) in enumerate(pairs):
                tolerance = {"rtol": 0.0, "atol": 1e-6} if i in loose else exact
                torch.testing.assert_close(ours_value, theirs_value, **tolerance)

    norms = [
        [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        for module in (theirs, ours)
    ]
    for theirs_norm, ours_norm, side in zip(*norms, (28, 14), strict=False):
        torch.testing.assert_close(ours_norm.running_mean, theirs_norm.running_mean, **exact)
        # Of n values a channel the package, as Keras, takes the mean square, PyTorch divides by
        # n - 1.
        n, kept = 32 * side**2, 0.99**STEPS
        expected = kept + (theirs_norm.running_var - kept) * (n - 1) / n
        torch.testing.assert_close(ours_norm.running_var, expected, **exact)


@pytest.mark.parametrize("model", MODELS)
def test_initial_weights_are_the_same(
    model: str, textbook: ModuleType, configured: Callable[..., Config]
) -> None:
    """From the same generator the same numbers; so the distributions are the same."""
    torch.manual_seed(derive_seed(0))
    theirs, ours = both(textbook, model, configured(f"model={model}"))
    torch.testing.assert_close(tensors(theirs), tensors(ours), rtol=0, atol=0)


def test_the_split_and_the_pixels_are_the_same(textbook: ModuleType, data_root: Path) -> None:
    data = textbook.FashionMNISTData(str(data_root), batch_size=32, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    arrays = source.load()
    train, val = split_indices(60_000, 10_000, seed=42)
    for subset, indices in ((data.train, train), (data.val, val)):
        np.testing.assert_array_equal(subset.indices, indices)
        np.testing.assert_array_equal(subset.dataset.targets, arrays.train_labels)
    assert [len(data.train), len(data.val), len(data.test)] == [50_000, 10_000, 10_000]
    assert len(data.train_dataloader()) == 1_563
    first, second = (next(iter(data.train_dataloader()))[1] for _ in range(2))
    assert not torch.equal(first, second)  # a new order

    images, labels = next(iter(data.val_dataloader()))
    torch.testing.assert_close(images, to_float(torch.from_numpy(arrays.train_images[val[:250]])))
    np.testing.assert_array_equal(labels, arrays.train_labels[val[:250]])
    images, labels = next(iter(data.test_dataloader()))
    torch.testing.assert_close(images, to_float(torch.from_numpy(arrays.test_images[:250])))


@pytest.mark.parametrize("angle", [-5.0, 3.3])
def test_rotation_is_the_same(angle: float, textbook: ModuleType) -> None:
    images = torch.rand(8, 1, 28, 28)
    pad, rotate, crop = textbook.build_transform(augment=True).transforms[2:5]
    assert rotate.degrees == [-5.0, 5.0]
    rotate = v2.RandomRotation((angle, angle), rotate.interpolation)
    expected = augment.Rotate().apply(images, torch.full((8,), angle))
    torch.testing.assert_close(crop(rotate(pad(images))), expected, rtol=0, atol=1e-5)


def test_the_rest_of_the_augmentation_is_drawn_alike(textbook: ModuleType) -> None:
    torch.manual_seed(0)
    *_, flip, cut = textbook.build_transform(augment=True).transforms
    assert (type(flip), flip.p, type(cut), cut.p) == (
        *(v2.RandomHorizontalFlip, 0.5),
        *(v2.RandomApply, 0.5),
    )
    white, [cutout] = torch.ones(1, 28, 28), cut.transforms
    sizes, starts, values = ([], []), ([], []), []
    for _ in range(2_700):
        inside = cutout(white)[0] < 1
        rows, columns = inside.any(1), inside.any(0)
        assert inside.sum() == rows.sum() * columns.sum()  # a rectangle
        values.append(cutout(white).min().item())
        for axis, along in enumerate((rows, columns)):
            sizes[axis].append(along.sum().item())
            if along.sum() == 5:
                starts[axis].append(along.nonzero()[0].item())
    for axis in range(2):
        assert set(sizes[axis]) == set(range(1, 10))
        assert chisquare(np.bincount(sizes[axis])[1:]).pvalue > 1e-3
        assert set(starts[axis]) == set(range(24))  # up to the last row and column
        assert chisquare(np.bincount(starts[axis])).pvalue > 1e-3
    assert kstest(values, uniform(0, 0.02).cdf).pvalue > 1e-3


def test_the_command_leaves_a_checkpoint_and_curves(data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(
        str(TEXTBOOK.relative_to(ROOT)),
        "model=cnn_bn_dropout_l1",
        f"data.root={data_root}",
        f"hydra.run.dir={folder}",
        "trainer.max_epochs=1",
        *(f"trainer.limit_{split}_batches=3" for split in ("train", "val", "test")),
    )
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert last["hyper_parameters"] == options("cnn_bn_dropout_l1")
    curves = scalars(folder)
    for split in ("train", "val", "test"):
        assert curves[f"{split}/loss"] == pytest.approx(
            curves[f"{split}/cross_entropy"] + curves[f"{split}/penalty"], rel=1e-5
        )
        assert curves[f"{split}/penalty"] > 0
        assert 0 <= curves[f"{split}/acc"] <= 1


@pytest.mark.slow
def test_half_an_epoch_of_either_program_comes_to_the_same(data_root: Path, tmp_path: Path) -> None:
    """Means over seeds differ by less than 4 of their standard errors, of spreads known before.

    Seen over 36 runs of both; three alone can be so near each other, by luck, that a t-test errs.
    Running accuracy in training is a mean over 25,600 augmented images, and tells more: its limit
    is 0.0076, while rotation by 10 degrees in place of 5 costs 0.011.
    """
    same = ("model=mlp", "trainer.max_epochs=1", "trainer.limit_train_batches=800")
    textbooks, packages = [], []
    for seed in range(3):
        folder = tmp_path / f"textbook-{seed}"
        words = (*same, f"seed={seed}", f"data.root={data_root}", f"hydra.run.dir={folder}")
        run("examples/textbook.py", *words)
        textbooks.append(scalars(folder))
    for seed in range(6):
        folder = tmp_path / f"package-{seed}"
        words = (*same, f"seed={seed}", "embeddings=none", "pictures=false")
        run("-m", "fmnist_pl.train", *words, f"hydra.run.dir={folder}")
        packages.append(json.loads((folder / "result.json").read_text()))
    for name, deviation in (("train/acc", 0.0027), ("val/acc", 0.0103)):
        one, other = (np.array([each[name] for each in runs]) for runs in (textbooks, packages))
        limit = 4 * deviation * np.sqrt(1 / len(one) + 1 / len(other))
        assert abs(one.mean() - other.mean()) < limit, (name, one, other)
