"""Jobs of a SLURM cluster that come back when they are cut short.

A run can be killed at any moment and goes on when it is started again, so a job needs no handler of
signals: whatever ends it, a warning before the time limit as much as SIGKILL, its batch script has
it queued again on the way out. These lines do it, in `docs/run.sbatch` and in the script that
Hydra's launcher for SLURM writes:

    export SLURM_KILL_BAD_EXIT=1
    trap 'python -m fmnist_pl.slurm $?' EXIT

How often a run may be started again is `max_requeues`, and `run` holds it to that: so every way
back counts, also those of SLURM itself, as after the failure of a node.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig


def requeues() -> int:
    """How often SLURM has queued this job again; 0 also where there is no SLURM."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def is_task() -> bool:
    """Whether `srun` started this process, as one of the tasks of a job."""
    return "SLURM_STEP_ID" in os.environ


def processes() -> int:
    """How many processes `srun` or `torchrun` started with this one for the same run."""
    return int(os.environ["SLURM_NTASKS"] if is_task() else os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this one is; the first, 0, owns the folder of the run."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # torchrun's, Lightning's, srun's
    return int(next((os.environ[name] for name in names if name in os.environ), 0))


def disown_signals() -> None:
    """Let SIGTERM and the warning before the time limit end this process, whoever handled them."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def setup(launcher: DictConfig, sweep: Path) -> list[str]:
    """What the batch script of each job of a sweep does before its run.

    The first job to start submits one more, which waits until all have ended, whatever became of
    them and of the terminal that submitted them, and writes the report.

    Args:
        launcher: options of Hydra's launcher for SLURM.
        sweep: folder of the sweep.
    """
    python = f"{shlex.quote(sys.executable)} -m fmnist_pl"
    options = {
        "job-name": f"{launcher.name}-report",
        "output": sweep.absolute() / ".submitit" / "report.log",
        "time": 30,
    }
    options |= {key: launcher[key] for key in ("partition", "account", "qos") if launcher[key]}
    words = [f"--{key}={value}" for key, value in options.items()]
    report = f"{python}.report {shlex.quote(str(sweep))}"
    sbatch = shlex.join(["sbatch", *words, "--wrap", report])
    return [
        "export SLURM_KILL_BAD_EXIT=1",  # one task of a run has ended: so shall the others
        f"trap '{python}.slurm $?' EXIT",
        'case "$SLURM_ARRAY_TASK_ID,$SLURM_RESTART_COUNT" in',
        f"  0,) {sbatch} --dependency=afterany:$SLURM_ARRAY_JOB_ID ;;",
        f"  ,) {sbatch} --dependency=afterany:$SLURM_JOB_ID ;;",  # one run makes no array
        "esac",
    ]


def main() -> None:
    """Queue this job again if a signal ended its command, and nobody has cancelled the job."""
    code, job = int(sys.argv[1]), os.environ["SLURM_JOB_ID"]
    if code <= 128:  # to a shell, 128 + n is an end by signal n
        return
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):  # one job of it has its very number
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    state = subprocess.run(
        ["squeue", "--noheader", "--format=%T", f"--jobs={job}"], capture_output=True, text=True
    ).stdout.strip()
    if state == "RUNNING":
        print(f"ended by signal {code - 128}: queued again", file=sys.stderr, flush=True)
        subprocess.run(["scontrol", "requeue", job], check=True)
    else:
        print(f"ended by signal {code - 128}, and is {state}", file=sys.stderr)


if __name__ == "__main__":
    main()
