"""The split against the study's facts, the order of batches against hand-made ones."""

from itertools import chain

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

from fmnist_pl.data import source
from fmnist_pl.data.augment import Draws, FlipHorizontal, Noise, Rotate, apply, draw
from fmnist_pl.data.datamodule import (
    EvalBatches,
    FashionMNIST,
    TrainChunks,
    derive_seed,
    regroup,
    split_indices,
)
from fmnist_pl.options.schema import Data

THREE = {"Top": [0, 2, 3, 4, 6], "Bottom": [1, 5, 7, 9], "Accessories": [8]}
OPS = [Rotate(5), FlipHorizontal(0.5), Noise(0.1)]


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of which each is recognised by its label: all its pixels have that value."""
    labels = torch.arange(count)
    return labels.to(torch.uint8)[:, None, None].expand(count, 28, 28), labels


def test_split_is_scikit_learns_and_the_studys() -> None:
    labels = source.load().train_labels
    train, val = split_indices(60_000, 10_000, seed=42)
    expected = train_test_split(np.arange(60_000), test_size=1 / 6, random_state=42)
    np.testing.assert_array_equal(train, expected[0])
    np.testing.assert_array_equal(val, expected[1])
    assert [*labels[train[:3]], *labels[train[-3:]]] == [5, 0, 0, 6, 6, 1]


def test_datamodule_splits_and_regroups() -> None:
    datamodule = FashionMNIST(Data(), THREE)
    datamodule.setup()
    arrays = source.load()
    sizes = {name: len(labels) for name, (_, labels) in datamodule.splits.items()}
    assert sizes == {"train": 50_000, "val": 10_000, "test": 10_000}
    images, labels = datamodule.splits["test"]
    np.testing.assert_array_equal(images, arrays.test_images)
    assert arrays.test_labels[0] == 9
    assert labels[0] == 1  # an ankle boot is a Bottom
    np.testing.assert_array_equal(np.bincount(labels), [5000, 4000, 1000])


def test_regroup_by_hand() -> None:
    assert regroup(np.arange(10), THREE).tolist() == [0, 1, 0, 0, 0, 1, 0, 1, 2, 1]


def test_evaluation_batches_are_the_images_scaled_and_always_the_same() -> None:
    images = torch.randint(0, 256, (600, 28, 28), dtype=torch.uint8)
    batches = EvalBatches(images, torch.arange(600))
    first, second = list(batches), list(batches)
    assert len(first) == len(batches) == 3
    for (x, y), (x_again, y_again) in zip(first, second, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)
    seen = torch.cat([x for x, _ in first])
    np.testing.assert_array_equal(seen[:, 0].numpy(), images.numpy() / np.float32(255))


def test_an_epoch_is_one_permutation_with_the_short_batch_kept() -> None:
    chunks = TrainChunks(*pictures(100), batch_size=32, chunk_size=64)
    labels = [y for _, y in chain.from_iterable(chunks)]
    assert [len(y) for y in labels] == [32, 32, 32, 4]
    assert [len(chunk) for chunk in chunks] == [2, 2]
    assert (len(chunks), chunks.num_batches) == (2, 4)
    assert sorted(torch.cat(labels).tolist()) == list(range(100))
    for x, y in chain.from_iterable(chunks):
        assert torch.equal((x[:, 0, 3, 5] * 255).round().long(), y)


@pytest.mark.parametrize(("limit", "sizes"), [(2, [32, 32]), (0.5, [32, 32]), (9, [32] * 3 + [4])])
def test_an_epoch_can_be_cut_short(limit: int | float, sizes: list[int]) -> None:
    whole = epoch(TrainChunks(*pictures(100), 32, OPS), 0)
    short = TrainChunks(*pictures(100), 32, OPS, limit=limit, chunk_size=32)
    assert [len(y) for _, y in epoch(short, 0)] == sizes
    assert len(short) == short.num_batches == len(sizes)
    assert same(whole[: len(sizes)], epoch(short, 0))


def epoch(chunks: TrainChunks, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    chunks.set_epoch(number)
    return list(chain.from_iterable(chunks))


def same(one: list[tuple[torch.Tensor, torch.Tensor]], other: object) -> bool:
    assert isinstance(other, list)
    return all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, other, strict=True)
    )


def test_seed_and_epoch_alone_decide_order_and_augmentation() -> None:
    def chunks(seed: int, chunk_size: int = 64) -> TrainChunks:
        return TrainChunks(*pictures(100), 32, OPS, seed, chunk_size=chunk_size)

    reference = epoch(chunks(seed=7), 3)
    torch.manual_seed(999)  # what ran before does not matter
    used = chunks(seed=7)
    epoch(used, 0)
    assert same(reference, epoch(used, 3))
    assert same(reference, epoch(chunks(seed=7, chunk_size=1), 3))
    assert same(reference, epoch(chunks(seed=7, chunk_size=10_000), 3))
    assert not same(reference, epoch(chunks(seed=7), 4))
    assert not same(reference, epoch(chunks(seed=8), 3))


@pytest.mark.parametrize(
    ("seeds", "order_seed", "augment_seed"),
    [({}, 7, 7), ({"order": 1}, 1, 7), ({"augment": 2}, 7, 2), ({"order": 1, "augment": 2}, 1, 2)],
)
def test_an_epoch_is_drawn_in_one_go_from_each_of_its_seeds(
    seeds: dict[str, int], order_seed: int, augment_seed: int
) -> None:
    def drawn(seed: int) -> tuple[torch.Tensor, Draws]:
        generator = torch.Generator().manual_seed(derive_seed(seed, 3))
        return torch.randperm(100, generator=generator), draw(OPS, 100, generator)

    order, draws = drawn(order_seed)[0], drawn(augment_seed)[1]
    expected = apply(order[:, None, None, None].expand(100, 1, 28, 28) / 255, OPS, draws)
    for chunk_size in (1, 64, 10_000):
        chunks = TrainChunks(*pictures(100), 32, OPS, 7, chunk_size=chunk_size, seeds=seeds)
        images, labels = map(torch.cat, zip(*epoch(chunks, 3), strict=True))
        assert torch.equal(labels, order)
        assert torch.equal(images, expected)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("seeds", [{}, {"order": 3, "augment": 4}])
def test_devices_share_each_batch_of_one_device(world_size: int, seeds: dict[str, int]) -> None:
    whole = epoch(TrainChunks(*pictures(100), 32, OPS, seed=1, seeds=seeds), 2)
    shares = [
        epoch(TrainChunks(*pictures(100), 32, OPS, 1, rank, world_size, seeds=seeds), 2)
        for rank in range(world_size)
    ]
    for step, (images, labels) in enumerate(whole):
        for rank in range(world_size):
            assert torch.equal(shares[rank][step][0], images[rank::world_size])
            assert torch.equal(shares[rank][step][1], labels[rank::world_size])
