import csv
import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from fmnist_pl.config import resolve
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.report.runs import State, read_config, read_run, read_tsne
from fmnist_pl.report.summary import Summary, write_report
from fmnist_pl.report.variants import read_sweep


def test_real_run_is_read(finished_run: Path) -> None:
    run = read_run(finished_run)
    assert (run.state, run.problem) == (State.FINISHED, "")
    assert run.seed == 0
    assert [row["epoch"] for row in run.epochs] == [1, 2]
    assert run.figures.right.mean() == pytest.approx(run.result["test/acc"])


def test_a_configuration_is_read_as_omegaconf_reads_it(finished_run: Path, tmp_path: Path) -> None:
    text = (finished_run / "config.yaml").read_text()
    for i, (old, new) in enumerate(
        [
            ("", ""),
            ("seed: 0", "seed: 4294967295"),
            ("name: mlp", "name: '1e3'"),
            ("lr: 0.001", "lr: 1e-3"),  # by hand; to YAML this is text
            ("threads: 1", "threads: null"),
        ]
    ):
        assert old in text
        path = tmp_path / f"{i}.yaml"
        path.write_text(text.replace(old, new, 1))
        assert read_config(path) == resolve(OmegaConf.merge(Config, OmegaConf.load(path)))
    for wrong in ("seed: 0.5", "seed: -1", "seed: one", "", "[1]"):
        path.write_text(text.replace("seed: 0", wrong, 1) if ":" in wrong else wrong)
        with pytest.raises((UserError, AttributeError, TypeError)):
            read_config(path)


def test_folders_in_every_state(made_up, tmp_path: Path) -> None:
    config = made_up.config("mlp")
    config.trainer.max_epochs = 2

    def run(name: str, seed: int) -> Path:
        config.seed = seed
        made_up.run(tmp_path / name, config)
        return tmp_path / name

    def cut(name: str, seed: int, *files: str) -> Path:
        folder = run(name, seed)
        for file in ("result.json", *files):
            (folder / file).unlink()
        return folder

    expected = {run("finished", 0).name: State.FINISHED}
    (run("status", 1) / "status.json").write_text('{"state": "finished"}')
    expected["status"] = State.FINISHED
    run("twin", 0)
    expected["twin"] = State.REPEATED
    cut("unfinished", 2)
    expected["unfinished"] = State.UNFINISHED
    for state in ("running", "interrupted"):
        (cut(state, 3) / "status.json").write_text(f'{{"state": "{state}"}}')
        expected[state] = State(state)
    failure = {"state": "failed", "error": "ValueError: \x1b[31mno", "traceback": "a\n<b>\x1b"}
    (cut("failed", 4, "metrics.csv") / "status.json").write_text(json.dumps(failure))
    expected["failed"] = State.FAILED
    (run("garbage", 5) / "config.yaml").write_text("{")
    (run("option", 6) / "config.yaml").write_text("nonsense: 1")
    (run("json", 7) / "result.json").write_text('{"test/acc": 0.9')
    (run("list", 8) / "result.json").write_text("[]")
    made_up.change(run("text", 9), test__acc="0.9")
    content = json.loads((run("older", 10) / "result.json").read_text())
    del content["test/acc_by_weights"]
    (tmp_path / "older" / "result.json").write_text(json.dumps(content))
    (run("rows", 11) / "metrics.csv").write_text("epoch\n1\n2\n")
    (run("short", 12) / "predictions.npz").write_bytes(b"PK")
    np.savez(run("few", 13) / "predictions.npz", logits=np.zeros((5, 10)), labels=np.zeros(5, int))
    (run("state", 14) / "status.json").write_text('{"state": "asleep"}')
    (run("binary", 15) / "config.yaml").write_bytes(b"\xff\xfe\x00")
    made_up.change(run("weights", 16), test__acc_by_weights={"last": 0.9})
    made_up.change(run("epochs", 17), epochs=3)
    for name in (
        *("garbage", "option", "json", "list", "text", "older", "rows", "short", "few", "state"),
        *("binary", "weights", "epochs"),
    ):
        expected[name] = State.UNREADABLE
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    expected["notes"] = State.FOREIGN
    (tmp_path / ".hidden").mkdir()
    config.seed = 18
    made_up.run(tmp_path / "group" / "nested", config)
    expected["group/nested"] = State.FINISHED

    summary = write_report([tmp_path], tmp_path)
    runs = {run.name(tmp_path): run for run in summary.sweep.runs}
    assert {name: run.state for name, run in runs.items()} == expected
    assert "same configuration and seed" in runs["twin"].problem
    assert runs["failed"].problem == "ValueError:  [31mno"
    assert runs["older"].problem == "result.json: of another version: lacks test/acc_by_weights."
    assert runs["text"].problem == "result.json: test/acc is no number."
    for name, file in (("garbage", "config.yaml"), ("rows", "metrics.csv"), ("few", "predictions")):
        assert runs[name].problem.startswith(file)
    assert [len(variant.finished) for variant in summary.sweep.variants] == [3]
    left_out = {name for name, state in expected.items() if state is not State.FINISHED}
    text, page = str(summary), (tmp_path / "report.html").read_text()
    for name in left_out:
        assert f"{expected[name]}: {name}" in text
        assert f"| {expected[name]} | {name} |" in (tmp_path / "summary.md").read_text()
    assert "\x1b" not in text + page
    assert "<pre>a\n&lt;b&gt; </pre>" in page
    with (tmp_path / "summary.csv").open(newline="") as file:
        assert {row["folder"]: row["state"] for row in csv.DictReader(file)} == expected


def test_several_sweeps_are_one(made_up, tmp_path: Path) -> None:
    for i in range(3):
        folder = tmp_path / f"sweep{i % 2}" / f"cnn-{i}"
        made_up.run(folder, made_up.config("cnn", i, embeddings=("none", "test", "all")[i]))
    (tmp_path / "link").symlink_to(tmp_path / "sweep1")
    sweep = read_sweep([tmp_path / "sweep1", tmp_path / "sweep0", tmp_path / "link"])
    [variant] = sweep.variants
    assert list(variant.finished) == [0, 1, 2]
    assert [run.name(tmp_path / "sweep1") for run in sweep.runs] == [
        *("cnn-1", "../sweep0/cnn-0", "../sweep0/cnn-2"),
    ]


def test_variants_differ_by_options_not_names(made_up, tmp_path: Path) -> None:
    small = made_up.config("cnn", name="cnn")
    small.model.hidden = [64]
    made_up.run(tmp_path / "a", made_up.config("cnn", name="cnn"))
    made_up.run(tmp_path / "b", made_up.config("cnn", 1, name="the same"))
    made_up.run(tmp_path / "c", small)
    labels = {variant.label: variant.arm for variant in read_sweep([tmp_path]).variants}
    assert labels == {"cnn (model.hidden=[128, 84])": "cnn", "cnn (model.hidden=[64])": None}
    assert [len(variant.finished) for variant in read_sweep([tmp_path]).variants] == [2, 1]


def test_conclusions_are_tested_on_one_setting(made_up, tmp_path: Path) -> None:
    def run(lr: float, seed: int) -> Summary:
        config = made_up.config("cnn", seed)
        config.optimizer.lr = lr
        made_up.run(tmp_path / f"{lr}-{seed}", config)
        return write_report([tmp_path], tmp_path)

    def tested(summary: Summary) -> float:
        return summary.sweep.study["cnn"].config.optimizer.lr

    only = run(1e-4, 0)
    assert tested(only) == 1e-4
    assert "one setting" not in str(only) + (tmp_path / "report.html").read_text()
    assert tested(run(1e-3, 0)) == 1e-3  # the study's own, of settings with as many runs
    more = run(1e-4, 1)
    assert tested(more) == 1e-4
    said = "The conclusions are tested on runs of one setting: cnn (optimizer.lr=0.0001)."
    for text in (str(more), *((tmp_path / f).read_text() for f in ("report.html", "summary.md"))):
        assert said in text


@pytest.mark.parametrize(
    "arrays",
    [
        {"tsne": np.zeros((5, 2), np.float32)},
        {"tsne": np.full((10_000, 2), np.nan, np.float32)},
        {"embeddings": np.zeros((10_000, 2), np.float32)},
    ],
)
def test_damaged_embeddings_are_told(arrays: dict, made_up, tmp_path: Path) -> None:
    made_up.run(tmp_path / "run", made_up.config("cnn"))
    run = read_run(tmp_path / "run")
    assert read_tsne(run).shape == (10_000, 2)
    np.savez(tmp_path / "run" / "embeddings" / "test.npz", **arrays)
    with pytest.raises(UserError, match=r"test\.npz"):
        read_tsne(run)
