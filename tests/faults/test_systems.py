"""Systems that lack something, as Windows or a container, by hiding it from Python."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fmnist_pl.config import check_here, resolve
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.train import main
from tests.faults.commands import Command
from tests.faults.conftest import MLP

# What Windows has not: modules, signals, a C library of the process itself, /proc.
HIDDEN = """
import ctypes, pathlib, runpy, signal, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
for name in ("SIGALRM", "SIGUSR2", "setitimer"):
    delattr(signal, name)
load, read = ctypes.CDLL, pathlib.Path.read_text
def loaded(name, *args, **more):
    if name is None:
        raise TypeError("bad argument type for built-in operation")
    return load(name, *args, **more)
def text(path, *args, **more):
    if str(path).startswith("/proc"):
        raise FileNotFoundError(path)
    return read(path, *args, **more)
ctypes.CDLL, pathlib.Path.read_text = loaded, text
sys.argv[0] = "fmnist_pl.train"
runpy.run_module("fmnist_pl.train", run_name="__main__")
"""


def test_a_run_without_what_posix_alone_has(tmp_path: Path) -> None:
    words = [*MLP, "trainer.fast_dev_run=true", "pictures=false", "hydra.run.dir=run"]
    command = [sys.executable, "-W", "ignore", "-c", HIDDEN, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "result.json").exists()


def test_a_time_limit_is_refused_where_nothing_could_keep_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = resolve(Config("mlp", time_limit=1.0))
    check_here(config)
    monkeypatch.delattr(signal, "SIGALRM")
    with pytest.raises(UserError, match=r"^time_limit=1: this system cannot interrupt a run"):
        check_here(config)
    assert resolve(config).time_limit == 1  # it can be read
    config.time_limit = None
    check_here(config)


def test_slurm_is_refused_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.delattr(signal, "SIGUSR2")
    monkeypatch.setattr(sys, "argv", ["train", "-m", "hydra/launcher=slurm"])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: hydra/launcher=slurm: not on this system")


def without_temporary_files() -> None:
    """As a user of a container has it, all of which but one folder can only be read."""
    tempfile.tempdir = None
    tempfile._candidate_tempdir_list = lambda: ["/nonexistent"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("train", [*MLP, "hydra.run.dir=run"]),
        ("train", ["-m", *MLP, "hydra.sweep.dir=run"]),
        ("explore", ["hydra.run.dir=run"]),
        ("export", ["checkpoint=last.ckpt"]),
        ("report", ["."]),
    ],
)
def test_nowhere_to_put_temporary_files(name: str, arguments: list[str], tmp_path: Path) -> None:
    command = Command(name, *arguments, cwd=tmp_path, prepare=without_temporary_files)
    command.fails_with("error: no folder for temporary files can be written: name one, as TMPDIR=")
    assert {path.name for path in tmp_path.iterdir()} == {command.streams.name}
