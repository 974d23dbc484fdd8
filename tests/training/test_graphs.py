"""Chunks that are recorded and replayed: with a stand-in for CUDA's graphs, the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.profilers import PassThroughProfiler

from fmnist_pl.model.classifier import Outputs, build_optimizer
from fmnist_pl.options.schema import Config
from fmnist_pl.training import artifacts, fit
from fmnist_pl.training.checkpoints import Record
from fmnist_pl.training.folder import run
from fmnist_pl.training.graphs import CUDAGraphs, Replay
from tests.training.test_folder import StoppedError, computed, last, metrics

# Chunks of 32, 32, 32 and 9 batches: the first is done as it is, the second recorded, the third
# replayed; in the next epoch, all.
SHORT = (
    *("trainer.max_epochs=2", "trainer.limit_train_batches=105", "trainer.limit_val_batches=1"),
    *("trainer.limit_test_batches=1", "embeddings=none", "pictures=false"),
)
PLAIN = "optimizer=sgd", "~optimizer.momentum", "~optimizer.fused"
MODELS = [
    pytest.param(model, marks=[] if model == "cnn_bn_dropout" else pytest.mark.slow)
    for model in (
        *("mlp", "cnn", "cnn_bn", "cnn_bn_dropout", "cnn_bn_dropout_l1", "cnn_bn_dropout_l2"),
    )
]


class StandIn(CUDAGraphs):
    """As a graph does it: nothing when recorded, then always in the same tensors."""

    recorded = 0

    def holds(self, trainer: L.Trainer) -> bool:
        return True

    def warm_up(self, work: Replay) -> Outputs:
        return work()

    def record(self, work: Replay) -> Replay:
        StandIn.recorded += 1
        kept: list[torch.Tensor] = []

        def replay() -> Outputs:
            outputs = work()
            if not kept:
                kept.extend(outputs)
            for mine, new in zip(kept, outputs, strict=True):
                mine.copy_(new)
            return kept[0], kept[1], kept[2]

        return replay


@pytest.fixture(autouse=True)
def training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "ARTIFACTS", (artifacts.figures, artifacts.predictions))


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = last(one), last(other)
    assert ours["global_step"] == theirs["global_step"] == 210
    for name in ("state_dict", "optimizer_states", "callbacks"):
        assert computed(ours[name]) == computed(theirs[name])
    assert metrics(one) == metrics(other)


@pytest.mark.parametrize(
    "words", [["model=cnn_bn_dropout_l2"], ["model=mlp", "trainer.precision=bf16-mixed"]]
)
def test_steps_past_lightning_are_counted_and_the_same(
    words: list[str],
    tmp_path: Path,
    configured: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured(*words, *SHORT)
    run(config, tmp_path / "directly")
    monkeypatch.setattr(fit, "steps_directly", lambda *_: False)
    run(config, tmp_path / "by Lightning")
    assert_same(tmp_path / "directly", tmp_path / "by Lightning")


@pytest.mark.parametrize("model", MODELS)
def test_replayed_chunks_have_the_bits_of_the_steps(
    model: str, tmp_path: Path, configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(f"model={model}", *SHORT)
    run(config, tmp_path / "plain")
    monkeypatch.setattr(StandIn, "recorded", 0)
    monkeypatch.setattr(fit, "CUDAGraphs", StandIn)
    run(config, tmp_path / "graphed")
    assert StandIn.recorded == 2  # of either shape
    assert last(tmp_path / "plain")["loops"] == last(tmp_path / "graphed")["loops"]
    assert_same(tmp_path / "plain", tmp_path / "graphed")


def test_a_run_goes_on_with_graphs_of_its_own(
    tmp_path: Path, configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured("model=cnn_bn_dropout_l1", *SHORT)
    run(config, tmp_path / "plain")

    monkeypatch.setattr(fit, "CUDAGraphs", StandIn)
    original = Record.on_train_epoch_start

    def killed(self: Record, *arguments: Any) -> None:
        if self.rows:
            raise StoppedError
        original(self, *arguments)

    monkeypatch.setattr(Record, "on_train_epoch_start", killed)
    with pytest.raises(StoppedError):
        run(config, tmp_path / "graphed")
    assert last(tmp_path / "graphed")["global_step"] == 105
    monkeypatch.setattr(Record, "on_train_epoch_start", original)
    run(config, tmp_path / "graphed")
    assert_same(tmp_path / "plain", tmp_path / "graphed")


@pytest.mark.parametrize("options", [("compile=true",), ("cuda_graphs=false",)])
def test_graphs_can_be_done_without(
    options: tuple[str, ...], tmp_path: Path, configured: Callable[..., Config]
) -> None:
    def callbacks(*overrides: str) -> list[Any]:
        trainer = fit.prepare(configured("model=mlp", *SHORT, *overrides), tmp_path)
        return [one for one in trainer.callbacks if isinstance(one, CUDAGraphs)]

    assert callbacks()
    assert not callbacks(*options)


@pytest.mark.parametrize(
    ("device", "world_size", "precision", "options", "expected"),
    [
        ("cuda", 1, "32-true", (), True),
        ("cuda", 1, "bf16-mixed", (), True),
        ("cuda", 1, "32-true", ("optimizer=sgd",), True),
        ("cuda", 1, "32-true", ("optimizer._target_=torch.optim.AdamW",), True),
        ("cuda", 1, "32-true", ("~optimizer.fused",), False),  # counts its steps on the CPU
        ("cuda", 1, "32-true", ("optimizer._target_=torch.optim.NAdam", "~optimizer.fused"), False),
        ("cuda", 1, "32-true", (*PLAIN, "optimizer._target_=torch.optim.LBFGS"), False),
        ("cuda", 1, "32-true", ("schedule=cosine",), False),
        ("cuda", 1, "16-mixed", (), False),
        ("cuda", 2, "32-true", (), False),
        ("cpu", 1, "32-true", (), False),
    ],
)
def test_where_graphs_hold(
    device: str,
    world_size: int,
    precision: str,
    options: tuple[str, ...],
    expected: bool,
    configured: Callable[..., Config],
) -> None:
    class Strategy:
        root_device = torch.device(device)

    class Trainer:
        strategy = Strategy()

    trainer: Any = Trainer()
    trainer.world_size, trainer.precision, trainer.callbacks = world_size, precision, [CUDAGraphs()]
    config = configured("model=mlp", *options)
    trainer.lightning_module = classifier = fit.build_classifier(config)
    trainer.optimizers = [build_optimizer(classifier, config.optimizer)]
    trainer.profiler, trainer.gradient_clip_val = PassThroughProfiler(), None
    trainer.accumulate_grad_batches = 1
    classifier.automatic_optimization = not fit.steps_directly(trainer, classifier)
    assert CUDAGraphs().holds(trainer) is expected
