"""What a figure says is what it was given: every bar, count, name and point in its place."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from fmnist_pl.drawing import classifier, dataset
from fmnist_pl.drawing.calibration import reliability
from fmnist_pl.drawing.gallery import draw, save
from tests.conftest import CLASS_NAMES

THREE = {"Top": [0, 2, 3, 4, 6], "Bottom": [1, 5, 7, 9], "Accessories": [8]}
ODD = (
    r"Größe $\x$ & <b>",
    "a very long name of clothes that nobody ever wears",
    "another name, too long for one line and even for two",
    "%s {0}",
)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def texts(figure: Figure) -> set[str]:
    found = (text.get_text().strip() for text in figure.findobj(Text))
    return {" ".join(text.split()) for text in found}


def named(axes: Axes) -> list[str]:
    """Names down the y axis, on one line each."""
    return [" ".join(label.get_text().split()) for label in axes.get_yticklabels()]


def lengths(axes: Axes) -> dict[str, float]:
    """Length of the bar beside each name."""
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())
    return dict(zip(named(axes), (bar.get_width() for bar in bars), strict=True))


def colours(axes: Axes) -> list[str]:
    return [to_hex(bar.get_facecolor()) for bar in axes.patches]


def panels(figure: Figure) -> Iterator[tuple[Axes, Axes]]:
    """Image and bars of each prediction."""
    axes = [axes for cell in figure.subfigs for axes in cell.axes]
    return zip(axes[::2], axes[1::2], strict=True)


def within(figure: Figure) -> bool:
    """Is nothing cut off at the edge of the figure?"""
    figure.draw_without_rendering()
    corners = figure.get_tightbbox().get_points()  # inches
    return bool((corners > -0.01).all() and (corners < figure.get_size_inches() + 0.01).all())


def apart(axes: Axes) -> bool:
    """Do no two names on the y axis overlap?"""
    axes.figure.draw_without_rendering()
    boxes = sorted(
        (label.get_window_extent() for label in axes.get_yticklabels()), key=lambda box: box.y0
    )
    return all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))


def test_each_class_has_its_count_under_its_own_name(random: np.random.Generator) -> None:
    labels = random.integers(0, 10, 500)
    figure = dataset.class_histogram(labels, THREE, CLASS_NAMES)
    before, after = figure.axes
    assert lengths(before) == {name: (labels == i).sum() for i, name in enumerate(CLASS_NAMES)}
    assert lengths(after) == {name: np.isin(labels, of).sum() for name, of in THREE.items()}
    assert before.yaxis_inverted()
    assert colours(after) == list(classifier.PALETTE[:3])
    home = [next(i for i, of in enumerate(THREE.values()) if label in of) for label in range(10)]
    assert colours(before) == [classifier.PALETTE[i] for i in home]
    original = {name: [i] for i, name in enumerate(CLASS_NAMES)}
    assert len(dataset.class_histogram(labels, original, CLASS_NAMES).axes) == 1


def test_a_sheet_names_every_image(random: np.random.Generator) -> None:
    images, labels = random.integers(0, 256, (7, 28, 28), np.uint8), random.integers(0, 4, 7)
    figure = dataset.image_sheet(images, labels, ODD)
    for axes, image, label in zip(figure.axes, images, labels, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        assert " ".join(axes.get_xlabel().split()) == ODD[label]
    assert within(figure)


def test_the_first_image_has_a_scale(random: np.random.Generator) -> None:
    image = random.integers(10, 200, (28, 28), np.uint8)
    figure = dataset.first_image(image, "first")
    shown = figure.axes[0].images[0]
    np.testing.assert_array_equal(shown.get_array(), image)
    assert shown.get_clim() == (0, 255)
    assert figure.axes[1].get_ylabel() == "pixel value"


def test_the_gallery_shows_every_version(random: np.random.Generator) -> None:
    rows = {
        "original": random.random((2, 1, 28, 28)),
        "noise\nstd: 0.1": random.random((2, 3, 28, 28)),
    }
    figure = dataset.augmentation_gallery(rows, "augmentation")
    assert len(figure.axes) == 2
    assert named(figure.axes[0]) == ["original", "noise std: 0.1"]
    for k, axes in enumerate(figure.axes):
        canvas = axes.images[0].get_array()
        np.testing.assert_array_equal(canvas[:28, 30:58], rows["original"][k, 0])
        for j in range(3):
            tile = canvas[30:58, 30 * j : 30 * j + 28]
            np.testing.assert_array_equal(tile, rows["noise\nstd: 0.1"][k, j])


def test_curves_are_the_rows_of_each_run() -> None:
    def rows(shift: float) -> list[dict[str, float | str]]:
        return [
            {
                "epoch": str(epoch),  # as a csv reader gives it
                **{f"{split}/{key}": shift + epoch * k for k, (split, key) in enumerate(KEYS)},
            }
            for epoch in (1, 2, 3)
        ]

    figure = classifier.curves({"cnn-0": rows(0), r"a $\b": rows(100)})
    for axes, key in zip(figure.axes, ("acc", "loss"), strict=True):
        drawn = iter(axes.lines)
        for shift in (0, 100):
            for split, style in (("train", "--"), ("val", "-")):
                line = next(drawn)
                assert line.get_linestyle() == style
                np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
                values = shift + KEYS.index((split, key)) * np.array([1, 2, 3])
                np.testing.assert_array_equal(line.get_ydata(), values)
    assert {"cnn-0", r"a $\b", "training", "validation"} <= texts(figure)
    assert within(figure)


def test_curves_of_many_runs_have_a_place_each() -> None:
    names = [f"cnn-{i}" for i in range(5)]
    row = {f"{split}/{key}": 0.5 for split, key in KEYS}
    figure = classifier.curves(
        {name: [row | {"epoch": 1, "val/acc": i}] for i, name in enumerate(names)}
    )
    assert [axes.get_title() for axes in figure.axes] == names * 2
    accuracies = figure.axes[:5]
    assert [axes.lines[1].get_ydata()[0] for axes in accuracies] == list(range(5))
    assert len({axes.get_ylim() for axes in accuracies}) == 1
    assert {"accuracy", "loss", "epoch", "training", "validation"} <= texts(figure)
    assert within(figure)


def test_curves_leave_room_for_long_names() -> None:
    row = {f"{split}/{key}": 0.5 for split, key in KEYS} | {"epoch": 1}
    long = "mlp (optimizer.betas=[0.9, 0.999], optimizer.weight_decay=0.0001, seeds=all)" * 2
    for count in (4, 9):
        figure = classifier.curves({f"{long}-{i}": [row] for i in range(count)})
        assert within(figure)


KEYS = [(split, key) for split in ("train", "val") for key in ("acc", "loss")]


@pytest.mark.parametrize("names", [CLASS_NAMES, tuple(THREE), ODD])
def test_each_class_has_its_accuracy(names: Sequence[str], random: np.random.Generator) -> None:
    values = random.random(len(names))
    figure = classifier.class_accuracy({"cnn-0": values}, names, "title")
    [axes] = figure.axes
    assert lengths(axes) == dict(zip(names, values, strict=True))
    assert {f"{value:.3f}" for value in values} < texts(figure)
    assert axes.get_xlim() == (0, 1)
    assert within(figure)
    assert apart(axes)


def test_the_study_is_drawn_beside_the_run_in_grey(random: np.random.Generator) -> None:
    run, study = random.random((2, 3))
    figure = classifier.class_accuracy({"run": run, "study": study}, list(THREE))
    [axes] = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [*run, *study]
    assert colours(axes) == [classifier.PALETTE[0]] * 3 + [classifier.GREY] * 3
    assert {"run", "study"} < texts(figure)


@pytest.mark.parametrize("names", [CLASS_NAMES, tuple(THREE), ODD])
def test_the_confusion_matrix_counts_true_rows_and_predicted_columns(
    names: Sequence[str], random: np.random.Generator
) -> None:
    counts = random.integers(0, 5000, (len(names), len(names)))
    counts[0] = 0  # a class without images
    figure = classifier.confusion_matrix(counts, names, "title")
    axes, bar = figure.axes
    for text in axes.texts:
        column, row = map(int, text.get_position())
        assert text.get_text() == str(counts[row, column])
    assert len(axes.texts) == counts.size
    assert named(axes) == list(names)
    assert [" ".join(label.get_text().split()) for label in axes.get_xticklabels()] == list(names)
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    shares = counts[1:] / counts[1:].sum(1, keepdims=True)
    np.testing.assert_allclose(axes.images[0].get_array()[1:], shares)
    assert bar.get_ylabel() == "share of the true class"
    assert within(figure)


def classified(random: np.random.Generator, n: int, names: Sequence[str]) -> Any:
    images = random.integers(0, 256, (n, 28, 28), np.uint8)
    return images, random.dirichlet(np.full(len(names), 0.3), n), random.integers(0, len(names), n)


@pytest.mark.parametrize("names", [CLASS_NAMES, tuple(THREE), ODD])
def test_a_prediction_is_blue_if_right_and_red_if_wrong(
    names: Sequence[str], random: np.random.Generator
) -> None:
    images, probabilities, labels = classified(random, 7, names)
    labels[:3] = probabilities[:3].argmax(1)
    figure = classifier.predictions(images, probabilities, names, labels, title="title")
    shown = list(panels(figure))[:7]
    for (left, right), image, shares, label in zip(
        shown, images, probabilities, labels, strict=True
    ):
        np.testing.assert_array_equal(left.images[0].get_array(), image)
        assert list(lengths(right)) == list(names)
        np.testing.assert_allclose(list(lengths(right).values()), shares)
        guess = shares.argmax()
        wanted = [classifier.GREY] * len(names)
        wanted[guess] = classifier.WRONG
        wanted[label] = classifier.RIGHT
        assert colours(right) == wanted
        heading = " ".join(right.figure.get_suptitle().split())
        if guess == label:
            assert heading == f"✓ {names[guess]} {shares[guess]:.1%}"
        else:
            assert heading == f"✗ {names[guess]} {shares[guess]:.1%}, is {names[label]}"
    assert within(figure)


def test_without_a_truth_nothing_is_right_or_wrong(random: np.random.Generator) -> None:
    images, probabilities, _ = classified(random, 2, ODD)
    figure = classifier.predictions(images, probabilities, ODD, captions=["a.png", "b.png"])
    for (left, right), caption in zip(panels(figure), ["a.png", "b.png"], strict=True):
        assert left.get_xlabel().strip() == caption
        assert set(colours(right)) == {classifier.GREY, classifier.INK}


def test_mistakes_are_the_most_confident_wrong_ones(random: np.random.Generator) -> None:
    images, probabilities, labels = classified(random, 200, CLASS_NAMES)
    wrong = [i for i in range(200) if probabilities[i].argmax() != labels[i]]
    worst = sorted(wrong, key=lambda i: -probabilities[i].max())[:12]
    figure = classifier.mistakes(images, probabilities, CLASS_NAMES, labels, title="cnn-0")
    captions = [left.get_xlabel().strip() for left, _ in panels(figure)]
    assert captions == [f"image {i}" for i in worst]
    assert figure.get_suptitle().startswith(f"cnn-0: {len(wrong)} mistakes")


def test_where_there_are_no_mistakes_it_says_so(random: np.random.Generator) -> None:
    images, probabilities, _ = classified(random, 5, ODD)
    figure = classifier.mistakes(images, probabilities, ODD, probabilities.argmax(1))
    assert figure.get_suptitle().startswith("0 mistakes")


@pytest.mark.parametrize("n", [1, 13, 40])
def test_a_classifier_gets_all_its_pictures(n: int, tmp_path: Any) -> None:
    random = np.random.default_rng(n)
    images, probabilities, labels = classified(random, n, list(THREE))
    result = {
        **{"name": "three_class", "model": "mlp", "seed": 4, "classes": THREE},
        "val/acc_per_class": dict(zip(THREE, [0.1, 0.2, 0.3], strict=True)),
        "val/confusion_matrix": random.integers(0, 9, (3, 3)).tolist(),
    }
    row = {"epoch": 1, **{f"{split}/{key}": 0.5 for split, key in KEYS}}
    drawn = draw(result, "val", images, labels, probabilities.astype(np.float32), [row])
    assert list(drawn) == [
        *("curves", "class_accuracy", "confusion_matrix"),
        *("predictions", "prediction_sheet", "mistakes"),
    ]
    for name, chosen in {"predictions": [0, 12], "prediction_sheet": range(15)}.items():
        captions = [left.get_xlabel().strip() for left, _ in panels(drawn[name])]
        assert captions == [f"val image {i}" for i in chosen if i < n]
    assert all(any("three_class-4" in text for text in texts(one)) for one in drawn.values())
    save(drawn, tmp_path / "figures")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {f"{n}.png" for n in drawn}
    assert "curves" not in draw(result, "val", images, labels, probabilities)


def test_points_keep_their_classes_colour_and_every_class_its_name() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    points: NDArray[Any] = random.normal(size=(300, 2)) + 10 * labels[:, None]
    figure = classifier.scatter(points, labels, list(THREE), "map")
    [axes] = figure.axes
    drawn = axes.collections[0]
    np.testing.assert_array_equal(drawn.get_offsets(), points)
    wanted = [classifier.PALETTE[label] for label in labels]
    assert [to_hex(colour) for colour in drawn.get_facecolor()] == wanted
    for text in axes.texts:
        label = list(THREE).index(text.get_text())
        np.testing.assert_allclose(text.get_position(), 10 * label, atol=3)
    assert len(axes.texts) == 3


def test_reliability_is_accuracy_against_confidence() -> None:
    images = np.array([0, 19, 100, 300])
    confidence, right = images * [0.1, 0.3, 0.7, 0.9], images * [0.1, 0.2, 0.6, 0.95]
    upper, lower = reliability({"before": np.array([images, confidence, right])}).axes
    diagonal, line = upper.lines
    np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(line.get_xydata(), [[0.7, 0.6], [0.9, 0.95]])  # not of 19
    [stairs] = lower.patches
    np.testing.assert_allclose(stairs.get_data().values, images / 419)
    np.testing.assert_allclose(stairs.get_data().edges, [0, 0.25, 0.5, 0.75, 1])
    assert [text.get_text() for text in upper.get_legend().texts][1] == "before"
