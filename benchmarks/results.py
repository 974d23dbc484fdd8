"""The tables and sentences of docs/results.md, made of nothing but the CSV files beside it.

    python benchmarks/results.py folder=docs/results

A report leaves `summary.csv`, a row a run, and `effects.csv`, a row for each seed of a comparison.
Here they are read back, and judged by the report's rules as it judged the folders of the runs.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from math import nan
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from scipy import stats

from fmnist_pl.config import resolve
from fmnist_pl.files import EFFECTS, SUMMARY
from fmnist_pl.options.command import CONF_DIR, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.report.conclusions import CONCLUSIONS
from fmnist_pl.report.evidence import Evidence
from fmnist_pl.report.findings import Conclusion, Finding
from fmnist_pl.report.judgement import Judgement, choices, leadership
from fmnist_pl.report.predictions import JUDGED
from fmnist_pl.report.runs import Run, State
from fmnist_pl.report.statistics import ONCE
from fmnist_pl.report.summary import Summary, lines, to_markdown
from fmnist_pl.report.variants import Sweep, group


@dataclass
class Options:
    folder: str = option(help=f"With {SUMMARY} and {EFFECTS} of a report.")


def rows(path: Path) -> list[dict[str, str]]:
    """Those of a table, by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@cache
def configured(name: str, seeds: str) -> Config:
    """The configuration of one of the study's experiments."""
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return resolve(compose("train", [f"experiment={name}", f"seeds={seeds}"]))


def run_of(row: dict[str, str]) -> Run:
    """A run as `summary.csv` has it: its figures are the columns with a slash, and a few others."""
    config = replace(configured(row["name"], row.get("seeds", "all")), seed=int(row["seed"]))
    figures = ("temperature", "seconds", *(name for name in row if "/" in name))
    result = {name: float(row[name]) for name in figures if row[name]}
    return Run(Path(row["folder"]), State(row["state"]), config=config, result=result)


def finding_of(
    which: str, conclusion: Conclusion, weights: str, sweep: Sweep, effects: list[dict[str, str]]
) -> Finding:
    """A conclusion with what `effects.csv` has seen of it."""
    kept = weights if conclusion.of_weights else "tested"
    times = {v.label: float(v.values("seconds").mean()) for v in sweep.finished}

    def evidence() -> Iterable[Evidence]:
        for contrast in conclusion.contrasts:
            key = {"conclusion": which, "weights": kept, "comparison": contrast.claim}
            seen = {int(row["seed"]): row for row in effects if key.items() <= row.items()}
            yield Evidence(
                contrast,
                missing=() if len(seen) > 1 else ("two seeds",),
                effects={seed: float(row["effect"]) / 100 for seed, row in seen.items()},
                published=nan,
                agrees={s: row["mcnemar"] == "True" for s, row in seen.items() if row["mcnemar"]},
                seconds={arm: times[arm] for arm in contrast.arms if arm in times},
                rules=ONCE,
            )

    return Finding(conclusion, tuple(evidence()))


def judgement(weights: str, sweep: Sweep, effects: list[dict[str, str]]) -> Judgement:
    best = sweep.best_by(weights)
    lead = leadership(sweep, best) if best else None
    return Judgement(
        weights,
        [finding_of(str(i), one, weights, sweep, effects) for i, one in enumerate(CONCLUSIONS, 1)],
        finding_of("best", lead, weights, sweep, effects) if lead else None,
        best,
        choices(sweep, weights),
    )


def one_more(sweep: Sweep) -> Iterable[tuple[str, ...]]:
    """Where the test accuracy of a single new run would fall, by Student's t; the head first."""
    yield "model", "here, test", "where one more run would fall, 95%", "study"
    for variant in sweep.study.values():
        accuracies = variant.values("test/acc")
        free, deviation = len(accuracies) - 1, accuracies.std(ddof=1)
        half = stats.t.isf(0.025, free) * deviation * np.sqrt(1 + 1 / len(accuracies))
        low, high = accuracies.mean() - half, accuracies.mean() + half
        told = f"{low:.4f} to {high:.4f}", variant.published("test")
        yield variant.label, variant.spread("test/acc"), *told


def work(options: Options) -> None:
    folder = Path(options.folder)
    for name in (SUMMARY, EFFECTS):
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: no such file; a report leaves it.")
    runs = [run_of(row) for row in rows(folder / SUMMARY)]
    sweep, effects = Sweep(runs, group(runs)), rows(folder / EFFECTS)
    judgements = [judgement(weights, sweep, effects) for weights in JUDGED]
    print(to_markdown(Summary(sweep, judgements, None, sweep.varied, ONCE, Path())))
    print("## Beside the study's figures", "", *lines([*one_more(sweep)]), sep="\n")


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
