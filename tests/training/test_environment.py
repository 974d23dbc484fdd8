"""What is recorded of the machine."""

import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from fmnist_pl.training.environment import (
    describe_environment,
    git_commit,
    packages,
    version_of,
)


def test_the_commit_is_that_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
        return subprocess.check_output(["git", *identity, *words], cwd=tmp_path, text=True).strip()

    code, installed = tmp_path / "code.py", tmp_path / ".venv" / "code.py"
    installed.parent.mkdir()
    for path in (code, installed):
        path.write_text("one")
    git("init", "--quiet")
    git("add", "code.py")
    git("commit", "--quiet", "--message=first")
    git("tag", "-a", "-m", "x", "v1")
    head = git("rev-parse", "HEAD")
    assert git_commit(code) == head
    assert git_commit(installed) is None  # in a repository that does not have it
    code.write_text("two")
    assert git_commit(code) == f"{head}-dirty"
    monkeypatch.setenv("PATH", "/nonexistent")
    assert git_commit(code) is None
    assert describe_environment(torch.device("cpu"), 1, {})["git_commit"] is None


def test_all_packages_are_recorded() -> None:
    recorded = dict(line.split("==") for line in packages().splitlines())
    assert recorded["torch"] == version("torch")
    assert recorded.keys() >= {"lightning", "pytest", "ruff"}


def test_a_checkout_on_the_path_has_no_version_and_is_no_error() -> None:
    assert version_of("torch") == torch.__version__.partition("+")[0]
    assert version_of("fmnist_pl_of_a_checkout") is None


# What a net does all the time: maps of megabytes, several at once, freed and made again.
FAULTS = """
import resource
import torch
from fmnist_pl.training.environment import keep_memory
keep_memory()
def maps():
    return [torch.ones(800_000) for _ in range(16)]
maps()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    maps()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does")
def test_memory_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], stdout=subprocess.PIPE, check=True)
    pages = 50 * 16 * 4 * 800_000 / resource.getpagesize()
    assert int(done.stdout) < pages / 50
