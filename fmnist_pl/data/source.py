"""Find, fetch and verify Fashion-MNIST: four idx files as uint8 arrays.

`python -m fmnist_pl.dataset --help` says where they may come from, and in which order.
"""

import fcntl
import hashlib
import logging
import os
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.request import urlopen
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fmnist_pl.options.messages import UserError

log = logging.getLogger(__name__)

# Of the decompressed content: gzip headers differ between the sources.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

MIRRORS = (  # torchvision's, TensorFlow's, the authors'
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

LAYOUTS = ("", "FashionMNIST/raw")  # flat, torchvision's
TIMEOUT = 20  # seconds of silence after which a mirror is given up
MAX_BYTES = 64 << 20  # the largest file has 47 MB; more is not read, however much there is

REMEDIES = f"""\
Any one of these helps:
  sudo apt update && sudo apt install {DEBIAN_PACKAGE}
  copy the four files {", ".join(SHA256)} (plain or .gz) from a machine
  that has them into a folder, and name it with data.root=FOLDER or FMNIST_DATA_DIR=FOLDER"""


class FashionMNIST(NamedTuple):
    """Images uint8 (N, 28, 28), black 0 to white 255, and labels uint8 (N,), 0 to 9."""

    train_images: NDArray[np.uint8]  # (60000, 28, 28)
    train_labels: NDArray[np.uint8]  # (60000,)
    test_images: NDArray[np.uint8]  # (10000, 28, 28)
    test_labels: NDArray[np.uint8]  # (10000,)


def load(root: str | Path | None = None) -> FashionMNIST:
    """The data set, from the first source whose four files are verified.

    `root` is read and never written: where it holds no complete copy, a warning says so and the
    next source is asked.

    Raises:
        UserError: no source has the data; the message lists what was tried, and the remedies.
    """
    _, contents = find(root)
    return FashionMNIST(*(_parse_idx(contents[name]) for name in SHA256))


@cache
def warn_once(message: str) -> None:
    """The data set is looked for several times in a run."""
    log.warning("%s", message)


def locate(root: str | Path | None = None) -> Path:
    """The folder below which the four verified files are; fetches and raises as `load`."""
    folder, _ = find(root)
    return folder


def cache_folder() -> Path:
    """Where fetched files are kept: FMNIST_DATA_DIR, or fmnist_pl in the user's cache."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("FMNIST_DATA_DIR") or f"{user_cache}/fmnist_pl"
    return expand_home(folder)


def find(root: str | Path | None) -> tuple[Path, dict[str, bytes]]:
    """The first folder that has, or can be given, all four files; and their contents by name."""
    cache = cache_folder()
    folders = {"Debian package": DEBIAN_FOLDER, "cache": cache}
    if root is not None:
        folders = {"data.root": expand_home(root)} | folders
    tried: list[str] = []
    for label, folder in folders.items():
        contents, problems = _read(folder)
        if not problems:
            return folder, contents
        tried += [f"{label}: {problem}" for problem in problems]
        if label == "data.root":
            warn_once(f"data.root is no use, looking elsewhere: {'; '.join(problems)}")
    try:
        contents = _fetch(cache, tried)
    except OSError as error:  # downloads account for their own: this is the cache's
        tried.append(f"cache: cannot be written: {error}")
    if len(contents) == len(SHA256):
        return cache, contents
    listing = "".join(f"\n  {line}" for line in tried)
    raise UserError(f"No valid copy of Fashion-MNIST. Tried:{listing}\n{REMEDIES}")


def _read(folder: Path, put_aside: bool = False) -> tuple[dict[str, bytes], list[str]]:
    """Verified contents by name, and one line for each reason why another is not among them.

    A wrong file is skipped with a warning, and renamed to *.bad where `put_aside`.
    """
    try:
        any(folder.iterdir())  # is it a folder, and one we may read?
    except (OSError, ValueError) as error:
        return {}, [str(error)]
    contents: dict[str, bytes] = {}
    problems: list[str] = []
    absent: list[str] = []
    for name in SHA256:
        wrong: list[str] = []
        for path in [folder / sub / (name + gz) for sub in LAYOUTS for gz in ("", ".gz")]:
            try:
                with path.open("rb") as file:
                    contents[name] = _verified(name, file.read(MAX_BYTES))
                break
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                wrong.append(str(error))
            except ValueError as error:
                wrong.append(f"{path}: {error}")
                if put_aside:
                    aside = path.replace(path.with_name(path.name + ".bad"))
                    wrong[-1] += f" (put aside as {aside.name})"
            log.warning("skipped: %s", wrong[-1])
        else:
            problems += wrong
            absent += [] if wrong else [name]
    if absent:
        problems.append(f"{folder} lacks {', '.join(absent)}")
    return contents, problems


def _verified(name: str, raw: bytes) -> bytes:
    """`raw`, decompressed if it is gzip; ValueError unless that is the content of `name`."""
    content = raw
    if raw.startswith(b"\x1f\x8b"):
        try:
            content = zlib.decompressobj(wbits=31).decompress(raw, MAX_BYTES)  # 31: gzip
        except zlib.error as error:
            raise ValueError(f"is a damaged gzip file ({error})") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        unknown = f"{len(content)} bytes that begin with {content[:12]!r}, SHA-256 {digest:.12}..."
        holds = {known: other for other, known in SHA256.items()}.get(digest, unknown)
        raise ValueError(f"does not hold {name} but {holds}")
    return content


def _fetch(cache: Path, tried: list[str]) -> dict[str, bytes]:
    """Complete the cache and return its contents; where that fails, `tried` gets the reasons.

    One process fetches, the others wait for it.

    Raises:
        OSError: the cache cannot be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / ".lock"):
        contents, _ = _read(cache, put_aside=True)  # maybe another process has just fetched them
        for mirror in os.environ.get("FMNIST_MIRRORS", " ".join(MIRRORS)).split():
            for name in [name for name in SHA256 if name not in contents]:
                url = f"{mirror.rstrip('/')}/{name}.gz"
                try:
                    content = _verified(name, _download(url))
                except (OSError, HTTPException, ValueError) as error:
                    tried.append(f"{url}: {error}")
                    log.warning("%s", tried[-1])
                    break
                store(cache / name, content)
                contents[name] = content
        if len(contents) < len(SHA256):
            with TemporaryDirectory(dir=cache, prefix=".apt-") as temporary:
                try:
                    unpacked, problems = _read(_unpack_debian_package(Path(temporary)))
                except OSError as error:
                    unpacked, problems = {}, [str(error)]
            tried += [f"apt-get download {DEBIAN_PACKAGE}: {problem}" for problem in problems]
            for name, content in unpacked.items():
                store(cache / name, content)
            contents |= unpacked
    return contents


def _download(url: str) -> bytes:
    """The body at `url`, with a progress bar if it takes more than a second."""
    log.info("fetching %s", url)
    body = bytearray()
    with urlopen(url, timeout=TIMEOUT) as response:
        size = int(response.headers.get("Content-Length", 0))
        name = url.rpartition("/")[-1]
        with tqdm(total=size, desc=name, unit="B", unit_scale=True, delay=1, disable=None) as bar:
            while len(body) < MAX_BYTES and (chunk := response.read(1 << 16)):
                body += chunk
                bar.update(len(chunk))
    return bytes(body)


def _unpack_debian_package(folder: Path) -> Path:
    """Download and unpack the package below `folder`, which needs no root; where its data is.

    Raises:
        OSError: the last line that apt-get or dpkg-deb complained with.
    """
    command = f"apt-get download {DEBIAN_PACKAGE} && dpkg-deb -x *.deb ."
    log.info("fetching with %s", command)
    done = subprocess.run(  # apt-get shows its progress on our stderr
        command, shell=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=2, stderr=subprocess.PIPE
    )
    if done.returncode != 0:
        raise OSError(done.stderr.decode(errors="replace").strip().rpartition("\n")[-1])
    return folder / DEBIAN_FOLDER.relative_to("/")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that fetches into %s", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def store(path: Path, content: bytes) -> None:
    """Write the file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _parse_idx(content: bytes) -> NDArray[np.uint8]:
    """Two zero bytes, type (8: uint8), rank, one big-endian int32 a dimension, the values."""
    rank = content[3]
    shape = np.frombuffer(content, dtype=">i4", count=rank, offset=4)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank)
    return values.reshape(shape).copy()  # a copy is writable, as torch asks


def expand_home(path: str | Path) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path's own raises on an unknown ~user)
