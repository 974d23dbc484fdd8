"""What one can mistype: refused before anything is written, by name, with what is legal.

Elsewhere: values out of range, groupings and augmentations (`test_config.py`), sweeps
(`test_sweep.py`), the folder of the data (`test_dataset.py`), the other commands' options
(`test_predict.py`, `test_evaluate.py`, ...).
"""

import csv
import math
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fmnist_pl.data import source
from tests.faults.commands import Command
from tests.faults.conftest import MLP, Disk, without_pictures

Train = Callable[..., Command]

MISTAKES = {
    # Hydra's and OmegaConf's own words
    "model=nonsense": ("model=nonsense: no such choice. There are cnn, cnn_bn,", "--config-dir"),
    "experiment=nonsense": ("experiment=nonsense: no such choice. There are", "three_class"),
    "callbacks=[early_stoping]": ("callbacks=early_stoping", "The nearest: early_stopping"),
    "seed=abc": ("seed=abc: 'abc' must be a whole number",),
    "seed=1.5": ("seed=1.5: '1.5' must be a whole number",),
    "seed=": ("seed=: '' must be a whole number",),
    "seed=0,1": ("seed=0,1: several values make a sweep, which takes -m",),
    "model.channels=32": ("model.channels=32: must be a list, in brackets",),
    "model.hidden=[many]": ("model.hidden=[many]: 'many' must be a whole number",),
    "--epochs=3": ("--epochs=3: no such flag. Options are NAME=VALUE",),
    "model.batch_norm=maybe": ("model.batch_norm", "'maybe' is not a valid bool"),
    "optimizer.lr=fast": ("error: optimizer.lr=fast: must be a number more than 0.",),
    "seed": ("seed",),
    # this project's
    "optimizer.lr=nan": ("error: optimizer.lr=nan: must be a number more than 0.",),
    "optimizer.lr=inf": ("error: optimizer.lr=inf: must be a number more than 0.",),
    "model.l2=inf": ("error: model.l2=inf: must be a finite number.",),
    "augment.ops=[{noise:{std:inf}}]": ("noise.std=inf: must be a finite number.",),
    "augment.ops=[{os.path.join:{}}]": ("error: augment.ops: os.path.join is no operation",),
    "augment.ops=[{nowhere.ops.Brightness:{}}]": ("error: augment.ops: ", "nowhere"),
    "augment.ops=[{torchvision:{name:RandomErasing,q:1}}]": ("its arguments: p, scale, ratio",),
    "optimizer.lr=-1": ("error: optimizer.lr=-1: must be a number more than 0.",),
    "model.channels=[8,8,8,8,8]": ("error: model.channels=[8, 8, 8, 8, 8]: at most 4 blocks",),
    "data.val_size=0": ("error: data.val_size=0: must be at least 1",),
    "trainer.max_epochs=0": ("error: trainer.max_epochs=0: must be at least 1.",),
    "trainer.limit_train_batches=0": ("trainer.limit_train_batches=0: must be more than 0.",),
    "trainer.limit_train_batches=1.5": ("trainer.limit_train_batches=1.5: must be a share",),
    "trainer.limit_val_batches=0.02": ("trainer.limit_val_batches=0.02", "of the 40 batches"),
    "trainer.limit_test_batches=0.02": ("trainer.limit_test_batches=0.02", "of the 40 batches"),
    "trainer.fast_dev_run=-1": ("trainer.fast_dev_run=-1: must be at least 0.",),
    "trainer.devices=1000": ("data.batch_size=32: 1000 devices cannot have equal shares",),
    "threads=100000": ("threads=100000: must be at least 1 and at most 1024.",),
    "time_limit=1e9": ("time_limit=1000000000.0: must be more than 0 and at most 525600.",),
    "model.hidden=[9223372036854775808]": ("model.hidden=[", "at least 1 and at most 65536."),
    "model.channels=[1000000]": ("model.channels=[1000000]: must be", "at most 65536."),
    "data.batch_size=1000000000": ("data.batch_size=1000000000: must be", "at most 60000."),
    "time_limit=0": ("time_limit=0.0: must be more than 0 and at most 525600.",),
    "+classes={A:[0]}": ("error: classes: only 'A' is given",),
    "modle=mlp": ("error: modle: no such option. The nearest: model.",),
    "model.dropuot=0.1": ("error: model.dropuot: no such option. The nearest: model.dropout, ",),
    "lr=0.01": ("error: lr: no such option. The nearest: optimizer.lr.",),
    "epochs=1": ("error: epochs: no such option. The nearest: trainer.max_epochs, trainer.min_",),
    "scheduler=cosine": ("error: scheduler: no such option. The nearest: schedule. All are",),
    "+model.colour=red": ("error: model.colour: no such option.",),
    "+modle=mlp": ("error: modle: no such option. The nearest: model.",),
    "classes.A=[0]": ("To append to your config use +classes.A=[0]",),
    "model=null": ("model=null: Config group override must be a string",),
    "model.channels.x=1": ("model.channels.x=1: invalid literal for int()",),
    "name=${nothing}": ("error: name: Interpolation key 'nothing' not found.",),
    "~name": ("error: name: ", "missing mandatory value: name."),
    "hydra.run.dir=file": ("error: file: nothing can be kept there (File exists).",),
    "hydra.run.dir=file/below": ("file/below: nothing can be kept there (Not a directory).",),
    "hydra.run.dir=/proc/mine": ("/proc/mine: nothing can be kept there",),
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_told_before_anything_is_written(
    override: str, train: Train, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    command = train(override)
    assert command.wait() == 1
    for said in MISTAKES[override]:
        assert said in command.err
    assert "Traceback" not in command.err
    assert command.err.count("\n") < 20
    assert command.out == ""
    assert sorted(tmp_path.iterdir()) == [command.streams, tmp_path / "file"]


@pytest.mark.parametrize(
    ("group", "content", "said"),
    [
        ("model", b"name: mine\n\thidden: [8]\n", ("mine.yaml", "line 2")),  # a tab
        ("model", "name: mine".encode("utf-16"), ("mine.yaml: no text in UTF-8",)),
        ("model", b"name: mine\nname: yours\n", ("mine.yaml", "duplicate key name")),
        ("experiment", b"name: mine\n", ("experiment/mine.yaml: lacks", "# @package _global_")),
        ("model", b"hiden: [8]\n", ("model/mine.yaml: model.hiden: no such", "model.hidden.")),
    ],
)
def test_a_file_of_ones_own_is_named(
    group: str, content: bytes, said: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "mine.yaml").write_bytes(content)
    given = (f"--config-dir={tmp_path}/conf", f"{group}=mine")
    Command("train", *given, cwd=tmp_path).fails_with(*said)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["explore", "train"])
def test_hydras_refusals_are_told_alike(command: str, tmp_path: Path) -> None:
    refused = Command(command, "seed=abc", cwd=tmp_path)
    refused.fails_with("error: ", "'abc' must be a whole number")
    assert refused.err.count("\n") < 5


def test_a_sweep_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    sweep = Command("train", "-m", "seed=0,1", "hydra.sweep.dir=file/below", cwd=tmp_path)
    sweep.fails_with("error: file/below: nothing can be kept there (Not a directory).")


@pytest.mark.parametrize("below", ["", "/new"])
def test_a_folder_one_may_not_write_to_is_named(below: str, train: Train, disk: Disk) -> None:
    disk.mount("ro")
    told = f"{disk.folder}{below}: nothing can be kept there (Read-only file system)."
    train(folder=f"{disk.folder}{below}").fails_with(told)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.accelerator=nonsense", "`accelerator='nonsense'`. Available names are: "),
        ("trainer.accelerator=tpu", "torch_xla"),
        ("trainer.devices=0", "devices=0"),
        ("trainer.devices=many", "`devices` selected with `CPUAccelerator` should be an int > 0"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2: it takes hydra/launcher=slurm, "),
        ("trainer.strategy=nonsense", "invalid strategy name: `strategy='nonsense'`"),
    ],
)
def test_what_the_machine_has_not_is_told(
    override: str, said: str, train: Train, tmp_path: Path
) -> None:
    train(override).fails_with(said)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_folder_of_data_is_seen_from_where_one_types(train: Train, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(source.locate())
    train("trainer.fast_dev_run=true", "hydra.job.chdir=true", "data.root=data").succeeds()


def test_a_folder_without_the_data_is_told_once(train: Train, tmp_path: Path) -> None:
    command = train("trainer.fast_dev_run=true", "data.root=data")
    assert command.wait() == 0
    assert command.err.count("data.root is no use, looking elsewhere") == 1


def test_any_letters_will_do_for_a_path(train: Train, tmp_path: Path) -> None:
    name = "a = ü, 'b' [c]"
    (tmp_path / name).symlink_to(source.locate())
    quoted = name.replace("'", "\\'")
    given = ("trainer.fast_dev_run=true", f"data.root='{quoted}'")
    train(*given, folder=f"'{quoted}: run'").succeeds()
    assert (tmp_path / f"{name}: run" / "result.json").exists()


def with_little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))


def test_too_little_memory_is_told(train: Train, tmp_path: Path) -> None:
    large = train("model.hidden=[65536,65536]", prepare=with_little_memory)  # 17 GB of weights
    large.fails_with("out of memory: give a smaller data.batch_size or model.")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_batch_larger_than_the_data_is_all_of_them(train: Train, tmp_path: Path) -> None:
    train("data.batch_size=60000", "data.val_size=59900", "trainer.max_epochs=1").succeeds()
    [_, row] = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert ",100," in row  # images


def test_a_net_of_nothing_but_its_head(train: Train, tmp_path: Path) -> None:
    train("model.hidden=[]", "augment.ops=[]", "trainer.fast_dev_run=true").succeeds()
    assert (tmp_path / "run" / "result.json").exists()


OPERATION = """
from dataclasses import dataclass
from fmnist_pl.data.augment import Op
from fmnist_pl.options.fields import option

@dataclass
class Dark(Op):
    share: float = option(0.5, "Left of the light.", ge=0, le=1)
    def draw(self, n, generator): return ()
    def apply(self, images): return images * self.share
"""


def below_the_folder() -> None:
    without_pictures()
    sys.path.insert(0, "")  # as `python -m` has it


def test_an_operation_of_ones_own_trains_and_need_not_be_there_to_be_read(
    train: Train, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ops.py").write_text(OPERATION)
    dark, erasing = "{mine.ops.Dark:{share:0}}", "{torchvision:{name:RandomErasing,p:0.5}}"
    given = (f"augment.ops=[{dark},{erasing}]", "trainer.fast_dev_run=true")
    train(*given, prepare=below_the_folder).succeeds()
    head, row = csv.reader((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    loss = dict(zip(head, row, strict=True))["train/loss"]
    assert float(loss) == pytest.approx(math.log(10), abs=1e-6)  # of black, by a net of zero biases
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert config.augment.ops[0] == {"mine.ops.Dark": {"share": 0}}

    too_light = train("augment.ops=[{mine.ops.Dark:{share:2}}]", prepare=below_the_folder)
    too_light.fails_with("augment.ops: mine.ops.Dark.share=2.0: must be at least 0 and at most 1.")
    other = train(*given, f"augment.ops=[{dark}]", prepare=below_the_folder)
    other.fails_with("a run of a different configuration (augment.ops)")
    train(*given, folder="elsewhere").fails_with("augment.ops: ", "mine")
    assert not (tmp_path / "elsewhere").exists()
    sweep = Command("train", "-m", *MLP, given[0], "hydra.sweep.dir=elsewhere", cwd=tmp_path)
    sweep.fails_with("augment.ops: ", "mine")
    assert not (tmp_path / "elsewhere").exists()
    report = Command("report", "run", cwd=tmp_path)
    assert report.wait() == 0, report.err
    there = "checkpoint=run/checkpoints/last.ckpt"
    assert Command("evaluate", there, cwd=tmp_path, prepare=without_pictures).wait() == 0
