"""The pictures of the data set that a run of the same options is fed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image

from fmnist_pl import explore
from fmnist_pl.config import resolve
from fmnist_pl.data.augment import Op
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.schema import Config

NAMES = ["first_image.png", "images.png", "classes.png", "augmentation.png"]


def configured(*overrides: str) -> Config:
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return resolve(compose("explore", list(overrides)))


def rows_of(config: Config) -> list[str]:
    """The names beside the augmentation gallery, without the parameters."""
    *_, (_, _, gallery) = explore.pictures(config)
    return [label.get_text().split("\n")[0] for label in gallery.axes[0].get_yticklabels()]


def test_every_operation_is_shown_alone_and_all_together() -> None:
    assert rows_of(configured()) == ["original", *Op.known, "all together"]
    assert rows_of(configured("augment=none")) == ["original"]
    assert rows_of(configured("augment.ops=[{noise: {std: 0.3}}]")) == ["original", "noise"]


def test_its_groups_are_those_of_a_run() -> None:
    groups = [
        [
            key
            for entry in yaml.safe_load(Path(CONF_DIR, f"{command}.yaml").read_text())["defaults"]
            if isinstance(entry, dict)
            for key in entry
            if "hydra" not in key
        ]
        for command in ("explore", "train")
    ]
    assert groups[0] == groups[1]


def test_the_images_are_the_first_of_the_split_under_their_new_names() -> None:
    names, meanings, (first, sheet, classes, _) = zip(
        *explore.pictures(configured("experiment=three_class")), strict=True
    )
    assert list(names) == NAMES
    assert meanings[0] == "first training image: Bottom"  # labels begin 5, 0, 0
    shown = [axes.images[0].get_array() for axes in sheet.axes]
    assert len(shown) == 25
    np.testing.assert_array_equal(first.axes[0].images[0].get_array(), shown[0])
    assert [axes.get_xlabel() for axes in sheet.axes[:3]] == ["Bottom", "Top", "Top"]
    before, after = classes.axes
    assert sum(bar.get_width() for bar in before.patches) == 50_000
    assert len(after.patches) == 3


def test_an_experiments_choices_come_before_the_default_augmentation() -> None:
    assert configured().augment.name == "all"
    assert configured("experiment=vanilla").augment.name == "none"
    assert configured("experiment=vanilla", "augment=standard").augment.name == "standard"


def test_the_command_writes_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fmnist_pl.explore", "experiment=three_class", "augment=standard"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(NAMES)
    for line, name in zip(done.stdout.splitlines(), NAMES, strict=True):
        path, _, meaning = line.partition("  ")
        assert Path(path).name == name
        assert meaning
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200


def test_a_mistake_is_told_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fmnist_pl.explore", "data.val_size=0"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: data.val_size=0: must be at least 1")
    assert list(tmp_path.iterdir()) == []
