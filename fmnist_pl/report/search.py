"""What came of a search, read from its `search.json` and the folders of its runs."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmnist_pl.drawing.sweep import Point
from fmnist_pl.files import SEARCH
from fmnist_pl.options.messages import UserError
from fmnist_pl.report.conclusions import better
from fmnist_pl.report.evidence import in_units, measure
from fmnist_pl.report.findings import Conclusion, Finding
from fmnist_pl.report.recipes import as_typed
from fmnist_pl.report.runs import Run, State
from fmnist_pl.report.statistics import Rules
from fmnist_pl.report.variants import Sweep, Variant, group


@dataclass(frozen=True)
class Search:
    """A search, as far as it is."""

    content: dict[str, Any]  # of search.json
    runs: dict[str, Run]  # by folder, as search.json names them

    @property
    def trials(self) -> list[dict[str, Any]]:
        trials: list[dict[str, Any]] = self.content["trials"]
        return trials

    @property
    def metric(self) -> str:
        return str(self.content["metric"])

    @property
    def best(self) -> dict[str, Any] | None:
        """The trial that was chosen, on the validation images."""
        number = self.content["best"]
        return None if number is None else self.trials[number]

    @property
    def points(self) -> list[Point]:
        """The whole trials."""
        return [
            Point(one["params"], [run.result[self.metric] for run in self.finished(one["runs"])])
            for one in self.trials
            if one["state"] == "complete" and self.finished(one["runs"])
        ]

    def finished(self, names: Iterable[str]) -> list[Run]:
        runs = [self.runs[name] for name in names if name in self.runs]
        return [run for run in runs if run.state in (State.FINISHED, State.REPEATED)]

    @property
    def shown(self) -> list[Run]:
        """The runs a report is about: of fresh seeds; before there are any, of the best trial."""
        fresh = self.content["fresh"]
        runs = self.finished([*fresh["chosen"], *fresh["default"]])
        return runs or self.finished(self.best["runs"] if self.best else [])

    def variant(self, sweep: Sweep, which: str) -> Variant | None:
        """The chosen one or the default, of fresh seeds."""
        folders = {run.folder for run in self.finished(self.content["fresh"][which])}
        found = (v for v in sweep.variants if folders & {run.folder for run in v.runs})
        return next(found, None)

    def lead(self, sweep: Sweep, rules: Rules, weights: str) -> Finding | None:
        """Whether what was chosen is better than the default, on fresh seeds."""
        chosen, default = (self.variant(sweep, which) for which in ("chosen", "default"))
        if not chosen or not default:
            return None
        contrast = better(chosen.label, default.label)
        conclusion = Conclusion(
            "The search has found something better than the default.",
            "From seeds that no trial saw, what the validation images chose has a higher test "
            "accuracy than the default.",
            (contrast,),
        )
        figures = {one.label: one.figures(weights) for one in (chosen, default)}
        return Finding(conclusion, (measure(contrast, figures, {}, rules),))

    def in_words(self) -> list[str]:
        """How many trials there are, which was chosen, and how optimistic the search was."""
        counts = Counter(one["state"] for one in self.trials)
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        seeds = len(self.content["seeds"])
        said = [f"A search of {len(self.trials)} trials, each of {seeds} seeds: {states}."]
        if best := self.best:
            options = ", ".join(f"{name}={as_typed(one)}" for name, one in best["params"].items())
            said.append(
                f"Chosen by {self.metric}: trial {best['number']}, {options}, with "
                f"{best['value']:.4f}."
            )
            chosen = self.finished(self.content["fresh"]["chosen"])
            fresh = [run.result[self.metric] for run in chosen]
            if fresh:
                mean = float(np.mean(fresh))
                sign = 1 if self.content["direction"] == "maximize" else -1
                said.append(
                    f"From {len(fresh)} fresh seeds it has {mean:.4f}; the optimism of the search: "
                    f"{in_units(sign * (best['value'] - mean))} points."
                )
                if not self.content["fresh"]["default"]:
                    said.append("What was chosen is the default.")
        return said


def read_search(folders: Sequence[Path], runs: Iterable[Run]) -> Search | None:
    """The search in one of the folders, the first that has one.

    Raises:
        UserError: its file is damaged.
    """
    for folder in folders:
        path = folder / SEARCH
        if path.exists():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                content["best"], content["trials"], content["fresh"]["chosen"]
            except Exception as error:  # whatever a file that is something else brings
                raise UserError(f"{path}: no record of a search ({error}).") from None
            own = {
                str(run.folder.relative_to(folder)): run
                for run in runs
                if folder in run.folder.parents
            }
            return Search(content, own)
    return None


def focus(sweep: Sweep, search: Search | None) -> Sweep:
    """All runs, but of a search the variants of its end alone: its trials chose themselves."""
    return Sweep(sweep.runs, group(search.shown)) if search else sweep
