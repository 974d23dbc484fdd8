"""What `gpu.py` checks: functions of the bench that yield figures, each with its limit."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from gpu_bench import Bench, Figure, Figures, Keep, command, flat, relative, train, worst
from input_path import configuration
from torch import Tensor

from fmnist_pl.data import augment
from fmnist_pl.data.datamodule import CHUNK_SIZE
from fmnist_pl.files import LAST, PREDICTIONS, RESULT
from fmnist_pl.model.inference import evaluate, load_classifier, load_split, predict
from fmnist_pl.model.nets import MomentsAndMaxima, penalty
from fmnist_pl.training.fit import build_classifier
from fmnist_pl.training.folder import run
from fmnist_pl.training.turns import side_by_side

STEPS = 96  # three chunks
FLOAT32 = 1e-5  # relative error: float32 stays some tenfold below it, TF32 some tenfold above


def device(bench: Bench) -> Figures:
    """Whether an item's process can use it at all."""
    total = torch.arange(1000, device=bench.device).sum()
    yield Figure("0 + 1 + ... + 999", total.item(), "", 499_500, 499_500)


def operators(bench: Bench) -> Figures:
    """What one training step is made of, forward and backward."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def maps(*shape: int) -> Tensor:
        return (normal(*shape) + 0.5).to(memory_format=torch.channels_last)

    images = torch.rand(CHUNK_SIZE, 1, 28, 28, generator=generator)
    for name, kind in augment.Op.known.items():
        drawn = kind().draw(len(images), generator)
        there = kind().apply(images.to(bench.device), *(one.to(bench.device) for one in drawn))
        wide = torch.float32 if name == "cutout" else torch.float64  # cutout is exact
        torch.set_default_dtype(wide)
        drawn = tuple(one.to(wide) if one.is_floating_point() else one for one in drawn)
        here = kind().apply(images.to(wide), *drawn)
        torch.set_default_dtype(torch.float32)
        yield Figure(name, relative(there, here), "", FLOAT32)

    def convolve(inputs: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(inputs, kernel, padding=1)

    labels = torch.randint(10, (32,), generator=generator)
    for name, function, inputs in (
        ("convolution of images", convolve, (maps(32, 1, 28, 28), normal(32, 1, 3, 3))),
        ("convolution of maps", convolve, (maps(32, 32, 14, 14), maps(32, 32, 3, 3))),
        ("MomentsAndMaxima", MomentsAndMaxima.apply, (maps(32, 32, 28, 28),)),
        ("max_pool", lambda inputs: F.max_pool2d(inputs, 2), (maps(32, 32, 28, 28),)),
        ("dense", F.linear, (normal(32, 1568), normal(128, 1568), normal(128))),
        ("cross-entropy", F.cross_entropy, (normal(32, 10), labels)),
    ):
        yield Figure(name, error_of(bench, function, *inputs), "", FLOAT32)

    config = configuration("cnn_bn_dropout_l1", "model.l2=1e-4")
    pair = build_classifier(config).to(bench.device), build_classifier(config).double()
    for classifier in pair:
        penalty(classifier.net, config.model.l1, config.model.l2).backward()
        classifier.configure_optimizers().step()
    start = dict(build_classifier(config).named_parameters())
    both = [
        (one, other, start[name])
        for (name, one), other in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True)
        if one.grad is not None and other.grad is not None
    ]
    errors = [relative(one.grad, other.grad) for one, other, _ in both]
    yield Figure("penalty", worst(errors), "", FLOAT32)
    moved = [relative(one.cpu().double() - old, other - old) for one, other, old in both]
    yield Figure("fused Adam", worst(moved), "", 10 * FLOAT32)  # of a change of 1e-3


def error_of(bench: Bench, function: Callable[..., Any], *inputs: Tensor) -> float:
    """Relative error, float32 on the device, of outputs and gradients: the worst.

    Against float64 on the CPU.
    """
    results: list[list[Tensor]] = []
    for device, dtype in ((bench.device, torch.float32), ("cpu", torch.float64)):
        placed = [
            one.detach().to(device, dtype).requires_grad_()
            if one.is_floating_point()
            else one.to(device)
            for one in inputs
        ]
        outputs = function(*placed)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(one.shape, generator=generator) for one in outputs]
        total = sum((o * w.to(device, dtype)).sum() for o, w in zip(outputs, weights, strict=True))
        wanted = [one for one in placed if one.requires_grad]
        results.append([*outputs, *torch.autograd.grad(total, wanted)])
    return worst([relative(*pair) for pair in zip(*results, strict=True)])


def one_step(bench: Bench) -> Figures:
    """Gradients of the first step beside the CPU's, without dropout, whose draws differ.

    Which of two equal pixels is the larger is a matter of rounding, and moves a term of a gradient.
    """
    for model in bench.models:
        there, here = beside_cpu(bench, model, steps=1)
        yield Figure(model, relative(flat(there.gradients), flat(here.gradients)), "", 1e-3)


def many_steps(bench: Bench) -> Figures:
    """How far from the CPU's weights and running loss 96 steps lead, without dropout.

    Rounding grows from step to step: with batch norm float64 on a CPU ends 0.07 and 0.006 away.
    """
    for model in bench.models:
        there, here = beside_cpu(bench, model, bench.pick(STEPS, 33))
        yield Figure(model, relative(flat(there.weights), flat(here.weights)), "", 0.2)
        yield Figure(f"{model}, loss", abs(there.loss / here.loss - 1), "", 0.02)


def beside_cpu(bench: Bench, model: str, steps: int) -> tuple[Keep, Keep]:
    there = train(bench, model, steps, "model.dropout=0")
    return there, train(bench, model, steps, "model.dropout=0", bench.accelerator("cpu"))


def repeat(bench: Bench, words: Sequence[str] = ()) -> Figures:
    """How many tensors, weights and averages, differ between two runs; none, to the last bit."""
    for model in bench.models:
        one, other = (train(bench, model, bench.pick(STEPS, 33), *words) for _ in range(2))
        yield Figure(model, differing(one.weights, other.weights), "tensors", 0)


def alike(bench: Bench, words: Sequence[str]) -> Figures:
    """How many tensors differ between a run and the same with other options; none."""
    for model in bench.models:
        one, other = (train(bench, model, STEPS, *some) for some in ((), words))
        yield Figure(model, differing(one.weights, other.weights), "tensors", 0)


def together(bench: Bench) -> Figures:
    """How many tensors differ between seeds side by side and each of them alone; none.

    The first has ended when the others still replay; in wide layers products take working memory.
    """
    wide = ("model.hidden=[1024,1024]", "data.batch_size=256")
    for model, words in [*((model, ()) for model in bench.models), ("mlp", wide)]:
        works = [
            partial(train, bench, model, bench.pick(steps, 33), f"seed={seed}", *words)
            for seed, steps in enumerate((STEPS, 4 * STEPS, 4 * STEPS))
        ]
        pairs = zip([work() for work in works], side_by_side(works), strict=True)
        apart = sum(differing(one.weights, other.weights) for one, other in pairs)
        yield Figure(f"{model}, wide" if words else model, apart, "tensors", 0)


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> int:
    return sum(not torch.equal(value, other[name]) for name, value in one.items())


def resume(bench: Bench) -> Figures:
    """The command, killed in mid-training and given again, beside a run that was left alone."""
    words = [
        *("embeddings=none", bench.accelerator(), *bench.words),
        *("trainer.max_epochs=5", f"trainer.limit_train_batches={bench.pick(500, 40)}"),
        *("trainer.limit_val_batches=4", "trainer.limit_test_batches=4"),
    ]
    folders = bench.folder / "undisturbed", bench.folder / "killed"
    model = bench.pick("cnn_bn_dropout", "mlp")
    killed = [f"model={model}", *words, f"hydra.run.dir={folders[1]}"]
    process = subprocess.Popen([sys.executable, "-m", "fmnist_pl.train", *killed])
    while process.poll() is None and not (folders[1] / LAST).exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    if (folders[1] / RESULT).exists():
        raise RuntimeError("the run had ended before it could be killed")
    command("train", *killed)
    run(configuration(model, *words), folders[0])
    one, other = (torch.load(folder / LAST, weights_only=True) for folder in folders)
    yield Figure("weights", differing(one["state_dict"], other["state_dict"]), "tensors", 0)
    averages = [point["callbacks"]["Averaging"]["average"] for point in (one, other)]
    yield Figure("averages", differing(*averages), "tensors", 0)
    logits = [np.load(folder / PREDICTIONS)["logits"] for folder in folders]
    yield Figure("logits", int((logits[0] != logits[1]).sum()), "values", 0)


def agreement(bench: Bench) -> Figures:
    """Figures of a run beside those that `evaluate` has of its checkpoint, on the CPU."""
    folder = bench.folder / "agreement"
    config = configuration(
        bench.pick("cnn", "mlp"),
        *(bench.accelerator(), *bench.words, "trainer.enable_progress_bar=false"),
        *("trainer.max_epochs=1", f"trainer.limit_train_batches={bench.pick(1.0, 100)}"),
    )
    result = run(config, folder)
    classifier = load_classifier(folder / LAST)
    for split in ("test", "val"):
        images, labels = load_split(classifier, split, config.data.root)
        again = evaluate(classifier, predict(classifier, images), labels, split)
        apart = len(labels) * abs(again[f"{split}/acc"] - result[f"{split}/acc"])
        yield Figure(f"{split}, accuracy", apart, "images", 0.5)
        loss = abs(again[f"{split}/loss"] / result[f"{split}/loss"] - 1)
        yield Figure(f"{split}, loss", loss, "", FLOAT32)
    kept = np.load(folder / PREDICTIONS)
    acc = float((kept["logits"].argmax(1) == kept["labels"]).mean())
    for name, other in (("predictions.npz", acc), ("last", result["test/acc_by_weights"]["last"])):
        yield Figure(name, len(kept["labels"]) * abs(other - result["test/acc"]), "images", 0.5)


def rounding(bench: Bench, words: Sequence[str] = (), tf32: bool = False) -> Figures:
    """What a run's settings make of products: float32, or with TF32 visibly less."""
    errors: dict[str, float] = {}

    class Look(L.Callback):
        def on_train_start(self, *_: Any) -> None:
            maps, kernel = torch.randn(32, 32, 14, 14), torch.randn(32, 32, 3, 3)
            errors["convolution"] = error_of(bench, F.conv2d, maps, kernel)
            errors["dense"] = error_of(
                bench, F.linear, torch.randn(32, 1568), torch.randn(128, 1568)
            )

    train(bench, "cnn", 1, *words, look=Look())
    for name, error in errors.items():
        limits = {"at_least": FLOAT32} if tf32 else {"at_most": FLOAT32}
        yield Figure(name, error, **limits)


def mixed(bench: Bench, precision: str) -> Figures:
    """Training loss of 96 steps in mixed precision, beside that of float32."""
    for model in bench.models:
        full, half = (
            train(bench, model, bench.pick(STEPS, 8), f"trainer.precision={one}")
            for one in ("32-true", precision)
        )
        yield Figure(model, abs(half.loss / full.loss - 1), "", 0.05)
