"""Runs side by side in one process: each has the bits, and the fate, that it has alone."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import current_thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fmnist_pl.model.classifier import Classifier
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.training import fit, turns
from fmnist_pl.training.checkpoints import Record
from fmnist_pl.training.folder import run
from fmnist_pl.training.turns import Interrupted, Turn, side_by_side
from tests.training.test_folder import TINY, StoppedError, computed, figures, last, metrics
from tests.training.test_graphs import StandIn

Configured = Callable[..., Config]
# Chunks of 32, 32, 32 and 9 batches, so that a stand-in for graphs replays some.
SHORT = (*TINY, "trainer.limit_train_batches=105", "trainer.max_epochs=2")
MLP = ("model=mlp", "model.dropout=0.5")


def give() -> None:
    turn = current_thread()
    assert isinstance(turn, Turn)
    turn.give()


def assert_same(one: Path, other: Path) -> None:
    assert computed(last(one)) == computed(last(other))
    assert metrics(one) == metrics(other)
    assert figures(one) == figures(other)


def test_each_works_until_it_gives_its_turn_away() -> None:
    said = []

    def work(name: str, turns: int) -> str:
        for number in range(turns):
            said.append(f"{name}{number}")
            give()
        return name

    works = [partial(work, "a", 2), partial(work, "b", 0), partial(work, "c", 3)]
    assert side_by_side(works) == ["a", "b", "c"]
    assert said == ["a0", "c0", "a1", "c1", "c2"]


def test_each_draws_what_it_draws_alone() -> None:
    def work(seed: int) -> list[float]:
        torch.manual_seed(seed)
        drawn = []
        for _ in range(5):
            drawn.append(torch.rand(()).item())
            give()
        return drawn

    works = [partial(work, seed) for seed in range(3)]
    expected = [torch.rand(5, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    assert side_by_side(works) == [pytest.approx(one.tolist(), abs=0) for one in expected]


class GPUGenerator:
    """As CUDA's default generator: graphs keep the state that it had when they were recorded."""

    def __init__(self, state: Iterator[int]) -> None:
        self.state = state

    def clone_state(self) -> "GPUGenerator":
        return GPUGenerator(iter(range(100)))

    def graphsafe_set_state(self, other: "GPUGenerator") -> None:
        self.state = other.state


def test_what_a_gpu_draws_is_exchanged_with_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    default = GPUGenerator(iter(()))
    monkeypatch.setattr(turns, "gpu_generators", lambda: [default])

    def work(numbers: int) -> bool:
        mine, drawn = default.state, []
        for _ in range(numbers):
            assert default.state is mine
            drawn.append(next(default.state))
            give()
        return drawn == list(range(numbers))

    assert side_by_side([partial(work, 3), partial(work, 1), partial(work, 2)]) == [True] * 3


def test_what_one_raises_ends_the_others() -> None:
    ended = []

    def work(number: int) -> None:
        try:
            for step in range(4):
                if number == step == 1:
                    raise StoppedError
                give()
        except Interrupted:
            ended.append(number)
            raise

    with pytest.raises(StoppedError):
        side_by_side([partial(work, number) for number in range(4)])
    assert sorted(ended) == [0, 2, 3]


def test_what_has_not_begun_does_not_begin() -> None:
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        raise StoppedError

    with pytest.raises(StoppedError):
        side_by_side([partial(work, number) for number in range(3)])
    assert begun == [0]


def test_a_gpu_gets_what_is_a_runs_own_on_a_stream_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []
    device = torch.device("cuda", 1)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device))
    stream = SimpleNamespace(wait_stream=lambda other: said.append(("waits for", other)))
    monkeypatch.setattr("torch.cuda.Stream", lambda on: said.append(on) or stream)
    monkeypatch.setattr("torch.cuda.current_stream", lambda on: f"that of {on}")
    monkeypatch.setattr("torch.cuda.set_stream", said.append)
    turns.Turns().on_train_start(trainer, None)  # type: ignore[arg-type]
    assert said == [device, ("waits for", "that of cuda:1"), stream]
    trainer.strategy.root_device = torch.device("mps")
    with pytest.raises(UserError, match="no runs side by side on mps"):
        turns.Turns().on_train_start(trainer, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "graphs", "turns_an_epoch"),
    [
        (MLP, False, 4),
        (MLP, True, 4),
        ((*MLP, "schedule=cosine"), False, 105),  # batch by batch
        pytest.param(("model=cnn_bn_dropout_l1",), True, 4, marks=pytest.mark.slow),
    ],
)
def test_runs_have_the_bits_that_they_have_alone(
    words: tuple[str, ...],
    graphs: bool,
    turns_an_epoch: int,
    tmp_path: Path,
    configured: Configured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = [configured(*SHORT, *words, f"seed={seed}") for seed in range(4)]
    for config in configs:
        run(config, tmp_path / "alone" / str(config.seed))
    if graphs:
        monkeypatch.setattr(fit, "CUDAGraphs", StandIn)

    # The second has been killed after an epoch, the third is finished, the last one fails.
    folders = [tmp_path / "together" / str(config.seed) for config in configs]
    original_end, original_start = Record.on_train_epoch_end, Record.on_train_epoch_start

    def killed(self: Record, *arguments: Any) -> None:
        original_end(self, *arguments)
        raise StoppedError

    with monkeypatch.context() as context:
        context.setattr(Record, "on_train_epoch_end", killed)
        with pytest.raises(StoppedError):
            run(configs[1], folders[1])
    run(configs[2], folders[2])

    def start(self: Record, trainer: Any, pl_module: Any) -> None:
        if pl_module.seed == 3 and trainer.current_epoch == 1:
            raise StoppedError
        original_start(self, trainer, pl_module)

    monkeypatch.setattr(Record, "on_train_epoch_start", start)
    chunks = []
    original_step = Classifier.training_step

    def training_step(self: Classifier, *arguments: Any) -> Any:
        chunks.append(self.seed)
        return original_step(self, *arguments)

    monkeypatch.setattr(Classifier, "training_step", training_step)

    def work(config: Config, folder: Path) -> bool:
        try:
            run(config, folder)
        except StoppedError:
            return False
        return True

    works = [partial(work, *pair) for pair in zip(configs, folders, strict=True)]
    assert side_by_side(works) == [True, True, True, False]
    for seed in range(3):
        assert_same(tmp_path / "alone" / str(seed), tmp_path / "together" / str(seed))
    assert last(folders[3])["epoch"] == 0
    assert [chunks.count(seed) / turns_an_epoch for seed in range(4)] == [2, 1, 0, 1]
    assert sum(one != other for one, other in pairwise(chunks)) > 2 * turns_an_epoch


def test_an_interrupted_run_goes_on(tmp_path: Path, configured: Configured) -> None:
    configs = [configured(*SHORT, *MLP, f"seed={seed}") for seed in range(2)]
    ended, original = [], Record.on_train_epoch_start

    def work(config: Config) -> None:
        try:
            run(config, tmp_path / "together" / str(config.seed))
        except KeyboardInterrupt:
            ended.append(config.seed)
            raise

    def start(self: Record, trainer: Any, pl_module: Any) -> None:
        original(self, trainer, pl_module)
        if pl_module.seed == 1 and trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)  # which the main thread takes

    works = [partial(work, config) for config in configs]
    with pytest.MonkeyPatch.context() as context:
        context.setattr(Record, "on_train_epoch_start", start)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                side_by_side(works)
        finally:
            signal.signal(signal.SIGINT, before)
    assert sorted(ended) == [0, 1]

    side_by_side(works)
    for config in configs:
        run(config, tmp_path / "alone" / str(config.seed))
        assert_same(tmp_path / "alone" / str(config.seed), tmp_path / "together" / str(config.seed))
