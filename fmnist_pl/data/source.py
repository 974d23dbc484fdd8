"""Find, fetch and verify a data set: four idx files, or folders of images, as uint8 arrays.

`python -m fmnist_pl.dataset --help` says where they may come from, and in which order.
"""

import hashlib
import logging
import os
import shlex
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.request import urlopen
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from fmnist_pl.data import folders, idx
from fmnist_pl.data.catalogue import completed, known_contents
from fmnist_pl.data.idx import FILES
from fmnist_pl.options.messages import UserError, progress_bar
from fmnist_pl.options.schema import FASHION_MNIST, Data

log = logging.getLogger(__name__)

DEBIAN_FOLDERS = Path("/usr/share/datasets")  # each of a package dataset-NAME
TIMEOUT = 20  # seconds of silence after which a mirror is given up
MAX_BYTES = 64 << 20  # the largest known file has 47 MB; more is not read, however much there is


class Arrays(NamedTuple):
    """Images uint8 (N, 28, 28), black 0 to white 255, and labels uint8 (N,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def load(data: Data | None = None) -> Arrays:
    """A data set, from the first source whose files are as they must be; Fashion-MNIST by default.

    `data.root` is read and never written: where it holds no complete copy, a warning says so and
    the next source is asked.

    Raises:
        UserError: no source has the data; the message lists what was tried, and the remedies.
    """
    _, contents = find(data or Data())
    return parsed(contents)


def parsed(contents: Mapping[str, bytes]) -> Arrays:
    """The arrays of the four files."""
    return Arrays(*(idx.parse(contents[name]) for name in FILES))


def find(data: Data) -> tuple[Path, dict[str, bytes]]:
    """The first folder that has, or can be given, all four files; and what they hold, by name.

    Class folders are read as the files that they would make.

    Raises:
        UserError: as of `load`.
    """
    data = completed(data)
    if data.format == "folders":
        root = root_of(data)
        contents = folders.contents(root, tuple(data.class_names))
        found = {name: f"sha256:{digest}" for name, digest in digests(contents).items()}
        if data.hashes and found != data.hashes:
            raise UserError(f"data.root={root}: holds other images than {title(data)} had.")
        return root, contents
    if not data.class_names:
        raise UserError(
            f"data.class_names=[...] must be given: the names of the classes of {title(data)}, "
            "by label."
        )
    cache = cache_folder(data)
    places = {"cache": cache}
    if data.debian_package:
        places = {"Debian package": _debian_folder(data.debian_package)} | places
    if data.root is not None:
        places = {"data.root": expand_home(data.root)} | places
    tried: list[str] = []
    for label, folder in places.items():
        contents, problems = _read(data, folder)
        if not problems:
            return folder, contents
        tried += [f"{label}: {problem}" for problem in problems]
        if label == "data.root":
            warn_once(f"data.root is no use, looking elsewhere: {'; '.join(problems)}")
    try:
        contents = _fetch(data, cache, tried)
    except OSError as error:  # downloads account for their own: this is the cache's
        tried.append(f"cache: cannot be written: {error}")
    if len(contents) == len(FILES):
        if not (problems := _unfit(data, contents)):
            return cache, contents
        tried += [f"fetched: {problem}" for problem in problems]
    listing = "".join(f"\n  {line}" for line in tried)
    raise UserError(f"No valid copy of {title(data)}. Tried:{listing}\n{remedies(data)}")


def locate(data: Data | None = None) -> Path:
    """The folder below which the four files are; fetches and raises as `load`."""
    folder, _ = find(data or Data())
    return folder


def measured(data: Data) -> Data:
    """With what the files say of themselves, where the description leaves it open.

    That is the names of class folders, how many images there are, and hashes: a run of one's own
    images goes on with the same ones only.

    Raises:
        UserError: as of `load`, if the files had to be read.
    """
    data = completed(data)
    if data.class_names and data.train_images and data.test_images and data.hashes:
        return data
    _, contents = find(data)
    names = data.class_names or folders.listed(root_of(data)).class_names
    train, test = (idx.shape(contents[images])[0] for images in FILES[::2])
    for field, there in (("train_images", train), ("test_images", test)):
        if (given := getattr(data, field)) not in (None, there):
            raise UserError(f"data.{field}={given}: {title(data)} has {there}.")
    hashes = {name: f"sha256:{digest}" for name, digest in digests(contents).items()}
    return replace(
        data, class_names=names, train_images=train, test_images=test, hashes=data.hashes or hashes
    )


def digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of what each file holds."""
    return {name: _sha256(content) for name, content in contents.items()}


def title(data: Data) -> str:
    return data.title or data.name


def root_of(data: Data) -> Path:
    if not data.root:
        raise UserError(f"data.root=FOLDER must be given: it holds the images of {title(data)}.")
    return expand_home(data.root)


@cache
def warn_once(message: str) -> None:
    """The data set is looked for several times in a run."""
    log.warning("%s", message)


def cache_folder(data: Data) -> Path:
    """Where fetched files are kept: FMNIST_DATA_DIR, or fmnist_pl in the user's cache.

    Fashion-MNIST's are there, those of another data set in a folder of its name.
    """
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("FMNIST_DATA_DIR") or f"{user_cache}/fmnist_pl"
    return expand_home(folder) / own_folder(data)


def _debian_folder(package: str) -> Path:
    return DEBIAN_FOLDERS / package.removeprefix("dataset-")


def own_folder(data: Data) -> str:
    """Of a data set in caches and on mirrors of one's own."""
    return "" if data.name == FASHION_MNIST else data.name


def mirrors(data: Data) -> list[str]:
    """URLs of folders to fetch files from: FMNIST_MIRRORS in place of those of the data set."""
    given = os.environ.get("FMNIST_MIRRORS")
    if given is None or not data.mirrors:
        return [mirror.rstrip("/") for mirror in data.mirrors]
    return [f"{mirror.rstrip('/')}/{own_folder(data)}".rstrip("/") for mirror in given.split()]


def remedies(data: Data) -> str:
    """What the user can do where no source has the data."""
    ways = [
        f"copy the four files {', '.join(FILES)} (plain or .gz) from a machine\n"
        "  that has them into a folder, and name it with data.root=FOLDER"
    ]
    if data.name == FASHION_MNIST:
        ways[0] += " or FMNIST_DATA_DIR=FOLDER"
    if data.debian_package:
        ways.insert(0, f"sudo apt update && sudo apt install {data.debian_package}")
    return "Any one of these helps:\n  " + "\n  ".join(ways)


def _read(data: Data, folder: Path, put_aside: bool = False) -> tuple[dict[str, bytes], list[str]]:
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
    layouts = ("", f"{title(data).replace('-', '')}/raw")  # flat, torchvision's
    for name in FILES:
        wrong: list[str] = []
        for path in [folder / sub / file for sub in layouts for file in _file_names(data, name)]:
            try:
                with path.open("rb") as file:
                    contents[name] = _verified(data, name, path.name, file.read(MAX_BYTES))
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
    return contents, problems or _unfit(data, contents)


def _file_names(data: Data, name: str) -> list[str]:
    """Under which a file may be kept, the one first whose hash is known."""
    packed = f"{name}.gz"
    return [packed, name] if packed in data.hashes else [name, packed]


def _unfit(data: Data, contents: Mapping[str, bytes]) -> list[str]:
    """Why files of which each is as it must be are no data set together."""
    problems = []
    for images, labels in (FILES[:2], FILES[2:]):
        counts = [idx.shape(contents[name])[0] for name in (images, labels)]
        if counts[0] != counts[1]:
            problems.append(f"{counts[0]} images in {images}, {counts[1]} labels in {labels}")
    tested = set(idx.parse(contents[FILES[3]]).tolist())
    if lacking := [name for i, name in enumerate(data.class_names) if i not in tested]:
        problems.append(f"no image of {', '.join(lacking)} for the test")
    return problems


def _verified(data: Data, name: str, file: str, raw: bytes) -> bytes:
    """`raw`, decompressed if it is gzip; ValueError unless that can be the content of `name`.

    Its hash decides, be it of what was kept as `file` or of the content, or else its form.
    """
    content = raw
    if raw.startswith(b"\x1f\x8b"):
        try:
            content = zlib.decompressobj(wbits=31).decompress(raw, MAX_BYTES)  # 31: gzip
        except zlib.error as error:
            raise ValueError(f"is a damaged gzip file ({error})") from None
    held = {file: raw, name: content}
    hashed = {file: data.hashes[file].split(":") for file in held if file in data.hashes}
    for file, (algorithm, digest) in hashed.items():
        if hashlib.new(algorithm, held[file], usedforsecurity=False).hexdigest() != digest:
            raise ValueError(f"does not hold {name} but {_what_is(content)}")
    if data.hashes and not hashed and _sha256(content) in known_contents():
        raise ValueError(f"does not hold {name} but {_what_is(content)}")
    images = data.train_images if name in FILES[:2] else data.test_images
    try:
        idx.check(name, content, images, len(data.class_names))
    except ValueError as error:
        raise ValueError(f"does not hold {name} but {error}") from None
    return content


def _what_is(content: bytes) -> str:
    """A file of a known data set, or something else."""
    digest = _sha256(content)
    unknown = f"{len(content)} bytes that begin with {content[:12]!r}, SHA-256 {digest:.12}..."
    return known_contents().get(digest, unknown)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fetch(data: Data, cache: Path, tried: list[str]) -> dict[str, bytes]:
    """Complete the cache and return its contents; where that fails, `tried` gets the reasons.

    One process fetches, the others wait for it.

    Raises:
        OSError: the cache cannot be written.
    """
    if not (data.mirrors or data.debian_package):
        return {}
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / ".lock"):
        # Maybe another process has just fetched them.
        contents, _ = _read(data, cache, put_aside=True)
        for mirror in mirrors(data):
            for name in [name for name in FILES if name not in contents]:
                url = f"{mirror}/{name}.gz"
                try:
                    raw = _download(url)
                    content = _verified(data, name, f"{name}.gz", raw)
                except (OSError, HTTPException, ValueError) as error:
                    tried.append(f"{url}: {error}")
                    log.warning("%s", tried[-1])
                    break
                # As its hash can be checked again.
                packed = f"{name}.gz" in data.hashes
                store(cache / (f"{name}.gz" if packed else name), raw if packed else content)
                contents[name] = content
        if len(contents) < len(FILES) and data.debian_package:
            with TemporaryDirectory(dir=cache, prefix=".apt-") as temporary:
                try:
                    folder = _unpack_debian_package(data.debian_package, Path(temporary))
                    unpacked, problems = _read(data, folder)
                except OSError as error:
                    unpacked, problems = {}, [str(error)]
            tried += [f"apt-get download {data.debian_package}: {problem}" for problem in problems]
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
        with progress_bar(total=size, desc=name, unit="B", unit_scale=True, delay=1) as bar:
            while len(body) < MAX_BYTES and (chunk := response.read(1 << 16)):
                body += chunk
                bar.update(len(chunk))
    return bytes(body)


def _unpack_debian_package(package: str, folder: Path) -> Path:
    """Download and unpack a package below `folder`, which needs no root; where its data is.

    Raises:
        OSError: the last line that apt-get or dpkg-deb complained with.
    """
    command = f"apt-get download {shlex.quote(package)} && dpkg-deb -x *.deb ."
    log.info("fetching with %s", command)
    done = subprocess.run(  # apt-get shows its progress on our stderr
        command, shell=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=2, stderr=subprocess.PIPE
    )
    if done.returncode != 0:
        raise OSError(done.stderr.decode(errors="replace").strip().rpartition("\n")[-1])
    return folder / _debian_folder(package).relative_to("/")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("waiting for another process that fetches into %s", path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def store(path: Path, content: bytes) -> None:
    """Write the file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def expand_home(path: str | Path) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path's own raises on an unknown ~user)
