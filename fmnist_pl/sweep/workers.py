"""How many runs of a sweep this machine takes at once, and which GPU each worker trains on."""

import os
from collections.abc import Sequence
from multiprocessing import current_process, parent_process

from joblib import cpu_count
from omegaconf import DictConfig

GIB_OF_A_RUN = 2  # an estimate: CUDA's context and libraries, the data set twice, a net


def at_once(config: DictConfig) -> int:
    """As many runs as there are cores for and, where they train on GPUs, as those take.

    Args:
        config: of the sweep, with `threads` of each run and `runs_per_device`.
    """
    runs = cpu_count() // config.threads  # as affinity and containers allow
    if gpus := visible_gpus(config.trainer.accelerator):
        share = config.runs_per_device or smallest_memory() // GIB_OF_A_RUN
        runs = min(runs, len(gpus) * share)
    return max(1, int(runs))


def take_gpu(config: DictConfig) -> None:
    """Let this worker of a sweep see one GPU, all workers in turn; elsewhere, nothing.

    It must come before anything has been done on a GPU. So the configuration of a run does not say
    which GPU it had, and any worker can continue it.
    """
    gpus = visible_gpus(config.trainer.accelerator)
    if parent_process() and config.trainer.devices == 1 and len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = in_turn(gpus, current_process()._identity)


def in_turn(gpus: Sequence[str], identity: Sequence[int]) -> str:
    """The GPU of a worker, by the number that Python gives to processes: 1, 2, ..."""
    return gpus[(identity[-1] - 1) % len(gpus)]


def visible_gpus(accelerator: str) -> list[str]:
    """CUDA's devices that a run may use, as CUDA_VISIBLE_DEVICES names them."""
    if accelerator not in ("auto", "gpu", "cuda"):
        return []
    from torch.cuda import device_count

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else map(str, range(device_count()))
    return list(names)[: device_count()]


def smallest_memory() -> int:
    """GiB of the GPU that has least."""
    from torch.cuda import device_count, get_device_properties

    return min(get_device_properties(i).total_memory >> 30 for i in range(device_count()))
