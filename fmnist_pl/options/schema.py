"""The typed schema of `conf/`: every option with its default, its range and one line of help.

Hydra composes the YAML files against these dataclasses, so a misspelt key or a wrong type stops
before any work.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from fmnist_pl.options.fields import option


@dataclass
class Model:
    """A point in the space of nets: convolution blocks, then dense layers, then the head."""

    name: str = option(help="Name of the variant.")
    channels: list[int] = option(
        [], "Filters of each 3x3 convolution block; [] is an MLP.", ge=1, le=65_536
    )
    hidden: list[int] = option([128], "Units of each hidden dense layer.", ge=1, le=65_536)
    batch_norm: bool = option(False, "Batch normalisation between convolution and ReLU.")
    dropout: float = option(0.0, "Dropout after each hidden dense layer.", ge=0, lt=1)
    l1: float = option(0.0, "Weight of the sum of |w| over all kernels in the loss.", ge=0)
    l2: float = option(0.0, "Weight of the sum of w^2 over all kernels in the loss.", ge=0)


@dataclass
class Optimizer:
    """Adam, with Keras' defaults."""

    lr: float = option(1e-3, "Learning rate.", gt=0)
    beta1: float = option(0.9, "Decay of the first moment.", ge=0, lt=1)
    beta2: float = option(0.999, "Decay of the second moment.", ge=0, lt=1)
    eps: float = option(1e-7, "Added to the denominator.", gt=0)


@dataclass
class Data:
    """Where the data set is, and how it is split and batched."""

    root: str | None = option(None, "Folder of the idx files; looked at first.", identity=False)
    batch_size: int = option(32, "Training images a step, over all devices.", ge=1, le=60_000)
    val_size: int = option(10_000, "Images held out for validation.", ge=1, le=59_999)
    split_seed: int = option(42, "Seed of the training/validation split.", ge=0, lt=2**32)


@dataclass
class Augment:
    """Random changes to training images, drawn for each image anew in every epoch."""

    name: str = option("custom", "Name of the list.")
    ops: list[Any] = option([], "In order, each `{name: {parameter: value}}`.")


@dataclass
class Trainer:
    """Lightning's Trainer, under Lightning's names."""

    max_epochs: int = option(10, "Epochs to train.", ge=1)
    accelerator: str = option("auto", "auto, cpu, gpu, ...")
    devices: Any = option(1, "Number of devices, a list of which, as [1], or auto.")
    num_nodes: int = option(1, "Machines.", ge=1)
    strategy: str = option("auto", "auto, ddp, ...")
    precision: str = option(
        "32-true", "Arithmetic.", choices=("32-true", "bf16-mixed", "16-mixed", "64-true")
    )
    deterministic: bool = option(False, "Refuse operations that are not reproducible.")
    fast_dev_run: bool | int = option(
        False, "One batch, or as many, of everything in one epoch: does it all work?", ge=0
    )
    limit_train_batches: int | float = option(1.0, "Batches (int) or share of them (float).", gt=0)
    limit_val_batches: int | float = option(1.0, "Likewise, of 250 images each.", gt=0)
    limit_test_batches: int | float = option(1.0, "Likewise, of 250 images each.", gt=0)
    enable_progress_bar: bool = option(True, "Progress at the terminal.", identity=False)


@dataclass
class Test:
    """What the test figures are of."""

    checkpoint: str = option("last", "Weights to test.", choices=("last", "best"))


@dataclass
class Config:
    """One run. `conf/` holds the values of the study."""

    name: str = option(help="Name of the run; with the seed it names the folder.")
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    classes: dict[str, list[int]] = option({}, "Name to original labels; {}: the original ten.")
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    trainer: Trainer = field(default_factory=Trainer)
    test: Test = field(default_factory=Test)
    embeddings: str = option(
        "test",
        "Images whose embeddings go to TensorBoard's projector; all: training images, too.",
        choices=("none", "test", "all"),
    )
    pictures: bool = option(True, "Draw the pictures of a run.", identity=False)
    seed: int = option(0, "Seed of initial weights, order, augmentation, dropout.", ge=0, lt=2**32)
    threads: int | None = option(
        1, "CPU threads; more only help where nothing else runs. null: all cores.", ge=1, le=1024
    )
    float32_matmul_precision: str = option(
        "highest",
        "Of 32-true on a GPU: high and medium let it round factors, as to TF32.",
        choices=("highest", "high", "medium"),
    )
    cuda_graphs: bool = option(
        True, "On a CUDA device, the steps of a chunk as one graph.", identity=False
    )
    compile: bool = option(False, "Train with the net compiled by torch.compile.")
    time_limit: float | None = option(
        None, "Minutes to stop after; the same command goes on.", gt=0, le=525_600, identity=False
    )
    overwrite: bool = option(False, "Start anew in a folder that has a run.", identity=False)
    runs_per_device: int | None = option(
        None,
        "Of a sweep, how many runs share a GPU; null: as many as its memory holds.",
        ge=1,
        identity=False,
    )
    fail_fast: bool = option(False, "Stop a sweep at the first run that fails.", identity=False)
    max_requeues: int = option(10, "How often SLURM may start a run again.", ge=0, identity=False)


ConfigStore.instance().store("schema", Config)
