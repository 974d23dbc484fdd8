"""What loggers have of a run: after a kill what they have without one."""

import csv
import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from fmnist_pl.files import EVENTS, METRICS
from fmnist_pl.training.parts import LOGGERS


class Curves(L.Callback):
    """Gives every logger the figures of an epoch together with its checkpoint.

    By itself Lightning gives them after the checkpoint: a run that is killed in between lacks them.

    Its state is what they were given, for a logger that has not got it when the run goes on, with
    the tables of CSVLogger, which deletes what it finds; and how long TensorBoard's files were:
    what is beyond that, be it of every step, is of an epoch that is done again.

    Args:
        folder: the run's, before its loggers write there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = list(folder.glob(EVENTS))
        self.given: dict[int, dict[str, float]] = {}  # by epoch
        self.tables: dict[str, list[dict[str, str]]] = {}  # rows, by the folder of a CSVLogger
        self.sizes: dict[str, int] = {}  # bytes, by event file
        self.begun_elsewhere = False

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given, "tables": self.tables, "sizes": self.sizes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.given, self.tables = state_dict["given"], state_dict["tables"]
        self.sizes = state_dict["sizes"]

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        of_0_1 = {
            int(row["epoch"]): {name: one for name, one in row.items() if "/" in name}
            for row in checkpoint["callbacks"]["Record"]["rows"]
        }
        kept = {path.name: path.stat().st_size for path in self.found}
        own = checkpoint["callbacks"].get(self.state_key, {})
        before = {"given": of_0_1, "tables": {}, "sizes": kept}
        checkpoint["callbacks"][self.state_key] = before | own

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for path in self.found:
            os.truncate(path, min(self.sizes.get(path.name, 0), path.stat().st_size))
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger) and (
                rows := self.tables.get(Path(logger.log_dir).name)
            ):
                for row in rows:
                    logger.log_metrics(row, int(row["step"]))  # type: ignore[arg-type]
            elif isinstance(logger, CSVLogger) or self.begun_elsewhere:
                for epoch, figures in self.given.items():
                    logger.log_metrics(figures, epoch)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        epoch = trainer.current_epoch + 1
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        monitors = [one for one in callbacks if isinstance(one, LearningRateMonitor)]
        # Lightning has given them at their steps.
        rates = {name for monitor in monitors for name in monitor.lrs}
        figures = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if not name.endswith("_step") and name not in rates
        }
        self.given[epoch] = figures
        for logger in trainer.loggers:
            logger.log_metrics(figures, epoch)
            logger.save()
        if trainer.is_global_zero:
            self.sizes = {path.name: path.stat().st_size for path in self.folder.glob(EVENTS)}
            self.tables = {
                path.parent.name: rows_of(path)
                for path in self.folder.glob(f"{LOGGERS}/*/{METRICS}")
            }
        checkpoint["callbacks"][self.state_key] = self.state_dict()


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows of a CSVLogger's table, with what each has."""
    with table.open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
