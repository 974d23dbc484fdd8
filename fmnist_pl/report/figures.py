"""The pictures of a report's page, each a data URI: curves, confusion matrices, the best model."""

import base64
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray
from scipy.special import softmax

from fmnist_pl.data import source
from fmnist_pl.drawing import classifier
from fmnist_pl.drawing import sweep as drawn
from fmnist_pl.drawing.sweep import Point
from fmnist_pl.files import PREDICTIONS
from fmnist_pl.options.messages import UserError, printable
from fmnist_pl.report.arms import published
from fmnist_pl.report.predictions import read_predictions
from fmnist_pl.report.runs import read_tsne
from fmnist_pl.report.search import Search
from fmnist_pl.report.variants import Sweep, Variant

CONFUSIONS, EXAMPLES = 8, 6  # shown: pairs of classes, images of each


class Picture(NamedTuple):
    src: str  # a data URI
    alt: str


def picture(figure: Figure, alt: str) -> Picture:
    """A figure as SVG."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return Picture(data_uri("image/svg+xml", file.getvalue()), alt)


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def tried(sweep: Sweep) -> list[Point]:
    """The finished variants of a sweep over numbers; of another sweep, nothing."""
    points = [
        Point({name: v.options.get(name) for name in sweep.varied}, v.values("val/acc").tolist())
        for v in sweep.finished
    ]
    numeric = any(axis.numeric for axis in drawn.axes_of(points).values())
    return points if numeric else []


def landscape(points: Sequence[Point], search: Search | None) -> list[tuple[Picture, str]]:
    """What was tried and what came of it; each picture with its caption."""
    metric = search.metric if search else "val/acc"
    pictures = []
    if search and any(one["value"] is not None for one in search.trials):
        values = [one["value"] for one in search.trials]
        without = [i for i, one in enumerate(search.trials) if one["state"] in ("fail", "pruned")]
        sign = 1 if search.content["direction"] == "maximize" else -1
        figure = drawn.history(values, without, metric, sign)
        alt = f"{metric} of each of {len(values)} trials, and the best so far"
        pictures.append((picture(figure, alt), "The trials in their order."))
    if axes := drawn.axes_of(points, search.content["log"] if search else None):
        names = ", ".join(axes)
        figure = drawn.by_option(points, axes, metric)
        caption = "Small points are single seeds, large ones their mean."
        pictures.append((picture(figure, f"{metric} against {names}"), caption))
    if len(axes) > 1:
        alt = f"Parallel coordinates of {names}, in the colours of {metric}"
        caption = "Each line is what was tried; the darker, the better."
        pictures.append((picture(drawn.parallel(points, axes, metric), alt), caption))
    if search and len(search.content["importance"]) > 1:
        shares = search.content["importance"]
        told = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        caption = "Importance: the share of the trials' variance that an option explains (fANOVA)."
        pictures.append((picture(drawn.importance(shares), f"Importance: {told}"), caption))
    return pictures


def thumbnail(image: NDArray[np.uint8], alt: str) -> Picture:
    """A test image (28, 28) as PNG."""
    file = io.BytesIO()
    imsave(file, image, cmap="gray", vmin=0, vmax=255, format="png")
    return Picture(data_uri("image/png", file.getvalue()), alt)


def curves(variants: Sequence[Variant]) -> Picture | None:
    """Learning curves, mean over finished seeds, or of the run that got furthest."""
    rows = {}
    for variant in variants:
        runs = [list(run.epochs) for run in variant.finished.values()]
        runs = runs or [list(max(variant.runs, key=lambda run: len(run.epochs)).epochs)]
        if runs[0]:
            rows[variant.label] = [
                {name: float(np.mean([row[name] for row in epoch])) for name in epoch[0]}
                for epoch in zip(*runs, strict=True)
            ]
    if not rows:
        return None
    return picture(
        classifier.curves(rows),
        f"Accuracy and loss by epoch, training and validation, of {', '.join(rows)}",
    )


def traces(variants: Sequence[Variant]) -> dict[str, list[str]]:
    """By variant, for each seed, validation accuracy over the second half of the epochs.

    Points in the unit square, as SVG takes them; all to one scale, about the mean of the variant.
    """
    lines = {}
    for variant in variants:
        runs = [run.epochs[len(run.epochs) // 2 :] for run in variant.finished.values()]
        accuracies = np.array([[row["val/acc"] for row in run] for run in runs])
        lines[variant.label] = accuracies - accuracies.mean()
    scale = 2 * max((np.abs(each).max() for each in lines.values()), default=0) or 1

    def points(line: NDArray[np.float64]) -> str:
        places = zip(np.linspace(0, 1, len(line)), 0.5 - line / scale, strict=True)
        return " ".join(f"{x:.3f},{y:.3f}" for x, y in places)

    return {label: [points(line) for line in each] for label, each in lines.items()}


def confusion_picture(variant: Variant) -> Picture:
    counts, names = variant.confusion, variant.classes
    true, guess = next(mistaken_pairs(counts), (0, 0))
    return picture(
        classifier.confusion_matrix(counts, names, variant.label),
        f"Confusion matrix of {variant.label}; most often {names[true]} is taken "
        f"for {names[guess]}, in {counts[true, guess]} of {counts[true].sum()} test images",
    )


def mistaken_pairs(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """True and predicted class of the mistakes that were made, the most frequent first."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    for place in np.argsort(-mistakes, axis=None, kind="stable"):
        true, guess = divmod(int(place), len(counts))
        if mistakes[true, guess]:
            yield true, guess


def best_model(best: Variant) -> dict[str, Any]:
    """Pictures of the best model; of its seeds, the one of highest validation accuracy."""
    run = max(best.finished.values(), key=lambda run: run.result["val/acc"])
    logits, labels, _ = read_predictions(run.folder / PREDICTIONS)
    names, accuracies = best.classes, {best.label: best.class_acc.tolist()}
    if best.arm:
        accuracies["the study"] = published()[best.arm]["test_acc_per_class"]
    mistakes = tsne = None
    images, problems = np.empty((0, 28, 28), np.uint8), {}
    try:
        images = source.load(best.config.data).test_images
        mistakes = picture(
            classifier.mistakes(images, softmax(logits, axis=1), names, labels),
            "The most confident mistakes, each image beside the probabilities of all classes",
        )
    except UserError as error:
        problems["mistakes"] = printable(str(error).partition("\n")[0])
    try:
        tsne = picture(
            classifier.scatter(read_tsne(run), labels, names),
            "The test images as points in a plane, in the colours of their classes",
        )
    except UserError as error:
        problems["tsne"] = printable(str(error))
    return {
        "variant": best,
        "run": run,
        "classes": picture(
            classifier.class_accuracy(accuracies, names),
            f"Test accuracy of {best.label} by class; lowest: "
            f"{names[int(np.nanargmin(best.class_acc))]}, {np.nanmin(best.class_acc):.3f}",
        ),
        "confusions": confusions(best, logits, labels, images),
        "mistakes": mistakes,
        "tsne": tsne,
        "problems": problems,
    }


def confusions(
    variant: Variant,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    images: NDArray[np.uint8],
) -> list[dict[str, Any]]:
    """The most frequent over all seeds, and of one run's those images that it was surest of.

    Args:
        variant: whose confusions they are.
        logits: the run's of the test images, (N, C).
        labels: (N,).
        images: of the test, or none.
    """
    counts, names = variant.confusion, variant.classes
    probabilities, guesses = softmax(logits, axis=1), logits.argmax(1)
    shown = []
    for true, guess in islice(mistaken_pairs(counts), CONFUSIONS):
        chosen = np.flatnonzero((labels == true) & (guesses == guess))
        chosen = chosen[np.argsort(-probabilities[chosen, guess], kind="stable")[:EXAMPLES]]
        shown.append(
            {
                "true": names[true],
                "guess": names[guess],
                "share": counts[true, guess] / counts[true].sum(),
                "examples": [
                    thumbnail(
                        images[i],
                        f"Test image {i}: {names[true]}, taken for {names[guess]} "
                        f"with {probabilities[i, guess]:.0%}",
                    )
                    for i in chosen[chosen < len(images)]
                ],
            }
        )
    return shown
