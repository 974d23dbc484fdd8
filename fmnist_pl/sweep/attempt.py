"""One run of a sweep, in a worker or a job: it can fail without the others."""

import atexit
import json
import multiprocessing
import os
import sys
import time
from functools import cache
from pathlib import Path
from threading import RLock, Thread
from traceback import format_exc

from omegaconf import DictConfig
from tqdm import tqdm

from fmnist_pl.config import resolve
from fmnist_pl.files import STATUS, write_atomically
from fmnist_pl.options.messages import InUseError, PausedError, UnfinishedError, UserError, tell
from fmnist_pl.sweep.workers import take_device
from fmnist_pl.training import cluster


def attempt(config: DictConfig, folder: Path) -> None:
    """One run of a sweep; whatever it raises goes to its `status.json`, and the others go on.

    Raises:
        UserError: the run failed, and `fail_fast` is set.
    """
    end_with_parent()

    def note(state: str, **details: str) -> None:
        if cluster.rank():
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / STATUS, json.dumps({"state": state, **details}, indent=1) + "\n")

    if cluster.is_task():
        cluster.disown_signals()
    note("running")
    try:
        from fmnist_pl.training.folder import run

        options = resolve(config)
        take_device(options)
        options.trainer.enable_progress_bar = cluster.is_task()  # the sweep has one
        run(options, folder)
    except KeyboardInterrupt:
        note("interrupted")
        raise
    except PausedError:
        note("paused")
    except BaseException as error:  # SystemExit, too, would end the whole sweep
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, UnfinishedError):
            message += " The same command goes on."
        if isinstance(error, InUseError):
            tell(error)  # whoever is at work there notes what becomes of it
        else:
            note("failed", error=message, traceback=format_exc())
        if cluster.is_task():
            atexit.register(os._exit, 1)  # for SLURM, too, the job has failed
        if config.fail_fast:
            raise UserError(f"{folder}: {message} (the sweep stops: fail_fast=true)") from None
    else:
        note("finished")


@cache
def end_with_parent() -> None:
    """Let a worker end with the process of the sweep, which can then be started again at once."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent
        if sys.platform == "win32":  # where an orphan goes on naming its parent
            parent.join()
        else:
            while os.getppid() == parent.pid:
                time.sleep(0.5)
        os._exit(1)

    if parent:
        tqdm.set_lock(RLock())  # its own is a semaphore of the system's, which would be left over
        Thread(target=watch, daemon=True).start()
