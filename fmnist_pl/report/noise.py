"""Why the last epoch is noisy: test accuracy with its weights, and with others of the same run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.report.evidence import in_units, in_words
from fmnist_pl.report.runs import WEIGHTS
from fmnist_pl.report.statistics import FEW_SEEDS, mean_interval
from fmnist_pl.report.variants import Variant

STEADIER = {
    "last_fresh_bn": "with the averages of batch norm estimated anew",
    "averaged": "with weights averaged over epochs",
}


def weights_table(variants: Sequence[Variant]) -> list[list[str]]:
    """Test accuracy by weights, mean and standard deviation over seeds; the head first."""
    head = ["model", *WEIGHTS.values()]
    return [head, *([v.label, *(v.spread(entry(name)) for name in WEIGHTS)] for v in variants)]


def explain(variants: Sequence[Variant]) -> list[str]:
    """A paragraph on nets with batch norm, and one on those without: are other weights steadier?

    Args:
        variants: finished ones, of the same classes.
    """
    groups: dict[str, list[Variant]] = {"With batch norm": [], "Without batch norm": []}
    for variant in variants:
        has_averages = len(variant.values(entry("last_fresh_bn"))) > 0
        groups["With batch norm" if has_averages else "Without batch norm"].append(variant)
    return [compare(kind, members) for kind, members in groups.items() if members]


def compare(kind: str, variants: Sequence[Variant]) -> str:
    """The spread over seeds with each of the weights, and how much the mean gains, in words."""
    seeds = sorted(set.intersection(*(set(variant.finished) for variant in variants)))
    subject = f"{kind} ({', '.join(variant.label for variant in variants)})"
    if len(seeds) < 2:
        return f"{subject}: it takes two seeds that all of them have to tell."
    accuracies = {  # each (seeds, variants)
        name: np.array(
            [[v.finished[seed].entries[entry(name)] for v in variants] for seed in seeds]
        )
        for name in WEIGHTS
        if all(len(v.values(entry(name))) for v in variants)
    }
    last = accuracies["last"]
    whole = deviation(last)
    text = (
        f"{subject}, the test accuracy of the last epoch has a standard deviation of "
        f"{100 * whole:.2f} points over {len(seeds)} seeds"
    )
    for name, how in STEADIER.items():
        if name in accuracies:
            own, gains = deviation(accuracies[name]), (accuracies[name] - last).mean(axis=1)
            share = f" ({(own / whole) ** 2:.0%} of the variance)" if whole else ""
            text += (
                f"; {how}, of {100 * own:.2f} points{share}, and the mean changes by "
                f"{in_units(gains.mean())} points ({in_words(mean_interval(gains))})"
            )
    text += "."
    if len(seeds) < FEW_SEEDS:
        text += f" (Only {len(seeds)} seeds: these figures are rough.)"
    return text


def deviation(accuracies: NDArray[np.float64]) -> float:
    """Standard deviation over seeds, pooled over variants, of (seeds, variants)."""
    return float(np.sqrt(accuracies.var(axis=0, ddof=1).mean()))


def entry(weights: str) -> str:
    """The name of a test accuracy among a run's entries."""
    return f"test/acc_by_weights/{weights}"
