"""The runs of a sweep: Hydra's grammar, folders that keep apart, a list of what would run."""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist_pl.config import identity, resolve
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.sweep.compose import Run
from fmnist_pl.sweep.plan import prepare
from tests.faults.commands import Command

MODELS = ["cnn", "cnn_bn", "cnn_bn_dropout", "cnn_bn_dropout_l1", "cnn_bn_dropout_l2", "mlp"]


@contextmanager
def sweep(*overrides: str) -> Iterator[DictConfig]:
    """The configuration of `python -m fmnist_pl.train -m OVERRIDES...`."""
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield loader.load_configuration("train", list(overrides), RunMode.MULTIRUN)


def planned(*overrides: str) -> list[Run]:
    with sweep(*overrides) as config:
        return prepare(config)


def folder(*overrides: str) -> str:
    with sweep(*overrides) as config:
        return str(config.hydra.sweep.dir)


@pytest.mark.parametrize(
    ("words", "option", "values"),
    [
        ("model=cnn,mlp", lambda run: run.name, ["cnn", "mlp"]),
        ("model=choice(cnn,mlp)", lambda run: run.name, ["cnn", "mlp"]),
        ("model=glob(*)", lambda run: run.name, [*MODELS, "resnet18"]),
        ("model=glob(cnn_bn*)", lambda run: run.name, MODELS[1:5]),
        ("model=glob([cnn,m*])", lambda run: run.name, ["cnn", "mlp"]),
        ("model=glob(*,exclude=*_l?)", lambda run: run.name, [*MODELS[:3], "mlp", "resnet18"]),
        ("model=sort(mlp,cnn)", lambda run: run.name, ["cnn", "mlp"]),
        ("seed=range(3)", lambda run: run.seed, [0, 1, 2]),
        ("seed=range(0,20)", lambda run: run.seed, list(range(20))),
        ("seed=range(1,8,step=3)", lambda run: run.seed, [1, 4, 7]),
        ("seed=sort(range(3),reverse=true)", lambda run: run.seed, [2, 1, 0]),
        ("model.dropout=range(0,0.5,step=0.25)", lambda run: run.model.dropout, [0.0, 0.25]),
        ("optimizer.lr=tag(log,choice(0.1,1))", lambda run: run.optimizer["lr"], [0.1, 1.0]),
        ("seed=int(choice('1','2'))", lambda run: run.seed, [1, 2]),
        ("model.channels=[8],[8,16]", lambda run: run.model.channels, [[8], [8, 16]]),
    ],
)
def test_the_grammar_of_sweeps(
    words: str, option: Callable[[Config], object], values: list[object]
) -> None:
    assert [option(run.config) for run in planned(words)] == values


@pytest.mark.parametrize("words", ["seed=shuffle(range(8))", "seed=shuffle(0,1,2,3,4,5,6,7)"])
def test_shuffled_is_the_same_runs(words: str) -> None:
    assert sorted(run.config.seed for run in planned(words)) == list(range(8))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("optimizer.lr=interval(0.1,1)", "hydra/sweeper=optuna searches it"),
        ("model=glob(rnn*)", "model=glob(rnn*): that is nothing"),
    ],
)
def test_what_cannot_be_enumerated_is_refused(words: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        planned(words)


def test_every_run_is_as_hydra_composes_it() -> None:
    """Also where an option hangs on another one, and where a part and the whole are set."""
    given = {
        "model": ["mlp", "cnn_bn"],
        "experiment": ["vanilla", "cnn"],
        "seed": ["3", "4"],
        "data.split_seed": ["${seed}"],
        "+classes": ["{A:[0,1,2],B:[3,4,5,6,7,8,9]}", "{A:[0],B:[1,2,3,4,5,6,7,8,9]}"],
        "optimizer.lr": ["0.1", "0.2"],
        "trainer": ["{max_epochs:3}", "{max_epochs:4}"],
        "trainer.precision": ["64-true"],
    }
    runs = planned(*(f"{key}=choice({','.join(values)})" for key, values in given.items()))
    product = list(itertools.product(*([f"{k}={v}" for v in vs] for k, vs in given.items())))
    assert len(runs) == len(product) == 64
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        for run, words in zip(runs[::7], product[::7], strict=True):
            assert identity(run.config) == identity(resolve(compose("train", list(words))))


def test_hydra_composes_one_of_the_runs_that_differ_in_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes ten times as long for a run as setting the values of another in what it composed."""
    composed = []
    original = ConfigLoaderImpl.load_sweep_config

    def load(self: ConfigLoaderImpl, config: DictConfig, words: list[str]) -> DictConfig:
        composed.append(words)
        return original(self, config, words)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", load)
    assert len(planned("model=mlp,cnn", "seed=range(100)")) == 200
    assert sorted(composed) == [["model=cnn"], ["model=mlp"]]


def test_each_sweep_has_its_folder() -> None:
    first = folder("model=mlp,cnn", "seed=0,1", "trainer.max_epochs=2")
    assert re.fullmatch(r"runs/model-[0-9a-f]{8}", first)
    assert (
        folder("trainer.max_epochs=2", "seed=0,1,2,3", "model=mlp,cnn", "fail_fast=true") == first
    )
    others = [
        folder("model=mlp,cnn", "seed=0,1"),
        folder("model=mlp,cnn_bn", "seed=0,1", "trainer.max_epochs=2"),
        folder("model=mlp,cnn", "seed=0,1", "trainer.max_epochs=2", "optimizer.lr=0.1,0.2"),
        folder("model=mlp", "seed=0,1", "trainer.max_epochs=2"),
    ]
    assert len({first, *others}) == 5
    assert others[2].startswith("runs/model-lr-")
    assert others[3].startswith("runs/mlp-")
    assert folder("experiment=six_models") == "runs/six_models"


def test_a_subfolder_of_ones_own_is_taken(tmp_path: Path) -> None:
    there = f"hydra.sweep.dir={tmp_path}"
    runs = planned("model=mlp,cnn", "seed=0,1", there, "hydra.sweep.subdir=${seed}/${model.name}")
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == [
        *("0/mlp", "1/mlp", "0/cnn", "1/cnn")
    ]
    numbered = planned("seed=4,5", there, "hydra.sweep.subdir=${hydra.job.num}")
    assert [run.folder.name for run in numbered] == ["0", "1"]


@pytest.mark.parametrize(
    ("subdir", "said"),
    [
        ("same", "same: two runs of the sweep are the same"),
        ("/elsewhere/${seed}", "must be a folder in that of the sweep"),
        ("../${seed}", "must be a folder in that of the sweep"),
    ],
)
def test_a_subfolder_that_cannot_be_is_refused(subdir: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        planned("seed=0,1", f"hydra.sweep.subdir={subdir}")


def test_a_dry_run_lists_the_runs_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "mlp-0").mkdir(parents=True)
    (tmp_path / "sweep" / "mlp-1").mkdir()
    (tmp_path / "sweep" / "mlp-0" / "result.json").write_text("{}")
    (tmp_path / "sweep" / "mlp-1" / "metrics.csv").write_text("epoch\n1\n2\n")
    words = ("-m", "model=mlp", "seed=0,1,2", "hydra.sweep.dir=sweep", "--cfg", "job")
    said = Command("train", *words, cwd=tmp_path)
    said.succeeds()
    lines = said.out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == [
        *("finished", "epoch 2 of 10", "to do", "3 runs in sweep, 1 finished")
    ]
    assert lines[2].split() == ["to", "do", "mlp-2", "model=mlp", "seed=2"]
    assert not (tmp_path / "sweep" / "mlp-2").exists()
