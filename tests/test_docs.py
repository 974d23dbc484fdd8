"""The documentation's examples compose, and its links lead somewhere."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

import fmnist_pl
from fmnist_pl.config import resolve
from fmnist_pl.data import augment, idx
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.schema import Config
from tests.data.test_folders import fill

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(
    re.findall(r"`(?:conf|mine)/(\S+\.yaml)`:\n\n```yaml\n(.*?)```", EXTENDING, re.DOTALL)
)
COMMANDS = re.findall(r"^python -m fmnist_pl\.(train|explore) (.*)$", EXTENDING, re.MULTILINE)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    for name, content in EXAMPLES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with idx files of seven classes, and with class folders."""
    folder = fill(tmp_path / "pictures", {"boots": 28, "clogs": 28})
    labels = np.arange(70, dtype=np.uint8) % 7
    for images, names in zip(idx.FILES[::2], idx.FILES[1::2], strict=True):
        (folder / images).write_bytes(idx.encode(np.zeros((70, 28, 28), np.uint8)))
        (folder / names).write_bytes(idx.encode(labels))
    return folder


def composed(examples: Path, command: str, *overrides: str) -> Config:
    search = f"hydra.searchpath=[file://{examples}]"
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return resolve(compose(command, [*overrides, search]))


def test_files_say_what_the_page_says(examples: Path, pictures: Path) -> None:
    wide = composed(examples, "train", "model=wide").model
    assert (wide.name, wide.channels, wide.hidden) == ("wide", [64, 64], [128, 84])
    assert wide.batch_norm
    gentle = composed(examples, "train", "augment=gentle").augment
    assert [list(op) for op in gentle.ops] == [["flip_horizontal"], ["rotate"], ["noise"]]
    assert gentle.ops[0] == {"flip_horizontal": {"p": 0.5}}
    shoes = composed(examples, "train", "experiment=shoes")
    assert (shoes.name, shoes.model.name) == ("shoes", "mlp")
    assert shoes.classes == {"Shoes": [5, 7, 9], "The rest": [0, 1, 2, 3, 4, 6, 8]}
    lenet = composed(examples, "train", "model=lenet").model
    assert lenet.net == {"_target_": "mynets.LeNet", "width": 8}
    letters = composed(examples, "train", "data=letters", f"data.root={pictures}")
    assert (list(letters.classes), letters.data.val_size) == (list("ABCDEFG"), 70 // 6)
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize(("command", "words"), COMMANDS)
def test_commands_compose(examples: Path, pictures: Path, command: str, words: str) -> None:
    words = words.removeprefix("--config-dir=mine ").removesuffix(" --cfg job")
    words = words.replace("FOLDER", str(pictures))
    composed(examples, command, *shlex.split(words))


def test_an_operation_of_ones_own_is_one_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's package and its test, where no checkout is."""
    section = EXTENDING.partition("## A new operation")[2]
    operation, test = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "ops.py").write_text(operation)
    monkeypatch.syspath_prepend(tmp_path)
    place: dict[str, Any] = {}
    exec(test, place)
    place["test_brightness_is_numpys"]()
    [op] = augment.parse_ops([{"mypackage.ops.Brightness": {"change": 0.3}}])
    (factors,) = op.draw(1000, torch.Generator().manual_seed(0))
    assert 0.7 <= factors.min() < 0.71
    assert 1.29 < factors.max() <= 1.3
    assert augment.asdict_op(op) == {"mypackage.ops.Brightness": {"change": 0.3}}
    assert "brightness" not in augment.Op.known


def test_words_of_another_template_are_ours_or_said() -> None:
    page = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    here = [line.split("|")[2] for line in page.splitlines() if line.startswith("| `")]
    words = re.findall(r"`(-m )?([\w./]+=[^`\s]+)`", "".join(here))
    assert len(words) > 20
    for _, word in words:
        if not word.startswith("hydra"):
            with initialize_config_dir(CONF_DIR, version_base="1.3"):
                resolve(compose("train", [word]))


def anchors(page: Path) -> set[str]:
    """The names GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        other = page.parent / path if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[0] == version


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "."]
    done = subprocess.run([*build, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").read_text() == (tmp_path / "README.html").read_text()
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT)).with_suffix(".html").exists()
    for name in fmnist_pl.__all__:
        assert f"fmnist_pl.{name}" in (tmp_path / "docs" / "python.html").read_text()
