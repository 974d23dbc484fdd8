"""The runs of a sweep: each composed as Hydra composes it, checked, and with its folder."""

import copy
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fmnist_pl.config import resolve
from fmnist_pl.options.command import flatten
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config

LONGEST_NAME = 80
LONGEST_NUMBER = 10  # letters
# Options with which a sweep is the same sweep, whatever their values.
FREE = {"seed", *(name for name, item in flatten(Config) if not item.metadata["identity"])}
FREE |= {f"hydra.sweeper.{name}" for name in ("n_trials", "n_jobs", "confirm", "max_failures")}


@dataclass(frozen=True)
class Run:
    """One run of a sweep, before it starts."""

    overrides: tuple[str, ...]  # what Hydra's launcher is given
    config: Config
    folder: Path


def without_hydra(config: DictConfig) -> DictConfig:
    """The options of the run alone."""
    options = copy.deepcopy(config)
    with open_dict(options):
        del options["hydra"]
    return options


def parser() -> OverridesParser:
    """Of Hydra's grammar; it knows the files of `conf/`, among which `glob` looks."""
    return OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


def asked(config: DictConfig) -> dict[str, Override]:
    """By key, what a sweep was asked for: by a file of `conf/`, then on the command line."""
    params: Any = OmegaConf.to_container(config.hydra.sweeper)
    params = (f"{key}={value}" for key, value in (params["params"] or {}).items())
    return {
        one.get_key_element(): one for one in parser().parse_overrides([*params, *typed(config)])
    }


def typed(config: DictConfig, of: str = "task") -> list[str]:
    """The overrides of the command line, their interpolations as they are written."""
    words: Any = OmegaConf.to_container(config.hydra.overrides[of])
    return list(words)


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes it, whatever is in it."""
    return QuotedString(text, Quote.single).with_quotes()


class Composer:
    """Composes the runs of a sweep.

    Hydra composes one run for each choice of files; values that vary are then set in its result,
    as Hydra would have set them: that takes a tenth of the time.

    Args:
        config: of the whole sweep; what is set here for each of its runs is added to it.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config, self.loader = config, GlobalHydra.instance().config_loader()
        self.folder = Path(config.hydra.sweep.dir)
        given = asked(config)
        self.varying = [key for key, one in given.items() if one.is_sweep_override()]
        values = {"seed", *(key for key, one in given.items() if self.is_value(one))}
        self.values = {
            key
            for key in values
            if key in {*self.varying, "seed"} and not any(nested(key, other) for other in values)
        }
        sweep: Any = OmegaConf.to_container(config.hydra.sweep)
        self.named_here = sweep["subdir"].startswith("${run_name:")
        pinned = {"hydra.sweep.dir": quoted(str(self.folder))}
        if self.named_here:
            names = ",".join(self.varying)
            pinned["hydra.sweep.subdir"] = f"'${{run_name:{names}}}'"
        with open_dict(config):
            config.hydra.sweep.dir = str(self.folder)
            words = typed(config, "hydra") + [f"{key}={value}" for key, value in pinned.items()]
            config.hydra.overrides.hydra = list(dict.fromkeys(words))
        self.parse = cache(lambda word: parser().parse_overrides([word])[0])
        self.bases: dict[tuple[str, ...], DictConfig] = {}

    def is_value(self, override: Override) -> bool:
        """Whether it sets a value, and neither chooses a file nor adds or deletes something."""
        plain = override.type is OverrideType.CHANGE and not override.package
        return plain and not self.loader.get_group_options(override.key_or_group)

    def run(self, *words: str, number: int = 0) -> Run:
        """One run.

        Args:
            words: its overrides.
            number: which of the sweep's it is.

        Raises:
            UserError: an impossible configuration, or a folder that is not the sweep's.
            Exception: Hydra's, or OmegaConf's.
        """
        config = self.composed(words) if self.named_here else None
        if config:
            given = {one.get_key_element(): one for one in map(self.parse, words)}
            varied = {
                key: given[key].get_value_element_as_str() for key in self.varying if key in given
            }
            return Run(words, config, self.folder / name_of(config, varied))
        composed = self.loader.load_sweep_config(self.config, list(words))
        composed.hydra.job.num = number
        subdir = str(composed.hydra.sweep.subdir)
        folder = self.folder / subdir
        if self.folder not in folder.parents or ".." in folder.parts:
            raise UserError(f"hydra.sweep.subdir={subdir}: must be a folder in that of the sweep.")
        return Run(words, resolve(without_hydra(composed)), folder)

    def composed(self, words: Iterable[str]) -> Config | None:
        """The configuration of a run; nothing where it takes Hydra to say what is wrong."""
        given = {word: self.parse(word) for word in words}
        values = [one for one in given.values() if one.get_key_element() in self.values]
        rest = tuple(word for word, one in given.items() if one not in values)
        try:
            if rest not in self.bases:
                composed = self.loader.load_sweep_config(self.config, list(rest))
                plain = OmegaConf.to_container(without_hydra(composed))  # with its interpolations
                base = OmegaConf.merge(Config, plain)
                assert isinstance(base, DictConfig)
                OmegaConf.copy_cache(self.config, base)
                self.bases[rest] = base
            options = copy.deepcopy(self.bases[rest])
            for one in values:
                OmegaConf.update(options, one.key_or_group, one.value(), merge=True)
            config: Any = OmegaConf.to_object(options)
        except OmegaConfBaseException:
            return None
        return resolve(config)


def nested(key: str, other: str) -> bool:
    """Whether one of two different keys is part of the other."""
    return key != other and f"{key}.".startswith(f"{other}.") | f"{other}.".startswith(f"{key}.")


def name_of(config: Any, varied: Mapping[str, str]) -> str:
    """A folder for one run of a sweep: its name and seed, then whatever else varies.

    Safe for any file system and for Hydra's grammar, distinct for different values, always the
    same for the same ones.

    Args:
        config: with `name` and `seed`.
        varied: what varies, and the run's values.
    """
    name = exact = f"{config.name}-{config.seed}"
    for key, value in varied.items():
        if key != "seed" and value != config.name:
            name += f"-{key.rpartition('.')[2]}-{rounded(value)}"
            exact += f"-{key.rpartition('.')[2]}-{value}"
    return safe(name, exact)


def rounded(value: str) -> str:
    """A number of many digits, as a search asks for, to three of them."""
    try:
        return value if len(value) <= LONGEST_NUMBER else f"{float(value):.3g}"
    except ValueError:
        return value


def safe(name: str, exact: str = "") -> str:
    """A name for a folder; with a hash of what it stands for where that is another name."""
    short = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:LONGEST_NAME].strip("-.")
    if short == (exact or name):
        return short
    return f"{short}-{digest(exact or name)}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(*varying: str, _root_: DictConfig) -> str:
    """`name_of` a run that Hydra composes. A resolver for `hydra.sweep.subdir`."""
    task = OverridesParser.create().parse_overrides(typed(_root_))
    given = {one.get_key_element(): one.get_value_element_as_str() for one in task}
    return name_of(_root_, {key: given[key] for key in varying if key in given})


def sweep_name(*, _root_: DictConfig) -> str:
    """A folder for a sweep: what varies, and a hash of all that was asked for.

    More seeds, or more trials of a search, are no other sweep. A resolver for `hydra.sweep.dir`.
    """
    task = {key: one for key, one in asked(_root_).items() if key not in FREE}
    varying = [key.rpartition(".")[2] for key, one in task.items() if one.is_sweep_override()]
    words = [str(one.input_line) for one in task.values()]
    words += [
        word
        for word in typed(_root_, "hydra")
        if word.startswith(("hydra.sweeper.", "hydra/sweeper")) and word.split("=")[0] not in FREE
    ]
    name = "-".join(varying) or str(_root_.name)
    return f"{safe(name)}-{digest(' '.join(sorted(words)))}"


OmegaConf.register_new_resolver("run_name", run_name)
OmegaConf.register_new_resolver("sweep_name", sweep_name)
