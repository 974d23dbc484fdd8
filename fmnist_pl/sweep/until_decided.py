"""A sweep that adds seeds until nothing is open, and asks at planned looks, which share one error.

What is left to do is told from the folders of the runs alone, so that the same command goes on.
"""

import json
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from fmnist_pl.files import LOOKS, RESULT, write_atomically
from fmnist_pl.options.messages import UserError
from fmnist_pl.report.judgement import judge
from fmnist_pl.report.looks import planned, read_rules, still_open
from fmnist_pl.report.statistics import Rules, spend
from fmnist_pl.report.variants import Sweep, Variant, group, read_sweep
from fmnist_pl.sweep.compose import Run
from fmnist_pl.sweep.plan import without_seeds
from fmnist_pl.sweep.steps import Launch, Steps
from fmnist_pl.sweep.watch import Watch


class UntilDecided(Steps):
    """The sweep in a folder, from wherever it is to its end.

    Args:
        config, launch: as of `Steps`.
        first_look: seeds of each variant after which it is asked first.
        max_seeds: after which it is asked last.
        margin: in percentage points; a smaller difference counts as none.
    """

    def __init__(
        self,
        config: DictConfig,
        launch: Launch,
        *,
        first_look: int,
        max_seeds: int,
        margin: float,
        **_: Any,
    ) -> None:
        super().__init__(config, launch)
        self.looks = spend(planned(first_look, max_seeds, margin))
        self.margin = margin / 100
        self.variants, self.first = without_seeds(config)

    def run(self) -> None:
        """All looks, until one leaves nothing open.

        Raises:
            UserError: the folder holds looks by another plan; runs have not finished.
        """
        self.record()
        going_on = self.variants
        for seeds, _ in self.looks:
            runs = [self.of(each, i) for each in going_on for i in range(seeds)]
            if watch := Watch.of_this_process:
                watch.add(run.folder for run in runs)
                watch.total = len(watch.runs)
            self.start(self.unfinished(runs))
            if missing := [run for run in runs if not (run.folder / RESULT).exists()]:
                raise UserError(
                    f"{len(missing)} of {len(runs)} runs have not finished, "
                    f"{missing[0].folder.name} among them, so that nothing can be decided yet. The "
                    "same command goes on; leave out a variant that cannot be trained."
                )
            still = self.open_after(seeds)
            if not still:
                tqdm.write(f"after {seeds} seeds nothing is open")
                return
            labels = ", ".join(variant.label for variant in still)
            tqdm.write(f"after {seeds} seeds something is open on {labels}")
            folders = {run.folder for variant in still for run in variant.runs}
            going_on = [each for each in self.variants if self.of(each, 0).folder in folders]

    def open_after(self, seeds: int) -> list[Variant]:
        """The variants that something is open about, whatever more runs there are."""
        runs = read_sweep([self.folder]).runs
        seen = [run for run in runs if run.config and run.seed < self.first + seeds]
        sweep = Sweep(seen, group(seen))
        return still_open(sweep, judge(sweep, None, Rules(self.margin, self.looks)))

    def record(self) -> None:
        """The plan, which a report must know."""
        path, plan = self.folder / LOOKS, {"looks": self.looks, "margin": self.margin}
        content = json.dumps(plan, indent=1) + "\n"
        if path.exists():
            before = read_rules([self.folder], None)
            same_looks = dict(before.looks).keys() == dict(self.looks).keys()
            if same_looks and before.margin == self.margin:
                return
            raise UserError(
                f"{path} has another plan. The error is spent as planned before the first look: "
                "give the first_look, max_seeds and margin it was begun with, or another "
                "hydra.sweep.dir."
            )
        write_atomically(path, content)

    def of(self, variant: tuple[str, ...], index: int) -> Run:
        """A variant's run of one of the seeds."""
        return self.composed(*variant, f"seed={self.first + index}")
