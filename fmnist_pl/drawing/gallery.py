"""The pictures a trained classifier gets: in its run's folder, in TensorBoard, from `evaluate`."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fmnist_pl.drawing import classifier
from fmnist_pl.files import write_atomically


def draw(
    result: Mapping[str, Any],
    split: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    epochs: Sequence[Mapping[str, float | str]] = (),
) -> dict[str, Figure]:
    """Every picture by its name.

    Args:
        result: of a run, or of `inference.evaluate`.
        split: train, val or test, whose images they are.
        images: (N, 28, 28).
        labels: (N,).
        probabilities: (N, C).
        epochs: the rows of `metrics.csv`; without them there are no curves.
    """
    names = list(result["classes"])
    run = f"{result.get('name', result['model'])}-{result['seed']}"
    title = f"{run}, {len(images):,} {split} images"
    accuracy = list(result[f"{split}/acc_per_class"].values())
    confusion = np.array(result[f"{split}/confusion_matrix"])

    def panels(wanted: Sequence[int], columns: int) -> Figure:
        chosen = [i for i in wanted if i < len(images)]
        return classifier.predictions(
            images[chosen],
            probabilities[chosen],
            names,
            labels[chosen],
            captions=[f"{split} image {i}" for i in chosen],
            columns=columns,
            title=run,
        )

    return {
        **({"curves": classifier.curves({run: epochs})} if epochs else {}),
        "class_accuracy": classifier.class_accuracy({run: accuracy}, names, title),
        "confusion_matrix": classifier.confusion_matrix(confusion, names, title),
        "predictions": panels([0, 12], columns=2),
        "prediction_sheet": panels(range(15), columns=3),
        "mistakes": classifier.mistakes(images, probabilities, names, labels, title=title),
    }


def save(drawn: Mapping[str, Figure], folder: Path) -> None:
    """Write each picture to `folder/name.png`; the folder is created.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        write(figure, folder / f"{name}.png")


def write(figure: Figure, path: Path) -> None:
    """Write a PNG file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    png = BytesIO()
    figure.savefig(png, format="png")
    write_atomically(path, png.getvalue())
