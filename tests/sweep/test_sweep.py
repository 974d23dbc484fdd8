"""Sweeps in real processes: names, isolation, the report at every end, and no way to lose one."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from omegaconf import OmegaConf

from fmnist_pl.sweep.compose import run_name
from tests.training.test_folder import TINY, figures, metrics

SMALL = (*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=20")

# What a run that goes on may lose: epochs to come, and what is drawn at random in them.
BETWEEN_EPOCHS = ("trainer.max_epochs=3", "trainer.limit_train_batches=60", "model.dropout=0.5")

# The command, with runs of seed 1 that raise, of seed 2 that exit.
FAULTY = """
import sys
from fmnist_pl.train import main
from fmnist_pl.training import folder
original = folder.fit_and_test
def fit_and_test(config, *others):
    if config.seed == 1:
        raise RuntimeError("seed 1 is no good")
    if config.seed == 2:
        sys.exit(3)
    return original(config, *others)
folder.fit_and_test = fit_and_test
main()
"""


def command(folder: Path, *overrides: str, script: str = "") -> list[str]:
    program = ["-c", script] if script else ["-m", "fmnist_pl.train"]
    return [sys.executable, *program, "-m", f"hydra.sweep.dir={folder}", *overrides]


def sweep(folder: Path, *overrides: str, script: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(folder, *overrides, script=script),
        capture_output=True,
        text=True,
        cwd=folder.parent,
    )


def start(folder: Path, *overrides: str) -> "subprocess.Popen[bytes]":
    """Its errors go to `stderr` beside the folder."""
    with (folder.parent / "stderr").open("w") as errors:
        return subprocess.Popen(
            command(folder, *overrides),
            cwd=folder.parent,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # a process group of its own, as in a terminal
            # A test run in the background ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def state(folder: Path) -> str:
    status: dict[str, str] = json.loads((folder / "status.json").read_text())
    return status["state"]


def wait_for(condition: Any, process: "subprocess.Popen[bytes]") -> None:
    while not condition():
        assert process.poll() is None, "the sweep ended too early"
        time.sleep(0.02)


def kill_at_work(folder: Path, *overrides: str) -> None:
    """Kill a sweep three times, each between two epochs of a run that was not hit before."""
    hit: set[Path] = set()

    def another_is_under_way() -> bool:
        begun = {path.parents[1] for path in folder.glob("**/checkpoints/last.ckpt")} - hit
        under_way = {run for run in begun if not (run / "result.json").exists()}
        hit.update(under_way)
        return bool(under_way)

    for _ in range(3):
        process = start(folder, *overrides)
        wait_for(another_is_under_way, process)
        process.kill()
        process.wait()


def name(*task: str, varying: tuple[str, ...], seed: int = 0) -> str:
    config = OmegaConf.create(
        {"name": "cnn_bn", "seed": seed, "hydra": {"overrides": {"task": list(task)}}}
    )
    return run_name(*varying, _root_=config)


def test_a_folder_is_named_by_what_varies() -> None:
    varying = ("model", "seed", "optimizer.lr")
    task = ["model=cnn_bn", "seed=3", "optimizer.lr=0.01", "trainer.max_epochs=2"]
    assert name(*task, varying=varying, seed=3) == "cnn_bn-3-lr-0.01"
    assert name(*task, varying=("model", "seed"), seed=3) == "cnn_bn-3"


def test_a_folder_has_three_digits_of_a_number_of_many() -> None:
    values = ("0.00014936835544198", "0.00014936835544199")
    names = [name(f"optimizer.lr={value}", varying=("optimizer.lr",)) for value in values]
    assert all(re.fullmatch(r"cnn_bn-0-lr-0\.000149-[0-9a-f]{8}", one) for one in names)
    assert len(set(names)) == 2
    assert name("optimizer.lr=0.001234", varying=("optimizer.lr",)) == "cnn_bn-0-lr-0.001234"


def test_folder_names_are_safe_distinct_and_repeatable() -> None:
    values = ["[32,64]", "[32,6,4]", "a/b", "a-b", "'a, b'", "'ü=ß'", "x" * 300, "x" * 299 + "y"]
    names = [name(f"data.root={value}", varying=("data.root",)) for value in values]
    assert names == [name(f"data.root={value}", varying=("data.root",)) for value in values]
    assert len(set(names)) == len(values)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", one) for one in names)


def test_failing_and_exiting_runs_do_not_touch_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "a sweep"
    one_after_another = "hydra/launcher=basic"
    done = sweep(folder, *SMALL, "model=mlp", "seed=0,1,2,3", one_after_another, script=FAULTY)
    assert done.returncode == 1
    states = [state(folder / f"mlp-{seed}") for seed in range(4)]
    assert states == ["finished", "failed", "failed", "finished"]
    statuses = [json.loads((folder / f"mlp-{i}" / "status.json").read_text()) for i in (1, 2)]
    assert "RuntimeError: seed 1 is no good" in statuses[0]["traceback"]
    assert statuses[1]["error"] == "SystemExit: 3"
    with (folder / "summary.csv").open() as file:
        rows = {row["folder"]: row for row in csv.DictReader(file)}
    assert [rows[f"mlp-{seed}"]["state"] for seed in range(4)] == states
    for said in ("mlp-1", "RuntimeError: seed 1 is no good", "SystemExit: 3"):
        assert said in done.stdout
        assert said in (folder / "report.html").read_text()

    again = sweep(folder, *SMALL, "model=mlp", "seed=0,1,2,3")
    assert again.returncode == 0
    assert [state(folder / f"mlp-{seed}") for seed in range(4)] == ["finished"] * 4


def test_a_run_that_diverges_is_a_failed_one(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = sweep(folder, *SMALL, "model=mlp", "optimizer.lr=0.001,1e30")
    assert done.returncode == 1
    assert state(folder / "mlp-0-lr-0.001") == "finished"
    [diverged] = folder.glob("mlp-0-lr-1e-30-*")
    assert state(diverged) == "failed"
    assert "training diverged" in json.loads((diverged / "status.json").read_text())["error"]
    assert not (diverged / "checkpoints" / "last.ckpt").exists()


def test_fail_fast_stops_at_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    overrides = (*SMALL, "model=mlp", "seed=1,0", "fail_fast=true", "hydra/launcher=basic")
    done = sweep(folder, *overrides, script=FAULTY)
    assert done.returncode == 1
    assert "fail_fast=true" in done.stderr
    assert state(folder / "mlp-1") == "failed"
    assert not (folder / "mlp-0").exists()
    assert (folder / "summary.csv").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=0,0"], "two runs of the sweep are the same"),
        (["seed=0,-1"], "seed=-1: must be at least 0"),
        (["model=mlp,nonsense"], "nonsense"),
    ],
)
def test_an_impossible_sweep_starts_nothing(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    done = sweep(tmp_path / "sweep", *SMALL, *overrides)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "sweep").exists()


def test_other_options_in_the_same_folder_are_refused(tmp_path: Path, configured: Any) -> None:
    folder = tmp_path / "sweep" / "mlp-1"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(configured(*SMALL, "model=mlp")))
    done = sweep(tmp_path / "sweep", *SMALL, "model=mlp", "seed=0,1", "optimizer.lr=0.1")
    assert done.returncode == 1
    assert f"{folder} holds a run of a different configuration (optimizer.lr, seed)" in done.stderr
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["mlp-1"]


@pytest.mark.parametrize("how", ["Ctrl-C twice", "SIGTERM", "SIGTERM to all"])
def test_an_interrupted_sweep_reports_and_goes_on(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "sweep"
    overrides = (*TINY, "model=mlp", "seed=0,1,2", "trainer.limit_train_batches=500")
    process = start(folder, *overrides)
    wait_for((folder / "mlp-0" / "metrics.csv").exists, process)
    number = signal.SIGTERM if how.startswith("SIGTERM") else signal.SIGINT
    if how != "SIGTERM":  # Ctrl-C reaches the whole group
        os.killpg(process.pid, number)
    time.sleep(0.2 if how == "Ctrl-C twice" else 0)
    process.send_signal(number)
    assert process.wait() == 130
    told = [line for line in (tmp_path / "stderr").read_text().splitlines() if line]
    assert told == ["interrupted: the same command goes on with the same folder"]
    assert (folder / "report.html").exists()
    assert not (folder / "mlp-2" / "result.json").exists()
    assert sweep(folder, *overrides).returncode == 0
    assert [state(folder / f"mlp-{seed}") for seed in range(3)] == ["finished"] * 3


@pytest.mark.slow
def test_a_sweep_killed_three_times_ends_the_same(tmp_path: Path, configured: Any) -> None:
    overrides = (
        "model=cnn_bn_dropout,cnn_bn_dropout_l2,cnn_bn_dropout_l1,cnn_bn,cnn,mlp",
        *("seed=1", *TINY, "trainer.limit_train_batches=100"),
    )
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert sweep(undisturbed, *overrides).returncode == 0
    kill_at_work(killed, *overrides)
    assert sweep(killed, *overrides).returncode == 0

    names = sorted(path.name for path in undisturbed.iterdir() if path.is_dir())
    assert len(names) == 6
    for one in names:
        assert figures(killed / one) == figures(undisturbed / one), one
        assert metrics(killed / one) == metrics(undisturbed / one), one

    # A run alone has the same figures.
    from fmnist_pl.training.folder import run

    alone = ("model=cnn_bn_dropout", *overrides[1:])
    run(configured(*alone), tmp_path / "alone")
    assert figures(tmp_path / "alone") == figures(undisturbed / "cnn_bn_dropout-1")


# The command; after each run the process tells its open files and the memory that is in use: what
# Python could collect and malloc could return to the system is no leak.
MEASURED = """
import ctypes, gc, json, os, sys
import fmnist_pl.train
train = sys.modules["fmnist_pl.train"]
original = train.attempt
def attempt(config, folder):
    original(config, folder)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    megabytes = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    usage = {"mb": megabytes, "files": len(os.listdir("/proc/self/fd"))}
    (folder / "usage.json").write_text(json.dumps(usage))
train.attempt = attempt
train.main()
"""


# As if the memory of every worker had grown after its second run.
GROWN = """
from joblib.externals.loky import process_executor
process_executor._MEMORY_LEAK_CHECK_DELAY, process_executor._MAX_MEMORY_LEAK_SIZE = 0, -1e12
"""


def test_a_worker_is_replaced_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(GROWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = sweep(
        tmp_path / "sweep", *SMALL, "model=mlp", "seed=range(6)", "hydra.launcher.n_jobs=2"
    )
    assert done.returncode == 0, done.stderr
    assert "worker" not in done.stderr


@pytest.mark.slow
def test_runs_leak_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    overrides = (*SMALL, "model=mlp", "seed=range(20)", "hydra/launcher=basic")
    assert sweep(folder, *overrides, script=MEASURED).returncode == 0
    usage = [json.loads((folder / f"mlp-{i}" / "usage.json").read_text()) for i in range(20)]
    assert usage[19]["files"] == usage[4]["files"]
    first, last = (median(one["mb"] for one in part) for part in (usage[5:10], usage[15:]))
    assert last < first + 33
