"""What was trained, as one value: all that a run leaves behind is a function of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from fmnist_pl.data.datamodule import Batch, EvalBatches, FashionMNIST, limited
from fmnist_pl.data.protocol import EVAL_BATCH_SIZE
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import Predictions, evaluate
from fmnist_pl.options.schema import Config
from fmnist_pl.training.checkpoints import Record, Row

Result = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A run after training and test, on whichever of its devices."""

    config: Config
    folder: Path
    trainer: L.Trainer
    classifier: Classifier  # as the checkpoint that was tested has it, on the CPU
    datamodule: FashionMNIST
    record: Record
    average: nn.Module  # the net with the mean of the weights of the second half of the epochs
    predictions: Predictions  # of the test images

    @property
    def logger(self) -> TensorBoardLogger:
        return cast(TensorBoardLogger, self.trainer.logger)

    @cached_property
    def test(self) -> Batch:
        """The test images and their labels, on the CPU."""
        images, labels = self.datamodule.splits["test"]
        return images.cpu(), labels.cpu()

    @property
    def tested(self) -> Row:
        """The epoch whose weights were tested."""
        best = self.config.test.checkpoint == "best"
        return self.record.best_row if best else self.record.rows[-1]

    @cached_property
    def figures(self) -> Result:
        """What was run and what came out; names with a slash are those of `metrics.csv`."""
        config, record = self.config, self.record
        batches = limited(len(EvalBatches(*self.test)), config.trainer.limit_test_batches)
        shown = slice(batches * EVAL_BATCH_SIZE)
        predictions = Predictions(*(array[shown] for array in self.predictions))
        test = evaluate(self.classifier, predictions, self.test[1][shown], "test")
        seconds = sum(row["seconds"] for row in record.rows)
        return {
            "name": config.name,
            "model": config.model.name,
            "seed": config.seed,
            "classes": config.classes,
            "augment": config.augment.name,
            "embeddings": config.embeddings,
            "epochs": len(record.rows),
            "parameters": test["parameters"],
            "tested_checkpoint": config.test.checkpoint,
            **{name: value for name, value in self.tested.items() if "/" in name},
            **{name: value for name, value in test.items() if "/" in name},
            "best_epoch": record.best_row["epoch"],
            "best_val_acc": record.best_row["val/acc"],
            "seconds": seconds,
            "images_per_second": sum(row["images"] for row in record.rows) / seconds,
        }
