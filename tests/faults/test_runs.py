"""A run that is interrupted, killed, short of room or of data: what it says, and how it goes on.

Elsewhere: SIGKILL in every epoch, a folder with another run (`test_run.py`); limits of an epoch in
batches (`test_datamodule.py`); killed while a file is written (`test_checkpoints.py`).
"""

import errno
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.commands import Command
from tests.faults.conftest import MLP, Disk, without_pictures
from tests.training.test_folder import figures, metrics, points, weights

Train = Callable[..., Command]
LONGER = "trainer.limit_train_batches=300"  # an epoch of nearly half a second


def wait_for(path: Path, command: Command) -> None:
    while not path.exists():
        assert command.running, command.err
        time.sleep(0.005)


def test_interrupted_thrice_it_ends_the_same(train: Train, tmp_path: Path) -> None:
    longer = (LONGER, "trainer.max_epochs=5")
    train(*longer, folder="undisturbed").succeeds()
    folder = tmp_path / "run"
    for signals in ([signal.SIGINT], [signal.SIGINT] * 2, [signal.SIGTERM]):
        (folder / "metrics.csv").unlink(missing_ok=True)  # it comes again after an epoch
        command = train(*longer)
        wait_for(folder / "metrics.csv", command)
        for number in signals:
            command.send(number)
        assert command.wait() == 130
        remedy = f"the same command goes on with hydra.run.dir={folder}"
        assert command.err == f"\ninterrupted: {remedy}\n"
    train(*longer).succeeds()
    assert figures(folder) == figures(tmp_path / "undisturbed")
    assert metrics(folder) == metrics(tmp_path / "undisturbed")


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_the_same(train: Train, tmp_path: Path) -> None:
    # One more thing drawn at random; what loggers are given at steps.
    options = ("model.dropout=0.2", "logger=csv", "trainer.log_every_n_steps=7")
    table = Path("loggers", "csv", "metrics.csv")
    undisturbed = tmp_path / "undisturbed"
    for folder in ("undisturbed", "timed"):  # the second finds the server of processes started
        began = time.monotonic()
        train(*options, folder=folder).succeeds()
    duration = time.monotonic() - began
    kills, runs = 0, 0
    moments = random.Random(7)
    while kills < 20:
        runs += 1
        folder = f"run{runs}"
        while kills < 20:
            command = train(*options, folder=folder)
            time.sleep(moments.uniform(0, duration))
            if not command.running:
                break
            command.send(signal.SIGKILL)
            if command.wait() == 0:
                break  # it had just ended
            assert command.wait() == -signal.SIGKILL
            kills += 1
        train(*options, folder=folder).succeeds()
        assert figures(tmp_path / folder) == figures(undisturbed)
        assert metrics(tmp_path / folder) == metrics(undisturbed)
        assert points(tmp_path / folder) == points(undisturbed)
        assert (tmp_path / folder / table).read_text() == (undisturbed / table).read_text()
        for name, tensor in weights(undisturbed).items():
            assert tensor.equal(weights(tmp_path / folder)[name]), name


def test_a_folder_at_work_is_refused_to_a_second_process(train: Train, tmp_path: Path) -> None:
    first = train(LONGER)
    wait_for(tmp_path / "run" / "config.yaml", first)
    first.send(signal.SIGSTOP)
    train(LONGER).fails_with(f"{tmp_path}/run: another process is at work on this run.")
    first.send(signal.SIGCONT)
    first.succeeds()


def test_runs_of_the_same_second_get_a_folder_each(tmp_path: Path) -> None:
    commands = [
        Command("train", *MLP, f"optimizer.lr={lr}", cwd=tmp_path, prepare=without_pictures)
        for lr in (0.001, 0.002)
    ]
    for command in commands:
        command.succeeds()
    assert len(list((tmp_path / "runs").glob("*-mlp-0/result.json"))) == 2


@pytest.mark.parametrize(
    ("size", "rows"),
    [("16k", 0), ("300k", 0), ("2000k", 1)],
    ids=["logging", "first checkpoint", "second checkpoint"],
)
def test_a_full_disk_is_told_and_with_more_room_the_run_goes_on(
    size: str, rows: int, train: Train, disk: Disk, undisturbed: Path
) -> None:
    disk.mount(f"size={size}")
    folder = disk.folder / "run"
    full = train(folder=str(folder))
    remedy = f"The same command goes on with hydra.run.dir={folder}"
    full.fails_with(f"No space left on device. {remedy}")
    assert full.err.count("\n") == 1
    assert not (folder / "result.json").exists()
    assert (folder / "metrics.csv").exists() == (folder / "checkpoints" / "last.ckpt").exists()
    assert len(metrics(folder)) == rows if rows else not (folder / "metrics.csv").exists()
    disk.enlarge()
    train(folder=str(folder)).succeeds()
    assert figures(folder) == figures(undisturbed)


def without_compiler() -> None:
    os.environ.update(CXX="/nonexistent", PATH="/nonexistent", TORCHINDUCTOR_CACHE_DIR="cache")


def test_compiling_without_a_compiler_is_refused(train: Train) -> None:
    refused = train("compile=true", prepare=without_compiler)
    refused.fails_with("compile=true: PyTorch cannot compile here: ", "g++")


def without_links() -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    os.link = refuse


def test_a_disk_without_links_will_do(train: Train, tmp_path: Path, undisturbed: Path) -> None:
    train(prepare=without_links).succeeds()
    folder = tmp_path / "run"
    assert figures(folder) == figures(undisturbed)
    for name in ("last.ckpt", "best.ckpt"):
        assert (folder / "checkpoints" / name).stat().st_nlink == 1


def piped(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Into a reader that goes after a line."""
    command = shlex.join([sys.executable, "-m", "fmnist_pl.train", *words])
    return subprocess.run(
        ["bash", "-c", f"{command} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_a_reader_that_goes_interrupts_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = piped(tmp_path, *MLP, "trainer.max_epochs=50", f"hydra.run.dir={folder}")
    assert done.returncode == 130
    assert done.stdout.startswith("mlp-0 trains on")
    remedy = f"the same command goes on with hydra.run.dir={folder}"
    assert done.stderr == f"\ninterrupted: {remedy}\n"


def test_a_reader_that_goes_leaves_a_sweep_alone(tmp_path: Path) -> None:
    done = piped(tmp_path, "-m", *MLP, "seed=0,1", "hydra.sweep.dir=sweep")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.glob("sweep/*/result.json"))) == 2
    assert (tmp_path / "sweep" / "report.html").exists()


def test_a_run_that_diverges_says_so_and_leaves_no_result(train: Train, tmp_path: Path) -> None:
    train("optimizer.lr=1e30").fails_with(
        "train/loss is nan after epoch 1: training diverged.", "optimizer.lr", "overwrite=true"
    )
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "run" / "result.json").exists()


def hang() -> None:
    from fmnist_pl.training import checkpoints

    checkpoints.Record.write_table = lambda _: time.sleep(3600)


def test_a_run_that_hangs_is_stopped_at_its_time_limit(
    train: Train, tmp_path: Path, undisturbed: Path
) -> None:
    hung = train("time_limit=0.02", prepare=hang)
    hung.fails_with("time_limit=0.02: not done after as many minutes. The same command goes on")
    train().succeeds()  # without a limit, which is no other configuration
    assert figures(tmp_path / "run") == figures(undisturbed)


SMALL: dict[str, tuple[list[str], dict[str, Any]]] = {
    "one validation image": (["data.val_size=1"], {"images": 1920}),
    "one training image": (["data.val_size=59999", "model=cnn_bn"], {"images": 1}),
    "a last batch of one": (["data.val_size=59967", "model=cnn_bn"], {"images": 33}),
    "a share of the batches": (["trainer.limit_train_batches=0.001"], {"images": 32}),
    "a short batch alone": (["data.val_size=59999", "data.batch_size=64"], {"images": 1}),
    "fast_dev_run": (["trainer.fast_dev_run=true"], {"images": 32}),
    "fast_dev_run=3": (["trainer.fast_dev_run=3"], {"images": 96}),
}


@pytest.mark.parametrize("kind", SMALL)
def test_little_is_enough(kind: str, train: Train, tmp_path: Path) -> None:
    overrides, expected = SMALL[kind]
    epochs = 1 if "fast" in kind else 2
    train("trainer.max_epochs=2", *overrides).succeeds()
    rows, result = metrics(tmp_path / "run"), figures(tmp_path / "run")
    assert [int(row["images"]) for row in rows] == [expected["images"]] * epochs
    assert np.isfinite([float(row["val/loss"]) for row in rows]).all()
    assert np.isfinite(result["test/loss"])
    images = {"fast_dev_run": 250, "fast_dev_run=3": 750}.get(kind, 500)
    assert np.sum(result["test/confusion_matrix"]) == images


def test_double_precision_ends_in_a_result(train: Train, tmp_path: Path) -> None:
    train("trainer.precision=64-true", "trainer.fast_dev_run=true", "model=cnn_bn").succeeds()
    folder = tmp_path / "run"
    with np.load(folder / "predictions.npz") as arrays:
        right = arrays["logits"][:250].argmax(1) == arrays["labels"][:250]
    assert right.mean() == pytest.approx(figures(folder)["test/acc"], abs=0.01)
