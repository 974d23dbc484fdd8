"""How often the report's verdicts are wrong and how often they decide, on runs that are made up.

    python benchmarks/verdicts.py              # the table of docs/statistics.md
    python benchmarks/verdicts.py repeats=500  # a quick look

Runs are drawn with effects that are known, and the report's own rules judge them. Effects and
deviations are in percentage points; the margin is 0.2, as usual.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fmnist_pl.options.command import command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import progress_bar
from fmnist_pl.report.evidence import Contrast, Figures, Verdict, measure
from fmnist_pl.report.findings import Conclusion, Finding
from fmnist_pl.report.statistics import ONCE, Rules, spend

DEVIATION = 0.6  # of one arm over seeds, as of cnn_bn's last epoch
LOOKS = spend((5, 10, 20, 40))


@dataclass(frozen=True)
class Case:
    """A situation that a report may meet.

    Args:
        name: of the row.
        effects: true ones of the comparisons, in points.
        seeds: of each arm.
        rules: of the report.
        several: each comparison is a claim of its own (Holm), not a part of one conclusion.
        deviation: of an arm over seeds.
        skewed: the first arm's luck is log-normal, with a long tail downwards, not normal.
        images: there are so many test images, drawn anew each time, and McNemar's test has its say;
            without, the luck is that of the seeds alone.
    """

    name: str
    effects: Sequence[float]
    seeds: int = 5
    rules: Rules = ONCE
    several: bool = False
    deviation: float = DEVIATION
    skewed: bool = False
    images: int = 0

    def luck(self, rng: np.random.Generator, skewed: bool = False) -> np.ndarray:
        """Of one arm, by seed, in points."""
        drawn = rng.normal(size=self.seeds)
        if skewed:
            drawn = -(np.exp(drawn) - np.exp(0.5)) / np.sqrt(np.e**2 - np.e)
        return self.deviation * drawn

    def finding(self, rng: np.random.Generator) -> Finding:
        """Of runs drawn anew: the first arm against each of the others, which share its luck."""
        first = self.luck(rng, self.skewed)
        arms = {"first": first} | {
            f"other-{i}": self.luck(rng) - effect for i, effect in enumerate(self.effects)
        }
        hardness = rng.random(self.images)
        sweep = {
            arm: {
                seed: figures(0.9 + value / 100, hardness, rng) for seed, value in enumerate(values)
            }
            for arm, values in arms.items()
        }
        contrasts = tuple(
            Contrast(
                arm, ("first", arm), lambda a, b: a.test_acc - b.test_acc, mcnemar=self.images > 0
            )
            for arm in list(arms)[1:]
        )
        evidence = tuple(measure(one, sweep, {}, self.rules) for one in contrasts)
        return Finding(Conclusion("", "", contrasts, self.several), evidence)


def figures(acc: float, hardness: np.ndarray, rng: np.random.Generator) -> Figures:
    """Of a run with this accuracy on all images; on the test images, with what it is there."""
    empty = np.empty(0)
    right = np.empty(0, bool)
    if len(hardness):
        # An image is the harder the more nets have it wrong; each net differs a little.
        right = hardness + rng.normal(0, 0.02, len(hardness)) < acc
        acc = float(right.mean())
    return Figures(acc, empty, empty, right, empty, empty, np.empty(10), np.empty(10))


def wrong(verdict: Verdict, effect: float, margin: float) -> bool:
    """Whether a verdict says something that is not so."""
    match verdict:
        case Verdict.HOLDS:
            return effect <= 0
        case Verdict.FAILS:
            return effect >= margin
        case Verdict.EQUAL:
            return abs(effect) >= margin
    return False


CASES = (
    Case("no effect", [0.0]),
    Case("no effect", [0.0], 20),
    Case("no effect, small deviation", [0.0], 20, deviation=0.18),
    Case("effect just below the claim", [-0.001], 20, deviation=0.18),
    Case("the margin", [0.2], 20, deviation=0.18),
    Case("the margin, the other way", [-0.2], 20, deviation=0.18),
    Case("effect", [0.5], 5),
    Case("effect", [0.5], 20),
    Case("effect, small deviation", [0.5], 5, deviation=0.18),
    Case("no effect, skewed luck", [0.0], 5, skewed=True),
    Case("no effect, skewed luck", [0.0], 20, skewed=True),
    Case("the margin, skewed luck", [0.2], 20, skewed=True, deviation=0.18),
    Case("no effect, and other test images", [0.0], 10, deviation=0.18, images=10_000),
    Case("effect, and other test images", [0.8], 10, deviation=0.18, images=10_000),
    Case("conclusion of five parts, one of no effect", [0.0, 1, 1, 1, 1], 20),
    Case("conclusion of five parts, all at the margin", [0.2] * 5, 20, deviation=0.18),
    Case("six comparisons (Holm), none of an effect", [0.0] * 6, 20, several=True),
    Case("six comparisons (Holm), half of an effect", [0.0] * 3 + [1.0] * 3, 20, several=True),
    Case("six comparisons (Holm), all at the margin", [0.2] * 6, 20, several=True, deviation=0.18),
    Case("two comparisons (Holm), one at the margin", [0.0, 0.2], 20, several=True, deviation=0.18),
    Case("until decided, no effect", [0.0], 40, Rules(looks=LOOKS)),
    Case("until decided, the margin", [0.2], 40, Rules(looks=LOOKS), deviation=0.18),
    Case("until decided, five parts at the margin", [0.2] * 5, 40, Rules(looks=LOOKS)),
    Case(
        "until decided, six comparisons (Holm) at the margin",
        [0.2] * 6,
        40,
        Rules(looks=LOOKS),
        several=True,
        deviation=0.18,
    ),
    Case("until decided, effect", [0.5], 40, Rules(looks=LOOKS)),
)


def covered(case: Case, finding: Finding) -> bool:
    """Whether the interval of the first comparison has the true effect, at each of its looks."""
    [one, *_] = finding.evidence
    intervals = [one.up_to(seeds).interval for seeds, _ in one.rules.looks]
    return all(low <= case.effects[0] / 100 <= high for low, high in intervals)


def simulate(case: Case, repeats: int, seed: int = 0) -> dict[str, float]:
    """Shares of the repeats in which something is said of any of the comparisons.

    Returns:
        `holds`, `no difference`, `does not hold`: of the conclusion, or of any of several claims;
        `wrong`: a verdict on it is; `covered`: as of `covered`.
    """
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys((*Verdict, "wrong", "covered"), 0)
    margin = 100 * case.rules.margin
    for _ in range(repeats):
        finding = case.finding(rng)
        if case.several:
            said = set(finding.verdicts)
            mistaken = any(map(partial(wrong, margin=margin), finding.verdicts, case.effects))
        else:  # as large as its smallest part
            said = {finding.verdict}
            mistaken = wrong(finding.verdict, min(case.effects), margin)
        for verdict in said:
            counts[verdict] += 1
        counts["wrong"] += mistaken
        counts["covered"] += covered(case, finding)
    return {str(name): count / repeats for name, count in counts.items()}


def table(repeats: int) -> Iterator[str]:
    """Rows of Markdown, the head first."""
    columns = [Verdict.HOLDS, Verdict.EQUAL, Verdict.FAILS, "wrong", "covered"]
    head = ["runs", "effect", "deviation", "seeds", *map(str, columns[:-1]), "interval covers"]
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for case in CASES:
        shares = simulate(case, repeats)
        effects = dict.fromkeys(f"{effect:g}" for effect in case.effects)
        row: list[Any] = [case.name, " and ".join(effects), case.deviation]
        row += ["5 to 40" if len(case.rules.looks) > 1 else case.seeds]
        row += [f"{100 * shares[one]:.1f}%" for one in columns]
        yield f"| {' | '.join(map(str, row))} |"


@dataclass
class Options:
    repeats: int = option(4000, "Sets of runs drawn for each row.", ge=1)


def work(options: Options) -> None:
    for row in progress_bar(table(options.repeats), total=len(CASES) + 2):
        print(row, flush=True)


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
