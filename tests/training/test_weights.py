"""Which weights of a run are tested, against the checkpoints and PyTorch's own arithmetic."""

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fmnist_pl.data.augment import parse_ops
from fmnist_pl.data.datamodule import FashionMNIST
from fmnist_pl.model.inference import evaluate, load_classifier, load_split, predict
from fmnist_pl.model.nets import Block, build_net
from fmnist_pl.training import weights
from fmnist_pl.training.checkpoints import Record
from fmnist_pl.training.folder import run
from tests.training.test_folder import TINY


@pytest.mark.parametrize("tested", ["last", "best"])
def test_each_accuracy_is_that_of_its_checkpoint(
    tmp_path: Path, configured: Any, tested: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "FRESH_IMAGES", 320)
    # Not the last one, or there would be nothing to tell apart.
    monkeypatch.setattr(Record, "best_row", property(lambda self: self.rows[0]))
    result = run(configured(*TINY, "model=cnn_bn", f"test.checkpoint={tested}"), tmp_path)
    for name in ("last", "best"):
        classifier = load_classifier(tmp_path / "checkpoints" / f"{name}.ckpt")
        images, labels = load_split(classifier, "test")
        figures = evaluate(classifier, predict(classifier, images), labels, "test")
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
