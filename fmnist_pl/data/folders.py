"""Images of one's own in a folder for each class, as the idx files that they would make.

    FOLDER/train/CLASS/*  FOLDER/test/CLASS/*
    FOLDER/CLASS/*        of each class a seventh, as of MNIST's images, is for the test

Which ones those are, and the order of all, depends on the names of the files and on nothing else.
What has a name that begins with a dot is left out.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fmnist_pl.data import idx
from fmnist_pl.options.messages import UserError, progress_bar

TEST_SHARE = 7
SEED = 42
MAX_CLASSES = 256  # a label is a byte

Labelled = list[tuple[Path, int]]


class Listed(NamedTuple):
    """The files of a data set, each with its label."""

    class_names: list[str]
    train: Labelled
    test: Labelled


@lru_cache(1)  # a run checks them before it reads them
def contents(root: Path, class_names: tuple[str, ...] = ()) -> dict[str, bytes]:
    """What the four idx files of a folder would hold, by name; each image as `predict` makes it.

    Raises:
        UserError: as of `listed`; a file that is no image.
    """
    from fmnist_pl.data import photos  # brings Pillow

    _, *parts = listed(root, class_names)
    arrays = []
    for files in parts:
        images = []
        bar = progress_bar(files, "reading images", unit="file", delay=1, leave=False)
        for path, _ in bar:
            photo = photos.read(path, "auto", data_set=None)
            if isinstance(photo, str):
                raise UserError(f"{path}: {photo} A class folder holds images and nothing else.")
            images.append(photo.image)
        arrays += [np.stack(images), np.array([label for _, label in files], np.uint8)]
    return dict(zip(idx.FILES, map(idx.encode, arrays), strict=True))


def listed(root: Path, class_names: Sequence[str] = ()) -> Listed:
    """The images of a folder by the names of the files, none of which is opened.

    Args:
        root: the folder.
        class_names: by label; none: the names of the folders, sorted.

    Raises:
        UserError: no such folder; other folders than those of the classes; one without images.
    """
    parts = [root / "train", root / "test"]
    if not all(part.is_dir() for part in parts):
        parts = [root]
    try:
        found = [
            {sub.name: visible(sub) for sub in visible(part) if sub.is_dir()} for part in parts
        ]
    except OSError as error:
        raise UserError(f"data.root={root}: {error.strerror}.") from None
    names = list(class_names or found[0])
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"data.root={root}: {len(names)} folders of classes; there must be 2 to {MAX_CLASSES}, "
            "as FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, or as FOLDER/CLASS/* alone."
        )
    for part, classes in zip(parts, found, strict=True):
        if classes.keys() != set(names):
            raise UserError(
                f"{part}: has folders {', '.join(classes) or 'of no class'}; the classes are "
                f"{', '.join(names)}."
            )
        for name, files in classes.items():
            if len(files) * len(parts) < 2:  # one for training, one for the test
                raise UserError(f"{part / name}: {len(files)} images are too few.")
    draw = np.random.RandomState(SEED)
    train, test = found if len(parts) == 2 else shared_out(found[0], draw)
    return Listed(names, labelled(train, names, draw), labelled(test, names, draw))


def visible(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def shared_out(
    classes: dict[str, list[Path]], draw: np.random.RandomState
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Of each class the files to train on, and those for the test."""
    train, test = {}, {}
    for name, files in classes.items():
        order = [files[i] for i in draw.permutation(len(files))]
        share = max(1, len(order) // TEST_SHARE)
        train[name], test[name] = order[share:], order[:share]
    return train, test


def labelled(
    classes: dict[str, list[Path]], names: Sequence[str], draw: np.random.RandomState
) -> Labelled:
    """The files of all classes with their labels, mixed."""
    files = [(file, label) for label, name in enumerate(names) for file in classes[name]]
    return [files[i] for i in draw.permutation(len(files))]
