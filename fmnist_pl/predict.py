"""What a checkpoint makes of image files, or of images of the test set.

    python -m fmnist_pl.predict checkpoint=last.ckpt images=photo.jpg
    python -m fmnist_pl.predict checkpoint=last.ckpt 'images=wardrobe/**/*.png' format=json
    python -m fmnist_pl.predict checkpoint=last.ckpt images=test:0,12,40-49

A file is made what the data set is made of: a light piece of clothing on a black ground, 28x28.
Where its border is light it is inverted; unless it has 28x28 pixels, plain margins are cut off and
the rest is fitted in. A file that cannot be read is reported; the others are predicted; the exit
code is 1.
"""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.cli import DataOptions, command, printable
from fmnist_pl.config import UserError, option

TEST = "test:"
TEST_IMAGES = 10_000
SHOWN = 15  # in the picture


@dataclass
class Options:
    checkpoint: str = option(help="Checkpoint of a run.")
    images: str = option(
        help="A file, a folder, a pattern (** is any folder), or test images as in test:0,12,40-49."
    )
    invert: str = option(
        "auto", "Invert files; auto: those with a light border.", choices=("auto", "yes", "no")
    )
    format: str = option("table", "Of the output.", choices=("table", "json", "csv"))
    picture: str | None = option(
        None, f"PNG of the first {SHOWN}; if not given, for a table beside the checkpoint."
    )
    data: DataOptions = field(default_factory=DataOptions)


class Item(NamedTuple):
    """An image to predict and what to say of it."""

    name: str
    image: NDArray[np.uint8]  # (28, 28)
    facts: dict[str, Any]  # of a file, its size and whether it was inverted; else, its class


class Prediction(NamedTuple):
    """What is printed of an image."""

    item: Item
    guess: str
    probabilities: dict[str, float]  # by class


def work(options: Options) -> int:
    """Predict, print, draw."""
    from_test = options.images.startswith(TEST)
    indices = parse_indices(options.images) if from_test else []

    from fmnist_pl import photos
    from fmnist_pl.inference import load_classifier, load_split, predict

    paths = [] if from_test else photos.find(options.images)
    classifier = load_classifier(options.checkpoint)
    names = classifier.class_names
    if from_test:
        images, labels = load_split(classifier, "test", options.data.root)
        items = [
            Item(f"{TEST}{i}", images[i].numpy(), {"true class": names[labels[i]]}) for i in indices
        ]
    else:
        items = [
            Item(str(photo.path), photo.image, {"size": photo.size, "inverted": photo.inverted})
            for photo in photos.read_all(paths, options.invert)
        ]
    if items:
        probabilities = predict(classifier, np.stack([item.image for item in items])).probabilities
    predictions = [
        Prediction(item, names[shares.argmax()], dict(zip(names, shares.tolist(), strict=True)))
        for item, shares in zip(items, probabilities if items else [], strict=True)
    ]
    {"table": print_table, "json": print_json, "csv": print_csv}[options.format](predictions)

    checkpoint = Path(options.checkpoint)
    beside = checkpoint.with_name(f"{checkpoint.stem}-predictions.png")
    picture = options.picture or (str(beside) if options.format == "table" else None)
    if picture and predictions:
        draw(predictions[:SHOWN], names, Path(picture))
        if options.format == "table":
            print(f"\npicture  {picture}")
    return int(len(items) < len(paths))


def parse_indices(images: str) -> list[int]:
    """The indices of `test:0,12,40-49`.

    Raises:
        UserError: anything that is not of this form, or out of range.
    """
    indices: list[int] = []
    for part in images.removeprefix(TEST).split(","):
        first, _, last = part.partition("-")
        try:
            chosen = range(int(first), int(last or first) + 1)
        except ValueError:
            chosen = range(0)
        if not chosen or chosen.stop > TEST_IMAGES:
            raise UserError(
                f"images={images}: {part!r} is neither an index nor a range of 0 to "
                f"{TEST_IMAGES - 1}, as in test:0,12,40-49. A file of that name is ./{images}"
            )
        indices += chosen
    return indices


def row(prediction: Prediction) -> dict[str, Any]:
    """Image, class, probability, and what else is known, by column."""
    item, guess, probabilities = prediction
    return {
        "image": item.name,
        "class": guess,
        "probability": probabilities[guess],
        **item.facts,
    }


def print_table(predictions: Sequence[Prediction]) -> None:
    """Aligned columns, to be read by people."""
    rows = [row(prediction) for prediction in predictions]
    texts = [
        {
            **{name: printable(str(value)) for name, value in row.items()},
            "probability": f"{row['probability']:.4f}",
            **({"inverted": "yes" if row["inverted"] else "no"} if "inverted" in row else {}),
        }
        for row in rows
    ]
    header = [{name: name for name in texts[0]}] if texts else []
    for text in header + texts:
        cells = (
            text[name].ljust(max(len(other[name]) for other in header + texts)) for name in text
        )
        print("  ".join(cells).rstrip())


def print_json(predictions: Sequence[Prediction]) -> None:
    """A list of one object an image."""
    rows = [{**row(one), "probabilities": one.probabilities} for one in predictions]
    print(json.dumps(rows, indent=1))


def print_csv(predictions: Sequence[Prediction]) -> None:
    """A header, then one row an image."""
    rows = [
        {**row(one), **{f"P({name})": share for name, share in one.probabilities.items()}}
        for one in predictions
    ]
    writer = csv.DictWriter(sys.stdout, rows[0] if rows else ["image", "class", "probability"])
    writer.writeheader()
    writer.writerows(rows)


def draw(predictions: Sequence[Prediction], class_names: Sequence[str], path: Path) -> None:
    """The picture: each image beside its probabilities."""
    from fmnist_pl import figures

    items = [prediction.item for prediction in predictions]
    known = [item.facts["true class"] for item in items if "true class" in item.facts]
    figure = figures.predictions(
        np.stack([item.image for item in items]),
        np.array([list(prediction.probabilities.values()) for prediction in predictions]),
        class_names,
        [class_names.index(name) for name in known] or None,
        [printable(item.name) for item in items],
    )
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UserError(f"picture={path} cannot be written: {error}.") from None


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
