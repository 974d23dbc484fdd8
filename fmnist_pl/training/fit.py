"""One run from configuration to result: train, test, and leave all that a run leaves."""

import gc
import inspect
import shutil
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.profilers import PassThroughProfiler, Profiler
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from fmnist_pl.data.augment import parse_ops
from fmnist_pl.data.catalogue import entry
from fmnist_pl.data.datamodule import FashionMNIST
from fmnist_pl.files import BEST, LAST, move_into_place, part_of
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import load_classifier
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.options.targets import TARGET, locate, targets_in
from fmnist_pl.training.artifacts import hyperparameters, leave
from fmnist_pl.training.callbacks import Averaging, Divergence, Histograms, Pause
from fmnist_pl.training.checkpoints import Record, resumable
from fmnist_pl.training.curves import Curves
from fmnist_pl.training.devices import build_trainer
from fmnist_pl.training.graphs import CUDAGraphs
from fmnist_pl.training.parts import build_callbacks, build_loggers, keep_runs
from fmnist_pl.training.progress import Progress
from fmnist_pl.training.start import take_weights
from fmnist_pl.training.trained import Result, Trained
from fmnist_pl.training.turns import Interrupted, Turns, among_others
from fmnist_pl.training.weights import refreshed

WITHIN_AN_EPOCH = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad"),
    *("on_before_backward", "on_after_backward", "on_before_optimizer_step"),
)

Kind = TypeVar("Kind", bound=L.Callback)


def prepare(config: Config, folder: Path) -> L.Trainer:
    """Lightning's Trainer with all that is done around training.

    Raises:
        UserError: as of `devices.build_trainer`.
    """
    record = Record(folder)
    callbacks: list[L.Callback] = [record, Averaging(), Divergence(), Histograms(), Curves(folder)]
    callbacks += build_callbacks(config)
    if config.cuda_graphs and not (config.compile or config.trainer.detect_anomaly):
        callbacks.append(CUDAGraphs())
    if config.pause_after:
        callbacks.append(Pause(config.pause_after))
    if among_others():
        callbacks.append(Turns())
    if config.trainer.enable_progress_bar:
        callbacks.append(Progress(f"{config.name}-{config.seed}", record))
    return build_trainer(config, folder, callbacks, build_loggers(config, folder))


def fit_and_test(config: Config, folder: Path, trainer: L.Trainer) -> Result:
    """Train from scratch or from the last checkpoint, test, and leave all that a run leaves.

    What is tested is the checkpoint, as whoever loads it has it. Every process of the run trains;
    the first alone writes, and returns the result.
    """
    datamodule, classifier = build_datamodule(config), build_classifier(config)
    if config.compile:
        classifier.net.compile()
    record, averaging = callback(trainer, Record), callback(trainer, Averaging)
    classifier.log_steps = config.trainer.log_every_n_steps is not None
    classifier.automatic_optimization = not steps_directly(trainer, classifier)
    datamodule.in_chunks = not classifier.automatic_optimization
    checkpoint = resumable(record.last, classifier) or start(config, classifier, trainer)
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_hyperparams(hyperparameters(config))
        keep_runs(config, trainer.loggers[1:], folder)
    gc.freeze()  # what is there by now stays: looking for garbage in it takes a tenth of a step
    try:
        trainer.fit(classifier, datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C and SIGTERM
        if isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except Interrupted:
        raise KeyboardInterrupt from None
    except Exception as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UserError(
                f"compile=true: PyTorch cannot compile here: {str(error).strip().splitlines()[0]} "
                "It takes a C++ compiler, as Debian's package g++."
            ) from error
        raise
    finally:
        gc.unfreeze()
    own = targets_in(config.model.net)
    tested = load_classifier(record.best if config.test.checkpoint == "best" else record.last, own)
    average = deepcopy(tested)
    mean = averaging.of(classifier).float()  # in whatever precision it was trained
    average.net.load_state_dict(refreshed(mean, datamodule).state_dict())
    return leave(Trained(config, folder, trainer, tested, datamodule, record, average.eval()))


def steps_directly(trainer: L.Trainer, classifier: Classifier) -> bool:
    """Whether Lightning has nothing to do in a step, so that a chunk of them can be one of its own.

    It has where a loss is scaled or gradients are clipped, accumulated or shared with other
    devices; where the learning rate changes; and where a callback or profiler looks at batches.
    """
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    watched = any(
        is_overridden(hook, one)
        for one in callbacks
        for hook in WITHIN_AN_EPOCH
        if not isinstance(one, ProgressBar | Turns)
    )
    # A function that makes an optimizer may make one that is stepped in any way.
    step = getattr(locate(classifier.optimizer[TARGET], "optimizer"), "step", lambda closure: None)
    return not (
        watched
        or classifier.schedule
        or classifier.log_steps
        or trainer.world_size > 1
        or trainer.precision == "16-mixed"
        or trainer.gradient_clip_val
        or trainer.accumulate_grad_batches > 1
        or not isinstance(profiler, PassThroughProfiler)
        or inspect.signature(step).parameters["closure"].default is inspect.Parameter.empty
    )


def start(config: Config, classifier: Classifier, trainer: L.Trainer) -> Path | None:
    """Begin a new run with what its configuration names: the checkpoint to go on from, if any."""
    own = targets_in(config.model.net)
    if config.init_from:
        taken = take_weights(classifier, load_classifier(config.init_from, own))
        if trainer.is_global_zero:
            print(f"{config.name}-{config.seed} begins with {taken}", flush=True)
    if not config.continue_from:
        return None
    record, before = callback(trainer, Record), Path(config.continue_from)
    callback(trainer, Curves).begun_elsewhere = True
    if trainer.is_global_zero:
        record.best.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(before / BEST, part_of(record.best))
        move_into_place(part_of(record.best), record.best)
    return resumable(before / LAST, classifier)


def callback(trainer: L.Trainer, kind: type[Kind]) -> Kind:
    """The trainer's callback of a kind."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(each for each in callbacks if isinstance(each, kind))


def build_datamodule(config: Config) -> FashionMNIST:
    """The data as a run is fed them."""
    ops, trainer = parse_ops(config.augment.ops), config.trainer
    limits = trainer.limit_train_batches, trainer.overfit_batches
    return FashionMNIST(
        config.data, config.classes, ops, config.seed, *limits, seeds=config.seeds.own()
    )


def build_classifier(config: Config) -> Classifier:
    """The net with its initial weights."""
    return Classifier(
        asdict(config.model),
        config.classes,
        config.optimizer,
        config.seed,
        data=entry(config.data),
        schedule=config.schedule or None,
        seeds=config.seeds.own() or None,
    )
