"""What a checkpoint makes of image files, or of images of the test set.

    python -m fmnist_pl.predict checkpoint=last.ckpt images=photo.jpg
    python -m fmnist_pl.predict checkpoint=last.ckpt 'images=wardrobe/**/*.png' format=json
    python -m fmnist_pl.predict checkpoint=last.ckpt images=test:0,12,40-49

A file becomes an image like those of the data set: a light piece of clothing on a dark ground,
28x28. Where its border is light it is inverted; unless it has 28x28 pixels, plain margins are cut
off and the rest is fitted in. A file that cannot be read is reported on stderr, the others are
predicted, and the exit code is 1.
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

from fmnist_pl.data.protocol import TEST_IMAGES
from fmnist_pl.options.command import DataOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError, printable

TEST = "test:"
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
        None, f"PNG of the first {SHOWN}; if not given, one beside the checkpoint with a table."
    )
    data: DataOptions = field(default_factory=DataOptions)


class Item(NamedTuple):
    """An image to predict and what to say of it."""

    name: str
    image: NDArray[np.uint8]  # (28, 28)
    facts: dict[str, Any]  # of a file, its size and whether it was inverted; else, its class


def work(options: Options) -> int:
    """Predict, print, draw."""
    from fmnist_pl.data import photos

    from_test = options.images.startswith(TEST)
    indices = parse_indices(options.images) if from_test else []
    paths = [] if from_test else photos.find(options.images)

    from fmnist_pl.model.inference import load_classifier, load_split, predict

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
        write = {"table": print_table, "json": print_json, "csv": print_csv}[options.format]
        write([row(item, shares, names) for item, shares in zip(items, probabilities, strict=True)])
    elif options.format == "json":
        print("[]")

    checkpoint = Path(options.checkpoint)
    picture = options.picture
    if options.format == "table" and not picture:
        picture = str(checkpoint.with_name(f"{checkpoint.stem}-predictions.png"))
    if picture and items:
        draw(items[:SHOWN], probabilities[:SHOWN], names, Path(picture))
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


def row(item: Item, shares: NDArray[np.float32], class_names: Sequence[str]) -> dict[str, Any]:
    """What is printed of an image, by column."""
    return {
        "image": item.name,
        "class": class_names[int(shares.argmax())],
        "probability": float(shares.max()),
        **item.facts,
        "probabilities": dict(zip(class_names, shares.tolist(), strict=True)),
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Aligned columns for people."""

    def cell(value: Any) -> str:
        match value:
            case bool():
                return "yes" if value else "no"
            case float():
                return f"{value:.4f}"
        return printable(str(value))

    columns = [
        [name, *(cell(row[name]) for row in rows)] for name in rows[0] if name != "probabilities"
    ]
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def print_json(rows: Sequence[dict[str, Any]]) -> None:
    """A list with an object for each image."""
    print(json.dumps(rows, indent=1))


def print_csv(rows: Sequence[dict[str, Any]]) -> None:
    """A header, then a row for each image; the probability of class X is in column P(X)."""
    flat = [
        {
            **{name: value for name, value in row.items() if name != "probabilities"},
            **{f"P({name})": share for name, share in row["probabilities"].items()},
        }
        for row in rows
    ]
    writer = csv.DictWriter(sys.stdout, flat[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)


def draw(
    items: Sequence[Item],
    probabilities: NDArray[np.float32],
    class_names: Sequence[str],
    path: Path,
) -> None:
    """The picture: each image beside its probabilities."""
    from fmnist_pl.drawing import classifier, gallery

    known = [item.facts["true class"] for item in items if "true class" in item.facts]
    figure = classifier.predictions(
        np.stack([item.image for item in items]),
        probabilities,
        class_names,
        labels=[class_names.index(name) for name in known] or None,
        captions=[printable(item.name) for item in items],
    )
    try:
        gallery.write(figure, path)
    except OSError as error:
        raise UserError(f"picture={path} cannot be written: {error.strerror}.") from None


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
