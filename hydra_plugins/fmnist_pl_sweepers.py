"""The sweepers of `python -m fmnist_pl.train`, where Hydra looks for plugins.

Hydra imports this file whenever one of its programs starts: what takes time is imported later.
"""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Enumeration(BasicSweeper):
    """Hydra's own sweeper, but for composing all runs once more: `fmnist_pl.sweep.plan` has."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None: ...


class InSteps(Sweeper):
    """A sweep whose runs depend on those before.

    Args:
        options: of `hydra.sweeper`, what has a `_target_` built.
    """

    config: DictConfig
    launcher: Launcher

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )


class Optuna(InSteps):
    """A search, which is `fmnist_pl.sweep.search`."""

    def sweep(self, arguments: list[str]) -> None:
        from fmnist_pl.sweep.search import Search

        Search(self.config, self.launcher.launch, **self.options).run()


class UntilDecided(InSteps):
    """Adds seeds until nothing is open, which is `fmnist_pl.sweep.until_decided`."""

    def sweep(self, arguments: list[str]) -> None:
        from fmnist_pl.sweep import until_decided

        until_decided.UntilDecided(self.config, self.launcher.launch, **self.options).run()
