"""Finding, fetching and verifying the data: on the real files, and every fault on tiny ones."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fmnist_pl import dataset
from fmnist_pl.data import catalogue, source
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Data
from tests.conftest import FASHION

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]
TRAIN_IMAGES = NAMES[0]
FAST_GZIP = 1


def idx(shape: tuple[int, ...], seed: int = 0) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    if len(shape) == 1:
        return header + bytes((i + seed) % 10 for i in range(*shape))
    return header + np.random.default_rng([sum(shape), seed]).bytes(int(np.prod(shape)))


def tiny(seed: int = 0) -> dict[str, bytes]:
    shapes = [(60, 28, 28), (60,), (10, 28, 28), (10,)]
    return dict(zip(NAMES, (idx(shape, seed) for shape in shapes), strict=True))


TINY, DIGITS = tiny(), tiny(seed=1)
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in DIGITS.items()}

# The command, on a machine without the Debian package and with the data sets of this process.
COMMAND = """
import sys
from pathlib import Path
from fmnist_pl import dataset
from fmnist_pl.data import catalogue, source
source.DEBIAN_FOLDERS = Path("/nonexistent/datasets")
catalogue.FOLDER = Path(sys.argv.pop(1))
dataset.main()
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", COMMAND, str(catalogue.FOLDER), *arguments]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), capture_output=True, text=True)


def put(folder: Path, contents: dict[str, bytes], gz: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(content) if gz else content)
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def is_tiny(data: source.Arrays) -> bool:
    headers = [16, 8, 16, 8]
    pairs = zip(data, TINY.values(), headers, strict=True)
    return all(array.tobytes() == content[header:] for array, content, header in pairs)


def describe(folder: Path, name: str, hashes: dict[str, str], **more: object) -> None:
    """A file of `conf/data/` that describes the tiny files."""
    content = {
        "name": name,
        "title": {"fashion_mnist": "Fashion-MNIST"}.get(name, name.upper()),
        "class_names": list("0123456789"),
        "train_images": 60,
        "test_images": 10,
        "hashes": hashes,
        **more,
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(json.dumps(content))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine whose Fashion-MNIST is tiny, with no source but the empty cache: its folder.

    Its MNIST is known by hashes of packed files, as `PACKED` are, and its KMNIST by none.
    """
    conf, nowhere = tmp_path / "conf", ["http://127.0.0.1:9/a/"]
    contents = {name: f"sha256:{hashlib.sha256(c).hexdigest()}" for name, c in TINY.items()}
    packed = {name: f"md5:{hashlib.md5(c).hexdigest()}" for name, c in PACKED.items()}
    package = "dataset-fashion-mnist"
    describe(conf, "fashion_mnist", contents, mirrors=nowhere, debian_package=package)
    describe(conf, "mnist", packed, mirrors=nowhere)
    describe(conf, "kmnist", {}, mirrors=nowhere)
    monkeypatch.setattr(catalogue, "FOLDER", conf)
    monkeypatch.setattr(source, "DEBIAN_FOLDERS", tmp_path / "debian")
    monkeypatch.setenv("FMNIST_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FMNIST_MIRRORS", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    forget()
    catalogue.known_contents()  # reads them all: a test may go on as another user
    yield tmp_path / "cache"
    forget()


def forget() -> None:
    catalogue.read.cache_clear()
    catalogue.known_contents.cache_clear()


def load(root: str | Path | None = None, name: str = "fashion_mnist") -> source.Arrays:
    return source.load(Data(name, root=None if root is None else str(root)))


def locate(root: str | Path | None = None, name: str = "fashion_mnist") -> Path:
    return source.locate(Data(name, root=None if root is None else str(root)))


class Mirror(ThreadingHTTPServer):
    """Serves `files` as name.gz in the manner of `send`; `requests` are the names asked for.

    Args:
        files: by name, those that end in .gz as they are.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {
            name if name.endswith(".gz") else f"{name}.gz": content
            if name.endswith(".gz")
            else gzip.compress(content, FAST_GZIP)
            for name, content in files.items()
        }
        self.requests: list[str] = []
        self.send: Callable[[Handler, bytes], None] = Handler.reply
        self.url = f"http://127.0.0.1:{self.server_port}/some/folder"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.removeprefix("/some/folder/").removeprefix("mnist/")
        self.server.requests.append(name)
        self.server.send(self, self.server.files[name])

    def reply(self, body: bytes, status: int = 200, length: object = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def speak(self, raw: bytes) -> None:
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bytes]], Mirror]]:
    """Starts a mirror of the given files and adds it to FMNIST_MIRRORS."""
    servers: list[Mirror] = []

    def start(files: dict[str, bytes]) -> Mirror:
        servers.append(Mirror(files))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("FMNIST_MIRRORS", " ".join(server.url for server in servers))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# The real data


@pytest.fixture(scope="module")
def real() -> source.Arrays:
    return load()


def test_real_data_has_the_published_facts(real: source.Arrays) -> None:
    assert real.train_images.shape == (60_000, 28, 28)
    assert real.test_images.shape == (10_000, 28, 28)
    assert {array.dtype for array in real} == {np.dtype("uint8")}
    assert np.bincount(real.train_labels).tolist() == [6000] * 10
    assert np.bincount(real.test_labels).tolist() == [1000] * 10
    order = np.random.RandomState(42).permutation(60_000)[10_000:]
    assert real.train_labels[order[:3]].tolist() == [5, 0, 0]
    assert real.train_labels[order[-3:]].tolist() == [6, 6, 1]
    assert real.test_labels[0] == 9
    # the mean and deviation everybody normalises with
    assert real.train_images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert real.train_images.std() / 255 == pytest.approx(0.3530, abs=5e-5)
    assert all(array.flags.writeable for array in real)


def test_real_data_equals_what_torchvision_reads(real: source.Arrays, tmp_path: Path) -> None:
    from torchvision.datasets import FashionMNIST

    dataset.work(dataset.Options(copy_to=f"{tmp_path}/FashionMNIST/raw"))
    train, test = FashionMNIST(tmp_path, train=True), FashionMNIST(tmp_path, train=False)
    assert train.classes == FASHION.class_names
    theirs = train.data, train.targets, test.data, test.targets
    for ours, reference in zip(real, theirs, strict=True):
        np.testing.assert_array_equal(ours, reference.numpy())
    assert locate(tmp_path) == tmp_path


def test_real_data_from_a_mirror_in_a_real_process(
    real: source.Arrays,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[dict[str, bytes]], Mirror],
) -> None:
    headers = [(2051, 60_000, 28, 28), (2049, 60_000), (2051, 10_000, 28, 28), (2049, 10_000)]
    contents = {
        name: np.array(header, dtype=">i4").tobytes() + array.tobytes()
        for name, header, array in zip(NAMES, headers, real, strict=True)
    }
    serve(contents)
    monkeypatch.setenv("FMNIST_DATA_DIR", str(tmp_path / "cache"))
    done = run()
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "cache") in done.stdout
    assert all(
        f"{digest.removeprefix('sha256:')}  {name}" in done.stdout
        for name, digest in FASHION.hashes.items()
    )
    assert snapshot(tmp_path / "cache") == contents | {".lock": b""}


# Where it is found


@pytest.mark.parametrize("gz", [False, True], ids=["idx", "idx.gz"])
@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw"], ids=["flat", "torchvision"])
def test_every_layout_of_a_root_is_read(cache: Path, tmp_path: Path, layout: str, gz: bool) -> None:
    root = tmp_path / "a root=with ünicode"
    put(root / layout, TINY, gz)
    assert is_tiny(load(root))
    assert locate(str(root)) == root
    assert not cache.exists()


def test_root_then_package_then_cache(cache: Path, tmp_path: Path) -> None:
    places = [tmp_path / "root", tmp_path / "debian/fashion-mnist", cache]
    for place in places:
        put(place, TINY)
    for place in places:
        assert locate(tmp_path / "root") == place
        shutil.rmtree(place)


def test_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FMNIST_DATA_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert source.cache_folder(Data()) == tmp_path / ".cache/fmnist_pl"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert source.cache_folder(Data()) == Path("/xdg/fmnist_pl")
    monkeypatch.setenv("FMNIST_DATA_DIR", "~/mine")
    assert source.cache_folder(Data()) == tmp_path / "mine"


# Wrong files

ALTERED = bytearray(TINY[TRAIN_IMAGES])
ALTERED[1000] ^= 1
GZ = gzip.compress(TINY[TRAIN_IMAGES])
WRONG_FILES = {  # file name, content, what the message says of it
    "truncated": (TRAIN_IMAGES, TINY[TRAIN_IMAGES][:5000], "5000 bytes"),
    "truncated gzip": (f"{TRAIN_IMAGES}.gz", GZ[:5000], "bytes that begin"),
    "damaged gzip": (f"{TRAIN_IMAGES}.gz", GZ[:500] + bytes(500) + GZ[1000:], ""),
    "no gzip after its magic": (f"{TRAIN_IMAGES}.gz", b"\x1f\x8bxyz", "damaged gzip"),
    "empty": (TRAIN_IMAGES, b"", "0 bytes"),
    "altered by a bit": (TRAIN_IMAGES, bytes(ALTERED), "SHA-256"),
    "longer": (TRAIN_IMAGES, TINY[TRAIN_IMAGES] + b"\0", "47057 bytes"),
    "a web page": (TRAIN_IMAGES, b"<!doctype html><title>Log in", "<!doctype ht"),
    "test for train": (TRAIN_IMAGES, TINY[NAMES[2]], f"but {NAMES[2]}"),
}
wrong_files = pytest.mark.parametrize(
    ("file_name", "content", "said"), WRONG_FILES.values(), ids=WRONG_FILES
)


@wrong_files
@pytest.mark.parametrize("place", ["root", "debian/fashion-mnist"])
def test_wrong_file_of_others_is_skipped_and_not_touched(
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    place: str,
    file_name: str,
    content: bytes,
    said: str,
) -> None:
    put(cache, TINY)
    folder = put(tmp_path / place, {name: TINY[name] for name in NAMES[1:]})
    (folder / file_name).write_bytes(content)
    before = snapshot(folder)
    assert is_tiny(load(tmp_path / "root"))
    assert locate(tmp_path / "root") == cache
    assert snapshot(folder) == before
    assert f"skipped: {folder / file_name}: " in caplog.text
    assert said in caplog.text


@wrong_files
def test_wrong_file_in_the_cache_is_put_aside_and_fetched_again(
    cache: Path,
    serve: Callable[[dict[str, bytes]], Mirror],
    caplog: pytest.LogCaptureFixture,
    file_name: str,
    content: bytes,
    said: str,
) -> None:
    put(cache, {name: TINY[name] for name in NAMES[1:]})
    (cache / file_name).write_bytes(content)
    mirror = serve(TINY)
    assert is_tiny(load())
    assert mirror.requests == [f"{TRAIN_IMAGES}.gz"]
    assert snapshot(cache) == TINY | {f"{file_name}.bad": content, ".lock": b""}
    assert said in caplog.text
    assert f"put aside as {file_name}.bad" in caplog.text


def test_valid_gz_beside_a_truncated_file_serves(cache: Path, tmp_path: Path) -> None:
    root = put(put(tmp_path / "root", TINY), TINY, gz=True)
    (root / TRAIN_IMAGES).write_bytes(TINY[TRAIN_IMAGES][:-1])
    assert locate(root) == root
    assert is_tiny(load(root))


def test_swapped_train_and_test_is_refused(cache: Path, tmp_path: Path) -> None:
    swapped = [TINY[name] for name in (NAMES[2], NAMES[3], NAMES[0], NAMES[1])]
    root = put(tmp_path / "root", dict(zip(NAMES, swapped, strict=True)))
    with pytest.raises(UserError, match=f"does not hold {NAMES[3]} but {NAMES[1]}"):
        load(root)


def test_decompression_bomb_is_not_inflated(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_BYTES", 100_000)
    root = put(tmp_path / "root", TINY | {TRAIN_IMAGES: bytes(10_000_000)}, gz=True)
    with pytest.raises(UserError, match="but 100000 bytes"):
        load(root)


# Fetching

FAULTS: dict[str, tuple[Callable[[Handler, bytes], None], str]] = {
    "404": (lambda handler, body: handler.reply(b"", status=404), "404"),
    "web page": (lambda handler, body: handler.reply(b"<html>Log in"), "b'<html>Log in'"),
    "cut off": (lambda handler, body: handler.reply(body[:20], length=len(body)), "bytes"),
    "silent": (lambda handler, body: time.sleep(4), "timed out"),
    "hangs up": (lambda handler, body: None, "without response"),
    "other file": (lambda handler, body: handler.reply(GZ), f"but {TRAIN_IMAGES}"),
    "no HTTP": (lambda handler, body: handler.speak(b"SSH-2.0\r\n\r\n"), "SSH-2.0"),
    "odd length": (lambda handler, body: handler.reply(body, length="many"), "many"),
}


@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS)
def test_next_mirror_serves_where_one_fails(
    cache: Path,
    serve: Callable[[dict[str, bytes]], Mirror],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Handler, bytes], None],
    said: str,
) -> None:
    monkeypatch.setattr(source, "TIMEOUT", 3)
    first, second = serve(TINY), serve(TINY)
    labels = f"{NAMES[3]}.gz"  # the last file: the first mirror serves the other three
    first.send = lambda h, body: (fault if h.path.endswith(labels) else Handler.reply)(h, body)
    assert is_tiny(load())
    assert len(first.requests) == 4
    assert second.requests == [labels]
    assert snapshot(cache) == TINY | {".lock": b""}
    assert f"{first.url}/{labels}: " in caplog.text
    assert said in caplog.text


APT_GET = """#!/bin/sh
[ "$*" = "download dataset-fashion-mnist" ] || exit 1
echo content > dataset-fashion-mnist_0_all.deb
"""
DPKG_DEB = """#!/bin/sh
[ "$*" = "-x dataset-fashion-mnist_0_all.deb ." ] || exit 1
/bin/mkdir -p ./{target} && /bin/cp {source}/* ./{target}
"""


def put_commands(folder: Path, **scripts: str) -> None:
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name.replace("_", "-")).write_text(script)
        (folder / name.replace("_", "-")).chmod(0o755)


def test_apt_serves_where_no_mirror_does(cache: Path, tmp_path: Path) -> None:
    package = put(tmp_path / "source", TINY, gz=True)
    dpkg_deb = DPKG_DEB.format(target=source.DEBIAN_FOLDERS / "fashion-mnist", source=package)
    put_commands(tmp_path / "bin", apt_get=APT_GET, dpkg_deb=dpkg_deb)
    assert is_tiny(load())
    assert snapshot(cache) == TINY | {".lock": b""}


def test_wrong_file_in_the_package_is_refused(cache: Path, tmp_path: Path) -> None:
    package = put(tmp_path / "source", TINY | {NAMES[1]: b"?"}, gz=True)
    dpkg_deb = DPKG_DEB.format(target=source.DEBIAN_FOLDERS / "fashion-mnist", source=package)
    put_commands(tmp_path / "bin", apt_get=APT_GET, dpkg_deb=dpkg_deb)
    with pytest.raises(UserError, match=f"apt-get download.*does not hold {NAMES[1]}"):
        load()
    assert not (cache / NAMES[1]).exists()


@pytest.mark.skipif("FMNIST_TEST_APT" not in os.environ, reason="FMNIST_TEST_APT=1 runs it")
def test_apt_fetches_the_real_package(tmp_path: Path) -> None:
    unpacked = source._unpack_debian_package(str(FASHION.debian_package), tmp_path)
    contents, problems = source._read(FASHION, unpacked)
    assert not problems
    assert list(contents) == NAMES


def test_nothing_works_and_the_message_lists_all_of_it(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complaint = "#!/bin/sh\necho W: chatter >&2; echo E: Unable to locate package >&2; exit 100\n"
    put_commands(tmp_path / "bin", apt_get=complaint)
    refused, unknown = "http://127.0.0.1:9/a/", "nonsense://b"
    monkeypatch.setenv("FMNIST_MIRRORS", f"{refused} {unknown}")
    root = put(tmp_path / "root", {NAMES[0]: TINY[NAMES[0]]})
    with pytest.raises(UserError) as raised:
        load(root)
    tried, _, remedies = str(raised.value).partition("Any one of these helps:")
    assert [line.split(": ")[0].strip() for line in tried.splitlines()[1:]] == [
        "data.root",
        "Debian package",
        "cache",
        f"{refused}{TRAIN_IMAGES}.gz",
        f"{unknown}/{TRAIN_IMAGES}.gz",
        "apt-get download dataset-fashion-mnist",
    ]
    assert f"{root} lacks {', '.join(NAMES[1:])}\n" in tried
    assert "Connection refused" in tried
    assert "apt-get download dataset-fashion-mnist: E: Unable to locate package\n" in tried
    for remedy in ["apt install dataset-fashion-mnist", "FMNIST_DATA_DIR=", "data.root=", *NAMES]:
        assert remedy in remedies


def test_machine_without_apt_says_so(cache: Path) -> None:
    with pytest.raises(UserError, match="apt-get: not found"):
        load()


# Other data sets


def is_digits(data: source.Arrays) -> bool:
    pairs = zip(data, DIGITS.values(), [16, 8, 16, 8], strict=True)
    return all(array.tobytes() == content[header:] for array, content, header in pairs)


def test_packed_files_are_fetched_by_their_own_hashes_and_kept_packed(
    cache: Path, serve: Callable[[dict[str, bytes]], Mirror], caplog: pytest.LogCaptureFixture
) -> None:
    wrong, right = serve(DIGITS), serve(PACKED)  # the same content, packed otherwise
    assert is_digits(load(name="mnist"))
    assert wrong.requests == [f"{TRAIN_IMAGES}.gz"]
    assert right.requests == list(PACKED)
    assert snapshot(cache) == {f"mnist/{name}": content for name, content in PACKED.items()} | {
        "mnist/.lock": b""
    }
    assert f"does not hold {TRAIN_IMAGES} but 47056 bytes" in caplog.text
    right.requests.clear()
    assert is_digits(load(name="mnist"))
    assert not right.requests


def test_a_mirror_that_unpacks_is_not_believed(
    cache: Path, serve: Callable[[dict[str, bytes]], Mirror]
) -> None:
    serve({f"{name}.gz": content for name, content in DIGITS.items()})
    with pytest.raises(UserError, match=f"does not hold {TRAIN_IMAGES} but"):
        load(name="mnist")


def test_caches_of_several_data_sets_are_apart(
    cache: Path, serve: Callable[[dict[str, bytes]], Mirror]
) -> None:
    put(cache, TINY)
    serve(PACKED)
    assert is_digits(load(name="mnist"))
    assert is_tiny(load())
    assert locate(name="mnist") == cache / "mnist"
    with pytest.raises(UserError, match=f"(?s)No valid copy of KMNIST.*{cache / 'kmnist'}"):
        load(name="kmnist")


@pytest.mark.parametrize("layout", ["", "MNIST/raw"], ids=["flat", "torchvision"])
def test_unpacked_files_of_known_packed_ones_are_held_against_their_form(
    cache: Path, tmp_path: Path, layout: str
) -> None:
    root = put(tmp_path / "root" / layout, DIGITS)
    assert is_digits(load(tmp_path / "root", "mnist"))
    put(root, TINY)  # Fashion-MNIST under the same names
    with pytest.raises(UserError, match=f"{TRAIN_IMAGES} but {TRAIN_IMAGES} of Fashion-MNIST"):
        load(tmp_path / "root", "mnist")
    for name, content in PACKED.items():
        (root / name).write_bytes(content)
    assert is_digits(load(tmp_path / "root", "mnist"))  # those whose hash is known come first


def with_label(label: int) -> bytes:
    return TINY[NAMES[1]][:-1] + bytes([label])


MALFORMED = {  # of a data set without hashes: name, content, what the message says
    "no idx": (NAMES[0], b"<html>", "no idx file: 6 bytes that begin with b'<html>'"),
    "empty": (NAMES[0], b"", "no idx file: 0 bytes"),
    "floats": (NAMES[0], bytes([0, 0, 13]) + TINY[NAMES[0]][3:], "no idx file"),
    "truncated": (NAMES[0], TINY[NAMES[0]][:-1], "no idx file: 47055 bytes"),
    "huge": (NAMES[0], bytes([0, 0, 8, 3]) + b"\xff" * 12, "no idx file: 16 bytes"),
    "rank 255": (NAMES[0], bytes([0, 0, 8, 255]) + bytes(8), "no idx file"),
    "32x32": (
        NAMES[0],
        idx((60, 32, 32)),
        r".* shape \(60, 32, 32\), not \(N, 28, 28\)",
    ),
    "colour": (NAMES[0], idx((60, 28, 28, 3)), "an idx file of shape"),
    "no image": (NAMES[0], idx((0, 28, 28)), "an idx file of shape"),
    "labels for images": (NAMES[0], TINY[NAMES[1]], r"an idx file of shape \(60,\)"),
    "images for labels": (
        NAMES[1],
        TINY[NAMES[0]],
        r"an idx file of shape \(60, 28, 28\), not \(N,\)",
    ),
    "fewer": (NAMES[0], idx((59, 28, 28)), "59 images, not 60"),
    "another class": (NAMES[1], with_label(10), "a label 10; the 10 classes have 0 to 9"),
}


@pytest.mark.parametrize(("name", "content", "said"), MALFORMED.values(), ids=MALFORMED)
def test_files_without_a_hash_are_held_against_their_form(
    cache: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    root = put(tmp_path / "root", TINY)
    assert is_tiny(load(root, "kmnist"))
    (root / name).write_bytes(content)
    with pytest.raises(UserError, match=f"does not hold {name} but {said}"):
        load(root, "kmnist")


OWN = Data("mine", class_names=list("abcdefghij"))


def test_files_of_ones_own_are_measured(cache: Path, tmp_path: Path) -> None:
    root = str(put(tmp_path / "root", TINY))
    measured = source.measured(replace(OWN, root=root))
    assert (measured.train_images, measured.test_images) == (60, 10)
    assert measured.hashes == {
        name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in TINY.items()
    }
    assert is_tiny(source.load(measured))
    put(Path(root), {NAMES[1]: with_label(0)})
    with pytest.raises(UserError, match=f"does not hold {NAMES[1]} but 68 bytes"):
        source.load(measured)


def test_a_known_one_may_leave_to_the_files_what_they_say(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "mine.yaml").write_text("{name: mine, class_names: [a, b, c, d, e]}")
    forget()
    labels = bytes(i % 5 for i in range(10))
    root = str(put(tmp_path / "root", TINY))
    five = {name: TINY[name][:8] + labels * (len(TINY[name]) // 10) for name in NAMES[1::2]}
    put(Path(root), five)
    measured = source.measured(replace(catalogue.named("mine"), root=root))
    assert (measured.train_images, measured.test_images) == (60, 10)
    assert source.measured(measured) == measured
    shutil.rmtree(root)
    assert catalogue.recalled(asdict(measured)) == measured  # of which no file is read again
    with pytest.raises(UserError, match=r"data.class_names=.*: mine is a data set that is known"):
        source.measured(replace(measured, class_names=list("abcdf")))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({NAMES[1]: idx((59,))}, f"60 images in {NAMES[0]}, 59 labels in {NAMES[1]}"),
        ({NAMES[3]: idx((9,)), NAMES[2]: idx((9, 28, 28))}, "no image of j for the test"),
    ],
)
def test_files_that_are_no_data_set_together(
    cache: Path, tmp_path: Path, changed: dict[str, bytes], said: str
) -> None:
    root = str(put(tmp_path / "root", TINY | changed))
    with pytest.raises(UserError, match=said):
        source.load(replace(OWN, root=root))


def test_files_of_ones_own_are_fetched_where_their_description_says(
    cache: Path, serve: Callable[[dict[str, bytes]], Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = serve(TINY)
    monkeypatch.delenv("FMNIST_MIRRORS")
    with pytest.raises(UserError, match="No valid copy of mine"):
        source.load(OWN)
    assert not mirror.requests
    assert is_tiny(source.load(replace(OWN, mirrors=[mirror.url])))
    assert snapshot(cache) == {f"mine/{name}": c for name, c in TINY.items()} | {"mine/.lock": b""}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Data("../mine"), "data.name=../mine: must be letters, digits"),
        (Data("mine"), r"data.class_names=\[...\] must be given: the names of the classes of mine"),
        (replace(OWN, name="mnist"), "data.class_names=.*: mnist is a data set that is known"),
        (replace(OWN, hashes={NAMES[0]: "sha256"}), f"data.hashes: {NAMES[0]}: sha256: must be"),
        (replace(OWN, hashes={"a": "md5:0"}), "data.hashes: a: md5:0: must be"),
        (Data("mine", format="folders"), "data.root=FOLDER must be given"),
    ],
)
def test_descriptions_that_are_none(cache: Path, data: Data, said: str) -> None:
    with pytest.raises(UserError, match=said):
        source.measured(data)


def test_what_others_say_of_a_data_set_is_believed_in_part(cache: Path) -> None:
    evil = {"mirrors": ["http://evil/"], "debian_package": "evil", "class_names": ["a", "b"]}
    known = catalogue.recalled({"name": "mnist", "val_size": 7, "split_seed": 8, **evil})
    assert known == replace(catalogue.named("mnist"), val_size=7, split_seed=8)
    unknown = catalogue.recalled({"name": "mine", "val_size": 7, **evil})
    assert unknown == Data("mine", class_names=["a", "b"], val_size=7)
    for said in (None, {}, {"val_size": 10_000, "split_seed": 42}):  # version 0.1.0
        assert catalogue.recalled(said) == catalogue.named("fashion_mnist")
    assert catalogue.known("../conf/mnist") is None


# Several processes, and processes that die


@pytest.mark.parametrize("before", [{}, {TRAIN_IMAGES: b"half"}], ids=["empty", "wrong file"])
def test_four_first_runs_at_once(
    cache: Path, serve: Callable[[dict[str, bytes]], Mirror], before: dict[str, bytes]
) -> None:
    put(cache, before)
    mirror = serve(TINY)

    def slowly(handler: Handler, body: bytes) -> None:
        time.sleep(0.2)
        handler.reply(body)

    mirror.send = slowly
    runs = [subprocess.Popen(command(), stdout=subprocess.PIPE) for _ in range(4)]
    outputs = [run.communicate()[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    assert all(str(cache) in output for output in outputs)
    assert sorted(mirror.requests) == sorted(f"{name}.gz" for name in NAMES)  # each once
    aside = {f"{name}.bad": content for name, content in before.items()}
    assert snapshot(cache) == TINY | aside | {".lock": b""}


def test_killed_while_fetching_leaves_nothing_trusted(
    cache: Path, serve: Callable[[dict[str, bytes]], Mirror]
) -> None:
    mirror = serve(TINY)
    half_sent = threading.Event()

    def stall(handler: Handler, body: bytes) -> None:
        handler.reply(body[: len(body) // 2], length=len(body))
        half_sent.set()
        time.sleep(5)

    mirror.send = stall
    run = subprocess.Popen(command())
    half_sent.wait()
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert snapshot(cache) == {".lock": b""}
    mirror.send = Handler.reply
    assert is_tiny(load())


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("ulimit -f 16", "File too large"),
        ("mount -t tmpfs -o size=16k none $FMNIST_DATA_DIR", "No space left on device"),
    ],
    ids=["file size limit", "small tmpfs"],
)
def test_full_disk_is_said_and_leaves_nothing(
    cache: Path,
    serve: Callable[[dict[str, bytes]], Mirror],
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    said: str,
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    cache.mkdir()
    own_mounts = ["unshare", "--map-root-user", "--mount"] if "mount" in limit else []
    if own_mounts and subprocess.run([*own_mounts, "sh", "-c", limit]).returncode != 0:
        pytest.skip("this machine lets us mount no tmpfs")
    mirror = serve(TINY)
    script = f'{limit}; "$@"; code=$?; ls -A $FMNIST_DATA_DIR; exit $code'
    done = subprocess.run(
        [*own_mounts, "sh", "-c", script, "sh", *command()], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "cache: cannot be written: " in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == [".lock"]
    assert len(mirror.requests) == 1  # no use in asking for more


# Permissions


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user other than root, as whom the test then runs."""
    folder = Path(tempfile.mkdtemp())
    privileged = os.geteuid() == 0
    if privileged:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    if privileged:
        os.seteuid(0)
    subprocess.run(["/bin/chmod", "-R", "u+rwX", folder], check=True)
    shutil.rmtree(folder)


def test_read_only_folders_serve(
    cache: Path, unprivileged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(unprivileged / "data", TINY, gz=True)
    folder.chmod(0o555)
    assert is_tiny(load(folder))
    monkeypatch.setenv("FMNIST_DATA_DIR", str(folder))
    assert is_tiny(load())
    assert locate() == folder


def test_forbidden_file_and_read_only_cache_are_named(
    cache: Path, unprivileged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(unprivileged / "data", TINY | {NAMES[1]: b"wrong"})
    (folder / NAMES[0]).chmod(0)
    folder.chmod(0o555)
    monkeypatch.setenv("FMNIST_DATA_DIR", str(folder))
    with pytest.raises(UserError) as raised:
        load()
    message = str(raised.value)
    assert f"cache: [Errno 13] Permission denied: '{folder / NAMES[0]}'" in message
    assert f"cache: {folder / NAMES[1]}: does not hold" in message
    assert f"cache: cannot be written: [Errno 13] Permission denied: '{folder}/.lock'" in message


def test_forbidden_root_is_named(cache: Path, unprivileged: Path) -> None:
    folder = put(unprivileged / "data", TINY)
    folder.chmod(0)
    with pytest.raises(UserError, match=f"data.root: .* Permission denied: '{folder}'"):
        load(folder)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("missing", "No such file"),
        ("a file", "Not a directory"),
        ("~nobody-has-this-name", "No such file"),
        ("nul\0byte", "null"),
        ("long" * 100, "too long"),
    ],
    ids=["missing", "file", "unknown user", "nul", "too long"],
)
def test_root_that_is_no_folder_is_said(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, root: str, said: str
) -> None:
    put(cache, TINY)
    (tmp_path / "a file").write_bytes(b"")
    assert locate(root if root.startswith("~") else tmp_path / root) == cache
    assert "data.root is no use, looking elsewhere: " in caplog.text
    assert said in caplog.text


# The command


def test_command_copies_for_offline_machines(cache: Path, tmp_path: Path) -> None:
    root, shared = put(tmp_path / "root", TINY, gz=True), tmp_path / "shared" / "new"
    done = run(f"data.root={root}", f"copy_to={shared}")
    assert done.returncode == 0
    assert str(shared) in done.stdout
    assert snapshot(shared) == TINY
    assert not cache.exists()


@pytest.mark.parametrize("arguments", [[], ["copy_to={cache}/" + TRAIN_IMAGES]])
def test_command_fails_in_one_message(cache: Path, arguments: list[str]) -> None:
    if arguments:
        put(cache, TINY)
    done = run(*(argument.format(cache=cache) for argument in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert str(cache) in done.stderr
    assert "Traceback" not in done.stderr


def test_command_helps_without_torch() -> None:
    script = (
        "import sys; from fmnist_pl import dataset\n"
        "dataset.main()\n"
        "print(sorted({'torch', 'lightning', 'torchvision'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for said in ["root=", "copy_to=", "FMNIST_DATA_DIR", "FMNIST_MIRRORS"]:
        assert said in done.stdout
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("seconds", [0.0, 1.5], ids=["fast", "slow"])
def test_progress_bar_where_fetching_takes_time(
    cache: Path, serve: Callable[[dict[str, bytes]], Mirror], seconds: float
) -> None:
    def trickle(handler: Handler, body: bytes) -> None:
        handler.reply(body[: len(body) // 2], length=len(body))
        time.sleep(seconds if TRAIN_IMAGES in handler.path else 0)
        handler.wfile.write(body[len(body) // 2 :])

    serve(TINY).send = trickle
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    subprocess.run(command(), stderr=stderr, stdout=subprocess.DEVNULL, check=True)
    os.close(stderr)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert (f"{TRAIN_IMAGES}.gz: 100%" in shown) == (seconds > 1)
