"""What a configuration names by `_target_`: callbacks and loggers; whether all of it can be made.

The net, the optimizer and its schedule are made where they are used, in `model/`.
"""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_pl.config import check_here, complete
from fmnist_pl.files import write_atomically
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.options.targets import TARGET, build, check_arguments, locate

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger

LOGGERS = "loggers"  # in a run's folder, what they keep there
RUNS = "runs.json"  # in that, which run of theirs it is
# By class of logger, the package it needs and its argument that takes up a run of its own.
PACKAGES = {"WandbLogger": ("wandb", "id"), "MLFlowLogger": ("mlflow", "run_id")}
CHECKED: set[str] = set()  # the runs of a sweep have much in common
SUPPLIED = ("save_dir", "name", "run_name")  # to a logger that takes them


def check_parts(config: Config) -> None:
    """Make all that a configuration names but its loggers, and let it go.

    Nothing is imported for what is the study's, so that a sweep of it starts at once.

    Raises:
        UserError: as of `config.check_here`; a class that cannot be imported, an argument that it
            does not take.
    """
    check_here(config)
    named = config.model.net, config.schedule, config.callbacks, config.logger
    if config.optimizer == complete({"lr": config.optimizer.get("lr")}) and not any(named):
        return
    key = json.dumps([*named, config.optimizer, len(config.classes)])
    if key in CHECKED:
        return
    check_arguments(config.optimizer, "optimizer", 1, {})  # before imports that take seconds
    from torch import nn, zeros

    from fmnist_pl.model.classifier import build_optimizer, build_schedule
    from fmnist_pl.model.nets import build_net

    if config.model.net:
        build_net(config.model, len(config.classes))
    optimizer = build_optimizer(nn.ParameterList([zeros(1)]), config.optimizer)
    if config.schedule:
        build_schedule(optimizer, config.schedule, config.trainer.max_epochs, steps=1000)
    build_callbacks(config)
    from lightning.pytorch.loggers import Logger

    for name, spec in config.logger.items():
        option = f"logger.{name}"
        logger = locate(spec.get(TARGET), option) if isinstance(spec, dict) else None
        if not (isinstance(logger, type) and issubclass(logger, Logger)):
            raise UserError(f"{option}={spec}: {TARGET} must name a logger of Lightning.")
        check_arguments(spec, option, 0, dict.fromkeys(SUPPLIED))
        package, _ = PACKAGES.get(logger.__name__, ("", ""))
        if package and not find_spec(package):
            raise UserError(f"{option} needs {package}: pip install 'fmnist_pl[{package}]'")
    CHECKED.add(key)


def build_loggers(config: Config, folder: Path) -> list["Logger"]:
    """The loggers of a configuration; in a run that goes on they go on with theirs."""
    known = read_runs(folder)
    if config.logger:
        (folder / LOGGERS).mkdir(parents=True, exist_ok=True)
    title = f"{config.name}-{config.seed}"
    supplied = dict(zip(SUPPLIED, (str(folder / LOGGERS), title, title), strict=True))
    loggers = []
    for name, spec in config.logger.items():
        taken_up = {}
        if name in known:
            _, argument = PACKAGES[spec[TARGET].rpartition(".")[2]]
            taken_up = {argument: known[name]}
        loggers.append(build(spec, f"logger.{name}", **supplied, **taken_up))
    return loggers


def read_runs(folder: Path) -> dict[str, str]:
    """By name of a logger, which of its runs is the one in a folder."""
    path = folder / LOGGERS / RUNS
    runs: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return runs


def keep_runs(config: Config, loggers: Sequence["Logger"], folder: Path) -> None:
    """Write down what `build_loggers` has to know when the run goes on."""
    runs = {
        name: str(logger.version)
        for name, logger in zip(config.logger, loggers, strict=True)
        if type(logger).__name__ in PACKAGES
    }
    if runs:
        write_atomically(folder / LOGGERS / RUNS, json.dumps(runs) + "\n")


def end_runs(loggers: Sequence["Logger"]) -> None:
    """End what the next run of this process would otherwise be taken for a part of."""
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger":
            import wandb

            if wandb.run is not None:
                wandb.finish()


def build_callbacks(config: Config) -> list["Callback"]:
    """The callbacks of a configuration, in its order."""
    from lightning.pytorch import Callback

    callbacks = []
    for name, spec in config.callbacks.items():
        option = f"callbacks.{name}"
        if not isinstance(spec, dict):
            raise UserError(f"{option}={spec}: must be {TARGET} and arguments, or not be there.")
        callback = build(spec, option)
        if not isinstance(callback, Callback):
            raise UserError(f"{option}: {spec[TARGET]} makes no callback of Lightning.")
        callbacks.append(callback)
    return callbacks
