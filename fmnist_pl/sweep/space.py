"""What a search varies: Hydra's grammar as the distributions of Optuna."""

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from fmnist_pl.options.messages import UserError
from fmnist_pl.sweep.compose import asked

DIRECTIONS = ("maximize", "minimize")
# The test images choose nothing.
METRICS_OF_VALIDATION = ("val/acc", "val/loss", "val/cross_entropy")


def space(config: DictConfig) -> dict[str, BaseDistribution]:
    """What a search varies, by option.

    Raises:
        UserError: nothing to search, seeds, or what Optuna refuses.
    """
    found = {}
    for key, override in asked(config).items():
        if override.is_sweep_override():
            if key == "seed":
                raise UserError(
                    f"{override.input_line}: a search takes hydra.sweeper.seeds seeds for each "
                    "trial; seed=N says the first."
                )
            try:
                found[key] = distribution(override)
            except ValueError as error:
                raise UserError(f"{override.input_line}: {error}") from None
    if not found:
        raise UserError(
            "hydra/sweeper=optuna: nothing to search, as "
            "'optimizer.lr=tag(log,interval(0.0001,0.01))'."
        )
    return found


def distribution(override: Override) -> BaseDistribution:
    """Hydra's grammar as a distribution of Optuna's; a range ends before its end, as in Hydra."""
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        assert low is not None
        assert high is not None
        return FloatDistribution(low, high, log=log)
    if isinstance(value, RangeSweep) and value.step and value.step > 0:
        numbers: list[Any] = list(value.range())
        if numbers and all(isinstance(number, int) for number in numbers):
            return IntDistribution(numbers[0], numbers[-1], step=int(value.step))
        if numbers:
            return FloatDistribution(numbers[0], numbers[-1], step=float(value.step))
    return CategoricalDistribution([as_number(text) for text in override.sweep_string_iterator()])


def as_number(text: str) -> str | int | float:
    """A number where a text is one, so that pictures have it on an axis."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def probes(config: DictConfig) -> list[list[str]]:
    """The overrides of a few runs with which a search is checked before it begins.

    Raises:
        UserError: an impossible option of the search; nothing to search.
    """
    given, varied = config.hydra.sweeper, space(config)
    for name, least in (("n_trials", 1), ("seeds", 1), ("confirm", 0), ("max_failures", 1)):
        if not isinstance(given[name], int) or given[name] < least:
            raise UserError(f"hydra.sweeper.{name}={given[name]}: must be {least} at least.")
    for name, legal in (("direction", DIRECTIONS), ("metric", METRICS_OF_VALIDATION)):
        if given[name] not in legal:
            raise UserError(f"hydra.sweeper.{name}={given[name]}: must be {', '.join(legal)}.")
    return [
        [*fixed(config, varied), *(f"{key}={value}" for key, value in point.items())]
        for point in corners(varied)
    ]


def fixed(config: DictConfig, space: Mapping[str, BaseDistribution]) -> list[str]:
    """What all trials have in common, but for their seeds."""
    return [
        str(one.input_line)
        for key, one in asked(config).items()
        if key not in space and key != "seed"
    ]


def corners(space: Mapping[str, BaseDistribution]) -> Iterable[dict[str, Any]]:
    """Points that have between them the ends of every interval, and all choices."""
    ends = {
        key: list(one.choices) if isinstance(one, CategoricalDistribution) else [one.low, one.high]  # type: ignore[attr-defined]
        for key, one in space.items()
    }
    for i in range(max(map(len, ends.values()))):
        yield {key: values[min(i, len(values) - 1)] for key, values in ends.items()}
