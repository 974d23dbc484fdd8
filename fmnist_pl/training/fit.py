"""One run from configuration to result: train, test, and leave all that a run leaves."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fmnist_pl.data.augment import parse_ops
from fmnist_pl.data.datamodule import FashionMNIST
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import load_classifier, predict
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.training import cluster
from fmnist_pl.training.artifacts import hyperparameters, leave
from fmnist_pl.training.callbacks import Averaging, Divergence, Histograms
from fmnist_pl.training.checkpoints import Record, resumable
from fmnist_pl.training.environment import quieten
from fmnist_pl.training.progress import Progress
from fmnist_pl.training.trained import Result, Trained

Kind = TypeVar("Kind", bound=L.Callback)

# What Lightning makes of devices there are not.
REFUSALS = (ImportError, MisconfigurationException, RuntimeError, TypeError, ValueError)


def fit_and_test(config: Config, folder: Path, trainer: L.Trainer) -> Result:
    """Train from scratch or from the last checkpoint, test, and leave all that a run leaves.

    Every process of the run trains and tests; the first alone writes, and returns the result.
    """
    datamodule, classifier = build_datamodule(config), build_classifier(config)
    if config.compile:
        classifier.net.compile()
    record, averaging = callback(trainer, Record), callback(trainer, Averaging)
    assert trainer.logger
    trainer.logger.log_hyperparams(hyperparameters(config))
    checkpoint = resumable(record.last, classifier)
    try:
        trainer.fit(classifier, datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C and SIGTERM
        if isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    if config.test.checkpoint == "best":
        # By the Trainer's hand the record, too, would go back to that epoch.
        classifier.load_state_dict(load_classifier(record.best).state_dict())
    trainer.test(classifier, datamodule, verbose=False)

    # As from the checkpoint: in single precision, in whatever it was trained.
    classifier.eval().float()
    predictions = predict(classifier, datamodule.splits["test"][0])
    average = averaging.net.float()
    return leave(
        Trained(config, folder, trainer, classifier, datamodule, record, average, predictions)
    )


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


def build_trainer(config: Config, folder: Path) -> L.Trainer:
    """Lightning's Trainer with all that belongs to a run.

    Raises:
        UserError: there are no such devices, or other than have been started.
    """
    quieten()
    environment = cluster_environment()
    if config.trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment):
        raise UserError(
            f"trainer.num_nodes={config.trainer.num_nodes}: it takes hydra/launcher=slurm, "
            "docs/run.sbatch or torchrun to start the processes of all nodes."
        )
    if config.threads:
        torch.set_num_threads(config.threads)
        os.environ["OMP_NUM_THREADS"] = str(config.threads)  # for processes that Lightning starts
    options = asdict(config.trainer)
    del options["limit_train_batches"]  # Lightning would count chunks
    record = Record(folder)
    callbacks = [record, Averaging(), Divergence(), Histograms()]
    if config.trainer.enable_progress_bar:
        callbacks.append(Progress(f"{config.name}-{config.seed}", record))
    try:
        trainer = L.Trainer(
            **options,
            logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
            callbacks=callbacks,
            plugins=[environment],
            default_root_dir=folder,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except REFUSALS as error:
        given = ", ".join(f"{name}={options[name]}" for name in ("accelerator", "devices"))
        raise UserError(f"trainer: {given}: {str(error).partition(chr(10))[0]}") from None
    if cluster.processes() not in (1, trainer.world_size):
        raise UserError(
            f"trainer.devices={trainer.num_devices} on trainer.num_nodes={trainer.num_nodes} "
            f"nodes, but {cluster.processes()} processes have been started."
        )
    return trainer


def cluster_environment() -> ClusterEnvironment:
    """Who started the processes of this run: SLURM, torchrun, or Lightning itself."""
    if cluster.is_task():
        return SLURMEnvironment(auto_requeue=False)
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return LightningEnvironment()
