"""Which weights of a run one tests: those of the last epoch, of the best, or an average.

Batch normalisation evaluates with running averages, which lag behind weights that still move. How
much of the last epoch's luck that is shows when they are estimated anew, for the same weights.
"""

from itertools import chain, islice
from pathlib import Path

import torch
from torch import nn

from fmnist_pl.callbacks import Record
from fmnist_pl.datamodule import EvalBatches, FashionMNIST
from fmnist_pl.inference import load_classifier
from fmnist_pl.module import Classifier

FRESH_IMAGES = 10_000  # from which the averages of batch normalisation are estimated anew


def acc_by_weights(
    classifier: Classifier,
    tested: str,
    test_acc: float,
    record: Record,
    datamodule: FashionMNIST,
) -> dict[str, float]:
    """Test accuracy of the weights that one run offers.

    Args:
        classifier: of the run.
        tested: which of its weights have been tested, `last` or `best`.
        test_acc: and with what accuracy.
        record: of the run.
        datamodule: of the run.

    Returns:
        `last` and `best` (by validation accuracy) epoch; `averaged`: the mean of the weights after
        each epoch of the second half, its batch-norm averages estimated anew (Izmailov et al.,
        "Averaging Weights Leads to Wider Optima and Better Generalization", arXiv:1803.05407);
        and, for a net with batch norm, `last_fresh_bn`: the last epoch's, likewise anew.
    """

    def load(path: Path) -> nn.Module:
        return load_classifier(path).net.to(datamodule.splits["test"][0].device)

    test = EvalBatches(*datamodule.splits["test"])
    last_is_best = record.best_row is record.rows[-1]
    accuracies = {
        name: test_acc if last_is_best or name == tested else accuracy(load(path), test)
        for name, path in (("last", record.last), ("best", record.best))
    }
    if classifier.options.batch_norm:
        accuracies["last_fresh_bn"] = accuracy(refreshed(load(record.last), datamodule), test)
    accuracies["averaged"] = accuracy(refreshed(record.average.module, datamodule), test)
    return accuracies


@torch.no_grad()
def refreshed(net: nn.Module, datamodule: FashionMNIST) -> nn.Module:
    """The net with batch-norm averages of its own weights, over augmented training images."""
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    batches = chain.from_iterable(datamodule.train_dataloader()) if norms else ()
    net.train()
    for i, (images, _) in enumerate(
        islice(batches, -(-FRESH_IMAGES // datamodule.data.batch_size)), 1
    ):
        for norm in norms:
            norm.momentum = 1 / i  # so the running averages are plain ones
        net(images)
    return net


@torch.inference_mode()
def accuracy(net: nn.Module, batches: EvalBatches) -> float:
    """Share of the images that a net gets right in evaluation mode."""
    net.eval()
    right = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in batches)
    return right / len(batches.labels)
