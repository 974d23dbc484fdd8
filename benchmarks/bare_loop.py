"""A plain PyTorch loop as one writes it, to hold `fmnist_pl` against: PyTorch's own layers.

Images and augmentations are those of `fmnist_pl`, tensors in memory and many images at once.

    python benchmarks/bare_loop.py CONFIGS

CONFIGS is a JSON list of runs as `options.schema.Config` has them, which are trained, validated
after every epoch and tested one after the other. It prints one JSON object: the seconds of all of
them, imports left out, and each one's test accuracy. It keeps no record, draws nothing and saves
nothing. `six_models.py` runs it so; `input_path.py` takes the seconds of single epochs.
"""

import json
import sys
import time
from collections.abc import Iterable
from itertools import chain

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

from fmnist_pl.config import resolve
from fmnist_pl.data.augment import parse_ops
from fmnist_pl.data.datamodule import Batch, FashionMNIST, derive_seed
from fmnist_pl.model.nets import penalty
from fmnist_pl.options.schema import Config, Model


def train(
    config: Config, epochs: int, splits: dict[str, Batch] | None = None
) -> tuple[float, float]:
    """Train, with validation, and test.

    Args:
        config: of the run.
        epochs: how many, whatever the configuration says.
        splits: those of the data set if they are at hand; empty ones are filled. It trains on the
            device they are on.

    Returns:
        Seconds of the epochs, each with its validation; test accuracy.
    """
    datamodule = FashionMNIST(
        config.data,
        config.classes,
        parse_ops(config.augment.ops),
        config.seed,
        config.trainer.limit_train_batches,
    )
    if splits is not None:
        datamodule.splits = splits
    datamodule.setup()
    torch.manual_seed(derive_seed(config.seed))
    device = datamodule.splits["train"][0].device
    net = build_net(config.model, len(config.classes)).to(device)
    adam = torch.optim.Adam(
        net.parameters(), config.optimizer["lr"], eps=config.optimizer["eps"], fused=True
    )
    chunks = datamodule.train_dataloader()

    start = time.perf_counter()
    for epoch in range(epochs):
        chunks.set_epoch(epoch)
        torch.manual_seed(derive_seed(config.seed, epoch, 0))  # of dropout, as `fmnist_pl` does
        net.train()
        loss_sum, right = zeros(device), zeros(device)  # running figures, as every loop keeps
        for images, labels in chain.from_iterable(chunks):
            logits = net(images)
            loss = loss_of(net, config.model, logits, labels)
            adam.zero_grad()
            loss.backward()
            adam.step()
            loss_sum += loss.detach() * len(labels)
            right += (logits.argmax(1) == labels).sum()
        evaluate(net, config.model, datamodule.val_dataloader())
    seconds = time.perf_counter() - start

    _, acc = evaluate(net, config.model, datamodule.test_dataloader())
    return seconds, acc


def build_net(model: Model, num_classes: int) -> nn.Sequential:
    """A net of the study in PyTorch's layers."""
    layers: list[nn.Module] = []
    for filters in model.channels:
        layers.append(nn.LazyConv2d(filters, 3, padding=1))
        if model.batch_norm:
            layers.append(nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    for units in model.hidden:
        layers += [nn.LazyLinear(units), nn.ReLU(), nn.Dropout(model.dropout)]
    net = nn.Sequential(*layers, nn.LazyLinear(num_classes))
    net(torch.zeros(2, 1, 28, 28))  # from here on its layers have weights
    return net


def zeros(device: torch.device) -> torch.Tensor:
    """A sum to begin with, which the loop never waits for."""
    return torch.zeros((), device=device)


def loss_of(
    net: nn.Module, model: Model, logits: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy and, where the model has one, the penalty."""
    loss = F.cross_entropy(logits, labels)
    return loss + penalty(net, model.l1, model.l2) if model.l1 or model.l2 else loss


@torch.inference_mode()
def evaluate(net: nn.Module, model: Model, batches: Iterable[Batch]) -> tuple[float, float]:
    """Loss and accuracy."""
    net.eval()
    device = next(net.parameters()).device
    loss_sum, right, count = zeros(device), zeros(device), 0
    for images, labels in batches:
        logits = net(images)
        loss_sum += loss_of(net, model, logits, labels) * len(labels)
        right += (logits.argmax(1) == labels).sum()
        count += len(labels)
    return loss_sum.item() / count, right.item() / count


def main() -> None:
    start = time.perf_counter()
    test_acc: dict[str, float] = {}
    splits: dict[str, Batch] = {}  # read once for all
    for options in json.loads(sys.argv[1]):
        config = resolve(OmegaConf.merge(Config, options))
        _, test_acc[config.name] = train(config, config.trainer.max_epochs, splits)
    print(json.dumps({"seconds": time.perf_counter() - start, "test_acc": test_acc}))


if __name__ == "__main__":
    main()
