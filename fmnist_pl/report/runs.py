"""Runs read back from the folders of a sweep.

Folders may be unfinished, being written, damaged or somebody else's: each is listed with what is
the matter, and only whole, finished runs count.
"""

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from fmnist_pl.config import stored
from fmnist_pl.files import CONFIG, METRICS, PREDICTIONS, RESULT, STATUS
from fmnist_pl.options.fields import check
from fmnist_pl.options.messages import UserError, printable
from fmnist_pl.options.schema import Config
from fmnist_pl.report.evidence import Figures
from fmnist_pl.report.predictions import figures_of

# In C where there is one; like OmegaConf, and unlike YAML, it takes 1e-3 for a number.
Loader: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    [*"-+0123456789"],
)

QUANTITIES = ("acc", "loss", "cross_entropy", "penalty")
BY_EPOCH = [f"{split}/{quantity}" for split in ("train", "val") for quantity in QUANTITIES]
FIGURES = [*BY_EPOCH, *(f"test/{quantity}" for quantity in QUANTITIES)]
# Before and after the logits are divided by the temperature.
CALIBRATION = ["temperature", "test/ece", "test/ece_scaled", "test/brier", "test/brier_scaled"]
CALIBRATION += ["test/cross_entropy", "test/cross_entropy_scaled"]
# The content of result.json.
NUMBERS = {
    *("seed", "epochs", "parameters", "best_epoch", "best_val_acc", "seconds"),
    *("images_per_second", "val/acc_averaged", *FIGURES, *CALIBRATION),
}
MAPPINGS = {
    *("classes", "test/acc_per_class", "test/acc_by_weights"),
    *("hardware", "versions", "data_sha256"),
}
OTHERS = {
    *("name", "model", "augment", "tested_checkpoint", "git_commit", "embeddings"),
    *("test/confusion_matrix", "test/knn_acc"),
}
# The entries of test/acc_by_weights. Estimated anew are the averages of batch norm; a net without
# it lacks that entry. Averaged are the weights after each epoch of the second half of training.
WEIGHTS = {
    "last": "last epoch",
    "best": "best epoch",
    "last_fresh_bn": "last, fresh batch norm",
    "averaged": "averaged",
}
KNN = ("embedding", "tsne")  # the entries of test/knn_acc


class State(StrEnum):
    FINISHED = "finished"
    REPEATED = "repeated"  # finished, and so is another of the same configuration and seed
    RUNNING = "running"  # or killed: nobody was left to say so
    UNFINISHED = "unfinished"
    INTERRUPTED = "interrupted"  # by Ctrl-C
    PRUNED = "pruned"  # by a search, which has seen enough of it
    FAILED = "failed"
    UNREADABLE = "unreadable"  # damaged, or of another version
    FOREIGN = "foreign"  # no run


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A folder of a sweep; what could be read of it."""

    folder: Path
    state: State
    problem: str = ""  # one line
    traceback: str = ""
    config: Config | None = None
    epochs: Sequence[dict[str, float]] = ()  # the rows of metrics.csv
    result: dict[str, Any] = field(default_factory=dict)  # of a finished run, as is
    figures: Mapping[str, Figures] = field(default_factory=dict)  # likewise, by `JUDGED` weights

    def __repr__(self) -> str:
        return f"{self.folder}: {self.state}"

    @property
    def seed(self) -> int:
        assert self.config
        return self.config.seed

    def name(self, seen_from: Path) -> str:
        """The folder relative to another, printable."""
        return printable(os.path.relpath(self.folder, seen_from))

    @cached_property
    def entries(self) -> dict[str, Any]:
        """The result, entries of its mappings under names like `test/knn_acc/tsne`."""
        flat: dict[str, Any] = {}
        for key, value in self.result.items():
            nested = value if isinstance(value, dict) else {}
            flat |= {f"{key}/{name}": one for name, one in nested.items()} or {key: value}
        return flat


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Every run below the folders, and each of their subfolders in which there is none.

    Raises:
        UserError: not a folder.
    """
    runs: dict[Path, Run] = {}
    for top in folders:
        if not top.is_dir():
            raise UserError(f"{top}: no such folder; name one or several folders of sweeps.")
        foreign = {path for path in top.iterdir() if path.is_dir() and path.name[0] != "."}
        for name, subfolders, files in os.walk(top):
            if CONFIG in files:
                folder = Path(name)
                if folder.resolve() not in runs:
                    runs[folder.resolve()] = read_run(folder)
                foreign -= {folder, *folder.parents, *folder.iterdir()}  # `top` may be a run
                subfolders.clear()
            subfolders[:] = sorted((s for s in subfolders if not s.startswith(".")), key=by_number)
        for folder in sorted(foreign):
            runs[folder.resolve()] = Run(folder, State.FOREIGN, f"holds no run: no {CONFIG}")
    return list(runs.values())


def by_number(name: str) -> list[int | str]:
    """To sort names by: `cnn-2` comes before `cnn-10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def read_run(folder: Path) -> Run:
    """A run, in whatever state its folder is."""
    run = Run(folder, State.UNFINISHED)
    path = folder / CONFIG
    try:
        run = replace(run, config=read_config(path))
        path = folder / STATUS
        if path.exists():
            run = replace(run, **parse_status(json.loads(path.read_text(encoding="utf-8"))))
        path = folder / RESULT  # before metrics.csv, which is complete when this is there
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        path = folder / METRICS
        if path.exists():
            run = replace(run, epochs=read_epochs(path))
        if result is None:
            return run
        path = folder / RESULT
        check_result(result, run)
        path = folder / PREDICTIONS
        assert run.config
        figures = figures_of(result, run.config, run.epochs, path)
    except Exception as error:  # whatever the libraries make of a file that is something else
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        problem = printable(f"{path.name}: {reason.strip().splitlines()[0]}")
        return replace(run, state=State.UNREADABLE, problem=problem, epochs=())
    return Run(folder, State.FINISHED, "", "", run.config, run.epochs, result, figures)


def read_config(path: Path) -> Config:
    """The configuration of a run. What runs of other seeds have in common is read once for all."""
    given = yaml.load(path.read_bytes(), Loader)
    seed = given.pop("seed", None)
    config = replace(resolved(json.dumps(given)), seed=seed)
    if type(seed) is not int:
        raise UserError(f"seed={seed}: no whole number.")
    check(config)
    return config


@cache
def resolved(options: str) -> Config:
    """The options of a run, in JSON, checked."""
    return stored(json.loads(options))


def read_epochs(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    for row in rows:
        if missing := {"epoch", *BY_EPOCH} - row.keys():
            raise UserError(f"lacks {', '.join(sorted(missing))}.")
    return rows


def read_tsne(run: Run) -> NDArray[np.float32]:
    """Where t-SNE puts the test images of a finished run, (N, 2).

    Raises:
        UserError: there is none, or it is damaged.
    """
    assert run.config
    if run.config.embeddings == "none":
        raise UserError("the run was trained with embeddings=none.")
    path = run.folder / "embeddings" / "test.npz"
    if not path.exists():
        raise UserError(f"{path}: no such file.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            points: NDArray[np.float32] = arrays["tsne"]
    except Exception as error:  # whatever NumPy makes of a file that is something else
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
    if points.shape != (run.config.data.test_images, 2) or not np.isfinite(points).all():
        raise UserError(f"{path}: tsne is no place in the plane for each of the test images.")
    return points


def parse_status(status: Any) -> dict[str, Any]:
    """The fields of a `Run` that the content of `status.json` tells."""
    match status:
        case {"state": "failed", "error": str(error), "traceback": str(traceback)}:
            lines = "\n".join(map(printable, traceback.splitlines()))
            return {"state": State.FAILED, "problem": printable(error), "traceback": lines}
        case {"state": "running" | "interrupted" | "pruned" as state}:
            return {"state": State(state)}
        case {"state": "finished" | "paused"}:
            return {}
    raise UserError(
        "none of the states running, interrupted, paused, pruned, finished, failed with error and "
        "traceback."
    )


def check_result(result: Any, run: Run) -> None:
    """Refuse a `result.json` that does not say what this version of the package writes.

    Raises:
        UserError: names what is missing, unknown or wrong.
    """
    if not isinstance(result, dict):
        raise UserError("no mapping.")
    if lacking := (NUMBERS | MAPPINGS | OTHERS) - result.keys():
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UserError(f"of another version: lacks {', '.join(sorted(lacking)[:3])}{more}.")
    for key in sorted(NUMBERS):
        if type(result[key]) not in (int, float):
            raise UserError(f"{key} is no number.")
    for key in sorted(MAPPINGS):
        if not isinstance(result[key], dict):
            raise UserError(f"{key} is no mapping.")
    assert run.config
    classes = list(run.config.classes)
    if not (classes == list(result["classes"]) == list(result["test/acc_per_class"])):
        raise UserError("its classes are not those of config.yaml.")
    by_weights = result["test/acc_by_weights"]
    if not WEIGHTS.keys() - {"last_fresh_bn"} <= by_weights.keys() <= WEIGHTS.keys():
        raise UserError(f"test/acc_by_weights has not the entries {', '.join(WEIGHTS)}.")
    accuracies = [*result["test/acc_per_class"].values(), *by_weights.values()]
    if (knn := result["test/knn_acc"]) is not None:
        accuracies += [knn[space] for space in KNN]
    np.array(accuracies, float)  # refuses what is no number
    if np.array(result["test/confusion_matrix"], int).shape != (len(classes), len(classes)):
        raise UserError("test/confusion_matrix is not a matrix of all classes.")
    epochs, most = len(run.epochs), run.config.trainer.max_epochs
    may_stop = run.config.callbacks or run.config.trainer.max_time
    if result["epochs"] != epochs or (epochs > most if may_stop else epochs != most):
        raise UserError("its epochs are not those of metrics.csv and config.yaml.")
