"""The launcher of `python -m fmnist_pl.train` that trains runs side by side.

Hydra imports this file whenever one of its programs starts: what takes time is imported later.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher


class Together(JoblibLauncher):  # type: ignore[misc]
    """As joblib's, but a process takes several runs at once, which is `fmnist_pl.sweep.together`.

    Args:
        side_by_side: how many.
        options: of `joblib.Parallel`.
    """

    def __init__(self, side_by_side: int, **options: Any) -> None:
        super().__init__(**options)
        self.side_by_side = side_by_side

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from fmnist_pl.sweep.together import launch

        jobs = list(enumerate(job_overrides, initial_job_idx))
        shared = self.hydra_context, self.config, self.task_function
        return launch(jobs, self.side_by_side, self.joblib, *shared)
