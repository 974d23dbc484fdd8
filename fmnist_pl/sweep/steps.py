"""What sweeps have in common whose runs depend on those before."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fmnist_pl.config import check_same
from fmnist_pl.files import RESULT
from fmnist_pl.sweep.compose import Composer, Run
from fmnist_pl.sweep.watch import Watch

Launch = Callable[..., Sequence[Any]]  # of Hydra's launchers


class Steps:
    """A sweep that asks for its runs step by step.

    Args:
        config: of the whole sweep, as `plan.prepare` leaves it.
        launch: what trains runs, Hydra's launcher's.
    """

    def __init__(self, config: DictConfig, launch: Launch) -> None:
        composer, self.launch = Composer(config), launch
        self.composed, self.folder = cache(composer.run), composer.folder
        self.launched = 0

    def unfinished(self, runs: Iterable[Run]) -> list[Run]:
        """Those of the runs that have no result, each once.

        Raises:
            UserError: a folder has a run of other options.
        """
        folders: dict[Path, Run] = {}
        for run in runs:
            check_same(run.config, run.folder)
            if not (run.folder / RESULT).exists():
                folders[run.folder] = run
        return list(folders.values())

    def start(self, runs: Sequence[Run], *more: str) -> None:
        """Train runs, with more overrides, until the launcher is done with them."""
        if Watch.of_this_process:
            Watch.of_this_process.add(run.folder for run in runs)
        if runs:
            words = [[*run.overrides, *more] for run in runs]
            for done in self.launch(words, initial_job_idx=self.launched):
                _ = done.return_value  # raises what ended the sweep
            self.launched += len(words)
