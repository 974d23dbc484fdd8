"""From composed options to a checked `Config`: what the schema cannot say, before anything runs.

`resolve` turns what Hydra composed into plain dataclasses, which is what every other module takes.
Nothing here imports torch: `--help` and a configuration error answer at once.
"""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from fmnist_pl.data.augment import asdict_op, parse_ops
from fmnist_pl.data.protocol import (
    EVAL_BATCH_SIZE,
    TEST_IMAGES,
    TRAIN_IMAGES,
    check_classes,
    check_shares,
)
from fmnist_pl.files import CONFIG
from fmnist_pl.options.fields import check
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.refusals import no_such_option
from fmnist_pl.options.schema import Config, Trainer

MAX_BLOCKS = 4  # of convolution and pooling, which make 28x28 pixels 1x1


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
        except ConfigKeyError as error:
            raise UserError(no_such_option(str(error.full_key))) from None
        except OmegaConfBaseException as error:
            raise UserError(f"{error.full_key}: {str(error.msg).splitlines()[0]}.") from None
        assert isinstance(resolved, Config)
        config = resolved
    check(config)
    check_devices(config.trainer.devices)
    spell_out(config.trainer)
    check_sizes(config)
    config.classes = check_classes(config.classes)
    config.augment.ops = [asdict_op(op) for op in parse_ops(config.augment.ops)]
    return config


def spell_out(trainer: Trainer) -> None:
    """Put `fast_dev_run` as the limits it stands for: the run leaves all that any run leaves."""
    if batches := int(trainer.fast_dev_run):
        trainer.max_epochs, trainer.fast_dev_run = 1, False
        trainer.limit_train_batches = batches
        trainer.limit_val_batches = batches
        trainer.limit_test_batches = batches


def check_devices(devices: Any) -> None:
    """Refuse what names no devices to Lightning."""
    some = devices if isinstance(devices, list) else [devices]
    numbers = all(type(one) is int for one in some) and len(set(some)) == len(some) > 0
    if not numbers and not isinstance(devices, str):
        raise UserError(
            f"trainer.devices={devices}: must be how many, as 2; which, as [1] or [0,2]; or auto."
        )


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
    if isinstance(trainer.devices, list):
        check_shares(data, len(trainer.devices) * trainer.num_nodes)
    elif isinstance(trainer.devices, int) and trainer.devices > 0:
        check_shares(data, trainer.devices * trainer.num_nodes)


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
    if isinstance(devices := config.trainer.devices, list):
        result["trainer"]["devices"] = len(devices)  # which ones, changes nothing
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
