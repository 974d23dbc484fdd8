"""Which process of a run this is, and who started it: `srun`, `torchrun`, or nobody."""

import os
import signal


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
