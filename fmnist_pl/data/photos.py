"""Image files of any kind as images of the data set: a light piece on a black ground, 28x28."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from fmnist_pl.data.cutout import FINEST, Cutout, cut_out
from fmnist_pl.options.messages import UserError, printable, progress_bar
from fmnist_pl.options.schema import FASHION_MNIST

# EPS is not among them: Pillow has Ghostscript run what is in the file.
FORMATS = ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"]
HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
READERS = min(4, os.cpu_count() or 1)  # images decoded at once, as much as a gigabyte each
SURE = 0.9  # probability below which an answer is unsure

if find_spec("pillow_heif"):
    from pillow_heif import register_heif_opener

    register_heif_opener()
    FORMATS.append("HEIF")


class Photo(NamedTuple):
    """A file that could be read, and the piece in it."""

    path: Path
    size: str  # of the file, as in 640x480
    cutout: Cutout

    @property
    def image(self) -> NDArray[np.uint8]:
        """The piece as an image of the data set, (28, 28)."""
        return self.cutout.image


def find(images: str) -> list[Path]:
    """The file, the files in the folder but hidden ones, or those that match; sorted.

    Raises:
        UserError: there is none.
    """
    path = Path(images)
    try:
        if path.is_dir():
            found = [file for file in path.iterdir() if not file.name.startswith(".")]
        elif path.exists():
            found = [path]
        else:
            found = list(map(Path, glob(images, recursive=True)))  # noqa: PTH207 (takes any pattern)
        found = sorted(file for file in found if not file.is_dir())
    except OSError as error:
        raise UserError(f"images={images}: {error.strerror}.") from None
    if not found:
        raise UserError(f"images={images}: no such file, and no file in it or matching it.")
    return found


def find_labelled(folder: str, class_names: Sequence[str]) -> dict[Path, int]:
    """The files in a folder's subfolders, each with the number of the class it is named by.

    Case and signs do not count: T-shirt/top is `t-shirt top`.

    Raises:
        UserError: no such folder or no file; a subfolder that is named by no class.
    """

    def plain(name: str) -> str:
        return "".join(filter(str.isalnum, name)).casefold()

    classes = {plain(name): label for label, name in enumerate(class_names)}
    legal = f"a subfolder is named by a class: {', '.join(class_names)} (signs may be left out)."
    found: dict[Path, int] = {}
    if not Path(folder).is_dir():
        raise UserError(f"images={folder}: no such folder; {legal}")
    subfolders = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    if not subfolders:
        raise UserError(f"images={folder}: no subfolder; {legal}")
    for path in subfolders:
        if plain(path.name) not in classes:
            raise UserError(f"images={folder}: {path.name!r} is no class; {legal}")
        found |= dict.fromkeys(find(str(path)), classes[plain(path.name)])
    return found


def read_all(paths: Sequence[Path], invert: str, data_set: str | None) -> Iterator[Photo]:
    """The files that show a piece, in order; the others are reported on stderr."""
    with warnings.catch_warnings(), ThreadPoolExecutor(READERS) as pool:
        warnings.simplefilter("ignore")  # of oddities that a decoder copes with
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        outcomes = pool.map(partial(read, invert=invert, data_set=data_set), paths)
        bar = progress_bar(outcomes, "reading", len(paths), unit="file", delay=1, leave=False)
        for path, outcome in zip(paths, bar, strict=True):
            if isinstance(outcome, Photo):
                yield outcome
            else:
                tqdm.write(f"error: {printable(str(path))}: {outcome}", file=sys.stderr)


def read(path: Path, invert: str, data_set: str | None) -> Photo | str:
    """A file as an image of the data set, or why it cannot be one.

    Files of 28x28 pixels are taken as they are, but for Fashion-MNIST: how large a piece is in its
    images is known.
    """
    if path.exists() and not path.is_file():
        return "not a regular file."
    try:
        with Image.open(path, formats=FORMATS) as file:
            size = "{}x{}".format(*file.size)
            if getattr(file, "is_animated", False) and file.format != "MPO":  # a camera's preview
                size += f", first of {file.n_frames} frames"  # type: ignore[attr-defined]
            file.draft(None, (FINEST, FINEST))  # JPEG: spares decoding what is thrown away
            ready = data_set != FASHION_MNIST
            cutout = cut_out(ImageOps.exif_transpose(file), invert, ready)
        return Photo(path, size, cutout) if cutout else "nothing stands out from the ground."
    except UnidentifiedImageError:
        return what_it_is(path)
    except OSError as error:
        return f"{error.strerror or error}."
    except Exception as error:  # a decoder's, each has its own
        return f"{error} ({type(error).__name__})."


def mark(doubt: str, probability: float) -> str:
    """Why an answer is not to be trusted; empty where nothing speaks against it."""
    if doubt:
        return f"unreliable: {doubt}"
    return "unsure" if probability < SURE else ""


def what_it_is(path: Path) -> str:
    """Why no image was found in a file."""
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        return "an empty file."
    if head[4:8] == b"ftyp" and head[8:] in HEIC:
        return "HEIC: export it as JPEG, or pip install pillow-heif."
    return f"no image of a format that is read ({', '.join(FORMATS)})."
