"""The launcher of runs side by side, as one types it."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.sweep.plan import prepare
from fmnist_pl.sweep.together import grouped
from fmnist_pl.sweep.workers import trials_at_once
from fmnist_pl.training.folder import run
from tests.sweep.test_sweep import FAULTY, SMALL, start, state, sweep, wait_for
from tests.sweep.test_workers import machine
from tests.training.test_folder import TINY, figures, metrics

TOGETHER = ("hydra/launcher=together", "hydra.launcher.side_by_side=4")


def prepared(*words: str, seeds: str = "range(5)") -> Any:
    """The launcher of a sweep that has been checked."""
    words = ("hydra.sweep.dir=x", "hydra/launcher=together", *words)
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        config = compose("train", list(words), return_hydra_config=True)
        config.hydra.overrides.task.append(f"seed={seeds}")  # which `compose` refuses
        prepare(config)
    return config.hydra.launcher


def test_a_process_takes_runs_that_differ_by_nothing_but_the_seed() -> None:
    words = [
        ["model=mlp", "seed=0", "seeds.init=0"],
        ["model=cnn", "seed=0", "seeds.init=0"],
        ["model=mlp", "seed=1", "seeds.init=0"],
        ["model=mlp", "seed=2", "seeds.init=0"],
        ["model=mlp", "seed=2", "seeds.init=1"],
    ]
    groups = [[number for number, _ in jobs] for jobs in grouped(list(enumerate(words)), 2)]
    assert groups == [[0, 2], [3], [1], [4]]
    five = [(number, [f"seed={number}"]) for number in range(5)]
    assert [len(jobs) for jobs in grouped(five, 4)] == [3, 2]


@pytest.mark.parametrize(
    ("memory", "seeds", "words", "expected"),
    [
        ((), "range(5)", (), (1, 16)),  # a CPU's cores take a run each
        ((80,), "range(5)", (), (5, 3)),
        ((80,), "3", (), (1, 16)),
        ((80,), "range(30)", (), (16, 1)),
        ((80,) * 4, "range(5)", (), (2, 8)),
        ((80,) * 4, "range(30)", (), (4, 4)),
        ((80,), "range(5)", ("runs_per_device=4",), (4, 1)),
        ((80,), "range(5)", ("trainer.accelerator=cpu",), (1, 16)),
        ((80,), "range(5)", ("hydra.launcher.side_by_side=25",), (25, 1)),
        ((80,), "range(5)", ("hydra.launcher.side_by_side=2",), (2, 8)),
        ((80,), "range(5)", ("hydra.launcher.n_jobs=2",), (5, 2)),
        ((7,), "range(5)", (), (3, 1)),
        ((1,), "range(5)", (), (1, 1)),
        ((80,), "0", ("hydra/sweeper=until_decided", "hydra.sweeper.first_look=4"), (4, 4)),
    ],
)
def test_the_gpus_and_cores_are_shared_out(
    monkeypatch: pytest.MonkeyPatch,
    memory: tuple[int, ...],
    seeds: str,
    words: tuple[str, ...],
    expected: tuple[int, int],
) -> None:
    machine(monkeypatch, 16, len(memory), memory)
    launcher = prepared(*words, seeds=seeds)
    assert (launcher.side_by_side, launcher.n_jobs) == expected


def test_a_search_asks_for_as_many_trials_as_that_takes() -> None:
    launcher = OmegaConf.create({"n_jobs": 3, "side_by_side": 4})
    assert [trials_at_once(launcher, seeds) for seeds in (2, 4, 6)] == [3, 3, 2]


@pytest.mark.parametrize("given", ["0", "few", "True", "-2"])
@pytest.mark.parametrize("name", ["side_by_side", "n_jobs"])
def test_so_many_there_cannot_be(name: str, given: str) -> None:
    refused = f"^hydra.launcher.{name}={given}: must be at least 1, or -1"
    with pytest.raises(UserError, match=refused):
        prepared(f"hydra.launcher.{name}={given}")


@pytest.mark.parametrize(
    ("word", "option"),
    [
        ("time_limit=5", "time_limit"),
        ("trainer.profiler=simple", "trainer.profiler"),
        ("trainer.detect_anomaly=true", "trainer.detect_anomaly"),
        ("logger=wandb", "logger: W&B"),
        ("hydra.job.chdir=true", "hydra.job.chdir"),
        ("+hydra.job.env_set.A=b", "hydra.job.env_set"),
    ],
)
def test_some_take_a_process_of_their_own(word: str, option: str) -> None:
    refused = f"^{option}: only for a run with a process of its own"
    with pytest.raises(UserError, match=refused):
        prepared("hydra.launcher.side_by_side=2", word)
    assert prepared("hydra.launcher.side_by_side=1", word).side_by_side == 1


def test_one_that_fails_or_exits_leaves_the_others_alone(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    words = (*SMALL, "model=mlp", "seed=0,1,2,3", *TOGETHER, "hydra.launcher.n_jobs=1")
    done = sweep(folder, *words, script=FAULTY)
    assert done.returncode == 1
    states = [state(folder / f"mlp-{seed}") for seed in range(4)]
    assert states == ["finished", "failed", "failed", "finished"]
    assert json.loads((folder / "mlp-2" / "status.json").read_text())["error"] == "SystemExit: 3"
    assert sweep(folder, *words).returncode == 0
    assert [state(folder / f"mlp-{seed}") for seed in range(4)] == ["finished"] * 4


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_ends_them_all_and_they_go_on(
    tmp_path: Path, jobs: int, configured: Callable[..., Config]
) -> None:
    folder = tmp_path / "sweep"
    words = (*TINY, "model=mlp", "model.dropout=0.5", "trainer.limit_train_batches=300")
    launcher = ("seed=0,1,2", *TOGETHER, f"hydra.launcher.n_jobs={jobs}")
    process = start(folder, *words, *launcher)
    wait_for((folder / "mlp-2" / "metrics.csv").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    told = [line for line in (tmp_path / "stderr").read_text().splitlines() if line]
    assert told == ["interrupted: the same command goes on with the same folder"]
    assert not list(folder.glob("*/result.json"))  # all had begun, and none was done
    if jobs == 1:  # else joblib may have ended the worker before it could note that
        assert [state(folder / f"mlp-{seed}") for seed in range(3)] == ["interrupted"] * 3
    assert sweep(folder, *words, *launcher).returncode == 0
    for seed in range(3):
        assert state(folder / f"mlp-{seed}") == "finished"
        run(configured(*words, f"seed={seed}"), alone := tmp_path / "alone" / str(seed))
        assert figures(folder / f"mlp-{seed}") == figures(alone)
        assert metrics(folder / f"mlp-{seed}") == metrics(alone)
