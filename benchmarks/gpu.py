"""All that can be checked and measured of `fmnist_pl` on a GPU: six minutes, one table.

    python benchmarks/gpu.py
    python benchmarks/gpu.py only=operators,step_cnn_bn output=again.json
    python benchmarks/gpu.py device=cpu dry_run=true minutes=30      # does the script work?

It begins with checks, of which several run at once: against the CPU, from run to run, after a kill.
Then it measures, one thing at a time and the most important first. Every item has a process of its
own; one that fails, hangs or crashes is noted as such, and the others go on. The figures are in
`output` as soon as they are known, with GPU, versions, commit and what was predicted; the table of
them all is printed last. docs/gpu.md says what each line means.
"""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any

import fmnist_pl
from fmnist_pl.files import write_atomically
from fmnist_pl.options.command import DataOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError

if TYPE_CHECKING:
    from gpu_bench import Bench

# Where every process finds what this one has found.
PATHS = [str(Path(fmnist_pl.__file__).parents[1]), str(Path(__file__).parent)]
# Imported once, by the process that all items are forked from; none of it may touch the GPU.
PRELOAD = ["gpu_checks", "gpu_times", "fmnist_pl.report.runs"]

# Before any of it was run: estimates, see docs/gpu.md. By item and figure.
PREDICTED = {
    ("step_mlp", "a step"): 0.045,
    ("step_mlp", "kernels"): 20,
    ("step_mlp", "sum of kernels"): 0.045,
    ("step_mlp_eager", "a step"): 0.3,
    ("step_cnn_bn", "a step"): 0.29,
    ("step_cnn_bn", "kernels"): 130,
    ("step_cnn_bn", "sum of kernels"): 0.29,
    ("step_cnn_bn_eager", "a step"): 1.1,
    ("together_cnn_bn", "a step, 5 seeds"): 0.06,
    ("together_mlp", "a step, 5 seeds"): 0.012,
    ("run_mlp", "wall time"): 16,
    ("run_mlp", "an epoch"): 0.1,
    ("run_mlp", "test accuracy"): 0.8678,  # docs/results.md, as the one below
    ("run_cnn_bn", "wall time"): 20,
    ("run_cnn_bn", "an epoch"): 0.6,
    ("run_cnn_bn", "test accuracy"): 0.9030,
    ("study", "wall time"): 180,
}


LIMITS = {"at_most": "at most", "at_least": "at least", "predicted": "predicted"}


@dataclass
class Options:
    output: str = option("gpu.json", "Where the figures go; beside it a log of what was said.")
    device: str = option("auto", "auto is the GPU.", choices=("auto", "cpu"))
    dry_run: bool = option(False, "Everything in small: does it all work?")
    only: str | None = option(None, "Only these items, separated by commas.")
    minutes: float = option(6, "After which what remains is skipped.", gt=0)
    patience: float = option(120, "Seconds after which an item has failed.", gt=0)
    checks_at_once: int = option(4, "How many checks run at the same time.", ge=1)
    commit: str | None = option(None, "Of the code; if not given, git is asked.")
    data: DataOptions = field(default_factory=DataOptions)


@dataclass(frozen=True)
class Item:
    """One check or measurement: a function of the bench that yields figures."""

    name: str
    function: Any
    check: bool = False
    gpu: bool = False  # a CPU cannot


def all_items() -> list[Item]:
    """In order of importance."""
    import gpu_checks as checks
    import gpu_times as times

    tf32, bf16 = "float32_matmul_precision=high", "trainer.precision=bf16-mixed"
    eager = "cuda_graphs=false"
    check = partial(Item, check=True)
    return [
        check("device", checks.device),
        check("resume", checks.resume),
        check("rounding", checks.rounding),
        check("operators", checks.operators),
        check("one_step", checks.one_step),
        check("many_steps", checks.many_steps),
        check("repeat", checks.repeat),
        check("repeat_deterministic", partial(checks.repeat, words=["trainer.deterministic=true"])),
        check("graphs", partial(checks.alike, words=[eager]), gpu=True),
        check("together", checks.together),
        check("agreement", checks.agreement),
        check("bf16_mixed", partial(checks.mixed, precision="bf16-mixed")),
        check("16_mixed", partial(checks.mixed, precision="16-mixed"), gpu=True),
        check("rounding_tf32", partial(checks.rounding, words=[tf32], tf32=True), gpu=True),
        Item("step_cnn_bn", partial(times.step, model="cnn_bn")),
        Item("step_mlp", partial(times.step, model="mlp")),
        Item("step_cnn", partial(times.step, model="cnn")),
        Item("step_cnn_bn_eager", partial(times.step, model="cnn_bn", words=[eager]), gpu=True),
        Item("step_mlp_eager", partial(times.step, model="mlp", words=[eager]), gpu=True),
        Item("together_cnn_bn", partial(times.together, model="cnn_bn")),
        Item("together_mlp", partial(times.together, model="mlp")),
        Item("augmentation", times.augmentation),
        Item("run_cnn_bn", partial(times.whole, model="cnn_bn")),
        Item("run_mlp", partial(times.whole, model="mlp")),
        Item("bare_cnn_bn", partial(times.bare, model="cnn_bn")),
        Item("bare_mlp", partial(times.bare, model="mlp")),
        Item("sweep", partial(times.sweep, processes=[1, 8])),
        Item("seeds", times.seeds),
        Item("step_bf16", partial(times.variant, words=[bf16])),
        Item("step_tf32", partial(times.variant, words=[tf32]), gpu=True),
        Item("sweep_more", partial(times.sweep, processes=[4, 2])),
        Item("step_compiled", partial(times.variant, words=["compile=true"])),
        Item("study", times.study),
    ]


class Book:
    """What has become of every item, in a file that is written anew with each change."""

    def __init__(
        self, path: Path, head: dict[str, Any], items: list[Item], predicted: dict[Any, float]
    ) -> None:
        self.path, self.head, self.predicted, self.lock = path, head, predicted, Lock()
        self.entries: dict[str, dict[str, Any]] = {
            item.name: {"state": "not begun", "figures": {}} for item in items
        }
        self.write()

    def write(self) -> None:
        write_atomically(self.path, json.dumps({**self.head, "items": self.entries}, indent=1))

    def note(self, name: str, **news: Any) -> None:
        with self.lock:
            self.entries[name] |= news
            self.write()

    def add(self, name: str, figure: Any) -> None:
        with self.lock:
            row = {key: value for key, value in figure._asdict().items() if key != "name"}
            row |= {"right": figure.right, "predicted": self.predicted.get((name, figure.name))}
            self.entries[name]["figures"][figure.name] = row
            self.write()


@dataclass
class Overseer:
    """Runs items, each in a process that can be ended."""

    bench: "Bench"
    book: Book
    log: Path
    deadline: float
    patience: float
    method: str = "forkserver"

    def perform(self, item: Item) -> None:
        """An item from its start to its entry in the book, whatever happens to it."""
        start = time.monotonic()
        if item.gpu and self.bench.device == "cpu":
            self.book.note(item.name, state="needs a GPU")
        elif start >= self.deadline:
            self.book.note(item.name, state="skipped", error="no time was left")
        else:
            self.book.note(item.name, state="running")
            try:
                news = self.oversee(item, min(start + self.patience, self.deadline))
            except Exception as error:  # the machine refuses a process, a file, ...
                news = {"state": "failed", "error": f"{type(error).__name__}: {error}"}
            self.book.note(item.name, **news, seconds=round(time.monotonic() - start, 1))
        entry = self.book.entries[item.name]
        print(item.name, entry["state"], entry.get("error", ""), file=sys.stderr, flush=True)

    def oversee(self, item: Item, until: float) -> dict[str, Any]:
        """Note the figures of an item as they come; what else there is to note at its end."""
        from gpu_bench import Failure, attend

        context = get_context(self.method)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=attend, args=(item.function, self.bench, sender, self.log))
        process.start()
        sender.close()
        try:
            while time.monotonic() < min(until, self.deadline):
                if not receiver.poll(0.2):
                    continue
                match receiver.recv():
                    case None:
                        return self.judge(item)
                    case Failure(error, traceback):
                        return {"state": "failed", "error": error, "traceback": traceback}
                    case figure:
                        self.book.add(item.name, figure)
            return {"state": "failed", "error": "out of time"}
        except EOFError:
            process.join(10)
            return {"state": "failed", "error": f"ended with exit code {process.exitcode}"}
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()
            process.join(10)  # not for ever: what hangs in a driver cannot be killed

    def judge(self, item: Item) -> dict[str, Any]:
        figures = self.book.entries[item.name]["figures"]
        wrong = [name for name, row in figures.items() if not row["right"]]
        if wrong:
            return {"state": "failed", "error": f"beyond the limit: {', '.join(wrong)}"}
        return {"state": "passed" if item.check else "measured"}


def describe(gpu: bool, commit: str | None) -> dict[str, Any]:
    """GPU, driver, versions, commit; what cannot be had is told, and is no reason to stop."""
    import torch

    from fmnist_pl.training import environment

    def driver() -> str:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()

    def card() -> dict[str, Any]:
        found = torch.cuda.get_device_properties(0)
        return {
            "name": found.name,
            "memory_gib": round(found.total_memory / 2**30, 1),
            "multiprocessors": found.multi_processor_count,
            "cudnn": torch.backends.cudnn.version(),
        }

    def versions() -> dict[str, Any]:
        described = environment.describe_environment(torch.device("cpu"), 1, {})["versions"]
        return {**described, "torch": torch.__version__, "cuda": torch.version.cuda}

    asked = {
        "commit": lambda: commit or environment.git_commit(),
        "versions": versions,
        "cores": lambda: len(os.sched_getaffinity(0)),
        "load": lambda: round(os.getloadavg()[0], 1),  # of the minute before
    }
    if gpu:
        asked = {"gpu": card, "driver": driver, **asked}
    told = {}
    for name, ask in asked.items():
        try:
            told[name] = ask()
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
    return told


def show(book: Book) -> None:
    """The table."""
    for name, value in book.head["machine"].items():
        print(f"{name:12} {value}")
    print(f"\n{'item':22}{'state or figure':26}{'value':>12} {'':10} {'should be':>22}{'s':>7}")
    for name, entry in book.entries.items():
        said = f"{entry['state']} {entry.get('error', '')}".partition("\n")[0].strip()
        print(f"{name:22}{said[:72]:72}{entry.get('seconds', ''):>6}")
        for figure, row in entry["figures"].items():
            limits = ", ".join(
                f"{words} {row[key]:.4g}"
                for key, words in LIMITS.items()
                if row.get(key) is not None
            )
            mark = "" if row["right"] else "WRONG"
            print(f"{mark:22}{figure:26}{row['value']:12.4g} {row['unit']:10} {limits:>22}")


def work(options: Options) -> int:
    """Check, measure, print; the exit code is 1 if anything failed or was skipped."""
    deadline = time.monotonic() + 60 * options.minutes
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, *filter(None, others)])
    get_context("forkserver").set_forkserver_preload(PRELOAD)
    import torch
    from gpu_bench import Bench

    gpu = options.device == "auto"
    if gpu and not torch.cuda.is_available():
        raise UserError("there is no GPU; device=cpu dry_run=true tries everything without one.")
    items = all_items()
    if options.only:
        chosen, names = options.only.split(","), [item.name for item in items]
        for name in chosen:
            if name not in names:
                raise UserError(f"only={options.only}: {name} is not one of {', '.join(names)}.")
        items = [item for item in items if item.name in chosen]
    words = [] if gpu else ["trainer.accelerator=cpu"]
    if options.data.root:
        words.append(f"data.root='{Path(options.data.root).absolute()}'")
    head = {"machine": describe(gpu, options.commit), "options": asdict(options)}
    book = Book(Path(options.output), head, items, PREDICTED if gpu and not options.dry_run else {})
    log = Path(options.output).with_suffix(".log")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench("cuda" if gpu else "cpu", options.dry_run, Path(folder), tuple(words))
        overseer = Overseer(bench, book, log.absolute(), deadline, options.patience)

        def stop(*_: Any) -> None:
            overseer.deadline = 0.0  # and the table is printed

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        first = items[0]
        overseer.perform(first)
        failed = book.entries[first.name]["state"] == "failed"
        if first.name == "device" and failed and time.monotonic() < overseer.deadline:
            overseer.method = "spawn"  # slower: nothing is imported before the process is there
            book.head["machine"]["forked"] = book.entries["device"].pop("error")
            overseer.perform(first)
        with ThreadPoolExecutor(options.checks_at_once) as pool:
            list(pool.map(overseer.perform, [item for item in items[1:] if item.check]))
        for item in items[1:]:
            if not item.check:
                overseer.perform(item)
    show(book)
    states = {entry["state"] for entry in book.entries.values()}
    return int(not states <= {"passed", "measured", "needs a GPU"})


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
