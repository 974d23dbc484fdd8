"""What happens after every epoch, beside checkpoints and progress: one concern a callback.

Lightning calls them before the checkpoint is written, in the order in which they are listed.
"""

import math
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn

from fmnist_pl.model.classifier import Classifier
from fmnist_pl.options.messages import PausedError, UserError


class Divergence(L.Callback):
    """Ends a run whose figures are no longer finite, before there is a checkpoint of them.

    Lightning's `EarlyStopping(check_finite=True)` would end it, too, but as a run that is done.
    """

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        figures = trainer.callback_metrics
        for name in sorted(figures, key=lambda name: name.partition("/")[0]):  # train, then val
            if not math.isfinite(value := figures[name]):
                raise UserError(
                    f"{name} is {value.item()} after epoch {trainer.current_epoch + 1}: training "
                    "diverged. A smaller optimizer.lr may help; it takes a new folder, or "
                    "overwrite=true."
                )


class Pause(L.Callback):
    """Stops a run after some epochs, with all that a run leaves of an epoch.

    Args:
        epochs: after how many.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.epochs:
            raise PausedError(f"pause_after={self.epochs}: paused after as many epochs.")


class Histograms(L.Callback):
    """TensorBoard's histograms of the weights of every checkpoint, which are finite."""

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, Classifier)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name, weights in pl_module.net.named_parameters():
                    logger.experiment.add_histogram(name, weights, trainer.current_epoch + 1)


class Averaging(L.Callback):
    """Keeps the mean of the net's weights after each epoch of the second half.

    Lightning's `WeightAveraging` validates with the average and stores it as the checkpoint's
    weights; here, as in the study, both are the last epoch's, and the average is beside them.
    """

    average: AveragedModel

    def of(self, classifier: Classifier) -> nn.Module:
        """Its net with the mean of the weights; if it was stopped before there is one, the last."""
        if not self.average.n_averaged:
            self.average.update_parameters(classifier.net)
        module: nn.Module = self.average.module
        return module

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            assert isinstance(pl_module, Classifier)
            # Lightning moves the net to its device later, and not its copy. And by default a mean
            # is rounded otherwise on other devices than the CPU.
            device = trainer.strategy.root_device
            self.average = AveragedModel(pl_module.net, device, get_swa_avg_fn())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        half = (trainer.max_epochs or 0) // 2
        if trainer.current_epoch == half:
            self.average.n_averaged.zero_()  # of a run that is continued for more epochs
        if trainer.current_epoch >= half:
            self.average.update_parameters(pl_module.net)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average.load_state_dict(state_dict["average"])

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint["callbacks"]
        states.setdefault(self.state_key, states["Record"])  # where version 0.1 kept it
