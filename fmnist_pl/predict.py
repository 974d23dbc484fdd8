"""What a checkpoint makes of image files, or of images of the test set.

    python -m fmnist_pl.predict images=photo.jpg
    python -m fmnist_pl.predict checkpoint=last.ckpt 'images=wardrobe/**/*.png' format=json
    python -m fmnist_pl.predict checkpoint=last.ckpt images=test:0,12,40-49

It is made for photos of one piece of clothing, not worn, on a plain ground of any colour: the piece
is found, cut out, and made an image like those of the data set, light on black, 28x28. An answer is
marked `unreliable` where the photo is of another kind, with the reason, and `unsure` where its
probability is below 0.9. Neither says that a thing is clothing at all: at 28x28 a bottle is a bag.
With calibrated=true probabilities are scaled: of 100 answers of 90%, on images like those of the
data set, about 90 are then right. It takes the tested checkpoint, in its run's folder.

A file that cannot be read or shows nothing is reported on stderr, the others are predicted, and the
exit code is 1. Without checkpoint= the one that comes with the package answers.
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.options.command import CheckpointOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError, printable

if TYPE_CHECKING:
    from fmnist_pl.data.cutout import Cutout
    from fmnist_pl.model.classifier import Classifier

TEST = "test:"
SHOWN = 15  # in the picture
LONGEST = 18  # letters of a name there


@dataclass
class Options(CheckpointOptions):
    checkpoint: str = option(
        "bundled", "Checkpoint of a run; bundled: the net that comes with the package."
    )
    images: str = option(
        help="A file, a folder, a pattern (** is any folder), or test images as in test:0,12,40-49."
    )
    invert: str = option(
        "auto", "Invert files; auto: those on a light ground.", choices=("auto", "yes", "no")
    )
    format: str = option("table", "Of the output.", choices=("table", "json", "csv"))
    picture: str | None = option(
        None,
        f"PNG of the first {SHOWN}; if not given, of a table, beside the checkpoint or here.",
    )
    calibrated: bool = option(
        False, "Divide logits by the temperature that suits the validation images of the net's run."
    )
    pages: int = option(1, f"Pictures of {SHOWN} each; the second of a.png is a-2.png.", ge=1)


class Item(NamedTuple):
    """An image to predict and what to say of it."""

    name: str
    image: NDArray[np.uint8]  # (28, 28)
    facts: dict[str, Any]  # of a file, its size and whether it was inverted; else, its class
    doubt: str = ""  # why its class is not to be relied on
    fitted: bool = False  # found in a photo
    cutout: "Cutout | None" = None  # of a file that is drawn


def work(options: Options) -> int:
    """Predict, print, draw."""
    from fmnist_pl.data import photos

    from_test = options.images.startswith(TEST)
    ranges = parse_ranges(options.images) if from_test else []
    paths = [] if from_test else photos.find(options.images)
    picture = picture_path(options)

    from fmnist_pl.model.inference import load_classifier, load_split
    from fmnist_pl.model.portable import located, stored_temperature

    checkpoint = located(options.checkpoint)
    classifier = load_classifier(checkpoint, options.trust_code)
    temperature = stored_temperature(checkpoint) if options.calibrated else 1.0
    names = classifier.class_names
    drawn = SHOWN * options.pages if picture else 0
    items: list[Item] = []
    if from_test:
        images, labels = load_split(classifier, "test", options.data.root)
        items = [
            Item(f"{TEST}{i}", images[i].numpy(), {"true class": names[labels[i]]})
            for i in indices_of(ranges, len(images))
        ]
    items += read_files(classifier, paths, options.invert, drawn)
    if items:
        probabilities, marks = answers(classifier, items, temperature)
        write = {"table": print_table, "json": print_json, "csv": print_csv}[options.format]
        write([row(*each, names) for each in zip(items, probabilities, marks, strict=True)])
    elif options.format == "json":
        print("[]")

    if picture and items:
        pages = draw(items[:drawn], len(items), probabilities, marks, names, picture)
        if options.format == "table":
            more = f", {drawn} of {len(items)}; pages=... draws more" if drawn < len(items) else ""
            print(f"\npicture  {pages[0]}{f' to {pages[-1]}' * (len(pages) > 1)}{more}")
    return int(len(items) < len(paths))


def picture_path(options: Options) -> Path | None:
    """Where the picture goes, if there is to be one."""
    if options.picture:
        return Path(options.picture)
    if options.format != "table":
        return None
    beside = Path(options.checkpoint)  # of the bundled one: here
    return beside.with_name(f"{beside.stem}-predictions.png")


def parse_ranges(images: str) -> list[range]:
    """The indices of `test:0,12,40-49`.

    Raises:
        UserError: anything that is not of this form.
    """
    ranges = []
    for part in images.removeprefix(TEST).split(","):
        first, _, last = part.partition("-")
        try:
            chosen = range(int(first), int(last or first) + 1)
        except ValueError:
            chosen = range(0)
        if not chosen:
            raise UserError(
                f"images={images}: {part!r} is neither an index nor a range, as in "
                f"test:0,12,40-49. A file of that name is ./{images}"
            )
        ranges.append(chosen)
    return ranges


def indices_of(ranges: Sequence[range], count: int) -> list[int]:
    """Indices of so many test images.

    Raises:
        UserError: one is out of range.
    """
    if (largest := max(one[-1] for one in ranges)) >= count:
        raise UserError(f"images={TEST}{largest}: the {count} test images are 0 to {count - 1}.")
    return [index for one in ranges for index in one]


def read_files(
    classifier: "Classifier", paths: Sequence[Path], invert: str, drawn: int = 0
) -> Iterator[Item]:
    """The files that show a piece, the others reported on stderr; the first with their cutouts."""
    from fmnist_pl.data import photos

    found = photos.read_all(paths, invert, classifier.hparams["data"]["name"])
    for i, photo in enumerate(found):
        cutout = photo.cutout
        facts = {"size": photo.size, "inverted": cutout.inverted}
        shown = cutout if i < drawn else None
        yield Item(str(photo.path), photo.image, facts, cutout.doubt, cutout.fitted, shown)


def answers(
    classifier: "Classifier", items: Sequence[Item], temperature: float = 1.0
) -> tuple[NDArray[np.float32], list[str]]:
    """Of N items the probabilities, (N, C), and what to say of each."""
    from fmnist_pl.data.photos import mark
    from fmnist_pl.model.inference import predict_photos

    images, fitted = np.stack([item.image for item in items]), [item.fitted for item in items]
    predictions = predict_photos(classifier, images, np.array(fitted), temperature)
    probabilities = predictions.probabilities
    doubts = [item.doubt for item in items]
    return probabilities, list(map(mark, doubts, probabilities.max(1)))


def row(
    item: Item, shares: NDArray[np.float32], mark: str, class_names: Sequence[str]
) -> dict[str, Any]:
    """What is printed of an image, by column."""
    return {
        "image": item.name,
        "class": class_names[int(shares.argmax())],
        "probability": float(shares.max()),
        **item.facts,
        "mark": mark,
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


def caption(name: str) -> str:
    """A test image, or a file without its folders, its middle left out where it is long."""
    short, half = printable(Path(name).name), LONGEST // 2
    return short if len(short) <= LONGEST else f"{short[:half]}…{short[1 - half :]}"


def draw(
    items: Sequence[Item],
    count: int,
    probabilities: NDArray[np.float32],
    marks: Sequence[str],
    class_names: Sequence[str],
    path: Path,
) -> list[Path]:
    """The pictures, each image beside its probabilities; where they are.

    Args:
        items: those to draw.
        count: of all there are.
        probabilities: (N, C).
        marks: N.
        class_names: C.
        path: of the first picture.
    """
    from fmnist_pl.drawing import classifier, gallery

    paths = []
    for first in range(0, len(items), SHOWN):
        page = slice(first, first + SHOWN)
        shown = items[page]
        known = [item.facts["true class"] for item in shown if "true class" in item.facts]
        figure = classifier.predictions(
            np.stack([item.image for item in shown]),
            probabilities[page],
            class_names,
            labels=[class_names.index(name) for name in known] or None,
            captions=[caption(item.name) for item in shown],
            title=f"{first + 1} to {first + len(shown)} of {count}" if count > 1 else "",
            cutouts=[item.cutout for item in shown if item.cutout],
            marks=marks[page],
        )
        paths.append(path.with_stem(f"{path.stem}-{1 + first // SHOWN}") if first else path)
        try:
            gallery.write(figure, paths[-1])
        except OSError as error:
            raise UserError(f"picture={paths[-1]} cannot be written: {error.strerror}.") from None
    return paths


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
