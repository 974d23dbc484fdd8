"""Which weights of a run are tested, against the checkpoints and PyTorch's own arithmetic."""

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from fmnist_pl import export
from fmnist_pl.data.augment import parse_ops
from fmnist_pl.data.datamodule import FashionMNIST
from fmnist_pl.model.inference import evaluate, load_classifier, load_split, predict
from fmnist_pl.model.nets import Block, build_net
from fmnist_pl.training import weights
from fmnist_pl.training.checkpoints import Record
from fmnist_pl.training.folder import run
from tests.training.test_folder import TINY


@pytest.mark.parametrize(
    ("tested", "limit", "images"), [("last", "2", 500), ("best", "1.0", 10_000)]
)
def test_each_accuracy_is_that_of_its_checkpoint(
    tmp_path: Path,
    configured: Any,
    tested: str,
    limit: str,
    images: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "FRESH_IMAGES", 320)
    # Not the last one, or there would be nothing to tell apart.
    monkeypatch.setattr(Record, "best_row", property(lambda self: self.rows[0]))
    words = (f"test.checkpoint={tested}", f"trainer.limit_test_batches={limit}")
    result = run(configured(*TINY, "model=cnn_bn", *words), tmp_path)
    assert result["test/acc_by_weights"][tested] == pytest.approx(result["test/acc"], abs=1e-6)
    for name in ("last", "best"):
        classifier = load_classifier(tmp_path / "checkpoints" / f"{name}.ckpt")
        shown, labels = (each[:images] for each in load_split(classifier, "test"))
        figures = evaluate(classifier, predict(classifier, shown), labels, "test")
        assert result["test/acc_by_weights"][name] == pytest.approx(figures["test/acc"], abs=1e-9)


def test_nets_without_batch_norm_have_nothing_to_estimate_anew(finished_run: Path) -> None:
    result = json.loads((finished_run / "result.json").read_text())
    assert result["test/acc_by_weights"].keys() == {"last", "best", "averaged"}


def test_fresh_averages_are_those_of_the_training_images(
    configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "FRESH_IMAGES", 320)
    config = configured("model=cnn_bn")
    datamodule = FashionMNIST(config.data, config.classes, parse_ops(config.augment.ops), 0)
    datamodule.setup()
    torch.manual_seed(0)
    net = build_net(config.model, 10)
    before = [parameter.clone() for parameter in net.parameters()]
    weights.refreshed(net, datamodule)
    for parameter, same in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter, same)

    first = net.features[0]
    assert isinstance(first, Block)
    assert first.norm
    batches = list(islice(chain.from_iterable(datamodule.train_dataloader()), 10))
    maps = [
        F.conv2d(images.double(), first.conv.weight.double(), padding=1) for images, _ in batches
    ]
    means = torch.stack([each.mean((0, 2, 3)) for each in maps]).mean(0)
    variances = torch.stack([each.var((0, 2, 3), correction=0) for each in maps]).mean(0)
    torch.testing.assert_close(first.norm.running_mean, means.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(first.norm.running_var, variances.float(), rtol=1e-4, atol=1e-6)


def test_predictions_are_kept_of_both_weights_and_both_splits(
    tmp_path: Path, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "FRESH_IMAGES", 320)
    limits = ("trainer.limit_test_batches=2", "trainer.limit_val_batches=3")
    result = run(configured(*TINY, "model=cnn_bn", *limits), tmp_path / "run")
    kept = np.load(tmp_path / "run" / "predictions.npz")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    average = tmp_path / "average.safetensors"
    options = {"checkpoint": str(last), "weights": "averaged", "format": "safetensors"}
    export.work(export.Options(**options, output=str(average)))
    for name, checkpoint in (("logits", last), ("averaged", average)):
        classifier = load_classifier(checkpoint)
        for split, prefix, count in (("test", "", 10_000), ("val", "val_", 750)):
            if (name, split) == ("averaged", "test"):
                count = 500
            images, labels = (each[:count] for each in load_split(classifier, split))
            logits = predict(classifier, images).logits
            np.testing.assert_allclose(kept[prefix + name], logits, rtol=1e-5, atol=1e-5)
            assert (kept[f"{prefix}labels"][:count] == labels.numpy()).all()
    scaled = torch.from_numpy(kept["logits"][:500] / result["temperature"]).double()
    targets = torch.from_numpy(kept["labels"][:500])
    for name, value in (
        ("cross_entropy", F.cross_entropy(scaled, targets)),
        ("ece", multiclass_calibration_error(scaled.softmax(1), targets, 10, n_bins=15)),
        ("brier", (scaled.softmax(1) - F.one_hot(targets)).square().sum(1).mean()),
    ):
        assert result[f"test/{name}_scaled"] == pytest.approx(value.item(), abs=1e-5)
    factor = torch.tensor(1 / result["temperature"], dtype=torch.double, requires_grad=True)
    val_logits = torch.from_numpy(kept["val_logits"]).double()
    F.cross_entropy(factor * val_logits, torch.from_numpy(kept["val_labels"])).backward()
    assert factor.grad.item() == pytest.approx(0, abs=1e-5)
    val, labels = kept["val_averaged"].argmax(1), kept["val_labels"]
    assert len(labels) == 750
    assert result["val/acc_averaged"] == pytest.approx(accuracy_score(labels, val))
    right = kept["averaged"].argmax(1) == kept["labels"][:500]
    assert result["test/acc_by_weights"]["averaged"] == right.mean()
