"""Every command that reads the data set says where it looked and what helps.

Elsewhere: every fault of files, folders, mirrors and disks on the way there (`test_dataset.py`).
"""

import os
from pathlib import Path

import pytest

from tests.faults.commands import Command
from tests.faults.conftest import MLP


def without_data() -> None:
    from fmnist_pl.data import source

    source.DEBIAN_FOLDERS = Path("/nonexistent/datasets")
    os.environ |= {"FMNIST_DATA_DIR": "cache", "FMNIST_MIRRORS": "", "PATH": "/nonexistent"}


@pytest.mark.parametrize("name", ["train", "explore", "evaluate", "predict", "projector", "export"])
def test_without_data_the_remedies_are_told(name: str, undisturbed: Path, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={undisturbed}/checkpoints/last.ckpt"
    arguments = {
        "train": [*MLP, "hydra.run.dir=made"],
        "explore": ["hydra.run.dir=made"],
        "evaluate": [checkpoint, "folder=made"],
        "predict": [checkpoint, "images=test:0", "picture=made"],
        "projector": [checkpoint, "folder=made"],
        "export": [checkpoint, "output=made"],
    }
    command = Command(name, *arguments[name], cwd=tmp_path, prepare=without_data)
    command.fails_with(
        "No valid copy of Fashion-MNIST. Tried:",
        "Debian package: ",
        "cache: ",
        "Any one of these helps:",
        "apt install dataset-fashion-mnist",
        "data.root=FOLDER",
    )
    assert command.out == ""
    left = {path.name for path in (tmp_path / "made").glob("*")}
    assert left <= {"config.yaml", ".lock"}  # of a run that is not finished
