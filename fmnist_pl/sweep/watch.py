"""How far a sweep is, told from the folders of its runs alone; and the report it ends in."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

from fmnist_pl.files import METRICS, REPORT, STATUS
from fmnist_pl.options.messages import progress_bar, stop_printing, tensorboard

# States of the report's in which nothing is missing.
ENDED = ("finished", "repeated", "pruned", "foreign")


class Watch(Thread):
    """Tells, from the folders alone, how far the runs of a sweep are, wherever they run.

    Args:
        folder: of the sweep.
        runs: the folders of its runs, as far as they are known.
        total: how many there will be.
    """

    of_this_process: "Watch | None" = None

    def __init__(self, folder: Path, runs: Iterable[Path], total: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.runs, self.total = folder, dict.fromkeys(runs), total
        self.began, self.ended = time.time(), Event()
        self.states: dict[Path, str] = {}

    def add(self, runs: Iterable[Path]) -> None:
        """More runs that start now."""
        self.runs |= dict.fromkeys(runs)

    def run(self) -> None:
        with progress_bar(total=self.total, unit="run") as bar:
            while not self.ended.wait(1):
                self.look(bar)
            self.look(bar)

    def look(self, bar: "tqdm[Any]") -> None:
        """One line for each run that has ended; on the bar, the epochs of those under way."""
        running = []
        for path in [run / STATUS for run in self.runs]:
            if not path.exists() or path.stat().st_mtime < self.began:
                continue
            status = json.loads(path.read_text(encoding="utf-8"))
            name = path.parent.relative_to(self.folder)
            if status["state"] == "running":
                running.append(f"{name} epoch {epochs(path.parent) + 1}")
            elif self.states.get(path) != status["state"] != "paused":
                self.states[path] = status["state"]
                try:
                    tqdm.write(f"{name} {status['state']} {status.get('error', '')}".rstrip())
                except BrokenPipeError:
                    stop_printing()
                bar.update(status["state"] != "interrupted")
        bar.total = self.total
        bar.set_postfix_str(", ".join(running))

    def conclude(self) -> bool:
        """Write and print the report, whole or not; whether every run has finished."""
        from fmnist_pl.report.summary import write_report

        self.ended.set()
        self.join()
        if not self.folder.is_dir():
            return False
        summary = write_report([self.folder], self.folder)
        try:
            print(f"\n{summary}\n")
            print(f"report       {self.folder / REPORT}")
            print(f"TensorBoard  {tensorboard(self.folder)}", flush=True)
        except BrokenPipeError:
            stop_printing()
        return all(run.state in ENDED for run in summary.sweep.runs)


def epochs(folder: Path) -> int:
    """How many whole epochs a run has behind it."""
    try:
        return (folder / METRICS).read_text().count("\n") - 1
    except FileNotFoundError:
        return 0
