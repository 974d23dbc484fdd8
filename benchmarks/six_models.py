"""Seconds of the sweep of the six models, three ways to it.

    python benchmarks/six_models.py keras=/path/to/its/environment/bin/python
    python benchmarks/six_models.py limit=20 repeats=1      # does everything work?

(a) `fmnist_pl` as users run it, `python -m fmnist_pl.train -m experiment=six_models seed=0`, with
all it logs, saves and draws of a run and with the report of the sweep; only the embeddings, which
are extra work, are left out. (b) A bare PyTorch loop over the same tensors, operations and nets,
which leaves nothing behind (`bare_loop.py`). (c) Keras as the study used it, and (d) Keras tuned
for speed, both logging to TensorBoard (`keras_study.py`), in an environment of their own:
`python -m venv keras && keras/bin/pip install tensorflow-cpu tensorboard scipy`. All but (a) train
one model after the other on all cores.

All train on the CPU for the same number of epochs, validate after each and test at the end; their
test accuracies are printed. They are interleaved in one run, so that a busy machine hurts all
alike. What counts is the wall time of a whole process. Beside it stands that without its start-up,
which weighs the more the fewer the epochs: imports and, for (a), the sweep's set-up and report.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from input_path import configuration, describe_machine, ratios

from fmnist_pl.files import CONFIG, RESULT
from fmnist_pl.options.command import CONF_DIR, DataOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config

EXPERIMENT = "six_models"
OURS, BARE = "fmnist_pl", "bare loop"
KERAS = {"Keras": "plain", "Keras, tuned": "tuned"}  # and the argument of `keras_study.py`


@dataclass
class Options:
    epochs: int = option(1, "Of each model.", ge=1)
    repeats: int = option(5, "Sweeps each way.", ge=1)
    keras: str | None = option(None, "Python of Keras' environment; without it no (c) and (d).")
    limit: int | None = option(None, "Training batches an epoch, to try the benchmark out.", ge=1)
    data: DataOptions = field(default_factory=DataOptions)


class Sweep(NamedTuple):
    seconds: float  # of the whole process
    net: float  # without start-up
    test_acc: dict[str, float]  # by model
    versions: dict[str, str]


def models() -> list[str]:
    """The names of the six, from the experiment's own file."""
    from omegaconf import OmegaConf

    experiment = OmegaConf.load(Path(CONF_DIR, "experiment", f"{EXPERIMENT}.yaml"))
    names: str = experiment.hydra.sweeper.params.model
    return names.split(",")


def run(arguments: list[str]) -> tuple[float, str]:
    """Seconds and standard output of a process that ends well."""
    start = time.perf_counter()
    try:
        done = subprocess.run(arguments, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{arguments[0]} cannot be started: {error.strerror}.") from None
    seconds = time.perf_counter() - start
    if done.returncode:
        raise UserError(f"{' '.join(arguments)[:200]}... failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout


def ours(overrides: list[str]) -> Sweep:
    with TemporaryDirectory() as folder:
        sweep = ["-m", f"experiment={EXPERIMENT}", f"hydra.sweep.dir={folder}/sweep"]
        seconds, _ = run([sys.executable, "-m", "fmnist_pl.train", *sweep, *overrides])
        results = sorted(Path(folder).glob(f"sweep/*/{RESULT}"))
        # A run's first and last file: the first run begins, the last one ends.
        began = min(path.with_name(CONFIG).stat().st_mtime for path in results)
        ended = max(path.stat().st_mtime for path in results)
        contents = [json.loads(path.read_text()) for path in results]
    return Sweep(seconds, ended - began, {one["name"]: one["test/acc"] for one in contents}, {})


def peer(python: str, script: str, arguments: list[str], configs: list[Config]) -> Sweep:
    """The sweep of another script of this folder."""
    path = str(Path(__file__).with_name(script))
    seconds, output = run([python, path, *arguments, json.dumps(list(map(asdict, configs)))])
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return Sweep(seconds, told["seconds"], told["test_acc"], told.get("versions", {}))


def work(options: Options) -> None:
    """Measure and print."""
    overrides = [
        "seed=0",
        "embeddings=none",
        "trainer.accelerator=cpu",
        f"trainer.max_epochs={options.epochs}",
    ]
    if options.limit:
        overrides.append(f"trainer.limit_train_batches={options.limit}")
    if options.data.root:
        overrides.append(f"data.root='{Path(options.data.root).absolute()}'")
    configs = [configuration(model, *overrides) for model in models()]

    ways = (OURS, BARE, *(KERAS if options.keras else ()))
    sweeps: dict[str, list[Sweep]] = {way: [] for way in ways}
    with TemporaryDirectory() as folder:
        if options.keras:
            run([options.keras, "-c", "import tensorflow, tensorboard, scipy"])
            root = [f"data.root={options.data.root}"] if options.data.root else []
            run([sys.executable, "-m", "fmnist_pl.dataset", f"copy_to={folder}/data", *root])
        for repeat in range(options.repeats):
            for way, done in sweeps.items():
                if way == OURS:
                    sweep = ours(overrides)
                elif way == BARE:
                    sweep = peer(sys.executable, "bare_loop.py", [], configs)
                else:
                    arguments = [
                        KERAS[way],
                        f"{folder}/data",
                        f"{folder}/logs/{repeat}-{KERAS[way]}",
                    ]
                    sweep = peer(str(options.keras), "keras_study.py", arguments, configs)
                done.append(sweep)
                note = f"repeat {repeat + 1} of {options.repeats}: {way} {sweep.seconds:.1f} s"
                print(note, file=sys.stderr, flush=True)
    show(options, sweeps)


def show(options: Options, sweeps: dict[str, list[Sweep]]) -> None:
    """Machine, seconds, ratios and accuracies."""
    described = describe_machine()
    for done in sweeps.values():
        described |= done[-1].versions
    print(described)
    limit = f" of {options.limit} training batches" if options.limit else ""
    print(f"six models, epochs: {options.epochs}{limit}, repeats: {options.repeats}")
    if not options.keras:
        print("Keras is left out: keras=... names the Python of its environment.")

    print(f"\n{'seconds':24}{'min':>8}{'median':>8}{'max':>8}   {'in sweeps of fmnist_pl':24}")
    for label, figure in (("", "seconds"), (", no start-up", "net")):
        seconds = {way: [getattr(s, figure) for s in done] for way, done in sweeps.items()}
        for way, values in seconds.items():
            print(
                f"{way + label:24}{min(values):8.1f}{median(values):8.1f}{max(values):8.1f}   "
                f"{ratios(values, seconds[OURS])}"
            )

    print(f"\n{'test accuracy':24}" + "".join(f"{way:>14}" for way in sweeps))
    for model in models():
        last = [done[-1].test_acc[model] for done in sweeps.values()]
        print(f"{model:24}" + "".join(f"{acc:14.4f}" for acc in last))


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
