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
import subprocess
import sys


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
