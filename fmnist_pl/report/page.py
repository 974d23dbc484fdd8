"""The one self-contained HTML page of a report, from `page.html`, its template."""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fmnist_pl.options.messages import printable
from fmnist_pl.options.schema import Config
from fmnist_pl.report.figures import best_model, confusion_picture, curves, traces
from fmnist_pl.report.noise import explain, weights_table
from fmnist_pl.report.runs import State
from fmnist_pl.report.statistics import LEVEL, MARGIN, Evidence, Finding, Verdict, in_units
from fmnist_pl.report.variants import Sweep, Variant

MARKS = {
    Verdict.HOLDS: "✓",
    Verdict.FAILS: "✗",
    Verdict.UNDECIDED: "?",
    Verdict.UNTESTED: "\N{EN DASH}",
}
TALLY = {  # of one, of several
    Verdict.HOLDS: ("holds", "hold"),
    Verdict.FAILS: ("does not hold", "do not hold"),
    Verdict.UNDECIDED: ("is undecided", "are undecided"),
    Verdict.UNTESTED: ("cannot be told", "cannot be told"),
}


def to_html(sweep: Sweep, findings: Sequence[Finding], lead: Finding | None, out: Path) -> str:
    """The page.

    Args:
        sweep: what it is about.
        findings: on the study's conclusions.
        lead: of the best model.
        out: from where folders are named.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["points"] = in_units
    finished = sweep.finished
    return templates.get_template("page.html").render(
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
        sweep=sweep,
        out=out,
        finished=finished,
        State=State,
        findings=[describe(finding) for finding in findings],
        lead=describe(lead) if lead else None,
        tally=tally(findings),
        rule={"level": LEVEL, "margin": MARGIN},
        curves=curves(sweep.variants),
        weights=weights_table(finished),
        traces=traces(finished),
        steadier=explain(sweep.candidates),
        class_tables=class_tables(finished),
        confusions=[confusion_picture(variant) for variant in finished],
        best=best_model(sweep.best) if sweep.best else None,
        commands=[command(variant) for variant in finished],
        environment=environment_of(finished),
    )


def tally(findings: Sequence[Finding]) -> str:
    """How many conclusions have each verdict, as in `4 hold, 1 is undecided, 3 do not hold`."""
    counts = Counter(finding.verdict for finding in findings)
    return ", ".join(f"{counts[one]} {TALLY[one][counts[one] > 1]}" for one in TALLY if counts[one])


def describe(finding: Finding) -> dict[str, Any]:
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
        "finding": finding,
        "mark": MARKS[finding.verdict],
        "rows": [row(one) for one in finding.evidence],
    }


def class_tables(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """For each list of classes, by class: accuracies of the variants that have it, over seeds."""
    tables: dict[tuple[str, ...], list[Variant]] = {}
    for variant in variants:
        tables.setdefault(tuple(variant.classes), []).append(variant)
    return [
        {
            "variants": members,
            "rows": list(zip(names, np.transpose([m.class_acc for m in members]), strict=True)),
            "lowest": min(variant.class_acc.min() for variant in members),
        }
        for names, members in tables.items()
    ]


def command(variant: Variant) -> str:
    """What trains the runs of a variant again."""
    config, seeds = variant.config, ",".join(map(str, variant.finished))
    if variant.arm is None:
        options = next(iter(variant.finished.values())).folder / "config.yaml"
        code = (
            "from pathlib import Path; from omegaconf import OmegaConf; "
            "from fmnist_pl.options.schema import Config; "
            "from fmnist_pl.training.folder import run; "
            f"config = OmegaConf.merge(Config, OmegaConf.load({str(options)!r})); "
            "[run(OmegaConf.merge(config, {'seed': seed}), Path(f'runs/again-{seed}')) "
            f"for seed in ({seeds},)]"
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
    if config.threads != Config(name="").threads:
        words.append(f"threads={json.dumps(config.threads)}")
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
