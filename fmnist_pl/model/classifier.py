"""One classifier in training and evaluation: loss, penalty, figures, optimizer.

Steps only keep their outputs, on the device; figures are computed once an epoch. The loss is the
study's: cross-entropy plus penalty, in training and in evaluation.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fmnist_pl.data.datamodule import Batch, derive_seed
from fmnist_pl.model import nets
from fmnist_pl.options.schema import Model, Optimizer

WITHIN_A_STEP = (
    *("on_before_backward", "on_after_backward", "on_before_optimizer_step"),
    "on_before_zero_grad",
)

# Logits (N, C), labels (N,), and the penalty of the weights that each image was met with (N,).
Outputs = tuple[Tensor, Tensor, Tensor]


class Classifier(L.LightningModule):
    """A net of the study with its loss and optimizer.

    Args:
        model: options of the net, those of `schema.Model`.
        classes: name of each class to the original labels it takes.
        optimizer: options of Adam, those of `schema.Optimizer`.
        seed: of initial weights and dropout.
        data: how the images were split, for whoever evaluates the checkpoint.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        classes: Mapping[str, list[int]],
        optimizer: Mapping[str, Any],
        seed: int = 0,
        data: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.automatic_optimization = False  # training_step takes many steps
        self.options, self.seed = Model(**model), seed
        self.adam = Optimizer(**optimizer)
        self.class_names = list(classes)
        torch.manual_seed(derive_seed(seed))
        self.net = nets.build_net(self.options, len(classes))
        # By stage, train or val: of each chunk or batch of the epoch.
        self.outputs: dict[str, list[Outputs]] = defaultdict(list)
        # By stage: int64 (C, C), rows are true classes, columns predictions.
        self.confusion: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 1, 28, 28), float in [0, 1].

        Training may compile the net or use mixed precision; what it has learned is evaluated
        without, so that figures of a checkpoint are the same everywhere.
        """
        if self.training:
            logits: Tensor = self.net(images)
        else:
            with torch.autocast(images.device.type, enabled=False):
                logits = self.net.head(self.net.features(images))
        return logits

    def step(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """Loss of a batch, a scalar, and what is kept of it."""
        images, labels = batch
        logits, penalty = self(images), nets.penalty(self.net, self.options.l1, self.options.l2)
        loss = F.cross_entropy(logits, labels) + penalty
        return loss, (logits.detach(), labels, penalty.detach().expand(len(labels)))

    def train_chunk(
        self, chunk: Sequence[Batch], optimizer: Any, backward: Callable[[Tensor], None]
    ) -> Outputs:
        """A step for each batch."""
        kept = []
        for batch in chunk:
            loss, outputs = self.step(batch)
            optimizer.zero_grad()
            backward(loss)
            optimizer.step()
            kept.append(outputs)
        return concatenated(kept)

    def training_step(self, chunk: list[Batch], batch_idx: int) -> None:
        optimizer, backward = self.optimizers(), self.manual_backward
        assert isinstance(optimizer, LightningOptimizer)
        if not self.steps_directly():
            self.outputs["train"].append(self.train_chunk(chunk, optimizer, backward))
            return
        outputs = self.train_chunk(chunk, optimizer.optimizer, Tensor.backward)
        self.outputs["train"].append(outputs)
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for _ in chunk:
            progress.increment_ready()
            progress.increment_completed()

    def steps_directly(self) -> bool:
        """Whether Lightning has nothing to do in a step but to count it.

        Its own `manual_backward` and optimizer would take a tenth of the MLP's step. They are for
        several devices, for a loss that is scaled, and for callbacks that look into a step.
        """
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        watched = any(is_overridden(hook, one) for one in callbacks for hook in WITHIN_A_STEP)
        alone = self.trainer.world_size == 1 and self.trainer.precision != "16-mixed"
        return alone and not watched

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        _, outputs = self.step(batch)
        self.outputs["val"].append(outputs)

    def on_train_epoch_start(self) -> None:
        # Dropout, too, depends on (seed, epoch) alone, so that a resumed run repeats it.
        torch.manual_seed(derive_seed(self.seed, self.current_epoch, self.global_rank))

    def on_train_epoch_end(self) -> None:
        self.log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        self.log_epoch("val")

    def log_epoch(self, stage: str) -> None:
        """Loss (total, cross-entropy, penalty) and accuracy over all images of the epoch.

        In training these are running figures: of each batch as it was met, augmented, with the
        weights of that moment.
        """

        def reduce(share: Tensor) -> Tensor:
            if stage == "train" and self.trainer.world_size > 1:
                share = share.to(self.device)
                share = self.trainer.strategy.reduce(share, reduce_op="sum").cpu()
            return share  # in evaluation each device has seen everything

        # On the CPU, as for a checkpoint; not every device has float64.
        kept = concatenated(self.outputs.pop(stage))
        logits, labels, penalties = (tensor.cpu() for tensor in kept)
        figures, self.confusion[stage] = figures_of(logits, labels, penalties, reduce)
        # To callbacks, one of which tells the loggers.
        self.log_dict({f"{stage}/{name}": one for name, one in figures.items()}, logger=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self, self.adam)


def concatenated(kept: Sequence[Outputs]) -> Outputs:
    logits, labels, penalties = map(torch.cat, zip(*kept, strict=True))
    return logits, labels, penalties


def build_optimizer(net: nn.Module, options: Optimizer) -> torch.optim.Optimizer:
    """Adam, for the parameters of a net."""
    betas = options.beta1, options.beta2
    return torch.optim.Adam(net.parameters(), options.lr, betas, options.eps, fused=True)


def figures_of(
    logits: Tensor,
    labels: Tensor,
    penalties: Tensor,
    reduce: Callable[[Tensor], Tensor] = lambda share: share,
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss (total, cross-entropy, penalty) and accuracy over N images, and their confusion matrix.

    Args:
        logits: (N, C).
        labels: int64 (N,).
        penalties: of the weights each image was met with, (N,).
        reduce: sums a tensor over the devices, where each has a share of the images.

    Returns:
        `loss`, `cross_entropy`, `penalty` and `acc`, float64 scalars, and the confusion matrix,
        int64 (C, C), rows are true classes, columns predictions.
    """
    confusion = reduce(multiclass_confusion_matrix(logits, labels, logits.shape[1]))
    losses = F.cross_entropy(logits.float(), labels, reduction="sum"), penalties.double().sum()
    count = confusion.sum()
    cross_entropy, penalty = reduce(torch.stack([loss.double() for loss in losses])) / count
    return {
        "loss": cross_entropy + penalty,
        "cross_entropy": cross_entropy,
        "penalty": penalty,
        "acc": confusion.trace().double() / count,
    }, confusion


def acc_per_class(confusion: Tensor) -> Tensor:
    """Share of each true class that was predicted right, float64 (C,)."""
    return confusion.diagonal().double() / confusion.sum(1)
