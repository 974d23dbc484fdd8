"""Sweeps and runs on a real SLURM; figures are held against undisturbed runs on this machine."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import Daemons, output, wait_for
from tests.training.test_folder import TINY, figures, metrics, weights

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]

TEMPLATE = Path(__file__).parents[2] / "docs" / "run.sbatch"
NET = "model=cnn_bn_dropout_l1"
LONG = ("trainer.max_epochs=6", "trainer.limit_train_batches=40")  # time to be disturbed


def sweep(folder: Path, *overrides: str, launcher: str = "slurm") -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "fmnist_pl.train", "-m", f"hydra/launcher={launcher}"]
    command += ["hydra.launcher.mem_gb=2"] if launcher == "slurm" else []
    command += [f"hydra.sweep.dir={folder}", *TINY, *overrides]
    return subprocess.Popen(command, cwd=folder.parent, stdout=subprocess.DEVNULL)


def sbatch(folder: Path, *overrides: str, options: tuple[str, ...] = ()) -> str:
    """Submit a run with the template; the number of the job."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["sbatch", "--parsable", "--mem=2G", *options, str(TEMPLATE), str(folder)]
    return subprocess.run(
        [*command, *TINY, *overrides],
        cwd=folder.parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()


def states() -> list[str]:
    """Of every job that has not ended."""
    return output("squeue", "--noheader", "--format=%T")


def field(job: str, name: str) -> str:
    """Of what SLURM says of a job."""
    [word] = [
        word for word in output("scontrol", "show", "job", job) if word.startswith(f"{name}=")
    ]
    return word.partition("=")[2]


def running_tasks() -> list[str]:
    """Array and number of each running job of an array, as in `7_0`."""
    return sorted(output("squeue", "--noheader", "--states=RUNNING", "--format=%F_%K"))


def processes(folder: Path) -> list[int]:
    """Of the run that holds the folder's lock."""
    return [int(pid) for pid in output("fuser", str(folder / ".lock"))]


def at_work(folder: Path) -> Callable[[], bool]:
    """Whether a run has an epoch behind it, and not all."""
    return lambda: (folder / "metrics.csv").exists() and not (folder / "result.json").exists()


def finished(*folders: Path) -> Callable[[], bool]:
    return lambda: all((folder / "result.json").exists() for folder in folders)


def test_a_sweep_is_an_array_that_ends_in_a_report(tmp_path: Path, configured: Any) -> None:
    from fmnist_pl.training.folder import run

    folder = tmp_path / "sweep"
    share = "hydra.launcher.gres=shard:1"  # of a GPU, which no run looks for here
    submitted = sweep(folder, "model=mlp", "seed=0,1", "optimizer.lr=0.001,1e30", share)
    wait_for(lambda: len(states()) > 1, seconds=180)
    submitted.kill()  # the terminal has gone
    submitted.wait()
    wait_for(lambda: not states(), seconds=300)

    for seed in (0, 1):
        run(configured(*TINY, "model=mlp", f"seed={seed}"), tmp_path / f"alone-{seed}")
        assert figures(folder / f"mlp-{seed}-lr-0.001") == figures(tmp_path / f"alone-{seed}")
    with (folder / "summary.csv").open() as file:
        rows = {row["folder"]: row["state"] for row in csv.DictReader(file)}
    assert sorted(rows.values()) == ["failed", "failed", "finished", "finished"]
    assert "training diverged" in (folder / "report.html").read_text()
    [array] = [path.name for path in (folder / ".submitit").iterdir() if path.name.isdigit()]
    assert field(f"{array}_0", "TresPerNode") == "gres:shard:1"
    done = sorted(field(f"{array}_{task}", "JobState") for task in range(4))
    assert done == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]


def test_a_search_is_that_of_one_machine(tmp_path: Path) -> None:
    words = ("hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "model=mlp")
    words += ("optimizer.lr=tag(log,interval(0.0001,0.1))", "hydra.sweeper.n_trials=2")
    words += ("hydra.sweeper.seeds=1", "hydra.sweeper.confirm=1", "hydra.sweeper.n_jobs=2")
    assert sweep(tmp_path / "slurm", *words).wait() == 0
    assert sweep(tmp_path / "here", *words, launcher="basic").wait() == 0
    slurm, here = (
        json.loads((tmp_path / name / "search.json").read_text()) for name in ("slurm", "here")
    )
    assert slurm["trials"] == here["trials"]
    assert {trial["state"] for trial in slurm["trials"]} == {"complete"}
    assert (tmp_path / "slurm" / "report.html").exists()
    jobs = [path.name for path in (tmp_path / "slurm" / ".submitit").iterdir()]
    assert len([name for name in jobs if name.isdigit()]) == 2  # the trials, then what was chosen


def test_seeds_until_decided_are_those_of_one_machine(tmp_path: Path) -> None:
    words = ("hydra/sweeper=until_decided", "hydra.sweeper.first_look=2", "model=mlp,cnn")
    words += ("hydra.sweeper.max_seeds=3",)
    assert sweep(tmp_path / "slurm", *words).wait() == 0
    assert sweep(tmp_path / "here", *words, launcher="basic").wait() == 0
    slurm, here = (
        {path.parent.name: figures(path.parent) for path in (tmp_path / name).glob("*/result.json")}
        for name in ("slurm", "here")
    )
    assert slurm == here
    assert {"mlp-0", "mlp-1", "cnn-0", "cnn-1"} < slurm.keys()
    told = "Seeds are added where something is open"
    assert told in (tmp_path / "slurm" / "summary.md").read_text()
    jobs = [path.name for path in (tmp_path / "slurm" / ".submitit").iterdir()]
    assert len([name for name in jobs if name.isdigit()]) == 2  # one array a look


def test_whatever_ends_a_job_it_comes_back_and_ends_the_same(
    tmp_path: Path, configured: Any, cluster: Daemons
) -> None:
    from fmnist_pl.training.folder import run

    folder, overrides = tmp_path / "sweep", (*LONG, NET)
    submitted = sweep(folder, *overrides, "seed=0,1,2,3")
    runs = [folder / f"cnn_bn_dropout_l1-{seed}" for seed in range(4)]
    wait_for(lambda: len(running_tasks()) == 4, seconds=180)
    jobs = running_tasks()
    waiting = {0, 1, 2, 3}
    deadline = time.monotonic() + 300
    while waiting:
        assert time.monotonic() < deadline
        running = running_tasks()  # without those that another's disturbance has ended
        for seed in [s for s in waiting if at_work(runs[s])() and jobs[s] in running]:
            disturb(seed, jobs[seed], runs[seed], cluster)
            waiting.remove(seed)
        time.sleep(0.05)
    assert not any((run / "result.json").exists() for run in runs[:3])

    assert submitted.wait(400) == 0
    assert all(int(field(job, "Restarts")) >= 1 for job in jobs)
    for seed, disturbed in enumerate(runs):
        undisturbed = tmp_path / f"alone-{seed}"
        run(configured(*TINY, *overrides, f"seed={seed}"), undisturbed)
        assert figures(disturbed) == figures(undisturbed), seed
        assert metrics(disturbed) == metrics(undisturbed), seed
        for name, tensor in weights(undisturbed).items():
            assert tensor.equal(weights(disturbed)[name]), (seed, name)


def disturb(seed: int, job: str, folder: Path, cluster: Daemons) -> None:
    """The warning before a time limit; an order to requeue; SIGKILL; the end of a node."""
    if seed == 0:
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
    elif seed == 1:
        subprocess.run(["scontrol", "requeue", job], check=True)
    elif seed == 2:
        for pid in processes(folder):
            os.kill(pid, signal.SIGKILL)
    else:
        [node] = output("squeue", "--noheader", f"--jobs={job}", "--format=%N")
        cluster.kill_node(node)
        down = ["scontrol", "update", f"nodename={node}", "state=down", "reason=test"]
        subprocess.run(down, check=True)  # as the controller finds out after SlurmdTimeout
        cluster.start_node(node)


def test_a_job_comes_back_only_so_often(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "seed-0"
    job = sbatch(tmp_path / "runs", *LONG, NET, "max_requeues=1")
    for _ in range(2):
        wait_for(lambda: processes(folder), seconds=180)
        [pid] = processes(folder)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not processes(folder))
    wait_for(lambda: not states(), seconds=180)
    assert field(job, "JobState") == "FAILED"
    said = (tmp_path / f"slurm-{job}.out").read_text()
    assert "SLURM has queued this job again 2 times; max_requeues=1." in said
    assert not (folder / "result.json").exists()


def test_a_cancelled_job_does_not_come_back(tmp_path: Path) -> None:
    job = sbatch(tmp_path / "runs", *LONG, NET)
    wait_for(at_work(tmp_path / "runs" / "seed-0"), seconds=180)
    subprocess.run(["scancel", job], check=True)
    wait_for(lambda: not states(), seconds=180)
    time.sleep(3)
    assert not states()
    assert field(job, "JobState") == "CANCELLED"


def test_several_processes_train_one_run(tmp_path: Path, configured: Any) -> None:
    from fmnist_pl.training.folder import run

    # Of one step: from there Adam makes much of rounding where a gradient is 0.
    short = ("model=cnn_bn", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    one_node, two_nodes = tmp_path / "one_node", tmp_path / "two_nodes"
    submitted = sweep(one_node, *short, "trainer.devices=2")
    job = sbatch(two_nodes, *short, "trainer.num_nodes=2", options=("--nodes=2",))
    assert submitted.wait(300) == 0
    wait_for(lambda: not states(), seconds=200)
    assert field(job, "JobState") == "COMPLETED"

    run(configured(*TINY, *short), tmp_path / "alone")
    alone = figures(tmp_path / "alone")
    for folder in (one_node / "cnn_bn-0", two_nodes / "seed-0"):
        together = figures(folder)
        assert together["hardware"]["devices"] == 2
        [row], [row_alone] = metrics(folder), metrics(tmp_path / "alone")
        assert row["images"] == row_alone["images"] == "32"
        # The same images in the same batch: a sum in another order is all that differs.
        assert together["train/loss"] == pytest.approx(alone["train/loss"], rel=1e-5)
        assert together["val/loss"] == pytest.approx(alone["val/loss"], abs=1e-2)
        assert json.loads((folder / "result.json").read_text())["test/acc_by_weights"].keys() == (
            alone["test/acc_by_weights"].keys()
        )
