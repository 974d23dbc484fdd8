"""A sweep to which seeds were added until nothing was open: its plan, and what is open still."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fmnist_pl.files import LOOKS
from fmnist_pl.options.messages import UserError
from fmnist_pl.report.evidence import Verdict
from fmnist_pl.report.findings import Finding
from fmnist_pl.report.judgement import Judgement
from fmnist_pl.report.statistics import MARGIN, Rules
from fmnist_pl.report.variants import Sweep, Variant


def planned(first: Any, most: Any, margin: Any) -> tuple[int, ...]:
    """After how many seeds it is asked: first, twice as many, and so on; last at most.

    Raises:
        UserError: no whole numbers, fewer than two seeds, or the last before the first; a margin
            that is no share of 100 points.
    """
    if not (type(first) is type(most) is int and 2 <= first <= most):
        raise UserError(
            f"hydra.sweeper.first_look={first}, hydra.sweeper.max_seeds={most}: it takes two seeds "
            "at least for the first look, and no fewer for the last."
        )
    if type(margin) not in (int, float) or not 0 < margin < 100:
        raise UserError(
            f"hydra.sweeper.margin={margin}: must be above 0 and below 100 percentage points."
        )
    looks = [first]
    while 2 * looks[-1] < most:
        looks.append(2 * looks[-1])
    return tuple(dict.fromkeys((*looks, most)))


def read_rules(folders: Sequence[Path], margin: float | None) -> Rules:
    """By which a report judges: as planned for the first of the folders that has a plan, or once.

    Args:
        folders: of sweeps.
        margin: None: the plan's, or the usual one.

    Raises:
        UserError: the plan cannot be read.
    """
    plans = (path for one in folders for path in (one / LOOKS, *sorted(one.glob(f"*/{LOOKS}"))))
    path = next(filter(Path.is_file, plans), None)
    if path is None:
        return Rules(MARGIN if margin is None else margin)
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        looks = tuple((int(seeds), float(error)) for seeds, error in plan["looks"])
        own = float(plan["margin"])
    except Exception as error:  # whatever a file that is something else brings
        raise UserError(f"{path}: no plan of looks ({error}).") from None
    return Rules(own if margin is None else margin, looks)


def still_open(sweep: Sweep, judgements: Sequence[Judgement]) -> list[Variant]:
    """The variants that something undecided is about.

    That is one of the study's conclusions, or a comparison of the best with another, on either
    kind of weights.
    """
    findings = [finding for one in judgements for finding in (*one.findings, one.lead)]
    names = {name for finding in findings if finding for name in undecided(finding)}
    variants = {variant.label: variant for variant in sweep.variants}
    variants |= sweep.study  # as the conclusions call them
    return list({v.label: v for name, v in variants.items() if name in names}.values())


def undecided(finding: Finding) -> Iterable[str]:
    """The arms that the open contrasts of a finding are about; none where it is decided."""
    if not finding.conclusion.several and finding.verdict is not Verdict.UNDECIDED:
        return
    for verdict, one in finding.decisions:
        if verdict is Verdict.UNDECIDED:
            yield from one.contrast.arms


def saved(sweep: Sweep, rules: Rules) -> str:
    """What a sweep by looks has saved; of another sweep, nothing."""
    if len(rules.looks) < 2:
        return ""
    most = rules.looks[-1][0] or 0
    counts: dict[int, list[str]] = {}
    for variant in sweep.finished:
        counts.setdefault(len(variant.finished), []).append(variant.label)
    told = "; ".join(f"{seeds} of {', '.join(labels)}" for seeds, labels in sorted(counts.items()))
    runs = sum(seeds * len(labels) for seeds, labels in counts.items())
    return (
        "Seeds are added where something is open, and it is asked after "
        f"{', '.join(str(seeds) for seeds, _ in rules.looks)}. Seeds so far: {told}. "
        f"{runs} runs in place of {most * len(sweep.finished)}."
    )
