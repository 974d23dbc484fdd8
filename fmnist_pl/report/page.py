"""The one self-contained HTML page of a report, from `page.html`, its template."""

import base64
import io
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray
from scipy.special import softmax

from fmnist_pl import dataset, figures
from fmnist_pl.config import Config, UserError
from fmnist_pl.report.runs import State, printable
from fmnist_pl.report.statistics import (
    FEW_SEEDS,
    LEVEL,
    MARGIN,
    Evidence,
    Finding,
    Verdict,
    in_units,
)
from fmnist_pl.report.variants import Sweep, Variant, published

MARKS = {
    Verdict.HOLDS: "✓",
    Verdict.FAILS: "✗",
    Verdict.UNDECIDED: "?",
    Verdict.UNTESTED: "\N{EN DASH}",
}
CONFUSIONS, EXAMPLES = 8, 6  # shown: pairs of classes, images of each


class Picture(NamedTuple):
    src: str  # a data URI
    alt: str


def to_html(sweep: Sweep, findings: Sequence[Finding], out: Path) -> str:
    """The page; folders are named as seen from `out`."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["points"] = in_units
    finished = [variant for variant in sweep.variants if variant.finished]
    return templates.get_template("page.html").render(
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
        sweep=sweep,
        out=out,
        finished=finished,
        State=State,
        findings=[describe(number, finding) for number, finding in enumerate(findings, 1)],
        tally=Counter(str(finding.verdict) for finding in findings),
        rule={"level": LEVEL, "margin": MARGIN, "few": FEW_SEEDS},
        curves=curves(sweep.variants),
        class_tables=class_tables(finished),
        confusions=[confusion_picture(variant) for variant in finished],
        best=best_model(sweep.best) if sweep.best else None,
        commands=[command(variant) for variant in finished],
        environment=environment_of(finished),
    )


def describe(number: int, finding: Finding) -> dict[str, Any]:
    """A finding as the template shows it; places of the interval plots are percentages."""
    ends = [0.0]
    for one in finding.evidence:
        ends += [one.published] if np.isfinite(one.published) else []
        ends += one.interval() if len(one.effects) > 1 else one.effects.values()
    low, high = min(ends), max(ends)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return round(3 + 94 * (value - low) / width, 2)

    def row(one: Evidence) -> dict[str, Any]:
        several = len(one.effects) > 1
        return {
            "evidence": one,
            "verdict": finding.verdict_on(one),
            "zero": place(0),
            "mean": place(one.mean) if one.effects else None,
            "interval": [place(end) for end in one.interval()] if several else None,
            "study": place(one.published) if np.isfinite(one.published) else None,
        }

    return {
        "number": number,
        "finding": finding,
        "mark": MARKS[finding.verdict],
        "rows": [row(one) for one in finding.evidence],
    }


def picture(figure: Figure, alt: str) -> Picture:
    """A figure as SVG."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return Picture(data_uri("image/svg+xml", file.getvalue()), alt)


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


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
        figures.curves(rows),
        f"Accuracy and loss by epoch, training and validation, of {', '.join(rows)}",
    )


def class_tables(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """For each list of classes, by class: accuracies of the variants that have it, over seeds."""
    tables: dict[tuple[str, ...], list[Variant]] = {}
    for variant in variants:
        tables.setdefault(tuple(variant.classes), []).append(variant)
    return [
        {
            "variants": members,
            "rows": list(zip(names, zip(*map(class_acc, members), strict=True), strict=True)),
            "lowest": min(class_acc(variant).min() for variant in members),
        }
        for names, members in tables.items()
    ]


def class_acc(variant: Variant) -> NDArray[np.float64]:
    """Test accuracy by class (C,), mean over seeds."""
    mean: NDArray[np.float64] = np.mean(
        [run.figures.class_acc for run in variant.finished.values()], axis=0
    )
    return mean


def confusion(variant: Variant) -> NDArray[np.int64]:
    """Counts (C, C) of true and predicted classes, summed over seeds."""
    total: NDArray[np.int64] = variant.values("test/confusion_matrix").sum(0)
    return total


def confusion_picture(variant: Variant) -> Picture:
    counts, names = confusion(variant), variant.classes
    true, guess = next(mistaken_pairs(counts), (0, 0))
    return picture(
        figures.confusion_matrix(counts, names, variant.label),
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
    names, counts = best.classes, confusion(best)
    accuracies = {best.label: class_acc(best).tolist()}
    if best.arm:
        accuracies["the study"] = published()[best.arm]["test_acc_per_class"]
    try:
        images = dataset.load(best.config.data.root).test_images[: len(run.labels)]
    except UserError as error:
        images, problem = None, printable(str(error).partition("\n")[0])
    else:
        problem = ""
    probabilities, guesses = softmax(run.logits, axis=1), run.logits.argmax(1)
    pairs = []
    for true, guess in list(mistaken_pairs(counts))[:CONFUSIONS]:
        chosen = np.flatnonzero((run.labels == true) & (guesses == guess))
        chosen = chosen[np.argsort(-probabilities[chosen, guess], kind="stable")[:EXAMPLES]]
        pairs.append(
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
                    for i in chosen
                ]
                if images is not None
                else [],
            }
        )
    mistakes = None
    if images is not None:
        mistakes = picture(
            figures.mistakes(images, probabilities, names, run.labels),
            "The most confident mistakes, each image beside the probabilities of all classes",
        )
    return {
        "variant": best,
        "run": run,
        "classes": picture(
            figures.class_accuracy(accuracies, names),
            f"Test accuracy of {best.label} by class; lowest: "
            f"{names[int(class_acc(best).argmin())]}, {class_acc(best).min():.3f}",
        ),
        "confusions": pairs,
        "mistakes": mistakes,
        "problem": problem,
    }


def command(variant: Variant) -> str:
    """What trains the runs of a variant again."""
    config, seeds = variant.config, ",".join(map(str, variant.finished))
    if variant.arm is None:
        folder = next(iter(variant.finished.values())).folder
        code = (
            "from pathlib import Path; from omegaconf import OmegaConf; "
            "from fmnist_pl.config import Config; from fmnist_pl.run import run; "
            f"run(OmegaConf.merge(Config, OmegaConf.load({str(folder / 'config.yaml')!r})), "
            "Path('runs/again'))"
        )
        return f"python -c {shlex.quote(code)}"
    group = "experiment" if variant.arm in ("vanilla", "three_class") else "model"
    words = ["python -m fmnist_pl.train", *(["-m"] if "," in seeds else [])]
    words += [f"{group}={variant.arm}", f"seed={seeds}"]
    own, standard = asdict(config), asdict(Config(name=""))
    for name in ("data", "optimizer", "trainer", "test"):
        for key, value in own[name].items():
            if value != standard[name][key] and key not in ("root", "enable_progress_bar"):
                words.append(shlex.quote(f"{name}.{key}={json.dumps(value).strip(chr(34))}"))
    if config.threads:
        words.append(f"threads={config.threads}")
    return " ".join(words)


def environment_of(variants: Sequence[Variant]) -> dict[str, dict[str, str]]:
    """What ran the finished runs: for each entry its value, or all that occur."""
    runs = [run for variant in variants for run in variant.finished.values()]

    def values(dicts: Sequence[dict[str, Any]]) -> dict[str, str]:
        names = dict.fromkeys(name for one in dicts for name in one)
        return {
            printable(name): printable(
                ", ".join(dict.fromkeys(str(one[name]) for one in dicts if name in one))
            )
            for name in names
        }

    return {
        "Hardware": values([run.result["hardware"] for run in runs]),
        "Versions": values(
            [{**run.result["versions"], "code": run.result["git_commit"]} for run in runs]
        ),
        "Data, SHA-256 of the decompressed files": values(
            [run.result["data_sha256"] for run in runs]
        ),
    }
