"""Image files of any kind as images of the data set: a light piece on a black ground, 28x28."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from glob import glob
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from fmnist_pl.options.messages import UserError, printable

# EPS is not among them: Pillow has Ghostscript run what is in the file.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SIDE = 28
FULL_SCALE = {"I": 65535, "F": 1}  # of Pillow's modes; else 16 bits
READERS = 2  # images decoded at once; the largest allowed take nearly 2 GB each


class Photo(NamedTuple):
    """A file that could be read."""

    path: Path
    image: NDArray[np.uint8]  # (28, 28)
    inverted: bool
    size: str  # of the file, as in 640x480


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


def read_all(paths: Sequence[Path], invert: str) -> Iterator[Photo]:
    """The files that are images, in order; the others are reported on stderr."""
    with warnings.catch_warnings(), ThreadPoolExecutor(READERS) as pool:
        warnings.simplefilter("ignore")  # of oddities that a decoder copes with
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        outcomes = pool.map(partial(read, invert=invert), paths)
        bar = tqdm(outcomes, total=len(paths), unit="file", delay=1, leave=False, disable=None)
        for path, outcome in zip(paths, bar, strict=True):
            if isinstance(outcome, Photo):
                yield outcome
            else:
                tqdm.write(f"error: {printable(str(path))}: {outcome}", file=sys.stderr)


def read(path: Path, invert: str) -> Photo | str:
    """A file as an image of the data set, or why it cannot be one."""
    if path.exists() and not path.is_file():
        return "not a regular file."
    try:
        with Image.open(path, formats=FORMATS) as file:
            size = "{}x{}".format(*file.size)
            file.draft("L", (16 * SIDE, 16 * SIDE))  # JPEG: spares decoding what is thrown away
            grey = to_grey(ImageOps.exif_transpose(file), light=invert != "no")
            return Photo(path, *prepare(grey, invert), size)
    except UnidentifiedImageError:
        return f"no image of a format that is read ({', '.join(FORMATS)})."
    except OSError as error:
        return f"{error.strerror or error}."
    except Exception as error:  # a decoder's, each has its own
        return f"{error} ({type(error).__name__})."


def to_grey(image: Image.Image, light: bool) -> Image.Image:
    """Any mode as `L`: 8-bit grey; what is transparent, on a light or a dark ground."""
    if image.mode[0] in "IF":
        values = np.asarray(image, np.float32) * (255 / FULL_SCALE.get(image.mode, 65535))
        return Image.fromarray(np.nan_to_num(values).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white" if light else "black")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("L")


def prepare(image: Image.Image, invert: str) -> tuple[NDArray[np.uint8], bool]:
    """A grey image made as the images of the data set were, and whether it was inverted.

    Unless it has 28x28 pixels, margins within 5 % of the ground are cut off, the longer side is
    made 28 pixels and the shorter one extended. Shrinking is by Lanczos' filter and no sharpening
    follows; else as in H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747.
    """
    pixels = np.asarray(image)
    ground = int(np.median(np.concatenate([*pixels[[0, -1]], *pixels[:, [0, -1]].T])))
    if image.size != (SIDE, SIDE):
        piece = Image.fromarray(np.abs(pixels.astype(np.int16) - ground) > 0.05 * 255)
        piece = image.crop(piece.getbbox())
        # ImageOps.pad lets the short side of a long piece become 0.
        width, height = (max(1, round(side / max(piece.size) * SIDE)) for side in piece.size)
        piece = piece.resize((width, height), Image.Resampling.LANCZOS)
        image = Image.new("L", (SIDE, SIDE), ground)
        image.paste(piece, (round((SIDE - width) / 2), round((SIDE - height) / 2)))
    inverted = invert == "yes" or (invert == "auto" and ground > 127)
    return np.asarray(ImageOps.invert(image) if inverted else image), inverted
