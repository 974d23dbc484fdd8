"""The reference of all options is that of the code; help answers at once."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fmnist_pl.data.augment import Op
from fmnist_pl.options.__main__ import reference
from fmnist_pl.options.command import CONF_DIR, hydra_help

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
REMEDY = "docs/options.md is stale. Type: python -m fmnist_pl.options > docs/options.md"


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), REMEDY


def names(options: Any, prefix: str = "") -> list[str]:
    """The dotted names of the leaves of nested dicts; an empty dict and hashes are leaves."""
    if not isinstance(options, dict) or not options or prefix == "data.hashes.":
        return [prefix.rstrip(".")]
    return [name for key, value in options.items() for name in names(value, f"{prefix}{key}.")]


def test_every_option_and_choice_has_a_row() -> None:
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        expected = ["optimizer", *names(OmegaConf.to_container(compose("train", ["~optimizer"])))]
    expected += [f"{name}.{key}" for name, op in Op.known.items() for key in vars(op())]
    for path in Path(CONF_DIR).glob("*/**/*.yaml"):
        expected.append(f"{path.parent.relative_to(CONF_DIR)}={path.stem}")
    rows = re.findall(r"^\| `([^`]+)` \|", reference(), re.MULTILINE)
    assert sorted({*expected} - {*rows}) == []
    assert len(rows) == len({*rows})


def test_a_row_says_what_the_schema_says() -> None:
    for row in (
        "| `model.dropout` | float | `0.0` | at least 0 and less than 1 "
        "| Dropout after each hidden dense layer. | yes |",
        "| `model.hidden` | list[int] | `[128]` | at least 1 and at most 65536 "
        "| Units of each hidden dense layer. | yes |",
        "| `overwrite` | bool | `false` |  | Start anew in a folder that has a run. | no |",
        "| `threads` | int or null | `1` | at least 1 and at most 1024 "
        "| CPU threads; more only help where nothing else runs. null: all cores. | yes |",
        "| `cutout.max_value` | float | `0.02` | at least 0 and at most 1 "
        "| Paint uniform in [0, max_value]. | yes |",
    ):
        assert row in reference().splitlines()


@pytest.mark.parametrize("command", ["train", "explore"])
def test_help_answers_at_once(command: str) -> None:
    words = [sys.executable, "-X", "importtime", "-m", f"fmnist_pl.{command}", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    for said in (
        f"python -m fmnist_pl.{command} ",
        "model: cnn, cnn_bn,",
        "experiment: ",
        "seed=...",
        "(default 0; at least 0 and less than",
        "python -m fmnist_pl.options",
    ):
        assert " ".join(said.split()) in " ".join(done.stdout.split())
    assert re.search(r"\| +fmnist_pl\.options\.command$", done.stderr, re.MULTILINE)
    assert not re.search(r"\| +(torch|lightning|scipy|matplotlib)$", done.stderr, re.MULTILINE)


def test_help_lists_what_a_folder_of_ones_own_adds(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("name: mine\n")
    for words in ([f"--config-dir={tmp_path}"], ["-cd", str(tmp_path)]):
        said = hydra_help("train", ["train", *words, "--help"])
        assert re.search(r"^model: cnn, .*, mine, mlp, ", said, re.MULTILINE)
    assert "mine" not in hydra_help("train", ["train", "--help"])
