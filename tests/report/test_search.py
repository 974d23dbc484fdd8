"""The report of a search, made up: chosen and default on fresh seeds, and nothing but those."""

import json
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from fmnist_pl.drawing.sweep import Axis, Point, axes_of
from fmnist_pl.options.messages import UserError
from fmnist_pl.report.evidence import Verdict, in_units
from fmnist_pl.report.summary import write_report

LRS = (3e-4, 1e-3, 3e-3)


def search(made_up, folder: Path, fresh: bool = True) -> None:
    """Three trials of two seeds, the last the best; a fourth was pruned."""

    def run(name: str, lr: float, seed: int, acc: float) -> str:
        config = made_up.config("mlp", seed, embeddings="none")
        config.optimizer["lr"] = lr
        made_up.run(folder / name, config, acc)
        return name

    trials = []
    for number, lr in enumerate(LRS):
        names = [run(f"mlp-{seed}-lr-{lr}", lr, seed, 0.8 + 0.01 * number) for seed in (0, 1)]
        results = [json.loads((folder / name / "result.json").read_text()) for name in names]
        value = sum(result["val/acc"] for result in results) / 2
        trials.append({"params": {"optimizer.lr": lr}, "state": "complete", "value": value})
        trials[-1] |= {"number": number, "runs": names, "epochs": None, "error": ""}
    trials.append({**trials[0], "number": 3, "state": "pruned", "value": None, "runs": []})
    fresh_runs: dict[str, list[str]] = {"chosen": [], "default": []}
    for seed in (2, 3, 4) if fresh else ():
        luck = 0.0002 * seed
        fresh_runs["chosen"].append(run(f"mlp-{seed}-lr-0.003", 3e-3, seed, 0.81 + luck))
        fresh_runs["default"].append(run(f"mlp-{seed}", 1e-3, seed, 0.79))
    content = {
        "metric": "val/acc",
        "direction": "maximize",
        "n_trials": 4,
        "seeds": [0, 1],
        "log": ["optimizer.lr"],
        "trials": trials,
        "best": 2,
        "importance": {"optimizer.lr": 1.0},
        "fresh": {"seeds": [2, 3, 4], **fresh_runs},
    }
    (folder / "search.json").write_text(json.dumps(content))


def test_fresh_seeds_judge_what_was_chosen(made_up, tmp_path: Path) -> None:
    search(made_up, tmp_path)
    summary = write_report([tmp_path], tmp_path)
    assert [len(variant.finished) for variant in summary.sweep.variants] == [3, 3]
    [one] = summary.lead.evidence
    assert summary.lead.verdict is Verdict.HOLDS
    chosen, default = (
        [json.loads((tmp_path / f"mlp-{i}{of}" / "result.json").read_text()) for i in (2, 3, 4)]
        for of in ("-lr-0.003", "")
    )
    expected = ttest_rel(*([run["test/acc"] for run in each] for each in (chosen, default)))
    assert one.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    trial = json.loads((tmp_path / "search.json").read_text())["trials"][2]["value"]
    optimism = 100 * (trial - sum(run["val/acc"] for run in chosen) / 3)
    page = (tmp_path / "report.html").read_text()
    for text in (str(summary), page):
        assert "A search of 4 trials, each of 2 seeds: 3 complete, 1 pruned." in text
        assert f"optimism of the search: {in_units(optimism / 100)} points" in text
    assert "val/acc against optimizer.lr" in page
    assert "What was chosen against the default" in page
    rows = (tmp_path / "summary.csv").read_text().splitlines()
    assert len(rows) == 1 + 12  # all runs
    assert "optimizer.lr" in rows[0]


def test_a_search_under_way_shows_its_best_trial(made_up, tmp_path: Path) -> None:
    search(made_up, tmp_path, fresh=False)
    summary = write_report([tmp_path], tmp_path)
    assert summary.lead is None
    [variant] = summary.sweep.variants
    assert variant.config.optimizer["lr"] == 3e-3
    assert "optimism" not in str(summary)


def test_a_damaged_record_of_a_search_is_named(made_up, tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(UserError, match=r"search\.json: no record of a search"):
        write_report([tmp_path], tmp_path)


def test_options_have_their_places() -> None:
    points = [
        Point({"lr": lr, "model": name, "same": 1}, [0.5])
        for lr, name in ((0.001, "mlp"), (0.1, "cnn"), (0.01, "mlp"))
    ]
    axes = axes_of(points)
    assert list(axes) == ["lr", "model"]
    assert [axes["lr"].share(lr) for lr in (0.001, 0.01, 0.1)] == pytest.approx([0, 0.5, 1])
    assert [axes["model"].place(name) for name in ("mlp", "cnn")] == [0, 1]
    assert Axis([0.001, 0.1], log=False).share(0.01) == pytest.approx(0.0909, abs=1e-4)
    assert not Axis([2, 3]).log
