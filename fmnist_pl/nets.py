"""From a point in the space of nets to a `torch.nn.Sequential` of `features` and `head`.

Keras' defaults where they differ from PyTorch's: Glorot-uniform kernels, zero biases, and batch
normalisation with epsilon 1e-3 and running averages that keep 0.99 of their value each step.
"""

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fmnist_pl.schema import Model

IMAGE_SIZE = 28


class Flatten(nn.Module):
    """(B, C, H, W) to (B, H * W * C): Keras' order, and no copy of a channels_last tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Net(nn.Sequential):
    """Images (B, 1, 28, 28), float in [0, 1], to logits (B, C) through embeddings (B, D)."""

    features: nn.Sequential  # gives the embedding, the input of the last dense layer
    head: nn.Linear


def build_net(model: Model, num_classes: int) -> Net:
    """The net of a configuration.

    Weights are drawn from torch's global generator and laid out channels_last.
    """
    layers: list[nn.Module] = []
    channels, size = 1, IMAGE_SIZE
    for filters in model.channels:
        layers.append(nn.Conv2d(channels, filters, kernel_size=3, padding=1))
        if model.batch_norm:
            layers.append(nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01))
        # Pooling and ReLU commute, and a pooled map is a quarter of the work.
        layers += [nn.MaxPool2d(2), nn.ReLU()]
        channels, size = filters, size // 2

    layers.append(Flatten())
    units = channels * size * size
    for hidden in model.hidden:
        layers += [nn.Linear(units, hidden), nn.ReLU()]
        if model.dropout:
            layers.append(nn.Dropout(model.dropout))
        units = hidden

    net = Net(OrderedDict(features=nn.Sequential(*layers), head=nn.Linear(units, num_classes)))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return net.to(memory_format=torch.channels_last)


def kernels(net: nn.Module) -> Iterator[Tensor]:
    """The weights, without biases, of the convolution and dense layers."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            yield layer.weight


def penalty(net: nn.Module, l1: float, l2: float) -> Tensor:
    """l1 * sum |w| + l2 * sum w^2 over all kernels: a scalar, as Keras' `regularizers` has it."""
    total = next(net.parameters()).new_zeros(())
    for kernel in kernels(net) if l1 or l2 else ():
        if l1:
            total = total + l1 * kernel.abs().sum()
        if l2:
            total = total + l2 * kernel.square().sum()
    return total
