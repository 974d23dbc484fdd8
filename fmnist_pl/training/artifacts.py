"""What a run leaves behind, beside checkpoints and table: each a function of what was trained.

A function writes what it has to write into the run's folder and returns what it adds to
`result.json`, which `folder.py` writes when all is done. To leave one thing more, add a function
and a line to `ARTIFACTS`.
"""

from collections.abc import Callable
from dataclasses import asdict
from io import BytesIO
from typing import Any

import numpy as np
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from PIL import Image
from torch.utils.tensorboard.summary import hparams

from fmnist_pl.config import identity
from fmnist_pl.drawing import gallery, projector
from fmnist_pl.files import PREDICTIONS, REQUIREMENTS, write_atomically
from fmnist_pl.model.inference import embed
from fmnist_pl.options.schema import Config
from fmnist_pl.training.environment import packages
from fmnist_pl.training.trained import Result, Trained
from fmnist_pl.training.weights import acc_by_weights


def figures(trained: Trained) -> Result:
    """The figures of training, validation and test; those of the test in TensorBoard, too."""
    scalars = {
        name: value
        for name, value in trained.figures.items()
        if name.startswith("test/") and isinstance(value, float)
    }
    for logger in trained.trainer.loggers:
        logger.log_metrics(scalars, len(trained.record.rows))
    return trained.figures


def options(trained: Trained) -> Result:
    """What the figures are of: the options that decide what a run computes."""
    return {"options": identity(trained.config)}


def predictions(trained: Trained) -> Result:
    """Logits, float32 (N, C), and labels, int64 (N,), of test and validation images in order.

    `averaged` are those of the averaged weights. All but the first two have a run's limits.
    """
    val_labels = trained.shown_of_validation[1]
    file = BytesIO()
    np.savez(  # not compressed: noise would not lose a tenth
        file,
        logits=trained.predictions.logits,
        labels=trained.test[1].numpy(),
        averaged=trained.averaged["test"],
        val_logits=trained.val_logits,
        val_labels=val_labels.numpy(),
        val_averaged=trained.averaged["val"],
    )
    write_atomically(trained.folder / PREDICTIONS, file.getvalue())
    right = trained.averaged["val"].argmax(1) == val_labels.numpy()
    return {"val/acc_averaged": float(right.mean())}


def other_weights(trained: Trained) -> Result:
    """The test accuracy of the other weights that the run offers."""
    return {"test/acc_by_weights": acc_by_weights(trained)}


def embeddings(trained: Trained) -> Result:
    """What TensorBoard's projector shows, and how well it separates the classes."""
    if trained.config.embeddings == "none":
        return {"test/knn_acc": None}
    made = {"test": trained.predictions}
    embedded = {
        split: embed(trained.classifier, *trained.datamodule.splits[split], made.get(split))
        for split in projector.SPLITS[trained.config.embeddings]
    }
    names = trained.classifier.class_names
    return {"test/knn_acc": projector.write(trained.folder, embedded, names)}


def pictures(trained: Trained) -> Result:
    """Curves, accuracies, confusions, mistakes: as files, and for loggers that take pictures."""
    if not trained.config.pictures:
        return {}
    images, labels = (tensor.numpy() for tensor in trained.test)
    rows, folder = trained.record.rows, trained.folder / "figures"
    probabilities = trained.predictions.probabilities
    drawn = gallery.draw(trained.figures, "test", images, labels, probabilities, rows)
    gallery.save(drawn, folder)
    for name in drawn:
        picture = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
        trained.tensorboard.experiment.add_image(name, picture, len(rows), dataformats="HWC")
    for logger in trained.trainer.loggers:
        paths = [str(folder / f"{name}.png") for name in drawn]
        if isinstance(logger, WandbLogger):
            for name, path in zip(drawn, paths, strict=True):
                logger.log_image(name, [path])
        if isinstance(logger, MLFlowLogger):
            for path in paths:
                logger.experiment.log_artifact(logger.run_id, path, "figures")
    return {}


def row_of_hyperparameters(trained: Trained) -> Result:
    """What was given and what came out, for TensorBoard's table of runs.

    Lightning's `log_hyperparams` would give what came out once more, as points of curves.
    """
    came_out = dict.fromkeys(("test/acc", "test/loss", "val/acc", "val/loss"), 0)
    for summary in hparams(hyperparameters(trained.config), came_out):
        trained.tensorboard.experiment.file_writer.add_summary(summary)
    return {}


def environment(trained: Trained) -> Result:
    """What trained it, and all packages that were installed; of a run in parts, each of them."""
    parts = trained.record.parts
    write_atomically(trained.folder / REQUIREMENTS, packages())
    last = {name: value for name, value in parts[-1].items() if name != "epoch"}
    return {**last, "parts": parts} if len(parts) > 1 else last


ARTIFACTS: tuple[Callable[[Trained], Result], ...] = (
    figures,
    options,
    predictions,
    other_weights,
    embeddings,
    pictures,
    row_of_hyperparameters,
    environment,
)
EVERYWHERE = {other_weights}  # batch norm is estimated anew by all devices together


def leave(trained: Trained) -> Result:
    """All of it; what `result.json` holds, or of a process other than the first, nothing."""
    result: Result = {}
    first = trained.trainer.is_global_zero
    for artifact in ARTIFACTS:
        if first or artifact in EVERYWHERE:
            result |= artifact(trained)
    if first:
        for logger in trained.trainer.loggers:
            logger.finalize("success")
    return result if first else {}


def hyperparameters(config: Config) -> dict[str, Any]:
    """What one compares runs by in TensorBoard's table."""
    return {
        **{
            f"model.{name}": str(value) if isinstance(value, list | dict) else value
            for name, value in asdict(config.model).items()
            if name != "net" or value
        },
        "data": config.data.name,
        "augment": config.augment.name,
        "classes": len(config.classes),
        "batch_size": config.data.batch_size,
        **{
            name if name == "lr" else f"optimizer.{name.strip('_')}": one
            for name, one in config.optimizer.items()
            if type(one) in (float, int, str)
        },
        **{f"schedule.{name.strip('_')}": str(one) for name, one in config.schedule.items()},
        "seed": config.seed,
        **{f"seeds.{source}": seed for source, seed in config.seeds.own().items()},
    }
