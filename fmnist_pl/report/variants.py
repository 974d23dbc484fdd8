"""Which runs of a sweep are repetitions of one another, and which of them are the study's.

Names do not decide, options do: a variant is all that is alike but for the seed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.config import differing
from fmnist_pl.options.messages import printable
from fmnist_pl.options.schema import Config
from fmnist_pl.report.arms import ARMS, STUDY, arm_of, published
from fmnist_pl.report.evidence import Figures
from fmnist_pl.report.predictions import right_by_class
from fmnist_pl.report.recipes import (
    as_typed,
    brief,
    data_sets,
    fingerprint,
    named,
    recipe,
    setting,
)
from fmnist_pl.report.runs import Run, State, find_runs


@dataclass(frozen=True, repr=False)
class Variant:
    """Runs that differ by nothing but their seed."""

    name: str  # with its data set, where a sweep has several
    label: str  # unique in a sweep
    config: Config  # of one of them
    runs: Sequence[Run]

    def __repr__(self) -> str:
        return f"{self.label}, {len(self.finished)} of {len(self.runs)} runs finished"

    @cached_property
    def arm(self) -> str | None:
        return arm_of(self.config)

    @property
    def of_study(self) -> bool:
        """Whether it is one of the study's, under the study's protocol."""
        return bool(self.arm) and setting(self.config) == setting(STUDY)

    @cached_property
    def options(self) -> dict[str, Any]:
        """What it computes by, under names like `optimizer.lr`."""
        return named(self.config)

    @property
    def classes(self) -> list[str]:
        return [printable(name) for name in self.config.classes]

    @property
    def groups(self) -> list[list[int]]:
        """Of each class the original labels."""
        return list(self.config.classes.values())

    @property
    def finished(self) -> dict[int, Run]:
        """By seed."""
        runs = [run for run in self.runs if run.state is State.FINISHED]
        return {run.seed: run for run in sorted(runs, key=lambda run: run.seed)}

    def figures(self, weights: str = "tested") -> dict[int, Figures]:
        """Of the finished runs by seed, with these of their weights."""
        return {seed: run.figures[weights] for seed, run in self.finished.items()}

    def validation(self, weights: str) -> dict[int, float]:
        """Validation accuracy of the finished runs by seed, with these of their weights."""
        key = {"tested": "val/acc", "averaged": "val/acc_averaged"}[weights]
        return {seed: run.result[key] for seed, run in self.finished.items()}

    def values_of(self, names: Iterable[str]) -> list[str]:
        """Options as one would type them; `-` for one that it does not have."""
        return [brief(self.options[each]) if each in self.options else "-" for each in names]

    def values(self, key: str) -> NDArray[Any]:
        """An entry of the result, (seeds, ...), of those finished runs that have it."""
        results = [run.entries for run in self.finished.values()]
        return np.array([entries[key] for entries in results if key in entries])

    @property
    def class_acc(self) -> NDArray[np.float64]:
        """Test accuracy by class (C,), mean over seeds; NaN of a class without an image."""
        return right_by_class(self.confusion)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (C, C) of true and predicted classes, summed over seeds."""
        total: NDArray[np.int64] = self.values("test/confusion_matrix").sum(0)
        return total

    def spread(self, key: str) -> str:
        """Mean of an entry and, over several seeds, its standard deviation, as text."""
        return mean_and_deviation(self.values(key))

    def published(self, split: str) -> str:
        """The study's accuracy of the last epoch, as text."""
        if not self.arm or not self.of_study:
            return "-"
        run = published()[self.arm]
        return f"{run['test_acc'] if split == 'test' else run['epochs'][-1][f'{split}_acc']:.4f}"


def mean_and_deviation(values: NDArray[Any]) -> str:
    """Of figures by seed (S,) the mean and, of several, the standard deviation, as text."""
    if len(values) == 0:
        return "-"
    deviation = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{deviation}"


@dataclass(frozen=True, repr=False)
class Sweep:
    """All that was found below some folders."""

    runs: Sequence[Run]
    variants: Sequence[Variant]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.variants)) or "no runs"

    @property
    def left_out(self) -> list[Run]:
        """The folders that add nothing to the figures."""
        counted = (State.FINISHED, State.PRUNED)
        return [run for run in self.runs if run.state not in counted]

    @property
    def finished(self) -> list[Variant]:
        """The variants that have a finished run."""
        return [variant for variant in self.variants if variant.finished]

    @property
    def study(self) -> dict[str, Variant]:
        """By arm the finished variants that are the study's."""
        return {
            variant.arm: variant for variant in self.finished if variant.arm and variant.of_study
        }

    @property
    def choice(self) -> str:
        """On which data set models are compared, where it could be another."""
        if len(self.data_sets) < 2 or not self.candidates:
            return ""
        name = self.data_sets[fingerprint(self.candidates[0].config)]
        return f"Models are compared with one another on one data set, {name}."

    @cached_property
    def data_sets(self) -> dict[str, str]:
        """The names of the data sets, by fingerprint."""
        return data_sets(variant.config for variant in self.variants)

    @cached_property
    def varied(self) -> list[str]:
        """The options in which variants of one name differ."""
        return list(
            dict.fromkeys(
                option
                for name in dict.fromkeys(variant.name for variant in self.variants)
                for option in differing(*(v.options for v in self.variants if v.name == name))
            )
        )

    @property
    def candidates(self) -> list[Variant]:
        """The finished variants of one data set, as it is; where there are none, regrouped ones.

        It is the study's, or else the one of the most finished runs. Where sources of chance vary
        one at a time, which is no other model, those in which all vary.
        """
        sets: dict[str, list[Variant]] = {fingerprint(STUDY): []}
        for variant in self.finished:
            sets.setdefault(fingerprint(variant.config), []).append(variant)
        first, *others = sets.values()
        most = max(others, key=lambda members: sum(len(v.finished) for v in members), default=[])
        members = first or most
        members = [v for v in members if not v.config.seeds.own()] or members
        return [v for v in members if all(len(group) == 1 for group in v.groups)] or members

    @property
    def best(self) -> Variant | None:
        """Of the candidates the one of highest mean validation accuracy, as tested."""
        return self.best_by("tested")

    def best_by(self, weights: str) -> Variant | None:
        """The same with these weights."""

        def mean(variant: Variant) -> float:
            return float(np.mean(list(variant.validation(weights).values())))

        return max(self.candidates, key=mean, default=None)


def read_sweep(folders: Iterable[Path]) -> Sweep:
    """The runs below the folders, in whatever state they are.

    Raises:
        UserError: not a folder.
    """
    runs = mark_repeats(find_runs(folders))
    return Sweep(runs, group(runs))


def mark_repeats(runs: Iterable[Run]) -> list[Run]:
    """The runs, all but the first of the same configuration and seed marked as repeated."""
    first: dict[tuple[str, int], Path] = {}
    marked = []
    for run in runs:
        if run.state is State.FINISHED and run.config:
            original = first.setdefault((recipe(run.config), run.config.seed), run.folder)
            if original != run.folder:
                problem = f"same configuration and seed as {printable(str(original))}: not counted"
                run = replace(run, state=State.REPEATED, problem=problem)
        marked.append(run)
    return marked


def group(runs: Iterable[Run]) -> list[Variant]:
    """The variants of the runs that could be read, those of the study first, in its order."""
    groups: dict[str, tuple[Config, list[Run]]] = {}
    for run in runs:
        if run.config:
            groups.setdefault(recipe(run.config), (run.config, []))[1].append(run)
    names = data_sets(config for config, _ in groups.values())

    def name_of(config: Config) -> str:
        on = f" on {names[fingerprint(config)]}" if len(names) > 1 else ""
        return f"{printable(config.name)}{on}"

    same_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for config, _ in groups.values():
        same_name[name_of(config)].append(named(config))

    def label_of(config: Config, write: Callable[[Any], str]) -> str:
        own, differences = named(config), differing(*same_name[name_of(config)])
        values = [f"{each}={write(own[each])}" for each in differences if each in own]
        return f"{name_of(config)} ({', '.join(values)})" if values else name_of(config)

    labels = [label_of(config, brief) for config, _ in groups.values()]
    if len(set(labels)) < len(labels):
        labels = [label_of(config, as_typed) for config, _ in groups.values()]
    variants = [
        Variant(name_of(config), label, config, members)
        for label, (config, members) in zip(labels, groups.values(), strict=True)
    ]
    order = [*ARMS, None]
    return sorted(variants, key=lambda variant: (order.index(variant.arm), variant.label))
