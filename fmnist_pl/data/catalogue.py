"""The data sets that are known by name, files of `conf/data/`; and what is believed of others.

A checkpoint and the folder of a run say what they were trained on, and may be anybody's. Of a data
set that is known here they name it, no more. Of another one they may say what its classes are, and
never where to fetch it: its files must be given with `data.root`.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmnist_pl.data.idx import FILES
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import FASHION_MNIST, Data, DataSet

FOLDER = Path(CONF_DIR) / "data"
NAME, HASHED = r"[\w-]+", r"(md5|sha1|sha256|sha512):[0-9a-f]+"
SOURCES = ("mirrors", "debian_package")
OF_A_CHECKPOINT = ("name", "format", "class_names", "val_size", "split_seed")


@cache
def read(name: Any) -> Data | None:
    """The file of that name; None: there is none, or one with `defaults`, for Hydra alone."""
    path = FOLDER / f"{name}.yaml"
    if not re.fullmatch(NAME, str(name)) or not path.is_file():
        return None
    try:
        data = OmegaConf.to_object(OmegaConf.merge(Data, OmegaConf.load(path)))
    except OmegaConfBaseException:
        return None
    assert isinstance(data, Data)
    return data


def known(name: Any) -> Data | None:
    """The data set of that name; None: there is no file that says what its classes are."""
    data = read(name)
    return data if data and data.name == name and data.class_names else None


def named(name: str) -> Data:
    """What a file says, to be used.

    Raises:
        UserError: there is none.
    """
    if data := read(name):
        return replace(data)
    names = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
    raise UserError(f"name={name}: no such data set; there are {names}.")


@cache
def known_contents() -> dict[str, str]:
    """What the content of a SHA-256 is, of all that are known."""
    sets = [one for path in sorted(FOLDER.glob("*.yaml")) if (one := known(path.stem))]
    return {
        hashed.removeprefix("sha256:"): f"{file} of {one.title}"
        for one in sets
        for file, hashed in one.hashes.items()
        if file in FILES
    }


def description(data: DataSet) -> dict[str, Any]:
    """What the data set is, without what a run makes of it."""
    whole = asdict(data)
    return {item.name: whole[item.name] for item in fields(DataSet)}


def stated(data: DataSet) -> dict[str, Any]:
    """The same without what it leaves to the files to say."""
    return {name: value for name, value in description(data).items() if value}


def completed(data: Data) -> Data:
    """The same with what is known of it, where it has a name alone.

    Raises:
        UserError: a name that cannot be one, or another data set under the name of a known one.
    """
    if not re.fullmatch(NAME, data.name):
        raise UserError(f"data.name={data.name}: must be letters, digits, - and _ alone.")
    for file, hashed in data.hashes.items():
        if file.removesuffix(".gz") not in FILES or not re.fullmatch(HASHED, hashed):
            raise UserError(
                f"data.hashes: {file}: {hashed}: must be sha256:HEX or md5:HEX, of one of "
                f"{', '.join(FILES)}, or of one with .gz."
            )
    if (one := known(data.name)) is None:
        return data
    if description(data) == description(Data(data.name)):
        return replace(data, **description(one))
    for name, value in stated(one).items():
        if name not in ("title", *SOURCES) and getattr(data, name) != value:
            raise UserError(
                f"data.{name}={getattr(data, name)}: {data.name} is a data set that is known, and "
                f"has {value}. Give yours a data.name of its own."
            )
    return data


def entry(data: Data) -> dict[str, Any]:
    """What a checkpoint says of its data: which they are, and how they were split."""
    return {name: getattr(data, name) for name in OF_A_CHECKPOINT}


def believed(said: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a checkpoint or the folder of a run says of its data, as far as it is believed.

    Version 0.1.0 says how they were split: they are Fashion-MNIST.
    """
    kept = {name: value for name, value in dict(said or {}).items() if name not in SOURCES}
    one = known(kept.get("name", FASHION_MNIST))
    return kept | stated(one) if one else kept


def recalled(said: Mapping[str, Any] | None) -> Data:
    """The same of a checkpoint, as options.

    Raises:
        OmegaConfBaseException: it says what no option can be.
    """
    data = OmegaConf.to_object(OmegaConf.merge(Data, believed(said)))
    assert isinstance(data, Data)
    return data
