"""One run in its folder, from configuration to `result.json`.

A folder with `result.json` is a finished run; with `config.yaml` alone, an unfinished one, which
the same configuration continues from `checkpoints/last.ckpt`.
"""

import fcntl
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from torch import Tensor

from fmnist_pl import dataset
from fmnist_pl.callbacks import Progress, Record, move_into_place, write_atomically
from fmnist_pl.config import Config, UserError, identity, parse_ops, resolve
from fmnist_pl.datamodule import FashionMNIST
from fmnist_pl.inference import Predictions, predict
from fmnist_pl.module import Classifier

Result = dict[str, Any]

CONFIG, RESULT, PREDICTIONS = "config.yaml", "result.json", "predictions.npz"
OWN_FILES = (
    CONFIG,
    RESULT,
    PREDICTIONS,
    "metrics.csv",
    "checkpoints",
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
        UserError: an impossible configuration; a folder with another run or in use; no data.
    """
    config = resolve(config)
    with locked(folder):
        if config.overwrite:
            for pattern in OWN_FILES:
                for path in folder.glob(pattern):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (folder / CONFIG).exists():
            check_same(config, folder)
        else:
            write_atomically(folder / CONFIG, OmegaConf.to_yaml(config))
        if not (folder / RESULT).exists():
            content = json.dumps(fit_and_test(config, folder), indent=1)
            write_atomically(folder / RESULT, content + "\n")
        result: Result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, created, and kept from every other process until the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: no run can be kept there ({error.strerror}).") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is at work on this run.") from None
        yield


def check_same(config: Config, folder: Path) -> None:
    """Refuse to continue a run of a different configuration.

    Raises:
        UserError: names what differs.
    """
    stored = resolve(OmegaConf.merge(Config, OmegaConf.load(folder / CONFIG)))
    old, new = identity(stored), identity(config)
    different = [
        f"{name}.{key}" if isinstance(old[name], dict) else name
        for name in new
        if old[name] != new[name]
        for key in (new[name] if isinstance(old[name], dict) else [""])
        if not isinstance(old[name], dict) or old[name].get(key) != new[name].get(key)
    ]
    if different:
        raise UserError(
            f"{folder} holds a run of a different configuration ({', '.join(different)}). "
            "Name another folder, or give overwrite=true to start anew in this one."
        )


def fit_and_test(config: Config, folder: Path) -> Result:
    """Train from scratch or from the last checkpoint, then test."""
    quieten()
    # Lightning asks NVML whether there is a GPU; the optimizer would repeat that every step.
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    if config.threads:
        torch.set_num_threads(config.threads)
    datamodule = FashionMNIST(
        config.data, config.classes, parse_ops(config.augment.ops), config.seed
    )
    module = Classifier(asdict(config.model), config.classes, asdict(config.optimizer), config.seed)
    record = Record(folder)
    progress = [Progress(f"{config.name}-{config.seed}", record)]
    trainer = L.Trainer(
        **asdict(config.trainer),
        logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
        callbacks=[record, *(progress if config.trainer.enable_progress_bar else [])],
        default_root_dir=folder,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(
        module,
        datamodule,
        ckpt_path=record.last if record.last.exists() else None,
        weights_only=True,
    )
    tested = record.best if config.test.checkpoint == "best" else record.last
    trainer.test(module, datamodule, ckpt_path=tested, weights_only=True, verbose=False)
    images, labels = datamodule.splits["test"]
    save_predictions(folder / PREDICTIONS, predict(module.eval(), images), labels)
    return summarise(config, module, record, trainer)


def save_predictions(path: Path, predictions: Predictions, labels: Tensor) -> None:
    """Keep `logits`, float32 (N, C), and `labels`, int64 (N,), of the test images in order."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, logits=predictions.logits, labels=labels.cpu())
    move_into_place(part, path)


def summarise(config: Config, module: Classifier, record: Record, trainer: L.Trainer) -> Result:
    """The content of `result.json`; names with a slash are those of `metrics.csv` and TensorBoard.

    Training and validation figures are those of the epoch whose weights were tested.
    """
    tested = record.best_row if config.test.checkpoint == "best" else record.rows[-1]
    confusion = module.confusion["test"].cpu()
    per_class = (confusion.diagonal().double() / confusion.sum(1)).tolist()
    seconds = sum(row["seconds"] for row in record.rows)
    return {
        "name": config.name,
        "model": config.model.name,
        "seed": config.seed,
        "classes": config.classes,
        "augment": config.augment.name,
        "epochs": len(record.rows),
        "parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "tested_checkpoint": config.test.checkpoint,
        **{name: value for name, value in tested.items() if "/" in name},
        **{k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("test/")},
        "test/acc_per_class": dict(zip(config.classes, per_class, strict=True)),
        "test/confusion_matrix": confusion.tolist(),
        "best_epoch": record.best_row["epoch"],
        "best_val_acc": record.best_row["val/acc"],
        "seconds": seconds,
        "images_per_second": sum(row["images"] for row in record.rows) / seconds,
        **environment(trainer),
    }


def environment(trainer: L.Trainer) -> Result:
    """What ran it: hardware, versions, the commit of the code, the hashes of the data."""
    device = trainer.strategy.root_device
    try:
        cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        cpu = None
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return {
        "hardware": {
            "cpu": cpu[1] if cpu else platform.processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "devices": trainer.world_size,
        },
        "versions": {
            "python": platform.python_version(),
            **{
                package: version(package)
                for package in ("fmnist_pl", "torch", "lightning", "torchmetrics", "numpy")
            },
        },
        "git_commit": commit.stdout.strip() or None,
        "data_sha256": dataset.SHA256,
    }


def quieten() -> None:
    """Silence what Lightning says of every run and the user can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*`srun` command is available.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*tensorboardX.*",
    ):
        warnings.filterwarnings("ignore", message)
