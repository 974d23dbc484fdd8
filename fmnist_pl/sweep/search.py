"""A search: Optuna asks for hyperparameters, and the mean of several seeds' runs answers.

Two studies hold the same trials. One, in memory, asks and is told. The other is a journal in the
folder of the search, which is written as things happen and read when the same command is given
again: then all that was asked and told is repeated to the first, whose sampler so ends in the very
state in which it was lost. Runs are ordinary runs, which continue by themselves.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, Literal, NamedTuple

import optuna
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from fmnist_pl.files import JOURNAL, METRICS, RESULT, SEARCH, STATUS, write_atomically
from fmnist_pl.options.messages import UserError, printable
from fmnist_pl.report.recipes import recipe
from fmnist_pl.report.runs import read_epochs
from fmnist_pl.sweep.compose import Run
from fmnist_pl.sweep.space import fixed, space
from fmnist_pl.sweep.steps import Launch, Steps
from fmnist_pl.sweep.workers import trials_at_once

COMPLETE = TrialState.COMPLETE

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Outcome(NamedTuple):
    """What came of a trial."""

    state: TrialState
    value: float | None = None
    error: str = ""


class Search(Steps):
    """A search in a folder, from wherever it is to its end.

    Args:
        config, launch: as of `Steps`.
        sampler: asks.
        pruner: ends trials early.
        n_trials: how many.
        seeds: of each trial.
        confirm: how many fresh ones judge the chosen trial.
        metric: whose mean over the seeds is the value of a trial, an entry of `result.json`.
        direction: maximize or minimize.
        n_jobs: trials at once; None: as many as the launcher has workers for.
        max_failures: failed trials at which to stop.
    """

    def __init__(
        self,
        config: DictConfig,
        launch: Launch,
        *,
        sampler: BaseSampler,
        pruner: BasePruner,
        n_trials: int,
        seeds: int,
        confirm: int,
        metric: str,
        direction: Literal["maximize", "minimize"],
        n_jobs: int | None,
        max_failures: int,
        **_: Any,
    ) -> None:
        super().__init__(config, launch)
        self.space = space(config)
        self.fixed = fixed(config, self.space)
        self.n_trials, self.metric, self.max_failures = n_trials, metric, max_failures
        self.seeds = [config.seed + i for i in range(seeds)]
        self.fresh = [config.seed + seeds + i for i in range(confirm)]
        self.n_jobs = n_jobs or trials_at_once(config.hydra.launcher, seeds)
        self.prunes = not isinstance(pruner, NopPruner)
        self.study = optuna.create_study(sampler=sampler, pruner=pruner, direction=direction)
        self.running: list[Trial] = []

    def run(self) -> None:
        """All trials, then the fresh seeds of the chosen one.

        Raises:
            UserError: the folder holds another search, or another process is at work there; too
                many trials have failed.
        """
        lock = FileLock(self.folder / ".lock", timeout=0, fallback_to_soft=False)
        try:
            held = lock.acquire()
        except Timeout:
            raise UserError(f"{self.folder}: another process is at work on this search.") from None
        with held:
            self.search()

    def search(self) -> None:
        """As `run`, where nobody else is at work."""
        self.replay()
        while len(self.study.trials) < self.n_trials or self.running:
            left = self.n_trials - len(self.study.trials)
            trials = self.running or self.ask(min(self.n_jobs, left))
            for trial, outcome in self.train(trials).items():
                self.tell(trial, outcome)
            self.running = []
            self.check_failures()
        self.confirm()

    # What Optuna is asked and told, and the journal of it.

    @cached_property
    def storage(self) -> JournalStorage:
        """The journal's, read where nobody else is at work."""
        return JournalStorage(JournalFileBackend(str(whole(self.folder / JOURNAL))))

    @cached_property
    def journal(self) -> int:
        """The study in the journal, which is made where there is none.

        Raises:
            UserError: it is of another search.
        """
        about = {
            "space": {key: repr(one) for key, one in self.space.items()},
            "options": self.fixed,
            "metric": self.metric,
            "direction": self.study.direction.name,
            "seeds": self.seeds,
        }
        names = [study.study_name for study in self.storage.get_all_studies()]
        if not names:
            study = self.storage.create_new_study([self.study.direction], self.folder.name)
            self.storage.set_study_user_attr(study, "about", about)
        study = self.storage.get_study_id_from_name((names or [self.folder.name])[0])
        before = self.storage.get_study_user_attrs(study).get("about", about)
        if different := [key for key in about if before.get(key) != about[key]]:
            raise UserError(
                f"{self.folder} holds another search ({', '.join(different)}): name another folder "
                "with hydra.sweep.dir=FOLDER."
            )
        return study

    def recorded(self) -> list[FrozenTrial]:
        """The trials of the journal, by number."""
        return self.storage.get_all_trials(self.journal)

    def replay(self) -> None:
        """Ask and tell once more what the journal has, until the sampler is where it was lost.

        Raises:
            UserError: it asks for something else, as another version of Optuna may.
        """
        trials, position = self.recorded(), 0
        while position < len(trials):
            size = trials[position].user_attrs["batch"]
            old = trials[position : position + size]
            new = [self.study.ask(self.space) for _ in range(size)]
            for trial, before in zip(new, old, strict=False):
                if trial.params != before.params:
                    raise UserError(
                        f"{self.folder / JOURNAL}: trial {trial.number} had {before.params}, and "
                        f"this sampler asks for {trial.params}: give the sampler, the "
                        "hydra.sweeper.seed and the version of Optuna it was begun with, or "
                        "another hydra.sweep.dir."
                    )
                if before.state.is_finished():
                    for epoch, value in before.intermediate_values.items():
                        trial.report(value, epoch)
                    told = before.value if before.state == COMPLETE else None
                    self.study.tell(trial, told, before.state)
                else:
                    self.running.append(trial)
            for trial in new[len(old) :]:
                self.record(trial, size)
                self.running.append(trial)
            position += size

    def ask(self, size: int) -> list[Trial]:
        """The next trials, which do not know of one another's values."""
        self.running = [self.study.ask(self.space) for _ in range(size)]
        for trial in self.running:
            self.record(trial, size)
        return self.running

    def record(self, trial: Trial, batch: int) -> None:
        """A trial that has been asked for, as one entry of the journal."""
        entry = create_trial(
            state=TrialState.RUNNING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"batch": batch},
        )
        self.storage.create_new_trial(self.journal, entry)

    def tell(self, trial: Trial, outcome: "Outcome") -> None:
        """What came of a trial."""
        number, value = self.recorded()[trial.number]._trial_id, outcome.value
        if outcome.error:
            self.storage.set_trial_user_attr(number, "error", outcome.error)
        values = None if value is None else [value]
        self.storage.set_trial_state_values(number, outcome.state, values)
        self.study.tell(trial, value, outcome.state)
        self.write()

    def check_failures(self) -> None:
        """End a search of which too much fails.

        Raises:
            UserError: names the last error.
        """
        failed = [one for one in self.recorded() if one.state == TrialState.FAIL]
        if len(failed) >= self.max_failures:
            raise UserError(
                f"{len(failed)} trials have failed (hydra.sweeper.max_failures="
                f"{self.max_failures}); the last: {failed[-1].user_attrs['error']}"
            )

    # The runs of a trial.

    def runs(self, params: Mapping[str, Any], seeds: Sequence[int]) -> list[Run]:
        """A run from each seed."""
        words = [*self.fixed, *(f"{key}={value}" for key, value in params.items())]
        return [self.composed(*words, f"seed={seed}") for seed in seeds]

    def train(self, trials: Sequence[Trial]) -> dict[Trial, "Outcome"]:
        """Train trials, all at once, each until its end or until it is pruned."""
        runs = {trial: self.runs(trial.params, self.seeds) for trial in trials}
        left, done = list(trials), dict.fromkeys(trials, Outcome(TrialState.PRUNED))
        last = max(run.config.trainer.max_epochs for each in runs.values() for run in each)
        for epoch in range(1, last) if self.prunes else ():
            todo = self.unfinished(run for trial in left for run in runs[trial])
            todo = [run for run in todo if self.figure_after(epoch, run.folder) is None]
            self.start(todo, f"pause_after={epoch}")
            for trial in list(left):
                rows = [self.figure_after(epoch, run.folder) for run in runs[trial]]
                if None in rows:  # failed, or ended by itself
                    continue
                self.report(trial, epoch, mean(value for value in rows if value is not None))
                if trial.should_prune():
                    left.remove(trial)
                    for run in runs[trial]:
                        status = {"state": "pruned"}
                        write_atomically(run.folder / STATUS, json.dumps(status, indent=1) + "\n")
        self.start(self.unfinished(run for trial in left for run in runs[trial]))
        for trial in left:
            results = [self.result(run.folder) for run in runs[trial]]
            if None in results:
                errors = [self.error(run.folder) for run in runs[trial]]
                error = next(filter(None, errors), "not finished")
                done[trial] = Outcome(TrialState.FAIL, error=error)
            else:
                done[trial] = Outcome(COMPLETE, mean(one for one in results if one is not None))
        return done

    def report(self, trial: Trial, epoch: int, value: float) -> None:
        """The mean of a trial's seeds after an epoch."""
        trial.report(value, epoch)
        number = self.recorded()[trial.number]._trial_id
        self.storage.set_trial_intermediate_value(number, epoch, value)

    def figure_after(self, epoch: int, folder: Path) -> float | None:
        """The metric of a run after an epoch, if it has come that far."""
        path = folder / METRICS
        rows = read_epochs(path) if path.exists() else []
        return rows[epoch - 1][self.metric] if len(rows) >= epoch else None

    def result(self, folder: Path) -> float | None:
        """The metric of a finished run."""
        path = folder / RESULT
        return float(json.loads(path.read_text())[self.metric]) if path.exists() else None

    def error(self, folder: Path) -> str:
        """What a failed run died of."""
        path = folder / STATUS
        status = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return printable(status.get("error", ""))

    # The end.

    def confirm(self) -> None:
        """Train what was chosen from seeds that no trial saw, and beside it the default."""
        complete = [one for one in self.recorded() if one.state == COMPLETE]
        if complete and self.fresh:
            chosen = self.runs(self.study.best_params, self.fresh)
            default = self.runs({}, self.fresh)
            self.start(self.unfinished([*chosen, *default]))
            same = recipe(chosen[0].config) == recipe(default[0].config)
            self.write(chosen, [] if same else default)

    def write(self, chosen: Sequence[Run] = (), default: Sequence[Run] = ()) -> None:
        """`search.json`, from which the report is made, which knows no Optuna."""
        trials = self.recorded()
        complete = [one for one in trials if one.state == COMPLETE]
        importance: dict[str, float] = {}
        if len(trials) >= self.n_trials and len({one.value for one in complete}) > 1:
            evaluator = FanovaImportanceEvaluator(seed=0)
            importance = get_param_importances(self.study, evaluator=evaluator)

        def names(runs: Sequence[Run]) -> list[str]:
            return [str(run.folder.relative_to(self.folder)) for run in runs]

        content = {
            "metric": self.metric,
            "direction": self.study.direction.name.lower(),
            "n_trials": self.n_trials,
            "seeds": self.seeds,
            "log": [key for key, one in self.space.items() if getattr(one, "log", False)],
            "trials": [
                {
                    "number": one.number,
                    "state": one.state.name.lower(),
                    "value": one.value if one.state == COMPLETE else None,
                    "params": one.params,
                    "epochs": max(one.intermediate_values, default=None),
                    "runs": names(self.runs(one.params, self.seeds)),
                    "error": one.user_attrs.get("error", ""),
                }
                for one in trials
            ],
            "best": self.study.best_trial.number if complete else None,
            "importance": importance,
            "fresh": {"seeds": self.fresh, "chosen": names(chosen), "default": names(default)},
        }
        write_atomically(self.folder / SEARCH, json.dumps(content, indent=1) + "\n")


def whole(journal: Path) -> Path:
    """The journal without a last line that was cut off when the search was killed."""
    if journal.exists():
        content = journal.read_bytes()
        if content and not content.endswith(b"\n"):
            write_atomically(journal, content[: content.rfind(b"\n") + 1])
    return journal
