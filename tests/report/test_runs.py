import csv
import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from fmnist_pl.config import identity, read, resolve
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.report.judgement import NOT_JUDGED
from fmnist_pl.report.runs import State, read_config, read_run, read_tsne
from fmnist_pl.report.summary import Summary, write_report
from fmnist_pl.report.variants import read_sweep


def test_real_run_is_read(finished_run: Path) -> None:
    run = read_run(finished_run)
    assert (run.state, run.problem) == (State.FINISHED, "")
    assert run.seed == 0
    assert [row["epoch"] for row in run.epochs] == [1, 2]
    assert run.figures["tested"].right.mean() == pytest.approx(run.result["test/acc"])
    assert run.config
    assert run.result["options"] == identity(run.config)


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


def test_conclusions_are_of_the_studys_protocol(made_up, tmp_path: Path) -> None:
    """One model, of another learning rate, then of the study's: its confusions can be told."""

    def report(lr: float) -> tuple[Summary, str]:
        for seed in range(2):
            config = made_up.config("mlp", seed, embeddings="none")
            config.optimizer["lr"] = lr
            made_up.run(tmp_path / f"{lr}" / f"mlp-{seed}", config)
        summary = write_report([tmp_path / f"{lr}"], tmp_path)
        return summary, (tmp_path / "report.html").read_text()

    other, page = report(1e-4)
    assert other.sweep.study == {}
    assert "0.8590" not in str(other)  # the study's figure
    for text in (str(other), (tmp_path / "summary.md").read_text(), html.unescape(page)):
        assert NOT_JUDGED in text
        assert "Convolution gives the largest gain" not in text
    own, page = report(1e-3)
    assert "0.8590" in str(own)
    assert "Convolution gives the largest gain" in page
    assert NOT_JUDGED not in html.unescape(page)


def test_what_varies_is_a_column(made_up, tmp_path: Path) -> None:
    for lr in (1e-3, 3e-4):
        for seed in (0, 1):
            config = made_up.config("mlp", seed, embeddings="none")
            config.optimizer["lr"], config.model.hidden = lr, [64] if lr == 1e-3 else [128]
            made_up.run(tmp_path / f"{lr}-{seed}", config, 0.8 + lr)
    made_up.run(tmp_path / "cnn", made_up.config("cnn"))
    summary = write_report([tmp_path], tmp_path)
    table = pd.read_csv(tmp_path / "summary.csv")
    means = table[table.model == "mlp"].groupby("optimizer.lr")["test/acc"].mean()
    assert means.index.tolist() == [3e-4, 1e-3]
    assert means[1e-3] == pytest.approx(0.801, abs=1e-4)
    assert set(table["model.hidden"]) == {"[64]", "[128]", "[128, 84]"}
    assert "augment.ops" not in table  # in which nothing differs
    [head, *rows] = [line.split("  ") for line in str(summary).splitlines()[:4]]
    assert [cell.strip() for cell in head if cell][:4] == [
        *("model", "model.hidden", "optimizer.lr", "runs")
    ]
    assert {tuple(cell.strip() for cell in row if cell)[:4] for row in rows} == {
        ("cnn", "[128, 84]", "0.001", "1/1"),
        ("mlp", "[64]", "0.001", "2/2"),
        ("mlp", "[128]", "0.0003", "2/2"),
    }
    assert "| mlp | \\[128\\] | 0.0003 | 2/2 |" in (tmp_path / "summary.md").read_text()
    assert ">optimizer.lr</th>" in (tmp_path / "report.html").read_text()


def test_operations_go_by_the_name_of_their_list(
    made_up, configured: Callable[..., Config], tmp_path: Path
) -> None:
    words = {
        "none": "augment=none",
        "standard": "augment=standard",
        "many": f"augment.ops=[{', '.join(['{noise: {std: 0.125}}'] * 9)}]",
        "more": f"augment.ops=[{', '.join(['{noise: {std: 0.125}}'] * 10)}]",
    }
    for name, word in words.items():
        augment = configured("model=mlp", word).augment
        made_up.run(tmp_path / name, made_up.config("mlp", augment=augment))
    summary = write_report([tmp_path], tmp_path)
    labels = {v.runs[0].folder.name: v.label for v in summary.sweep.variants}
    assert labels["none"] == "mlp (augment=none)"
    assert labels["standard"] == "mlp (augment=standard)"
    long = [label for label in labels.values() if label.startswith("mlp (augment.ops=[")]
    assert len(set(long)) == 2
    assert all(len(label) < 90 for label in long)
    table = pd.read_csv(tmp_path / "summary.csv")
    assert set(table["augment"]) >= {"none", "standard"}
    assert "augment.1" not in table
    assert max(map(len, table["augment.ops"].dropna())) > 200  # whole


def test_what_varies_may_be_lacking(
    made_up, configured: Callable[..., Config], tmp_path: Path
) -> None:
    for name in ("adam", "sgd"):
        optimizer = configured("model=mlp", f"optimizer={name}").optimizer
        made_up.run(tmp_path / name, made_up.config("mlp", optimizer=optimizer))
    summary = write_report([tmp_path], tmp_path)
    adam, sgd = (
        next(v for v in summary.sweep.variants if v.runs[0].folder.name == name)
        for name in ("adam", "sgd")
    )
    assert adam.values_of(["optimizer.betas", "optimizer.momentum"]) == ["[0.9, 0.999]", "-"]
    assert sgd.values_of(["optimizer.betas"]) == ["-"]
    assert "optimizer.betas" in adam.label
    assert "optimizer.betas" not in sgd.label
    table = pd.read_csv(tmp_path / "summary.csv", index_col="folder")
    assert table["optimizer.betas"].isna().to_dict() == {"adam": False, "sgd": True}


def test_data_sets_are_kept_apart(
    made_up, configured: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_MIRRORS", "")  # MNIST's images are not to be had

    def run(name: str, data: str, seed: int, acc: float) -> None:
        config = made_up.config("mlp", seed, data=configured(f"data={data}").data)
        if data == "mnist":
            config.classes = {str(label): [label] for label in range(10)}
        made_up.run(tmp_path / name, config, acc)

    def other(name: str, digit: str) -> None:
        config = read(tmp_path / name / "config.yaml")
        config.data.name, config.data.title = "folder", ""
        config.data.hashes = {"t10k-images-idx3-ubyte": f"sha256:{digit}"}
        (tmp_path / name / "config.yaml").write_text(OmegaConf.to_yaml(config))

    for seed in range(3):
        run(f"digits-{seed}", "mnist", seed, 0.98)
    only = write_report([tmp_path], tmp_path)
    assert [variant.label for variant in only.sweep.variants] == ["mlp"]
    assert not any(judgement.tells for judgement in only.judgements)
    page = (tmp_path / "report.html").read_text()
    for text in (str(only), html.unescape(page), (tmp_path / "summary.md").read_text()):
        assert NOT_JUDGED in text
        assert "one data set" not in text
    assert "<h1>MNIST: results" in page
    assert "eight conclusions, " not in page

    run("clothes", "fashion_mnist", 0, 0.87)
    run("one", "mnist", 0, 0.98)
    run("two", "mnist", 0, 0.99)
    other("one", "1")
    other("two", "2")
    summary = write_report([tmp_path], tmp_path)
    labels = {variant.label: len(variant.finished) for variant in summary.sweep.variants}
    assert next(iter(labels)) == "mlp on Fashion-MNIST"
    assert labels.pop("mlp on MNIST") == 3
    assert [bool(re.fullmatch("mlp on folder [0-9a-f]{6}", label)) for label in labels] == [
        *(False, True, True),
    ]
    arms = {variant.label: variant.arm for variant in summary.sweep.variants}
    assert [label for label, arm in arms.items() if arm] == ["mlp on Fashion-MNIST"]
    # Of the study's data set, though others have more runs, and higher figures.
    assert summary.sweep.best
    assert summary.sweep.best.label == "mlp on Fashion-MNIST"
    assert summary.lead is None
    said = "Models are compared with one another on one data set, Fashion-MNIST."
    files = [(tmp_path / name).read_text() for name in ("report.html", "summary.md")]
    for text in (str(summary), *files):
        assert said in text
        assert "mlp on MNIST" in text
    assert summary.varied == []  # a data set is part of a name
    table = pd.read_csv(tmp_path / "summary.csv")
    assert table.data.value_counts().to_dict() == {"mnist": 3, "folder": 2, "fashion_mnist": 1}


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


def test_labels_are_as_short_as_they_are_unique(made_up, tmp_path: Path) -> None:
    for i, lr in enumerate((0.00012385440376385, 0.001)):
        config = made_up.config("mlp")
        config.optimizer["lr"] = lr
        made_up.run(tmp_path / str(i), config)
    labels = [variant.label for variant in write_report([tmp_path], tmp_path).sweep.variants]
    assert labels == ["mlp (optimizer.lr=0.0001239)", "mlp (optimizer.lr=0.001)"]
    config.optimizer["lr"] = 0.00012385440376384
    made_up.run(tmp_path / "near", config)
    labels = [variant.label for variant in write_report([tmp_path], tmp_path).sweep.variants]
    assert len(set(labels)) == 3
    assert "mlp (optimizer.lr=0.00012385440376384)" in labels


def test_labels_tell_null_from_what_is_not_there(made_up, tmp_path: Path) -> None:
    for i, given in enumerate(({}, {"foreach": None})):
        optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1, **given}
        made_up.run(tmp_path / str(i), made_up.config("mlp", optimizer=optimizer))
    labels = [variant.label for variant in read_sweep([tmp_path]).variants]
    assert labels == ["mlp", "mlp (optimizer.foreach=null)"]


def test_runs_are_in_the_order_of_their_numbers(made_up, tmp_path: Path) -> None:
    for seed in (10, 2, 1):
        made_up.run(tmp_path / f"mlp-{seed}", made_up.config("mlp", seed))
    (tmp_path / "²").mkdir()
    names = [run.folder.name for run in read_sweep([tmp_path]).runs]
    assert names == ["mlp-1", "mlp-2", "mlp-10", "²"]
