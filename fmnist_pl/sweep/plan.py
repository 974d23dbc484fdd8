"""What a sweep does before its first run: check all, name their folders, share out the cores.

The sweep itself is Hydra's, under any launcher.
"""

import itertools
import json
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from traceback import format_exc
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from fmnist_pl.config import check_same, resolve
from fmnist_pl.files import CONFIG, METRICS, RESULT, SEARCH, make_folder
from fmnist_pl.options.command import check_temporary
from fmnist_pl.options.messages import UserError, fail, printable, progress_bar
from fmnist_pl.options.refusals import refusal
from fmnist_pl.options.schema import Config
from fmnist_pl.options.targets import TARGET
from fmnist_pl.sweep import batch_script
from fmnist_pl.sweep.compose import Composer, Run, asked, without_hydra
from fmnist_pl.sweep.watch import Watch, epochs
from fmnist_pl.sweep.workers import at_once, separate, side_by_side
from fmnist_pl.training.parts import check_parts
from fmnist_pl.training.start import check_start

# Hydra's own sweeper, but for composing once more what has been composed here.
ENUMERATION = "hydra_plugins.fmnist_pl_sweepers.Enumeration"


class Guard(Callback):
    """Refuses an impossible run before Hydra makes a folder; prepares a sweep, or lists it."""

    only_lists: ClassVar[bool] = False

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            options, folder = resolve(without_hydra(config)), Path(config.hydra.run.dir)
            check_parts(options)
            check_start(options, folder)
            check_temporary()
            make_folder(folder)
        except UserError as error:
            fail(error)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            check_temporary()
            runs = prepare(config)
            folder = Path(config.hydra.sweep.dir)
            if self.only_lists:
                print(search_listing(folder) if searches(config) else listing(folder, runs))
                if adds_seeds(config):
                    most = config.hydra.sweeper.max_seeds
                    print(f"then up to {most} seeds of each that something is open about")
                sys.exit()
            make_folder(folder)
        except Exception as error:  # Hydra would take it for a warning
            fail(error if isinstance(error, UserError) else refusal(error) or format_exc())
        total = len(runs)
        if searches(config):
            total = config.hydra.sweeper.n_trials * config.hydra.sweeper.seeds
            total += 2 * config.hydra.sweeper.confirm
        elif others := "" if adds_seeds(config) else foreign(folder, runs):
            print(f"{folder} has {others}, which the report counts, too.", file=sys.stderr)
        # joblib replaces a worker whose memory has grown, between two runs: nothing is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs")
        Watch.of_this_process = Watch(folder, (run.folder for run in runs), total)
        Watch.of_this_process.start()


def prepare(config: DictConfig) -> list[Run]:
    """Compose and check every run of a sweep, and share out the cores.

    A launcher that works in parallel on this machine starts as many runs at once as it can take.
    The threads of a run do not depend on how many runs there are: they are part of what it
    computes.

    Args:
        config: of the whole sweep; changed in place.

    Returns:
        Them all; of a search, which asks for them one by one, none: those at the ends of what it
        varies are composed and checked.

    Raises:
        UserError: as of `config.resolve` and `config.check_same`, for any of the runs; two runs
            that are the same, or no run; several at once where they cannot be kept apart.
    """
    composer, launcher = Composer(config), config.hydra.launcher
    with open_dict(config):
        if str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
            config.hydra.sweeper._target_ = ENUMERATION
        for name in ("side_by_side", "n_jobs"):
            given = launcher.get(name, 1)
            if type(given) is not int or (given < 1 and given != -1):
                raise UserError(f"hydra.launcher.{name}={given}: must be at least 1, or -1.")
        if launcher.get("side_by_side") == -1:
            launcher.side_by_side = side_by_side(config, seeds(config))
        if launcher.get("n_jobs") == -1:
            launcher.n_jobs = max(1, at_once(config) // launcher.get("side_by_side", 1))
        elif launcher.get("n_jobs", 1) != 1 and not separate():
            raise UserError(
                f"hydra.launcher.n_jobs={launcher.n_jobs}: must be 1, since the system keeps "
                "runs from having processes of their own (can /dev/shm be written?)."
            )
        if on_cluster(launcher):
            lines = batch_script.setup(launcher, composer.folder)
            launcher.setup = [*(launcher.setup or []), *lines]
    if searches(config):
        if not find_spec("optuna"):
            raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'fmnist_pl[search]'")
        from fmnist_pl.sweep.space import probes

        for point in probes(config):
            options = composer.run(*point).config
            check_parts(options)
            check_launch(options, config)
        return []
    choices = first_look(config, composer) if adds_seeds(config) else enumerated(config)
    runs: dict[Path, Run] = {}
    for number, words in enumerate(
        progress_bar(choices, "checking", unit="run", delay=3, leave=False)
    ):
        run = composer.run(*words, number=number)
        check_parts(run.config)
        check_launch(run.config, config)
        if run.folder in runs:
            raise UserError(f"{run.folder}: two runs of the sweep are the same.")
        if not run.config.overwrite:
            check_same(run.config, run.folder)
        runs[run.folder] = run
    return list(runs.values())


def enumerated(config: DictConfig) -> list[tuple[str, ...]]:
    """The overrides of each run of a sweep.

    Raises:
        UserError: something without end, or with nothing in it.
    """
    choices = []
    for key, override in asked(config).items():
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            raise UserError(
                f"{override.input_line}: not to be enumerated; hydra/sweeper=optuna searches it."
            )
        if not choices[-1]:
            raise UserError(f"{override.input_line}: that is nothing.")
    return list(itertools.product(*choices))


def seeds(config: DictConfig) -> int:
    """How many seeds of each variant a sweep begins with."""
    if searches(config):
        return int(config.hydra.sweeper.seeds)
    if adds_seeds(config):
        return int(config.hydra.sweeper.first_look)
    seed = asked(config).get("seed")
    discrete = seed is not None and seed.is_discrete_sweep()
    return len(list(seed.sweep_string_iterator())) if seed and discrete else 1


def first_look(config: DictConfig, composer: Composer) -> list[tuple[str, ...]]:
    """The overrides of the runs that a sweep by looks cannot do without.

    Raises:
        UserError: a plan that makes no sense, or options that such a sweep cannot have.
    """
    from fmnist_pl.report.looks import planned

    sweeper = config.hydra.sweeper
    planned(sweeper.first_look, sweeper.max_seeds, sweeper.margin)
    if config.overwrite:
        raise UserError(
            "overwrite=true: a sweep that adds seeds goes on with what is there. Name another "
            "folder with hydra.sweep.dir=FOLDER."
        )
    if not composer.named_here:
        raise UserError("hydra.sweep.subdir: a sweep that adds seeds names its folders itself.")
    variants, first = without_seeds(config)
    seeds = range(first, first + sweeper.first_look)
    return [(*each, f"seed={seed}") for each in variants for seed in seeds]


def without_seeds(config: DictConfig) -> tuple[list[tuple[str, ...]], int]:
    """The overrides of each variant of a sweep, and the first of its seeds."""
    choices = enumerated(config)
    seeds = {word for words in choices for word in words if word.startswith("seed=")}
    variants = dict.fromkeys(tuple(word for word in each if word not in seeds) for each in choices)
    first = min((int(word.removeprefix("seed=")) for word in seeds), default=config.seed)
    return list(variants), first


def listing(folder: Path, runs: list[Run]) -> str:
    """What a sweep would run, and how far each run is."""
    states = [state(run) for run in runs]
    width = max(map(len, states))
    lines = [
        f"{state:{width}}  {run.folder.relative_to(folder)}  {printable(' '.join(run.overrides))}"
        for state, run in zip(states, runs, strict=True)
    ]
    return "\n".join([*lines, f"{len(runs)} runs in {folder}, {states.count('finished')} finished"])


def search_listing(folder: Path) -> str:
    """The trials of a search so far, and what came of them."""
    path = folder / SEARCH
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"trials": []}
    lines = [
        f"{one['state']:8}  {one['value'] or 0:.4f}  {printable(json.dumps(one['params']))}"
        for one in found["trials"]
    ]
    return "\n".join([*lines, f"{len(lines)} trials in {folder}"])


def state(run: Run) -> str:
    """How far a run is."""
    if (run.folder / RESULT).exists() and not run.config.overwrite:
        return "finished"
    if (run.folder / METRICS).exists() and not run.config.overwrite:
        return f"epoch {epochs(run.folder)} of {run.config.trainer.max_epochs}"
    return "to do"


def foreign(folder: Path, runs: list[Run]) -> str:
    """How many runs of other sweeps there are in the folder of a sweep, in words."""
    others = {path.parent for path in folder.glob(f"*/{CONFIG}")} - {run.folder for run in runs}
    return f"{len(others)} run{'s' * (len(others) > 1)} of another sweep" if others else ""


def searches(config: DictConfig) -> bool:
    """Whether a sweep is a search, whose runs depend on one another."""
    return str(config.hydra.sweeper._target_).endswith(".Optuna")


def adds_seeds(config: DictConfig) -> bool:
    """Whether a sweep goes on with more seeds than it was asked for."""
    return str(config.hydra.sweeper._target_).endswith(".UntilDecided")


def on_cluster(launcher: DictConfig) -> bool:
    """Whether SLURM runs what this launcher starts."""
    return str(launcher._target_).endswith(".SlurmLauncher")


def check_launch(options: Config, config: DictConfig) -> None:
    """Refuse a run that a sweep's launcher cannot train.

    Raises:
        UserError: several devices or nodes, other than SLURM starts processes for: Lightning would
            start the sweep again for each; what takes a process of its own, where runs share one.
    """
    if config.hydra.launcher.get("side_by_side", 1) > 1:
        targets = [spec[TARGET] for spec in options.logger.values()]
        for name, given in (
            ("time_limit", options.time_limit is not None),
            ("trainer.profiler", options.trainer.profiler),
            ("trainer.detect_anomaly", options.trainer.detect_anomaly),
            ("logger: W&B", any(target.endswith(".WandbLogger") for target in targets)),
            ("hydra.job.chdir", config.hydra.job.chdir),
            ("hydra.job.env_set", config.hydra.job.env_set),
        ):
            if given:
                raise UserError(
                    f"{name}: only for a run with a process of its own, without "
                    "hydra/launcher=together or with hydra.launcher.side_by_side=1."
                )
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
