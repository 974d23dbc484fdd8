"""One run from configuration to result: train, test, and leave all that a run leaves."""

import os
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from PIL import Image
from torch import Tensor

from fmnist_pl import pictures, projector, slurm
from fmnist_pl.callbacks import Progress, Record
from fmnist_pl.config import UserError, parse_ops
from fmnist_pl.datamodule import FashionMNIST
from fmnist_pl.environment import describe_environment, quieten
from fmnist_pl.files import write_atomically
from fmnist_pl.inference import Predictions, load_classifier, predict
from fmnist_pl.module import Classifier, acc_per_class
from fmnist_pl.schema import Config
from fmnist_pl.weights import acc_by_weights

Result = dict[str, Any]

PREDICTIONS = "predictions.npz"
# What Lightning makes of devices there are not.
REFUSALS = (ImportError, MisconfigurationException, RuntimeError, TypeError, ValueError)


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
    progress = [Progress(f"{config.name}-{config.seed}", record)]
    try:
        trainer = L.Trainer(
            **options,
            logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
            callbacks=[record, *(progress if config.trainer.enable_progress_bar else [])],
            plugins=[environment],
            default_root_dir=folder,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except REFUSALS as error:
        given = ", ".join(f"{name}={options[name]}" for name in ("accelerator", "devices"))
        raise UserError(f"trainer: {given}: {str(error).partition(chr(10))[0]}") from None
    if slurm.processes() not in (1, trainer.world_size):
        raise UserError(
            f"trainer.devices={trainer.num_devices} on trainer.num_nodes={trainer.num_nodes} "
            f"nodes, but {slurm.processes()} processes have been started."
        )
    return trainer


def cluster_environment() -> ClusterEnvironment:
    """Who started the processes of this run: SLURM, torchrun, or Lightning itself."""
    if slurm.is_task():
        return SLURMEnvironment(auto_requeue=False)
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return LightningEnvironment()


def fit_and_test(config: Config, folder: Path, trainer: L.Trainer) -> Result:
    """Train from scratch or from the last checkpoint, test, and leave all that a run leaves.

    Every process of the run trains and tests; the first alone writes, and returns the result.
    """
    data, seed = config.data, config.seed
    datamodule = FashionMNIST(
        data,
        config.classes,
        parse_ops(config.augment.ops),
        seed,
        config.trainer.limit_train_batches,
    )
    classifier = Classifier(
        asdict(config.model),
        config.classes,
        asdict(config.optimizer),
        seed,
        data={"val_size": data.val_size, "split_seed": data.split_seed},
    )
    if config.compile:
        classifier.net.compile()
    record, logger = trainer.checkpoint_callback, trainer.logger
    assert isinstance(record, Record)
    assert isinstance(logger, TensorBoardLogger)
    logger.log_hyperparams(hyperparameters(config))
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
    record.average.float()
    images, labels = datamodule.splits["test"]
    predictions = predict(classifier, images)
    test_acc = float((predictions.logits.argmax(1) == labels.cpu().numpy()).mean())
    by_weights = acc_by_weights(classifier, config.test.checkpoint, test_acc, record, datamodule)
    if not trainer.is_global_zero:
        return {}
    save_predictions(folder / PREDICTIONS, predictions, labels)
    result = {
        **summarise(config, classifier, record, trainer),
        "test/acc_by_weights": by_weights,
        "test/knn_acc": project(config.embeddings, classifier, datamodule, folder),
        **describe_environment(trainer.strategy.root_device, trainer.world_size),
    }
    drawn = pictures.draw(
        result,
        "test",
        images.cpu().numpy(),
        labels.cpu().numpy(),
        predictions.probabilities,
        record.rows,
    )
    pictures.save(drawn, folder / "figures")
    for name in drawn:
        picture = np.asarray(Image.open(folder / "figures" / f"{name}.png").convert("RGB"))
        logger.experiment.add_image(name, picture, len(record.rows), dataformats="HWC")
    logger.log_hyperparams(
        hyperparameters(config),
        {name: result[name] for name in ("test/acc", "test/loss", "val/acc", "val/loss")},
        len(record.rows),
    )
    logger.finalize("success")
    return result


def resumable(checkpoint: Path, classifier: Classifier) -> Path | None:
    """The checkpoint from which a run goes on, if there is one.

    Raises:
        UserError: a damaged one, or of another run.
    """
    if not checkpoint.exists():
        return None
    remedy = "overwrite=true starts the run anew."
    try:
        found = load_classifier(checkpoint)
    except UserError as error:
        raise UserError(f"{error} {remedy}") from None
    if found.hparams != classifier.hparams:
        raise UserError(f"{checkpoint} is of a run with other options. {remedy}")
    return checkpoint


def save_predictions(path: Path, predictions: Predictions, labels: Tensor) -> None:
    """Keep `logits`, float32 (N, C), and `labels`, int64 (N,), of the test images in order."""
    arrays = BytesIO()
    np.savez_compressed(arrays, logits=predictions.logits, labels=labels.cpu())
    write_atomically(path, arrays.getvalue())


def project(
    embeddings: str, classifier: Classifier, datamodule: FashionMNIST, folder: Path
) -> dict[str, float] | None:
    """Write the embeddings that the configuration asks for; how well they separate the classes."""
    if embeddings == "none":
        return None
    splits = {split: datamodule.splits[split] for split in projector.SPLITS[embeddings]}
    return projector.write(folder, classifier, splits)


def hyperparameters(config: Config) -> dict[str, Any]:
    """What one compares runs by in TensorBoard's table."""
    return {
        **{f"model.{name}": value for name, value in asdict(config.model).items()},
        "augment": config.augment.name,
        "classes": len(config.classes),
        "batch_size": config.data.batch_size,
        "lr": config.optimizer.lr,
        "seed": config.seed,
    }


def summarise(config: Config, classifier: Classifier, record: Record, trainer: L.Trainer) -> Result:
    """What was run and what came out; names with a slash are those of `metrics.csv`.

    Training and validation figures are those of the epoch whose weights were tested.
    """
    tested = record.best_row if config.test.checkpoint == "best" else record.rows[-1]
    confusion = classifier.confusion["test"].cpu()
    per_class = acc_per_class(confusion).tolist()
    seconds = sum(row["seconds"] for row in record.rows)
    return {
        "name": config.name,
        "model": config.model.name,
        "seed": config.seed,
        "classes": config.classes,
        "augment": config.augment.name,
        "embeddings": config.embeddings,
        "epochs": len(record.rows),
        "parameters": sum(p.numel() for p in classifier.parameters() if p.requires_grad),
        "tested_checkpoint": config.test.checkpoint,
        **{name: value for name, value in tested.items() if "/" in name},
        **{k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("test/")},
        "test/acc_per_class": dict(zip(config.classes, per_class, strict=True)),
        "test/confusion_matrix": confusion.tolist(),
        "best_epoch": record.best_row["epoch"],
        "best_val_acc": record.best_row["val/acc"],
        "seconds": seconds,
        "images_per_second": sum(row["images"] for row in record.rows) / seconds,
    }
