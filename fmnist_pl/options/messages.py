"""What is said to the user: a mistake in one message, and text that a terminal can take."""

import codecs
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from shutil import which
from typing import Any, NoReturn

from tqdm import tqdm


class UserError(ValueError):
    """A mistake of the user's, told in one message: the thing, what is legal, the remedy."""


class UnfinishedError(UserError):
    """A run has stopped, and goes on from there when it is started again in its folder."""


class PausedError(UnfinishedError):
    """A run has stopped where it was asked to."""


class InUseError(UserError):
    """Another process is at work in the folder of a run."""


def prepare_terminal() -> None:
    """Have whatever is printed taken by a terminal or a file that does not know all letters."""

    def spelt(error: UnicodeError) -> tuple[str | bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        letter = error.object[error.start]
        plain = {"\N{PLUS-MINUS SIGN}": "+-", "\N{MULTIPLICATION SIGN}": "x"}
        return plain.get(letter, ascii(letter)[1:-1]), error.start + 1

    codecs.register_error("spelt", spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="spelt")


def stop_printing() -> None:
    """The reader, `head` say, has seen enough: neither print more nor complain on the way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def progress_bar(*items: Any, **options: Any) -> "tqdm[Any]":
    """A bar of `tqdm`, with its arguments: at a terminal and in a notebook, else there is none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if "IPKernelApp" in getattr(shell, "config", ()):  # a notebook's stream is no terminal
        options = {"disable": False, "file": sys.stdout, **options}
    return tqdm(*items, **{"disable": None, **options})


def tensorboard(folder: Path) -> str:
    """The command that shows a folder, also where the environment has not been activated."""
    found = "tensorboard" if which("tensorboard") else f"{sys.executable} -m tensorboard.main"
    return f"{found} --logdir {folder}"


def printable(text: str) -> str:
    """Text in one line, without what a terminal or a browser might take for a command."""
    return "".join(character if character.isprintable() else " " for character in text)


def tell(error: Exception | str) -> None:
    """One message, no traceback; of a library's error the cause, too, if it has one."""
    cause = None if isinstance(error, str | UserError) else error.__cause__
    print(f"error: {error}" + (f"\n{cause}" if cause else ""), file=sys.stderr)


def fail(error: Exception | str) -> NoReturn:
    """One message, no traceback, exit code 1."""
    tell(error)
    sys.exit(1)
