"""What a configuration computes, whatever it is called and runs on, and in which words.

Runs of one recipe differ by nothing but their seed.
"""

import json
from collections import Counter
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from fmnist_pl.config import choice, flat, identity
from fmnist_pl.data.augment import spell_out
from fmnist_pl.data.source import title
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.messages import printable
from fmnist_pl.options.schema import Config, Seeds

OF_THE_IMAGES = ("name", "format", "class_names", "train_images", "test_images", "hashes")
LONGEST = 60  # letters of a value in a table or label
# How a run is executed: its figures feel that as rounding, which training makes grow.
EXECUTION = ("accelerator", "devices", "num_nodes", "strategy", "deterministic")


def recipe(config: Config) -> str:
    """What a configuration computes for some seed, whatever it is called and runs on."""
    return json.dumps(options(config))


def fingerprint(config: Config) -> str:
    """What tells the data set of a configuration from others."""
    return json.dumps([getattr(config.data, name) for name in OF_THE_IMAGES])


def data_sets(configs: Iterable[Config]) -> dict[str, str]:
    """By fingerprint the name of each data set; of those with one name, with a part of a hash."""
    titles = {fingerprint(config): printable(title(config.data)) for config in configs}
    count = Counter(titles.values())
    return {
        one: f"{name} {sha256(one.encode()).hexdigest():.6}" if count[name] > 1 else name
        for one, name in titles.items()
    }


def setting(config: Config) -> str:
    """The recipe apart from what the study varies: net, classes, augmentation."""
    rest = options(config)
    return json.dumps([rest[name] for name in rest if name not in ("model", "classes", "augment")])


def options(config: Config) -> dict[str, Any]:
    plain = identity(config)
    for name in ("name", "seed", "threads", "compile", "embeddings"):
        del plain[name]
    for name in EXECUTION:
        del plain["trainer"][name]
    del plain["model"]["name"], plain["augment"]["name"]
    plain["classes"] = list(config.classes.values())
    return plain


def named(config: Config) -> dict[str, Any]:
    """Those options under names like `optimizer.lr`; augmentation and seeds as they are chosen."""
    shown = options(config)
    if lists().get(config.augment.name) == config.augment.ops:
        shown["augment"] = config.augment.name
    choices = (name for name, seeds in varying().items() if seeds == config.seeds)
    shown["seeds"] = next(choices, config.seeds.own())
    return flat(shown)


@cache
def lists() -> dict[str, list[Any]]:
    """The operations of each file of `conf/augment/`, as a run has them."""
    names = (path.stem for path in Path(CONF_DIR, "augment").iterdir())
    return {name: spell_out(choice("augment", name)["ops"]) for name in names}


@cache
def varying() -> dict[str, Seeds]:
    """The seeds of each file of `conf/seeds/`."""
    names = sorted(path.stem for path in Path(CONF_DIR, "seeds").iterdir())
    return {name: Seeds(**choice("seeds", name)) for name in names}


def as_typed(value: Any) -> str:
    """A value of an option as one would type it."""
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def brief(value: Any) -> str:
    """The same; a number to four digits, what is long as its beginning and a part of its hash."""
    text = f"{value:.4g}" if isinstance(value, float) else as_typed(value)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 10]}… {sha256(text.encode()).hexdigest():.6}"
