"""The Python interface gives what the commands give, and leaves the process as it found it."""

import html
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.version import getbase
from PIL import Image

import fmnist_pl
from fmnist_pl.data import source
from fmnist_pl.options.schema import Config, Model
from fmnist_pl.training.folder import run
from tests.training.test_folder import TINY, figures, metrics

WORDS = (*TINY, "model=cnn_bn_dropout", "trainer.max_epochs=1", "trainer.limit_train_batches=5")


def command(name: str, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", f"fmnist_pl.{name}", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "format=json" in words else None


def settings() -> dict[str, Any]:
    """Of the process, what other code in a notebook would miss."""
    return {
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "default type": torch.get_default_dtype(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "warnings": list(warnings.filters),
        "folder": Path.cwd(),
    }


def test_a_run_is_the_commands(tmp_path: Path, configured: Callable[..., Config]) -> None:
    run(configured(*WORDS), tmp_path / "command")
    result = fmnist_pl.train(*WORDS, f"hydra.run.dir={tmp_path / 'words'}")
    assert result == json.loads((tmp_path / "words" / "result.json").read_text())
    config = fmnist_pl.configure(*WORDS)
    fmnist_pl.train(config, folder=tmp_path / "config")
    for name in ("words", "config"):
        assert figures(tmp_path / name) == figures(tmp_path / "command")
        assert metrics(tmp_path / name) == metrics(tmp_path / "command")


def test_a_run_without_a_folder_is_where_the_commands_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fmnist_pl.train(fmnist_pl.configure(*WORDS, "seed=7", "name=mine"))
    [folder] = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-mine-7")
    assert (folder / "result.json").exists()


def test_a_configuration_made_by_hand_is_the_commands(configured: Callable[..., Config]) -> None:
    by_hand = fmnist_pl.config.resolve(Config(model=Model("mlp")))
    expected = configured("model=mlp")
    of_the_catalogue = replace(expected.data, hashes={}, mirrors=[], title="", debian_package=None)
    assert replace(by_hand, data=of_the_catalogue) == replace(expected, data=of_the_catalogue)
    assert by_hand.augment.ops == expected.augment.ops != []


def test_a_misspelt_option_of_a_configuration_is_refused() -> None:
    config = fmnist_pl.configure("model=mlp")
    with pytest.raises(AttributeError, match="max_epoch"):
        config.trainer.max_epoch = 1


def test_settings_of_the_process_stay(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(3)
    before = settings()
    words = (*WORDS, "trainer.deterministic=true", "float32_matmul_precision=high")
    fmnist_pl.train(*words, f"hydra.run.dir={tmp_path / 'run'}")
    fmnist_pl.evaluate(tmp_path / "run" / "checkpoints" / "last.ckpt", "val")
    assert settings() == before


def test_the_hydra_of_others_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("answer: 42\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        version = getbase()
        assert fmnist_pl.configure("model=cnn").name == "cnn"
        assert compose("theirs").answer == 42
        assert getbase() == version


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: fmnist_pl.configure("model=nmlp"),
            "model=nmlp: no such choice. The nearest: mlp",
        ),
        (lambda: fmnist_pl.configure("lr=0.1"), "The nearest: optimizer.lr"),
        (lambda: fmnist_pl.configure("seed=-1"), "seed=-1: must be at least 0"),
        (lambda: fmnist_pl.configure("seed=1,2"), "seed=1,2: several values make a sweep"),
        (lambda: fmnist_pl.train("optimizer.momentun=1"), "momentun"),
        (lambda: fmnist_pl.train("-m", "seed=1,2"), "-m: a flag of the command"),
        (lambda: fmnist_pl.train(Config(), "seed=1"), "a configuration is given alone"),
        (lambda: fmnist_pl.load("nowhere.ckpt"), "checkpoint=nowhere.ckpt: No such file"),
        (lambda: fmnist_pl.evaluate(split="tset"), "split=tset: must be one of train, val, test"),
        (lambda: fmnist_pl.evaluate(images="nowhere"), "images=nowhere: no such folder"),
        (lambda: fmnist_pl.predict("nowhere"), "images=nowhere: no such file"),
        (lambda: fmnist_pl.predict(__file__), "none of 1 files shows a piece"),
        (lambda: fmnist_pl.predict("nowhere", invert="maybe"), "invert=maybe: must be one of"),
        (lambda: fmnist_pl.predict(np.zeros((2, 28, 28))), "must be uint8"),
        (lambda: fmnist_pl.predict(np.zeros((28, 28), np.uint8)), "must be uint8"),
        (lambda: fmnist_pl.predict("x", fmnist_pl.load(), calibrated=True), "the path of a"),
        (lambda: fmnist_pl.read_sweep("nowhere"), "nowhere: no such folder"),
        (lambda: fmnist_pl.write_report("nowhere"), "nowhere: no such folder"),
    ],
)
def test_a_mistake_is_an_exception(
    call: Callable[[], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fmnist_pl.UserError, match=said):
        call()
    assert not list(tmp_path.iterdir())


def test_what_is_predicted_is_what_the_command_predicts(finished_run: Path, tmp_path: Path) -> None:
    checkpoint = finished_run / "checkpoints" / "last.ckpt"
    pixels = source.load().test_images[:3]
    for i, image in enumerate(pixels):
        Image.fromarray(image).resize((84, 84)).save(tmp_path / f"{i}.png")
    expected = command("predict", f"checkpoint={checkpoint}", f"images={tmp_path}", "format=json")
    assert fmnist_pl.predict(tmp_path, checkpoint) == expected
    classifier = fmnist_pl.load(checkpoint)
    files = sorted(tmp_path.iterdir())
    assert fmnist_pl.predict(files, classifier) == expected
    words = (f"checkpoint={checkpoint}", "images=test:0-2", "format=json")
    calibrated = fmnist_pl.predict(pixels, checkpoint, calibrated=True)
    assert [each["probabilities"] for each in calibrated] == [
        each["probabilities"] for each in command("predict", *words, "calibrated=true")
    ]
    answers = fmnist_pl.predict(pixels, classifier)
    assert [each["probabilities"] for each in answers] == [
        each["probabilities"] for each in command("predict", *words)
    ]
    assert fmnist_pl.predict(pixels[:0], classifier) == []


def test_figures_are_those_of_the_run(finished_run: Path) -> None:
    found = fmnist_pl.evaluate(finished_run / "checkpoints" / "last.ckpt")
    result = json.loads((finished_run / "result.json").read_text())
    assert {name for name in found if name.startswith("test/")} >= {"test/acc", "test/loss"}
    for name in found.keys() & result.keys():
        assert found[name] == result[name]


def test_a_sweep_is_read_and_reported(finished_run: Path) -> None:
    folder = finished_run.parent
    sweep = fmnist_pl.read_sweep(folder)
    assert [(one.name, list(one.finished)) for one in sweep.variants] == [("mlp", [0])]
    [found] = sweep.runs
    assert found.result["test/acc"] == pytest.approx(found.figures["tested"].right.mean(), abs=1e-6)
    assert "mlp" in str(fmnist_pl.write_report(folder))
    for name in ("summary.csv", "summary.md", "report.html"):
        (folder / name).unlink()


def test_a_sweep_is_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (*TINY, "model=mlp", "seed=range(2)", "trainer.max_epochs=1")
    words = (*words, "trainer.limit_train_batches=5")
    report = fmnist_pl.run_sweep(*words)
    assert [folder.name.startswith("mlp-") for folder in Path("runs").iterdir()] == [True]
    said = capsys.readouterr().out
    assert str(report) in said
    assert [sorted(one.finished) for one in report.sweep.variants] == [[0, 1]]
    page = html.unescape(report._repr_html_())
    assert (report.out / "report.html").read_text() in page
    assert repr(report.sweep) == "mlp, 2 of 2 runs finished"
    with pytest.raises(fmnist_pl.UserError, match="optimizer"):
        fmnist_pl.run_sweep(*words, "optimizer.momentun=3")


def test_importing_it_takes_no_pytorch_and_commands_hide_nothing() -> None:
    program = """
import sys
import fmnist_pl
assert "torch" not in sys.modules
assert set(fmnist_pl.__all__) <= set(dir(fmnist_pl))
from fmnist_pl import evaluate, train
import fmnist_pl.predict, fmnist_pl.train, fmnist_pl.evaluate
assert all(callable(getattr(fmnist_pl, name)) for name in fmnist_pl.__all__)
assert fmnist_pl.train is train
try:
    fmnist_pl.nothing
except AttributeError as error:
    assert str(error) == "module 'fmnist_pl' has no attribute 'nothing'"
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_annotations_are_told_to_type_checkers() -> None:
    assert Path(fmnist_pl.__file__).with_name("py.typed").exists()
