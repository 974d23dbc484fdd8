"""Optimizers, schedules, callbacks, loggers, nets and starts that a configuration names."""

import csv
import inspect
import json
import sys
from collections.abc import Callable
from itertools import chain
from math import cos, pi
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from hydra.errors import ConfigCompositionException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist_pl.config import check_same, resolve
from fmnist_pl.model.inference import load_classifier
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.refusals import NOT_OURS, no_such_option
from fmnist_pl.options.schema import Config, Trainer
from fmnist_pl.report.runs import State, read_run
from fmnist_pl.training import artifacts
from fmnist_pl.training.checkpoints import Record
from fmnist_pl.training.fit import build_classifier, build_datamodule
from fmnist_pl.training.folder import run
from fmnist_pl.training.parts import check_parts
from tests.training.test_folder import StoppedError, computed, last

Configured = Callable[..., Config]
SHORT = (
    *("trainer.limit_train_batches=70", "trainer.limit_val_batches=2", "trainer.max_epochs=3"),
    *("trainer.limit_test_batches=2", "embeddings=none", "pictures=false"),
    "trainer.enable_progress_bar=false",
)


def killed_after_every_epoch(config: Config, folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """The result of a run that is killed after each checkpoint, and started again."""
    original = Record.on_train_epoch_end

    def killed(self: Record, *arguments: Any) -> None:
        original(self, *arguments)
        raise StoppedError

    with patch.context() as context:
        context.setattr(Record, "on_train_epoch_end", killed)
        for _ in range(config.trainer.max_epochs):
            with pytest.raises(StoppedError):
                run(config, folder)
            if last(folder)["callbacks"]["Record"]["stopped"]:
                break
    return run(config, folder)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "options",
    [
        "model=mlp optimizer=sgd schedule=cosine trainer.gradient_clip_val=1.0 logger=[csv]",
        "model=mlp callbacks=early_stopping callbacks.early_stopping.patience=1 "
        "callbacks.early_stopping.min_delta=0.3",
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                "model=mlp schedule=plateau schedule.patience=0 schedule.threshold=0.5",
                "model=mlp schedule=step schedule.step_size=1 trainer.accumulate_grad_batches=3",
                "model=cnn_bn_dropout schedule=onecycle",
                "model=mlp optimizer=adamw schedule=warmup",
                "model=cnn_bn callbacks=[ema,lr_monitor] trainer.log_every_n_steps=10",
            )
        ),
    ],
)
def test_a_killed_run_has_the_bits_of_one_that_was_not(
    options: str, tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(*SHORT, *options.split())
    whole = run(config, tmp_path / "whole")
    parts = killed_after_every_epoch(config, tmp_path / "parts", monkeypatch)
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    one, other = last(tmp_path / "whole"), last(tmp_path / "parts")
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
        assert computed(one[name]) == computed(other[name])
    assert whole["test/acc_by_weights"] == parts["test/acc_by_weights"]
    assert whole["epochs"] == (2 if "early_stopping" in options else 3)
    assert read_run(tmp_path / "parts").state is State.FINISHED
    if "csv" in options:
        tables = [
            (tmp_path / kind / "loggers" / "csv" / "metrics.csv").read_text()
            for kind in ("whole", "parts")
        ]
        assert tables[0] == tables[1]


def test_clipping_accumulation_and_schedule_are_those_of_a_plain_loop(
    tmp_path: Path, configured: Configured
) -> None:
    words = ["optimizer=sgd", "optimizer.lr=0.2", "optimizer.momentum=0.5", "schedule=cosine"]
    words += ["trainer.gradient_clip_val=0.3", "trainer.accumulate_grad_batches=3"]
    config = configured(*SHORT, "model=mlp", *words)
    run(config, tmp_path)

    datamodule, net = build_datamodule(config), build_classifier(config).net
    datamodule.setup()
    buffers = [torch.zeros_like(weights) for weights in net.parameters()]
    chunks, step, steps = datamodule.train_dataloader(), 0, 3 * 24  # of 70 batches, the last has 1
    for epoch in range(3):
        chunks.set_epoch(epoch)
        for i, (images, labels) in enumerate(chain.from_iterable(chunks), 1):
            (F.cross_entropy(net(images), labels) / 3).backward()
            if i % 3 and i < 70:
                continue
            gradients = [weights.grad for weights in net.parameters()]
            norm = torch.stack([(one**2).sum() for one in gradients]).sum().sqrt()
            rate = 0.1 * (1 + cos(pi * step / steps))
            with torch.no_grad():
                for weights, buffer, gradient in zip(
                    net.parameters(), buffers, gradients, strict=True
                ):
                    buffer.mul_(0.5).add_(gradient * min(1.0, 0.3 / norm))
                    weights.sub_(rate * buffer)
            net.zero_grad()
            step += 1
    assert step == steps
    trained = load_classifier(tmp_path / "checkpoints" / "last.ckpt").net
    for ours, theirs in zip(trained.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_rate_is_in_tensorboard(tmp_path: Path, configured: Configured) -> None:
    words = "schedule=step", "schedule.step_size=1", "schedule.gamma=0.5"
    run(configured(*SHORT, "model=mlp", *words), tmp_path)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    points = {event.step: event.value for event in accumulator.Scalars("lr")}
    assert points == pytest.approx({1: 1e-3, 2: 5e-4, 3: 2.5e-4})


def test_a_plateau_lowers_the_rate_as_pytorch_alone_does(
    tmp_path: Path, configured: Configured
) -> None:
    """A threshold that no loss is below: none of three epochs is better."""
    options = {"factor": 0.5, "patience": 0, "threshold": 10.0}
    words = [f"schedule.factor={options['factor']}", f"schedule.patience={options['patience']}"]
    words += ["schedule=plateau", f"+schedule.threshold={options['threshold']}"]
    run(configured(*SHORT, "model=mlp", *words), tmp_path)
    plain = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(plain, **options)
    for row in read_run(tmp_path).epochs:
        schedule.step(row["val/loss"])
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    rate = last["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == plain.param_groups[0]["lr"] == 1.25e-4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("optimizer=sgd optimizer.momentun=0.9", "momentun: torch.optim.SGD has no such argument."),
        ("optimizer=sgd optimizer.momentum=much", "momentum=much: torch.optim.SGD takes float"),
        ("optimizer=sgd optimizer.momentum=-1", "torch.optim.SGD: Invalid momentum value: -1"),
        ("optimizer._target_=torch.optim.Adan", "torch.optim.Adan cannot be imported"),
        ("optimizer._target_=torch.nn.Identity", "torch.nn.Identity makes no torch.optim.Opt"),
        ("optimizer.lr=0", "optimizer.lr=0: must be a number more than 0"),
        ("optimizer.lr=fast", "optimizer.lr=fast: must be a number"),
        ("schedule=cosine schedule.interval=day", "schedule.interval=day: must be step or epoch"),
        ("schedule=cosine schedule.tmax=3", "schedule.tmax: .*CosineAnnealingLR has no such"),
        ("schedule=cosine schedule.monitor=val/loss", "CosineAnnealingLR looks at no figure"),
        ("schedule=plateau schedule.monitor=loss", "one of val/loss, val/cross_entropy"),
        ("schedule=step schedule._target_=torch.optim.SGD", "schedule.step_size: torch.optim.SGD"),
        ("schedule.T_max=3", "schedule: lacks _target_"),
        ("callbacks=early_stopping callbacks.early_stopping.patience=x", "takes int"),
        ("callbacks.mine._target_=torch.nn.Identity", "makes no callback of Lightning"),
        ("callbacks.mine=3", "callbacks.mine=3: must be _target_"),
        ("logger=csv logger.csv.nam=x", "CSVLogger has no such argument"),
        ("logger.mine._target_=torch.nn.Identity", "must name a logger of Lightning"),
        ("model.net._target_=torch.nn.Identity model.batch_norm=true", "has no meaning"),
        ("model=resnet18 model.net._target_=torch.nn.Identity", "makes no module of features"),
        ("model=resnet18 model.net.depth=3", "model.net.depth: .* It takes num_classes"),
        ("trainer.max_time=1h", "trainer.max_time=1h: must be of the form DD:HH:MM:SS"),
        ("trainer.overfit_batches=1.5", "must be a share, up to 1.0"),
        ("init_from=nowhere.ckpt", "init_from=nowhere.ckpt: no such file"),
        ("continue_from=nowhere", "no folder of a run; it lacks config.yaml"),
        ("init_from=a continue_from=b", "a run begins with one of them"),
    ],
)
def test_what_cannot_be_made_is_refused_before_there_is_a_folder(
    words: str, said: str, tmp_path: Path, configured: Configured
) -> None:
    with pytest.raises(UserError, match=said):
        run(configured("model=mlp", *words.split()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_option_of_lightnings_trainer_is_there_or_refused_with_a_reason() -> None:
    theirs = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    ours = set(Trainer.__dataclass_fields__)
    assert ours <= theirs
    assert theirs - ours == set(NOT_OURS)
    assert no_such_option("trainer.max_steps").startswith("trainer.max_steps: no option here, sin")


def test_lightnings_options_reach_its_trainer(tmp_path: Path, configured: Configured) -> None:
    words = ["trainer.min_epochs=2", "trainer.max_time=00:01:00:00", "trainer.benchmark=true"]
    words += ["callbacks=early_stopping", "callbacks.early_stopping.stopping_threshold=100"]
    result = run(configured(*SHORT, "model=mlp", *words), tmp_path)
    assert result["epochs"] == 2  # the loss is below 100 after the first
    assert torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False


def test_time_that_is_over_ends_a_run_as_done(tmp_path: Path, configured: Configured) -> None:
    words = "trainer.max_time=00:00:00:01", "trainer.max_epochs=1000"
    result = run(configured(*SHORT, "model=mlp", *words), tmp_path)
    assert 1 <= result["epochs"] < 1000
    assert read_run(tmp_path).state is State.FINISHED


def test_the_loss_of_steps_is_given_to_loggers(tmp_path: Path, configured: Configured) -> None:
    run(configured(*SHORT, "model=mlp", "trainer.log_every_n_steps=7", "logger=csv"), tmp_path)
    with (tmp_path / "loggers" / "csv" / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss_step"]]
    assert steps == [7 * i - 1 for i in range(1, 31)]


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        ("optimizer=sgd", "optimizer=adam", "optimizer.betas"),
        ("callbacks=early_stopping", "callbacks=[]", "callbacks.early_stopping"),
        ("schedule=constant", "schedule=cosine", "schedule._target_"),
    ],
)
def test_another_optimizer_is_another_run(
    before: str, now: str, differs: str, tmp_path: Path, configured: Configured
) -> None:
    run(configured(*SHORT, "model=mlp", before, "trainer.max_epochs=1"), tmp_path)
    with pytest.raises(UserError, match=f"different configuration .*{differs}"):
        check_same(configured(*SHORT, "model=mlp", now, "trainer.max_epochs=1"), tmp_path)


def test_an_optimizer_without_a_class_is_the_studys(configured: Configured) -> None:
    assert resolve(Config("by hand")).optimizer == configured().optimizer
    of_0_1 = {"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 1e-8}
    optimizer = resolve(Config("old", optimizer=of_0_1)).optimizer
    expected = {"lr": 0.01, "betas": [0.8, 0.9], "eps": 1e-8, "fused": True}
    assert optimizer == {"_target_": "torch.optim.Adam", **expected}


def test_a_run_begins_with_given_weights(
    tmp_path: Path, configured: Configured, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(*SHORT, "model=cnn_bn"), tmp_path / "first")
    checkpoint = tmp_path / "first" / "checkpoints" / "last.ckpt"
    still = (f"init_from={checkpoint}", "optimizer=sgd", "optimizer.lr=1e-30")
    run(configured(*SHORT, "model=cnn_bn", *still), tmp_path / "same")
    first, same = (last(tmp_path / name)["state_dict"] for name in ("first", "same"))
    for name in (name for name in first if "running" not in name):
        torch.testing.assert_close(first[name], same[name], rtol=0, atol=0)

    other = ("experiment=three_class", "model=cnn_bn", *still)
    run(configured(*SHORT, *other), tmp_path / "other")
    regrouped = last(tmp_path / "other")["state_dict"]
    assert regrouped["net.head.weight"].shape == (3, 84)
    assert torch.equal(regrouped["net.features.3.weight"], first["net.features.3.weight"])
    said = capsys.readouterr().out
    assert "begins with the weights of cnn_bn-0\n" in said
    assert "cnn_bn-0; a new head for Top, Bottom, Accessories\n" in said

    with pytest.raises(UserError, match=r"cnn_bn is another net than mlp: features\.\S+ is"):
        run(configured(*SHORT, "model=mlp", f"init_from={checkpoint}"), tmp_path / "mlp")


def test_more_epochs_have_the_bits_of_a_run_that_had_them_from_the_start(
    tmp_path: Path, configured: Configured
) -> None:
    words = (*SHORT, "model=cnn_bn_dropout", "schedule=step", "schedule.step_size=3", "logger=csv")
    run(configured(*words, "trainer.max_epochs=2"), tmp_path / "short")
    longer = configured(*words, "trainer.max_epochs=4")
    whole = run(longer, tmp_path / "whole")
    longer.continue_from = str(tmp_path / "short")
    result = run(longer, tmp_path / "longer")
    assert rows(tmp_path / "whole") == rows(tmp_path / "longer")
    assert result["test/acc_by_weights"] == whole["test/acc_by_weights"]
    assert result["best_epoch"] == whole["best_epoch"]
    for path in ("loggers/csv/metrics.csv", "predictions.npz"):
        assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "longer" / path).read_bytes()
    for name in ("whole", "longer"):
        accumulator = EventAccumulator(str(tmp_path / name))
        accumulator.Reload()
        assert [event.step for event in accumulator.Scalars("val/acc")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trainer.max_epochs=2", "has 2 epochs; trainer.max_epochs=2 must be more"),
        ("trainer.max_epochs=4 optimizer.lr=0.1", r"of other options \(optimizer.lr\)"),
        ("trainer.max_epochs=4 schedule=cosine", "of other options"),
    ],
)
def test_epochs_that_do_not_go_on_are_refused(
    words: str, said: str, tmp_path: Path, configured: Configured
) -> None:
    run(configured(*SHORT, "model=mlp", "trainer.max_epochs=2"), tmp_path / "short")
    config = configured(*SHORT, "model=mlp", *words.split())
    config.continue_from = str(tmp_path / "short")
    with pytest.raises(UserError, match=said):
        run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


NETS = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("imported").touch()

class LeNet(nn.Module):
    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5), nn.BatchNorm2d(width), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten()
        )
        self.head = nn.Linear(width * 36, num_classes)

def flat(num_classes: int) -> nn.Module:
    net = LeNet(num_classes)
    net.head = nn.Linear(width := 4 * 36, num_classes + 1)
    return net
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "path" / "somebodys"
    folder.mkdir(parents=True)
    (folder / "nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    for name in [name for name in sys.modules if name.startswith("somebodys")]:
        del sys.modules[name]


def test_a_net_from_outside_is_trained_but_imported_only_for_who_trusts_it(
    tmp_path: Path, package: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "model.name=lenet", "+model.net._target_=somebodys.nets.LeNet", "model.l2=1e-4"
    config = configured(*SHORT, "model=mlp", "model.hidden=[128]", *words, "model.net.width=6")
    whole = run(config, tmp_path / "whole")
    assert whole["parameters"] == 6 * 25 + 6 + 12 + 6 * 36 * 10 + 10
    assert whole["test/penalty"] > 0
    parts = killed_after_every_epoch(config, tmp_path / "parts", monkeypatch)
    assert parts["test/acc_by_weights"] == whole["test/acc_by_weights"]
    assert "last_fresh_bn" in whole["test/acc_by_weights"]

    for name in [name for name in sys.modules if name.startswith("somebodys")]:
        del sys.modules[name]
    (package / "imported").unlink()
    checkpoint = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    assert read_run(tmp_path / "whole").state is State.FINISHED
    with pytest.raises(UserError, match=r"made by somebodys\.nets\.LeNet.*trust_code=true"):
        load_classifier(checkpoint)
    assert not (package / "imported").exists()
    assert load_classifier(checkpoint, trusted=True).options.name == "lenet"
    assert (package / "imported").exists()


def test_a_net_of_another_form_is_refused(package: Path, configured: Configured) -> None:
    words = "model=mlp", "model.hidden=[128]", "+model.net._target_=somebodys.nets.flat"
    with pytest.raises(UserError, match=r"logits \(B, 10\); they give \(2, 144\) and \(2, 11\)"):
        check_parts(configured(*words))


def test_resnet18_is_torchvisions_and_needs_no_trust(
    tmp_path: Path, configured: Configured
) -> None:
    classifier = build_classifier(configured("model=resnet18"))
    # torchvision's 11,689,512, with another first convolution and another head
    parameters = 11_689_512 - 64 * 3 * 49 + 64 * 9 - 513_000 + 5_130
    assert sum(weights.numel() for weights in classifier.parameters()) == parameters
    content = {
        "hyper_parameters": dict(classifier.hparams),
        "state_dict": classifier.state_dict(),
    }
    torch.save(content, tmp_path / "last.ckpt")
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        embeddings = classifier.eval().net.features(images)
        logits = load_classifier(tmp_path / "last.ckpt")(images)
    assert embeddings.shape == (2, 512)
    torch.testing.assert_close(logits, classifier.net.head(embeddings))


def test_debug_overfit_learns_its_batches_by_heart(tmp_path: Path, configured: Configured) -> None:
    words = "model=mlp", "debug=overfit", "trainer.limit_test_batches=1"
    result = run(configured(*words, "trainer.enable_progress_bar=false"), tmp_path)
    assert result["train/acc"] == 1
    assert result["train/loss"] < 0.05
    assert {row["images"] for row in rows(tmp_path)} == {"96"}


@pytest.mark.parametrize("mode", ["fast", "limit", "anomaly"])
def test_debug_modes_run(mode: str, tmp_path: Path, configured: Configured) -> None:
    words = ("trainer.max_epochs=1", "trainer.limit_train_batches=3") if mode == "anomaly" else ()
    quick = "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "embeddings=none"
    result = run(configured("model=mlp", f"debug={mode}", *words, *quick), tmp_path)
    assert result["epochs"] == (2 if mode == "limit" else 1)


def test_anomalies_are_found(tmp_path: Path, package: Path, configured: Configured) -> None:
    (package / "bad.py").write_text(
        NETS.replace("nn.Tanh()", "Bad()")
        + "\nclass Bad(nn.Module):\n"
        + "    def forward(self, x):\n        return (x - x).sqrt() * 0 + x\n"
    )
    words = "+model.net._target_=somebodys.bad.LeNet", "debug=anomaly"
    with pytest.raises(RuntimeError, match=r"'SqrtBackward0' returned nan"):
        run(configured(*SHORT, "model=mlp", "model.hidden=[128]", *words), tmp_path / "run")


def test_a_profile_is_a_trace(tmp_path: Path, configured: Configured) -> None:
    run(configured("model=mlp", "debug=profile", "trainer.limit_test_batches=1"), tmp_path)
    [trace] = (tmp_path / "profile").glob("*.json")
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"aten::addmm", "Optimizer.step#Adam.step"} <= names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_other_loggers_get_what_tensorboard_gets(
    name: str, tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)  # where MLflow keeps pictures
    monkeypatch.setenv("WANDB_SILENT", "true")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    options = {
        "wandb": ["logger.wandb.offline=true"],
        "mlflow": [f"logger.mlflow.tracking_uri={store}"],
    }
    config = configured(*SHORT, "model=mlp", f"logger={name}", *options[name], "pictures=true")
    killed_after_every_epoch(config, tmp_path / "run", monkeypatch)
    known = json.loads((tmp_path / "run" / "loggers" / "runs.json").read_text())
    if name == "wandb":
        folders = list(
            (tmp_path / "run" / "loggers" / "wandb").glob(f"offline-run-*-{known[name]}")
        )
        assert folders
        assert list((tmp_path / "run" / "loggers").rglob("curves*.png"))
        # Another run of the same process is another one there, too.
        other = tmp_path / "other"
        run(configured(*SHORT, "model=mlp", "seed=1", "logger=wandb", *options[name]), other)
        assert json.loads((other / "loggers" / "runs.json").read_text()) != known
        assert list((other / "loggers" / "wandb").glob("offline-run-*"))
        return
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    [found] = client.search_runs([client.get_experiment_by_name("fmnist_pl").experiment_id])
    assert found.info.run_id == known[name]
    assert found.info.run_name == "mlp-0"
    assert found.data.params["lr"] == "0.001"
    expected = {int(row["epoch"]): float(row["val/acc"]) for row in rows(tmp_path / "run")}
    history = client.get_metric_history(found.info.run_id, "val/acc")
    assert {point.step: point.value for point in history} == expected
    assert "test/acc" in found.data.metrics
    assert "figures" in [one.path for one in client.list_artifacts(found.info.run_id)]


def test_pictures_and_figures_have_the_same_names_everywhere(
    tmp_path: Path, configured: Configured
) -> None:
    assert artifacts.hyperparameters(configured())["lr"] == 1e-3
    with pytest.raises(ConfigCompositionException):
        configured("logger=nothing")
