"""The documentation's examples compose, and its links lead somewhere."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from fmnist_pl.config import resolve
from fmnist_pl.data import augment
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.schema import Config

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"`conf/(\S+\.yaml)`:\n\n```yaml\n(.*?)```", EXTENDING, re.DOTALL))
COMMANDS = re.findall(r"^python -m fmnist_pl\.(train|explore) (.*)$", EXTENDING, re.MULTILINE)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    for name, content in EXAMPLES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


def composed(examples: Path, command: str, *overrides: str) -> Config:
    search = f"hydra.searchpath=[file://{examples}]"
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return resolve(compose(command, [*overrides, search]))


def test_files_say_what_the_page_says(examples: Path) -> None:
    wide = composed(examples, "train", "model=wide").model
    assert (wide.name, wide.channels, wide.hidden) == ("wide", [64, 64], [128, 84])
    assert wide.batch_norm
    gentle = composed(examples, "train", "augment=gentle").augment
    assert [list(op) for op in gentle.ops] == [["flip_horizontal"], ["rotate"], ["noise"]]
    assert gentle.ops[0] == {"flip_horizontal": {"p": 0.5}}
    shoes = composed(examples, "train", "experiment=shoes")
    assert (shoes.name, shoes.model.name) == ("shoes", "mlp")
    assert shoes.classes == {"Shoes": [5, 7, 9], "The rest": [0, 1, 2, 3, 4, 6, 8]}
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("command", "words"), [c for c in COMMANDS if "brightness" not in c[1]])
def test_commands_compose(examples: Path, command: str, words: str) -> None:
    composed(examples, command, *shlex.split(words.removesuffix(" --cfg job")))


def test_an_operation_of_ones_own_is_one_class() -> None:
    """The page's class and test, run as if they stood where it says."""
    operation, test = re.findall(r"```python\n(.*?)```", EXTENDING, re.DOTALL)
    place: dict[str, Any] = dict(vars(augment))
    try:
        exec(operation, place)
        place |= {"np": np, "torch": torch, "pictures": lambda n: torch.rand(n, 1, 28, 28)}
        exec(test, place)
        place["test_brightness_is_numpys"]()
        [op] = augment.parse_ops([{"brightness": {"change": 0.3}}])
        (factors,) = op.draw(1000, torch.Generator().manual_seed(0))
        assert 0.7 <= factors.min() < 0.71
        assert 1.29 < factors.max() <= 1.3
    finally:
        augment.Op.known.pop("brightness", None)


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
