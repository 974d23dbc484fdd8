"""`examples/textbook.py` with any of the deviations by which `fmnist_pl` is faster.

Each is a class of its own, laid over the textbook's, and what it brings is the package's.
`textbook.py` measures them, `input_path.py` the textbook as it is.
"""

import importlib.util
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from fmnist_pl.data.augment import parse_ops
from fmnist_pl.data.datamodule import CHUNK_SIZE, Batch, FashionMNIST, TrainChunks
from fmnist_pl.model import nets
from fmnist_pl.model.classifier import figures_of
from fmnist_pl.options.schema import Config, Model
from fmnist_pl.training import checkpoints
from fmnist_pl.training.environment import quieten


def load(path: Path) -> ModuleType:
    """A module that is in no package."""
    spec = importlib.util.spec_from_file_location("example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


textbook = load(Path(__file__).parents[1] / "examples" / "textbook.py")


class SingleBatches:
    """The package's chunks, made as always, one batch a step."""

    def __init__(self, chunks: TrainChunks) -> None:
        self.chunks = chunks

    def __len__(self) -> int:
        return self.chunks.num_batches

    def __iter__(self) -> Iterator[Batch]:
        return chain.from_iterable(self.chunks)


class Tensors(FashionMNIST):
    """Data: tensors on the device, augmented many at once, in place of a DataLoader."""

    def train_dataloader(self) -> Any:
        return SingleBatches(super().train_dataloader())


class Metrics:
    """Metrics: outputs are kept, their figures computed and logged once an epoch."""

    def on_fit_start(self) -> None:
        self.outputs: dict[str, list[Any]] = defaultdict(list)

    def shared_step(self, batch: Batch, metrics: Any) -> torch.Tensor:
        images, labels = batch
        logits, penalty = self(images), self.penalty()
        kept = logits.detach(), labels, penalty.detach().expand(len(labels))
        self.outputs[metrics.prefix].append(kept)
        return F.cross_entropy(logits, labels) + penalty

    def on_train_epoch_end(self) -> None:
        self.log_epoch("train/")

    def on_validation_epoch_end(self) -> None:
        self.log_epoch("val/")

    def log_epoch(self, prefix: str) -> None:
        logits, labels, penalties = map(torch.cat, zip(*self.outputs.pop(prefix), strict=True))
        figures, _ = figures_of(logits, labels, penalties)
        self.log_dict({f"{prefix}{name}": figure for name, figure in figures.items()})


class Block:
    """Block: the package's net, the same function as the textbook's layers."""

    def configure_model(self) -> None:
        options = {name: value for name, value in self.hparams.items() if name != "lr"}
        self.net = nets.build_net(Model("block", **options), textbook.NUM_CLASSES)


class Chunks:
    """Chunks: many steps in one turn of Lightning's loop, so optimized by hand."""

    automatic_optimization = False

    def training_step(self, chunk: list[Batch], batch_idx: int) -> None:
        optimizer = self.optimizers()
        for batch in chunk:
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()


class Grouped:
    """The batches of a DataLoader, as many in a list as the package has in a chunk."""

    def __init__(self, loader: Iterable[Batch], batches: int, batch_size: int) -> None:
        self.loader, self.batches, self.size = loader, batches, CHUNK_SIZE // batch_size

    def __len__(self) -> int:
        return -(-self.batches // self.size)

    def __iter__(self) -> Iterator[list[Batch]]:
        batches = islice(self.loader, self.batches)
        while chunk := list(islice(batches, self.size)):
            yield chunk


class GroupedData(textbook.FashionMNISTData):
    """The textbook's data for `Chunks`."""

    limit: int | float = 1.0

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        limit = self.limit if isinstance(self.limit, int) else int(self.limit * len(loader))
        return Grouped(loader, min(limit, len(loader)), self.hparams.batch_size)


OVER_CLASSIFIER = {"metrics": Metrics, "block": Block, "chunks": Chunks}


class Clock(L.Callback):
    """Seconds from the start of the first epoch to the end of the last."""

    def on_train_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def epoch(config: Config, workers: int = 0, deviations: Collection[str] = ()) -> float:
    """Seconds of one epoch, with its validation, of the textbook with some deviations.

    Args:
        config: of the run.
        workers: of the DataLoaders, where there are any.
        deviations: any of `data`, `metrics`, `block`, `chunks`, `record`.
    """
    quieten()
    L.seed_everything(config.seed, workers=True, verbose=False)
    layers = [OVER_CLASSIFIER[name] for name in deviations if name in OVER_CLASSIFIER]
    options = asdict(config.model)
    del options["name"]
    classifier = type("Classifier", (*layers, textbook.Classifier), {})(
        **options, lr=config.optimizer["lr"]
    )
    limit, clock = config.trainer.limit_train_batches, Clock()
    with TemporaryDirectory() as folder:
        if "data" in deviations:
            kind = FashionMNIST if "chunks" in deviations else Tensors
            ops = parse_ops(config.augment.ops)
            data = kind(config.data, config.classes, ops, config.seed, limit)
        else:
            copy = f"copy_to={folder}/FashionMNIST/raw"
            command = [sys.executable, "-m", "fmnist_pl.dataset", copy]
            subprocess.run(command, check=True, capture_output=True)
            kind = GroupedData if "chunks" in deviations else textbook.FashionMNISTData
            data = kind(folder, config.data.batch_size, workers)
            data.limit = limit
        if "record" in deviations:
            checkpoints.Classifier = textbook.Classifier  # what the record expects
            classifier.confusion = {"train": torch.zeros(())}
            record = checkpoints.Record(Path(folder))
        else:
            record = ModelCheckpoint(monitor="val/acc", mode="max", save_last=True)
        L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            limit_train_batches=limit,
            limit_val_batches=config.trainer.limit_val_batches,
            logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
            callbacks=[clock, record],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        ).fit(classifier, data)
    return clock.seconds
