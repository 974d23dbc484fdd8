"""One classifier in training and evaluation: loss, penalty, figures, optimizer, schedule.

Steps only keep their outputs, on the device; figures are computed once an epoch. The loss is the
study's: cross-entropy plus penalty, in training and in evaluation.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fmnist_pl.data.datamodule import Batch, derive_seed
from fmnist_pl.model import nets
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import TOTAL, Model
from fmnist_pl.options.targets import TARGET, build

FIGURES = ("loss", "cross_entropy", "penalty", "acc")

# Logits (N, C), labels (N,), and the penalty of the weights that each image was met with (N,).
Outputs = tuple[Tensor, Tensor, Tensor]


class Classifier(L.LightningModule):
    """A net of the study with its loss and optimizer.

    Args:
        model: options of the net, those of `schema.Model`.
        classes: name of each class to the original labels it takes.
        optimizer: `_target_` and arguments, as `schema.Config` has them.
        seed: of initial weights and dropout.
        data: which the images are and how they were split, for whoever evaluates the checkpoint.
        schedule: of the learning rate, likewise; none: constant.
        seeds: of either of them, `init` and `dropout`, if it is another.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        classes: Mapping[str, list[int]],
        optimizer: Mapping[str, Any],
        seed: int = 0,
        data: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        seeds: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.log_steps = False  # whether loggers get the loss of steps, too
        self.options, self.seed, self.seeds = Model(**model), seed, seeds or {}
        self.optimizer, self.schedule = optimizer, schedule or {}
        self.class_names = list(classes)
        torch.manual_seed(derive_seed(self.seeds.get("init", seed)))
        self.net = nets.build_net(self.options, len(classes))
        # By stage, train or val: of each chunk or batch of the epoch.
        self.outputs: dict[str, dict[int, Outputs]] = defaultdict(dict)
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

    def train_chunk(self, chunk: Sequence[Batch], optimizer: torch.optim.Optimizer) -> Outputs:
        """A step for each batch."""
        kept = []
        for batch in chunk:
            loss, outputs = self.step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            kept.append(outputs)
        return concatenated(kept)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Lightning's step of a batch or, where it has nothing to do in a step, those of a chunk.

        Its own turn of the loop would take half of the MLP's time; see `fit.steps_directly`.
        """
        if self.automatic_optimization:
            loss, outputs = self.step(batch)
            self.outputs["train"][batch_idx] = outputs
            if self.log_steps:
                self.log("train/loss_step", loss, on_step=True)
            return loss
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.outputs["train"][batch_idx] = self.train_chunk(batch, optimizer)
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for _ in batch:
            progress.increment_ready()
            progress.increment_completed()
        return None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        _, outputs = self.step(batch)
        self.outputs["val"][batch_idx] = outputs

    def on_train_epoch_start(self) -> None:
        if self.schedule:
            self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], logger=False)
        # Dropout, too, depends on (seed, epoch) alone, so that a resumed run repeats it.
        seed = self.seeds.get("dropout", self.seed)
        torch.manual_seed(derive_seed(seed, self.current_epoch, self.global_rank))

    def on_train_epoch_end(self) -> None:
        self.log_epoch("train")
        # Lightning would do it after the checkpoint, and a run that goes on from that would differ.
        for one in self.trainer.lr_scheduler_configs:
            if one.reduce_on_plateau and (self.current_epoch + 1) % one.frequency == 0:
                figure: Any = self.trainer.callback_metrics[str(one.monitor)]
                one.scheduler.step(figure)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if metric is None:
            scheduler.step()

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
        kept = concatenated(list(self.outputs.pop(stage).values()))
        logits, labels, penalties = (tensor.cpu() for tensor in kept)
        figures, self.confusion[stage] = figures_of(logits, labels, penalties, reduce)
        # To callbacks, one of which tells the loggers.
        self.log_dict({f"{stage}/{name}": one for name, one in figures.items()}, logger=False)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.optimizer)
        if not self.schedule:
            return optimizer
        epochs, steps = self.trainer.max_epochs or 0, int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(optimizer, self.schedule, epochs, steps)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def concatenated(kept: Sequence[Outputs]) -> Outputs:
    logits, labels, penalties = map(torch.cat, zip(*kept, strict=True))
    return logits, labels, penalties


def build_optimizer(net: nn.Module, spec: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimizer of a configuration, for the parameters of a net."""
    optimizer = build(spec, "optimizer", net.parameters())
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"optimizer: {spec[TARGET]} makes no torch.optim.Optimizer.")
    return optimizer


def build_schedule(
    optimizer: torch.optim.Optimizer, spec: Mapping[str, Any], epochs: int, steps: int
) -> dict[str, Any]:
    """The schedule of a configuration, as Lightning takes it from `configure_optimizers`.

    Args:
        optimizer: whose rate it changes.
        spec: `_target_` and arguments, of which `total` stands for all steps of the run, or where
            `interval` is `epoch` for all epochs; beside them `interval`, `frequency`, `monitor`.
        epochs: of the run.
        steps: of the run.
    """
    when = {name: spec[name] for name in ("interval", "frequency", "monitor") if name in spec}
    interval = when.setdefault("interval", "epoch")
    if interval not in ("step", "epoch"):
        raise UserError(f"schedule.interval={interval}: must be step or epoch.")
    total = steps if interval == "step" else epochs
    arguments = {
        name: total if value == TOTAL else value for name, value in spec.items() if name not in when
    }
    scheduler = build(arguments, "schedule", optimizer)
    if not isinstance(scheduler, LRScheduler):
        raise UserError(f"schedule: {spec[TARGET]} makes no torch.optim.lr_scheduler.LRScheduler.")
    if isinstance(scheduler, ReduceLROnPlateau):
        monitor = when.setdefault("monitor", "val/loss")
        legal = [f"val/{name}" for name in FIGURES]
        if interval != "epoch" or monitor not in legal:
            raise UserError(
                f"schedule: {spec[TARGET]} takes interval=epoch and for monitor one of "
                f"{', '.join(legal)}."
            )
    elif "monitor" in when:
        raise UserError(f"schedule.monitor={when['monitor']}: {spec[TARGET]} looks at no figure.")
    return {"scheduler": scheduler, **when}


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
    values = cross_entropy + penalty, cross_entropy, penalty, confusion.trace().double() / count
    return dict(zip(FIGURES, values, strict=True)), confusion


def acc_per_class(confusion: Tensor) -> Tensor:
    """Share of each true class that was predicted right, float64 (C,)."""
    return confusion.diagonal().double() / confusion.sum(1)
