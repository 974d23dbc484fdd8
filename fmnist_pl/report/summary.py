"""What a report writes into the folder of a sweep, and its table for a terminal."""

import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fmnist_pl.files import DOUBTFUL, EFFECTS, REPORT, SUMMARY, write_atomically
from fmnist_pl.options.messages import UserError, printable
from fmnist_pl.report import calibration
from fmnist_pl.report.doubtful import Doubtful, Image, find
from fmnist_pl.report.findings import Finding
from fmnist_pl.report.judgement import NOT_JUDGED, Judgement, error_of_the_page, judge
from fmnist_pl.report.looks import read_rules, saved
from fmnist_pl.report.luck import CAPTION, families, luck_table
from fmnist_pl.report.noise import entry, explain, weights_table
from fmnist_pl.report.page import to_html
from fmnist_pl.report.recipes import as_typed, named
from fmnist_pl.report.runs import CALIBRATION, FIGURES, KNN, WEIGHTS
from fmnist_pl.report.search import Search, focus, read_search
from fmnist_pl.report.statistics import Rules
from fmnist_pl.report.variants import Sweep, read_sweep


@dataclass(frozen=True, repr=False)
class Summary:
    """What a report says."""

    sweep: Sweep
    judgements: list[Judgement]  # of the weights that were tested, and of averaged ones
    search: Search | None
    varied: list[str]  # options, over all runs
    rules: Rules
    out: Path  # the folder of the files

    @property
    def findings(self) -> Sequence[Finding]:
        """Of the weights that were tested, on the study's eight conclusions."""
        return self.judgements[0].findings

    @property
    def lead(self) -> Finding | None:
        """Of the weights that were tested, on the best model, or on what a search chose."""
        return self.judgements[0].lead

    @cached_property
    def doubtful(self) -> Doubtful | None:
        """The test images whose labels the nets contradict, where there are enough nets."""
        return find(self.sweep)

    def __str__(self) -> str:
        """The table for a terminal, the folders that are not in it, and the verdicts."""
        lines = ["No runs.", ""]
        if self.sweep.variants:
            lines = [*aligned(table(self.sweep)), ""]
        if self.search:
            lines += [*self.search.in_words(), ""]
        for one in self.judgements:
            if one.best and not self.search:
                lines += [f"{one.subject}: {one.choice}"]
            elif one.lead:
                lines += [f"{one.subject}:"]
            if one.lead:
                lines += [f"{verdict:13}  {effect}" for verdict, effect in comparisons(one.lead)]
                lines += [""]
        for family in families(self.sweep):
            lines += [*family.in_words(), ""]
        lines += [": ".join(filter(None, row)) for row in left_out(self.sweep, self.out)]
        lines += [""] if self.sweep.left_out else []
        for said in filter(None, (self.sweep.choice, saved(self.sweep, self.rules))):
            lines += [said, ""]
        if not self.judgements[0].tells:
            return "\n".join([*lines, NOT_JUDGED])
        lines += aligned(verdicts(self.judgements))
        lines += ["", error_of_the_page(self.judgements, self.rules)]
        return "\n".join(lines).rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The page in a notebook, in a frame of its own."""
        page = html.escape((self.out / REPORT).read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 40em; border: 0"></iframe>'


def summarise(folders: Sequence[Path], out: Path, margin: float | None = None) -> Summary:
    """What the report of the sweeps in `folders` says, seen from `out`.

    Args:
        folders: of sweeps, or runs.
        out: from where folders are named.
        margin: the smallest difference of accuracies, in [0, 1], that counts; None: the usual one.

    Raises:
        UserError: not a folder.
    """
    sweep = read_sweep(folders)
    rules = read_rules(folders, margin)
    search, varied = read_search(folders, sweep.runs), sweep.varied
    sweep = focus(sweep, search)
    return Summary(sweep, judge(sweep, search, rules), search, varied, rules, out)


def write_report(folders: Sequence[Path], out: Path, margin: float | None = None) -> Summary:
    """Write `summary.csv`, `summary.md` and `report.html` of the sweeps in `folders` into `out`.

    And `effects.csv` and `doubtful.csv`, where there is something to be listed.

    Raises:
        UserError: not a folder, or `out` cannot be written.
    """
    summary = summarise(folders, out, margin)
    try:
        write_atomically(out / SUMMARY, to_csv(runs(summary)))
        write_atomically(out / "summary.md", to_markdown(summary) + in_doubt(summary.doubtful))
        for name, rows in ((EFFECTS, effects(summary.judgements)), (DOUBTFUL, images(summary))):
            if len(rows) > 1:
                write_atomically(out / name, to_csv(rows))
            else:
                (out / name).unlink(missing_ok=True)
        page = to_html(
            summary.sweep,
            summary.judgements,
            summary.search,
            summary.rules,
            out,
            summary.doubtful,
        )
        write_atomically(out / REPORT, page)
    except OSError as error:
        raise UserError(f"{out}: the report cannot be written there ({error.strerror}).") from None
    return summary


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, their cells below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def table(sweep: Sweep) -> list[list[str]]:
    """Accuracies, mean and standard deviation over seeds, beside the study's; the head first."""
    splits = ("training", "study", "validation", "study", "test", "study")
    rows = [["model", *sweep.varied, "runs", *splits]]
    for variant in sweep.variants:
        row = [variant.name, *variant.values_of(sweep.varied)]
        row += [f"{len(variant.finished)}/{len(variant.runs)}"]
        for split in ("train", "val", "test"):
            row += [variant.spread(f"{split}/acc"), variant.published(split)]
        rows.append(row)
    return rows


def left_out(sweep: Sweep, out: Path) -> list[list[str]]:
    """State, folder as seen from `out`, and problem of every folder that is not in the table."""
    return [[run.state, run.name(out), run.problem] for run in sweep.left_out]


def comparisons(finding: Finding) -> list[tuple[str, str]]:
    """Of each the verdict, and what it compares with what effect."""
    return [(verdict, one.in_words()) for verdict, one in finding.decisions]


def verdicts(judgements: Sequence[Judgement]) -> list[list[str]]:
    """Of each conclusion its number, the verdict on each kind of weights, and the statement.

    The head comes first; `-` where other weights could not change it.
    """
    rows = [["", "tested weights, as published", "averaged weights", "conclusion"]]
    for number, (tested, averaged) in enumerate(
        zip(*(one.findings for one in judgements), strict=True), 1
    ):
        other = averaged.verdict if tested.conclusion.of_weights else "-"
        rows.append([str(number), tested.verdict, other, tested.conclusion.statement])
    return rows


def to_csv(rows: Iterable[Iterable[object]]) -> str:
    """Rows as a table of numbers; None is empty."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def runs(summary: Summary) -> list[list[object]]:
    """One row a folder, the head first; what is not known of it is None."""
    varied = summary.varied
    columns = ["folder", "state", "problem", "name", "model", "augment", "data", *varied]
    columns += ["seed", "epochs", "parameters", *FIGURES, "best_epoch", "best_val_acc"]
    columns += ["val/acc_averaged", "seconds", *CALIBRATION, *map(entry, WEIGHTS)]
    columns += [f"test/knn_acc/{space}" for space in KNN]
    columns = list(dict.fromkeys(columns))
    rows: list[list[object]] = [[*columns]]
    for run in summary.sweep.runs:
        row = run.entries | {
            "folder": run.name(summary.out),
            "state": run.state,
            "problem": run.problem,
            "epochs": len(run.epochs),
        }
        if config := run.config:
            names = {
                "name": config.name,
                "model": config.model.name,
                "augment": config.augment.name,
                "data": config.data.name,
            }
            own = named(config)
            row |= {name: as_typed(own[name]) for name in varied if name in own}
            row |= {"seed": run.seed} | {key: printable(name) for key, name in names.items()}
        rows.append([row.get(column) for column in columns])
    return rows


def effects(judgements: Sequence[Judgement]) -> list[list[object]]:
    """What each verdict is made of, a row a seed, the head first; no McNemar's test where None."""
    head = ["conclusion", "weights", "comparison", "seed", "effect", "unit", "mcnemar"]
    rows: list[list[object]] = [[*head]]
    for one in judgements:
        for which, finding in (*enumerate(one.findings, 1), ("best", one.lead)):
            if not finding or (one.weights != "tested" and not finding.conclusion.of_weights):
                continue
            for each in finding.evidence:
                claim, unit = each.contrast.claim, each.contrast.unit
                for seed, effect in each.effects.items():
                    significant = each.agrees.get(seed)
                    rows.append([which, one.weights, claim, seed, 100 * effect, unit, significant])
    return rows


def images(summary: Summary) -> list[Sequence[object]]:
    """The test images whose labels are in doubt, a row an image, the head first."""
    return [Image._fields, *(summary.doubtful.images if summary.doubtful else ())]


def to_markdown(summary: Summary) -> str:
    """All but the doubtful images, which take the runs' predictions."""
    text = ["# Results", "", *lines(table(summary.sweep)), ""]
    text += ["Accuracy, mean ± standard deviation over seeds; beside it the study's.", ""]
    if summary.search:
        text += ["## The search", "", *map(escape, summary.search.in_words()), ""]
    for one in summary.judgements:
        if one.lead:
            text += [f"## The best against the others: {one.subject}", ""]
            text += [escape(one.choice), ""] if one.choice and not summary.search else []
            text += [*lines([("verdict", "comparison"), *comparisons(one.lead)]), ""]
    if rest := left_out(summary.sweep, summary.out):
        text += ["## Not counted", "", *lines([["state", "folder", "problem"], *rest]), ""]
    text += ["## The study's conclusions", ""]
    if summary.judgements[0].tells:
        text += [*lines(verdicts(summary.judgements)), ""]
        text += [escape(error_of_the_page(summary.judgements, summary.rules)), ""]
        for one in summary.judgements:
            rows = [["", "verdict", "why"]]
            for number, finding in enumerate(one.findings, 1):
                if one.weights == "tested" or finding.conclusion.of_weights:
                    rows += [[str(number), finding.verdict, finding.explanation]]
            text += [f"### Why: {one.subject}", "", *lines(rows), ""]
    else:
        text += [NOT_JUDGED, ""]
    for said in filter(None, (summary.sweep.choice, saved(summary.sweep, summary.rules))):
        text += [escape(said), ""]
    if luck := families(summary.sweep):
        text += ["## Where luck comes from", "", *lines(luck_table(summary.sweep))]
        text += ["", CAPTION, *(f"\n{escape(' '.join(family.in_words()))}" for family in luck), ""]
    if summary.sweep.finished:
        text += [
            "## Why the last epoch is noisy",
            "",
            *lines(weights_table(summary.sweep.finished)),
        ]
        text += ["", "Test accuracy by weights, mean ± standard deviation over seeds."]
        for paragraph in explain(summary.sweep.candidates):
            text += ["", escape(paragraph)]
    if best := summary.sweep.best:
        text += ["", "## Can one trust the probabilities?", ""]
        text += [*lines(calibration.table(summary.sweep.finished)), ""]
        text += [escape(calibration.in_words(best)), "", calibration.MEANING]
    return "\n".join(text) + "\n"


def in_doubt(doubtful: Doubtful | None) -> str:
    """The section of the images that hardly a net gets right; empty without enough nets."""
    if not doubtful:
        return ""
    text = ["", "## Images that hardly a net gets right", "", escape(doubtful.in_words())]
    text += ["", *lines(doubtful.table())] if doubtful.images else []
    return "\n".join(text) + "\n"


def lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, the head first."""
    cells = [[escape(cell) for cell in row] for row in rows]
    cells.insert(1, ["---"] * len(rows[0]))
    return [f"| {' | '.join(row)} |" for row in cells]


def escape(cell: str) -> str:
    for character in "\\`*[]<>&|":
        cell = cell.replace(character, f"\\{character}")
    return cell
