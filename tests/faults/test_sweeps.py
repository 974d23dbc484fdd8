"""A sweep with a run that hangs, in a folder with things it did not make.

Elsewhere: runs that raise, exit, diverge, are interrupted or killed, impossible sweeps, and thirty
runs that leak nothing (`test_sweep.py`).
"""

import json
import signal
from pathlib import Path

import pytest

from tests.faults.commands import Command
from tests.faults.test_runs import wait_for
from tests.sweep.test_sweep import SMALL, state, sweep

# The command, with runs of seed 1 that hang.
HANGING = """
import time
from fmnist_pl.train import main
from fmnist_pl.training import folder
original = folder.fit_and_test
def fit_and_test(config, *others):
    if config.seed == 1:
        time.sleep(3600)
    return original(config, *others)
folder.fit_and_test = fit_and_test
main()
"""


@pytest.mark.slow
def test_a_run_that_hangs_does_not_hold_up_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "status.json").write_text("mine")
    (folder / "config.txt").write_text("mine")
    overrides = ("model=mlp", "seed=1,0", "hydra/launcher=basic", "time_limit=0.5")
    done = sweep(folder, *SMALL, *overrides, script=HANGING)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [state(folder / f"mlp-{seed}") for seed in (0, 1)] == ["finished", "failed"]
    error = json.loads((folder / "mlp-1" / "status.json").read_text())["error"]
    told = "time_limit=0.5: not done after as many minutes. The same command goes on."
    assert error == f"UnfinishedError: {told}"
    assert f"mlp-1 failed {error}" in done.stdout
    assert "foreign: notes: holds no run" in done.stdout
    assert (folder / "notes" / "status.json").read_text() == "mine"


@pytest.mark.slow
def test_a_run_that_another_sweep_is_at_work_on_is_left_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    alone = (*SMALL, "model=mlp", f"hydra.run.dir={folder}/mlp-0")
    first = Command("train", *alone, cwd=tmp_path)
    wait_for(folder / "mlp-0" / "config.yaml", first)
    first.send(signal.SIGSTOP)
    done = sweep(folder, *SMALL, "model=mlp", "seed=0,1")
    assert done.returncode == 1
    assert "mlp-0: another process is at work on this run." in done.stderr
    assert "Traceback" not in done.stderr
    assert [state(folder / f"mlp-{seed}") for seed in (0, 1)] == ["running", "finished"]
    first.send(signal.SIGCONT)
    first.succeeds()
    assert sweep(folder, *SMALL, "model=mlp", "seed=0,1").returncode == 0
