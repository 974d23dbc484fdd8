"""A finished classifier at work: load a checkpoint, predict images, count what is right.

All of it is done on the CPU, in single precision and on one thread, whatever trained the weights:
so the figures of a run are those of its checkpoint, on every machine that loads it.

The same split, grouping and formulas as in the run, so that the figures are the run's.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmnist_pl.config import complete
from fmnist_pl.data.catalogue import entry, recalled
from fmnist_pl.data.datamodule import Batch, FashionMNIST, to_float
from fmnist_pl.data.protocol import EVAL_BATCH_SIZE, check_classes
from fmnist_pl.drawing.projector import Embedded
from fmnist_pl.model import calibration, nets, portable
from fmnist_pl.model.classifier import Classifier, acc_per_class, figures_of
from fmnist_pl.options.messages import UserError, progress_bar
from fmnist_pl.options.schema import Model
from fmnist_pl.options.targets import targets_in


class Predictions(NamedTuple):
    """What a classifier makes of N images, on the CPU."""

    logits: NDArray[np.float32]  # (N, C)
    embeddings: NDArray[np.float32]  # (N, D), the input of the last dense layer

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(N, C), rows sum to 1."""
        return torch.from_numpy(self.logits).softmax(1).numpy()

    def at(self, temperature: float) -> "Predictions":
        """The same with less confidence, or below a temperature of 1 with more."""
        return self._replace(logits=self.logits / np.float32(temperature))


def load_classifier(checkpoint: str | Path, trusted: bool | Collection[str] = False) -> Classifier:
    """The classifier of a checkpoint, on the CPU, in evaluation mode; no code is unpickled.

    Args:
        checkpoint: of a run.
        trusted: what else than the nets of this package may be imported to make its net, by dotted
            path; True: whatever it names, which can run any code.

    Raises:
        UserError: no such file, or one that is no checkpoint of this project; its net is not
            trusted.
    """
    try:
        if Path(checkpoint).suffix == portable.SUFFIX:
            content = portable.read(checkpoint)
        else:
            content = read(checkpoint)
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
        hyperparameters = complete_hyperparameters(content["hyper_parameters"])
        check_trust(hyperparameters["model"], trusted)
        classifier = Classifier(**hyperparameters)
        classifier.load_state_dict(content["state_dict"])
    except UserError as error:
        raise UserError(f"checkpoint={checkpoint}: {error}") from None
    except Exception as error:  # every kind of content has its own
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"checkpoint={checkpoint}: weights of something else than a run of fmnist_pl "
            f"({type(error).__name__}: {reason})."
        ) from None
    return classifier.eval()


def check_trust(model: Mapping[str, Any], trusted: bool | Collection[str]) -> None:
    """Refuse to import what makes a net, unless it is this package's or trusted."""
    refused = targets_in(model) - nets.OURS - (set() if isinstance(trusted, bool) else set(trusted))
    if refused and trusted is not True:
        raise UserError(
            f"its net is made by {', '.join(sorted(refused))}, which can run any code. Nothing of "
            "it was imported; if you trust it, give trust_code=true."
        )


def complete_hyperparameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a checkpoint, be it of version 0.1.0, as this version has them."""
    model, optimizer = asdict(Model(**given["model"])), complete(given["optimizer"])
    data = entry(recalled(given.get("data")))
    return {**given, "model": model, "optimizer": optimizer, "data": data}


def read(checkpoint: str | Path) -> dict[str, Any]:
    """All that is in a checkpoint of Lightning, whole and without code."""
    with ZipFile(checkpoint) as archive:
        damaged = archive.testzip()  # torch does not look at the checksums
    if damaged:
        raise BadZipFile(damaged)
    content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return content


def load_split(classifier: Classifier, split: str, root: str | None = None) -> Batch:
    """Images, uint8 (N, 28, 28), and labels, int64 (N,), as the classifier's run had them.

    Args:
        classifier: whose grouping of classes and whose split it is.
        split: train, val or test.
        root: the folder to look in first.

    Raises:
        UserError: the data set is not there, or is another one.
    """
    data = recalled(classifier.hparams["data"])
    data.root = root
    classes = check_classes(classifier.hparams["classes"], data.class_names)
    datamodule = FashionMNIST(data, classes)
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
    for batch in progress_bar(batches, "predicting", unit="batch", delay=1, leave=False):
        features = classifier.net.features(to_float(batch.cpu()))
        embeddings.append(features)
        logits.append(classifier.net.head(features))
    return Predictions(torch.cat(logits).numpy(), torch.cat(embeddings).numpy())


def predict_photos(
    classifier: Classifier,
    images: NDArray[np.uint8],
    fitted: NDArray[np.bool_],
    temperature: float = 1.0,
) -> Predictions:
    """Predictions of photos; of those that were fitted in, the mean of both ways round.

    Args:
        classifier: in evaluation mode.
        images: (N, 28, 28).
        fitted: (N,), whether they were found in a photo. Others stay those of the image.
        temperature: by which to divide the net's logits.
    """
    straight = predict(classifier, images).at(temperature)
    logits = straight.logits.copy()
    if fitted.any():
        mirrored = predict(classifier, images[fitted, :, ::-1].copy()).at(temperature)
        mean = (straight.probabilities[fitted] + mirrored.probabilities) / 2
        logits[fitted] = np.log(mean.clip(np.finfo(np.float32).tiny))
    return Predictions(logits, straight.embeddings)


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
    calibrated = calibration.figures(predictions.logits, labels.numpy())
    shares = acc_per_class(confusion).tolist()
    per_class = [None if math.isnan(share) else share for share in shares]  # no such image
    return {
        "model": options.name,
        "seed": classifier.seed,
        "classes": classifier.hparams["classes"],
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "split": split,
        "images": len(labels),
        **{f"{split}/{name}": figure.item() for name, figure in figures.items()},
        **{f"{split}/{name}": figure for name, figure in calibrated.items()},
        f"{split}/acc_per_class": dict(zip(classifier.class_names, per_class, strict=True)),
        f"{split}/confusion_matrix": confusion.tolist(),
    }
