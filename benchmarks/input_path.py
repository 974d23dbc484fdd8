"""Seconds an epoch, training with the standard augmentation and validation, of four ways to it.

    python benchmarks/input_path.py
    python benchmarks/input_path.py models=mlp repeats=11
    python benchmarks/input_path.py ways='fmnist_pl,bare loop' threads= busy=1

(a) `fmnist_pl` as users run it, all its logging on; (b) a bare PyTorch loop over the same tensors
and augmentations, the net in PyTorch's layers; (c) the usual Lightning pipeline,
`examples/textbook.py`, its DataLoaders with their best number of workers; and the floor: the net's
floating-point operations at the rate of a large matrix product on this machine. All are
interleaved in one run, so that a busy machine hurts all alike, each in a process of its own, so
that no way profits from another's settings. The ratios are what counts. What each of the
differences between (c) and (a) is worth, `textbook.py` measures.
"""

import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from fmnist_pl.config import resolve
from fmnist_pl.options.command import CONF_DIR, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config

MODELS = ("mlp", "cnn", "cnn_bn")
WAYS = ("fmnist_pl", "bare loop", "textbook", "floor")
WORKERS = (0, 1, 2, 4)


@dataclass
class Options:
    models: str = option(",".join(MODELS), "Which models, separated by commas.")
    repeats: int = option(5, "Epochs of each.", ge=1)
    ways: str = option(",".join(WAYS), "Which ways to it, likewise.")
    threads: int | None = option(1, "CPU threads of each; empty: what each has by itself.", ge=1)
    busy: int = option(0, "Beside so many other programs, each of which keeps a core busy.", ge=0)
    way: str | None = option(None, "Only this way, once: seconds and peak memory in MB.")
    workers: int = option(0, "Of the DataLoader, with way.", ge=0)


def configuration(model: str, *overrides: str) -> Config:
    from hydra import compose, initialize_config_dir

    from fmnist_pl.sweep import plan  # noqa: F401  (registers its resolver)

    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return resolve(compose("train", [f"model={model}", "embeddings=none", *overrides]))


def ours(config: Config) -> float:
    """From the start of the first epoch to the start of the second."""
    from fmnist_pl.training.checkpoints import Record
    from fmnist_pl.training.folder import run

    class EpochDoneError(Exception):
        pass

    starts = []
    original = Record.on_train_epoch_start

    def note(self: Record, *arguments: Any) -> None:
        starts.append(time.perf_counter())
        if len(starts) == 2:
            raise EpochDoneError
        original(self, *arguments)

    Record.on_train_epoch_start = note  # type: ignore[method-assign]
    try:
        with TemporaryDirectory() as folder:
            run(config, Path(folder))
    except EpochDoneError:
        pass
    finally:
        Record.on_train_epoch_start = original  # type: ignore[method-assign]
    return starts[1] - starts[0]


def bare(config: Config) -> float:
    from bare_loop import train

    seconds, _ = train(config, epochs=1)
    return seconds


def textbook(config: Config, workers: int) -> float:
    from deviations import epoch

    return epoch(config, workers)


def floor(config: Config) -> float:
    """Forward and backward passes of an epoch and the validation, in seconds of matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fmnist_pl.model.nets import build_net

    net = build_net(config.model, 10)
    with FlopCounterMode(display=False) as training:
        net(torch.rand(100, 1, 28, 28)).sum().backward()
    with FlopCounterMode(display=False) as evaluation, torch.no_grad():
        net(torch.rand(100, 1, 28, 28))
    operations = 500 * training.get_total_flops() + 100 * evaluation.get_total_flops()

    n = 2048
    a, b = torch.rand(n, n), torch.rand(n, n)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return operations / (2 * n**3 / median(seconds))


def measure(config: Config, way: str, workers: int) -> float:
    return {
        "fmnist_pl": lambda: ours(config),
        "bare loop": lambda: bare(config),
        "textbook": lambda: textbook(config, workers),
        "floor": lambda: floor(config),
        "workers": lambda: float(best_workers(config)),
    }[way]()


def best_workers(config: Config) -> int:
    """Of the textbook's DataLoaders, by a few batches."""
    limit = config.trainer.limit_train_batches
    few = min(limit, 300) if isinstance(limit, int) else 300
    trainer = replace(config.trainer, limit_train_batches=few, limit_val_batches=1)
    return min(WORKERS, key=lambda workers: textbook(replace(config, trainer=trainer), workers))


def measure_apart(script: str, *arguments: str) -> tuple[float, float]:
    """The figure and the peak memory, MB, of a process of its own."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figure, peak = done.stdout.split()[-2:]
    return float(figure), float(peak)


def print_with_peak(figure: float) -> None:
    """What `measure_apart` reads."""
    print(figure, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def names_of(option: str, given: str, legal: Sequence[str]) -> list[str]:
    """The names that an option lists.

    Raises:
        UserError: one that is not legal.
    """
    names = given.split(",")
    for name in names:
        if name not in legal:
            raise UserError(f"{option}={given}: {name} is not one of {', '.join(legal)}.")
    return names


def threads_of(threads: int | None) -> tuple[str, ...]:
    """So many threads for what this process measures; the same for a run of the package."""
    import torch

    if threads is None:
        return ()
    torch.set_num_threads(threads)
    return (f"threads={threads}",)


@contextmanager
def busy_programs(number: int) -> Iterator[None]:
    """So many programs that never pause, and end with this one."""
    busy = "import os\nwhile os.getppid() == {}:\n    for _ in range(10**6): pass"
    command = [sys.executable, "-c", busy.format(os.getpid())]
    programs = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def describe_machine() -> dict[str, Any]:
    import torch

    from fmnist_pl.training.environment import describe_environment

    environment = describe_environment(torch.device("cpu"), 1, {})
    described: dict[str, Any] = environment["hardware"] | environment["versions"]
    return described


def work(options: Options) -> None:
    """Measure and print."""
    models = names_of("models", options.models, MODELS)
    ways = names_of("ways", options.ways, WAYS)
    if options.way:
        config = configuration(models[0], *threads_of(options.threads))
        print_with_peak(measure(config, options.way, options.workers))
        return

    def apart(model: str, way: str, workers: int = 0) -> tuple[float, float]:
        threads = f"threads={options.threads or ''}"
        once = f"models={model}", f"way={way}", f"workers={workers}", threads
        with busy_programs(options.busy):
            return measure_apart(__file__, *once)

    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    peak: dict[tuple[str, str], float] = {}
    textbook = "textbook" in ways
    workers = {model: int(apart(model, "workers")[0]) if textbook else 0 for model in models}
    for repeat in range(options.repeats):
        for model in models:
            for way in ways:
                figure, peak[model, way] = apart(model, way, workers[model])
                seconds[model, way].append(figure)
        print(f"repeat {repeat + 1} of {options.repeats} done", file=sys.stderr, flush=True)

    print(describe_machine())
    print(f"threads of each: {options.threads or 'its own choice'}, busy programs: {options.busy}")
    if textbook:
        print(f"workers of the textbook's DataLoaders: {workers}")
    print(f"{'seconds an epoch':32} {'min':>7} {'max':>7}  in epochs of {ways[0]:12} peak MB")
    for model in models:
        for way in ways:
            values = seconds[model, way]
            print(
                f"{model:8} {way:16} {median(values):7.2f} {min(values):7.2f} {max(values):7.2f}  "
                f"{ratios(values, seconds[model, ways[0]]):25} {peak[model, way]:7.0f}"
            )


def ratios(values: list[float], references: list[float]) -> str:
    each = [value / reference for value, reference in zip(values, references, strict=True)]
    return f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
