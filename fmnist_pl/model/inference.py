"""A finished classifier at work: load a checkpoint, predict images, count what is right.

All of it is done on the CPU, in single precision and on one thread, whatever trained the weights:
so the figures of a run are those of its checkpoint, on every machine that loads it.

The same split, grouping and formulas as in the run, so that the figures are the run's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fmnist_pl.data.datamodule import Batch, FashionMNIST, to_float
from fmnist_pl.data.protocol import EVAL_BATCH_SIZE
from fmnist_pl.drawing.projector import Embedded
from fmnist_pl.model import nets
from fmnist_pl.model.classifier import Classifier, acc_per_class, figures_of
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Data


class Predictions(NamedTuple):
    """What a classifier makes of N images, on the CPU."""

    logits: NDArray[np.float32]  # (N, C)
    embeddings: NDArray[np.float32]  # (N, D), the input of the last dense layer

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(N, C), rows sum to 1."""
        return torch.from_numpy(self.logits).softmax(1).numpy()


def load_classifier(checkpoint: str | Path) -> Classifier:
    """The classifier of a checkpoint, on the CPU, in evaluation mode; no code is unpickled.

    Raises:
        UserError: no such file, or one that is no checkpoint of this project.
    """
    try:
        with ZipFile(checkpoint) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        if damaged:
            raise BadZipFile(damaged)
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"checkpoint={checkpoint}: {error.strerror}. "
            "A run's are in its folder: checkpoints/last.ckpt and checkpoints/best.ckpt."
        ) from None
    except Exception:  # every kind of file has its own
        raise UserError(
            f"checkpoint={checkpoint}: no checkpoint, or a damaged one. It cannot be read as "
            "PyTorch weights, and nothing else is ever loaded from it."
        ) from None
    try:
        classifier = Classifier(**content["hyper_parameters"])
        classifier.load_state_dict(content["state_dict"])
    except Exception as error:  # every kind of content has its own
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"checkpoint={checkpoint}: weights of something else than a run of fmnist_pl "
            f"({type(error).__name__}: {reason})."
        ) from None
    return classifier.eval()


def load_split(classifier: Classifier, split: str, root: str | None = None) -> Batch:
    """Images, uint8 (N, 28, 28), and labels, int64 (N,), as the classifier's run had them.

    Args:
        classifier: whose grouping of classes and whose split it is.
        split: train, val or test.
        root: the folder to look in first.
    """
    data = Data(root=root, **(classifier.hparams["data"] or {}))
    datamodule = FashionMNIST(data, classifier.hparams["classes"])
    datamodule.setup()
    return datamodule.splits[split]


@contextmanager
def one_thread() -> Iterator[None]:
    """On several threads sums are made in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
@torch.inference_mode()
def predict(classifier: Classifier, images: Tensor | NDArray[np.uint8]) -> Predictions:
    """Logits and embeddings of images, uint8 (N, 28, 28)."""
    logits, embeddings = [], []
    batches = torch.as_tensor(images).split(EVAL_BATCH_SIZE)
    for batch in tqdm(batches, "predicting", unit="batch", delay=1, leave=False, disable=None):
        features = classifier.net.features(to_float(batch.cpu()))
        embeddings.append(features)
        logits.append(classifier.net.head(features))
    return Predictions(torch.cat(logits).numpy(), torch.cat(embeddings).numpy())


def embed(
    classifier: Classifier, images: Tensor, labels: Tensor, predictions: Predictions | None = None
) -> Embedded:
    """Images, uint8 (N, 28, 28), and labels, int64 (N,), with what the projector shows of them.

    Args:
        classifier: in evaluation mode.
        images: N.
        labels: of the images.
        predictions: of the images, if they have been made.
    """
    logits, embeddings = predictions or predict(classifier, images)
    return Embedded(images.cpu().numpy(), labels.cpu().numpy(), embeddings, logits.argmax(1))


@one_thread()
@torch.inference_mode()
def evaluate(
    classifier: Classifier, predictions: Predictions, labels: Tensor, split: str
) -> dict[str, Any]:
    """The figures, under the names they have in a run's `result.json`.

    Args:
        classifier: whose predictions they are.
        predictions: of N images.
        labels: int64 (N,).
        split: opens the names, as in `test/acc`.
    """
    options = classifier.options
    penalty = nets.penalty(classifier.net, options.l1, options.l2)
    figures, confusion = figures_of(
        torch.from_numpy(predictions.logits), labels, penalty.expand(len(labels))
    )
    per_class = acc_per_class(confusion).tolist()
    return {
        "model": options.name,
        "seed": classifier.seed,
        "classes": classifier.hparams["classes"],
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "split": split,
        "images": len(labels),
        **{f"{split}/{name}": figure.item() for name, figure in figures.items()},
        f"{split}/acc_per_class": dict(zip(classifier.class_names, per_class, strict=True)),
        f"{split}/confusion_matrix": confusion.tolist(),
    }
