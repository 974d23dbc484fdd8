"""What libraries have against what was typed or is in a file, told as our own mistakes are."""

import re
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import join
from traceback import walk_tb
from types import FrameType

from hydra._internal.utils import get_args_parser

from fmnist_pl.options.command import CONF_DIR, flatten
from fmnist_pl.options.schema import Config

# Lightning's options that a run does not have, and why.
NOT_OURS = {
    "barebones": "a run is recorded; pictures=false embeddings=none leave out what takes time",
    "callbacks": "they are a group, as in callbacks=[early_stopping,lr_monitor]",
    "check_val_every_n_epoch": "table, checkpoints and report have a validation of every epoch",
    "default_root_dir": "the folder of a run is hydra.run.dir",
    "enable_autolog_hparams": "loggers are always given the options that runs are compared by",
    "enable_checkpointing": "a run tests its checkpoints, and goes on from them",
    "enable_model_summary": "it is a callback: callbacks=model_summary",
    "inference_mode": "validation never needs a gradient",
    "limit_predict_batches": "there is trainer.limit_test_batches",
    "logger": "they are a group, as in logger=[csv,mlflow]",
    "max_steps": "a run has whole epochs: trainer.max_epochs, trainer.limit_train_batches",
    "min_steps": "a run has whole epochs: trainer.min_epochs",
    "model_registry": "it uploads to a service of Lightning's; checkpoints are files of the run",
    "num_sanity_val_steps": "trainer.fast_dev_run=true tries all that a run does",
    "plugins": "they follow from what starts the processes, and from trainer.precision",
    "reload_dataloaders_every_n_epochs": "every epoch has a new order and augmentation by itself",
    "use_distributed_sampler": "the data are shared out so that every batch is the same",
    "val_check_interval": "table, checkpoints and report have a validation of every epoch",
}

KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
THEIRS = ("hydra.", "omegaconf.", "yaml.")


def refusal(error: Exception, words: Sequence[str] | None = None) -> Exception | str | None:
    """What Hydra, OmegaConf or YAML has against it; nothing if the error is not theirs.

    They also raise Python's own errors, which name no option: those come with all that was typed.

    Args:
        error: raised anywhere.
        words: what was typed; if not given, as arguments of this program.
    """
    if said := in_words(error):
        return said
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
    typed = sys.argv[1:] if words is None else words
    return error if type(error).__module__.startswith(THEIRS) else f"{join(typed)}: {error}"


def in_words(error: Exception) -> str | None:
    """The commonest of Hydra's messages in a line: a choice there is not, a wrong type, a sweep."""
    said, cause = str(error), str(error.__cause__).partition("\n")[0]
    if missing := re.match("In '(.+?)': Could not (?:find|load) '(.+)/(.+?)'", said):
        file, group, choice = missing.groups()
        listed = re.search("Available options.*?:\n(.*)Config search path", said, re.DOTALL)
        there = (
            listed[1].split()
            if listed
            else sorted(path.stem for path in Path(CONF_DIR, group).glob("*.yaml"))
        )
        near = get_close_matches(choice, there, n=1)
        nearest = f" The nearest: {near[0]}." if near else ""
        where = "" if file in ("train", "explore") else f"{file}.yaml: "
        return (
            f"{where}{group}={choice}: no such choice.{nearest} There are {', '.join(there)}; "
            "--config-dir=FOLDER adds files of your own."
        )
    if wrong := re.match("Error merging override (.+)", said):
        if kind := re.match(r"Value (.+) of type '\w+' could not be converted to (\w+)", cause):
            value, name = kind.groups()
            return f"{wrong[1]}: {value} must be {KINDS.get(name, name)}."
        if "is not a ListConfig" in cause:
            return f"{wrong[1]}: must be a list, in brackets: [1,2]."
    if several := re.match("Ambiguous value for argument '(.+)'", said):
        return (
            f"{several[1]}: several values make a sweep, which takes -m (in Python, run_sweep). A "
            "list is in brackets, a text with commas in quotes of its own."
        )
    return None


def unknown_flag(words: Sequence[str]) -> str | None:
    """What to say of the first flag that Hydra does not have; nothing if it has all."""
    for word in get_args_parser().parse_known_args(words)[1]:
        if word.startswith("-"):
            return (
                f"{word}: no such flag. Options are NAME=VALUE, as trainer.max_epochs=3; the flags "
                "are listed by --hydra-help."
            )
    return None


def no_such_option(name: str) -> str:
    """Names the nearest options there are, and where all are listed."""
    part, _, wanted = name.rpartition(".")
    if part == "trainer" and wanted in NOT_OURS:
        return f"{name}: no option here, since {NOT_OURS[wanted]}."
    known = [
        *(one for one, _ in flatten(Config)),
        *(path.name for path in Path(CONF_DIR).iterdir() if path.is_dir()),
        "optimizer.lr",  # of every optimizer of `conf/`, and of nearly all
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
