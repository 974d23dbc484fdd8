"""Seeds until decided, with real runs: from the command to its report, killed or not."""

import json
import re
from pathlib import Path

import pytest

from tests.sweep.test_sweep import BETWEEN_EPOCHS, SMALL, kill_at_work, sweep

WORDS = (*SMALL, "hydra/sweeper=until_decided", "model=mlp,cnn", "optimizer.lr=0.001")
WORDS += ("hydra.sweeper.first_look=2", "hydra.sweeper.max_seeds=3")


@pytest.mark.slow
def test_a_killed_one_goes_on(tmp_path: Path) -> None:
    words = (*WORDS, *BETWEEN_EPOCHS)
    whole = sweep(tmp_path / "whole", *words)
    assert whole.returncode == 0, whole.stderr
    assert re.search(r"after 2 seeds something is open on (mlp, )?cnn", whole.stdout + whole.stderr)
    assert "Seeds are added where something is open" in whole.stdout
    kill_at_work(tmp_path / "killed", *words)
    assert sweep(tmp_path / "killed", *words).returncode == 0
    runs = [
        sorted(path.parent.name for path in (tmp_path / name).glob("*/result.json"))
        for name in ("whole", "killed")
    ]
    assert runs[0] == runs[1]
    for run in runs[0]:
        figures = [
            json.loads((tmp_path / name / run / "result.json").read_text())["test/loss"]
            for name in ("whole", "killed")
        ]
        assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("hydra.sweeper.first_look=1", "first_look=1.*two seeds"),
        ("overwrite=true", "overwrite=true.*another folder"),
        ("hydra.sweep.subdir=${hydra.job.num}", "names its folders itself"),
    ],
)
def test_options_that_make_no_sense_are_refused(words: str, message: str, tmp_path: Path) -> None:
    done = sweep(tmp_path / "none", *WORDS, words)
    assert done.returncode == 1
    assert re.search(f"error: .*{message}", done.stderr)
    assert not (tmp_path / "none").exists()


def test_it_is_listed_as_it_begins(tmp_path: Path) -> None:
    done = sweep(tmp_path / "none", *WORDS, "seed=7", "--cfg", "job")
    assert "mlp-7" in done.stdout
    assert "cnn-8" in done.stdout
    assert "4 runs in" in done.stdout
    assert "then up to 3 seeds of each" in done.stdout
