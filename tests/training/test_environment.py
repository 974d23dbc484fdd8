"""What is recorded of the machine."""

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fmnist_pl.training.environment import describe_environment, git_commit, version_of


def test_the_commit_is_gits_and_none_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=there, capture_output=True, text=True)
    assert git_commit() == head.stdout.strip()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert git_commit() is None
    assert describe_environment(torch.device("cpu"), 1)["git_commit"] is None


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
    assert int(done.stdout) < pages / 100
