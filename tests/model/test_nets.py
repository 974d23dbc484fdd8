"""The six nets against values computed by Keras itself."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from torch import Tensor, nn

from fmnist_pl.config import resolve
from fmnist_pl.data import source
from fmnist_pl.data.datamodule import split_indices, to_float
from fmnist_pl.model.nets import Block, Flatten, Net, build_net, kernels, penalty
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.schema import Model

# Keras 3.15, TensorFlow 2.21, CPU, float32: weights drawn as in `keras_weights` below, dropout 0.
REFERENCE = json.loads(Path(__file__).with_name("keras_reference.json").read_text())["models"]


def configured(name: str) -> Model:
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return resolve(compose("train", [f"model={name}"])).model


def to_keras(weight: Tensor) -> NDArray[np.float64]:
    """PyTorch's layout to Keras': (out, in, h, w) to (h, w, in, out); (out, in) to (in, out)."""
    order = (2, 3, 1, 0) if weight.dim() == 4 else tuple(reversed(range(weight.dim())))
    return weight.detach().permute(order).double().numpy()


def named_parameters(net: Net) -> list[tuple[str, nn.Parameter]]:
    """Parameters in layer order under the reference's names, as in `conv1.kernel`."""
    kinds = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.Linear: "dense"}
    counts = dict.fromkeys(kinds.values(), 0)
    named = []
    for layer in net.modules():
        if kind := kinds.get(type(layer)):
            counts[kind] += 1
            first, second = ("gamma", "beta") if kind == "bn" else ("kernel", "bias")
            named.append((f"{kind}{counts[kind]}.{first}", layer.weight))
            named.append((f"{kind}{counts[kind]}.{second}", layer.bias))
    return named


@torch.no_grad()
def set_keras_weights(net: Net) -> None:
    rng = np.random.default_rng(0)
    for name, parameter in named_parameters(net):
        shape = to_keras(parameter).shape
        draw = rng.standard_normal(shape)
        value = {"gamma": 1 + 0.1 * draw, "beta": 0.1 * draw}.get(name.split(".")[1], 0.05 * draw)
        order = (3, 2, 0, 1) if value.ndim == 4 else tuple(reversed(range(value.ndim)))
        parameter.copy_(torch.from_numpy(value.transpose(order).copy()))


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    arrays = source.load()
    train, _ = split_indices(60_000, 10_000, seed=42)
    images = to_float(torch.from_numpy(arrays.train_images[train[:96]]))
    labels = torch.from_numpy(arrays.train_labels[train[:96]]).long()
    return list(zip(images.split(32), labels.split(32), strict=True))


def keras_net(name: str) -> tuple[Net, Model]:
    model = configured(name)
    model.dropout = 0.0
    net = build_net(model, 10)
    set_keras_weights(net)
    return net, model


@pytest.mark.parametrize("name", REFERENCE)
def test_logits_and_losses_are_those_of_keras(
    name: str, batches: list[tuple[Tensor, Tensor]]
) -> None:
    reference, (net, model) = REFERENCE[name], keras_net(name)
    first_images = batches[0][0]

    expected = np.array(reference["logits_eval"])
    logits = net.eval()(first_images[: len(expected)]).detach()
    np.testing.assert_allclose(logits, expected, atol=2e-6)

    net.train()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-7, fused=True)
    for step, (images, labels) in enumerate(batches):
        cross_entropy = F.cross_entropy(net(images), labels)
        total = cross_entropy + penalty(net, model.l1, model.l2)
        # The two Adams differ by where they add epsilon, so later steps agree less.
        tolerance = 1e-5 if step == 0 else 2e-3
        figures = reference["steps"][step]
        assert cross_entropy.item() == pytest.approx(figures["cross_entropy"], abs=tolerance)
        assert total.item() == pytest.approx(figures["loss"], abs=tolerance)
        adam.zero_grad()
        total.backward()
        adam.step()

    expected = np.array(reference["logits_eval_after_3_steps"])
    logits = net.eval()(first_images[: len(expected)]).detach()
    np.testing.assert_allclose(logits, expected, atol=5e-3)


@pytest.mark.parametrize("name", REFERENCE)
def test_gradients_are_those_of_keras(name: str, batches: list[tuple[Tensor, Tensor]]) -> None:
    """In float64, the exact gradient.

    A window of max-pooling whose two largest values are almost equal sends the gradient to either,
    as rounding has it. Batch normalisation spreads its rounding over the whole map: noise of 1e-6
    before the first pooling moves what lies below it by 1e-3, in Keras as here.
    """
    reference, (net, model) = REFERENCE[name]["gradient_step1"], keras_net(name)
    net.double()
    images, labels = batches[0]
    loss = F.cross_entropy(net(images.double()), labels) + penalty(net, model.l1, model.l2)
    loss.backward()
    for parameter_name, parameter in named_parameters(net):
        assert parameter.grad is not None
        gradient = to_keras(parameter.grad)
        probe = np.random.default_rng(1).standard_normal(gradient.shape)
        expected = reference[parameter_name]
        tolerance = 1e-5
        if model.batch_norm:
            tolerance = 5e-3 if parameter_name.startswith(("conv1", "bn1")) else 3e-5
        assert list(gradient.shape) == expected["shape"]
        assert np.linalg.norm(gradient) == pytest.approx(expected["norm"], abs=tolerance)
        assert (gradient * probe).sum() == pytest.approx(expected["probe"], abs=tolerance)


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [("mlp", 10, 101_770), ("mlp", 3, 100_867), ("cnn", 10, 222_086)]
    + [(f"cnn_bn{rest}", 10, 222_214) for rest in ("", "_dropout", "_dropout_l2", "_dropout_l1")],
)
def test_parameter_counts(name: str, classes: int, count: int) -> None:
    assert sum(p.numel() for p in build_net(configured(name), classes).parameters()) == count


def test_initial_weights_are_glorot_uniform() -> None:
    layers = list(build_net(configured("cnn_bn"), 10).modules())
    conv = [layer for layer in layers if isinstance(layer, nn.Conv2d)][1]
    dense = next(layer for layer in layers if isinstance(layer, nn.Linear))
    for layer, fan_in, fan_out in ((conv, 32 * 9, 32 * 9), (dense, 7 * 7 * 32, 128)):
        limit = (6 / (fan_in + fan_out)) ** 0.5
        assert layer.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
        assert layer.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_dropout_is_where_the_protocol_has_it() -> None:
    layers = [type(layer) for layer in build_net(configured("cnn_bn_dropout"), 10).features]
    assert layers == [Block, Block, Flatten, *[nn.Linear, nn.ReLU, nn.Dropout] * 2]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_block_is_the_layers_of_the_protocol(
    batch_norm: bool, training: bool, layout: torch.memory_format
) -> None:
    """PyTorch's own layers, in the study's order: outputs, gradients, running averages."""
    torch.manual_seed(0)
    block = Block(3, 16, batch_norm).double().to(memory_format=layout)
    layers = [block.conv, nn.ReLU(), nn.MaxPool2d(2)]
    if block.norm:
        assert (block.norm.eps, block.norm.momentum) == (1e-3, 0.01)
        assert block.norm.running_var is not None
        before = block.norm.running_var.uniform_(0.5, 2).clone()
        layers.insert(1, copy.deepcopy(block.norm))
    nn.init.normal_(block.conv.bias)
    plain = nn.Sequential(*copy.deepcopy(layers))
    for module in (block.norm, plain[1]) if block.norm else ():
        assert isinstance(module, nn.BatchNorm2d)
        module.weight.data = torch.linspace(-1, 1, 16, dtype=torch.float64)  # both signs
        module.bias.data = torch.linspace(1, -2, 16, dtype=torch.float64)

    images = torch.randn(4, 3, 10, 7, dtype=torch.float64).contiguous(memory_format=layout)
    results = []
    for net in (block.train(training), plain.train(training)):
        seen = images.clone().requires_grad_()
        out = net(seen)
        (out * torch.linspace(-1, 1, out[0].numel()).view(out[0].shape)).sum().backward()
        results.append([out, seen.grad, *(parameter.grad for parameter in net.parameters())])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)
    if block.norm:
        torch.testing.assert_close(block.norm.running_mean, plain[1].running_mean)
        # Of n values a channel Keras takes the mean square, PyTorch divides by n - 1.
        n, kept = 4 * 10 * 7, 0.99 * before
        expected = kept + (plain[1].running_var - kept) * (n - 1) / n if training else before
        torch.testing.assert_close(block.norm.running_var, expected)


def test_penalty_of_known_weights() -> None:
    net = build_net(Model("tiny", channels=[], hidden=[2]), 2)
    for kernel in kernels(net):
        nn.init.constant_(kernel, -0.5)
    count = 784 * 2 + 2 * 2
    assert penalty(net, l1=0.1, l2=0).item() == pytest.approx(0.1 * count * 0.5)
    assert penalty(net, l1=0, l2=0.1).item() == pytest.approx(0.1 * count * 0.25)
    assert penalty(net, l1=0, l2=0).item() == 0


def test_any_point_of_the_space_is_a_net() -> None:
    net = build_net(Model("deep", channels=[4, 8, 16], hidden=[], batch_norm=True), 3)
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 3)
    assert net.features(torch.rand(2, 1, 28, 28)).shape == (2, 16 * 3 * 3)
