"""How many runs of a sweep this machine takes at once, and which device each worker trains on."""

from multiprocessing import current_process, parent_process

from joblib import cpu_count, parallel
from omegaconf import DictConfig

from fmnist_pl.options.schema import Config

GIB_OF_A_RUN = 2  # an estimate: CUDA's context and libraries, the data set twice, a net

TRIALS_OF_AN_ARRAY = 10


def separate() -> bool:
    """Whether runs can have processes of their own.

    Where the system gives no semaphores, as with a /dev/shm that cannot be written, joblib has
    threads instead, which share what must be each run's own: its random numbers.
    """
    return parallel.mp is not None


def at_once(config: DictConfig) -> int:
    """As many runs as there are cores for and, where they train on GPUs, as those take.

    One, where they cannot have processes of their own.

    Args:
        config: of the sweep, with the `threads` of each run.
    """
    if not separate():
        return 1
    runs = cpu_count() // (config.threads or cpu_count())  # as affinity and containers allow
    if devices := device_count(config.trainer.accelerator):
        runs = min(runs, devices * (config.runs_per_device or room(runs)))
    return max(1, int(runs))


def side_by_side(config: DictConfig, seeds: int) -> int:
    """How many of a variant's seeds one process takes at once: a GPU's share; on a CPU, one."""
    from torch import cuda

    devices = cuda.device_count() if config.trainer.accelerator != "cpu" else 0
    return max(1, min(at_once(config) // devices, -(-seeds // devices))) if devices else 1


def trials_at_once(launcher: DictConfig, seeds: int) -> int:
    """How many trials of a search, each of several seeds, keep the workers of a launcher busy.

    Of a cluster's many they would be too many: a search learns from one array for the next.
    """
    if "array_parallelism" in launcher:
        return min(TRIALS_OF_AN_ARRAY, max(1, int(launcher.array_parallelism) // seeds))
    together = min(seeds, int(launcher.get("side_by_side", 1)))  # a process has one trial's
    return max(1, int(launcher.get("n_jobs", 1)) * together // seeds)


def take_device(options: Config) -> None:
    """Give this worker's run the next of several devices; which one is no part of what it is."""
    devices = device_count(options.trainer.accelerator)
    if parent_process() and options.trainer.devices == 1 and devices > 1:
        number = current_process()._identity[-1]  # the first worker's is 1
        options.trainer.devices = [(number - 1) % devices]


def device_count(accelerator: str) -> int:
    """How many devices there are beside the CPU, if that is not what was asked for."""
    if accelerator == "cpu":
        return 0
    import torch

    return torch.accelerator.device_count()


def room(most: int) -> int:
    """How many runs the memory of each GPU holds; `most` where it is the CPU's."""
    from torch import cuda

    sizes = [cuda.get_device_properties(i).total_memory for i in range(cuda.device_count())]
    return max(1, min(sizes, default=most * GIB_OF_A_RUN << 30) // (GIB_OF_A_RUN << 30))
