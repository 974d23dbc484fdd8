"""Transforms of torchvision against torchvision itself."""

from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from fmnist_pl.data.augment import Op, apply, asdict_op, augment, draw, parse_ops, spell_out, take
from fmnist_pl.data.datamodule import TrainChunks
from fmnist_pl.options.messages import UserError

IMAGES = torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(0))
CASES = {
    "RandomErasing": ({"p": 0.5, "inplace": True}, v2.RandomErasing(p=0.5)),
    "RandomRotation": ({"degrees": [-20, 20]}, v2.RandomRotation([-20, 20])),
    "GaussianNoise": ({"sigma": 0.2}, v2.GaussianNoise(sigma=0.2)),
    "ElasticTransform": ({}, v2.ElasticTransform()),
}


def op_of(name: str, **arguments: Any) -> Op:
    [op] = parse_ops([{"torchvision": {"name": name, **arguments}}])
    return op


@pytest.mark.parametrize("name", CASES)
def test_an_image_is_torchvisions_under_its_key(name: str) -> None:
    arguments, transform = CASES[name]
    op, given, state = op_of(name, **arguments), IMAGES.clone(), torch.get_rng_state()
    [(keys,)] = draws = draw([op], len(given), torch.Generator().manual_seed(1))
    results = apply(given, [op], draws)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(given, IMAGES)
    expected = []
    with torch.random.fork_rng():
        for image, key in zip(IMAGES, keys.tolist(), strict=True):
            torch.manual_seed(key)
            expected.append(transform(image))
    assert torch.equal(results, torch.stack(expected))
    assert not torch.equal(results, IMAGES)
    alone = [apply(given[i : i + 1], [op], take(draws, slice(i, i + 1))) for i in range(7)]
    assert torch.equal(results, torch.cat(alone))


def test_keys_are_those_of_the_image_not_of_the_chunk() -> None:
    images = (IMAGES[:, 0] * 255).byte()
    op, labels = op_of("RandomErasing", p=1.0), torch.arange(7)

    def epoch(chunk_size: int, number: int = 0) -> torch.Tensor:
        chunks = TrainChunks(images, labels, 2, [op], seed=3, chunk_size=chunk_size)
        chunks.set_epoch(number)
        return torch.cat([batch for chunk in chunks for batch, _ in chunk])

    assert torch.equal(epoch(2), epoch(1024))
    assert not torch.equal(epoch(2), epoch(2, number=1))


def test_its_configuration_is_as_it_was_given() -> None:
    given = [{"torchvision": {"name": "RandomRotation", "degrees": 5, "center": [3.0, 3.0]}}]
    assert [asdict_op(op) for op in parse_ops(given)] == spell_out(given) == given


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "name=None: torchvision.transforms.v2 has no such transform"),
        ({"name": "Transform"}, "no such transform"),
        ({"name": "functional"}, "no such transform"),
        ({"name": ["RandomErasing"]}, "no such transform"),
        ({"name": "RandomErase"}, "no such transform. The nearest: RandomErasing"),
        ({"name": "RandomErasing", "prob": 1}, "'prob'; its arguments: p, scale, ratio, value, in"),
        ({"name": "RandomRotation"}, "argument: 'degrees'; its arguments: degrees, interpolation"),
        ({"name": "RandomErasing", "p": 5}, "RandomErasing: with these arguments .* interval"),
        ({"name": "CutMix"}, "CutMix: with these arguments it does not take an image"),
        ({"name": "ToPILImage"}, "ToPILImage: with these arguments"),
        ({"name": "Grayscale", "num_output_channels": 3}, "changes the size or the type"),
        ({"name": "CenterCrop", "size": 20}, "changes the size or the type of images"),
        ({"name": "RandomZoomOut"}, "changes the size or the type of images"),
    ],
)
def test_what_does_not_make_an_image_of_an_image_is_refused(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"^augment.ops: torchvision: .*{message}"):
        parse_ops([{"torchvision": parameters}])


def test_it_mixes_with_other_operations() -> None:
    ops = parse_ops([{"flip_horizontal": {"p": 1.0}}, {"torchvision": {"name": "Identity"}}])
    assert torch.equal(augment(IMAGES, ops, torch.Generator()), IMAGES.flip(3))
