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

from fmnist_pl.data.source import title
from fmnist_pl.files import CONFIG
from fmnist_pl.options.messages import printable
from fmnist_pl.report import calibration
from fmnist_pl.report.arms import STUDY
from fmnist_pl.report.doubtful import Doubtful
from fmnist_pl.report.evidence import Evidence, Verdict, in_units
from fmnist_pl.report.figures import (
    best_model,
    confusion_picture,
    curves,
    landscape,
    traces,
    tried,
)
from fmnist_pl.report.findings import Finding, Needed
from fmnist_pl.report.judgement import NOT_JUDGED, Judgement, error_of_the_page
from fmnist_pl.report.looks import saved
from fmnist_pl.report.luck import CAPTION, families, luck_table
from fmnist_pl.report.noise import explain, weights_table
from fmnist_pl.report.runs import State
from fmnist_pl.report.search import Search
from fmnist_pl.report.statistics import LEVEL, POWER, Rules
from fmnist_pl.report.variants import Sweep, Variant

MARKS = {
    Verdict.HOLDS: "✓",
    Verdict.FAILS: "✗",
    Verdict.EQUAL: "=",
    Verdict.UNDECIDED: "?",
    Verdict.UNTESTED: "\N{EN DASH}",
}
TALLY = {  # of one, of several
    Verdict.HOLDS: ("holds", "hold"),
    Verdict.FAILS: ("does not hold", "do not hold"),
    Verdict.EQUAL: ("makes no difference", "make no difference"),
    Verdict.UNDECIDED: ("is undecided", "are undecided"),
    Verdict.UNTESTED: ("cannot be told", "cannot be told"),
}


def to_html(
    sweep: Sweep,
    judgements: Sequence[Judgement],
    search: Search | None,
    rules: Rules,
    out: Path,
    doubtful: Doubtful | None,
) -> str:
    """The page.

    Args:
        sweep: what it is about.
        judgements: of it, by weights.
        search: if it is one.
        rules: by which it is judged.
        out: from where folders are named.
        doubtful: test images that hardly a net gets right, where there are enough nets to tell.
    """
    tells = judgements[0].tells
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
        data_sets=", ".join(sweep.data_sets.values()) or title(STUDY.data),
        out=out,
        finished=finished,
        State=State,
        findings=conclusions(judgements) if tells else [],
        leads=[(one, describe(one.lead, ends(one.lead))) for one in judgements if one.lead],
        judgements=judgements,
        search=search,
        landscape=landscape(search.points if search else tried(sweep), search),
        tally=[tally(one) for one in judgements],
        error=error_of_the_page(judgements, rules) if tells else "",
        not_judged=NOT_JUDGED,
        looks=saved(sweep, rules),
        rule={"level": LEVEL, "margin": rules.margin, "power": POWER, "looks": rules.looks},
        curves=curves(sweep.variants),
        luck=families(sweep),
        luck_table=luck_table(sweep),
        luck_caption=CAPTION,
        weights=weights_table(finished),
        traces=traces(finished),
        steadier=explain(sweep.candidates),
        trust=calibration.section(sweep),
        doubtful=doubtful,
        class_tables=class_tables(finished),
        confusions=[confusion_picture(variant) for variant in finished],
        best=best_model(sweep.best) if sweep.best else None,
        commands=[command(variant) for variant in finished],
        environment=environment_of(finished),
    )


def conclusions(judgements: Sequence[Judgement]) -> list[list[tuple[Judgement, dict[str, Any]]]]:
    """Of each of the study's what is found, by those weights that could change it."""
    shown = []
    for findings in zip(*(one.findings for one in judgements), strict=True):
        several = findings if findings[0].conclusion.of_weights else findings[:1]
        scale = [end for finding in several for end in ends(finding)]
        items = [describe(finding, scale) for finding in several]
        shown.append(list(zip(judgements, items, strict=False)))
    return shown


def tally(judgement: Judgement) -> str:
    """How many conclusions have each verdict, as in `4 hold, 1 is undecided, 3 do not hold`."""
    counts = Counter(finding.verdict for finding in judgement.findings)
    return ", ".join(f"{counts[one]} {TALLY[one][counts[one] > 1]}" for one in TALLY if counts[one])


def ends(finding: Finding) -> list[float]:
    """Of all that its interval plots show."""
    found = [0.0]
    for one in finding.evidence:
        found += [one.published] if np.isfinite(one.published) else []
        found += one.interval if len(one.effects) > 1 else one.effects.values()
    return found


def describe(finding: Finding, scale: Sequence[float]) -> dict[str, Any]:
    """A finding as the template shows it; places of the interval plots are percentages of a scale.

    Args:
        finding: what is shown.
        scale: what must be on it, those of the finding among it.
    """
    low, high = min(scale), max(scale)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return round(3 + 94 * (value - low) / width, 2)

    def row(one: Evidence, verdict: Verdict, needed: Needed | None) -> dict[str, Any]:
        several = len(one.effects) > 1
        return {
            "evidence": one,
            "verdict": verdict,
            "needed": needed.in_words() if needed else "",
            "zero": place(0),
            "mean": place(one.mean) if one.effects else None,
            "interval": [place(end) for end in one.interval] if several else None,
            "study": place(one.published) if np.isfinite(one.published) else None,
        }

    return {
        "finding": finding,
        "mark": MARKS[finding.verdict],
        "rows": [
            row(one, verdict, needed)
            for (verdict, one), needed in zip(finding.decisions, finding.needed, strict=True)
        ],
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
            "lowest": min(np.nanmin(variant.class_acc) for variant in members),
        }
        for names, members in tables.items()
    ]


def command(variant: Variant) -> str:
    """What trains the runs of a variant again."""
    config, seeds = variant.config, ",".join(map(str, variant.finished))
    named = config.schedule, config.callbacks, config.model.net
    if variant.arm is None or any(named) or config.optimizer.keys() != STUDY.optimizer.keys():
        options = next(iter(variant.finished.values())).folder / CONFIG
        code = (
            "from dataclasses import replace; from pathlib import Path; "
            "from fmnist_pl.config import read; "
            "from fmnist_pl.training.folder import run; "
            f"config = read(Path({str(options)!r})); "
            "[run(replace(config, seed=seed), Path(f'runs/again-{seed}')) "
            f"for seed in ({seeds},)]"
        )
        return f"python -c {shlex.quote(code)}"
    group = "experiment" if variant.arm in ("vanilla", "three_class") else "model"
    words = ["python -m fmnist_pl.train", *(["-m"] if "," in seeds else [])]
    words += [f"{group}={variant.arm}", f"seed={seeds}"]
    own, usual = asdict(config), asdict(STUDY)
    for name in ("data", "optimizer", "trainer", "test", "seeds"):
        for key, value in own[name].items():
            if value != usual[name][key] and key not in ("root", "enable_progress_bar"):
                words.append(shlex.quote(f"{name}.{key}={json.dumps(value).strip(chr(34))}"))
    if config.threads != STUDY.threads:
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
