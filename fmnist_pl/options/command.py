"""How all commands but `train` and `explore`, which are Hydra's, read `key=value` and print help.

Hydra's grammar asks for quotes around a path with `=`, `~`, brackets or letters beyond ASCII; here
text is taken as it is. Options are dataclasses of `fields.option`s, as in `conf/`. The lines
of help are `train`'s, too: there a resolver, `${help:NAME,...}`, gives them.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING as NOTHING
from dataclasses import Field, dataclass, field, fields, is_dataclass
from itertools import chain, pairwise
from operator import attrgetter
from pathlib import Path
from string import Template
from tempfile import gettempdir
from textwrap import fill
from types import NoneType
from typing import Any, TypeVar, get_args

from omegaconf import MISSING, OmegaConf

from fmnist_pl.options.fields import check, describe, option
from fmnist_pl.options.messages import UserError, fail, prepare_terminal, stop_printing
from fmnist_pl.options.schema import Config

CONF_DIR = str(
    next(
        folder
        for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")
        if folder.is_dir()  # in a wheel; in a checkout
    )
)

Options = TypeVar("Options")

KINDS: dict[type, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (lambda text: bool(["false", "true"].index(text.lower())), "true or false"),
}


@dataclass
class DataOptions:
    """For a command that reads the data set: `data: DataOptions = field(default_factory=...)`."""

    root: str | None = option(None, "Folder of the data set; looked at first.")


@dataclass
class CheckpointOptions:
    """For a command that reads a checkpoint: its `Options` are a subclass."""

    checkpoint: str = option(help="Checkpoint of a run.")
    trust_code: bool = option(
        False, "Import what else than fmnist_pl the checkpoint names; it can run any code."
    )
    data: DataOptions = field(default_factory=DataOptions)


def command(
    doc: str | None, schema: type[Options], work: Callable[[Options], int | None]
) -> Callable[[], None]:
    """The `main` of a command.

    Args:
        doc: opens the help: the docstring of the command's module.
        schema: a dataclass of options.
        work: does the job and returns the exit code, None for 0. It may raise `UserError`.
    """

    def main() -> None:
        arguments = sys.argv[1:]
        prepare_terminal()
        if {"-h", "--help"} & set(arguments):
            print(help_text(doc, schema))
            return
        try:
            options = parse(schema, arguments)
            check_temporary()
            code = work(options)
            sys.stdout.flush()
        except UserError as error:
            fail(error)
        except BrokenPipeError:
            stop_printing()
            code = 1
        except KeyboardInterrupt:
            code = 130  # the shell's number for Ctrl-C
        sys.exit(code)

    return main


def check_temporary() -> None:
    """Refuse to begin where PyTorch and matplotlib would end: nowhere to put temporary files."""
    try:
        gettempdir()
    except FileNotFoundError:
        raise UserError(
            "no folder for temporary files can be written: name one, as TMPDIR=FOLDER before the "
            "command."
        ) from None


def parse(schema: type[Options], arguments: list[str]) -> Options:
    """`key=value` arguments as an instance of `schema`, types and ranges checked.

    Text is never interpreted, but for a leading `~/`, the home folder, which not every shell fills
    in. An option that may be None is None where the text is empty.

    Raises:
        UserError: an unknown, malformed, missing or repeated option, a wrong type, a value out of
            range.
    """
    options, known, given = schema(), dict(flatten(schema)), set()
    missing = [name for name, item in known.items() if item.default is MISSING]
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or name not in known:
            legal = ", ".join(f"{name}=..." for name in known)
            raise UserError(f"{argument}: no such option; there are {legal} and --help.")
        if name in given:
            raise UserError(f"{argument}: {name} has been given already.")
        given.add(name)
        parent, _, attribute = name.rpartition(".")
        holder = attrgetter(parent)(options) if parent else options
        setattr(holder, attribute, convert(argument, text, known[name].type))
        missing = [other for other in missing if other != name]
    if missing:
        raise UserError(f"{missing[0]}=... must be given; see --help.")
    check(options)
    return options


def flatten(schema: type[Any], prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Name and field of every option; those of a nested dataclass have a dot, as `data.root`."""
    for item in fields(schema):
        if isinstance(item.type, type) and is_dataclass(item.type):
            yield from flatten(item.type, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item


def convert(argument: str, text: str, annotation: Any) -> Any:
    """The text of an argument as a value of the annotated type."""
    kinds = get_args(annotation) or (annotation,)  # of `X | None`: X, None
    if not text and NoneType in kinds:
        return None
    kind, words = KINDS[kinds[0]]
    try:
        return kind(os.path.expanduser(text) if text.startswith("~/") else text)  # noqa: PTH111
    except ValueError:
        raise UserError(f"{argument}: must be {words}.") from None


def default_of(item: Field[Any]) -> str:
    """The value of an option that is not given, as one would type it; or `required`."""
    default = item.default if item.default_factory is NOTHING else item.default_factory()
    if default is MISSING:
        return "required"
    return default if isinstance(default, str) else json.dumps(default)


def help_text(doc: str | None, schema: type[Any]) -> str:
    """The command's docstring, then every option."""
    return f"{(doc or '').strip()}\n\nOptions:\n{option_lines(flatten(schema))}"


def option_lines(options: Iterable[tuple[str, Field[Any]]]) -> str:
    """Name, help, default and legal values of options, as wide as the terminal allows."""
    known = dict(options)
    column = max(map(len, known)) + len("  =...  ")
    width = max(column + 30, min(100, shutil.get_terminal_size().columns))
    lines = []
    for name, item in known.items():
        default = default_of(item)
        notes = [] if default == "null" else [f"default {default}"]
        if default == "required":
            notes = [default]
        if item.metadata["limits"]:
            notes.append(describe(**item.metadata["limits"]))
        text = item.metadata["help"] + (f" ({'; '.join(notes)})" if notes else "")
        lead = f"  {name}=...".ljust(column)
        lines.append(fill(text, width, initial_indent=lead, subsequent_indent=" " * column))
    return "\n".join(lines)


def hydra_help(name: str, arguments: Sequence[str]) -> str:
    """The help of a command of Hydra's, from its file in `conf/`.

    Hydra itself takes seconds to list the groups: it copies all it knows for each of them.

    Args:
        name: of the file.
        arguments: of the command, which may add a folder to `conf/`.
    """
    folders = [CONF_DIR]
    for word, following in pairwise([*arguments, ""]):
        if word.startswith("--config-dir="):
            folders.append(word.partition("=")[2])
        elif word in ("--config-dir", "-cd"):
            folders.append(following)
    groups: dict[str, set[str]] = {}
    for path in chain.from_iterable(Path(folder).rglob("*.yaml") for folder in folders):
        own = next(folder for folder in folders[::-1] if path.is_relative_to(folder))
        groups.setdefault(path.parent.relative_to(own).as_posix(), set()).add(path.stem)
    lines = [
        f"{group}: {', '.join(sorted(choices))}"
        for group, choices in sorted(groups.items())
        if group != "." and not group.startswith("hydra")
    ]
    template = OmegaConf.load(Path(CONF_DIR, f"{name}.yaml")).hydra.help.template
    return Template(template).substitute(APP_CONFIG_GROUPS="\n".join(lines))


def help_of(*names: str) -> str:
    """The lines of some options of a run. A resolver for `hydra.help.template`."""
    known = dict(flatten(Config))
    return option_lines((name, known[name]) for name in names)


OmegaConf.register_new_resolver("help", help_of)
