"""The verdict on a statement of several contrasts, why it is so, and what would decide it."""

from dataclasses import dataclass
from functools import cached_property
from math import isinf

from fmnist_pl.report.evidence import Contrast, Evidence, Verdict
from fmnist_pl.report.statistics import (
    FEW_SEEDS,
    MOST_SEEDS,
    POWER,
    Errors,
    holm,
    seeds_needed,
)


@dataclass(frozen=True)
class Conclusion:
    """A statement, and what must be seen for it to hold.

    Args:
        statement: one sentence.
        test: one sentence.
        contrasts: which all must be above zero.
        several: each contrast is a claim of its own, and all of them share one error (Holm).
    """

    statement: str
    test: str
    contrasts: tuple[Contrast, ...]
    several: bool = False

    @property
    def of_weights(self) -> bool:
        """Whether other weights of the same runs could change it."""
        return any(one.of_weights for one in self.contrasts)


@dataclass(frozen=True)
class Needed:
    """Seeds in all that would probably decide a question; infinite: more than anybody asks for."""

    seeds: float
    low: float  # the ends of its interval
    high: float

    def in_words(self) -> str:
        """As `43 (12 to over 1,000)`."""
        count, low, high = (
            f"over {MOST_SEEDS:,}" if isinf(one) else f"{one:,.0f}"
            for one in (self.seeds, self.low, self.high)
        )
        return count if low == high else f"{count} ({low} to {high})"


@dataclass(frozen=True)
class Finding:
    """A conclusion with its evidence."""

    conclusion: Conclusion
    evidence: tuple[Evidence, ...]

    @property
    def shares(self) -> int:
        """Contrasts any of which would refute it, each with its share of the error (Bonferroni).

        That all of them hold needs no correction. Where each is a claim of its own, Holm's does.
        """
        return 1 if self.conclusion.several else len(self.evidence)

    @cached_property
    def decisions(self) -> tuple[tuple[Verdict, Evidence], ...]:
        """On each contrast the verdict, of the first look that decides it, and what was seen."""
        said = [
            (Verdict.UNTESTED if one.missing else Verdict.UNDECIDED, one) for one in self.evidence
        ]
        tested = [i for i, one in enumerate(self.evidence) if not one.missing]
        for seeds, error in self.evidence[0].rules.looks:
            allowed = [Errors(error, *[error / self.shares] * 3)] * len(tested)
            if self.conclusion.several and tested:
                found = zip(*(self.evidence[i].smallest_errors(seeds) for i in tested), strict=True)
                allowed = list(map(Errors, *(holm(smallest, error) for smallest in found)))
            for i, errors in zip(tested, allowed, strict=True):
                one = self.evidence[i]
                if said[i][0] is Verdict.UNDECIDED and len(one.effects) >= (seeds or 0):
                    verdict = one.verdict(seeds, errors)
                    said[i] = verdict, one.up_to(seeds) if verdict is not Verdict.UNDECIDED else one
        return tuple(said)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """On each contrast."""
        return tuple(verdict for verdict, _ in self.decisions)

    @property
    def verdict(self) -> Verdict:
        """It holds if every contrast does, and does not if any does not."""
        for decisive in (Verdict.FAILS, Verdict.EQUAL, Verdict.UNTESTED, Verdict.UNDECIDED):
            if decisive in self.verdicts:
                return decisive
        return Verdict.HOLDS

    @property
    def decisive(self) -> list[Evidence]:
        """The evidence that the verdict rests on."""
        return [one for verdict, one in self.decisions if verdict is self.verdict]

    @property
    def smallest_error(self) -> float:
        """The smallest probability of error at which all seeds at one look give the verdict."""
        found = [one.smallest_errors() for one in self.decisive if len(one.effects) > 1]
        match self.verdict:
            case Verdict.HOLDS:
                return max(one.positive for one in found)
            case Verdict.FAILS:
                return self.shares * min(min(one.negative, one.small) for one in found)
            case Verdict.EQUAL:
                return self.shares * min(one.equal for one in found)
        return 1.0

    @cached_property
    def needed(self) -> tuple[Needed | None, ...]:
        """Seeds that would decide each contrast; None of one that is decided or untested."""

        def needed(one: Evidence) -> Needed:
            error = one.rules.looks[-1][1]
            if self.conclusion.several:
                error /= len(self.evidence)
            errors = error if one.survives_mcnemar() else 0.0, error / self.shares
            return Needed(*seeds_needed(list(one.effects.values()), one.rules.margin, errors))

        return tuple(
            needed(one) if verdict is Verdict.UNDECIDED else None for verdict, one in self.decisions
        )

    @property
    def explanation(self) -> str:
        """The verdict's reasons, in words a student understands."""
        verdict = self.verdict
        if verdict is Verdict.UNTESTED:
            missing = dict.fromkeys(item for one in self.evidence for item in one.missing)
            return f"It takes {'; '.join(missing)}."
        seeds = min(len(one.effects) for one in self.decisive)
        if verdict is Verdict.HOLDS:
            weakest = min(self.decisive, key=lambda one: one.mean)
            subject = "It shows" if len(self.decisive) == 1 else "Every part of it shows"
            which = "that" if len(self.decisive) == 1 else "the smallest effect is that"
            reasons = [
                f"{subject} on {seeds} seeds, by more than luck explains: "
                f"{which} {weakest.in_words()}."
            ]
            if weakest.interval[1] < (margin := weakest.rules.margin):
                reasons += [f"It is less than {100 * margin:.2g}{weakest.contrast.suffix}, though."]
        else:
            opening = {
                Verdict.FAILS: "Against it: that",
                Verdict.EQUAL: "As good as nothing: that",
                Verdict.UNDECIDED: "Open: whether",
            }[verdict]
            claims: dict[str, list[str]] = {}  # by reason
            for one in self.decisive:
                claims.setdefault(one.reason(verdict), []).append(one.in_words())
            reasons = [f"{opening} {'; '.join(these)}: {why}." for why, these in claims.items()]
        if verdict is Verdict.UNDECIDED:
            reasons.append(self.outlook)
        if seeds < FEW_SEEDS:
            reasons.append(f"(Only {seeds} seeds: the intervals are wide.)")
        return " ".join(reasons)

    @property
    def outlook(self) -> str:
        """How many seeds would probably decide what is open, and how long they take to train."""
        if any(at := [one.next_look for one in self.decisive]):
            return f"It is asked next after {min(filter(None, at))} seeds."
        pairs = zip(self.needed, self.evidence, strict=True)
        open_ = sorted(((n, one) for n, one in pairs if n), key=lambda pair: pair[0].seeds)
        against = [] if self.conclusion.several else [each for each in open_ if each[1].mean <= 0]
        # One part refutes the whole, and the quickest will do; else all have to be decided.
        needed, evidence = against[0] if against else open_[-1]
        if isinf(needed.seeds):
            if not evidence.survives_mcnemar():
                return "More seeds would hardly decide it; more test images would."
            return f"It would take more than {MOST_SEEDS:,} seeds to decide it."
        outcome = "decide against it, for which one part is enough" if against else "decide it"
        more = needed.seeds - len(evidence.effects)
        asked = against[:1] or open_
        arms = {arm: time for _, one in asked for arm, time in one.seconds.items()}
        return (
            f"About {needed.in_words()} seeds in all would, with a probability of {POWER:.0%}, "
            f"{outcome}: {more:.0f} more, {duration(more * sum(arms.values()))} of training."
        )


def duration(seconds: float) -> str:
    """As `40 minutes` or `3.5 hours`."""
    minutes = max(round(seconds / 60), 1)
    if minutes >= 90:
        return f"{minutes / 60:.1f} hours"
    return f"{minutes} minute{'s' * (minutes > 1)}"
