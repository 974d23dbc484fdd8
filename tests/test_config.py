"""Every YAML composes; every mistake is refused by name."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fmnist_pl.config import check_same, identity, read, resolve
from fmnist_pl.data import folders
from fmnist_pl.data.augment import Op, asdict_op, parse_ops
from fmnist_pl.data.catalogue import named
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.report.arms import arm_of
from tests.data.test_folders import fill


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
    assert adam.pop("_target_") == "torch.optim.Adam"
    assert adam == {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-7, "fused": True}
    assert not (config.schedule)
    assert not (config.callbacks)
    assert not (config.logger)
    assert not (config.model.net)
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
        (
            "data.val_size=60000",
            "data.val_size=60000: must be .* at most 59999, for Fashion-MNIST has 60000",
        ),
        ("optimizer.lr=0", "optimizer.lr=0: must be a number more than 0"),
        ("trainer.precision=7", "trainer.precision=7: must be one of 32-true"),
        ("test.checkpoint=first", "test.checkpoint=first: must be one of last, best"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("seeds.order=-1", "seeds.order=-1: must be at least 0 and less than 4294967296"),
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
        ([{"rotate": 5}], "is not of the form"),
        ([{"os.path.join": {}}], "os.path.join is no operation: a dataclass that is a subclass of"),
        ([{"fmnist_pl.data.augment.Op": {}}], "fmnist_pl.data.augment.Op is no operation"),
        ([{"nowhere.ops.Brightness": {}}], "augment.ops: .*nowhere.*"),
    ],
)
def test_bad_augmentations_are_refused_by_name(ops: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_ops(ops)


OPS = """
from dataclasses import dataclass
from fmnist_pl.data.augment import Op
from fmnist_pl.options.fields import option

@dataclass
class Brightness(Op):
    change: float = option(0.2, "Factor.", ge=0, le=1)
    plain: int = 3
    def draw(self, n, generator): return ()
    def apply(self, images): return images

class Undecorated(Brightness): pass

@dataclass
class Checked(Brightness):
    def __post_init__(self):
        raise ValueError("at noon only")

@dataclass
class Unfinished(Op): pass
"""


def test_operations_of_ones_own_are_checked_as_all_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_operations.py").write_text(OPS)
    monkeypatch.syspath_prepend(tmp_path)
    path = "my_operations.Brightness"
    before = dict(Op.known)
    [op] = parse_ops([{path: {"change": 0.5}}])
    assert asdict_op(op) == {path: {"change": 0.5, "plain": 3}}
    assert Op.known == before
    for name, parameters, message in (
        ("Brightness", {"change": 2}, "Brightness.change=2.0: must be at least 0 and at most 1"),
        ("Brightness", {"plain": "x"}, "Brightness: Value 'x' .* its parameters: change, plain"),
        ("Brightness", {"chagne": 0}, "'chagne' not in 'Brightness'; its parameters: change"),
        ("Checked", {}, "Checked: at noon only; its parameters"),
        ("Undecorated", {}, "my_operations.Undecorated is no operation: a dataclass"),
        ("Unfinished", {}, "my_operations.Unfinished is no operation"),
    ):
        with pytest.raises(UserError, match=message):
            parse_ops([{f"my_operations.{name}": parameters}])


def test_reading_a_configuration_imports_nothing() -> None:
    path = "nowhere.ops.Brightness"
    config = configured(
        f"augment.ops=[{{{path}: {{change: 3}}}},{{torchvision: {{}}}},{{noise: {{}}}}]"
    )
    assert config.augment.ops == [
        {path: {"change": 3}},
        {"torchvision": {}},
        {"noise": {"std": 0.01}},
    ]
    assert arm_of(config) is None
    with pytest.raises(UserError, match="is not of the form"):
        configured(f"augment.ops=[{{{path}: 3}}]")


def test_what_a_run_computes_is_its_identity() -> None:
    plain = identity(configured())
    same = ["data.root=/somewhere", "overwrite=true", "trainer.enable_progress_bar=false"]
    assert identity(configured(*same)) == plain
    for other in (
        "seed=1",
        "seeds.order=0",
        "seeds=none",
        "model=cnn",
        "augment=none",
        "trainer.max_epochs=3",
        "threads=2",
    ):
        assert identity(configured(other)) != plain


def test_a_data_set_decides_classes_and_sizes() -> None:
    config = configured("data=mnist")
    assert list(config.classes) == list("0123456789")
    assert (config.data.train_images, config.data.test_images) == (60_000, 10_000)
    assert configured("data=kmnist", "data.val_size=null").data.val_size == 10_000
    assert identity(config) != identity(configured())
    with pytest.raises(UserError, match=r"label 9 \(wo\) is missing"):
        configured("data=kmnist", "+classes={A:[0,1,2,3,4],B:[5,6,7,8]}")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders: 48 images to train on and 8 for the test."""
    return fill(tmp_path / "photos", {"bag": 28, "shoe": 28})


def test_sizes_of_ones_own_images_are_read_before_they_are_checked(photos: Path) -> None:
    config = configured("data=folder", f"data.root={photos}", "data.name=mine")
    assert list(config.classes) == ["bag", "shoe"]
    assert (config.data.train_images, config.data.test_images, config.data.val_size) == (48, 8, 8)
    for override, message in (
        ("data.val_size=48", "data.val_size=48: must be at least 1 and at most 47, for mine has"),
        ("data.batch_size=49", "data.batch_size=49: must be at least 1 and at most 48"),
        ("trainer.limit_train_batches=0.4", "at least of the 2 batches"),
        ("+classes={A:[0],B:[1,2]}", "label 2 does not exist"),
        ("data.name=mnist", "data.format=folders: mnist is a data set that is known"),
        ("data.train_images=7", "data.train_images=7: mine has 48"),
    ):
        with pytest.raises(UserError, match=message):
            configured("data=folder", f"data.root={photos}", "data.name=mine", override)
    with pytest.raises(UserError, match=r"data.root=FOLDER must be given"):
        configured("data=folder")


def test_a_folder_of_version_0_1_is_of_fashion_mnist(tmp_path: Path) -> None:
    config = configured("model=mlp")
    options = OmegaConf.to_container(OmegaConf.structured(config))
    options["data"] = {"root": None, "batch_size": 32, "val_size": 10000, "split_seed": 42}
    del options["seeds"]
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(options))
    assert read(tmp_path / "config.yaml") == config
    check_same(config, tmp_path)
    with pytest.raises(UserError, match=r"a different configuration .*data.name"):
        check_same(configured("model=mlp", "data=mnist"), tmp_path)


def test_a_run_of_ones_own_images_goes_on_with_the_same_ones(photos: Path, tmp_path: Path) -> None:
    overrides = ("data=folder", f"data.root={photos}")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(configured(*overrides)))
    check_same(configured(*overrides), tmp_path)
    (photos / "bag" / "000.png").unlink()
    (photos / "bag" / "001.png").rename(photos / "bag" / "000.png")
    folders.contents.cache_clear()
    with pytest.raises(UserError, match=r"a different configuration .*data.hashes"):
        check_same(configured(*overrides), tmp_path)
    assert read(tmp_path / "config.yaml").data.train_images == 48  # none of it is read again


def test_nothing_is_fetched_where_the_folder_of_a_run_says(tmp_path: Path) -> None:
    for name in ("mnist", "mine"):
        config = configured("data=mnist")
        config.data.name, config.data.mirrors = name, ["http://evil/"]
        config.data.debian_package = "evil"
        (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config))
        data = read(tmp_path / "config.yaml").data
        assert data.mirrors == (named("mnist").mirrors if name == "mnist" else [])
        assert data.debian_package is None
