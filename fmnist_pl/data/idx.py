"""The format of MNIST's files: arrays of bytes with a header of their shape."""

import math

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.data.protocol import SIDE

FILES = (  # images and labels of the training part, then of the test
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def shape(content: bytes) -> tuple[int, ...]:
    """Two zero bytes, type (8: uint8), rank, one big-endian int32 a dimension, the values.

    Raises:
        ValueError: it is not of this form, or has not as many values.
    """
    if content[:3] == b"\0\0\x08" and len(content) > 3:
        rank = content[3]
        dims = tuple(int.from_bytes(content[4 * i : 4 * i + 4]) for i in range(1, rank + 1))
        if rank and len(content) == 4 + 4 * rank + math.prod(dims):
            return dims
    raise ValueError(f"no idx file: {len(content)} bytes that begin with {content[:12]!r}")


def check(name: str, content: bytes, images: int | None, classes: int) -> None:
    """Hold a file against what it is to be.

    Args:
        name: of the file, one of `FILES`.
        content: its bytes, unpacked.
        images: how many there are to be, or whose labels; None: any number.
        classes: of the data set: labels are less.

    Raises:
        ValueError: says what it is instead.
    """
    found = shape(content)
    wanted = (SIDE, SIDE) if "images" in name else ()
    if not found[0] or found[1:] != wanted or len(found) != 1 + len(wanted):
        raise ValueError(f"an idx file of shape {found}, not (N{', 28, 28' if wanted else ','})")
    if images is not None and found[0] != images:
        raise ValueError(f"{found[0]} {'images' if wanted else 'labels'}, not {images}")
    if not wanted and (largest := int(parse(content).max())) >= classes:
        raise ValueError(f"a label {largest}; the {classes} classes have 0 to {classes - 1}")


def parse(content: bytes) -> NDArray[np.uint8]:
    """The array of a file that has been checked, writable, as torch asks."""
    dims = shape(content)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(dims)).reshape(dims).copy()


def encode(array: NDArray[np.uint8]) -> bytes:
    """The file of an array."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
