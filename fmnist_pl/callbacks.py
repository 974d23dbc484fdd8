"""What happens around the training loop: the record of epochs, checkpoints, progress."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from fmnist_pl.config import UserError
from fmnist_pl.datamodule import TrainChunks
from fmnist_pl.files import move_into_place, part_of, write_atomically
from fmnist_pl.module import Classifier

Row = dict[str, float]


class Record(Checkpoint):
    """After every epoch: checkpoints, last and best; `metrics.csv`; histograms of the weights.

    Each file is replaced as a whole, so a kill at any moment leaves a usable one; the rows of
    `metrics.csv` are part of the checkpoint, so a resumed run goes on where that left off. So is
    the mean of the weights after each epoch of the second half.

    Args:
        folder: the run's.
    """

    average: AveragedModel  # of the net

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "checkpoints" / "last.ckpt"
        self.best = folder / "checkpoints" / "best.ckpt"
        self.rows: list[Row] = []
        self.started = 0.0

    @property
    def best_row(self) -> Row:
        """The epoch of the highest validation accuracy, the first of equals."""
        return max(self.rows, key=lambda row: row["val/acc"])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            assert isinstance(pl_module, Classifier)
            self.average = AveragedModel(pl_module.net)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "average": self.average.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
        self.average.load_state_dict(state_dict["average"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figures = {
            name: value.item()
            for stage in ("train/", "val/")
            for name, value in trainer.callback_metrics.items()
            if name.startswith(stage)
        }
        seconds, epoch = time.perf_counter() - self.started, trainer.current_epoch + 1
        for name, value in figures.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{name} is {value} after epoch {epoch}: training diverged. A smaller "
                    "optimizer.lr may help; it takes a new folder, or overwrite=true."
                )
        assert isinstance(pl_module, Classifier)
        images = int(pl_module.confusion["train"].sum())
        self.rows.append({"epoch": epoch, **figures, "images": images, "seconds": seconds})
        if epoch > (trainer.max_epochs or 0) // 2:
            self.average.update_parameters(pl_module.net)
        for logger in trainer.loggers:
            assert isinstance(logger, TensorBoardLogger)
            for name, weights in pl_module.net.named_parameters():
                logger.experiment.add_histogram(name, weights, epoch)
        part = part_of(self.last)
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            # The last checkpoint last: until it is there, a resumed run repeats this epoch.
            self.write_table()
            if self.best_row is self.rows[-1]:
                copy = part_of(self.best)
                copy.unlink(missing_ok=True)
                copy.hardlink_to(part)
                move_into_place(copy, self.best)
            move_into_place(part, self.last)
        trainer.strategy.barrier()  # no device goes on before the files are there

    def write_table(self) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, self.rows[0])
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.folder / "metrics.csv", table.getvalue())


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

    def disable(self) -> None:
        """What Lightning asks of all processes but the first; `on_train_start` sees to it."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(trainer.train_dataloader, TrainChunks)
        steps = trainer.train_dataloader.num_batches
        self.bar = tqdm(
            desc=self.name,
            total=(trainer.max_epochs or 0) * steps,
            initial=trainer.current_epoch * steps,
            unit="batch",
            mininterval=0.5,
            dynamic_ncols=True,
            disable=None if trainer.is_global_zero else True,
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
        self.bar.update(len(batch))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.show(trainer.current_epoch, trainer)
        self.bar.close()

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
        if self.bar.disable and row and trainer.is_global_zero:
            print(
                f"{self.name} epoch {row['epoch']}/{trainer.max_epochs}: {figures}, "
                f"{row['seconds']:.1f} s",
                flush=True,
            )
