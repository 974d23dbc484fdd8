"""One run from configuration to result: train, test, and leave all that a run leaves."""

import gc
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import lightning as L
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fmnist_pl.data.augment import parse_ops
from fmnist_pl.data.datamodule import FashionMNIST
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import load_classifier, predict
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.training.artifacts import hyperparameters, leave
from fmnist_pl.training.callbacks import Averaging, Curves, Divergence, Histograms
from fmnist_pl.training.checkpoints import Record, resumable
from fmnist_pl.training.devices import build_trainer
from fmnist_pl.training.graphs import CUDAGraphs
from fmnist_pl.training.progress import Progress
from fmnist_pl.training.trained import Result, Trained

Kind = TypeVar("Kind", bound=L.Callback)


def prepare(config: Config, folder: Path) -> L.Trainer:
    """Lightning's Trainer with all that is done around training.

    Raises:
        UserError: as of `devices.build_trainer`.
    """
    record = Record(folder)
    callbacks: list[L.Callback] = [record, Averaging(), Divergence(), Histograms(), Curves()]
    if config.cuda_graphs and not config.compile:
        callbacks.append(CUDAGraphs())
    if config.trainer.enable_progress_bar:
        callbacks.append(Progress(f"{config.name}-{config.seed}", record))
    return build_trainer(config, folder, callbacks)


def fit_and_test(config: Config, folder: Path, trainer: L.Trainer) -> Result:
    """Train from scratch or from the last checkpoint, test, and leave all that a run leaves.

    What is tested is the checkpoint, as whoever loads it has it. Every process of the run trains;
    the first alone writes, and returns the result.
    """
    datamodule, classifier = build_datamodule(config), build_classifier(config)
    if config.compile:
        classifier.net.compile()
    record, averaging = callback(trainer, Record), callback(trainer, Averaging)
    assert trainer.logger
    trainer.logger.log_hyperparams(hyperparameters(config))
    checkpoint = resumable(record.last, classifier)
    gc.freeze()  # what is there by now stays: looking for garbage in it takes a tenth of a step
    try:
        trainer.fit(classifier, datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C and SIGTERM
        if isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except Exception as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UserError(
                f"compile=true: PyTorch cannot compile here: {str(error).strip().splitlines()[0]} "
                "It takes a C++ compiler, as Debian's package g++."
            ) from error
        raise
    finally:
        gc.unfreeze()
    tested = load_classifier(record.best if config.test.checkpoint == "best" else record.last)
    predictions = predict(tested, datamodule.splits["test"][0])
    average = averaging.net.float()  # in whatever precision it was trained
    return leave(Trained(config, folder, trainer, tested, datamodule, record, average, predictions))


def callback(trainer: L.Trainer, kind: type[Kind]) -> Kind:
    """The trainer's callback of a kind."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(each for each in callbacks if isinstance(each, kind))


def build_datamodule(config: Config) -> FashionMNIST:
    """The data as a run is fed them."""
    ops, limit = parse_ops(config.augment.ops), config.trainer.limit_train_batches
    return FashionMNIST(config.data, config.classes, ops, config.seed, limit)


def build_classifier(config: Config) -> Classifier:
    """The net with its initial weights."""
    return Classifier(
        asdict(config.model),
        config.classes,
        asdict(config.optimizer),
        config.seed,
        data={"val_size": config.data.val_size, "split_seed": config.data.split_seed},
    )
