"""What is said to the user: a mistake in one message, and text that a terminal can take."""

import sys
from shlex import join
from traceback import walk_tb
from typing import NoReturn


class UserError(ValueError):
    """A mistake of the user's, told in one message: the thing, what is legal, the remedy."""


class InUseError(UserError):
    """Another process is at work in the folder of a run."""


def printable(text: str) -> str:
    """Text in one line, without what a terminal or a browser might take for a command."""
    return "".join(character if character.isprintable() else " " for character in text)


def tell(error: Exception | str) -> None:
    """One message, no traceback; of a library's error the cause, too, if it has one."""
    cause = None if isinstance(error, str | UserError) else error.__cause__
    print(f"error: {error}" + (f"\n{cause}" if cause else ""), file=sys.stderr)


def refusal(error: Exception) -> Exception | str | None:
    """What Hydra or OmegaConf has against what was typed; nothing if the error is not theirs.

    They also raise Python's own errors, which name no option: those come with all that was typed.
    """
    *_, (frame, _) = walk_tb(error.__traceback__)
    theirs = ("hydra.", "omegaconf.")
    if not str(frame.f_globals["__name__"]).startswith(theirs):
        return None
    return error if type(error).__module__.startswith(theirs) else f"{join(sys.argv[1:])}: {error}"


def fail(error: Exception | str) -> NoReturn:
    """One message, no traceback, exit code 1."""
    tell(error)
    sys.exit(1)
