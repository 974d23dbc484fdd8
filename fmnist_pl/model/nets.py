"""From a point in the space of nets, or a net from outside, to one of `features` and `head`.

Keras' defaults where they differ from PyTorch's: Glorot-uniform kernels, zero biases, and batch
normalisation with epsilon 1e-3 and running averages that keep 0.99 of their value each step.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from fmnist_pl.data.protocol import SIDE
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Model
from fmnist_pl.options.targets import TARGET, build

OURS = {"fmnist_pl.model.resnet.resnet18"}  # that `model.net` may name, from whoever it comes


class Flatten(nn.Module):
    """(B, C, H, W) to (B, H * W * C): Keras' order, and no copy of a channels_last tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Block(nn.Module):
    """3x3 convolution, batch norm if asked for, ReLU, 2x2 max-pooling.

    Whatever grows with its argument can be done after taking the maximum, on a quarter of the
    values: adding the bias, normalising, ReLU. Batch norm falls with its argument where gamma is
    negative: there the kernels are turned in sign, which normalising undoes.
    """

    def __init__(self, channels: int, filters: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01) if batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, filters, H / 2, W / 2)."""
        kernel, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        if self.norm is None:
            return F.relu(F.max_pool2d(F.conv2d(x, kernel, padding=1), 2) + bias[:, None, None])
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        sign = 1 - 2 * (norm.weight < 0).to(kernel.dtype)
        maps, bias = F.conv2d(x, kernel * sign[:, None, None, None], padding=1), bias * sign
        if self.training:
            mean, var, largest = MomentsAndMaxima.apply(maps.to(kernel.dtype))
            mean = mean + bias
            with torch.no_grad():
                norm.running_mean.lerp_(mean * sign, norm.momentum)
                norm.running_var.lerp_(var, norm.momentum)
        else:
            mean, var, largest = norm.running_mean * sign, norm.running_var, F.max_pool2d(maps, 2)
        scale = norm.weight.abs() * (var + norm.eps).rsqrt()
        shift = norm.bias + (bias - mean) * scale
        return F.relu(torch.addcmul(shift[:, None, None], largest, scale[:, None, None]))


class MomentsAndMaxima(torch.autograd.Function):
    """Mean and variance (C,) of each channel of maps (B, C, H, W), and their 2x2 maxima.

    Together, because backwards they write the gradient of the maps in one pass where
    `F.batch_norm` and `F.max_pool2d` make five. The moments are those of the whole batch, also
    where several devices have equal shares of it.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = moments(maps)
        if device_count() > 1:
            mean, mean_square = mean_over_devices(torch.stack([mean, var + mean**2]))
            var = mean_square - mean**2
        largest, places = F.max_pool2d(maps, 2, return_indices=True)
        ctx.save_for_backward(maps, mean, places)
        return mean, var, largest

    @staticmethod
    def backward(ctx: Any, d_mean: Tensor, d_var: Tensor, d_largest: Tensor) -> Tensor:
        maps, mean, places = ctx.saved_tensors
        count = maps.numel() // maps.shape[1]
        if device_count() > 1:
            d_mean, d_var = mean_over_devices(torch.stack([d_mean, d_var]))
        slope = d_var * (2 / count)
        offset = d_mean / count - mean * slope
        gradient = torch.addcmul(offset[:, None, None], maps, slope[:, None, None])
        flat, flat_places, flat_largest = (
            tensor.permute(0, 2, 3, 1).flatten(1, 2) for tensor in (gradient, places, d_largest)
        )  # (B, H * W, C)
        add_at(flat, flat_places, flat_largest)
        return gradient


def add_at(flat: Tensor, places: Tensor, values: Tensor) -> None:
    """Add to maps (B, H * W, C), in place, values (B, n, C) at their places (B, n, C)."""
    if not torch.are_deterministic_algorithms_enabled():
        flat.scatter_add_(1, places, values)
        return
    # CUDA's is deterministic in one dimension only.
    starts = torch.arange(len(flat), device=flat.device)[:, None, None] * flat[0].numel()
    channels = torch.arange(flat.shape[2], device=flat.device)
    index = starts + places * len(channels) + channels
    line = flat.flatten().scatter_add_(0, index.flatten(), values.flatten())
    flat.copy_(line.view_as(flat))  # a view of it only where the maps are channels_last


def moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of each channel of maps (B, C, H, W)."""
    try:
        mean, var = torch.batch_norm_update_stats(maps, None, None, 0.0)
    except NotImplementedError:  # Apple's MPS has no kernel of it
        var, mean = torch.var_mean(maps, (0, 2, 3), correction=0)
    return mean, var


def device_count() -> int:
    """How many processes train this net together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def mean_over_devices(values: Tensor) -> Tensor:
    """The mean, element by element, of what each device gives, in place."""
    distributed.all_reduce(values)
    return values.div_(device_count())


class Net(nn.Sequential):
    """Images (B, 1, 28, 28), float in [0, 1], to logits (B, C) through embeddings (B, D)."""

    features: nn.Module  # gives the embedding, the input of the last dense layer
    head: nn.Module


def build_net(model: Model, num_classes: int) -> Net:
    """The net of a configuration.

    Weights are drawn from torch's global generator and laid out channels_last.

    Raises:
        UserError: as of `outside_net`.
    """
    net = outside_net(model.net, num_classes) if model.net else study_net(model, num_classes)
    return net.to(memory_format=torch.channels_last)


def outside_net(spec: Mapping[str, Any], num_classes: int) -> Net:
    """What `model.net` makes; it is told `num_classes` if it takes that.

    Raises:
        UserError: it cannot be made, or is no `features` and `head` for such images and classes.
    """
    module = build(spec, "model.net", num_classes=num_classes)
    try:
        net = Net(OrderedDict(features=module.features, head=module.head))
        images = torch.zeros(2, 1, SIDE, SIDE)
        with torch.no_grad():
            embeddings = copy.deepcopy(net.features).eval()(images)
            logits = copy.deepcopy(net.head).eval()(embeddings)
        shapes = embeddings.ndim, tuple(logits.shape)
    except Exception as error:  # whatever a module of somebody's raises
        raise UserError(
            f"model.net: {spec[TARGET]} makes no module of features and head that takes images "
            f"(B, 1, 28, 28): {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        ) from None
    if shapes != (2, (2, num_classes)):
        raise UserError(
            f"model.net: {spec[TARGET]}: its features must give embeddings (B, D), and its head of "
            f"those logits (B, {num_classes}); they give {tuple(embeddings.shape)} and {shapes[1]} "
            "for B = 2."
        )
    return net


def study_net(model: Model, num_classes: int) -> Net:
    """Convolution blocks, then dense layers, then the head."""
    layers: list[nn.Module] = []
    channels, size = 1, SIDE
    for filters in model.channels:
        layers.append(Block(channels, filters, model.batch_norm))
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
    return net


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
