"""Whatever one types or feeds: it works, or is refused in a short message.

Configurations go the way of the command within this process: composed by Hydra, checked, run for a
batch of everything, on fewer test images and without the pictures, whose time it would be.
"""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from fmnist_pl.config import resolve
from fmnist_pl.data import source
from fmnist_pl.data.augment import Op
from fmnist_pl.data.photos import Photo, read
from fmnist_pl.drawing import gallery
from fmnist_pl.options.command import CONF_DIR, parse
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.refusals import refusal
from fmnist_pl.options.schema import Config, Data
from fmnist_pl.training.folder import run
from tests.conftest import with_fewer_test_images

SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # what fails is short already; making it shorter takes minutes
)


def keys(schema: type[Any], prefix: str = "") -> Iterator[str]:
    for item in fields(schema):
        if isinstance(item.type, type) and is_dataclass(item.type):
            yield from keys(item.type, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


# What starts other processes or asks for other machines is tested with those.
KEYS = sorted({*keys(Config)} - {"trainer.devices", "trainer.num_nodes", "trainer.strategy"})
# Below a list Hydra takes no names: it ends in a traceback of its own.
PLAIN = [key for key in KEYS if key not in ("model.channels", "model.hidden", "augment.ops")]

odd_numbers = st.sampled_from(
    ["0", "-1", "1.5", "1e-9", "1e9", "1e300", "nan", "inf", "-inf", str(2**32), str(2**63)]
)
words = st.sampled_from(["null", "true", "false", "auto", "best", "none", "[]", "{}", "???", "''"])
small = st.one_of(st.integers(1, 9).map(str), st.floats(0, 1).map(str))
lists = st.lists(small | odd_numbers, max_size=5).map(lambda items: f"[{','.join(items)}]")
quoted = st.text(max_size=8).map(lambda text: "'" + text.replace("'", "\\'") + "'")
references = st.sampled_from(["${seed}", "${model.hidden}", "${nothing}", "${now:%Y}", "${"])
values = st.one_of(small, odd_numbers, words, lists, quoted, references, st.text(max_size=5))

ops = st.fixed_dictionaries(
    {},
    optional={
        key: small | odd_numbers | words
        for schema in Op.known.values()
        for key in (item.name for item in fields(schema))
    },
)
op_lists = st.lists(
    st.tuples(
        st.sampled_from([*Op.known, "blur"]), ops.map(lambda chosen: dict([*chosen.items()][:2]))
    ),
    max_size=3,
).map(
    lambda chosen: (
        "augment.ops=["
        + ",".join(
            "{" + name + ":{" + ",".join(f"{k}:{v}" for k, v in given.items()) + "}}"
            for name, given in chosen
        )
        + "]"
    )
)
groups = st.sampled_from(["model=cnn", "model=cnn_bn", "augment=all", "experiment=three_class"])
overrides = st.one_of(
    groups,
    op_lists,
    st.builds("{}={}".format, st.sampled_from(KEYS), small | odd_numbers | words | lists),
    st.builds("{}={}".format, st.sampled_from(KEYS), values),
    st.builds("{}{}={}".format, st.sampled_from(["+", "++", "~"]), st.sampled_from(KEYS), values),
    st.builds("{}.{}={}".format, st.sampled_from(PLAIN), st.text("abc", min_size=1), small),
    st.text(max_size=12),
)


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs that leave no trace in the process of the tests, on fewer test images, undrawn."""
    few = with_fewer_test_images(source.find(Data())[1], 300)
    monkeypatch.setattr(source, "find", lambda data: (Path(), few))
    monkeypatch.setattr(gallery, "draw", lambda *_: {})
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def works_or_is_refused(given: list[str]) -> None:
    quick = ["model=mlp", "model.hidden=[4]", "embeddings=none"]
    quick += ["trainer.enable_progress_bar=false", *given, "trainer.fast_dev_run=true"]
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        try:
            config = resolve(compose("train", quick))
        except (UserError, CompactHydraException):  # which Hydra prints without a traceback
            return
        except ValueError as error:  # Hydra's own, of a choice that is no text
            if refusal(error) is None:
                raise
            return
    with TemporaryDirectory() as folder:
        config.embeddings = "none"  # takes ten seconds
        config.data.root = None
        try:
            assert run(config, Path(folder))["epochs"] == 1
        except UserError:
            assert not Path(folder, "result.json").exists()


@pytest.mark.filterwarnings("ignore")
@given(st.lists(overrides, min_size=1, max_size=3))
@settings(SETTINGS, max_examples=30)
def test_any_override_works_or_is_refused(given: list[str]) -> None:
    works_or_is_refused(given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(st.lists(overrides, min_size=1, max_size=3))
@settings(SETTINGS, max_examples=150)
def test_any_of_many_overrides_works_or_is_refused(given: list[str]) -> None:
    works_or_is_refused(given)


def more(start: str) -> st.SearchStrategy[str]:
    return st.text().map(start.__add__)


COMMANDS = ("dataset", "evaluate", "export", "predict", "projector")
SCHEMAS = [import_module(f"fmnist_pl.{name}").Options for name in COMMANDS]


@given(
    st.sampled_from(SCHEMAS),
    st.lists(
        st.text() | st.builds("{}={}".format, st.sampled_from(["split", "images"]), st.text())
    ),
    st.booleans(),
)
@settings(SETTINGS, max_examples=300)
def test_any_argument_is_taken_or_refused(
    schema: type[Any], arguments: list[str], complete: bool
) -> None:
    if complete:
        required = [key for key in ("checkpoint", "images") if hasattr(schema(), key)]
        arguments = [*(f"{key}=x" for key in required), *arguments]
    with suppress(UserError):
        assert isinstance(parse(schema, arguments), schema)


ENDINGS = ("png", "gif", "jpg", "tif", "bmp", "webp", "pgm", "jp2")


@given(st.sampled_from(ENDINGS), st.lists(st.tuples(st.integers(0), st.binary(max_size=4))))
@settings(SETTINGS, max_examples=200)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_are_an_image_or_none(ending: str, changes: list[tuple[int, bytes]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"image.{ending}")
        Image.linear_gradient("L").resize((30, 20)).save(path)
        content = bytearray(path.read_bytes())
        for place, new in changes:
            place %= len(content)
            content[place : place + len(new)] = new
        path.write_bytes(content)
        outcome = read(path, "auto", "fashion_mnist")
    if isinstance(outcome, Photo):
        assert outcome.image.shape == (28, 28)
    else:
        assert outcome.endswith(".")
        assert len(outcome) < 300
