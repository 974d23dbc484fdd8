"""Every YAML composes; every mistake is refused by name."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from fmnist_pl.config import identity, resolve
from fmnist_pl.data.augment import parse_ops
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config


def configured(*overrides: str) -> Config:
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return resolve(compose("train", list(overrides)))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(CONF_DIR) / group).glob("*.yaml"))


@pytest.mark.parametrize("model", options("model"))
def test_every_model_composes(model: str) -> None:
    config = configured(f"model={model}")
    assert config.name == config.model.name == model


@pytest.mark.parametrize("augment", options("augment"))
def test_every_augmentation_composes(augment: str) -> None:
    assert configured(f"augment={augment}").augment.name == augment


@pytest.mark.parametrize(
    ("experiment", "model", "augment", "classes"),
    [("vanilla", "mlp", "none", 10), ("three_class", "mlp", "none", 3)],
)
def test_experiments_are_those_of_the_protocol(
    experiment: str, model: str, augment: str, classes: int
) -> None:
    config = configured(f"experiment={experiment}")
    assert config.name == experiment
    assert config.model.name == model
    assert config.augment.name == augment
    assert len(config.classes) == classes


def test_defaults_are_those_of_the_protocol() -> None:
    config = configured()
    assert config.data.batch_size == 32
    assert config.trainer.max_epochs == 10
    assert (config.data.val_size, config.data.split_seed) == (10_000, 42)
    adam = config.optimizer
    assert (adam.lr, adam.beta1, adam.beta2, adam.eps) == (1e-3, 0.9, 0.999, 1e-7)
    assert [list(op) for op in config.augment.ops] == [
        ["rotate"],
        ["flip_horizontal"],
        ["cutout"],
    ]
    assert config.augment.ops[2]["cutout"] == {
        "p": 0.5,
        "min_size": 1,
        "max_size": 9,
        "max_value": 0.02,
    }


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"A": list(range(9)), "B": []}, "'B' has no labels"),
        ({"A": list(range(10))}, "only 'A' is given"),
        ({"A": [0, 1, 2, 3, 4], "B": [5, 6, 7, 8]}, r"label 9 \(Ankle boot\) is missing"),
        ({"A": [0, 1, 2, 3, 4], "B": [4, 5, 6, 7, 8, 9]}, "label 4 is listed 2 times"),
        ({"A": [0, 1, 2, 3, 4], "B": [5, 6, 7, 8, 9, 10]}, "label 10 does not exist"),
        ({"A": [-1, 0, 1, 2, 3, 4], "B": [5, 6, 7, 8, 9]}, "label -1 does not exist"),
    ],
)
def test_impossible_groupings_are_refused_by_name(
    classes: dict[str, list[int]], message: str
) -> None:
    config = configured()
    config.classes = classes
    with pytest.raises(UserError, match=message):
        resolve(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dropout=1.5", r"model.dropout=1.5: must be at least 0 and less than 1\."),
        ("model.dropout=nan", "model.dropout=nan: must be"),
        ("model.channels=[32,0]", "model.channels=.*: must be at least 1"),
        ("data.batch_size=0", "data.batch_size=0: must be at least 1"),
        ("data.val_size=60000", "data.val_size=60000: must be .* at most 59999"),
        ("optimizer.lr=0", "optimizer.lr=0.0: must be more than 0"),
        ("trainer.precision=7", "trainer.precision=7: must be one of 32-true"),
        ("test.checkpoint=first", "test.checkpoint=first: must be one of last, best"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("trainer.devices=[]", r"trainer.devices=\[\]: must be how many, as 2; which, as"),
        ("trainer.devices=[1,1]", "trainer.devices=.*: must be how many"),
        ("trainer.devices=true", "trainer.devices=True: must be how many"),
        ("trainer.devices=0.5", "trainer.devices=0.5: must be how many"),
        ("trainer.devices=[0,1,2]", "3 devices cannot have equal shares"),
        ("float32_matmul_precision=low", "must be one of highest, high, medium"),
    ],
)
def test_values_out_of_range_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        configured(override)


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([{"rotat": {}}], "no operation 'rotat'; there are rotate, flip_horizontal"),
        ([{"rotate": {"degrees": 181}}], r"rotate.degrees=181.0: must be"),
        ([{"rotate": {"angle": 5}}], "Key 'angle' not in 'Rotate'; its parameters: degrees"),
        ([{"noise": {"std": "loud"}}], "Value 'loud' .* its parameters: std"),
        ([{"cutout": {"min_size": 9, "max_size": 3}}], "min_size must be at most max_size"),
        (["rotate"], "'rotate' is not of the form"),
    ],
)
def test_bad_augmentations_are_refused_by_name(ops: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_ops(ops)


def test_what_a_run_computes_is_its_identity() -> None:
    plain = identity(configured())
    same = ["data.root=/somewhere", "overwrite=true", "trainer.enable_progress_bar=false"]
    assert identity(configured(*same)) == plain
    for other in ("seed=1", "model=cnn", "augment=none", "trainer.max_epochs=3", "threads=2"):
        assert identity(configured(other)) != plain
