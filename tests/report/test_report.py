import csv
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import ttest_rel

from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.report.__main__ import main
from fmnist_pl.report.evidence import Verdict
from fmnist_pl.report.noise import explain, weights_table
from fmnist_pl.report.page import command
from fmnist_pl.report.recipes import recipe
from fmnist_pl.report.runs import CALIBRATION, State
from fmnist_pl.report.summary import Summary, write_report
from fmnist_pl.report.variants import read_sweep

ARMS = [
    *("vanilla", "three_class", "mlp", "cnn", "cnn_bn"),
    *("cnn_bn_dropout", "cnn_bn_dropout_l2", "cnn_bn_dropout_l1"),
]


def results(study: Summary, arm: str) -> list[dict]:
    """Of the five seeds of an arm the content of `result.json`."""
    paths = (study.out / f"{arm}-{seed}" / "result.json" for seed in range(5))
    return [json.loads(path.read_text()) for path in paths]


def best_arm(study: Summary) -> str:
    """Of the arms with ten classes, the one of highest mean validation accuracy."""
    means = {
        arm: statistics.mean(result["val/acc"] for result in results(study, arm))
        for arm in ARMS
        if arm != "three_class"
    }
    return max(means, key=means.__getitem__)


def test_table_has_the_study_in_order(study: Summary) -> None:
    [head, *rows] = [line.split("  ") for line in str(study).split("\n\n")[0].splitlines()]
    assert head[0] == "model"
    assert [row[0] for row in rows] == ARMS
    table = {row[0]: [cell.strip() for cell in row if cell] for row in rows}
    assert table["cnn_bn"][1] == "5/5"
    # The study's training, validation and test accuracy.
    assert table["cnn_bn"][3::2] == ["0.9247", "0.9223", "0.9134"]
    assert table["three_class"][-1] == "0.9901"
    values = [result["test/acc"] for result in results(study, "cnn_bn")]
    expected = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    assert table["cnn_bn"][6] == expected
    assert f"the tested weights: {best_arm(study)} is the best on the validation" in str(study)
    markdown = (study.out / "summary.md").read_text()
    assert f"| cnn_bn | 5/5 | {table['cnn_bn'][2]} | 0.9247 |" in markdown
    assert f"| {expected} | 0.9134 |" in markdown


def test_table_for_programs(study: Summary) -> None:
    with (study.out / "summary.csv").open(newline="") as file:
        rows = {row["folder"]: row for row in csv.DictReader(file)}
    assert len(rows) == 40
    for name in ("cnn_bn-1", "vanilla-0"):
        result = json.loads((study.out / name / "result.json").read_text())
        row = rows[name]
        for key in ("test/acc", "val/loss", "train/penalty", "seconds", "best_val_acc", "test/ece"):
            assert float(row[key]) == result[key]
        assert (row["state"], row["seed"], row["epochs"]) == ("finished", name[-1], "10")
        assert (row["model"], row["augment"]) == (result["model"], result["augment"])
        assert float(row["test/knn_acc/tsne"]) == result["test/knn_acc"]["tsne"]
        weights = {
            key.rpartition("/")[2]: float(value)
            for key, value in row.items()
            if key.startswith("test/acc_by_weights/") and value
        }
        assert weights == result["test/acc_by_weights"]


def test_findings_are_those_of_the_sweep(study: Summary) -> None:
    # Made with 0.885 against 0.862, and 0.862 against 0.908.
    assert [finding.verdict for finding in study.findings[:2]] == [Verdict.HOLDS] * 2
    effects = study.findings[0].evidence[0].effects
    for seed, (vanilla, mlp) in enumerate(
        zip(results(study, "vanilla"), results(study, "mlp"), strict=True)
    ):
        assert effects[seed] == pytest.approx(vanilla["test/acc"] - mlp["test/acc"])
    text = (study.out / "summary.md").read_text()
    for finding in study.findings:
        assert finding.conclusion.statement in text
        assert finding.explanation in text


def test_the_best_is_compared_with_each_of_the_others(study: Summary) -> None:
    best = best_arm(study)
    others = [arm for arm in ARMS if arm not in (best, "three_class")]  # which has other classes
    assert study.lead
    assert [one.contrast.arms for one in study.lead.evidence] == [(best, arm) for arm in others]
    accuracies = {arm: [one["test/acc"] for one in results(study, arm)] for arm in (best, *others)}
    compared = zip(study.lead.evidence, study.lead.verdicts, strict=True)
    for arm, (one, verdict) in zip(others, compared, strict=True):
        difference = ttest_rel(accuracies[best], accuracies[arm]).confidence_interval(0.95)
        assert one.interval == pytest.approx((difference.low, difference.high))
        told = f"{verdict} *{best} is more accurate than {arm}, .+ points"
        assert re.search(told, str(study))
        assert f"| {verdict} | {one.in_words()} |" in ((study.out / "summary.md").read_text())
    assert study.lead.verdicts[others.index("mlp")] is Verdict.HOLDS
    page = (study.out / "report.html").read_text()
    assert f"{best} is the best model." in page
    rivals = [arm for arm, one in zip(others, study.lead.verdicts, strict=True) if one != "holds"]
    assert rivals
    assert f"; not shown to be ahead of {', '.join(rivals)}." in page
    assert f"{best} is more accurate than mlp<" in page


def test_each_kind_of_weights_is_judged_by_itself(made_up, tmp_path: Path) -> None:
    for arm, acc, luck in (("vanilla", 0.90, -0.05), ("mlp", 0.87, 0.0)):
        for seed in range(3):
            folder = tmp_path / f"{arm}-{seed}"
            made_up.run(folder, made_up.config(arm, seed, embeddings="none"), acc, luck=luck)
            made_up.change(folder, val__acc_averaged=acc)
    tested, averaged = write_report([tmp_path], tmp_path).judgements
    for one, verdict, lead, best in (
        (tested, Verdict.FAILS, -0.02, "mlp"),
        (averaged, Verdict.HOLDS, 0.03, "vanilla"),
    ):
        [evidence] = one.findings[0].evidence  # that vanilla is more accurate than mlp
        assert one.findings[0].verdict is verdict
        assert evidence.mean == pytest.approx(lead, abs=0.003)
        assert one.best
        assert one.best.label == best
        assert one.chosen[best] == 1
        assert one.lead
        assert one.lead.verdicts == (Verdict.HOLDS,)
    found = [json.loads((tmp_path / f"vanilla-{i}" / "result.json").read_text()) for i in range(3)]
    accuracies = [one["test/acc_by_weights"]["averaged"] for one in found]
    spread = f"{np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}"
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert f"With averaged weights: <strong>vanilla</strong>, {spread}. Of the study" in page


def test_other_classes_are_not_compared(made_up, tmp_path: Path) -> None:
    halves = {"Low": [0, 1, 2, 3, 4], "High": [5, 6, 7, 8, 9]}
    for seed in range(2):
        made_up.run(tmp_path / f"three-{seed}", made_up.config("three_class", seed))
        made_up.run(tmp_path / f"two-{seed}", made_up.config("three_class", seed, classes=halves))
    summary = write_report([tmp_path], tmp_path)
    assert len(summary.sweep.finished) == 2
    assert summary.lead is None
    assert "The best against the others" not in (tmp_path / "report.html").read_text()


def test_page_holds_everything(study: Summary) -> None:
    page = (study.out / "report.html").read_text()
    for arm in ARMS:
        group = "experiment" if arm in ARMS[:2] else "model"
        assert f"python -m fmnist_pl.train -m {group}={arm} seed=0,1,2,3,4" in page
        assert f"Confusion matrix of {arm};" in page
    assert page.count("<svg") == len(ARMS)
    assert f"The best model: {best_arm(study)}<" in page
    assert "Test image " in page
    assert "<dt>file</dt><dd>0123</dd>" in page  # of the data
    assert "://" not in page


def test_spread_by_weights_is_told(made_up, tmp_path: Path) -> None:
    accuracies = {
        "mlp": {"last": [0.86, 0.88], "averaged": [0.865, 0.885]},
        "cnn_bn": {
            "last": [0.88, 0.92],
            "last_fresh_bn": [0.915, 0.919],
            "averaged": [0.92, 0.92],
        },
    }
    for arm, weights in accuracies.items():
        for seed in (0, 1):
            folder = tmp_path / f"{arm}-{seed}"
            made_up.run(folder, made_up.config(arm, seed))
            made_up.change(
                folder,
                test__acc_by_weights={"best": 0.9} | {k: v[seed] for k, v in weights.items()},
            )
    variants = read_sweep([tmp_path]).candidates
    with_bn, without = explain(variants)
    # Standard deviations 4, 0.4 and 0 points over sqrt(2); the mean rises from 0.9.
    for words in (
        "of 2.83 points",
        "of 0.28 points (1% of the",
        "of 0.00 points (0%",
        "+1.70 points",
    ):
        assert words in with_bn
    assert with_bn.startswith("With batch norm (cnn_bn)")
    assert without.startswith("Without batch norm (mlp)")
    assert "of 1.41 points over 2 seeds; with weights" in without
    assert "of 1.41 points (100% of the variance)" in without
    assert "+0.50 points (95% interval +0.50 to +0.50)" in without
    [_, mlp, cnn_bn] = weights_table(variants)
    assert mlp == ["mlp", "0.8700 ± 0.0141", "0.9000 ± 0.0000", "-", "0.8750 ± 0.0141"]
    assert cnn_bn[3] == "0.9170 ± 0.0028"


def test_trust_in_probabilities_is_told(study: Summary) -> None:
    markdown, page = ((study.out / name).read_text() for name in ("summary.md", "report.html"))
    best = best_arm(study)
    spreads = []
    for key in CALIBRATION:
        values = [one[key] for one in results(study, best)]
        spreads.append(f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}")
    assert f"| {best} | {' | '.join(spreads)} |" in markdown
    assert all(f'<td class="number">{spread}</td>' in page for spread in spreads)
    said = f"logits of {best}, the best model, are best divided by 1.22"
    assert said in page
    assert "what it says and how often it is right differ by 3.2 points" in markdown
    sure, right = [], []
    for result, folder in zip(
        results(study, best), sorted(study.out.glob(f"{best}-?")), strict=True
    ):
        with np.load(folder / "predictions.npz") as arrays:
            scaled = softmax(arrays["logits"] / result["temperature"], axis=1)
            sure.append(scaled.max(1).mean())
            right.append((arrays["logits"].argmax(1) == arrays["labels"]).mean())
    assert f"by the temperature, {np.mean(sure):.1%} sure and {np.mean(right):.1%} right" in page


def test_best_is_chosen_on_validation_images(made_up, tmp_path: Path) -> None:
    for arm, test, val in (("cnn", 0.95, 0.90), ("mlp", 0.85, 0.91), ("three_class", 0.99, 0.99)):
        made_up.run(tmp_path / arm, made_up.config(arm), test)
        made_up.change(tmp_path / arm, val__acc=val)
    sweep = read_sweep([tmp_path])
    assert sweep.best
    assert sweep.best.label == "mlp"  # three classes are another task


def test_sweep_without_a_finished_run(made_up, tmp_path: Path) -> None:
    summary = write_report([tmp_path], tmp_path)
    assert str(summary).startswith("No runs.")
    assert "No runs in these folders yet." in (tmp_path / "report.html").read_text()
    made_up.run(tmp_path / "mlp-0", made_up.config("mlp"))
    (tmp_path / "mlp-0" / "result.json").unlink()
    summary = write_report([tmp_path], tmp_path)
    assert [str(finding.verdict) for finding in summary.findings] == ["cannot tell"] * 8
    page = (tmp_path / "report.html").read_text()
    assert "10 of 10" in page  # epochs
    assert "Learning curves" in page
    assert "Best model" not in page


def test_one_finished_run_cannot_tell(made_up, tmp_path: Path) -> None:
    """A run of `fmnist_pl.train` without a sweep: no status, and its folder is the sweep's."""
    made_up.run(tmp_path / "run", made_up.config("mlp", embeddings="none"))
    (tmp_path / "run" / "checkpoints").mkdir()
    summary = write_report([tmp_path / "run"], tmp_path / "run")
    [run] = summary.sweep.runs
    assert run.state is State.FINISHED
    assert {finding.verdict for finding in summary.findings} == {Verdict.UNTESTED}
    assert "±" not in str(summary)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "There is no map: the run was trained with embeddings=none." in page
    assert "can be told from these runs" in page
    assert "python -m fmnist_pl.train model=mlp seed=0" in page


def test_names_are_text_wherever_they_stand(made_up, tmp_path: Path) -> None:
    classes = {
        "<script>alert(1)</script>": [0, 1, 2, 3],
        "a\t\"b\" 'c'": [4, 5, 6],
        "$x_1$ | `d`\n*e*": [7, 8, 9],
    }
    name = '<img src=x onerror="alert(1)">'
    for seed in (0, 1):
        config = made_up.config("mlp", seed, name=name, classes=classes)
        made_up.run(tmp_path / f"run <b> {seed}", config)
    summary = write_report([tmp_path], tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "summary.md").read_text()
    for content in (page, text, str(summary)):
        assert "\t" not in content
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "run <b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "$x_1$ | `d` *e*" in page
    assert '| \\<img src=x onerror="alert(1)"\\> | 2/2 |' in text
    with (tmp_path / "summary.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [name] * 2


@pytest.mark.parametrize("arm", ["vanilla", "three_class", "cnn", "cnn_bn_dropout_l1"])
def test_command_repeats_the_run(
    arm: str, made_up, configured: Callable[..., Config], tmp_path: Path
) -> None:
    for seed in (3, 5):
        config = made_up.config(arm, seed, threads=2)
        config.trainer.limit_train_batches = 0.25
        config.trainer.devices = "auto"
        config.trainer.deterministic = True
        config.optimizer["lr"] = 3e-4
        config.test.checkpoint = "best"
        config.data.batch_size = 64
        made_up.run(tmp_path / str(seed), config)
    [variant] = read_sweep([tmp_path]).variants
    assert variant.arm == arm
    words = shlex.split(command(variant))
    assert words[:4] == ["python", "-m", "fmnist_pl.train", "-m"]
    assert "seed=3,5" in words
    again = configured(*(word for word in words[4:] if not word.startswith("seed=")))
    assert recipe(again) == recipe(config)
    assert again.trainer == config.trainer
    assert again.threads == 2


def test_command_of_other_runs_reads_their_options(made_up, tmp_path: Path) -> None:
    folder = tmp_path / "it's"
    config = made_up.config("cnn")
    config.model.hidden = [10]
    made_up.run(folder / "x", config)
    [variant] = read_sweep([folder]).variants
    python, flag, code = shlex.split(command(variant))
    assert (python, flag) == ("python", "-c")
    code = code.replace(
        "from fmnist_pl.training.folder import run", "run = lambda *run: runs.append(run)"
    )
    exec(compile(code, "command", "exec"), names := {"runs": []})
    [(again, where)] = names["runs"]
    assert where == Path("runs/again-0")
    assert again == config


def test_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "summary.md").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_report([tmp_path], tmp_path)


def test_a_terminal_that_does_not_know_all_letters(study: Summary) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fmnist_pl.report", study.out],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "40"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        str(study).replace("\N{PLUS-MINUS SIGN}", "+-").splitlines()[:8]
        == (done.stdout.splitlines()[:8])
    )


def test_help_answers_at_once() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "fmnist_pl.report", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "python -m fmnist_pl.report runs/six_models" in done.stdout
    assert re.search(r"\| +fmnist_pl\.options\.messages$", done.stderr, re.MULTILINE)
    assert not re.search(r"\| +(torch|scipy|matplotlib|jinja2)$", done.stderr, re.MULTILINE)


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", "no such"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    message = "error: no such: no such folder; name one or several folders of sweeps.\n"
    assert capsys.readouterr().err == message
    Path("runs").mkdir()
    monkeypatch.setattr(sys, "argv", ["report", "runs"])
    main()
    assert capsys.readouterr().out.endswith("report  runs/report.html\n")
    files = {"summary.csv", "summary.md", "report.html"}
    assert {path.name for path in Path("runs").iterdir()} == files
