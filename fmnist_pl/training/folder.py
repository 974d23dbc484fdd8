"""The folder of a run: who may work in it, what is there already, what ends a run early.

A folder with `result.json` is a finished run; with `config.yaml` alone, an unfinished one, which
the same configuration continues from `checkpoints/last.ckpt`.

Several processes may train one run, one for each device. All of them pass through here; the first
owns the folder, and the others only read in it.
"""

import errno
import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from fmnist_pl.config import check_same, resolve
from fmnist_pl.files import (
    CHECKPOINTS,
    CONFIG,
    EVENTS,
    METRICS,
    PREDICTIONS,
    REQUIREMENTS,
    RESULT,
    make_folder,
    write_atomically,
)
from fmnist_pl.options.messages import InUseError, UnfinishedError, UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.training import cluster
from fmnist_pl.training.fit import fit_and_test, prepare
from fmnist_pl.training.parts import check_parts, end_runs
from fmnist_pl.training.start import check_start
from fmnist_pl.training.trained import Result

# Seconds to wait for a folder: what was killed ends a moment later, on another node much later.
PATIENCE = 60 if cluster.is_task() else 3

LOCK = ".lock"
OWN_FILES = (
    CONFIG,
    RESULT,
    PREDICTIONS,
    REQUIREMENTS,
    METRICS,
    CHECKPOINTS,
    "embeddings",
    "figures",
    "projector_config.pbtxt",
    EVENTS,
    "loggers",
    "profile",
    "hparams.yaml",
)


def run(config: Config, folder: Path) -> Result:
    """Train, validate and test one configuration; the content of `result.json`.

    Args:
        config: of the run; checked here.
        folder: created if need be. A finished run of the same configuration there is answered
            from its `result.json`, an unfinished one continues.

    Returns:
        The content of `result.json`; for a process other than the first, nothing.

    Raises:
        UserError: an impossible configuration; a folder with another run or in use; no data; no
            such devices, no room on the disk or in memory; no end within `time_limit`.
    """
    config = resolve(config)
    check_parts(config)
    check_start(config, folder)
    if (times := cluster.requeues()) > config.max_requeues:
        raise UserError(
            f"SLURM has queued this job again {times} times; max_requeues={config.max_requeues}."
        )
    with limited(config.time_limit), told_if_refused(folder):
        if cluster.rank():
            if not (folder / RESULT).exists():
                fit_and_test(config, folder, prepare(config, folder))
            return {}
        with locked(folder):
            if config.overwrite and not cluster.requeues():  # a job that comes back goes on
                clear(folder)
            check_same(config, folder)
            if (folder / RESULT).exists():
                check_finished(folder)
                if config.trainer.enable_progress_bar:
                    print(f"{config.name}-{config.seed} is finished: nothing is trained")
            else:
                trainer = prepare(config, folder)
                write_atomically(folder / CONFIG, OmegaConf.to_yaml(config))
                try:
                    content = json.dumps(fit_and_test(config, folder, trainer), indent=1)
                finally:
                    end_runs(trainer.loggers)
                write_atomically(folder / RESULT, content + "\n")
            result: Result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result


def clear(folder: Path) -> None:
    """Delete what a run leaves in its folder, and nothing else.

    Raises:
        UserError: other processes of the same run may be reading it.
    """
    if cluster.processes() > 1:
        raise UserError(f"overwrite=true is for one process: delete {folder} instead.")
    for pattern in OWN_FILES:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, created, and kept from every other process until the end."""
    make_folder(folder)
    lock = FileLock(folder / LOCK, timeout=PATIENCE, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(f"{folder}: another process is at work on this run.") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise UserError(f"{folder}: nothing can be kept there ({error.strerror}).") from None
        raise UserError(
            f"{folder}: a disk without locks ({error.strerror}), which keep two processes from one "
            "run: choose a folder on another disk."
        ) from None
    try:
        yield
    except UserError:  # which is refused before anything is written
        if [path.name for path in folder.iterdir()] == [LOCK]:
            with suppress(OSError):  # Windows keeps what is open
                (folder / LOCK).unlink()
                folder.rmdir()
        raise
    finally:
        lock.release()


def check_finished(folder: Path) -> None:
    """Refuse what a finished run has left if it is damaged, or another version's."""
    from fmnist_pl.report.runs import State, read_run  # brings scipy

    if (found := read_run(folder)).state is State.UNREADABLE:
        raise UserError(
            f"{folder}: {found.problem} Delete {RESULT}, and the same command tests the run again; "
            "overwrite=true trains it anew."
        )


class OutOfTime(BaseException):
    """Raised wherever a run is when its time is over."""


@contextmanager
def limited(minutes: float | None) -> Iterator[None]:
    """Stop what takes longer, be it that it hangs.

    Raises:
        UserError: it took longer.
    """
    if minutes is None:
        yield
        return

    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    except OutOfTime:
        raise UnfinishedError(f"time_limit={minutes:g}: not done after as many minutes.") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def told_if_refused(folder: Path) -> Iterator[None]:
    """What the machine refuses, disk or memory, told as what the user can mend."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        path = error.filename2 or error.filename or folder
        raise UnfinishedError(f"{path}: {error.strerror or error}.") from error
    except (MemoryError, RuntimeError) as error:
        # A CPU's words in torch, then those of GPUs and of their libraries.
        words = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in words):
            raise
        raise UserError("out of memory: give a smaller data.batch_size or model.") from error
