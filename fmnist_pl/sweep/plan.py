"""What a sweep does before its first run: check all, name their folders, share out the cores.

The sweep itself is Hydra's, under any launcher.
"""

import copy
import hashlib
import itertools
import re
from pathlib import Path
from traceback import format_exc
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from fmnist_pl.config import check_same, resolve
from fmnist_pl.files import make_folder
from fmnist_pl.options.messages import UserError, fail
from fmnist_pl.options.refusals import refusal
from fmnist_pl.options.schema import Config
from fmnist_pl.sweep import batch_script
from fmnist_pl.sweep.watch import Watch
from fmnist_pl.sweep.workers import at_once

LONGEST_NAME = 80


class Guard(Callback):
    """Refuses an impossible run before Hydra makes a folder; prepares a sweep."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            resolve(without_hydra(config))
            make_folder(Path(config.hydra.run.dir))
        except UserError as error:
            fail(error)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            runs = prepare(config)
            make_folder(Path(config.hydra.sweep.dir))
        except Exception as error:  # Hydra would take it for a warning
            fail(error if isinstance(error, UserError) else refusal(error) or format_exc())
        Watch.of_this_process = Watch(Path(config.hydra.sweep.dir), runs)
        Watch.of_this_process.start()


def without_hydra(config: DictConfig) -> DictConfig:
    """The options of the run alone."""
    options = copy.deepcopy(config)
    with open_dict(options):
        del options["hydra"]
    return options


def prepare(config: DictConfig) -> int:
    """Check every run of a sweep, name their folders by what varies, share out the cores.

    A launcher that works in parallel on this machine starts as many runs at once as it can take.
    The threads of a run do not depend on how many runs there are: they are part of what it
    computes.

    Args:
        config: of the whole sweep; changed in place.

    Returns:
        How many runs there are.

    Raises:
        UserError: as of `config.resolve` and `config.check_same`, for any of the runs; two runs
            that are the same.
    """
    hydra, for_each_run = config.hydra, config.hydra.overrides.hydra
    parameters = (f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items())
    overrides = {
        override.get_key_element(): override
        for override in OverridesParser.create().parse_overrides(
            [*parameters, *hydra.overrides.task]
        )
    }
    varying = [key for key, override in overrides.items() if override.is_sweep_override()]
    with open_dict(config):
        for_each_run.append(f"hydra.sweep.subdir='${{run_name:{','.join(varying)}}}'")
        if hydra.launcher.get("n_jobs") == -1:
            hydra.launcher.n_jobs = at_once(config)
        if on_cluster(hydra.launcher):
            lines = batch_script.setup(hydra.launcher, Path(hydra.sweep.dir))
            hydra.launcher.setup = [*(hydra.launcher.setup or []), *lines]
    choices = [
        [f"{key}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for key, override in overrides.items()
    ]
    loader, folders = GlobalHydra.instance().config_loader(), set()
    for run in itertools.product(*choices):
        composed = loader.load_sweep_config(config, list(run))
        options = resolve(without_hydra(composed))
        check_devices(options, config)
        folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir)
        if folder in folders:
            raise UserError(f"{folder}: two runs of the sweep are the same.")
        folders.add(folder)
        if not options.overwrite:
            check_same(options, folder)
    return len(folders)


def on_cluster(launcher: DictConfig) -> bool:
    """Whether SLURM runs what this launcher starts."""
    return str(launcher._target_).endswith(".SlurmLauncher")


def check_devices(options: Config, config: DictConfig) -> None:
    """Refuse a run of a sweep that Lightning would train by starting the sweep again.

    Raises:
        UserError: several devices or nodes, other than SLURM starts processes for.
    """
    devices, nodes = options.trainer.devices, options.trainer.num_nodes
    if on_cluster(config.hydra.launcher):
        if (devices, nodes) != (config.trainer.devices, config.trainer.num_nodes):
            raise UserError("trainer.devices and trainer.num_nodes cannot vary in a sweep.")
        if not isinstance(devices, int):
            raise UserError(f"trainer.devices={devices}: SLURM must be told a number.")
    elif (len(devices) if isinstance(devices, list) else devices, nodes) != (1, 1):
        raise UserError(
            f"trainer.devices={devices}, trainer.num_nodes={nodes}: a sweep trains each run on one "
            "device, unless it has hydra/launcher=slurm. Without that, start such runs one by one."
        )


def run_name(*varying: str, _root_: DictConfig) -> str:
    """A folder for one run of a sweep: its name and seed, then whatever else varies.

    Safe for any file system and for Hydra's grammar, distinct for different values, always the
    same for the same ones. A resolver for `hydra.sweep.subdir`.
    """
    name = f"{_root_.name}-{_root_.seed}"
    for override in OverridesParser.create().parse_overrides(list(_root_.hydra.overrides.task)):
        key, value = override.get_key_element(), override.get_value_element_as_str()
        if key in varying and key != "seed" and value != _root_.name:
            name += f"-{key.rpartition('.')[2]}-{value}"
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:LONGEST_NAME].rstrip("-.")
    if safe == name:
        return name
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


OmegaConf.register_new_resolver("run_name", run_name)
