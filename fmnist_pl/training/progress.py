"""How far a run is, at the terminal."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from joblib import cpu_count
from lightning.pytorch.callbacks import ProgressBar
from torch import nn
from tqdm import tqdm

from fmnist_pl.data.datamodule import TrainChunks
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.options.messages import progress_bar
from fmnist_pl.training.checkpoints import Record
from fmnist_pl.training.environment import describe_device
from fmnist_pl.training.graphs import CUDAGraphs


class Progress(ProgressBar):
    """One bar for the whole run; where there is no terminal, one line an epoch.

    It shows the figures of the last whole epoch: the loop never waits for the device.

    Args:
        name: of the run.
        record: whose last row is shown.
    """

    def __init__(self, name: str, record: Record) -> None:
        super().__init__()
        self.name, self.record = name, record
        self.bar: tqdm[Any] = tqdm(disable=True)
        self.told = 0  # epochs whose figures have been printed

    def disable(self) -> None:
        """What Lightning asks of all processes but the first; `on_train_start` sees to it."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(trainer.train_dataloader, TrainChunks)
        steps = trainer.train_dataloader.num_batches
        if not trainer.is_global_zero:
            return
        print(f"{self.name} trains on {in_words(trainer)}{advice(trainer)}", flush=True)
        if changes := difference(self.record.parts[-2:]):
            print(
                f"{self.name} was trained with other {changes} before epoch "
                f"{self.record.parts[-1]['epoch']}: its bits are not those of one run",
                flush=True,
            )
        if self.record.rows:
            print(f"{self.name} goes on after epoch {trainer.current_epoch}", flush=True)
        self.told = len(self.record.rows)
        self.bar = progress_bar(
            desc=self.name,
            total=(trainer.max_epochs or 0) * steps,
            initial=trainer.current_epoch * steps,
            unit="batch",
            mininterval=0.5,
            dynamic_ncols=True,
        )

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.show(trainer.current_epoch + 1, trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.bar.update(len(batch) if isinstance(batch, list) else 1)  # a chunk, or a batch

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.show(trainer.current_epoch, trainer)
        self.bar.close()
        done, wanted = trainer.current_epoch, trainer.max_epochs or 0
        if trainer.is_global_zero:
            how = f"stopped after {done} of {wanted} epochs" if done < wanted else "trained"
            print(f"{self.name} is {how}: now its test and what it leaves", flush=True)

    def show(self, epoch: int, trainer: L.Trainer) -> None:
        """Name the epoch under way and give the figures of the one before."""
        row = self.record.rows[-1] if self.record.rows else {}
        figures = ", ".join(
            f"{name} {row[f'train/{name}']:.3f} val {row[f'val/{name}']:.3f}"
            for name in ("loss", "acc")
            if row
        )
        self.bar.set_description_str(
            f"{self.name} epoch {epoch}/{trainer.max_epochs}", refresh=False
        )
        self.bar.set_postfix_str(figures)
        if self.bar.disable and len(self.record.rows) > self.told and trainer.is_global_zero:
            self.told = len(self.record.rows)
            print(
                f"{self.name} epoch {row['epoch']}/{trainer.max_epochs}: {figures}, "
                f"{row['seconds']:.1f} s",
                flush=True,
            )


def difference(parts: Sequence[dict[str, Any]]) -> str:
    """What the last part of a run was trained with and the one before was not."""
    entries = [
        {
            **part["hardware"],
            **part["versions"],
            "commit": part["git_commit"],
            "data": part["data_sha256"],
        }
        for part in parts
    ]
    first, last = entries[0], entries[-1]
    return ", ".join(name for name in last if first.get(name) != last[name])


def advice(trainer: L.Trainer) -> str:
    """What more threads would bring, where they would."""
    assert isinstance(trainer.lightning_module, Classifier)
    convolves = any(isinstance(one, nn.Conv2d) for one in trainer.lightning_module.modules())
    on_cpu = trainer.strategy.root_device.type == "cpu"
    if on_cpu and convolves and torch.get_num_threads() == 1 < cpu_count():
        return " (threads=2 is faster where nothing else runs)"
    return ""


def in_words(trainer: L.Trainer) -> str:
    """The devices of a run, as in `2 of NVIDIA H100 (80 GiB), 32-true, 4 threads`."""
    found = describe_device(trainer.strategy.root_device)
    memory = f" ({found['device_memory_gib']} GiB)" if "device_memory_gib" in found else ""
    several = f"{trainer.world_size} of " if trainer.world_size > 1 else ""
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    graphed = any(isinstance(one, CUDAGraphs) and one.holds(trainer) for one in callbacks)
    graphs = ", CUDA graphs" if graphed else ""
    return f"{several}{found['device']}{memory}, {trainer.precision}, {threads}{graphs}"
