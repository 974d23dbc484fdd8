"""Whole runs on the real data, in small: the folder, the result, resuming after SIGKILL."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist_pl.files import LAST
from fmnist_pl.options.messages import InUseError, PausedError, UserError
from fmnist_pl.training import checkpoints
from fmnist_pl.training.checkpoints import Record
from fmnist_pl.training.environment import describe_environment
from fmnist_pl.training.folder import run

TINY = (
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=60",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=2",
    "embeddings=none",
    "pictures=false",
)
TIMES = {"seconds", "images_per_second"}


def figures(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name not in TIMES}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


class StoppedError(Exception):
    """As if a run had been killed there."""


def last(folder: Path) -> Any:
    """What its last checkpoint holds."""
    return torch.load(folder / LAST, weights_only=True)


def computed(state: Any) -> Any:
    """What can be compared by `==`, to the last bit; not what was measured, nor what on."""
    if isinstance(state, dict):
        measured = {"seconds", "parts", "sizes"}
        return {name: computed(one) for name, one in state.items() if name not in measured}
    if isinstance(state, list | tuple):
        return [computed(one) for one in state]
    return state.tolist() if isinstance(state, torch.Tensor) else state


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of every curve: step and value."""
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, configured: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs") / "cnn_bn_dropout_l1-5"
    run(configured(*TINY, "model=cnn_bn_dropout_l1", "seed=5"), folder)
    return folder


def test_the_folder_holds_the_run(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "result.json", "metrics.csv", "predictions.npz"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }


def test_curves_have_the_figures_of_every_epoch_once(finished: Path) -> None:
    rows, result, shown = metrics(finished), figures(finished), points(finished)
    for name in (name for name in rows[0] if "/" in name):
        expected = [(i, pytest.approx(float(row[name]))) for i, row in enumerate(rows, 1)]
        assert shown.pop(name) == expected
    tested = {
        name for name, value in result.items() if name[:5] == "test/" and type(value) is float
    }
    assert shown == {name: [(3, pytest.approx(result[name]))] for name in tested}


def test_figures_are_consistent(finished: Path) -> None:
    result, rows = figures(finished), metrics(finished)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert {int(row["images"]) for row in rows} == {60 * 32}
    confusion = torch.tensor(result["test/confusion_matrix"])
    assert confusion.sum() == 500
    assert result["test/acc"] == confusion.trace().item() / 500
    for i, accuracy in enumerate(result["test/acc_per_class"].values()):
        assert accuracy == (confusion[i, i] / confusion[i].sum().double()).item()
    for split in ("train", "val", "test"):
        parts = result[f"{split}/cross_entropy"] + result[f"{split}/penalty"]
        assert result[f"{split}/loss"] == pytest.approx(parts, abs=1e-12)
        assert result[f"{split}/penalty"] > 0
    best = max(range(3), key=lambda i: float(rows[i]["val/acc"]))
    assert result["best_epoch"] == best + 1
    assert result["best_val_acc"] == float(rows[best]["val/acc"])
    assert result["val/acc"] == float(rows[-1]["val/acc"])
    assert result["parameters"] == 222_214
    assert result["augment"] == "standard"


def test_a_finished_run_answers_at_once(finished: Path, configured: Any) -> None:
    before = (finished / "result.json").stat().st_mtime_ns
    result = run(configured(*TINY, "model=cnn_bn_dropout_l1", "seed=5"), finished)
    assert result == json.loads((finished / "result.json").read_text())
    assert (finished / "result.json").stat().st_mtime_ns == before


def test_a_different_configuration_is_refused(finished: Path, configured: Any) -> None:
    with pytest.raises(UserError, match=r"different configuration \(model.dropout, seed\)"):
        run(configured(*TINY, "model=cnn_bn_dropout_l1", "model.dropout=0.3"), finished)


def test_the_best_checkpoint_can_be_tested(tmp_path: Path, configured: Any) -> None:
    tiny = [*TINY, "model=mlp", "optimizer.lr=5"]
    last = run(configured(*tiny), tmp_path / "last")
    best = run(configured(*tiny, "test.checkpoint=best"), tmp_path / "best")
    assert metrics(tmp_path / "last") == metrics(tmp_path / "best")
    assert best["val/acc"] == best["best_val_acc"] == last["best_val_acc"]
    assert best["best_epoch"] < 3  # with this learning rate the last epoch is not the best
    assert best["test/acc"] != last["test/acc"]


def test_overwrite_starts_anew(tmp_path: Path, configured: Any) -> None:
    tiny = [*TINY, "model=mlp", "trainer.max_epochs=1"]
    first = run(configured(*tiny), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    events = set(tmp_path.glob("events.out.tfevents.*"))
    second = run(configured(*tiny, "seed=1", "overwrite=true"), tmp_path)
    assert (first["seed"], second["seed"]) == (0, 1)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not events & set(tmp_path.glob("events.out.tfevents.*"))


def test_a_folder_in_use_is_refused(tmp_path: Path, configured: Any) -> None:
    from fmnist_pl.training.folder import locked

    with locked(tmp_path), pytest.raises(UserError, match="another process is at work"):
        run(configured(*TINY), tmp_path)


def start(folder: Path, *overrides: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fmnist_pl.train", *TINY, *overrides]
    return subprocess.Popen(
        [*command, f"hydra.run.dir={folder}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder.parent,
    )


@pytest.mark.parametrize("model", ["cnn_bn_dropout_l2"])
def test_sigkill_in_every_epoch_changes_nothing(
    tmp_path: Path, configured: Any, model: str
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run(configured(*TINY, f"model={model}"), undisturbed)
    for epoch in (0, 1, 2):
        process = start(killed, f"model={model}")
        waited = wait_for_epoch(killed, epoch, process)
        time.sleep(0.1 if waited else 0)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (killed / "result.json").exists()
    assert start(killed, f"model={model}").wait() == 0

    assert figures(killed) == figures(undisturbed)
    assert metrics(killed) == metrics(undisturbed)
    assert points(killed) == points(undisturbed)
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(tensor, weights(killed)[name]), name


def test_a_run_in_parts_says_what_trained_each(
    tmp_path: Path,
    configured: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = Record.on_train_epoch_start

    def stop(self: Record, *arguments: Any) -> None:
        if len(self.rows) == 2:
            raise StoppedError
        original(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Record, "on_train_epoch_start", stop)
        for _ in range(2):  # the second adds nothing
            with pytest.raises(StoppedError):
                run(configured(*TINY, "model=mlp"), tmp_path)
    assert "was trained with" not in capsys.readouterr().out

    def described(*arguments: Any) -> dict[str, Any]:
        environment = describe_environment(*arguments)
        return {**environment, "versions": {**environment["versions"], "torch": "1.0"}}

    monkeypatch.setattr(checkpoints, "describe_environment", described)
    result = run(configured(*TINY, "model=mlp"), tmp_path)
    first, second = result["parts"]
    assert (first["epoch"], second["epoch"]) == (1, 3)
    assert first["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert second["versions"] == result["versions"] != first["versions"]
    told = "mlp-0 was trained with other torch before epoch 3: its bits are not those of"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("stopped_in", ["epoch 1", "epoch 2", "test"])
def test_what_is_done_again_is_drawn_once(
    stopped_in: str, tmp_path: Path, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when its points are written, and its checkpoint or result is not."""
    words = ["model=mlp", "logger=csv", "callbacks=[lr_monitor]", "trainer.log_every_n_steps=20"]
    config = configured(*TINY, *words)
    original = Record.write_table

    def stop(self: Record) -> None:
        if stopped_in == f"epoch {len(self.rows)}":
            raise StoppedError
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Record, "write_table", stop)
        if stopped_in == "test":
            run(config, tmp_path / "stopped")
            (tmp_path / "stopped" / "result.json").unlink()
        else:
            with pytest.raises(StoppedError):
                run(config, tmp_path / "stopped")
    run(config, tmp_path / "stopped")
    run(config, tmp_path / "undisturbed")

    shown = points(tmp_path / "undisturbed")
    assert points(tmp_path / "stopped") == shown
    for name in ("train/loss_step", "lr-Adam"):
        assert [step for step, _ in shown[name]] == [20 * i - 1 for i in range(1, 10)]
    table = Path("loggers", "csv", "metrics.csv")
    stopped, undisturbed = (tmp_path / name / table for name in ("stopped", "undisturbed"))
    assert stopped.read_text() == undisturbed.read_text()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_disk_without_locks_is_refused(
    number: int, tmp_path: Path, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=rf"a disk without locks \({os.strerror(number)}\)"):
        run(configured(*TINY), tmp_path)


def test_the_lock_of_a_killed_process_is_free_and_its_file_is_in_nobodys_way(
    tmp_path: Path,
) -> None:
    from fmnist_pl.training.folder import locked

    hold = (
        "import sys, time; from pathlib import Path; from fmnist_pl.training.folder import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", hold, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InUseError), locked(tmp_path):
            pass
        process.kill()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def wait_for_epoch(folder: Path, epoch: int, process: subprocess.Popen[bytes]) -> bool:
    """Until `epoch` (from 0) is under way: its predecessors are in `metrics.csv`."""
    done = folder / "metrics.csv" if epoch else folder / "config.yaml"
    while not done.exists() or (epoch and len(metrics(folder)) < epoch):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    return epoch == 0


def test_a_run_says_where_it_goes_on_and_when_there_is_nothing_to_do(
    tmp_path: Path, configured: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    short = (*TINY, "model=mlp", "trainer.limit_train_batches=2")
    with pytest.raises(PausedError):
        run(configured(*short, "pause_after=1"), tmp_path)
    capsys.readouterr()
    run(configured(*short), tmp_path)
    said = capsys.readouterr().out
    assert "mlp-0 goes on after epoch 1\n" in said
    assert "epoch 1/3" not in said
    assert said.count("epoch 2/3") == said.count("epoch 3/3") == 1
    assert "mlp-0 is trained: " in said
    run(configured(*short), tmp_path)
    assert capsys.readouterr().out == "mlp-0 is finished: nothing is trained\n"
    with pytest.raises(UserError, match=f"To add epochs to it, give continue_from={tmp_path}"):
        run(configured(*short, "trainer.max_epochs=4"), tmp_path)
    with pytest.raises(UserError) as refused:
        run(configured(*short, "seed=1"), tmp_path)
    assert "continue_from" not in str(refused.value)


def test_a_run_that_is_stopped_early_says_so(
    tmp_path: Path, configured: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("callbacks=[early_stopping]", "callbacks.early_stopping.patience=1")
    words += ("callbacks.early_stopping.min_delta=9", "trainer.limit_train_batches=2")
    run(configured(*TINY, "model=mlp", *words), tmp_path)
    assert "mlp-0 is stopped after 2 of 3 epochs: " in capsys.readouterr().out


def test_a_refused_run_leaves_no_folder(tmp_path: Path, configured: Any) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=r"16-mixed: cpu cannot"):
        run(configured(*TINY, "model=mlp", "trainer.precision=16-mixed"), folder)
    assert not folder.exists()
    folder.mkdir()
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"16-mixed: cpu cannot"):
        run(configured(*TINY, "model=mlp", "trainer.precision=16-mixed"), folder)
    assert (folder / "notes.txt").exists()


def test_the_root_and_the_home_are_no_folders_of_a_run(
    tmp_path: Path, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (Path("/"), tmp_path):
        with pytest.raises(UserError, match="name a folder in it"):
            run(configured(*TINY, "model=mlp"), folder)
    assert not list(tmp_path.iterdir())
