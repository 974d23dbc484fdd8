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
from PIL import Image
from torch.utils.tensorboard.summary import hparams

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
    trained.logger.log_metrics(scalars, len(trained.record.rows))
    return trained.figures


def predictions(trained: Trained) -> Result:
    """`logits`, float32 (N, C), and `labels`, int64 (N,), of the test images in order."""
    _, labels = trained.test
    arrays = BytesIO()
    np.savez_compressed(arrays, logits=trained.predictions.logits, labels=labels)
    write_atomically(trained.folder / PREDICTIONS, arrays.getvalue())
    return {}


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
    """Curves, accuracies, confusions, mistakes: as files, and in TensorBoard."""
    if not trained.config.pictures:
        return {}
    images, labels = (tensor.numpy() for tensor in trained.test)
    rows, folder = trained.record.rows, trained.folder / "figures"
    probabilities = trained.predictions.probabilities
    drawn = gallery.draw(trained.figures, "test", images, labels, probabilities, rows)
    gallery.save(drawn, folder)
    for name in drawn:
        picture = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
        trained.logger.experiment.add_image(name, picture, len(rows), dataformats="HWC")
    return {}


def row_of_hyperparameters(trained: Trained) -> Result:
    """What was given and what came out, for TensorBoard's table of runs.

    Lightning's `log_hyperparams` would give what came out once more, as points of curves.
    """
    came_out = dict.fromkeys(("test/acc", "test/loss", "val/acc", "val/loss"), 0)
    for summary in hparams(hyperparameters(trained.config), came_out):
        trained.logger.experiment.file_writer.add_summary(summary)
    return {}


def environment(trained: Trained) -> Result:
    """What trained it, and all packages that were installed; of a run in parts, each of them."""
    parts = trained.record.parts
    write_atomically(trained.folder / REQUIREMENTS, packages())
    last = {name: value for name, value in parts[-1].items() if name != "epoch"}
    return {**last, "parts": parts} if len(parts) > 1 else last


ARTIFACTS: tuple[Callable[[Trained], Result], ...] = (
    figures,
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
    trained.logger.finalize("success")
    return result if first else {}


def hyperparameters(config: Config) -> dict[str, Any]:
    """What one compares runs by in TensorBoard's table."""
    return {
        **{
            f"model.{name}": str(value) if isinstance(value, list) else value
            for name, value in asdict(config.model).items()
        },
        "augment": config.augment.name,
        "classes": len(config.classes),
        "batch_size": config.data.batch_size,
        "lr": config.optimizer.lr,
        "seed": config.seed,
    }
