"""What the items of `gpu.py` stand on: where they work, what they yield, how they train and time.

An item runs in a process of its own, `attend`, and may do there what it likes. It trains as users
do, through `fmnist_pl.training.folder.run` or the command, and looks in with Lightning's callbacks:
what is checked is what is used.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import format_exc
from typing import Any, NamedTuple

import lightning as L
import torch
from input_path import configuration
from six_models import models
from torch import Tensor

from fmnist_pl.model.classifier import Classifier
from fmnist_pl.training.callbacks import Averaging
from fmnist_pl.training.folder import run


@dataclass(frozen=True)
class Bench:
    """Where the items are at work, and on what."""

    device: str  # cuda or cpu
    small: bool
    folder: Path  # for whatever they write; each item makes folders of its own
    words: tuple[str, ...] = ()  # for every run

    def pick(self, full: Any, small: Any) -> Any:
        return small if self.small else full

    @property
    def models(self) -> list[str]:
        """The six; in small, the two least alike."""
        return self.pick(models(), ["mlp", "cnn_bn_dropout_l1"])

    def accelerator(self, device: str | None = None) -> str:
        """The word of a run for a device; the bench's, if none is named."""
        lightning = "gpu" if (device or self.device) == "cuda" else "cpu"
        return f"trainer.accelerator={lightning}"


class Figure(NamedTuple):
    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def right(self) -> bool:
        """Within its limits; NaN is within none."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


Figures = Iterator[Figure]


class Failure(NamedTuple):
    error: str
    traceback: str


def attend(item: Callable[[Bench], Figures], bench: Bench, pipe: Connection, log: Path) -> None:
    """Send an item's figures through a pipe, one by one; then None, or a `Failure`."""
    os.setsid()  # with all it starts it can be ended at once
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        for figure in item(bench):
            pipe.send(figure)
        pipe.send(None)
    except BaseException as error:  # SystemExit, too
        print(format_exc(), file=sys.stderr, flush=True)
        pipe.send(Failure(f"{type(error).__name__}: {error}", format_exc()))


def relative(value: Tensor, reference: Tensor) -> float:
    """Norm of the difference in norms of the reference."""
    reference = reference.detach().cpu().double()
    difference = value.detach().cpu().double() - reference
    return (difference.norm() / reference.norm()).item()


def worst(errors: list[float]) -> float:
    """The largest; NaN if there is one."""
    return torch.tensor(errors, dtype=torch.float64).max().item()


def flat(tensors: dict[str, Tensor]) -> Tensor:
    """All numbers that are not whole, in one row."""
    return torch.cat(
        [one.double().flatten() for one in tensors.values() if one.is_floating_point()]
    )


class TrainedError(Exception):
    """Ends a run once it is trained, before its test."""


class Keep(L.Callback):
    """Keeps what training has made, on the CPU, and ends the run."""

    def __init__(self) -> None:
        self.loss = float("nan")
        self.weights: dict[str, Tensor] = {}  # with batch norm's averages and the epochs' mean
        self.gradients: dict[str, Tensor] = {}  # of the last step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if not trainer.is_last_batch:  # copying waits for the device
            return
        for name, parameter in pl_module.named_parameters():  # validation will clear them
            if parameter.grad is not None:
                self.gradients[name] = parameter.grad.cpu().clone()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        [averaging] = [one for one in trainer.callbacks if isinstance(one, Averaging)]
        state = {**pl_module.state_dict(), **averaging.state_dict()["average"]}
        self.weights = {name: value.detach().cpu().clone() for name, value in state.items()}
        self.loss = trainer.callback_metrics["train/loss"].item()
        raise TrainedError


def train(
    bench: Bench, model: str, steps: int, *words: str, look: L.Callback | None = None
) -> Keep:
    """One epoch of so many steps, as `fmnist_pl` trains it; later words outdo earlier ones."""
    keep = Keep()
    callbacks = [look, keep] if look else [keep]
    Classifier.configure_callbacks = lambda self: callbacks  # type: ignore[method-assign]
    config = configuration(
        model,
        *(bench.accelerator(), *bench.words, "trainer.enable_progress_bar=false"),
        *("trainer.max_epochs=1", f"trainer.limit_train_batches={steps}"),
        *("trainer.limit_val_batches=1", *words),
    )
    with TemporaryDirectory(dir=bench.folder) as folder, suppress(TrainedError):
        run(config, Path(folder))
    return keep


def command(name: str, *words: str) -> float:
    """Seconds of `python -m fmnist_pl.NAME WORDS...`."""
    start = time.perf_counter()
    arguments = [sys.executable, "-m", f"fmnist_pl.{name}", *words]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(words)}: {(done.stdout + done.stderr)[-2000:]}")
    return time.perf_counter() - start


def now(bench: Bench) -> Any:
    """This moment of the device's work: an event of CUDA's; on a CPU, seconds of its clock."""
    if bench.device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def milliseconds(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return float(end - start) * 1e3
    end.synchronize()
    return float(start.elapsed_time(end))
