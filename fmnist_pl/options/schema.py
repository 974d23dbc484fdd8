"""The typed schema of `conf/`: every option with its default, its range and one line of help.

Hydra composes the YAML files against these dataclasses, so a misspelt key or a wrong type stops
before any work.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fmnist_pl.options.fields import option

FASHION_MNIST = "fashion_mnist"  # the study's data set, and what 0.1.0 does not name


@dataclass(slots=True)  # a misspelt option is no attribute
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
    net: dict[str, Any] = option(
        {}, "In place of these layers: `_target_` and arguments of what makes a net."
    )


@dataclass(slots=True)
class DataSet:
    """What a data set is: a file of `conf/data/`."""

    name: str = option(FASHION_MNIST, "Of the data set; what was fetched is kept under it.")
    title: str = option("", "Its name in sentences, if it is another.", identity=False)
    format: str = option(
        "idx",
        "Four idx files, named as MNIST's; or images in a folder for each class.",
        choices=("idx", "folders"),
    )
    class_names: list[str] = option([], "By label; if not given, the names of the class folders.")
    train_images: int | None = option(None, "With those for validation; null: all there are.", ge=2)
    test_images: int | None = option(None, "Likewise.", ge=1)
    hashes: dict[str, str] = option(
        {},
        "By file, ALGORITHM:HEX of its content; of NAME.gz, of the packed file.",
    )
    mirrors: list[str] = option([], "URLs of folders with the files, packed.", identity=False)
    debian_package: str | None = option(None, "That has the files.", identity=False)


@dataclass(slots=True)
class Data(DataSet):
    """What the data set is and where its files are, and how it is split and batched."""

    root: str | None = option(None, "Folder of the data set; looked at first.", identity=False)
    batch_size: int = option(32, "Training images a step, over all devices.", ge=1)
    val_size: int | None = option(
        10_000, "Training images held out for validation; null: a sixth of them.", ge=1
    )
    split_seed: int = option(42, "Seed of the training/validation split.", ge=0, lt=2**32)


@dataclass(slots=True)
class Augment:
    """Random changes to training images, drawn for each image anew in every epoch."""

    name: str = option("custom", "Name of the list.")
    ops: list[Any] = option(help="In order, each `{name: {parameter: value}}`, as listed below.")


@dataclass(slots=True)
class Trainer:
    """Lightning's Trainer, under Lightning's names."""

    max_epochs: int = option(10, "Epochs to train.", ge=1)
    min_epochs: int | None = option(None, "Epochs before which nothing stops a run early.", ge=1)
    max_time: str | None = option(None, "Time to train, DD:HH:MM:SS; then the run is done.")
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
    overfit_batches: int | float = option(
        0.0,
        "Train on these first batches (int) or share (float) of them alone; 0: on all.",
        ge=0,
    )
    accumulate_grad_batches: int = option(1, "Batches whose gradients make a step.", ge=1)
    gradient_clip_val: float | None = option(None, "Largest gradient.", gt=0)
    gradient_clip_algorithm: str = option(
        "norm",
        "Clip the norm of all gradients, or each value.",
        choices=("norm", "value"),
    )
    sync_batchnorm: bool = option(
        False,
        "Batch norm of a net of your own over all devices; the study's nets do that in any case.",
    )
    benchmark: bool | None = option(None, "Let cuDNN try which of its algorithms is fastest.")
    detect_anomaly: bool = option(
        False,
        "Stop where a gradient becomes NaN, and show what made it.",
        identity=False,
    )
    log_every_n_steps: int | None = option(
        None,
        "Give loggers the loss of every so many steps; null: figures of epochs alone.",
        ge=1,
        identity=False,
    )
    profiler: str | None = option(
        None,
        "Measure what takes the time, into the folder profile; pytorch: a trace of all operations.",
        choices=("simple", "advanced", "pytorch"),
        identity=False,
    )
    enable_progress_bar: bool = option(True, "Progress at the terminal.", identity=False)


@dataclass(slots=True)
class Test:
    """What the test figures are of."""

    checkpoint: str = option("last", "Weights to test.", choices=("last", "best"))


@dataclass(slots=True)
class Seeds:
    """What `seed` decides, source by source: of each a seed of its own; null: `seed`."""

    init: int | None = option(None, "Of the initial weights.", ge=0, lt=2**32)
    order: int | None = option(None, "Of the order of the images in every epoch.", ge=0, lt=2**32)
    augment: int | None = option(
        None,
        "Of what augmentation does to the first image that an epoch shows, the second, and so on, "
        "whichever they are.",
        ge=0,
        lt=2**32,
    )
    dropout: int | None = option(
        None, "Of dropout and any other chance in a net that trains.", ge=0, lt=2**32
    )

    def own(self) -> dict[str, int]:
        """Those that are not that of the run, by source."""
        return {source: seed for source, seed in asdict(self).items() if seed is not None}


@dataclass(slots=True)
class Config:
    """One run. `conf/` holds the values of the study."""

    name: str = option(help="Name of the run; with the seed it names the folder.")
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    classes: dict[str, list[int]] = option(
        {}, "Name to original labels; {}: the classes as they are."
    )
    data: Data = field(default_factory=Data)
    optimizer: dict[str, Any] = option(
        {},
        "`_target_`, a class as those of torch.optim, and arguments; {}: the study's Adam.",
    )
    schedule: dict[str, Any] = option(
        {}, "Of the learning rate: `_target_`, arguments and when it steps; {}: constant."
    )
    callbacks: dict[str, Any] = option({}, "Of Lightning, by name: `_target_` and arguments.")
    logger: dict[str, Any] = option(
        {}, "Beside TensorBoard's, by name: `_target_` and arguments.", identity=False
    )
    trainer: Trainer = field(default_factory=Trainer)
    test: Test = field(default_factory=Test)
    embeddings: str = option(
        "test",
        "Images whose embeddings go to TensorBoard's projector; all: training images, too.",
        choices=("none", "test", "all"),
    )
    pictures: bool = option(True, "Draw the pictures of a run.", identity=False)
    seed: int = option(0, "Seed of initial weights, order, augmentation, dropout.", ge=0, lt=2**32)
    seeds: Seeds = field(default_factory=Seeds)
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
    pause_after: int | None = option(
        None, "Epochs to pause after; the same command without it goes on.", ge=1, identity=False
    )
    init_from: str | None = option(None, "Checkpoint whose weights a new run begins with.")
    continue_from: str | None = option(
        None, "Folder of a run whose epochs are the first of this one.", identity=False
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


def for_hydra() -> DictConfig:
    """The schema as Hydra composes it: what stands beside a `_target_` may be any argument."""
    schema = OmegaConf.structured(Config)
    for names in (schema, schema.model):
        for name in names:
            if OmegaConf.get_type(names, name) is dict and name != "classes":
                names[name]._set_flag("struct", False)
    assert isinstance(schema, DictConfig)
    return schema


TOTAL = "total"  # in a schedule: all steps or epochs of the run

ConfigStore.instance().store("schema", for_hydra())
