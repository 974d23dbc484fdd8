"""A search with a stand-in for its runs: Optuna's own search, killed or not; and a real one."""

import csv
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from fmnist_pl.options.messages import UserError
from fmnist_pl.report.runs import BY_EPOCH
from fmnist_pl.sweep.plan import prepare
from fmnist_pl.sweep.search import Search
from fmnist_pl.sweep.space import space
from tests.sweep.test_compose import sweep
from tests.sweep.test_sweep import BETWEEN_EPOCHS, SMALL, kill_at_work, state
from tests.sweep.test_sweep import sweep as command

SPACE = ("optimizer.lr=tag(log,interval(1e-4,1))", "model.dropout=interval(0.0,0.9)")
OPTIONS = ("hydra/sweeper=optuna", "model=mlp", "trainer.max_epochs=3", *SPACE)
BEST_LR, BEST_DROPOUT = 1e-2, 0.3


def accuracy(lr: float, dropout: float, seed: int, epoch: int = 3) -> float:
    """Highest at 1e-2 and 0.3, whatever the seed."""
    distance = (math.log10(lr / BEST_LR) / 4) ** 2 + (dropout - BEST_DROPOUT) ** 2
    return 0.9 - 0.1 * distance + 0.001 * seed - 0.1 / epoch


class StandIn:
    """A launcher that writes what runs would leave.

    Args:
        stop_after: launches until it is killed.
        fails: whether a run does, from its accuracy.
    """

    def __init__(
        self, stop_after: float = math.inf, fails: Callable[[float], bool] = lambda acc: False
    ) -> None:
        self.stop_after, self.fails = stop_after, fails
        self.launched: list[str] = []

    def __call__(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        for words in jobs:
            if len(self.launched) >= self.stop_after:
                raise KeyboardInterrupt
            options = dict(word.split("=", 1) for word in words)
            epochs = int(options.pop("pause_after", 3))
            run = self.search.composed(*(f"{key}={value}" for key, value in options.items()))
            self.launched.append(f"{run.folder.name} {epochs}")
            run.folder.mkdir(parents=True, exist_ok=True)
            config = run.config
            accuracies = [
                accuracy(config.optimizer["lr"], config.model.dropout, config.seed, epoch)
                for epoch in range(1, epochs + 1)
            ]
            if self.fails(accuracies[-1]):
                (run.folder / "status.json").write_text('{"state": "failed", "error": "bad luck"}')
                continue
            with (run.folder / "metrics.csv").open("w") as file:
                rows = ((i, *[each] * len(BY_EPOCH)) for i, each in enumerate(accuracies, 1))
                csv.writer(file).writerows([("epoch", *BY_EPOCH), *rows])
            if epochs == 3:
                (run.folder / "result.json").write_text(json.dumps({"val/acc": accuracies[-1]}))
        return [SimpleNamespace(return_value=None) for _ in jobs]

    def run(self, folder: Path, *overrides: str) -> dict[str, Any]:
        """A whole search; the content of its `search.json`."""
        folder.mkdir(exist_ok=True)
        there = f"hydra.sweep.dir={folder}"
        with sweep(
            *OPTIONS, there, "hydra.sweeper.seeds=2", "hydra.sweeper.confirm=2", *overrides
        ) as config:
            prepare(config)
            self.search = Search(config, self, **built(config))
            self.search.run()
        content: dict[str, Any] = json.loads((folder / "search.json").read_text())
        return content


def built(config: DictConfig) -> dict[str, Any]:
    """The options of the sweeper, as Hydra gives them to it."""
    options = {str(key): config.hydra.sweeper[key] for key in config.hydra.sweeper}
    return options | {key: instantiate(options[key]) for key in ("sampler", "pruner")}


def trials(content: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(one["params"], one["value"], one["state"]) for one in content["trials"]]


def alone(n_trials: int, pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    """Optuna's own search for the mean over two seeds."""

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("optimizer.lr", 1e-4, 1, log=True)
        dropout = trial.suggest_float("model.dropout", 0, 0.9)
        for epoch in (1, 2) if pruner else ():
            trial.report(
                (accuracy(lr, dropout, 0, epoch) + accuracy(lr, dropout, 1, epoch)) / 2, epoch
            )
            if trial.should_prune():
                raise optuna.TrialPruned
        return (accuracy(lr, dropout, 0) + accuracy(lr, dropout, 1)) / 2

    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(
        direction="maximize", sampler=sampler, pruner=pruner or optuna.pruners.NopPruner()
    )
    study.optimize(objective, n_trials=n_trials)
    return study


def test_it_searches_as_optuna_alone_does(tmp_path: Path) -> None:
    content = StandIn().run(tmp_path, "hydra.sweeper.n_trials=25")
    study = alone(25)
    assert [one["params"] for one in content["trials"]] == [one.params for one in study.trials]
    assert [one["value"] for one in content["trials"]] == pytest.approx(
        [one.value for one in study.trials]
    )
    assert content["best"] == study.best_trial.number
    best = content["trials"][content["best"]]["params"]
    assert abs(math.log10(best["optimizer.lr"] / BEST_LR)) < 0.5
    assert abs(best["model.dropout"] - BEST_DROPOUT) < 0.15
    assert set(content["importance"]) == {"optimizer.lr", "model.dropout"}
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "search.journal"))
    )
    [name] = optuna.get_all_study_names(storage)
    journal = optuna.load_study(study_name=name, storage=storage)  # as optuna-dashboard does
    assert [one.params for one in journal.trials] == [one.params for one in study.trials]
    assert journal.best_value == pytest.approx(study.best_value)


@pytest.mark.parametrize(
    "options", [(), ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2")]
)
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_killed_it_goes_on_as_if_it_had_not_been(
    tmp_path: Path, options: tuple[str, ...], n_jobs: int
) -> None:
    words = ("hydra.sweeper.n_trials=13", f"hydra.sweeper.n_jobs={n_jobs}", *options)
    whole = StandIn()
    undisturbed = whole.run(tmp_path / "whole", *words)
    launched: list[str] = []
    for stop_after in (3, 8, 7, math.inf):
        part = StandIn(stop_after)
        try:
            content = part.run(tmp_path / "parts", *words)
        except KeyboardInterrupt:
            with (tmp_path / "parts" / "search.journal").open("a") as journal:
                journal.write('{"op_code": 6, "wor')  # cut off
        launched += part.launched
    assert trials(content) == trials(undisturbed)
    assert content["fresh"] == undisturbed["fresh"]
    assert launched == whole.launched  # nothing twice


def test_pruned_by_the_mean_of_the_seeds(tmp_path: Path) -> None:
    words = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=3")
    content = StandIn().run(tmp_path, "hydra.sweeper.n_trials=10", *words)
    study = alone(10, optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=0))
    states = [one.state.name.lower() for one in study.trials]
    assert [one["state"] for one in content["trials"]] == states
    assert {"pruned", "complete"} == set(states)
    for one in content["trials"]:
        for run in one["runs"]:
            if one["state"] == "pruned":
                assert state(tmp_path / run) == "pruned"
                assert not (tmp_path / run / "result.json").exists()


def test_failed_trials_are_told_up_to_a_limit(tmp_path: Path) -> None:
    words = ("hydra.sweeper.n_trials=12", "hydra.sweeper.max_failures=4")
    content = StandIn(fails=lambda acc: acc < 0.83).run(tmp_path / "some", *words)
    failed = [one for one in content["trials"] if one["state"] == "fail"]
    assert 0 < len(failed) < 4
    assert {one["error"] for one in failed} == {"bad luck"}
    said = "4 trials have failed (hydra.sweeper.max_failures=4); the last: bad luck"
    with pytest.raises(UserError, match=re.escape(said)):
        StandIn(fails=lambda acc: True).run(tmp_path / "all", *words)


def test_the_chosen_one_is_judged_on_seeds_that_no_trial_saw(tmp_path: Path) -> None:
    content = StandIn().run(tmp_path, "seed=4", "hydra.sweeper.n_trials=3")
    assert content["seeds"] == [4, 5]
    fresh = content["fresh"]
    assert fresh["seeds"] == [6, 7]
    assert fresh["default"] == ["mlp-6", "mlp-7"]
    lr = content["trials"][content["best"]]["params"]["optimizer.lr"]
    assert all(f"-lr-{lr:.3g}-dropout-" in name for name in fresh["chosen"])
    assert [name.split("-")[1] for name in fresh["chosen"]] == ["6", "7"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("hydra.sweeper.seeds=3", "holds another search (seeds)"),
        ("data.batch_size=64", "holds another search (options)"),
        ("model.dropout=interval(0.0,0.5)", "holds another search (space)"),
        ("hydra.sweeper.seed=1", "this sampler asks for"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(
    tmp_path: Path, change: str, said: str
) -> None:
    StandIn().run(tmp_path, "hydra.sweeper.n_trials=1")
    before = (tmp_path / "search.journal").read_bytes()
    with pytest.raises(UserError, match=re.escape(said)):
        StandIn().run(tmp_path, "hydra.sweeper.n_trials=2", change)
    assert (tmp_path / "search.journal").read_bytes() == before


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer.lr=interval(0.1,1)", FloatDistribution(0.1, 1)),
        ("optimizer.lr=tag(log,interval(1e-4,1))", FloatDistribution(1e-4, 1, log=True)),
        ("data.batch_size=int(interval(8,64))", IntDistribution(8, 64)),
        ("data.batch_size=tag(log,int(interval(8,64)))", IntDistribution(8, 64, log=True)),
        ("data.batch_size=range(8,33,step=8)", IntDistribution(8, 32, step=8)),
        ("model.dropout=range(0,0.5,step=0.25)", FloatDistribution(0, 0.25, step=0.25)),
        ("optimizer.lr=0.1,0.01", CategoricalDistribution([0.1, 0.01])),
        ("model=choice(mlp,cnn)", CategoricalDistribution(["mlp", "cnn"])),
        (
            "model=glob(cnn_bn_dropout_*)",
            CategoricalDistribution([f"cnn_bn_dropout_l{i}" for i in (1, 2)]),
        ),
        ("model.hidden=[32],[64,32]", CategoricalDistribution(["[32]", "[64,32]"])),
    ],
)
def test_hydras_grammar_as_optunas_distributions(word: str, expected: object) -> None:
    with sweep("hydra/sweeper=optuna", word) as config:
        assert list(space(config).values()) == [expected]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to search"),
        (("seed=range(3)",), "a search takes hydra.sweeper.seeds seeds"),
        (("model.dropout=interval(0,1)",), "model.dropout=1"),
        (("optimizer.lr=interval(1,0.1)",), "optimizer.lr=interval(1,0.1): "),
        ((SPACE[0], "hydra.sweeper.n_trials=0"), "hydra.sweeper.n_trials=0: must be 1 at least"),
        ((SPACE[0], "hydra.sweeper.metric=test/acc"), "must be val/acc, val/loss"),
    ],
)
def test_an_impossible_search_is_refused(words: tuple[str, ...], said: str) -> None:
    with (
        sweep("hydra/sweeper=optuna", *words) as config,
        pytest.raises(UserError, match=re.escape(said)),
    ):
        prepare(config)


@pytest.mark.slow
def test_a_real_search_killed_three_times_is_the_same(tmp_path: Path) -> None:
    words = (*SMALL, *BETWEEN_EPOCHS, "hydra/sweeper=optuna", "model=mlp", SPACE[0])
    words += ("hydra.sweeper.n_trials=3", "hydra.sweeper.seeds=2", "hydra.sweeper.confirm=1")
    assert command(tmp_path / "whole", *words).returncode == 0
    kill_at_work(tmp_path / "killed", *words)
    assert command(tmp_path / "killed", *words).returncode == 0
    found = [
        trials(json.loads((tmp_path / name / "search.json").read_text()))
        for name in ("whole", "killed")
    ]
    assert found[0] == found[1]
    assert all(state == TrialState.COMPLETE.name.lower() for _, _, state in found[0])
