"""The verdicts' errors and power, on made-up runs whose truth is known."""

from math import sqrt

import pytest
from statsmodels.stats.power import TTestPower

from benchmarks.verdicts import CASES, Case, simulate
from fmnist_pl.report.statistics import Rules

REPEATS = 400


def luck(share: float) -> float:
    """Three standard errors of a share of the repeats."""
    return 3 * sqrt(share * (1 - share) / REPEATS)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.effects}-{case.seeds}")
def test_verdicts_are_seldom_wrong_and_intervals_cover(case: Case) -> None:
    shares = simulate(case, REPEATS)
    assert shares["wrong"] <= 0.05 + luck(0.05)
    if not case.skewed and not case.images:  # of other images the interval does not speak
        assert shares["covered"] >= 0.95 - luck(0.05)


def test_a_single_comparison_has_the_power_of_its_test() -> None:
    effect, deviation = 0.5, 0.6
    power = TTestPower().power(effect / (deviation * sqrt(2)), 20, 0.05)
    assert simulate(Case("", [effect], 20), REPEATS)["holds"] == pytest.approx(power, abs=0.07)


def test_looks_that_are_not_paid_for_would_be_wrong_more_often() -> None:
    """What the spending is for: the test would show it."""
    greedy = Rules(looks=((5, 0.05), (10, 0.05), (20, 0.05), (40, 0.05)))
    assert simulate(Case("", [0.2], 40, greedy, deviation=0.18), REPEATS)["wrong"] > 0.05 + luck(
        0.05
    )
