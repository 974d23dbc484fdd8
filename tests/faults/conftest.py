"""What the fault suite shares."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.commands import Command
from tests.training.test_folder import TINY

MLP = (*TINY, "model=mlp")


def without_pictures() -> None:
    from fmnist_pl.drawing import gallery

    gallery.draw = lambda *_: {}


class Disk:
    """A file system in memory; a test without the right to mount one is skipped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", self.folder]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            pytest.skip("this machine lets us mount no tmpfs")

    def enlarge(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=1g", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", "--lazy", "--quiet", disk.folder])


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Command]:
    """Starts a tiny run of the MLP in the folder `run`; without pictures, which take longest."""

    def train(
        *overrides: str, folder: str = "run", prepare: Callable[[], None] = without_pictures
    ) -> Command:
        given = (*MLP, f"hydra.run.dir={folder}", *overrides)
        return Command("train", *given, cwd=tmp_path, prepare=prepare)

    return train


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run, finished; not to be written to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    Command("train", *MLP, "hydra.run.dir=run", cwd=folder, prepare=without_pictures).succeeds()
    return folder / "run"


@pytest.fixture
def unfinished(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of it, to write to, that has not been tested yet."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "result.json").unlink()
    return folder
