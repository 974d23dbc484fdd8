"""Which weights of a run one tests: those of the last epoch, of the best, or an average.

Batch normalisation evaluates with running averages, which lag behind weights that still move. How
much of the last epoch's luck that is shows when they are estimated anew, for the same weights.
"""

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmnist_pl.data.datamodule import EvalBatches, FashionMNIST
from fmnist_pl.model.inference import load_classifier
from fmnist_pl.options.targets import targets_in
from fmnist_pl.training.trained import Trained

FRESH_IMAGES = 10_000  # from which the averages of batch normalisation are estimated anew


def acc_by_weights(trained: Trained) -> dict[str, float]:
    """Test accuracy of the weights that one run offers.

    Returns:
        `last` and `best` (by validation accuracy) epoch; `averaged`: the mean of the weights after
        each epoch of the second half, its batch-norm averages estimated anew (Izmailov et al.,
        "Averaging Weights Leads to Wider Optima and Better Generalization", arXiv:1803.05407);
        and, for a net with batch norm, `last_fresh_bn`: the last epoch's, likewise anew.
    """
    record, datamodule = trained.record, trained.datamodule
    images, labels = (tensor[trained.shown] for tensor in trained.test)
    right = trained.predictions.logits[trained.shown].argmax(1) == labels.numpy()

    def load(path: Path) -> nn.Module:
        return load_classifier(path, targets_in(trained.config.model.net)).net

    test = EvalBatches(images, labels)
    last_is_best = record.best_row is record.rows[-1]
    accuracies = {
        name: float(right.mean())
        if last_is_best or name == trained.config.test.checkpoint
        else accuracy(load(path), test)
        for name, path in (("last", record.last), ("best", record.best))
    }
    if any(isinstance(layer, nn.BatchNorm2d) for layer in trained.classifier.modules()):
        accuracies["last_fresh_bn"] = accuracy(refreshed(load(record.last), datamodule), test)
    averaged = trained.averaged["test"].argmax(1) == labels.numpy()
    accuracies["averaged"] = float(averaged.mean())
    return accuracies


@torch.no_grad()
def refreshed(net: nn.Module, datamodule: FashionMNIST) -> nn.Module:
    """The net with batch-norm averages of its own weights, over augmented training images.

    They are estimated where the images are; the net that comes back is on the CPU.
    """
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    loader: Iterable[Any] = datamodule.train_dataloader() if norms else ()
    batches = chain.from_iterable(loader) if datamodule.in_chunks else loader
    net.to(datamodule.splits["train"][0].device).train()
    for i, (images, _) in enumerate(
        islice(batches, -(-FRESH_IMAGES // datamodule.data.batch_size)), 1
    ):
        for norm in norms:
            norm.momentum = 1 / i  # so the running averages are plain ones
        net(images)
    return net.cpu()


@torch.inference_mode()
def accuracy(net: nn.Module, batches: EvalBatches) -> float:
    """Share of the images that a net gets right in evaluation mode."""
    net.eval()
    right = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in batches)
    return right / len(batches.labels)
