"""Which runs of a sweep are repetitions of one another, and which of them are the study's.

Names do not decide, options do: a variant is all that is alike but for the seed.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.config import identity
from fmnist_pl.data.augment import Cutout, FlipHorizontal, Rotate, parse_ops
from fmnist_pl.data.protocol import CLASS_NAMES
from fmnist_pl.options.messages import printable
from fmnist_pl.options.schema import Config, Model
from fmnist_pl.report.runs import Run, State, find_runs
from fmnist_pl.report.statistics import Figures

CNN: dict[str, Any] = {"channels": [32, 32], "hidden": [128, 84]}
NETS = {
    "mlp": Model("mlp", hidden=[128]),
    "cnn": Model("cnn", **CNN),
    "cnn_bn": Model("cnn_bn", **CNN, batch_norm=True),
    "cnn_bn_dropout": Model("cnn_bn_dropout", **CNN, batch_norm=True, dropout=0.2),
    "cnn_bn_dropout_l2": Model("cnn_bn_dropout_l2", **CNN, batch_norm=True, dropout=0.2, l2=1e-4),
    "cnn_bn_dropout_l1": Model("cnn_bn_dropout_l1", **CNN, batch_norm=True, dropout=0.2, l1=1e-4),
}
ARMS = ("vanilla", "three_class", *NETS)  # the eight configurations of the study

TEN = [[label] for label in range(len(CLASS_NAMES))]
THREE = [[0, 2, 3, 4, 6], [1, 5, 7, 9], [8]]
STANDARD = [Rotate(5.0), FlipHorizontal(0.5), Cutout(0.5, 1, 9, 0.02)]


def arm_of(config: Config) -> str | None:
    """The study's name for what a configuration trains, whatever its own names; None: not of it."""
    nets = [name for name, net in NETS.items() if replace(config.model, name=name) == net]
    ops, groups = parse_ops(config.augment.ops), list(config.classes.values())
    if nets == ["mlp"] and not ops and groups in (TEN, THREE):
        return "vanilla" if groups == TEN else "three_class"
    return nets[0] if nets and ops == STANDARD and groups == TEN else None


@cache
def published() -> dict[str, dict[str, Any]]:
    """By arm what the study printed: `epochs`, `test_loss`, `test_acc`, `test_acc_per_class`."""
    text = Path(__file__).with_name("published.json").read_text(encoding="utf-8")
    numbers: dict[str, dict[str, Any]] = json.loads(text)
    return numbers


# How a run is executed: its figures feel that as rounding, which training makes grow.
EXECUTION = ("accelerator", "devices", "num_nodes", "strategy", "deterministic")


@dataclass(frozen=True)
class Variant:
    """Runs that differ by nothing but their seed."""

    label: str  # unique in a sweep
    config: Config  # of one of them
    runs: Sequence[Run]

    @property
    def arm(self) -> str | None:
        return arm_of(self.config)

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

    @property
    def figures(self) -> dict[int, Figures]:
        """Of the finished runs, by seed."""
        return {seed: run.figures for seed, run in self.finished.items()}

    def values(self, key: str) -> NDArray[Any]:
        """An entry of the result, (seeds, ...), of those finished runs that have it."""
        results = [run.entries for run in self.finished.values()]
        return np.array([entries[key] for entries in results if key in entries])

    @property
    def class_acc(self) -> NDArray[np.float64]:
        """Test accuracy by class (C,), mean over seeds."""
        mean: NDArray[np.float64] = np.mean(
            [figures.class_acc for figures in self.figures.values()], axis=0
        )
        return mean

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (C, C) of true and predicted classes, summed over seeds."""
        total: NDArray[np.int64] = self.values("test/confusion_matrix").sum(0)
        return total

    def spread(self, key: str) -> str:
        """Mean of an entry and, over several seeds, its standard deviation, as text."""
        values = self.values(key)
        if len(values) == 0:
            return "-"
        deviation = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
        return f"{values.mean():.4f}{deviation}"

    def published(self, split: str) -> str:
        """The study's accuracy of the last epoch, as text."""
        if not self.arm:
            return "-"
        run = published()[self.arm]
        return f"{run['test_acc'] if split == 'test' else run['epochs'][-1][f'{split}_acc']:.4f}"


@dataclass(frozen=True)
class Sweep:
    """All that was found below some folders."""

    runs: Sequence[Run]
    variants: Sequence[Variant]

    @property
    def left_out(self) -> list[Run]:
        """The folders that add nothing to the figures."""
        return [run for run in self.runs if run.state is not State.FINISHED]

    @property
    def finished(self) -> list[Variant]:
        """The variants that have a finished run."""
        return [variant for variant in self.variants if variant.finished]

    @property
    def study(self) -> dict[str, Variant]:
        """By arm the study's variants, all of one setting: that of the most finished runs.

        Of settings with as many it is the study's own.
        """
        settings: dict[str, dict[str, Variant]] = {setting(Config()): {}}
        for variant in self.finished:
            if variant.arm:
                settings.setdefault(setting(variant.config), {})[variant.arm] = variant
        return max(
            settings.values(),
            key=lambda arms: sum(len(variant.finished) for variant in arms.values()),
        )

    @property
    def choice(self) -> str:
        """A sentence: the variants that conclusions are tested on, where others could have been."""
        study = self.study
        if all(study.get(v.arm) is v for v in self.finished if v.arm):
            return ""
        labels = ", ".join(v.label for v in study.values())
        return f"The conclusions are tested on runs of one setting: {labels}."

    @property
    def candidates(self) -> list[Variant]:
        """The finished variants of ten classes; where there are none, all finished ones."""
        ten = [v for v in self.finished if v.groups == TEN]
        return ten or self.finished

    @property
    def best(self) -> Variant | None:
        """Of the candidates the one of highest mean validation accuracy."""
        return max(self.candidates, key=lambda v: v.values("val/acc").mean(), default=None)


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


def recipe(config: Config) -> str:
    """What a configuration computes for some seed, whatever it is called and runs on."""
    return json.dumps(options(config))


def setting(config: Config) -> str:
    """The recipe apart from what the study varies: net, classes, augmentation."""
    rest = options(config)
    return json.dumps([rest[name] for name in rest if name not in ("model", "classes", "augment")])


def options(config: Config) -> dict[str, Any]:
    plain = identity(config)
    for name in ("name", "seed", "threads", "compile", "embeddings"):
        del plain[name]
    for name in EXECUTION:
        del plain["trainer"][name]
    del plain["model"]["name"], plain["augment"]["name"]
    plain["classes"] = list(config.classes.values())
    return plain


def group(runs: Iterable[Run]) -> list[Variant]:
    """The variants of the runs that could be read, those of the study first, in its order."""
    groups: dict[str, tuple[Config, list[Run]]] = {}
    for run in runs:
        if run.config:
            groups.setdefault(recipe(run.config), (run.config, []))[1].append(run)
    same_name: dict[str, list[Config]] = defaultdict(list)
    for config, _ in groups.values():
        same_name[printable(config.name)].append(config)
    variants = []
    for config, members in groups.values():
        label = name = printable(config.name)
        if len(same_name[name]) > 1:
            label = f"{name} ({differences(config, same_name[name])})"
        variants.append(Variant(label, config, members))
    order = [*ARMS, None]
    return sorted(variants, key=lambda variant: (order.index(variant.arm), variant.label))


def differences(config: Config, others: Iterable[Config]) -> str:
    """The options of a configuration that are not the same in all others."""

    def flat(config: Config) -> dict[str, Any]:
        return {
            f"{name}.{key}" if key else name: one
            for name, value in options(config).items()
            for key, one in (value.items() if isinstance(value, dict) else [("", value)])
        }

    own, rest = flat(config), [flat(other) for other in others]
    return ", ".join(f"{k}={v}" for k, v in own.items() if any(other[k] != v for other in rest))
