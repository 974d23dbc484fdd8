"""What each deviation of `fmnist_pl` from `examples/textbook.py` gives, in seconds an epoch.

    python benchmarks/textbook.py
    python benchmarks/textbook.py models=mlp batches=500 repeats=3

An epoch is training with the standard augmentation, and validation. The deviations are explained
in docs/lightning.md:

data     tensors on the device, augmented many images at once, in place of a DataLoader
metrics  computed and logged once an epoch, in place of every step
block    the maximum before bias, batch norm and ReLU, own backward pass, channels_last
chunks   32 batches a turn of Lightning's loop, optimized by hand
record   own checkpoints and table, in place of ModelCheckpoint

Each is laid over the textbook alone, which says what it is worth to someone who changes nothing
else; and together with those above it, which says what it is worth once they are there: next to the
textbook's data path everything else is small. The last row, `fmnist_pl` as users run it, shows
whether the five are all. All are interleaved in one run, so that a busy machine hurts all alike,
each in a process of its own. The ratios are what counts. DataLoaders have the number of workers
that is best for the textbook.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from input_path import (
    MODELS,
    best_workers,
    configuration,
    describe_machine,
    measure_apart,
    names_of,
    ours,
    print_with_peak,
    ratios,
    threads_of,
)

from fmnist_pl.options.command import command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config

DEVIATIONS = ("data", "metrics", "block", "chunks", "record")
TEXTBOOK, OURS, WORKERS = "textbook", "fmnist_pl", "workers"
BATCHES, VAL_BATCHES = 1563, 40  # of a whole epoch
# Of each deviation the name of it with all above it, by which it is measured.
TOGETHER = {name: "+".join(DEVIATIONS[: i + 1]) for i, name in enumerate(DEVIATIONS)}
WAYS = tuple(dict.fromkeys((TEXTBOOK, *DEVIATIONS, *TOGETHER.values(), OURS)))


@dataclass
class Options:
    models: str = option("mlp,cnn_bn", "Which models, separated by commas.")
    repeats: int = option(5, "Epochs of each.", ge=1)
    batches: int = option(BATCHES, "Of an epoch; of its validation as large a share.", ge=1)
    threads: int = option(1, "CPU threads of each.", ge=1)
    way: str | None = option(None, "Only this, once, as in data+metrics: seconds and peak MB.")
    workers: int = option(0, "Of the DataLoaders, with way.", ge=0)


def shortened(model: str, batches: int, threads: int) -> Config:
    """The configuration of a model with a share of an epoch."""
    validation = max(1, round(VAL_BATCHES * batches / BATCHES))
    return configuration(
        model,
        f"trainer.limit_train_batches={batches}",
        f"trainer.limit_val_batches={validation}",
        *threads_of(threads),
    )


def measure(config: Config, way: str, workers: int) -> float:
    if way == OURS:
        return ours(config)
    if way == WORKERS:
        return float(best_workers(config))
    from deviations import epoch

    return epoch(config, workers, () if way == TEXTBOOK else way.split("+"))


def work(options: Options) -> None:
    """Measure and print."""
    models = names_of("models", options.models, MODELS)
    if options.batches > BATCHES:
        raise UserError(f"batches={options.batches}: an epoch has {BATCHES}.")
    if options.way:
        if options.way not in (*WAYS, WORKERS):
            raise UserError(f"way={options.way}: must be one of {', '.join((*WAYS, WORKERS))}.")
        config = shortened(models[0], options.batches, options.threads)
        print_with_peak(measure(config, options.way, options.workers))
        return

    def apart(model: str, way: str, workers: int = 0) -> float:
        once = f"models={model}", f"way={way}", f"workers={workers}", f"batches={options.batches}"
        return measure_apart(__file__, *once, f"threads={options.threads}")[0]

    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    workers = {model: int(apart(model, WORKERS)) for model in models}
    for repeat in range(options.repeats):
        for model in models:
            for way in WAYS:
                seconds[model, way].append(apart(model, way, workers[model]))
        print(f"repeat {repeat + 1} of {options.repeats} done", file=sys.stderr, flush=True)

    print(describe_machine())
    print(
        f"seconds an epoch of {options.batches} batches, threads: {options.threads}, "
        f"repeats: {options.repeats}"
    )
    for model in models:
        show(model, workers[model], {way: seconds[model, way] for way in WAYS})


def show(model: str, workers: int, seconds: dict[str, list[float]]) -> None:
    """A row a deviation: alone; and with those above it, also in epochs of the row above."""
    reference = above = seconds[TEXTBOOK]
    title = f"{model}, {workers} workers"
    print(
        f"\n{title:18} {'alone':>7}  {'in textbooks':22} {'with all above':>14}  "
        f"{'in textbooks':22} in the row above"
    )
    print(f"{TEXTBOOK:18} {median(reference):7.2f}  {'':22} {median(reference):14.2f}")
    for name in (*DEVIATIONS, OURS):
        together = seconds[TOGETHER.get(name, name)]
        alone = f"{'':31}"
        if name in DEVIATIONS:
            alone = f"{median(seconds[name]):7.2f}  {ratios(seconds[name], reference):22}"
        print(
            f"{name:18} {alone} {median(together):14.2f}  {ratios(together, reference):22} "
            f"{ratios(together, above)}"
        )
        above = together


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
