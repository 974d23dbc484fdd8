"""The typed schema of `conf/`: every option with its default, its range and one line of help.

Hydra composes the YAML files against these dataclasses, so a misspelt key or a wrong type stops
before any work; `resolve` adds the ranges and returns plain dataclasses, which is what every other
module takes. Nothing here imports torch: `--help` and a configuration error answer at once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING as REQUIRED
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONF_DIR = str(
    next(
        folder
        for folder in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf")
        if folder.is_dir()  # in a wheel; in a checkout
    )
)

CONFIG = "config.yaml"  # in the folder of a run: all its options

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class UserError(ValueError):
    """A mistake of the user's, told in one message: the thing, what is legal, the remedy."""


def option(default: Any = REQUIRED, help: str = "", **limits: Any) -> Any:
    """A dataclass field with its line of help and its legal values.

    Args:
        default: a value, a list or dict (copied for each instance), or nothing: must be given.
        help: one line for the reference of all options.
        limits: any of `ge`, `gt`, `le`, `lt` (for a list: of every item) and `choices`.
            `identity=False` marks an option that does not change what a run computes.
    """
    metadata = {"help": help, "limits": limits, "identity": limits.pop("identity", True)}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=MISSING if default is REQUIRED else default, metadata=metadata)


@dataclass
class Model:
    """A point in the space of nets: convolution blocks, then dense layers, then the head."""

    name: str = option(help="Name of the variant.")
    channels: list[int] = option([], "Filters of each 3x3 convolution block; [] is an MLP.", ge=1)
    hidden: list[int] = option([128], "Units of each hidden dense layer.", ge=1)
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
    batch_size: int = option(32, "Training images a step, over all devices.", ge=1)
    val_size: int = option(10_000, "Images held out for validation.", ge=1, le=59_999)
    split_seed: int = option(42, "Seed of the training/validation split.", ge=0, lt=2**32)


@dataclass
class Rotate:
    """Rotation about the centre, bilinear, edges repeated."""

    degrees: float = option(5.0, "Angle uniform in [-degrees, degrees].", ge=0, le=180)


@dataclass
class FlipHorizontal:
    """Left and right exchanged."""

    p: float = option(0.5, "Probability.", ge=0, le=1)


@dataclass
class FlipVertical:
    """Top and bottom exchanged."""

    p: float = option(0.5, "Probability.", ge=0, le=1)


@dataclass
class Cutout:
    """A rectangle painted over with one dark value."""

    p: float = option(0.5, "Probability.", ge=0, le=1)
    min_size: int = option(1, "Smallest height and width, pixels.", ge=1, le=28)
    max_size: int = option(9, "Largest height and width, pixels.", ge=1, le=28)
    max_value: float = option(0.02, "Paint uniform in [0, max_value].", ge=0, le=1)


@dataclass
class RandomCrop:
    """A window, resized to 28x28 bicubically."""

    min_size: int = option(25, "Smallest height and width, pixels.", ge=1, le=28)
    max_size: int = option(27, "Largest height and width, pixels.", ge=1, le=28)


@dataclass
class Noise:
    """Gaussian noise on every pixel."""

    std: float = option(0.01, "Standard deviation; pixels are in [0, 1].", ge=0)


Op = Rotate | FlipHorizontal | FlipVertical | Cutout | RandomCrop | Noise

OPS: dict[str, type[Op]] = {
    "rotate": Rotate,
    "flip_horizontal": FlipHorizontal,
    "flip_vertical": FlipVertical,
    "cutout": Cutout,
    "random_crop": RandomCrop,
    "noise": Noise,
}


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
    devices: int | str = option(1, "Number of devices, or auto.")
    num_nodes: int = option(1, "Machines.", ge=1)
    strategy: str = option("auto", "auto, ddp, ...")
    precision: str = option(
        "32-true", "Arithmetic.", choices=("32-true", "bf16-mixed", "16-mixed", "64-true")
    )
    deterministic: bool = option(False, "Refuse operations that are not reproducible.")
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
    seed: int = option(0, "Seed of initial weights, order, augmentation, dropout.", ge=0, lt=2**32)
    threads: int | None = option(None, "CPU threads; null: one for each core.", ge=1)
    overwrite: bool = option(False, "Start anew in a folder that has a run.", identity=False)
    fail_fast: bool = option(False, "Stop a sweep at the first run that fails.", identity=False)


ConfigStore.instance().store("schema", Config)


def resolve(config: DictConfig | ListConfig | Config) -> Config:
    """A checked configuration of plain values.

    Args:
        config: as composed by Hydra, or built by hand.

    Raises:
        UserError: a value out of its range, an unknown operation, an impossible grouping.
    """
    if not isinstance(config, Config):
        resolved = OmegaConf.to_object(config)
        assert isinstance(resolved, Config), "composed without the schema"
        config = resolved
    check(config)
    config.classes = check_classes(config.classes)
    config.augment.ops = [asdict_op(op) for op in parse_ops(config.augment.ops)]
    return config


def check(options: Any, prefix: str = "") -> None:
    """Hold every field of a dataclass, nested ones too, against the limits of its declaration."""
    for item in fields(options):
        name, value = f"{prefix}{item.name}", getattr(options, item.name)
        if is_dataclass(value):
            check(value, f"{name}.")
        elif value is not None:
            limits = item.metadata["limits"]
            for one in value if isinstance(value, list) else [value]:
                if not _within(one, **limits):
                    raise UserError(f"{name}={value}: must be {describe(**limits)}.")


def _within(
    value: Any,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[Any] | None = None,
) -> bool:
    # Each comparison is written so that NaN fails it.
    return (
        (ge is None or value >= ge)
        and (gt is None or value > gt)
        and (le is None or value <= le)
        and (lt is None or value < lt)
        and (choices is None or value in choices)
    )


def describe(**limits: Any) -> str:
    """The legal values in words, as in `at least 0 and less than 1`."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    if "choices" in limits:
        return "one of " + ", ".join(map(str, limits["choices"]))
    return " and ".join(f"{words[kind]} {limit}" for kind, limit in limits.items())


def check_classes(classes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The grouping, with the original ten classes in place of an empty one.

    Args:
        classes: name of a new class to the original labels it takes, each label 0 to 9 once.

    Raises:
        UserError: a label missing, listed twice or out of range; an empty or a single class.
    """
    if not classes:
        return {name: [label] for label, name in enumerate(CLASS_NAMES)}
    count = Counter(label for labels in classes.values() for label in labels)
    legal = f"each label 0 to {len(CLASS_NAMES) - 1} belongs to exactly one class."
    if len(classes) == 1:
        raise UserError(f"classes: only {next(iter(classes))!r} is given; at least two are needed.")
    for name, labels in classes.items():
        if not labels:
            raise UserError(f"classes: {name!r} has no labels; {legal}")
    for label in sorted(count):
        if not 0 <= label < len(CLASS_NAMES):
            raise UserError(f"classes: label {label} does not exist; {legal}")
        if count[label] > 1:
            raise UserError(f"classes: label {label} is listed {count[label]} times; {legal}")
    for label, name in enumerate(CLASS_NAMES):
        if label not in count:
            raise UserError(f"classes: label {label} ({name}) is missing; {legal}")
    return {name: list(labels) for name, labels in classes.items()}


def parse_ops(ops: Sequence[Any]) -> list[Op]:
    """The operations of `augment.ops`, in order.

    Args:
        ops: one `{name: {parameter: value}}` each; parameters left out keep their defaults.

    Raises:
        UserError: an unknown operation or parameter, a wrong type, a value out of range.
    """
    parsed = []
    for op in ops:
        if not isinstance(op, Mapping) or len(op) != 1:
            raise UserError(
                f"augment.ops: {op!r} is not of the form {{name: {{parameter: value}}}}."
            )
        [(name, parameters)] = op.items()
        if name not in OPS:
            raise UserError(f"augment.ops: no operation {name!r}; there are {', '.join(OPS)}.")
        schema = OPS[name]
        legal = ", ".join(item.name for item in fields(schema))
        try:
            one: Any = OmegaConf.to_object(OmegaConf.merge(schema, parameters or {}))
        except OmegaConfBaseException as error:
            raise UserError(
                f"augment.ops: {name}: {str(error.msg).splitlines()[0]}; its parameters: {legal}."
            ) from None
        check(one, f"augment.ops: {name}.")
        if getattr(one, "min_size", 0) > getattr(one, "max_size", 28):
            raise UserError(f"augment.ops: {name}: min_size must be at most max_size.")
        parsed.append(one)
    return parsed


def asdict_op(op: Op) -> dict[str, dict[str, Any]]:
    """The configuration of an operation: the inverse of `parse_ops`, all parameters filled in."""
    name = next(name for name, schema in OPS.items() if type(op) is schema)
    return {name: asdict(op)}


def identity(config: Config) -> dict[str, Any]:
    """The options that decide what a run computes, as plain nested values."""

    def plain(options: Any) -> Any:
        if not is_dataclass(options):
            return options
        return {
            item.name: plain(getattr(options, item.name))
            for item in fields(options)
            if item.metadata.get("identity", True)
        }

    result: dict[str, Any] = plain(config)
    return result


def check_same(config: Config, folder: Path) -> None:
    """Refuse to continue a run of a different configuration; a folder without a run is fine.

    Raises:
        UserError: names what differs.
    """
    if not (folder / CONFIG).exists():
        return
    try:
        old = identity(resolve(OmegaConf.merge(Config, OmegaConf.load(folder / CONFIG))))
    except Exception as error:  # a damaged file: YAML's errors, or a value of another version
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{folder / CONFIG} is no configuration of this version ({reason}). "
            "Name another folder, or give overwrite=true to start anew in this one."
        ) from None
    new = identity(config)
    different = [
        f"{name}.{key}" if key else name
        for name in new
        for key in (new[name] if isinstance(new[name], dict) else [""])
        if (old[name].get(key) != new[name][key] if key else old[name] != new[name])
    ]
    if different:
        raise UserError(
            f"{folder} holds a run of a different configuration ({', '.join(different)}). "
            "Name another folder, or give overwrite=true to start anew in this one."
        )
