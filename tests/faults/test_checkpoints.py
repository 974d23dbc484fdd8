"""A run goes on from a checkpoint of its own, whole, and from nothing else.

Elsewhere: what the other commands say of such files (`test_evaluate.py`), a copy beside nothing of
its run (there, too).
"""

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from fmnist_pl import files
from fmnist_pl.training import checkpoints
from tests.commands.test_evaluate import Harmful, change, flip_a_bit, truncate
from tests.faults.commands import Command
from tests.training.test_folder import figures, metrics

Train = Callable[..., Command]


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_another_seed(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["seed"] = 1
    torch.save(content, path)


def to_another_grouping(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["classes"] = {f"class {i}": [i] for i in range(10)}
    torch.save(content, path)


DAMAGED = "no checkpoint, or a damaged one. It cannot be read as PyTorch weights"
SPOILT = {
    "truncated": (truncate, DAMAGED),
    "altered by a bit": (flip_a_bit, DAMAGED),
    "empty": (lambda path: path.write_bytes(b""), DAMAGED),
    "text": (lambda path: path.write_text("epoch,loss\n1,0.3\n"), DAMAGED),
    "folder": (into_a_folder, "Is a directory"),
    "other weights": (
        change(state_dict=torch.nn.Linear(2, 2).state_dict()),
        "weights of something else than a run of fmnist_pl",
    ),
    "other run": (to_another_seed, "is of a run with other options."),
    "other grouping": (to_another_grouping, "is of a run with other options."),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_run_does_not_go_on_from(kind: str, train: Train, unfinished: Path) -> None:
    spoil, said = SPOILT[kind]
    checkpoint = unfinished / "checkpoints" / "last.ckpt"
    spoil(checkpoint)
    train().fails_with(f"{checkpoint}", said, "overwrite=true starts the run anew.")
    assert not (unfinished / "result.json").exists()


def test_code_in_a_checkpoint_is_not_run(train: Train, unfinished: Path) -> None:
    checkpoint, touched = unfinished / "checkpoints" / "last.ckpt", unfinished / "touched"
    change(extra=Harmful(touched))(checkpoint)
    train().fails_with(f"{checkpoint}", "nothing else is ever loaded", "overwrite=true")
    assert not touched.exists()
    torch.load(checkpoint, weights_only=False)
    assert touched.exists()  # it would have been


def test_the_remedy_helps(train: Train, unfinished: Path, undisturbed: Path) -> None:
    truncate(unfinished / "checkpoints" / "last.ckpt")
    train("overwrite=true").succeeds()
    assert figures(unfinished) == figures(undisturbed)


def test_a_run_goes_on_where_its_folder_was_moved_to(
    train: Train, unfinished: Path, undisturbed: Path
) -> None:
    moved = unfinished.rename(unfinished.with_name("moved"))
    train(folder="moved").succeeds()
    assert figures(moved) == figures(undisturbed)


RESULTS = {
    "text": ("{", "result.json: JSONDecodeError"),
    "list": ("[]", "result.json: no mapping."),
    "older": ("{}", "result.json: of another version: lacks "),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_damaged_result_is_no_answer(kind: str, train: Train, unfinished: Path) -> None:
    content, said = RESULTS[kind]
    (unfinished / "result.json").write_text(content)
    train().fails_with(f"{unfinished}: {said}", "Delete result.json", "overwrite=true")
    assert (unfinished / "result.json").read_text() == content


@pytest.mark.parametrize("content", ["{", "future: 1\n", "- a list\n", "\0"])
def test_a_configuration_that_is_none_is_told(content: str, train: Train, unfinished: Path) -> None:
    (unfinished / "config.yaml").write_text(content)
    train().fails_with(f"{unfinished}/config.yaml is no configuration", "overwrite=true")


def test_a_result_of_a_newer_version_is_an_answer(
    train: Train, unfinished: Path, undisturbed: Path
) -> None:
    result = json.loads((undisturbed / "result.json").read_text())
    (unfinished / "result.json").write_text(json.dumps({**result, "test/new_figure": 1}))
    command = train()
    command.succeeds()
    assert f"{result['test/acc']:.4f}" in command.out


def kill_halfway(nth: int) -> None:
    """Have the process killed as it writes its nth file, half of which then is on the disk."""
    calls = iter(range(1, nth + 1))
    original = files.move_into_place

    def move_into_place(part: Path, path: Path) -> None:
        if next(calls) == nth:
            truncate(part)
            os.kill(os.getpid(), signal.SIGKILL)
        original(part, path)

    files.move_into_place = checkpoints.move_into_place = move_into_place


# Of the files of a run, config.yaml is the 1st; then come, of each epoch, metrics.csv, best.ckpt
# and last.ckpt: the MLP's first three epochs are each better than the one before.
WRITTEN = {2: "metrics.csv", 3: "best.ckpt", 4: "last.ckpt", 6: "best.ckpt", 7: "last.ckpt"}


@pytest.mark.parametrize("nth", WRITTEN)
def test_killed_while_writing_the_previous_file_serves(
    nth: int, train: Train, tmp_path: Path, undisturbed: Path
) -> None:
    folder = tmp_path / "run"
    assert train(prepare=partial(kill_halfway, nth)).wait() == -signal.SIGKILL
    assert f".{WRITTEN[nth]}.part" in {path.name for path in folder.rglob("*.part")}
    assert (folder / "checkpoints" / "last.ckpt").exists() == (nth > 4)
    train().succeeds()
    assert figures(folder) == figures(undisturbed)
    assert metrics(folder) == metrics(undisturbed)
