"""What libraries have against what was typed or is in a file, told as our own mistakes are."""

import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from shlex import join
from traceback import walk_tb
from types import FrameType

from fmnist_pl.options.command import CONF_DIR, flatten
from fmnist_pl.options.schema import Config

THEIRS = ("hydra.", "omegaconf.", "yaml.")


def refusal(error: Exception) -> Exception | str | None:
    """What Hydra, OmegaConf or YAML has against it; nothing if the error is not theirs.

    They also raise Python's own errors, which name no option: those come with all that was typed.
    """
    if unknown := re.match("Could not override '(.+?)'", str(error)):
        name = unknown[1]
        if not name.startswith("classes."):  # whose keys one may add
            return no_such_option(name)
    if unknown := re.match("In '(.+?)': ConfigKeyError.*full_key: (\\S+)", str(error), re.DOTALL):
        file, name = unknown.groups()
        if name == "experiment":
            return (
                f"{file}.yaml: lacks the line # @package _global_, with which a file of options "
                "for the whole run begins."
            )
        return f"{file}.yaml: {no_such_option(name)}"
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    if isinstance(error, UnicodeDecodeError):
        return next((f"{path}: no text in UTF-8 ({error})." for path in files_read(frames)), None)
    if not str(frames[-1].f_globals["__name__"]).startswith(THEIRS):
        return None
    return error if type(error).__module__.startswith(THEIRS) else f"{join(sys.argv[1:])}: {error}"


def no_such_option(name: str) -> str:
    """Names the nearest options there are, and where all are listed."""
    *_, wanted = name.split(".")
    known = [
        *(one for one, _ in flatten(Config)),
        *(path.name for path in Path(CONF_DIR).iterdir() if path.is_dir()),
    ]
    by_last: dict[str, list[str]] = {}
    for one in known:
        by_last.setdefault(one.rpartition(".")[2], []).append(one)
    near = [last for last in by_last if len(wanted) > 2 and wanted in last]
    near += get_close_matches(wanted, by_last, n=1, cutoff=0.7)
    nearest = dict.fromkeys(one for last in near for one in by_last[last])
    said = f" The nearest: {', '.join(nearest)}." if nearest else ""
    return f"{name}: no such option.{said} All are listed by python -m fmnist_pl.options"


def files_read(frames: list[FrameType]) -> Iterator[str]:
    """The files that Hydra and OmegaConf were reading."""
    for frame in frames:
        if str(frame.f_globals["__name__"]).startswith(THEIRS):
            for name in ("full_path", "file_"):
                if name in frame.f_locals:
                    yield str(frame.f_locals[name])
