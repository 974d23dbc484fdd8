"""Made-up sweeps of known figures."""

import csv
import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import confusion_matrix, recall_score

from fmnist_pl.data import source
from fmnist_pl.options.schema import Config
from fmnist_pl.report.summary import Summary, write_report

STUDY = {  # test accuracy, and how far training accuracy is above validation accuracy in the end
    "vanilla": (0.885, 0.022),
    "three_class": (0.990, 0.006),
    "mlp": (0.862, -0.005),
    "cnn": (0.908, 0.006),
    "cnn_bn": (0.913, 0.010),
    "cnn_bn_dropout": (0.899, -0.006),
    "cnn_bn_dropout_l2": (0.906, -0.010),
    "cnn_bn_dropout_l1": (0.896, -0.012),
}
TAKEN_FOR = {0: 6, 1: 3, 2: 4, 3: 0, 4: 2, 5: 7, 6: 0, 7: 9, 8: 6, 9: 7}


class MadeUp:
    """Writes folders of runs that never were; labels are those of the data set's test images.

    Args:
        configured: the fixture of that name.
    """

    def __init__(self, configured: Callable[..., Config]) -> None:
        self.labels = source.load().test_labels.astype(np.int64)
        self.composed = cache(configured)

    def config(self, arm: str, seed: int = 0, **changes: object) -> Config:
        """The configuration of one of the study's runs, with other values where given."""
        group = "experiment" if arm in ("vanilla", "three_class") else "model"
        config = deepcopy(self.composed(f"{group}={arm}"))
        for name, value in ({"seed": seed} | changes).items():
            setattr(config, name, value)
        return config

    def run(
        self, folder: Path, config: Config, acc: float = 0.9, gap: float = 0.0, luck: float = 0.0
    ) -> dict:
        """A finished run; the content of its `result.json`.

        Args:
            folder: to make.
            config: of the run.
            acc: its test accuracy, but for luck.
            gap: by which training accuracy is above validation accuracy in the end.
            luck: what the last epoch adds to the accuracy.
        """
        steady, acc = acc + 0.004, acc + luck
        own = np.random.default_rng([len(config.name), config.seed])
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
        labels, guesses = self.predictions(config, acc, own)
        logits = self.logits(guesses, len(config.classes), own)
        _, others = self.predictions(config, steady + own.normal(0, 1e-3), own)
        averaged = self.logits(others, len(config.classes), own)
        np.savez(folder / "predictions.npz", logits=logits, labels=labels, averaged=averaged)
        if config.embeddings != "none":
            centres = np.random.default_rng(0).normal(0, 20, (len(config.classes), 2))
            tsne = (centres[guesses] + own.normal(0, 5, (len(labels), 2))).astype(np.float32)
            (folder / "embeddings").mkdir()
            np.savez(
                folder / "embeddings" / "test.npz",
                embeddings=tsne,
                tsne=tsne,
                labels=labels,
                predictions=guesses,
            )
        rows = self.epochs(config, acc, gap, own)
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        acc = float((guesses == labels).mean())
        by_weights = {
            "last": acc,
            "best": acc + 0.002,
            "averaged": float((others == labels).mean()),
        }
        if config.model.batch_norm:
            by_weights["last_fresh_bn"] = steady + own.normal(0, 2e-3)
        names = list(config.classes)
        result = {
            "name": config.name,
            "model": config.model.name,
            "seed": config.seed,
            "classes": config.classes,
            "augment": config.augment.name,
            "epochs": len(rows),
            "parameters": 222_214 if config.model.channels else 101_770,
            "tested_checkpoint": "last",
            **{key: value for key, value in rows[-1].items() if "/" in key},
            "test/acc": acc,
            "test/loss": 2.5 * (1 - acc),
            "test/cross_entropy": 2.5 * (1 - acc),
            "test/penalty": 0.0,
            "temperature": 1.2 + 0.01 * config.seed,
            "test/ece": 0.03 + 0.001 * config.seed,
            "test/ece_scaled": 0.008,
            "test/brier": 1.5 * (1 - acc),
            "test/brier_scaled": 1.4 * (1 - acc),
            "test/cross_entropy_scaled": 2.4 * (1 - acc),
            "test/acc_per_class": dict(
                zip(names, recall_score(labels, guesses, average=None).tolist(), strict=True)
            ),
            "test/confusion_matrix": confusion_matrix(labels, guesses).tolist(),
            "test/acc_by_weights": by_weights,
            "embeddings": config.embeddings,
            "test/knn_acc": None
            if config.embeddings == "none"
            else {"embedding": acc - 0.005, "tsne": acc - 0.02},
            "val/acc_averaged": rows[-1]["val/acc"] + 0.004,
            "best_epoch": len(rows),
            "best_val_acc": rows[-1]["val/acc"],
            "seconds": 115.0,
            "images_per_second": 4347.8,
            "hardware": {"cpu": "a CPU", "cores": 8, "threads": 1, "device": "cpu", "devices": 1},
            "versions": {"python": "3.11.7", "fmnist_pl": "0.1.0", "torch": "2.6.0"},
            "git_commit": "0123456789abcdef0123456789abcdef01234567",
            "data_sha256": {"file": "0123"},
        }
        (folder / "result.json").write_text(json.dumps(result))
        return result

    def change(self, folder: Path, **entries: object) -> None:
        """Other entries in a run's `result.json`; `__` stands for a slash."""
        path = folder / "result.json"
        content = json.loads(path.read_text())
        content |= {name.replace("__", "/"): value for name, value in entries.items()}
        path.write_text(json.dumps(content))

    def logits(self, guesses: np.ndarray, classes: int, own: np.random.Generator) -> np.ndarray:
        """Some that make these guesses, surely or less so."""
        logits = own.normal(0, 1, (len(guesses), classes)).astype(np.float32)
        logits[np.arange(len(guesses)), guesses] = logits.max(1) + own.gamma(2, 1, len(guesses))
        return logits

    def predictions(
        self, config: Config, acc: float, own: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels and guesses (10000,): images hard for one model are hard for the others, too."""
        group = np.empty(10, np.int64)
        for i, members in enumerate(config.classes.values()):
            group[members] = i
        labels = group[self.labels]
        hard = np.random.default_rng(0).random(len(labels)) + 0.3 * np.isin(self.labels, (2, 4))
        hard += 0.3 * np.isin(self.labels, (0, 6)) + own.normal(0, 0.05, len(labels))
        taken_for = group[[TAKEN_FOR[label] for label in range(10)]][self.labels]
        taken_for = np.where(taken_for == labels, (labels + 1) % len(config.classes), taken_for)
        return labels, np.where(hard > np.quantile(hard, acc), taken_for, labels)

    def epochs(
        self, config: Config, acc: float, gap: float, own: np.random.Generator
    ) -> list[dict[str, float]]:
        """The rows of a `metrics.csv`: noisy with batch norm, overfitting where `gap` is large."""
        rows = []
        penalty = 200 * (config.model.l1 + config.model.l2)
        for epoch in range(1, config.trainer.max_epochs + 1):
            progress = 1 - np.exp(-epoch / 2)
            val = (acc + 0.005) * (0.85 + 0.15 * progress)
            val += own.normal(0, 0.008 if config.model.batch_norm else 0.002)
            train = min(0.999, val + gap * (2 * progress - 1))
            loss = 2.5 * (1 - (acc + 0.005) * (0.85 + 0.15 * progress))
            row: dict[str, float] = {"epoch": epoch, "images": 50_000, "seconds": 11.5}
            for split, its_acc, its_loss in (
                ("train", train, loss * (1 - 8 * max(gap, 0) * progress)),
                ("val", val, loss * (1 + 0.05 * epoch * (gap > 0.02)) + own.normal(0, 0.001)),
            ):
                row |= {
                    f"{split}/acc": its_acc,
                    f"{split}/cross_entropy": its_loss,
                    f"{split}/penalty": penalty,
                    f"{split}/loss": its_loss + penalty,
                }
            rows.append(row)
        return rows

    def sweep(self, folder: Path, seeds: int, epochs: int = 10) -> Path:
        """Finished runs of the whole study, of about its accuracies."""
        for arm, (acc, gap) in STUDY.items():
            for seed in range(seeds):
                config = self.config(arm, seed)
                config.trainer.max_epochs = epochs
                noise = np.random.default_rng([len(arm), seed, 1])
                scale = 0.006 if config.model.batch_norm else 0.002
                luck = noise.normal(0, 0.001 if arm == "three_class" else scale)
                self.run(folder / f"{arm}-{seed}", config, acc, gap, luck)
        return folder


@pytest.fixture(scope="session")
def made_up(configured: Callable[..., Config]) -> MadeUp:
    return MadeUp(configured)


@pytest.fixture(scope="session")
def study(made_up: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """The report of all eight arms with five seeds of each."""
    folder = made_up.sweep(tmp_path_factory.mktemp("runs") / "study", seeds=5)
    return write_report([folder], folder)
