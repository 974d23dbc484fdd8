"""One run in its folder, from configuration to `result.json`.

A folder with `result.json` is a finished run; with `config.yaml` alone, an unfinished one, which
the same configuration continues from `checkpoints/last.ckpt`.
"""

import fcntl
import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from fmnist_pl import pictures, projector
from fmnist_pl.callbacks import Progress, Record
from fmnist_pl.config import CONFIG, UserError, check_same, parse_ops, resolve
from fmnist_pl.datamodule import FashionMNIST
from fmnist_pl.environment import describe_environment, quieten
from fmnist_pl.files import make_folder, write_atomically
from fmnist_pl.inference import Predictions, load_classifier, predict
from fmnist_pl.module import Classifier, acc_per_class
from fmnist_pl.schema import Config
from fmnist_pl.weights import acc_by_weights

Result = dict[str, Any]

REFUSALS = (ValueError, TypeError, ImportError, MisconfigurationException)  # of Lightning's
PATIENCE = 3  # seconds: the worker of a sweep that was killed ends a moment after it

RESULT, PREDICTIONS = "result.json", "predictions.npz"
OWN_FILES = (
    CONFIG,
    RESULT,
    PREDICTIONS,
    "metrics.csv",
    "checkpoints",
    "embeddings",
    "figures",
    "projector_config.pbtxt",
    "events.out.tfevents.*",
    "hparams.yaml",
)


def run(config: Config, folder: Path) -> Result:
    """Train, validate and test one configuration; the content of `result.json`.

    Args:
        config: of the run; checked here.
        folder: created if need be. A finished run of the same configuration there is answered
            from its `result.json`, an unfinished one continues.

    Raises:
        UserError: an impossible configuration; a folder with another run or in use; no data; no
            room on the disk or in memory; no end within `time_limit`.
    """
    config = resolve(config)
    with locked(folder), limited(config.time_limit), told_if_refused(folder):
        if config.overwrite:
            for pattern in OWN_FILES:
                for path in folder.glob(pattern):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (folder / CONFIG).exists():
            check_same(config, folder)
        else:
            write_atomically(folder / CONFIG, OmegaConf.to_yaml(config))
        if (folder / RESULT).exists():
            check_finished(folder)
        else:
            content = json.dumps(fit_and_test(config, folder), indent=1)
            write_atomically(folder / RESULT, content + "\n")
        result: Result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, created, and kept from every other process until the end."""
    make_folder(folder)
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: nothing can be kept there ({error.strerror}).") from None
    with file:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{folder}: another process is at work on this run.") from None
                time.sleep(0.1)
        yield


def check_finished(folder: Path) -> None:
    """Refuse what a finished run has left if it is damaged, or another version's."""
    from fmnist_pl.report.runs import State, read_run  # brings scipy

    if (found := read_run(folder)).state is State.UNREADABLE:
        raise UserError(
            f"{folder}: {found.problem} Delete {RESULT}, and the same command tests the run again; "
            "overwrite=true trains it anew."
        )


@contextmanager
def limited(minutes: float | None) -> Iterator[None]:
    """Stop what takes longer, be it that it hangs."""
    if minutes is None:
        yield
        return

    def stop(*_: Any) -> None:
        raise UserError(
            f"time_limit={minutes:g}: not done after as many minutes. "
            "The same command goes on from the last whole epoch."
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def told_if_refused(folder: Path) -> Iterator[None]:
    """What the machine refuses, disk or memory, told as what the user can mend."""
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename or folder
        reason = error.strerror or error
        raise UserError(f"{path}: {reason}. Once mended, the same command goes on.") from error
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_memory and "can't allocate memory" not in str(error):  # torch's on a CPU
            raise
        raise UserError("out of memory: give a smaller data.batch_size or model.") from error


def fit_and_test(config: Config, folder: Path) -> Result:
    """Train from scratch or from the last checkpoint, test, and leave all that a run leaves."""
    quieten()
    if config.threads:
        torch.set_num_threads(config.threads)
    data, seed = config.data, config.seed
    options = asdict(config.trainer)
    limit = options.pop("limit_train_batches")  # Lightning would count chunks
    datamodule = FashionMNIST(data, config.classes, parse_ops(config.augment.ops), seed, limit)
    classifier = Classifier(
        asdict(config.model),
        config.classes,
        asdict(config.optimizer),
        seed,
        data={"val_size": data.val_size, "split_seed": data.split_seed},
    )
    record = Record(folder)
    progress = [Progress(f"{config.name}-{seed}", record)]
    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    logger.log_hyperparams(hyperparameters(config))
    try:
        trainer = L.Trainer(
            **options,
            logger=logger,
            callbacks=[record, *(progress if config.trainer.enable_progress_bar else [])],
            default_root_dir=folder,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except REFUSALS as error:  # of a device there is not, say
        raise UserError(f"trainer: {error}") from error
    checkpoint = resumable(record.last, classifier)
    try:
        trainer.fit(classifier, datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C and SIGTERM
        if isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    tested = record.best if config.test.checkpoint == "best" else record.last
    trainer.test(classifier, datamodule, ckpt_path=tested, weights_only=True, verbose=False)

    # As from the checkpoint: in single precision, in whatever it was trained.
    classifier.eval().float()
    record.average.float()
    predictions = predict(classifier, datamodule.splits["test"][0])
    save_predictions(folder / PREDICTIONS, predictions, datamodule.splits["test"][1])
    result = {
        **summarise(config, classifier, record, trainer),
        "test/acc_by_weights": acc_by_weights(classifier, record, datamodule),
        "test/knn_acc": project(config.embeddings, classifier, datamodule, folder),
        **describe_environment(trainer.strategy.root_device, trainer.world_size),
    }
    images, labels = (tensor.cpu().numpy() for tensor in datamodule.splits["test"])
    drawn = pictures.draw(result, "test", images, labels, predictions.probabilities, record.rows)
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
