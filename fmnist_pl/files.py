"""Files of a run, each there as a whole or not at all, whatever happens while it is written."""

import os
import shutil
from pathlib import Path

from fmnist_pl.options.messages import UserError

# In the folder of a run.
CHECKPOINTS = "checkpoints"  # folder of the two that follow
LAST = f"{CHECKPOINTS}/last.ckpt"
BEST = f"{CHECKPOINTS}/best.ckpt"  # of the highest validation accuracy
CONFIG = "config.yaml"  # all its options
EVENTS = "events.out.tfevents.*"  # what TensorBoard shows; new ones each time the run starts
METRICS = "metrics.csv"  # one row an epoch
PREDICTIONS = "predictions.npz"  # logits of the test and validation images
REQUIREMENTS = "requirements.txt"  # packages it ran with
RESULT = "result.json"  # the figures; written last
REPORT = "report.html"  # of a sweep, in its folder
SUMMARY = "summary.csv"  # of a sweep, in its folder: a row a run
EFFECTS = "effects.csv"  # of a sweep, in its folder: what the verdicts are made of, by seed
DOUBTFUL = "doubtful.csv"  # of a sweep, in its folder: test images whose labels are in doubt
LOOKS = "looks.json"  # of a sweep that adds seeds, in its folder: when it is asked what is open
JOURNAL = "search.journal"  # of a search, in its folder: all that was asked and told, Optuna's
SEARCH = "search.json"  # of a search, in its folder: what the report is made from
STATUS = "status.json"  # of a run of a sweep: what has become of it


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that, whatever happens, the path holds the old content or the new one.

    Raises:
        OSError: it cannot be written; nothing is left of the attempt.
    """
    part = part_of(path)
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        move_into_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create the folder of a run or a sweep, if need be.

    Raises:
        UserError: it cannot be.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (there may be none)
    if folder.resolve() in (Path(folder.resolve().anchor), home.resolve()):
        raise UserError(f"{folder}: would be filled with the files of a run: name a folder in it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: nothing can be kept there ({error.strerror}).") from None


def part_of(path: Path) -> Path:
    """Where a file is put together before it gets its name."""
    return path.with_name(f".{path.name}.part")


def link_or_copy(path: Path, other: Path) -> None:
    """Give a file another name, in place of what has it; on a disk without links, to a copy."""
    other.unlink(missing_ok=True)
    try:
        other.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, other)


def move_into_place(part: Path, path: Path) -> None:
    """Rename a finished file to its name, its content on the disk first."""
    with part.open("r+b") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())
    part.replace(path)
