"""Several devices, mixed precision, compiling: how a run is trained, and nothing else."""

import socket
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from fmnist_pl.data.datamodule import FashionMNIST
from fmnist_pl.model.inference import evaluate, load_classifier, predict
from fmnist_pl.model.nets import Block
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Data
from fmnist_pl.training.fit import prepare
from fmnist_pl.training.folder import run, told_if_refused
from tests.training.test_folder import TINY, figures, metrics

SHORT = (*TINY, "model=cnn_bn", "trainer.max_epochs=1", "trainer.limit_train_batches=5")
TWO = ("trainer.devices=2", "trainer.accelerator=cpu")


def block_and_batch() -> tuple[Block, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    block = Block(2, 3, batch_norm=True).double()
    assert block.norm
    block.norm.weight.data.normal_()
    return block, torch.randn(8, 2, 6, 6).double(), torch.randn(8, 3, 3, 3).double()


def train_share(rank: int, port: int, folder: Path) -> None:
    """One step of a block on every second image of a batch; its gradients, averages, output."""
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    block, images, weights = block_and_batch()
    images = images[rank::2].clone().requires_grad_()
    out = block(images)
    (out * weights[rank::2]).sum().backward()
    assert block.norm
    gradients = [parameter.grad for parameter in block.parameters()]
    for gradient in gradients:
        distributed.all_reduce(gradient)
    averages = [block.norm.running_mean, block.norm.running_var]
    torch.save([out.detach(), images.grad, *gradients, *averages], folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = get_context("spawn")
    others = [context.Process(target=train_share, args=(i, port, tmp_path)) for i in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join()
    first, second = (torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(2))

    block, images, weights = block_and_batch()
    images.requires_grad_()
    out = block(images)
    (out * weights).sum().backward()
    assert block.norm
    gradients = [parameter.grad for parameter in block.parameters()]
    expected = [out, images.grad, *gradients, block.norm.running_mean, block.norm.running_var]
    for i, whole in enumerate(expected):
        shares = [whole[0::2], whole[1::2]] if i < 2 else [whole, whole]
        torch.testing.assert_close([first[i], second[i]], shares, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_two_processes_train_on_the_batches_of_one(tmp_path: Path, configured: Any) -> None:
    # Of one step: from there Adam makes much of rounding where a gradient is 0.
    once = (*SHORT, "trainer.limit_train_batches=1")
    run(configured(*once), tmp_path / "alone")
    alone = figures(tmp_path / "alone")
    launchers = {
        "lightning": ["-m", "fmnist_pl.train"],
        "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "fmnist_pl.train"],
    }
    for name, launcher in launchers.items():
        folder = tmp_path / name
        command = [sys.executable, *launcher, *once, *TWO, f"hydra.run.dir={folder}"]
        subprocess.run(command, cwd=tmp_path, check=True)
        together = figures(folder)
        assert together["hardware"]["devices"] == 2
        assert [row["images"] for row in metrics(folder)] == ["32"]
        assert together["train/loss"] == pytest.approx(alone["train/loss"], rel=1e-5)
        assert together["val/loss"] == pytest.approx(alone["val/loss"], abs=1e-2)


@pytest.mark.slow
def test_two_processes_are_as_accurate_as_one(tmp_path: Path, configured: Any) -> None:
    epoch = ("model=mlp", "trainer.max_epochs=1", "trainer.limit_train_batches=500")
    epoch = (*epoch, "embeddings=none", "pictures=false")
    alone = run(configured(*epoch), tmp_path / "one")
    command = [sys.executable, "-m", "fmnist_pl.train", *epoch, *TWO, "hydra.run.dir=two"]
    subprocess.run(command, cwd=tmp_path, check=True)
    together = figures(tmp_path / "two")
    assert [row["images"] for row in metrics(tmp_path / "two")] == ["16000"]
    spreads = {"train/acc": 0.004, "val/acc": 0.01, "test/acc": 0.01}  # of ten seeds, alone
    for figure, spread in spreads.items():
        assert together[figure] == pytest.approx(alone[figure], abs=spread)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, configured: Any) -> dict[str, Any]:
    """The figures of a run without such options."""
    folder = tmp_path_factory.mktemp("plain")
    run(configured(*SHORT), folder)
    return figures(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", ["trainer.precision=bf16-mixed", "compile=true", "trainer.deterministic=true"]
)
def test_options_of_training_change_nothing_else(
    tmp_path: Path, configured: Any, option: str, plain: dict[str, Any]
) -> None:
    run(configured(*SHORT, option), tmp_path / "other")
    other = figures(tmp_path / "other")
    assert plain.keys() == other.keys()
    assert other["train/loss"] == pytest.approx(plain["train/loss"], abs=0.02)
    if option == "trainer.deterministic=true":
        assert {**other, "options": plain["options"]} == plain
        assert other["options"] != plain["options"]
    # Whoever has the checkpoint gets the figures of the run.
    classifier = load_classifier(tmp_path / "other" / "checkpoints" / "last.ckpt")
    datamodule = FashionMNIST(Data(), classifier.hparams["classes"])
    datamodule.setup()
    images, labels = (tensor[:500] for tensor in datamodule.splits["test"])
    again = evaluate(classifier, predict(classifier, images), labels, "test")
    assert again["test/acc"] == other["test/acc"]
    assert again["test/loss"] == other["test/loss"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["trainer.accelerator=gpu"], "accelerator=gpu, devices=1: No supported gpu backend found"),
        (["trainer.devices=none"], "devices=none: `devices` selected with `CPUAccelerator`"),
        (["trainer.strategy=nonsense"], "invalid strategy name"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_devices_that_are_not_there_are_refused(
    tmp_path: Path, configured: Any, options: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run(configured(*SHORT, *options), tmp_path)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_precision_that_the_device_has_not_is_refused(tmp_path: Path, configured: Any) -> None:
    with pytest.raises(UserError, match=r"16-mixed: cpu cannot; trainer\.precision=bf16-mixed"):
        run(configured(*SHORT, "trainer.precision=16-mixed"), tmp_path)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("precision", ["high", "highest"])
def test_single_precision_is_single_unless_asked_otherwise(
    tmp_path: Path, configured: Any, precision: str
) -> None:
    torch.backends.cudnn.allow_tf32 = precision == "highest"  # as an earlier run may have left it
    prepare(configured(*SHORT, f"float32_matmul_precision={precision}"), tmp_path)
    assert torch.backends.cudnn.allow_tf32 == (precision == "high")
    assert torch.get_float32_matmul_precision() == precision
    prepare(configured(*SHORT), tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_memory_that_is_full_on_any_device_is_one_message(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(UserError, match=r"out of memory.*data\.batch_size"),
        told_if_refused(tmp_path),
    ):
        raise error


@pytest.mark.parametrize(
    ("cores", "overrides", "words"),
    [
        (2, (), "1 thread (threads=2 is faster where nothing else runs)"),
        (1, (), "1 thread"),
        (2, ("threads=2",), "2 threads"),
        (2, ("model=mlp",), "1 thread"),
    ],
)
def test_a_run_says_what_it_trains_on(
    tmp_path: Path,
    configured: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    overrides: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.setattr("fmnist_pl.training.progress.cpu_count", lambda: cores)
    run(configured(*SHORT, "trainer.limit_train_batches=1", *overrides), tmp_path)
    assert f"trains on cpu, 32-true, {words}\n" in capsys.readouterr().out


def test_a_requeue_too_many_is_refused(
    tmp_path: Path, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(UserError, match="again 3 times; max_requeues=2"):
        run(configured(*SHORT, "max_requeues=2"), tmp_path)


def test_a_job_that_comes_back_does_not_overwrite_its_work(
    tmp_path: Path, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(configured(*SHORT, "overwrite=true"), tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run(configured(*SHORT, "overwrite=true"), tmp_path) == first  # its very seconds


@pytest.mark.parametrize(
    ("batch_size", "devices", "size"), [(32, 3, 32), (35, 7, 20), (32, 32, 16), (1, 2, 1)]
)
def test_unequal_shares_are_refused(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, devices: int, size: int
) -> None:
    class Trainer:
        global_rank, world_size = 0, devices

    datamodule = FashionMNIST(Data(batch_size=batch_size), {"a": [0], "b": list(range(1, 10))})
    datamodule.setup()
    monkeypatch.setattr(datamodule, "trainer", Trainer())
    with pytest.raises(UserError, match=f"{devices} devices .* of a batch of {size} images"):
        datamodule.train_dataloader()
