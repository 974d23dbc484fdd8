"""`summary.csv`, `summary.md` and `report.html` of a sweep, and its table for a terminal."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmnist_pl.files import write_atomically
from fmnist_pl.options.messages import UserError, printable
from fmnist_pl.report.conclusions import compare, examine
from fmnist_pl.report.noise import entry, explain, weights_table
from fmnist_pl.report.page import to_html
from fmnist_pl.report.runs import FIGURES, KNN, WEIGHTS
from fmnist_pl.report.statistics import Finding
from fmnist_pl.report.variants import Sweep, read_sweep


@dataclass(frozen=True)
class Summary:
    """What a report says."""

    sweep: Sweep
    findings: list[Finding]  # the study's eight conclusions
    lead: Finding | None  # of the best model
    out: Path  # the folder of the files

    def __str__(self) -> str:
        """The table for a terminal, the folders that are not in it, and the verdicts."""
        lines = ["No runs.", ""]
        if self.sweep.variants:
            rows = table(self.sweep)
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = [
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                for row in rows
            ]
            lines = [*(line.rstrip() for line in lines), ""]
        if best := self.sweep.best:
            lines += [f"best on the validation images: {best.label}", ""]
        if self.lead:
            lines += ["on the test images:"]
            lines += [f"{verdict:13}  {effect}" for verdict, effect in comparisons(self.lead)]
            lines += [""]
        lines += [": ".join(filter(None, row)) for row in left_out(self.sweep, self.out)]
        lines += [""] if self.sweep.left_out else []
        lines += [self.sweep.choice, ""] if self.sweep.choice else []
        lines += [
            f"{number} {finding.verdict:13}  {finding.conclusion.statement}"
            for number, finding in enumerate(self.findings, 1)
        ]
        return "\n".join(lines)


def write_report(folders: Sequence[Path], out: Path) -> Summary:
    """Write `summary.csv`, `summary.md` and `report.html` of the sweeps in `folders` into `out`.

    Raises:
        UserError: not a folder, or `out` cannot be written.
    """
    sweep = read_sweep(folders)
    findings = examine({arm: variant.figures for arm, variant in sweep.study.items()})
    summary = Summary(sweep, findings, compare(sweep), out)
    try:
        write_atomically(out / "summary.csv", to_csv(summary))
        write_atomically(out / "summary.md", to_markdown(summary))
        write_atomically(out / "report.html", to_html(sweep, summary.findings, summary.lead, out))
    except OSError as error:
        raise UserError(f"{out}: the report cannot be written there ({error.strerror}).") from None
    return summary


def table(sweep: Sweep) -> list[list[str]]:
    """Accuracies, mean and standard deviation over seeds, beside the study's; the head first."""
    rows = [["model", "seeds", *("training", "study", "validation", "study", "test", "study")]]
    for variant in sweep.variants:
        row = [variant.label, f"{len(variant.finished)}/{len(variant.runs)}"]
        for split in ("train", "val", "test"):
            row += [variant.spread(f"{split}/acc"), variant.published(split)]
        rows.append(row)
    return rows


def left_out(sweep: Sweep, out: Path) -> list[list[str]]:
    """State, folder as seen from `out`, and problem of every folder that is not in the table."""
    return [[run.state, run.name(out), run.problem] for run in sweep.left_out]


def comparisons(finding: Finding) -> list[tuple[str, str]]:
    """Of each the verdict, and what it compares with what effect."""
    return [(finding.verdict_on(one), one.in_words()) for one in finding.evidence]


def to_csv(summary: Summary) -> str:
    """One row a folder; what is not known of it is empty."""
    columns = ["folder", "state", "problem", "name", "model", "augment", "seed", "epochs"]
    columns += ["parameters", *FIGURES, "best_epoch", "best_val_acc", "seconds"]
    columns += [*map(entry, WEIGHTS), *(f"test/knn_acc/{space}" for space in KNN)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
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
            }
            row |= {"seed": run.seed} | {key: printable(name) for key, name in names.items()}
        writer.writerow(row)
    return text.getvalue()


def to_markdown(summary: Summary) -> str:
    """The results table, what is not in it, the verdicts, and what other weights would give."""

    def lines(rows: Sequence[Sequence[str]]) -> list[str]:
        cells = [[escape(cell) for cell in row] for row in rows]
        cells.insert(1, ["---"] * len(rows[0]))
        return [f"| {' | '.join(row)} |" for row in cells]

    def escape(cell: str) -> str:
        for character in "\\`*[]<>&|":
            cell = cell.replace(character, f"\\{character}")
        return cell

    verdicts = [["", "conclusion", "verdict", "why"]]
    for number, finding in enumerate(summary.findings, 1):
        statement = finding.conclusion.statement
        verdicts.append([str(number), statement, finding.verdict, finding.explanation])
    text = ["# Results", "", *lines(table(summary.sweep)), ""]
    text += ["Accuracy, mean ± standard deviation over seeds; beside it the study's.", ""]
    if best := summary.sweep.best:
        text += [f"Best on the validation images: {escape(best.label)}.", ""]
    if summary.lead:
        text += ["## The best against the others", ""]
        text += [*lines([("verdict", "comparison"), *comparisons(summary.lead)]), ""]
    if rest := left_out(summary.sweep, summary.out):
        text += ["## Not counted", "", *lines([["state", "folder", "problem"], *rest]), ""]
    text += ["## The study's conclusions", ""]
    text += [escape(summary.sweep.choice), ""] if summary.sweep.choice else []
    text += [*lines(verdicts), ""]
    if summary.sweep.finished:
        text += [
            "## Why the last epoch is noisy",
            "",
            *lines(weights_table(summary.sweep.finished)),
        ]
        text += ["", "Test accuracy by weights, mean ± standard deviation over seeds."]
        for paragraph in explain(summary.sweep.candidates):
            text += ["", escape(paragraph)]
    return "\n".join(text) + "\n"
