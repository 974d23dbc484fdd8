"""Runs that differ by nothing but the seed in one process, side by side on its GPU."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from hydra_plugins.hydra_joblib_launcher._core import execute_job
from joblib import Parallel, delayed

Jobs = Sequence[tuple[int, Sequence[str]]]  # number and overrides of each run


def launch(jobs: Jobs, most: int, options: Mapping[str, Any], *shared: Any) -> list[JobReturn]:
    """What comes of each of the runs.

    Args:
        jobs: the runs.
        most: how many one process takes at once.
        options: of `joblib.Parallel`.
        shared: what Hydra gives a launcher: its context, the configuration, what is to be called.
    """
    setup_globals()
    processes = Parallel(backend="loky", **options)
    groups, shared = list(grouped(jobs, most)), (*shared, Singleton.get_state())
    returned = processes(delayed(in_one_process)(group, *shared) for group in groups)
    by_number = {
        number: one
        for group, results in zip(groups, returned, strict=True)
        for (number, _), one in zip(group, results, strict=True)
    }
    return [by_number[number] for number, _ in jobs]


def grouped(jobs: Jobs, most: int) -> Iterator[Jobs]:
    """Runs that differ by nothing but the seed, at most so many of them, about as many in each."""
    groups = defaultdict(list)
    for number, words in jobs:
        variant = tuple(word for word in words if not word.startswith("seed="))
        groups[variant].append((number, words))
    for group in groups.values():
        size = -(-len(group) // -(-len(group) // most))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def in_one_process(jobs: Jobs, *shared: Any) -> list[JobReturn]:
    """What comes of each of the runs; of one alone in the main thread, which alone has signals."""
    from fmnist_pl.training.turns import side_by_side

    works = [partial(execute_job, number, words, *shared) for number, words in jobs]
    return side_by_side(works) if len(works) > 1 else [works[0]()]
