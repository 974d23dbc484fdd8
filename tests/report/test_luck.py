"""Where luck comes from: spreads of made-up runs against tables of quantiles and plain sums."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fmnist_pl.options.schema import Config, Seeds
from fmnist_pl.report.luck import deviation_interval, families, luck_table, variance_ratio
from fmnist_pl.report.recipes import named
from fmnist_pl.report.summary import Summary, write_report
from fmnist_pl.report.variants import read_sweep
from tests.report.conftest import MadeUp

LUCK = {  # by choice of seeds: what each seed of the run adds to the accuracy
    "all": [0, 0.010, -0.010, 0.020, -0.020],
    "init": [0, 0.005, -0.005, 0.010, -0.010],
    "order": [0, 0.020, 0.001, -0.020, -0.010],
}


@pytest.fixture(scope="module")
def summary(
    made_up: MadeUp, configured: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> Summary:
    folder = tmp_path_factory.mktemp("luck")
    for choice, lucks in LUCK.items():
        for seed, luck in enumerate(lucks):
            config = configured(f"seeds={choice}", f"seed={seed}", "embeddings=none")
            made_up.run(folder / f"{choice}-{seed}", config, acc=0.9, luck=luck)
    return write_report([folder], folder)


def test_intervals_are_those_of_the_tables() -> None:
    values = np.array([0.90, 0.91, 0.92, 0.93])  # standard deviation 0.0129099
    # Quantiles of chi-square, 3 degrees of freedom: 9.34840 at 97.5%, 0.215795 at 2.5%.
    assert deviation_interval(values) == pytest.approx((0.0073134, 0.0481352), rel=1e-4)
    # Of F, 3 and 3 degrees of freedom: 15.4392 at 97.5%, its inverse at 2.5%.
    expected = (0.25, 0.25 / 15.4392, 0.25 * 15.4392)
    assert variance_ratio(values / 2, values) == pytest.approx(expected, rel=1e-4)


def test_the_interval_holds_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(0, 2, (2000, 10))
    hits = [low < 2 < high for low, high in map(deviation_interval, draws)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


def test_the_table_has_a_row_for_all_for_each_alone_and_for_nothing(summary: Summary) -> None:
    head, *rows = luck_table(summary.sweep)
    assert head[:6] == ["model", "what varies", "runs", "last epoch", "sd, points", head[5]]
    assert [row[:3] for row in rows] == [
        ["cnn_bn", "all", "5"],
        ["cnn_bn", "initial weights", "5"],
        ["cnn_bn", "image order", "5"],
        ["cnn_bn", "nothing", "3"],  # the runs of seed 0
    ]
    for row, lucks in zip(rows, LUCK.values(), strict=False):
        values = 0.9 + np.array(lucks)  # of 10,000 images, so exact to four digits
        deviation, ratio = values.std(ddof=1), values.var() / np.var(LUCK["all"])
        assert row[3] == f"{values.mean():.4f}"
        assert row[4].startswith(f"{100 * deviation:.2f} (")
        assert row[5].startswith(f"{ratio:.0%}")
    assert rows[0][5] == "100%"
    assert rows[3][4:6] == ["0.00 (0.00 to 0.00)", "0% (0% to 0%)"]


def test_the_sentences_say_what_the_runs_can_tell(summary: Summary) -> None:
    [family] = families(summary.sweep)
    said = " ".join(family.in_words())
    assert "every source of chance varies" in said
    assert "of 1.58 points over 5 runs" in said
    assert "is, in points: initial weights 0.79, image order 1.49." in said
    apart = [np.abs(np.array(LUCK[one]) - np.median(LUCK[one])) for one in ("init", "order")]
    p = stats.f_oneway(*apart).pvalue  # Levene's test, by its definition
    assert f"these runs cannot tell (Levene's test, p = {p:.2g})" in said
    assert "add up to" not in said  # no runs tell of augmentation
    assert "Where nothing varies, 3 runs have the same figures, to the last bit." in said
    assert "rough" not in said
    for text in (str(summary), (summary.out / "summary.md").read_text()):
        assert family.in_words()[0].replace("_", "") in text.replace("_", "").replace("\\", "")
    page = (summary.out / "report.html").read_text()
    assert '<h2 id="luck">' in page
    assert "seeds.init=0 seeds.augment=0 seeds.dropout=0" in page  # to train them again


def test_one_net_with_some_seeds_fixed_is_no_other_model(summary: Summary) -> None:
    labels = [variant.label for variant in summary.sweep.variants]
    assert labels == ["cnn_bn (seeds=all)", "cnn_bn (seeds=init)", "cnn_bn (seeds=order)"]
    assert summary.sweep.best
    assert summary.sweep.best.label == labels[0]
    assert summary.lead is None
    assert named(Config("a", seeds=Seeds(order=3)))["seeds.order"] == 3


def test_repetitions_that_differ_are_told(made_up: MadeUp, tmp_path: Path) -> None:
    for seed, luck in enumerate((0, 0.001)):
        config = made_up.config("mlp", seed, seeds=Seeds(0, 0, 0, 0), embeddings="none")
        made_up.run(tmp_path / str(seed), config, luck=luck)
    [family] = families(read_sweep([tmp_path]))
    assert family.in_words() == [
        "mlp: Where nothing varies, 2 runs have a standard deviation of 0.07 points still."
    ]


@pytest.mark.parametrize("seeds", [Seeds(), Seeds(order=1)])
def test_no_section_where_nothing_is_held_fixed_or_one_run_only(
    seeds: Seeds, made_up: MadeUp, tmp_path: Path
) -> None:
    for seed in range(1 if seeds.own() else 2):
        config = made_up.config("mlp", seed, seeds=seeds, embeddings="none")
        made_up.run(tmp_path / str(seed), config)
    summary = write_report([tmp_path], tmp_path)
    assert families(summary.sweep) == []
    assert "luck comes from" not in (tmp_path / "summary.md").read_text()
    assert 'id="luck"' not in (tmp_path / "report.html").read_text()
