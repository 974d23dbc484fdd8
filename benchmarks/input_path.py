"""Seconds an epoch, training with the standard augmentation and validation, of four ways to it.

    python benchmarks/input_path.py
    python benchmarks/input_path.py models=mlp repeats=11

(a) `fmnist_pl` as users run it, all its logging on; (b) a bare PyTorch loop over the same tensors
and operations; (c) the usual Lightning pipeline: torchvision's transforms on single images, a
DataLoader with its best number of workers, metrics logged in every step, the net built of PyTorch's
layers in the order of the study; and the floor: the net's floating-point operations at the rate of
a large matrix product on this machine. All are interleaved in one run, so that a busy machine hurts
all alike, each in a process of its own, so that no way profits from another's settings. The ratios
are what counts.
"""

import resource
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fmnist_pl.config import resolve
from fmnist_pl.options.command import CONF_DIR, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config, Model

if TYPE_CHECKING:
    from torch import nn

MODELS = ("mlp", "cnn", "cnn_bn")
WAYS = ("fmnist_pl", "bare loop", "usual Lightning", "floor")
WORKERS = (0, 1, 2, 4)


@dataclass
class Options:
    models: str = option(",".join(MODELS), "Which models, separated by commas.")
    repeats: int = option(5, "Epochs of each.", ge=1)
    way: str | None = option(None, "Only this way, once: seconds and peak memory in MB.")
    workers: int = option(0, "Of the DataLoader, with way.", ge=0)


def configuration(model: str, *overrides: str) -> Config:
    from hydra import compose, initialize_config_dir

    from fmnist_pl import sweep  # noqa: F401  (registers its resolver)

    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return resolve(compose("train", [f"model={model}", "embeddings=none", *overrides]))


def ours(config: Config) -> float:
    """From the start of the first epoch to the start of the second."""
    from fmnist_pl.training.checkpoints import Record
    from fmnist_pl.training.folder import run

    class EpochDoneError(Exception):
        pass

    starts = []
    original = Record.on_train_epoch_start

    def note(self: Record, *arguments: Any) -> None:
        starts.append(time.perf_counter())
        if len(starts) == 2:
            raise EpochDoneError
        original(self, *arguments)

    Record.on_train_epoch_start = note  # type: ignore[method-assign]
    try:
        with TemporaryDirectory() as folder:
            run(config, Path(folder))
    except EpochDoneError:
        pass
    finally:
        Record.on_train_epoch_start = original  # type: ignore[method-assign]
    return starts[1] - starts[0]


def bare(config: Config) -> float:
    from bare_loop import train

    seconds, _ = train(config, epochs=1)
    return seconds


def plain_net(model: Model) -> "nn.Module":
    """The net as one writes it; initial weights are PyTorch's."""
    from torch import nn

    layers: list[nn.Module] = []
    channels, size = 1, 28
    for filters in model.channels:
        layers.append(nn.Conv2d(channels, filters, kernel_size=3, padding="same"))
        layers += [nn.BatchNorm2d(filters)] if model.batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels, size = filters, size // 2
    layers.append(nn.Flatten())
    units = channels * size * size
    for hidden in model.hidden:
        layers += [nn.Linear(units, hidden), nn.ReLU()]
        units = hidden
    return nn.Sequential(*layers, nn.Linear(units, 10))


def usual(config: Config, workers: int, batches: int | None = None) -> float:
    """The epoch under way from its first batch on; with `batches`, that many."""
    import lightning as L
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchmetrics.classification import MulticlassAccuracy
    from torchvision.transforms import InterpolationMode, v2

    from fmnist_pl.data import source
    from fmnist_pl.data.datamodule import split_indices
    from fmnist_pl.training.environment import quieten

    quieten()
    scale = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    augmented = v2.Compose(
        [
            v2.RandomRotation(5, InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(),
            *scale,
            v2.RandomErasing(0.5, scale=(0.002, 0.1), value=0.01),
        ]
    )

    class Images(Dataset[Any]):
        def __init__(self, images: Any, labels: Any, transform: Any) -> None:
            self.images, self.labels, self.transform = images, labels, transform

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> Any:
            return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain_net(config.model)
            self.accuracy = torch.nn.ModuleDict(
                {"train_": MulticlassAccuracy(10), "val": MulticlassAccuracy(10)}
            )
            self.times: list[float] = []

        def step(self, stage: str, batch: Any) -> Any:
            images, labels = batch
            logits = self.net(images)
            loss = F.cross_entropy(logits, labels)
            metric = self.accuracy["train_" if stage == "train" else stage]
            metric(logits, labels)
            self.log(f"{stage}/loss", loss, prog_bar=True, on_step=stage == "train", on_epoch=True)
            self.log(f"{stage}/acc", metric, prog_bar=True, on_step=False, on_epoch=True)
            return loss

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.step("train", batch)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.step("val", batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), eps=1e-7)

        def on_train_start(self) -> None:
            self.times.append(time.perf_counter())

        def on_train_end(self) -> None:
            self.times.append(time.perf_counter())

    data = source.load()
    train, val = split_indices(60_000, config.data.val_size, config.data.split_seed)
    kept = {"num_workers": workers, "persistent_workers": workers > 0}
    loaders = (
        DataLoader(
            Images(data.train_images[train], data.train_labels[train], augmented),
            batch_size=32,
            shuffle=True,
            **kept,
        ),
        DataLoader(
            Images(data.train_images[val], data.train_labels[val], v2.Compose(scale)),
            batch_size=256,
            **kept,
        ),
    )
    with TemporaryDirectory() as folder:
        module = Module()
        L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_train_batches=batches or 1.0,
            limit_val_batches=0 if batches else 1.0,
        ).fit(module, *loaders)
    return module.times[1] - module.times[0]


def floor(config: Config) -> float:
    """Forward and backward passes of an epoch and the validation, in seconds of matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fmnist_pl.model.nets import build_net

    net = build_net(config.model, 10)
    with FlopCounterMode(display=False) as training:
        net(torch.rand(100, 1, 28, 28)).sum().backward()
    with FlopCounterMode(display=False) as evaluation, torch.no_grad():
        net(torch.rand(100, 1, 28, 28))
    operations = 500 * training.get_total_flops() + 100 * evaluation.get_total_flops()

    n = 2048
    a, b = torch.rand(n, n), torch.rand(n, n)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return operations / (2 * n**3 / median(seconds))


def measure(config: Config, way: str, workers: int) -> float:
    return {
        "fmnist_pl": lambda: ours(config),
        "bare loop": lambda: bare(config),
        "usual Lightning": lambda: usual(config, workers),
        "floor": lambda: floor(config),
        "workers": lambda: float(best_workers(config)),
    }[way]()


def best_workers(config: Config) -> int:
    return min(
        WORKERS,
        key=lambda workers: usual(config, workers, batches=300),
    )


def measure_apart(model: str, way: str, workers: int = 0) -> tuple[float, float]:
    """The figure and the peak memory, MB, of a process of its own."""
    command = [sys.executable, __file__, f"models={model}", f"way={way}", f"workers={workers}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figure, peak = done.stdout.split()[-2:]
    return float(figure), float(peak)


def work(options: Options) -> None:
    """Measure and print."""
    models = options.models.split(",")
    for model in models:
        if model not in MODELS:
            raise UserError(f"models={options.models}: {model} is not one of {', '.join(MODELS)}.")
    if options.way:
        figure = measure(configuration(models[0]), options.way, options.workers)
        print(figure, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return

    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    peak: dict[tuple[str, str], float] = {}
    workers = {model: int(measure_apart(model, "workers")[0]) for model in models}
    for repeat in range(options.repeats):
        for model in models:
            for way in WAYS:
                figure, peak[model, way] = measure_apart(model, way, workers[model])
                seconds[model, way].append(figure)
        print(f"repeat {repeat + 1} of {options.repeats} done", file=sys.stderr, flush=True)

    import torch

    from fmnist_pl.training.environment import describe_environment

    environment = describe_environment(torch.device("cpu"), 1)
    print(environment["hardware"] | environment["versions"])
    print(f"{'seconds an epoch':32} {'min':>7} {'max':>7}  {'in bare loops':22} peak MB")
    for model in models:
        for way in WAYS:
            values = seconds[model, way]
            print(
                f"{model:8} {way:16} {median(values):7.2f} {min(values):7.2f} {max(values):7.2f}  "
                f"{ratios(values, seconds[model, 'bare loop']):22} {peak[model, way]:7.0f}"
            )
        print(
            f"{model:8} usual Lightning ({workers[model]} workers) in epochs of fmnist_pl: "
            f"{ratios(seconds[model, 'usual Lightning'], seconds[model, 'fmnist_pl'])}"
        )


def ratios(values: list[float], references: list[float]) -> str:
    each = [value / reference for value, reference in zip(values, references, strict=True)]
    return f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
