"""The CSV files of a report are enough to say again what it says."""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.weightstats import DescrStatsW

from benchmarks import results
from benchmarks.results import Options
from fmnist_pl.options.messages import UserError
from fmnist_pl.report.summary import Summary

ROOT = Path(__file__).parents[2]


def test_the_csv_files_say_what_the_folders_say(
    study: Summary, capsys: pytest.CaptureFixture[str]
) -> None:
    results.work(Options(str(study.out)))
    told, rest = capsys.readouterr().out.split("\n## Beside")
    [said, _] = (study.out / "summary.md").read_text().split("\n## Images that hardly")
    assert told == said
    [mlp] = [line for line in rest.splitlines() if line.startswith("| mlp ")]
    values = [run.result["test/acc"] for run in study.sweep.study["mlp"].finished.values()]
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    half = 2.776445 * deviation * 1.2**0.5  # t of four degrees of freedom
    interval = f"{mean - half:.4f} to {mean + half:.4f}"
    assert mlp.startswith(f"| mlp | {mean:.4f} ± {deviation:.4f} | {interval} | ")


def test_the_pages_of_the_results_say_what_their_files_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results.work(Options(str(ROOT / "docs" / "results")))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (ROOT / "docs" / "results.md").read_text().splitlines()
    assert len(told) > 70
    assert [line for line in told if line not in page] == []
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(
        r"^\| (\w+).* \| (0\S+ ± \S+) \| (0\S+ ± \S+) \| (0\S+) \|$", readme, re.MULTILINE
    )
    assert len(rows) == 8
    for name, last, averaged, published in rows:
        [spread] = [
            line
            for line in page
            if line.startswith(f"| {name} | {last} | 0.") and line.count("|") == 6
        ]
        assert spread.endswith(f" | {averaged} |")
        [beside] = [
            line for line in page if line.startswith(f"| {name} | {last} | ") and " to " in line
        ]
        assert beside.endswith(f" | {published} |")


def test_the_pages_of_the_results_say_where_luck_comes_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results.work(Options(str(ROOT / "docs" / "results" / "luck")))
    [_, told] = capsys.readouterr().out.split("\n## Where luck comes from\n")
    table, caption, words = told.split("\n## ")[0].strip().split("\n\n")
    assert [line.split(" | ")[1] for line in table.splitlines()[2:]] == [
        *("all", "initial weights", "image order", "augmentation", "nothing"),
    ]
    page = (ROOT / "docs" / "results.md").read_text()
    for part in (table, caption, words):
        assert part in page


@pytest.mark.parametrize("lacking", ["summary.csv", "effects.csv"])
def test_a_folder_without_them_is_refused(lacking: str, tmp_path: Path) -> None:
    for name in {"summary.csv", "effects.csv"} - {lacking}:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{lacking}: no such file; a report leaves it."):
        results.work(Options(str(tmp_path)))


def test_effects_are_those_of_the_intervals(study: Summary) -> None:
    effects, tests = defaultdict(list), defaultdict(list)
    with (study.out / "effects.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["conclusion"], row["weights"], row["comparison"]
            effects[key].append(float(row["effect"]))
            tests[key].append(row["mcnemar"])
    curves = 0
    for judgement in study.judgements:
        for which, finding in (*enumerate(judgement.findings, 1), ("best", judgement.lead)):
            assert finding
            for one in finding.evidence:
                key = str(which), judgement.weights, one.contrast.claim
                if judgement.weights == "averaged" and not finding.conclusion.of_weights:
                    assert key not in effects
                    curves += 1
                    continue
                low, high = DescrStatsW(effects.pop(key)).tconfint_mean()
                assert one.interval == pytest.approx((low / 100, high / 100))
                if one.contrast.mcnemar:
                    assert tests[key].count("True") == one.mcnemar[0]
                else:
                    assert set(tests[key]) == {""}
    assert curves > 0
    assert not effects
