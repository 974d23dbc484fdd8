"""What the batch script of a sweep's SLURM jobs does before its run."""

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig


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
        f"trap {shlex.quote(f'{python}.slurm $?')} EXIT",
        'case "$SLURM_ARRAY_TASK_ID,$SLURM_RESTART_COUNT" in',
        f"  0,) {sbatch} --dependency=afterany:$SLURM_ARRAY_JOB_ID ;;",
        f"  ,) {sbatch} --dependency=afterany:$SLURM_JOB_ID ;;",  # one run makes no array
        "esac",
    ]
