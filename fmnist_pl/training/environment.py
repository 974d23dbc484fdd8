"""What a run runs on: what is worth recording of it, and what is not worth saying."""

import ctypes
import logging
import os
import platform
import re
import subprocess
import threading
import warnings
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import torch


def describe_environment(
    device: torch.device, devices: int, data_sha256: dict[str, str]
) -> dict[str, Any]:
    """What is needed to repeat a run: hardware, versions, commit of the code, hashes of the data.

    Args:
        device: that trained.
        devices: how many there were.
        data_sha256: of what each file of the data set holds.
    """
    try:
        cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        cpu = None
    return {
        "hardware": {
            "cpu": cpu[1] if cpu else platform.processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **describe_device(device),
            "devices": devices,
        },
        "versions": {
            "python": platform.python_version(),
            **{
                package: version_of(package)
                for package in ("fmnist_pl", "torch", "lightning", "torchmetrics", "numpy")
            },
        },
        "git_commit": git_commit(),
        "data_sha256": data_sha256,
    }


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name of a device and, if it has memory of its own, GiB of that."""
    if device.type != "cuda":
        return {"device": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {"device": properties.name, "device_memory_gib": round(properties.total_memory / 2**30)}


def version_of(package: str) -> str | None:
    """Of an installed package; a checkout may be none, but on Python's path."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit(code: Path = Path(__file__)) -> str | None:
    """Of the repository that has this file of the code; with `-dirty` where files have changed.

    None where there is no git, and where the code was installed, be it inside a repository.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=code.parent, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        if not git("ls-files", code.name):
            return None
        return git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*") or None
    except FileNotFoundError:
        return None


def packages() -> str:
    """All that is installed, as `pip install -r` takes it."""
    found = {f"{one.name}=={one.version}" for one in distributions()}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def keep_memory() -> None:
    """Have this process keep what it frees of memory, which the next step takes again.

    glibc by itself gives back to the system what is large, and each of its pages costs a fault when
    it is taken again. Where there is no glibc, nothing is changed.
    """
    trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # other systems' words
        return
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**25)


def quieten() -> None:
    """Keep libraries from saying what the user can do nothing about, and from what slows steps."""
    # Lightning has torch ask NVML whether there is a GPU: the optimizer would repeat it every step.
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    # TensorBoard's thread passes on to the run that the disk is full; it need not print it, too.
    threading.excepthook = lambda raised: (
        None if isinstance(raised.exc_value, OSError) else threading.__excepthook__(raised)
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*`srun` command is available.*",
        ".*AMP with fp16 is not supported on CPU.*",  # told as a refusal
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists and is not empty.*",  # it is given all anew
        ".*Profiler default schedule will be overridden.*",  # short runs are traced as a whole
        ".*Profiler clears events at the end of each cycle.*",  # they are written by then
        ".*is smaller than the logging interval.*",
        ".*LeafSpec.*is deprecated.*",
        ".*It is recommended to use .*sync_dist=True.*",  # what is logged is the same everywhere
    ):
        warnings.filterwarnings("ignore", message)
