"""What is recorded of the machine."""

import subprocess
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
