"""An option: a field of a dataclass with its line of help and its legal values."""

import math
from collections.abc import Sequence
from dataclasses import MISSING as REQUIRED
from dataclasses import field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from fmnist_pl.options.messages import UserError


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


def check(options: Any, prefix: str = "") -> None:
    """Hold every field of a dataclass, nested ones too, against the limits of its declaration."""
    for item in fields(options):
        name, value = f"{prefix}{item.name}", getattr(options, item.name)
        if is_dataclass(value):
            check(value, f"{name}.")
        elif value is not None:
            limits = item.metadata.get("limits", {})  # a plain field, of a user's class, has none
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
