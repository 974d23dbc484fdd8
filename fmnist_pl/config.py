"""From composed options to a checked `Config`: what the schema cannot say, before anything runs.

`resolve` turns what Hydra composed into plain dataclasses, which is what every other module takes.
Nothing here imports torch: `--help` and a configuration error answer at once.
"""

import re
import signal
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from fmnist_pl.data import augment, source
from fmnist_pl.data.catalogue import believed
from fmnist_pl.data.protocol import EVAL_BATCH_SIZE, check_classes, check_shares, held_out
from fmnist_pl.files import CONFIG
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.fields import check
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.refusals import no_such_option
from fmnist_pl.options.schema import Augment, Config, Model, Trainer
from fmnist_pl.options.targets import TARGET

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
    fill_in(config)
    check(config)
    check_lr(config.optimizer)
    check_net(config.model)
    check_devices(config.trainer.devices)
    check_time(config.trainer.max_time)
    spell_out(config.trainer)
    config.data = source.measured(config.data)
    check_sizes(config)
    config.classes = check_classes(config.classes, config.data.class_names)
    config.augment.ops = augment.spell_out(config.augment.ops)
    return config


def read(path: Path) -> Config:
    """The `config.yaml` of a run, which may be anybody's.

    Raises:
        UserError: as of `resolve`.
    """
    options: Any = OmegaConf.to_container(OmegaConf.load(path))
    return stored(options)


def stored(options: dict[str, Any]) -> Config:
    """The content of that file, checked; of its data as much as is believed."""
    return resolve(OmegaConf.create({**options, "data": believed(options.get("data"))}))


def fill_in(config: Config) -> None:
    """Give a configuration that was built by hand what the command would have."""
    if config.name == MISSING:
        config.name = config.model.name
    if config.augment.ops == MISSING:
        config.augment = Augment(**choice("augment", "standard"))
    config.optimizer = complete(config.optimizer)


def complete(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer with its class; without one it is the study's Adam with other arguments.

    So it is in a configuration that was built by hand, and in one of version 0.1.0, which had
    another name for `betas`.
    """
    if TARGET in optimizer:
        return dict(optimizer)
    standard, given = choice("optimizer", "adam"), dict(optimizer)
    betas = [given.pop(f"beta{i}", beta) for i, beta in enumerate(standard["betas"], 1)]
    return {**standard, "betas": betas, **given}


@cache
def choice(group: str, name: str) -> dict[str, Any]:
    """A file of `conf/`."""
    options: Any = OmegaConf.to_container(OmegaConf.load(Path(CONF_DIR, group, f"{name}.yaml")))
    return dict(options)


def check_lr(optimizer: Mapping[str, Any]) -> None:
    """Refuse a learning rate that is none; all else only the optimizer's class itself can judge."""
    lr = optimizer.get("lr", 1)
    if type(lr) not in (int, float) or not 0 < lr < float("inf"):
        raise UserError(f"optimizer.lr={lr}: must be a number more than 0.")


def check_net(model: Model) -> None:
    """Refuse options of the study's nets where another net takes their place."""
    plain = Model(model.name)
    ours = ("channels", "hidden", "batch_norm", "dropout")
    for name in ours if model.net else ():
        if getattr(model, name) != getattr(plain, name):
            raise UserError(
                f"model.{name}={getattr(model, name)}: has no meaning where model.net makes it."
            )


def check_time(max_time: str | None) -> None:
    """Refuse what is no time to train."""
    if max_time and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", max_time):
        raise UserError(f"trainer.max_time={max_time}: must be of the form DD:HH:MM:SS.")


def check_here(config: Config) -> None:
    """Refuse what can be read but not be trained here; operations from elsewhere are imported.

    Raises:
        UserError: as of `augment.parse_ops`; a time limit where the system has no timer for it.
    """
    augment.parse_ops(config.augment.ops)
    if config.time_limit is not None and not hasattr(signal, "SIGALRM"):
        raise UserError(
            f"time_limit={config.time_limit:g}: this system cannot interrupt a run (it has no "
            "SIGALRM): leave it out."
        )


def spell_out(trainer: Trainer) -> None:
    """Put `fast_dev_run` as the limits it stands for: the run leaves all that any run leaves."""
    if batches := int(trainer.fast_dev_run):
        trainer.max_epochs, trainer.fast_dev_run = 1, False
        trainer.limit_train_batches = batches
        trainer.limit_val_batches = batches
        trainer.limit_test_batches = batches
    if trainer.overfit_batches:
        trainer.limit_val_batches = trainer.overfit_batches


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
    assert data.train_images is not None
    assert data.test_images is not None
    if len(channels) > MAX_BLOCKS:
        raise UserError(
            f"model.channels={channels}: at most {MAX_BLOCKS} blocks; each halves the images, and "
            "after as many one pixel is left."
        )
    overfit = trainer.overfit_batches
    if isinstance(overfit, float) and overfit > 1:
        raise UserError(
            f"trainer.overfit_batches={overfit}: must be a share, up to 1.0, or a number of "
            "batches, without a point."
        )
    if data.batch_size > data.train_images:
        raise UserError(
            f"data.batch_size={data.batch_size}: must be at least 1 and at most "
            f"{data.train_images}."
        )
    data.val_size = held_out(data, data.train_images)
    train_size = data.train_images - data.val_size
    for split, images, batch_size in (
        ("train", train_size, data.batch_size),
        ("val", data.val_size, EVAL_BATCH_SIZE),
        ("test", data.test_images, EVAL_BATCH_SIZE),
    ):
        name, batches = f"limit_{split}_batches", -(-images // batch_size)
        limit = getattr(trainer, name)
        if isinstance(limit, float) and not 1 <= int(limit * batches) <= batches:
            raise UserError(
                f"trainer.{name}={limit}: must be a share, up to 1.0, that comes to one at least "
                f"of the {batches} batches; or a number of batches, without a point."
            )
    if isinstance(trainer.devices, list):
        check_shares(data.batch_size, train_size, len(trainer.devices) * trainer.num_nodes)
    elif isinstance(trainer.devices, int) and trainer.devices > 0:
        check_shares(data.batch_size, train_size, trainer.devices * trainer.num_nodes)


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


def flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names, as `trainer.max_epochs`; what is nested deeper, as a value."""
    return {
        f"{name}.{key}" if key else name: one
        for name, value in options.items()
        for key, one in (value.items() if isinstance(value, dict) else [("", value)])
    }


def differing(*several: Mapping[str, Any]) -> list[str]:
    """The names of options, as of `flat`, that are not the same in all; in their order."""
    names = dict.fromkeys(name for each in several for name in each)
    values = {name: [(name in each, each.get(name)) for each in several] for name in names}
    return [name for name, own in values.items() if own != own[:1] * len(several)]


def check_same(config: Config, folder: Path) -> None:
    """Refuse to continue a run of a different configuration; a folder without a run is fine.

    Raises:
        UserError: names what differs.
    """
    if not (folder / CONFIG).exists():
        return
    try:
        old = identity(read(folder / CONFIG))
    except Exception as error:  # a damaged file: YAML's errors, or a value of another version
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{folder / CONFIG} is no configuration of this version ({reason}). "
            "Name another folder, or give overwrite=true to start anew in this one."
        ) from None
    new = identity(config)
    different = differing(flat(old), flat(new))
    if different:
        more = different == ["trainer.max_epochs"]
        raise UserError(
            f"{folder} holds a run of a different configuration ({', '.join(different)}). "
            "Name another folder, or give overwrite=true to start anew in this one."
            + f" To add epochs to it, give continue_from={folder} beside another folder."
            * more
        )
