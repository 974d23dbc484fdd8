"""What was trained, as one value: all that a run leaves behind is a function of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from fmnist_pl.data.datamodule import Batch, EvalBatches, FashionMNIST, limited
from fmnist_pl.data.protocol import EVAL_BATCH_SIZE
from fmnist_pl.model import calibration
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import Predictions, evaluate, predict
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
    average: Classifier  # with the mean of the weights of the second half of the epochs, likewise

    @property
    def tensorboard(self) -> TensorBoardLogger:
        return cast(TensorBoardLogger, self.trainer.logger)

    @cached_property
    def test(self) -> Batch:
        """The test images and their labels, on the CPU."""
        images, labels = self.datamodule.splits["test"]
        return images.cpu(), labels.cpu()

    @cached_property
    def predictions(self) -> Predictions:
        """Of all test images."""
        return predict(self.classifier, self.test[0])

    @property
    def shown(self) -> slice:
        """Those of the test images that the figures are of: all, if the run does not limit them."""
        return within(self.test, self.config.trainer.limit_test_batches)

    @cached_property
    def shown_of_validation(self) -> Batch:
        """The validation images that the figures are of, and their labels, on the CPU."""
        images, labels = self.datamodule.splits["val"]
        shown = within((images, labels), self.config.trainer.limit_val_batches)
        return images[shown].cpu(), labels[shown].cpu()

    @cached_property
    def val_logits(self) -> NDArray[np.float32]:
        """Of those images, (N, C)."""
        return predict(self.classifier, self.shown_of_validation[0]).logits

    @cached_property
    def averaged(self) -> dict[str, NDArray[np.float32]]:
        """Logits (N, C) with the averaged weights, of those images of `val` and `test`."""
        images = {"val": self.shown_of_validation[0], "test": self.test[0][self.shown]}
        return {split: predict(self.average, these).logits for split, these in images.items()}

    @property
    def tested(self) -> Row:
        """The epoch whose weights were tested."""
        best = self.config.test.checkpoint == "best"
        return self.record.best_row if best else self.record.rows[-1]

    @property
    def calibrated(self) -> Result:
        """The temperature that suits the validation images, and the test's figures with it."""
        val_labels = self.shown_of_validation[1].numpy()
        temperature = calibration.temperature(self.val_logits, val_labels)
        logits = self.predictions.logits[self.shown] / temperature
        labels = self.test[1][self.shown].numpy()
        scaled = calibration.figures(logits, labels)
        scaled["cross_entropy"] = calibration.cross_entropy(logits, labels)
        return {
            "temperature": temperature,
            **{f"test/{name}_scaled": figure for name, figure in scaled.items()},
        }

    @cached_property
    def figures(self) -> Result:
        """What was run and what came out; names with a slash are those of `metrics.csv`."""
        config, record = self.config, self.record
        predictions = Predictions(*(array[self.shown] for array in self.predictions))
        test = evaluate(self.classifier, predictions, self.test[1][self.shown], "test")
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
            **self.calibrated,
            "best_epoch": record.best_row["epoch"],
            "best_val_acc": record.best_row["val/acc"],
            "seconds": seconds,
            "images_per_second": sum(row["images"] for row in record.rows) / seconds,
        }


def within(images: Batch, limit: int | float) -> slice:
    """Those of the images that a limit of batches leaves."""
    return slice(limited(len(EvalBatches(*images)), limit) * EVAL_BATCH_SIZE)
