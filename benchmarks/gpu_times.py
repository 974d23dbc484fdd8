"""What `gpu.py` measures: functions of the bench that yield figures."""

import csv
import json
import os
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import lightning as L
import torch
from bare_loop import train as train_bare
from gpu_bench import Bench, Figure, Figures, command, milliseconds, now, train
from input_path import configuration
from torch.profiler import ProfilerActivity, profile

from fmnist_pl.data import augment
from fmnist_pl.data.datamodule import CHUNK_SIZE, to_float
from fmnist_pl.files import METRICS, RESULT
from fmnist_pl.training.fit import build_datamodule
from fmnist_pl.training.turns import side_by_side


class Stopwatch(L.Callback):
    """Time of each chunk of steps; the kernels of the last one."""

    def __init__(self, bench: Bench, chunks: int) -> None:
        self.bench, self.last = bench, chunks - 1
        self.times: list[tuple[Any, Any]] = []
        cuda = bench.device == "cuda"
        self.profile = profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])

    def on_train_batch_start(self, *arguments: Any) -> None:
        if arguments[-1] == self.last:
            self.profile.start()
        self.start = now(self.bench)

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.times.append((self.start, now(self.bench)))
        if arguments[-1] == self.last:
            milliseconds(*self.times[-1])  # waits for the device
            self.profile.stop()

    def kernels(self) -> list[float]:
        """Microseconds of each kernel of the last chunk; on a CPU, of each operation."""
        path = self.bench.folder / f"{os.getpid()}.json"
        self.profile.export_chrome_trace(str(path))
        kind = "kernel" if self.bench.device == "cuda" else "cpu_op"
        events = json.loads(path.read_text())["traceEvents"]
        return [float(event["dur"]) for event in events if event.get("cat") == kind]


def step(bench: Bench, model: str, words: Sequence[str] = ()) -> Figures:
    """A training step as a run takes it; median over chunks of 32 of them."""
    steps = 32  # of a chunk
    watch = Stopwatch(bench, chunks := bench.pick(48, 3))
    train(bench, model, steps * chunks, *words, look=watch)
    first, *others, _ = (milliseconds(*pair) for pair in watch.times)
    yield Figure("a step", one := median(others) / steps, "ms")
    yield Figure("the first 32", first / 1e3, "s")
    if bench.device == "cuda":
        yield Figure("peak memory", torch.cuda.max_memory_allocated() / 2**20, "MiB")
    if not (kernels := watch.kernels()):
        raise RuntimeError("the profiler saw no kernel")
    yield Figure("kernels", len(kernels) / steps, "a step")
    yield Figure("sum of kernels", busy := sum(kernels) / steps / 1e3, "ms")
    yield Figure("waiting for launches", 1 - busy / one, "of a step")


def variant(bench: Bench, words: Sequence[str]) -> Figures:
    """A step of cnn_bn with other options; in small, of the MLP."""
    yield from step(bench, bench.pick("cnn_bn", "mlp"), words)


class Marks(L.Callback):
    """The beginning of the third chunk, when all graphs are there, and the end of the last one."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def on_train_batch_start(self, *arguments: Any) -> None:
        if arguments[-1] == 2:
            self.start = now(self.bench)

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.end = now(self.bench)


def together(bench: Bench, model: str) -> Figures:
    """A step of each of several seeds side by side, as their share of the time of all."""
    steps, chunks = 32, bench.pick(48, 4)
    for seeds in bench.pick([2, 5, 10, 25], [2]):
        marks = [Marks(bench) for _ in range(seeds)]
        works = [
            partial(train, bench, model, steps * chunks, f"seed={seed}", look=look)
            for seed, look in enumerate(marks)
        ]
        side_by_side(works)
        whole = median(milliseconds(one.start, one.end) for one in marks)
        yield Figure(f"a step, {seeds} seeds", whole / (steps * (chunks - 2)) / seeds, "ms")


def augmentation(bench: Bench) -> Figures:
    """To augment a chunk of 1,024 images; the median of 50."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (CHUNK_SIZE, 28, 28), dtype=torch.uint8).to(bench.device)
    for name in ("standard", "all"):
        ops = augment.parse_ops(configuration("mlp", f"augment={name}").augment.ops)
        draws = augment.to(augment.draw(ops, CHUNK_SIZE, generator), bench.device)
        times = []
        for _ in range(bench.pick(50, 3) + 1):
            start = now(bench)
            augment.apply(to_float(images), ops, draws)
            times.append((start, now(bench)))
        _, *others = (milliseconds(*pair) for pair in times)
        yield Figure(name, median(others), "ms")


def whole(bench: Bench, model: str) -> Figures:
    """The command: ten epochs of a model with all that a run leaves."""
    folder = bench.folder / f"run-{model}"
    small = ("model=mlp", "trainer.max_epochs=1", "trainer.limit_train_batches=40")
    small += ("embeddings=none",)
    words = [f"model={model}", *bench.words, f"hydra.run.dir={folder}", *bench.pick((), small)]
    yield Figure("wall time", command("train", *words), "s")
    with (folder / METRICS).open() as table:
        yield Figure(
            "an epoch", median(float(row["seconds"]) for row in csv.DictReader(table)), "s"
        )
    result = json.loads((folder / RESULT).read_text())
    yield Figure("test accuracy", result["test/acc"])
    on_cpu = result["hardware"]["device"] == "cpu"
    yield Figure("on a CPU", on_cpu, "", bench.device == "cpu")


def sweep(bench: Bench, processes: Sequence[int]) -> Figures:
    """The command: the six models, an epoch of each, so many at a time."""
    small = ("model=mlp", "trainer.limit_train_batches=40")
    for number in bench.pick(processes, processes[:1]):
        seconds = command(
            "train",
            *("-m", "experiment=six_models", "seed=0", "trainer.max_epochs=1", "embeddings=none"),
            *(f"hydra.launcher.n_jobs={number}", f"hydra.sweep.dir={bench.folder}/{number}"),
            *bench.words,
            *bench.pick((), small),
        )
        yield Figure(f"{number} at a time", seconds, "s")


def seeds(bench: Bench) -> Figures:
    """The command: five seeds of cnn_bn, three epochs; in processes of their own, and in one."""
    small = ("model=mlp", "trainer.limit_train_batches=40", "seed=0,1")
    for name, *launcher in (
        ("five processes", "hydra.launcher.n_jobs=5"),
        ("one process", "hydra/launcher=together", "hydra.launcher.side_by_side=5"),
    ):
        seconds = command(
            "train",
            *("-m", "model=cnn_bn", "seed=0,1,2,3,4", "trainer.max_epochs=3", "embeddings=none"),
            *(*launcher, f"hydra.sweep.dir={bench.folder}/{name.replace(' ', '-')}"),
            *bench.words,
            *bench.pick((), small),
        )
        yield Figure(name, seconds, "s")


def study(bench: Bench) -> Figures:
    """The command: the study, eight models, five seeds of each, ten epochs, with its report."""
    small = ("trainer.max_epochs=1", "trainer.limit_train_batches=10", "seed=0")
    small += ("embeddings=none", "pictures=false")
    words = ("-m", "experiment=study", "hydra/launcher=together", *bench.pick((), small))
    folder = f"hydra.sweep.dir={bench.folder}/study"
    yield Figure("wall time", command("train", *words, folder, *bench.words), "s")


def bare(bench: Bench, model: str) -> Figures:
    """An epoch of the bare loop over the same tensors, operations and net."""
    splits = {}
    for limit in (40, bench.pick(1.0, 40)):  # the first to warm up
        config = configuration(model, *bench.words, f"trainer.limit_train_batches={limit}")
        if not splits:
            datamodule = build_datamodule(config)
            datamodule.setup()
            for name, (images, labels) in datamodule.splits.items():
                splits[name] = images.to(bench.device), labels.to(bench.device)
        seconds, _ = train_bare(config, 1, splits)
    yield Figure("an epoch", seconds, "s")
