"""Checked configurations: what the schema cannot say, said here, before anything runs.

`resolve` turns what Hydra composed into plain dataclasses, which is what every other module takes.
Nothing here imports torch: `--help` and a configuration error answer at once.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmnist_pl.schema import OPS, Config, Data, Op, Trainer

CONF_DIR = str(
    next(
        folder
        for folder in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf")
        if folder.is_dir()  # in a wheel; in a checkout
    )
)

CONFIG = "config.yaml"  # in the folder of a run: all its options

TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000  # of the data set
EVAL_BATCH_SIZE = 250  # larger activations are mapped and unmapped at every layer
MAX_BLOCKS = 4  # of convolution and pooling, which make 28x28 pixels 1x1

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


class InUseError(UserError):
    """Another process is at work in the folder of a run."""


def resolve(config: DictConfig | ListConfig | Config) -> Config:
    """A checked configuration of plain values.

    Args:
        config: as composed by Hydra, or built by hand.

    Raises:
        UserError: a key that is unknown or has no value, a value out of its range, an unknown
            operation, an impossible grouping.
    """
    if not isinstance(config, Config):
        try:  # the schema once more, which +key=value on the command line goes round
            plain = OmegaConf.to_container(config, resolve=True)
            resolved = OmegaConf.to_object(OmegaConf.merge(Config, plain))
        except OmegaConfBaseException as error:
            raise UserError(f"{error.full_key}: {str(error.msg).splitlines()[0]}.") from None
        assert isinstance(resolved, Config)
        config = resolved
    check(config)
    spell_out(config.trainer)
    check_sizes(config)
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
                if isinstance(one, float) and not math.isfinite(one):
                    raise UserError(f"{name}={value}: must be a finite number.")
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


def spell_out(trainer: Trainer) -> None:
    """Put `fast_dev_run` as the limits it stands for: the run leaves all that any run leaves."""
    if batches := int(trainer.fast_dev_run):
        trainer.max_epochs, trainer.fast_dev_run = 1, False
        trainer.limit_train_batches = batches
        trainer.limit_val_batches = batches
        trainer.limit_test_batches = batches


def check_sizes(config: Config) -> None:
    """Hold against each other the sizes of images, batches, epochs and devices."""
    data, trainer, channels = config.data, config.trainer, config.model.channels
    if len(channels) > MAX_BLOCKS:
        raise UserError(
            f"model.channels={channels}: at most {MAX_BLOCKS} blocks; each halves the images, and "
            "after as many one pixel is left."
        )
    for split, images, batch_size in (
        ("train", TRAIN_IMAGES - data.val_size, data.batch_size),
        ("val", data.val_size, EVAL_BATCH_SIZE),
        ("test", TEST_IMAGES, EVAL_BATCH_SIZE),
    ):
        name, batches = f"limit_{split}_batches", -(-images // batch_size)
        limit = getattr(trainer, name)
        if isinstance(limit, float) and not 1 <= int(limit * batches) <= batches:
            raise UserError(
                f"trainer.{name}={limit}: must be a share, up to 1.0, that comes to one at least "
                f"of the {batches} batches; or a number of batches, without a point."
            )
    if isinstance(trainer.devices, int) and trainer.devices > 0:
        check_shares(data, trainer.devices * trainer.num_nodes)


def check_shares(data: Data, devices: int) -> None:
    """Refuse batches that cannot be shared out equally, the last, short one among them."""
    for size in (data.batch_size, (TRAIN_IMAGES - data.val_size) % data.batch_size):
        if size % devices:
            raise UserError(
                f"data.batch_size={data.batch_size}: {devices} devices cannot have equal shares "
                f"of a batch of {size} images."
            )


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
