"""What was trained, as one value: all that a run leaves behind is a function of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from fmnist_pl.data.datamodule import FashionMNIST
from fmnist_pl.model.classifier import Classifier, acc_per_class
from fmnist_pl.model.inference import Predictions
from fmnist_pl.options.schema import Config
from fmnist_pl.training.checkpoints import Record, Row

Result = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A run after training and test, on whichever of its devices."""

    config: Config
    folder: Path
    trainer: L.Trainer
    classifier: Classifier  # with the weights that were tested, single precision, evaluation mode
    datamodule: FashionMNIST
    record: Record
    average: nn.Module  # the net with the mean of the weights of the second half of the epochs
    predictions: Predictions  # of the test images

    @property
    def logger(self) -> TensorBoardLogger:
        return cast(TensorBoardLogger, self.trainer.logger)

    @property
    def tested(self) -> Row:
        """The epoch whose weights were tested."""
        best = self.config.test.checkpoint == "best"
        return self.record.best_row if best else self.record.rows[-1]

    @cached_property
    def figures(self) -> Result:
        """What was run and what came out; names with a slash are those of `metrics.csv`."""
        config, record = self.config, self.record
        confusion = self.classifier.confusion["test"].cpu()
        per_class = acc_per_class(confusion).tolist()
        seconds = sum(row["seconds"] for row in record.rows)
        metrics = self.trainer.callback_metrics
        parameters = self.classifier.parameters()
        return {
            "name": config.name,
            "model": config.model.name,
            "seed": config.seed,
            "classes": config.classes,
            "augment": config.augment.name,
            "embeddings": config.embeddings,
            "epochs": len(record.rows),
            "parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "tested_checkpoint": config.test.checkpoint,
            **{name: value for name, value in self.tested.items() if "/" in name},
            **{k: v.item() for k, v in metrics.items() if k.startswith("test/")},
            "test/acc_per_class": dict(zip(config.classes, per_class, strict=True)),
            "test/confusion_matrix": confusion.tolist(),
            "best_epoch": record.best_row["epoch"],
            "best_val_acc": record.best_row["val/acc"],
            "seconds": seconds,
            "images_per_second": sum(row["images"] for row in record.rows) / seconds,
        }
