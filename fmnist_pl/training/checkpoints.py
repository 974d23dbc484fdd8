"""What makes a killed run go on: checkpoints and the table of epochs, in an order that holds.

Each file is replaced as a whole, and the last checkpoint last: until it is there, a run that is
started again repeats the epoch. So a kill at any moment leaves a folder that can be used.
"""

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fmnist_pl.data.datamodule import FashionMNIST
from fmnist_pl.files import (
    BEST,
    LAST,
    METRICS,
    link_or_copy,
    move_into_place,
    part_of,
    write_atomically,
)
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import load_classifier
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.targets import targets_in
from fmnist_pl.training.environment import describe_environment

Row = dict[str, float]


class Record(Checkpoint):
    """After every epoch: checkpoints, last and best by validation accuracy, and `metrics.csv`.

    The rows of the table are part of the checkpoint, so a resumed run goes on where that left off.
    Lightning's `ModelCheckpoint` and `CSVLogger` each replace files of their own at moments of
    their own, and a kill between them would leave a table that is not the checkpoint's.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.table = folder / METRICS
        self.last = folder / LAST
        self.best = folder / BEST
        self.rows: list[Row] = []
        # What trained, from the first epoch on and from every other on that something else did.
        self.parts: list[dict[str, Any]] = []
        self.stopped = False  # early, for whatever reason a callback had
        self.started = 0.0

    @property
    def best_row(self) -> Row:
        """The epoch of the highest validation accuracy, the first of equals."""
        return max(self.rows, key=lambda row: row["val/acc"])

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "parts": self.parts, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
        self.parts = state_dict.get("parts", [])  # 0.1.0 had none
        self.stopped = state_dict.get("stopped", False)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = self.stopped
        data: FashionMNIST = trainer.datamodule  # type: ignore[attr-defined]
        device, devices = trainer.strategy.root_device, trainer.world_size
        trains = describe_environment(device, devices, data.sha256)
        if not self.parts or self.parts[-1] != {**trains, "epoch": self.parts[-1]["epoch"]}:
            self.parts.append({"epoch": len(self.rows) + 1, **trains})

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        figures = {
            name: value.item()
            for stage in ("train/", "val/")
            for name, value in trainer.callback_metrics.items()
            if name.startswith(stage)
        }
        images = int(pl_module.confusion["train"].sum())
        seconds, epoch = time.perf_counter() - self.started, trainer.current_epoch + 1
        self.rows.append({"epoch": epoch, **figures, "images": images, "seconds": seconds})
        self.stopped = trainer.should_stop
        part = part_of(self.last)
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            self.write_table()
            if self.best_row is self.rows[-1]:
                copy = part_of(self.best)
                link_or_copy(part, copy)
                move_into_place(copy, self.best)
            move_into_place(part, self.last)
        trainer.strategy.barrier()  # no device goes on before the files are there

    def write_table(self) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, self.rows[0])
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.table, table.getvalue())


def resumable(checkpoint: Path, classifier: Classifier) -> Path | None:
    """The checkpoint from which a run goes on, if there is one.

    Raises:
        UserError: a damaged one, or of another run.
    """
    if not checkpoint.exists():
        return None
    remedy = "overwrite=true starts the run anew."
    try:
        found = load_classifier(checkpoint, targets_in(classifier.options.net))
    except UserError as error:
        raise UserError(f"{error} {remedy}") from None
    if found.hparams != classifier.hparams:
        raise UserError(f"{checkpoint} is of a run with other options. {remedy}")
    return checkpoint
