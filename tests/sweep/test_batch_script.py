"""The lines of a job's batch script, run by the shell that runs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fmnist_pl.sweep.batch_script import setup

LAUNCHER = OmegaConf.create({"name": "x", "partition": None, "account": None, "qos": None})


@pytest.mark.parametrize("name", ["env", "my env", "it's (mine)"])
def test_a_job_is_queued_again_from_any_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / name / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/said"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    [trap] = [line for line in setup(LAUNCHER, tmp_path) if line.startswith("trap")]
    assert subprocess.run(["bash", "-c", f"{trap}\nexit 138"]).returncode == 138
    assert (tmp_path / "said").read_text() == "-m fmnist_pl.slurm 138\n"
