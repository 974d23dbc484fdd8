"""How many runs this machine takes at once, and which device each gets."""

import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fmnist_pl.config import identity
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.sweep import workers
from fmnist_pl.sweep.plan import prepare

GIB = 2**30


def machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, devices: int = 0, memory: tuple[int, ...] = ()
) -> None:
    """Make this one of so many cores and devices, some with memory of their own, GiB."""
    monkeypatch.setattr(workers, "cpu_count", lambda: cores)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: devices)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(memory))
    monkeypatch.setattr(
        "torch.cuda.get_device_properties", lambda i: SimpleNamespace(total_memory=memory[i] * GIB)
    )


def test_one_after_the_other_where_there_can_be_no_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, 16)
    monkeypatch.setattr("joblib.parallel.mp", None)  # as joblib has it without semaphores
    assert workers.at_once(OmegaConf.merge(Config, {"name": "x"})) == 1
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        words = ["hydra.launcher.n_jobs=2", "hydra.sweep.dir=x"]
        config = compose("train", words, return_hydra_config=True)
        refused = r"^hydra.launcher.n_jobs=2: must be 1, since the system"
        with pytest.raises(UserError, match=refused):
            prepare(config)


@pytest.mark.parametrize(
    ("cores", "devices", "memory", "overrides", "expected"),
    [
        (16, 0, (), {}, 16),
        (16, 0, (), {"threads": 4}, 4),
        (1, 0, (), {"threads": 2}, 1),
        (16, 0, (), {"threads": None}, 1),
        (16, 4, (80,) * 4, {"runs_per_device": 1}, 4),
        (16, 4, (80,) * 4, {"runs_per_device": 2}, 8),
        (16, 4, (80,) * 4, {"runs_per_device": 9}, 16),  # more than there are cores for
        (16, 4, (80,) * 4, {}, 16),
        (16, 2, (80, 7), {}, 6),  # three to each: the smaller one holds no more
        (16, 1, (1,), {}, 1),
        (16, 1, (1,), {"trainer": {"accelerator": "cpu"}}, 16),
        (8, 1, (), {}, 8),  # its memory is the CPU's
    ],
)
def test_as_many_as_cores_devices_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    devices: int,
    memory: tuple[int, ...],
    overrides: dict[str, object],
    expected: int,
) -> None:
    machine(monkeypatch, cores, devices, memory)
    config = OmegaConf.merge(Config, {"name": "x"}, overrides)
    assert workers.at_once(config) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are not given here")
def test_cores_are_those_that_the_process_was_given() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from omegaconf import OmegaConf; from fmnist_pl.options.schema import Config;"
        "from fmnist_pl.sweep.workers import at_once;"
        "print(at_once(OmegaConf.merge(Config, {'name': 'x'})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_workers_get_the_devices_in_turn(
    monkeypatch: pytest.MonkeyPatch, configured: Callable[..., Config]
) -> None:
    machine(monkeypatch, cores=8, devices=3)
    monkeypatch.setattr(workers, "parent_process", object)
    given = []
    for number in (1, 2, 3, 4):
        process = SimpleNamespace(_identity=(number,))
        monkeypatch.setattr(workers, "current_process", lambda process=process: process)
        config = configured()
        workers.take_device(config)
        given.append(config.trainer.devices)
        assert identity(config) == identity(configured())  # any worker can go on with it
    assert given == [[0], [1], [2], [0]]


def test_a_run_keeps_the_device_it_was_told(
    monkeypatch: pytest.MonkeyPatch, configured: Callable[..., Config]
) -> None:
    machine(monkeypatch, cores=8, devices=3)
    monkeypatch.setattr(workers, "parent_process", object)
    config = configured("trainer.devices=[2]")
    workers.take_device(config)
    assert config.trainer.devices == [2]
    monkeypatch.setattr(workers, "parent_process", lambda: None)  # no worker
    workers.take_device(config := configured())
    assert config.trainer.devices == 1
