"""The figures and pictures of a checkpoint, wherever it was copied to.

    python -m fmnist_pl.evaluate checkpoint=runs/cnn_bn-0/checkpoints/last.ckpt
    python -m fmnist_pl.evaluate checkpoint=last.ckpt split=val folder=pictures
    python -m fmnist_pl.evaluate images=wardrobe

For the test images of the data set these are the figures of the run that made the checkpoint, if
that tested on all of them. With split=train the images are seen as they are, not augmented, and by
the finished weights.

images=FOLDER evaluates on photos of one's own, in a subfolder for each class, read as `predict`
reads them; some classes may be missing. Without checkpoint= the one that comes with the package
answers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.files import write_atomically
from fmnist_pl.options.command import CheckpointOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError, printable

if TYPE_CHECKING:
    from torch import Tensor

    from fmnist_pl.model.classifier import Classifier

OWN = "own"  # the split of one's own photos


@dataclass
class Options(CheckpointOptions):
    checkpoint: str = option(
        "bundled", "Checkpoint of a run; bundled: the net that comes with the package."
    )
    split: str = option("test", "Images to evaluate on.", choices=("train", "val", "test"))
    images: str | None = option(
        None, "Folder of photos, in a subfolder for each class, to evaluate on instead."
    )
    folder: str | None = option(
        None,
        "Where evaluation.json and pictures go; if not given, beside the checkpoint or here.",
    )


class Own(NamedTuple):
    """Photos of one's own."""

    images: "Tensor"  # uint8 (N, 28, 28)
    labels: "Tensor"  # int64 (N,)
    files: list[str]
    doubts: list[str]
    fitted: NDArray[np.bool_]  # found in a photo
    failed: int  # files that could not be read


class Evaluated(NamedTuple):
    """A classifier on some images."""

    figures: dict[str, Any]  # the content of evaluation.json
    images: "Tensor"  # uint8 (N, 28, 28)
    labels: "Tensor"  # int64 (N,)
    probabilities: NDArray[np.float32]  # (N, C)
    failed: int = 0  # files that could not be read


def work(options: Options) -> int:
    """Print the figures; write them and the pictures into the folder."""
    from fmnist_pl.drawing import gallery
    from fmnist_pl.model.inference import load_classifier
    from fmnist_pl.model.portable import located

    classifier = load_classifier(located(options.checkpoint), options.trust_code)
    found = on(classifier, options.split, options.images, options.data.root)
    report(found.figures)

    split = found.figures["split"]
    checkpoint = Path(options.checkpoint)  # of the bundled one: here
    folder = Path(options.folder or checkpoint.with_name(f"{checkpoint.stem}-{split}"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"checkpoint": options.checkpoint, **found.figures}, indent=1)
        write_atomically(folder / "evaluation.json", content + "\n")
        drawn = gallery.draw(
            found.figures, split, found.images.numpy(), found.labels.numpy(), found.probabilities
        )
        gallery.save(drawn, folder)
    except OSError as error:
        raise UserError(f"folder={folder} cannot be written: {error.strerror}.") from None
    print(f"\nfigures and pictures  {folder}")
    return int(found.failed > 0)


def on(
    classifier: "Classifier", split: str, folder: str | None = None, root: str | None = None
) -> Evaluated:
    """A classifier on a split of its data set, or on the photos in a folder.

    Raises:
        UserError: no data; no photo.
    """
    from fmnist_pl.model.inference import evaluate, load_split, predict, predict_photos

    if not folder:
        images, labels = load_split(classifier, split, root)
        predictions = predict(classifier, images)
        figures = evaluate(classifier, predictions, labels, split)
        return Evaluated(figures, images, labels, predictions.probabilities)
    own = read_own(folder, classifier)
    predictions = predict_photos(classifier, own.images.numpy(), own.fitted)
    figures = evaluate(classifier, predictions, own.labels, OWN)
    figures |= trusted(own, predictions.probabilities)
    return Evaluated(figures, own.images, own.labels, predictions.probabilities, own.failed)


def read_own(folder: str, classifier: "Classifier") -> "Own":
    """The photos in a folder, those that cannot be read reported on stderr.

    Raises:
        UserError: none can be.
    """
    import torch

    from fmnist_pl.data import photos

    labels = photos.find_labelled(folder, classifier.class_names)
    read = list(photos.read_all([*labels], "auto", classifier.hparams["data"]["name"]))
    if not read:
        raise UserError(f"images={folder}: none of {len(labels)} files shows a piece.")
    return Own(
        torch.from_numpy(np.stack([photo.image for photo in read])),
        torch.tensor([labels[photo.path] for photo in read]),
        [str(photo.path) for photo in read],
        [photo.cutout.doubt for photo in read],
        np.array([photo.cutout.fitted for photo in read]),
        len(labels) - len(read),
    )


def trusted(own: "Own", probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """What to say of each photo, and how many of those without a mark are right."""
    from fmnist_pl.data.photos import mark

    marks = [mark(*each) for each in zip(own.doubts, probabilities.max(1), strict=True)]
    unmarked = ~np.array(list(map(bool, marks)))
    right = probabilities.argmax(1) == own.labels.numpy()
    return {
        f"{OWN}/unmarked": int(unmarked.sum()),
        f"{OWN}/unmarked_right": int(right[unmarked].sum()),
        "files": dict(zip(own.files, marks, strict=True)),
    }


def report(result: dict[str, Any]) -> None:
    """The figures at the terminal, and for each class what it is most often taken for."""
    split, names = result["split"], [printable(name) for name in result["classes"]]
    print(f"{printable(result['model'])}-{result['seed']}, {result['parameters']:,} parameters\n")
    print(f"{result['images']:,} {split} images")
    for name in ("acc", "loss", "cross_entropy", "penalty"):
        label = name.replace("_", "-").replace("acc", "accuracy")
        print(f"  {label:13}  {result[f'{split}/{name}']:.4f}")
    column = max(map(len, ["class", *names]))
    print(f"\n{'class':{column}}  accuracy  images  most often taken for")
    confusion = np.array(result[f"{split}/confusion_matrix"])
    accuracies = result[f"{split}/acc_per_class"].values()
    for i, (name, accuracy) in enumerate(zip(names, accuracies, strict=True)):
        wrong = np.where(np.arange(len(names)) == i, 0, confusion[i])
        taken_for = f"{names[wrong.argmax()]} ({wrong.max():,})" if wrong.any() else ""
        share = "" if accuracy is None else f"{accuracy:.4f}"
        print(f"{name:{column}}  {share:>8}  {confusion[i].sum():6}  {taken_for}".rstrip())
    if split == OWN:
        unmarked, right = (result[f"{OWN}/{name}"] for name in ("unmarked", "unmarked_right"))
        print(f"\n{unmarked:,} without a mark, {right:,} of them right")


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
