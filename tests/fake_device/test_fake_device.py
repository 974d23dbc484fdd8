"""Whole runs on devices that are not the CPU, simulated, held against the same runs on the CPU.

The devices compute as the CPU does, so that the bits must be the same. Each run is made once, by
whichever test of whichever process needs it first.
"""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from fmnist_pl.options.schema import Data
from tests.conftest import with_fewer_test_images
from tests.fake_device import fake_device
from tests.faults.commands import Command
from tests.faults.conftest import without_pictures
from tests.faults.test_runs import wait_for
from tests.sweep.test_sweep import state
from tests.training.test_folder import figures, metrics

MISSING = fake_device.missing_tools()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"the device is compiled with {' and '.join(MISSING)}"
    ),
]

SHORT = (
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=36",  # two chunks
    "trainer.limit_val_batches=2",
    "embeddings=none",
)
FEW_TEST_IMAGES = 1_000
MODELS = ("mlp", "cnn", "cnn_bn", "cnn_bn_dropout", "cnn_bn_dropout_l2", "cnn_bn_dropout_l1")
OPTIONS = {
    **{model: (f"model={model}",) for model in MODELS},
    "augment=all": ("model=cnn", "augment=all"),
    "three_class": ("experiment=three_class",),
    "best": ("model=mlp", "optimizer.lr=10", "trainer.max_epochs=3", "test.checkpoint=best"),
    "embeddings=all": ("model=mlp", "embeddings=all"),
}

ON_CPU = "trainer.accelerator=cpu"
ON_FAKE = "trainer.accelerator=fake"
AUTO = {"FAKE_DEVICE_AUTO": "1"}
TWO = {"FAKE_DEVICE_COUNT": "2"}
MPS = {"FAKE_DEVICE_LACKS": "float64,aten::batch_norm_update_stats"}
TF32 = {"FAKE_DEVICE_LACKS": "float32"}
TF32_BY_DEFAULT = {"FAKE_DEVICE_LACKS": "float32_by_default"}

Environment = Mapping[str, str]
Finished = Callable[..., Path]


def prepare(devices: Environment | None, test_images: int) -> None:
    """What a process does first: make the devices, if any; leave out what takes long on any."""
    from fmnist_pl.data import source
    from fmnist_pl.drawing import projector

    def fewer(data: Data) -> tuple[Path, dict[str, bytes]]:
        folder, contents = find(data)
        return folder, with_fewer_test_images(contents, test_images)

    torch.set_num_threads(1)
    without_pictures()
    projector.tsne = lambda embeddings: embeddings[:, :2]
    find, source.find = source.find, fewer
    if devices is not None:
        os.environ.update(devices)
        fake_device.install()


def train(folder: Path, *options: str, devices: Environment | None = None) -> Command:
    """Starts a run."""
    given = (*SHORT, *options, f"hydra.run.dir={folder}")
    first = partial(prepare, devices, FEW_TEST_IMAGES)
    return Command("train", *given, cwd=folder.parent, prepare=first)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of the tests together."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fake_device"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, work: Callable[[], object]) -> Path:
    """The folder, after `work` by whoever needs it first; if that failed, it has for all."""
    done, failed = folder.with_suffix(".done"), folder.with_suffix(".failed")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failed.exists():
            pytest.fail(failed.read_text())
        if not done.exists():
            try:
                work()
            except Exception as error:
                failed.write_text(str(error))
                raise
            done.touch()
    return folder


@pytest.fixture(scope="session")
def finished(shared: Path) -> Finished:
    """The folder of a run, finished; not to be written to. Beside it, `.log` is of its devices."""

    def finished(*options: str, devices: Environment | None = None) -> Path:
        folder = shared / hashlib.sha256(repr((options, devices)).encode()).hexdigest()[:12]
        if devices is not None:
            devices = {**devices, "FAKE_DEVICE_LOG": f"{folder}.log"}
        return once(folder, lambda: train(folder, *options, devices=devices).succeeds())

    return finished


def events(log: Path) -> list[dict[str, str]]:
    """What the devices of all processes have told."""
    names = ("kind", "device", "when", "where", "what")
    return [
        dict(zip(names, line.split("\t"), strict=True))
        for file in log.iterdir()
        for line in file.read_text().splitlines()
    ]


def log_of(folder: Path) -> list[dict[str, str]]:
    return events(folder.with_suffix(".log"))


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    """What of it goes on; a process without the device can read it."""
    path = folder / "checkpoints" / f"{name}.ckpt"
    content = torch.load(path, map_location="cpu", weights_only=True)
    parts = ("state_dict", "optimizer_states")
    return {**{part: content[part] for part in parts}, "average": content["callbacks"]["Averaging"]}


def results(folder: Path) -> dict[str, Any]:
    """The figures, without what is of the machine."""
    return {name: value for name, value in figures(folder).items() if "/" in name}


def assert_same_run(run: Path, other: Path) -> None:
    """To the last bit."""
    assert_same_training(run, other)
    assert results(run) == results(other)
    ours, others = (np.load(folder / "predictions.npz") for folder in (run, other))
    np.testing.assert_array_equal(ours["logits"], others["logits"])


def assert_same_training(run: Path, other: Path) -> None:
    """To the last bit, whatever they were tested on."""
    assert metrics(run) == metrics(other)
    for name in ("last", "best"):
        torch.testing.assert_close(checkpoint(run, name), checkpoint(other, name), rtol=0, atol=0)


def assert_figures_agree(folder: Path) -> None:
    """All test figures of a run are those of its logits, and those of `evaluate`."""
    result, predictions = figures(folder), np.load(folder / "predictions.npz")
    logits, labels = predictions["logits"].astype(np.float64), predictions["labels"]
    tested = result["tested_checkpoint"]
    accuracy = (logits.argmax(1) == labels).mean()
    assert result["test/acc"] == accuracy
    assert result["test/acc_by_weights"][tested] == accuracy
    cross_entropy = -log_softmax(logits, 1)[np.arange(len(labels)), labels].mean()
    assert result["test/cross_entropy"] == pytest.approx(cross_entropy, rel=1e-6)
    evaluated = evaluation(folder, tested, len(labels))
    for name in (name for name in evaluated if name.startswith("test/")):
        assert result[name] == evaluated[name], name


def evaluation(folder: Path, name: str, images: int) -> dict[str, Any]:
    """What `evaluate` makes of a checkpoint, where there is no device."""
    into, path = folder.with_suffix(f".{name}"), folder / "checkpoints" / f"{name}.ckpt"
    options = (f"checkpoint={path}", f"folder={into}")
    without_device("evaluate", *options, cwd=folder.parent, test_images=images)
    result: dict[str, Any] = json.loads((into / "evaluation.json").read_text())
    return result


def without_device(name: str, *arguments: str, cwd: Path, test_images: int = 10_000) -> str:
    """What a command says on a machine that has none."""
    first = partial(prepare, None, test_images)
    command = Command(name, *arguments, cwd=cwd, prepare=first)
    assert command.wait() == 0, command.err
    return command.out


DEVICES = """
import torch
from tests.fake_device import fake_device
fake_device.install()

def refused(error, work):
    try:
        work()
    except error as refusal:
        return str(refusal).splitlines()[0]

first, second, cpu = torch.ones(3, device="fake"), torch.ones(3, device="fake:1"), torch.ones(3)
assert torch.accelerator.device_count() == 2
for other in (second, cpu):
    said = refused(RuntimeError, lambda: first + other)
    assert f"found at least two devices, fake:0 and {other.device}" in said, said
assert (first + torch.tensor(1.0))[cpu.long()].device == first.device
assert (second * 2).to("fake:0").device == first.device
with torch.fake.device(1):
    assert torch.empty(1, device="fake").device == second.device
assert "fake:2" in refused(RuntimeError, lambda: torch.ones(1, device="fake:2"))
assert "float64" in refused(TypeError, first.double)
assert "aten::sin" in refused(NotImplementedError, first.sin)
assert first.cos().sum().item() == cpu.cos().sum().item()
x = (1 + torch.rand(1, 1, 4, 4) / 3).requires_grad_()
kernel = torch.ones(1, 1, 3, 3)
exact = torch.conv2d(x, kernel)
rounded = torch.conv2d(x.to("fake:1"), kernel.to("fake:1"))
assert rounded.device == second.device
assert 0 < (rounded.cpu() - exact).abs().max() < 9 * 2**-10
torch.backends.cudnn.allow_tf32 = False
assert torch.equal(torch.conv2d(x.to("fake:1"), kernel.to("fake:1")).cpu(), exact)
first[first > 0]
"""


def test_the_devices_refuse_and_tell_what_gpus_do(tmp_path: Path) -> None:
    lacks = "float64,float32_by_default,aten::sin"
    environment = {**TWO, "FAKE_DEVICE_LACKS": lacks, "FAKE_DEVICE_LOG": str(tmp_path / "log")}
    subprocess.run([sys.executable, "-c", DEVICES], env={**os.environ, **environment}, check=True)
    told = {(event["kind"], event["device"]) for event in events(tmp_path / "log")}
    some = {("h2d", "1"), ("d2h", "1"), ("item", "0"), ("scalar", "0"), ("index", "0")}
    assert told >= some | {("shape", "0")}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_is_that_of_the_cpu(name: str, finished: Finished) -> None:
    on_device = finished(*OPTIONS[name], ON_FAKE, devices={})
    on_cpu = finished(*OPTIONS[name], ON_CPU)
    assert figures(on_device)["hardware"]["device"] == "fake"
    assert_same_run(on_device, on_cpu)


def test_best_is_tested_where_it_is_not_the_last(finished: Finished) -> None:
    folder = finished(*OPTIONS["best"], ON_FAKE, devices={})
    assert figures(folder)["best_epoch"] < 3
    assert_figures_agree(folder)


def test_embeddings_are_those_of_the_cpu(finished: Finished) -> None:
    options = OPTIONS["embeddings=all"]
    ours, others = finished(*options, ON_FAKE, devices={}), finished(*options, ON_CPU)
    names = [path.name for path in sorted((others / "embeddings").iterdir())]
    assert any("train" in name for name in names)
    for name in names:
        assert (ours / "embeddings" / name).read_bytes() == (
            others / "embeddings" / name
        ).read_bytes(), name


def test_mixed_precision_is_of_training_only(finished: Finished) -> None:
    options, mixed = OPTIONS["cnn_bn"], "trainer.precision=bf16-mixed"
    folder, single = finished(*options, mixed, ON_FAKE, devices={}), finished(*options, ON_CPU)
    ours, others = figures(folder)["train/loss"], figures(single)["train/loss"]
    assert ours != others
    assert ours == pytest.approx(others, abs=0.02)
    assert_figures_agree(folder)


@pytest.mark.parametrize(("first", "second"), [("fake", "fake"), ("fake", "cpu"), ("cpu", "fake")])
def test_killed_it_goes_on_here_or_there(
    first: str, second: str, tmp_path: Path, finished: Finished
) -> None:
    folder, options = tmp_path / "run", OPTIONS["cnn_bn_dropout_l1"]  # accelerator=auto
    log = {"FAKE_DEVICE_LOG": str(tmp_path / "log")}
    devices = {"fake": {**AUTO, **log}, "cpu": None}
    command = train(folder, *options, devices=devices[first])
    wait_for(folder / "checkpoints" / "last.ckpt", command)
    command.send(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    assert (tmp_path / "log").exists() == (first == "fake")
    before = (folder / "metrics.csv").read_text()
    train(folder, *options, devices=devices[second]).succeeds()
    assert (folder / "metrics.csv").read_text().startswith(before)  # no epoch is done again
    assert figures(folder)["hardware"]["device"] == second
    assert_same_run(folder, finished(*options, ON_CPU))


def test_a_run_stays_on_the_device_it_is_given(finished: Finished) -> None:
    second = ("trainer.devices=[1]", ON_FAKE)
    folder = finished(*OPTIONS["cnn_bn_dropout_l1"], *second, devices=TWO)
    assert {event["device"] for event in log_of(folder)} == {"1"}
    assert_same_run(folder, finished(*OPTIONS["cnn_bn_dropout_l1"], ON_CPU))


def test_a_device_without_float64(finished: Finished) -> None:
    folder = finished(*OPTIONS["mlp"], ON_FAKE, devices=MPS)
    assert_same_run(folder, finished(*OPTIONS["mlp"], ON_CPU))


def test_a_device_without_batch_norm_statistics(finished: Finished) -> None:
    options = (*OPTIONS["cnn_bn"], "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    folder, on_cpu = finished(*options, ON_FAKE, devices=MPS), finished(*options, ON_CPU)
    ours, others = figures(folder), figures(on_cpu)
    # The moments are summed in another order; Adam's steps make much of that where a gradient is 0.
    assert ours["train/loss"] == pytest.approx(others["train/loss"], rel=1e-5)
    for name in ("val/loss", "test/loss"):
        assert ours[name] == pytest.approx(others[name], rel=1e-2)
    assert_figures_agree(folder)


def test_a_device_that_rounds_tests_as_evaluate_does(finished: Finished) -> None:
    folder = finished(*OPTIONS["cnn_bn"], ON_FAKE, devices=TF32)
    assert results(folder) != results(finished(*OPTIONS["cnn_bn"], ON_CPU))
    assert_figures_agree(folder)


def test_single_precision_does_not_round(finished: Finished) -> None:
    folder = finished(*OPTIONS["cnn_bn"], ON_FAKE, devices=TF32_BY_DEFAULT)
    assert_same_run(folder, finished(*OPTIONS["cnn_bn"], ON_CPU))


LACKING = [
    ("aten::max_pool2d_with_indices", "model=cnn"),
    ("aten::grid_sampler_2d", "model=mlp"),
    ("float64", "trainer.precision=64-true"),
]


@pytest.mark.parametrize(("lacking", "option"), LACKING)
def test_a_device_that_cannot_is_refused(lacking: str, option: str, tmp_path: Path) -> None:
    devices = {"FAKE_DEVICE_LACKS": lacking}
    command = train(tmp_path / "run", option, ON_FAKE, devices=devices)
    command.fails_with("accelerator=fake", lacking)


@pytest.mark.parametrize(("lacking", "option"), LACKING)
def test_auto_falls_back_to_the_cpu_and_says_why(lacking: str, option: str, tmp_path: Path) -> None:
    folder, devices = tmp_path / "run", {"FAKE_DEVICE_LACKS": lacking, **AUTO}
    command = train(folder, option, devices=devices)
    assert command.wait() == 0, command.err
    said = [line for line in (command.out + command.err).splitlines() if lacking in line]
    assert len(said) == 1
    assert figures(folder)["hardware"]["device"] == "cpu"


def test_nothing_in_a_step_or_a_chunk_waits_for_the_device(finished: Finished) -> None:
    ops = "augment.ops=[{rotate: {}}, {flip_horizontal: {}}, {flip_vertical: {}}, {cutout: {}},"
    ops += " {random_crop: {}}, {noise: {}}]"
    options = ("model=cnn_bn_dropout_l1", "model.l2=0.001", ops, "trainer.max_epochs=1", ON_FAKE)

    def waits(chunks: int) -> Counter[tuple[str, str]]:
        limits = f"trainer.limit_train_batches={32 * chunks}", f"trainer.limit_val_batches={chunks}"
        events = log_of(finished(*options, *limits, devices={}))
        return Counter(
            (event["kind"], event["where"]) for event in events if event["when"] == "fit"
        )

    few = waits(1)
    assert {"h2d", "d2h"} <= {kind for kind, _ in few}
    assert waits(3) == few


@pytest.fixture(scope="session")
def swept(shared: Path) -> Path:
    """The folder of a sweep of two seeds; not to be written to."""
    folder = shared / "swept"
    program = Path(fake_device.__file__).with_name("launcher.py")
    words = ["model=mlp", "seed=0,1", "hydra.launcher.n_jobs=2", *SHORT]
    command = [sys.executable, program, "train", "-m", *words, f"hydra.sweep.dir={folder}"]
    environment = {**os.environ, **AUTO, **TWO, "FAKE_DEVICE_LOG": f"{folder}.log"}
    return once(folder, partial(subprocess.run, command, env=environment, check=True))


def test_a_sweep_trains_on_the_device(swept: Path, finished: Finished) -> None:
    for seed in (0, 1):
        run = swept / f"mlp-{seed}"
        assert state(run) == "finished"
        assert figures(run)["hardware"]["device"] == "fake"
        seeded = [f"seed={seed}"] * seed  # the first has the run of the others' tests
        assert_same_training(run, finished(*OPTIONS["mlp"], *seeded, ON_CPU))


def test_each_worker_of_a_sweep_has_a_device(swept: Path) -> None:
    log = swept.with_suffix(".log")
    used = [
        {line.split("\t")[1] for line in file.read_text().splitlines()} for file in log.iterdir()
    ]
    assert sorted(map(sorted, filter(None, used))) == [["0"], ["1"]]


@pytest.fixture
def trained(swept: Path) -> Path:
    """A run of the sweep, for the commands that take its checkpoints."""
    return swept / "mlp-1"


def test_its_checkpoints_can_be_evaluated(trained: Path) -> None:
    assert_figures_agree(trained)


def test_its_checkpoints_predict(trained: Path, tmp_path: Path) -> None:
    path = trained / "checkpoints" / "last.ckpt"
    options = (f"checkpoint={path}", "images=test:0-49", "format=json")
    rows = json.loads(without_device("predict", *options, cwd=tmp_path))
    expected = softmax(np.load(trained / "predictions.npz")["logits"][:50], 1)
    shares = [list(row["probabilities"].values()) for row in rows]
    np.testing.assert_allclose(shares, expected, atol=1e-5)


def test_its_checkpoints_go_to_the_projector(trained: Path, tmp_path: Path) -> None:
    path = trained / "checkpoints" / "last.ckpt"
    without_device("projector", f"checkpoint={path}", f"folder={tmp_path}", cwd=tmp_path)
    [file] = (tmp_path / "embeddings").glob("*.npz")
    logits = np.load(trained / "predictions.npz")["logits"]
    np.testing.assert_array_equal(np.load(file)["predictions"], logits.argmax(1))


def test_its_checkpoints_are_exported(trained: Path, tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    path = trained / "checkpoints" / "last.ckpt"
    without_device("export", f"checkpoint={path}", "output=net.onnx", cwd=tmp_path)
    session = InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    [output] = session.get_outputs()
    assert output.name == "probabilities"
