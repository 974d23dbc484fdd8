"""Seeds until decided: a sweep whose runs are made up, from its first look to its end."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fmnist_pl.options.messages import UserError
from fmnist_pl.report.evidence import Verdict
from fmnist_pl.report.looks import planned, still_open
from fmnist_pl.report.statistics import spend
from fmnist_pl.report.summary import summarise
from fmnist_pl.sweep.plan import prepare
from fmnist_pl.sweep.until_decided import UntilDecided
from tests.sweep.test_compose import sweep

ACCURACY = {"mlp": 0.86, "cnn": 0.906, "cnn_bn": 0.909}
LUCK = [0.004, -0.006, 0.008, -0.003, -0.004, 0.002, 0.005, -0.001, 0.001, -0.006]  # of cnn_bn


class StandIn:
    """A launcher that writes runs that never were.

    Args:
        made_up: the fixture.
        stop_after: runs until it is killed.
        without: seeds of which nothing comes.
    """

    def __init__(self, made_up: Any, stop_after: float = math.inf, without: Any = ()) -> None:
        self.made_up, self.stop_after, self.without = made_up, stop_after, without
        self.launched: list[str] = []

    def __call__(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        for words in jobs:
            if len(self.launched) >= self.stop_after:
                raise KeyboardInterrupt
            run = self.sweep.composed(*words)
            name, seed = run.config.name, run.config.seed
            self.launched.append(f"{name}-{seed}")
            if seed in self.without:
                continue
            luck = LUCK[seed % 10] if name == "cnn_bn" else 0
            self.made_up.run(run.folder, run.config, ACCURACY[name], luck=luck)
        return [SimpleNamespace(return_value=None)] * len(jobs)

    sweep: UntilDecided


OPTIONS = ("model=mlp,cnn,cnn_bn", "hydra/sweeper=until_decided", "embeddings=none")


def go_on(folder: Path, standin: StandIn, *more: str) -> None:
    """The command in a folder, until its end or until it is killed."""
    words = (*OPTIONS, "hydra.sweeper.max_seeds=20", f"hydra.sweep.dir={folder}", *more)
    folder.mkdir(exist_ok=True)
    with sweep(*words) as config:
        prepare(config)
        options = {key: config.hydra.sweeper[key] for key in ("first_look", "max_seeds", "margin")}
        standin.sweep = UntilDecided(config, standin, **options)
        standin.sweep.run()


def test_a_look_sees_its_own_seeds_alone(made_up: Any, tmp_path: Path) -> None:
    words = ("model=cnn,cnn_bn", *OPTIONS[1:], f"hydra.sweep.dir={tmp_path}")
    with sweep(*words) as config:
        prepare(config)
        options = {key: config.hydra.sweeper[key] for key in ("first_look", "max_seeds", "margin")}
        looks = UntilDecided(config, lambda *_: [], **options)
        for seed, luck in enumerate(LUCK):
            for variant, acc in zip(looks.variants, (0.9, 0.912), strict=True):
                run = looks.of(variant, seed)
                made_up.run(run.folder, run.config, acc, luck=2 * luck * (acc > 0.9))
        assert [variant.label for variant in looks.open_after(5)] == ["cnn", "cnn_bn"]
        assert looks.open_after(10) == []


def test_looks_are_planned() -> None:
    assert planned(5, 40, 0.2) == (5, 10, 20, 40)
    assert planned(5, 30, 0.2) == (5, 10, 20, 30)
    assert planned(5, 5, 1) == (5,)
    for first, most in ((1, 5), (5, 4), ("five", 10), (5, 10.5)):
        with pytest.raises(UserError, match=r"first_look=.*max_seeds=.*two seeds"):
            planned(first, most, 0.2)
    for margin in (0, "much", 100):
        with pytest.raises(UserError, match=r"margin=.*must be above 0"):
            planned(5, 10, margin)


def test_seeds_are_added_where_something_is_open(
    made_up: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standin = StandIn(made_up)
    go_on(tmp_path, standin, "seed=7,8")
    first = [f"{name}-{7 + i}" for name in ACCURACY for i in range(5)]
    assert standin.launched[:15] == first
    summary = summarise([tmp_path], tmp_path)
    seeds = {variant.label: sorted(variant.finished) for variant in summary.sweep.variants}
    # mlp is far behind; cnn and cnn_bn are close, and the luck of cnn_bn is large.
    assert seeds["mlp"] == [7, 8, 9, 10, 11]
    assert seeds["cnn"] == seeds["cnn_bn"]
    assert len(seeds["cnn"]) in (10, 20)
    assert summary.rules.looks == spend((5, 10, 20))
    assert summary.lead
    told = dict(
        zip(
            (one.contrast.arms[1] for one in summary.lead.evidence),
            summary.lead.verdicts,
            strict=True,
        )
    )
    assert told["mlp"] is Verdict.HOLDS
    assert f"5 of mlp; {len(seeds['cnn'])} of cnn, cnn_bn. " in str(summary)
    assert f"{5 + 2 * len(seeds['cnn'])} runs in place of 60" in str(summary)
    assert "after 5 seeds something is open on cnn, cnn_bn" in capsys.readouterr().out
    if len(seeds["cnn"]) < 20:
        assert not still_open(summary.sweep, summary.judgements)


def test_a_killed_one_ends_the_same(made_up: Any, tmp_path: Path) -> None:
    go_on(tmp_path / "whole", StandIn(made_up))
    for stop_after in (3, 17, math.inf):
        standin = StandIn(made_up, stop_after)
        try:
            go_on(tmp_path / "killed", standin)
        except KeyboardInterrupt:
            assert len(standin.launched) == stop_after
    whole, killed = (summarise([path], path) for path in (tmp_path / "whole", tmp_path / "killed"))
    assert str(whole) == str(killed)
    folders = [
        sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("whole", "killed")
    ]
    assert folders[0] == folders[1]
    again = StandIn(made_up)
    go_on(tmp_path / "killed", again)
    assert again.launched == []


def test_nothing_is_decided_on_runs_that_failed(made_up: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"3 of 15 runs have not finished, mlp-2 .*same command goes on"
    ):
        go_on(tmp_path, StandIn(made_up, without=(2,)))


def test_another_plan_is_refused(made_up: Any, tmp_path: Path) -> None:
    go_on(tmp_path, StandIn(made_up))
    with pytest.raises(UserError, match=r"looks.json has another plan.*max_seeds.*begun with"):
        go_on(tmp_path, StandIn(made_up), "hydra.sweeper.max_seeds=40")
    (tmp_path / "looks.json").write_text(json.dumps({"looks": 5}))
    with pytest.raises(UserError, match=r"looks.json: no plan of looks"):
        summarise([tmp_path], tmp_path)
