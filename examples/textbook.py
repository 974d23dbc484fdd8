"""The study of Fashion-MNIST as a textbook of PyTorch Lightning and Hydra has it, in one file.

    python examples/textbook.py model=cnn_bn
    python examples/textbook.py -m model=mlp,cnn,cnn_bn seed=0,1,2

The options and the six models are in `examples/conf/`. A run leaves a folder in `outputs/`, which
`tensorboard --logdir outputs` shows. The data set is fetched into `data/`; without network it can
be copied there: `python -m fmnist_pl.dataset copy_to=data/FashionMNIST/raw`.
"""

from typing import Any

import hydra
import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import FashionMNIST
from torchvision.transforms import InterpolationMode, v2

NUM_CLASSES = 10
VAL_SIZE = 10_000
EVAL_BATCH_SIZE = 250


class Cutout(v2.Transform):
    """Paint a rectangle, 1 to 9 pixels high and wide, in one dark shade."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        rows, columns = flat_inputs[0].shape[-2:]
        height, width = torch.randint(1, 10, (2,)).tolist()
        top = int(torch.randint(rows - height + 1, ()))
        left = int(torch.randint(columns - width + 1, ()))
        return {"i": top, "j": left, "h": height, "w": width, "v": 0.02 * torch.rand(())}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.erase(inpt, **params)


def build_transform(augment: bool) -> v2.Compose:
    """From a PIL image to a float tensor (1, 28, 28) in [0, 1], at random if asked for."""
    steps: list[nn.Module] = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    if augment:
        steps += [
            v2.Pad(2, padding_mode="edge"),  # so that turning brings in pixels of the edge
            v2.RandomRotation(5, InterpolationMode.BILINEAR),
            v2.CenterCrop(28),
            v2.RandomHorizontalFlip(p=0.5),
            v2.RandomApply([Cutout()], p=0.5),
        ]
    return v2.Compose(steps)


class FashionMNISTData(L.LightningDataModule):
    """Fashion-MNIST in batches: 50,000 images to train on, 10,000 to validate, 10,000 to test."""

    def __init__(self, root: str, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.save_hyperparameters()

    def prepare_data(self) -> None:
        FashionMNIST(self.hparams.root, download=True)

    def setup(self, stage: str) -> None:
        root, plain = self.hparams.root, build_transform(augment=False)
        augmented = FashionMNIST(root, transform=build_transform(augment=True))
        order = np.random.RandomState(42).permutation(len(augmented))
        self.train = Subset(augmented, order[VAL_SIZE:])
        self.val = Subset(FashionMNIST(root, transform=plain), order[:VAL_SIZE])
        self.test = FashionMNIST(root, train=False, transform=plain)

    def train_dataloader(self) -> DataLoader:
        return self.dataloader(self.train, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self.dataloader(self.val, EVAL_BATCH_SIZE)

    def test_dataloader(self) -> DataLoader:
        return self.dataloader(self.test, EVAL_BATCH_SIZE)

    def dataloader(self, data: Dataset, batch_size: int, shuffle: bool = False) -> DataLoader:
        return DataLoader(data, batch_size, shuffle, num_workers=self.hparams.num_workers)


def build_net(
    channels: list[int], hidden: list[int], batch_norm: bool, dropout: float
) -> nn.Sequential:
    """Convolution blocks, hidden dense layers and the head, with initial weights as in Keras."""
    layers: list[nn.Module] = []
    in_channels, size = 1, 28
    for out_channels in channels:
        layers.append(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        in_channels, size = out_channels, size // 2

    layers.append(nn.Flatten())
    in_features = in_channels * size * size
    for out_features in hidden:
        layers += [nn.Linear(in_features, out_features), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        in_features = out_features
    layers.append(nn.Linear(in_features, NUM_CLASSES))

    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class Classifier(L.LightningModule):
    """A net of the study with its loss, its metrics and its optimizer."""

    def __init__(
        self,
        channels: list[int],
        hidden: list[int],
        batch_norm: bool,
        dropout: float,
        l1: float,
        l2: float,
        lr: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = build_net(channels, hidden, batch_norm, dropout)
        metrics = MetricCollection({"acc": MulticlassAccuracy(NUM_CLASSES, average="micro")})
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10) of images (B, 1, 28, 28)."""
        return self.net(images)

    def penalty(self) -> Tensor:
        """The sum of |w| or w^2 over the kernels, without biases and batch norm, as in Keras."""
        l1, l2, total = self.hparams.l1, self.hparams.l2, torch.zeros((), device=self.device)
        for layer in self.net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                if l1:
                    total = total + l1 * layer.weight.abs().sum()
                if l2:
                    total = total + l2 * layer.weight.square().sum()
        return total

    def shared_step(self, batch: tuple[Tensor, Tensor], metrics: MetricCollection) -> Tensor:
        images, labels = batch
        logits = self(images)
        cross_entropy, penalty = F.cross_entropy(logits, labels), self.penalty()
        loss = cross_entropy + penalty
        losses = {"loss": loss, "cross_entropy": cross_entropy, "penalty": penalty}
        named = {f"{metrics.prefix}{name}": value for name, value in losses.items()}
        self.log_dict(named, on_step=False, on_epoch=True)
        metrics.update(logits, labels)
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.shared_step(batch, self.train_metrics)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.shared_step(batch, self.val_metrics)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.shared_step(batch, self.test_metrics)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr, eps=1e-7, fused=True)


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(config: DictConfig) -> None:
    L.seed_everything(config.seed, workers=True)
    folder = HydraConfig.get().runtime.output_dir
    classifier = Classifier(**OmegaConf.to_object(config.model), **config.optimizer)
    data = FashionMNISTData(**config.data)
    trainer = L.Trainer(
        **config.trainer,
        default_root_dir=folder,
        logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
        callbacks=[ModelCheckpoint(monitor="val/acc", mode="max", save_last=True)],
    )
    trainer.fit(classifier, data)
    trainer.test(classifier, data)  # of the last epoch's weights, as the study does


if __name__ == "__main__":
    main()
