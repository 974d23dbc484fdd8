"""How far a sweep is, told from the folders of its runs alone; and the report it ends in."""

import json
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

from fmnist_pl.files import METRICS, STATUS
from fmnist_pl.options.messages import stop_printing, tensorboard

ENDED = ("finished", "repeated", "foreign")  # states of the report's in which nothing is missing


class Watch(Thread):
    """Tells, from the folders alone, how far the runs of a sweep are, wherever they run.

    Args:
        folder: of the sweep.
        runs: how many it has.
    """

    of_this_process: "Watch | None" = None

    def __init__(self, folder: Path, runs: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.runs = folder, runs
        self.began, self.ended = time.time(), Event()
        self.states: dict[Path, str] = {}

    def run(self) -> None:
        with tqdm(total=self.runs, unit="run", disable=None) as bar:
            while not self.ended.wait(1):
                self.look(bar)
            self.look(bar)

    def look(self, bar: "tqdm[Any]") -> None:
        """One line for each run that has ended; on the bar, the epochs of those under way."""
        running = []
        for path in sorted(self.folder.glob(f"*/{STATUS}")):
            if path.stat().st_mtime < self.began:
                continue
            status, name = json.loads(path.read_text(encoding="utf-8")), path.parent.name
            if status["state"] == "running":
                running.append(f"{name} epoch {epochs(path.parent) + 1}")
            elif self.states.get(path) != status["state"]:
                self.states[path] = status["state"]
                try:
                    tqdm.write(f"{name} {status['state']} {status.get('error', '')}".rstrip())
                except BrokenPipeError:
                    stop_printing()
                bar.update(status["state"] != "interrupted")
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
            print(f"report       {self.folder / 'report.html'}")
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
