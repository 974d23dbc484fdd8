"""The study's split, regrouping and batches: uint8 images on the training device, no workers.

An epoch is one permutation with the parameters of all its augmentations, both drawn on the CPU
from (seed, epoch) alone. Whatever was run before, on whatever device, in chunks of whatever size,
the same epoch shows the same images in the same order.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmnist_pl.data import augment, source
from fmnist_pl.data.augment import Op
from fmnist_pl.data.protocol import EVAL_BATCH_SIZE, check_shares, held_out
from fmnist_pl.options.schema import Data

CHUNK_SIZE = 1024  # images augmented at once; larger ones fall out of a CPU's cache

Batch = tuple[Tensor, Tensor]
Labels = NDArray[np.int64]


def derive_seed(*key: int) -> int:
    """A 63-bit seed for torch, statistically independent for every key (NumPy's SeedSequence)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def split_indices(num_images: int, val_size: int, seed: int) -> tuple[Labels, Labels]:
    """Training and validation indices, int64, as scikit-learn's `train_test_split` orders them."""
    order = np.random.RandomState(seed).permutation(num_images)
    return order[val_size:], order[:val_size]


def split(data: Data, images: int) -> tuple[Labels, Labels]:
    """Of a data set with so many training images: those to train on, and those for validation."""
    return split_indices(images, held_out(data, images), data.split_seed)


def regroup(labels: NDArray[Any], classes: Mapping[str, Sequence[int]]) -> Labels:
    """Original labels (N,) to the index, int64, of the class each belongs to."""
    index = {label: i for i, members in enumerate(classes.values()) for label in members}
    table = np.array([index[label] for label in range(len(index))], dtype=np.int64)
    return np.take(table, labels)


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, 28, 28) to float32 (N, 1, 28, 28) in [0, 1]."""
    return images.unsqueeze(1).float().div_(255)


def limited(batches: int, limit: int | float) -> int:
    """Of so many batches the share (float), or as many (int), that a limit leaves."""
    return min(batches, limit if isinstance(limit, int) else int(batches * limit))


class EvalBatches:
    """Images in their order, unchanged.

    Args:
        images: uint8 (N, 28, 28).
        labels: int64 (N,).
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return -(-len(self.labels) // EVAL_BATCH_SIZE)

    def __iter__(self) -> Iterator[Batch]:
        chunks = zip(
            self.images.split(EVAL_BATCH_SIZE), self.labels.split(EVAL_BATCH_SIZE), strict=True
        )
        for images, labels in chunks:
            yield to_float(images), labels


class TrainChunks:
    """An epoch, every image once, in a new order, augmented, as lists of consecutive batches.

    What costs a fixed time, an augmentation's kernels and a turn of Lightning's loop, is paid once
    for a chunk and not for every batch of it. The last, short batch is kept.

    Args:
        images: uint8 (N, 28, 28).
        labels: int64 (N,).
        batch_size: images a step, over all devices.
        ops: augmentations, in order.
        seed: with the epoch it decides order and augmentation.
        seeds: of either of them, `order` and `augment`, if it is another.
        rank, world_size: this device and how many share each batch.
        limit: of an epoch, so many batches (int) or such a share of them (float).
        chunk_size: images augmented at once; does not change what comes out.
        shuffle: whether in a new order.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        ops: Sequence[Op] = (),
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        limit: int | float = 1.0,
        chunk_size: int = CHUNK_SIZE,
        shuffle: bool = True,
        seeds: Mapping[str, int] | None = None,
    ) -> None:
        self.shuffle, self.seeds = shuffle, seeds or {}
        self.images, self.labels, self.batch_size, self.ops = images, labels, batch_size, ops
        self.seed, self.rank, self.world_size = seed, rank, world_size
        whole = -(-len(labels) // batch_size)
        self.num_batches = limited(whole, limit)
        self.share = batch_size // world_size
        self.batches_per_chunk = max(1, chunk_size // self.share)
        self.epoch = 0
        self.sampler = self  # whose epoch Lightning sets

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_batches // self.batches_per_chunk)

    def __iter__(self) -> Iterator[list[Batch]]:
        seeds = [self.seeds.get(source, self.seed) for source in ("order", "augment")]
        streams = [torch.Generator().manual_seed(derive_seed(one, self.epoch)) for one in seeds]
        # Augmentation, too, is drawn after an order, so that one seed for both is no other case.
        order, _ = (torch.randperm(len(self.labels), generator=one) for one in streams)
        if not self.shuffle:
            order = torch.arange(len(order))
        draws = augment.draw(self.ops, len(order), streams[1])
        # Of each batch every device takes each world_size-th image.
        place = torch.arange(len(order)) % self.batch_size % self.world_size == self.rank
        place[self.num_batches * self.batch_size :] = False
        device = self.images.device
        order, draws = order[place].to(device), augment.to(augment.take(draws, place), device)
        size = self.batches_per_chunk * self.share
        for start in range(0, len(order), size):
            chunk = slice(start, start + size)
            images = to_float(self.images[order[chunk]])
            images = augment.apply(images, self.ops, augment.take(draws, chunk))
            labels = self.labels[order[chunk]]
            yield list(zip(images.split(self.share), labels.split(self.share), strict=True))


class TrainBatches(TrainChunks):
    """The same epoch, batch by batch."""

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return chain.from_iterable(super().__iter__())


class FashionMNIST(L.LightningDataModule):
    """Fashion-MNIST, or another data set, under the study's protocol.

    Args:
        data: which it is and where, how it is split and batched.
        classes: name of each class to the original labels it takes.
        ops: augmentations of the training images, in order.
        seed, seeds: of order and augmentation, as those of `TrainChunks`.
        limit_train_batches: of an epoch, so many (int) or such a share of them (float).
        overfit_batches: if not 0, so many or such a share of them, the same in every epoch, in
            the same order.
    """

    in_chunks = True  # whether training batches come as lists of them

    def __init__(
        self,
        data: Data,
        classes: Mapping[str, Sequence[int]],
        ops: Sequence[Op] = (),
        seed: int = 0,
        limit_train_batches: int | float = 1.0,
        overfit_batches: int | float = 0,
        seeds: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.data, self.classes, self.ops, self.seed, self.seeds = data, classes, ops, seed, seeds
        self.limit_train_batches, self.overfit_batches = limit_train_batches, overfit_batches
        self.splits: dict[str, Batch] = {}
        self.sha256: dict[str, str] = {}  # of what the files hold

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """What the files hold, until it is split."""
        return source.find(self.data)[1]

    def prepare_data(self) -> None:
        _ = self.contents

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        arrays, self.sha256 = source.parsed(self.contents), source.digests(self.contents)
        del self.contents
        train, val = split(self.data, len(arrays.train_labels))
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        for name, images, labels in (
            ("train", arrays.train_images[train], arrays.train_labels[train]),
            ("val", arrays.train_images[val], arrays.train_labels[val]),
            ("test", arrays.test_images, arrays.test_labels),
        ):
            self.splits[name] = (
                torch.as_tensor(images).to(device),
                torch.as_tensor(regroup(labels, self.classes)).to(device),
            )

    def train_dataloader(self) -> TrainChunks:
        rank, world_size = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        images, labels = self.splits["train"]
        check_shares(self.data.batch_size, len(labels), world_size)
        kind = TrainChunks if self.in_chunks else TrainBatches
        if self.overfit_batches:
            whole = -(-len(labels) // self.data.batch_size)
            shown = max(1, limited(whole, self.overfit_batches)) * self.data.batch_size
            images, labels = images[:shown], labels[:shown]
        return kind(
            images,
            labels,
            self.data.batch_size,
            self.ops,
            self.seed,
            rank,
            world_size,
            self.limit_train_batches,
            shuffle=not self.overfit_batches,
            seeds=self.seeds,
        )

    def val_dataloader(self) -> EvalBatches:
        return EvalBatches(*self.splits["val"])

    def test_dataloader(self) -> EvalBatches:
        return EvalBatches(*self.splits["test"])

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return batch  # it is there already
