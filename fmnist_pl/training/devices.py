"""What trains: Lightning's Trainer on the devices asked for, and whether those can do it."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from fmnist_pl.data.augment import augment, parse_ops
from fmnist_pl.model.classifier import build_optimizer
from fmnist_pl.model.nets import build_net, penalty
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.training import cluster
from fmnist_pl.training.environment import keep_memory, quieten

# What Lightning makes of devices there are not.
REFUSALS = (ImportError, MisconfigurationException, RuntimeError, TypeError, ValueError)
TRIED = ("cpu", "cuda")  # kinds of device that have all that a run needs
ALL_THREADS = torch.get_num_threads()


def build_trainer(
    config: Config, folder: Path, callbacks: Sequence[L.Callback], loggers: Sequence[Logger] = ()
) -> L.Trainer:
    """Lightning's Trainer for a run, TensorBoard's logger before the others.

    Raises:
        UserError: there are no such devices, or other than have been started; they lack something
            that the run needs.
    """
    quieten()
    keep_memory()
    # A process may serve several runs.
    threads = config.threads or ALL_THREADS
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for processes that Lightning starts
    torch.set_float32_matmul_precision(config.float32_matmul_precision)
    torch.backends.cudnn.allow_tf32 = config.float32_matmul_precision != "highest"

    trainer = trainer_on(config.trainer.accelerator, config, folder, callbacks, loggers)
    device = trainer.strategy.root_device
    if missing := lacking(device, config):
        given = f"trainer.accelerator={config.trainer.accelerator}"
        if config.trainer.accelerator != "auto":
            raise UserError(f"{given}: {device.type} lacks what this run needs: {missing}")
        if trainer.is_global_zero:
            print(f"{given}: the CPU, since {device.type} lacks what this run needs: {missing}")
        trainer = trainer_on("cpu", config, folder, callbacks, loggers)
    if trainer.precision != config.trainer.precision:
        raise UserError(
            f"trainer.precision={config.trainer.precision}: {trainer.strategy.root_device.type} "
            f"cannot; trainer.precision={trainer.precision} is the nearest it can."
        )
    if cluster.processes() not in (1, trainer.world_size):
        raise UserError(
            f"trainer.devices={trainer.num_devices} on trainer.num_nodes={trainer.num_nodes} "
            f"nodes, but {cluster.processes()} processes have been started."
        )
    return trainer


def trainer_on(
    accelerator: str,
    config: Config,
    folder: Path,
    callbacks: Sequence[L.Callback],
    loggers: Sequence[Logger],
) -> L.Trainer:
    """Lightning's Trainer on an accelerator, whatever that can do."""
    environment = cluster_environment()
    if config.trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment):
        raise UserError(
            f"trainer.num_nodes={config.trainer.num_nodes}: it takes hydra/launcher=slurm, "
            "docs/run.sbatch or torchrun to start the processes of all nodes."
        )
    options = asdict(config.trainer) | {"accelerator": accelerator}
    for ours in ("limit_train_batches", "overfit_batches"):  # Lightning would count chunks
        del options[ours]
    if config.trainer.profiler:
        options["profiler"] = build_profiler(config.trainer.profiler, folder / "profile")
    tensorboard = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    try:
        return L.Trainer(
            **options,
            logger=[tensorboard, *loggers],
            callbacks=list(callbacks),
            plugins=[environment],
            default_root_dir=folder,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except REFUSALS as error:
        given = ", ".join(f"{name}={options[name]}" for name in ("accelerator", "devices"))
        raise UserError(f"trainer: {given}: {str(error).partition(chr(10))[0]}") from None


def build_profiler(kind: str, folder: Path) -> Profiler:
    """Lightning's profiler of a kind; PyTorch's traces twenty steps, once the first have passed."""
    if kind != "pytorch":
        simple = kind == "simple"
        return (SimpleProfiler if simple else AdvancedProfiler)(dirpath=folder, filename=kind)
    steps = torch.profiler.schedule(wait=2, warmup=2, active=20, repeat=1)
    return PyTorchProfiler(dirpath=folder, filename=kind, schedule=steps)


def cluster_environment() -> ClusterEnvironment:
    """Who started the processes of this run: SLURM, torchrun, or Lightning itself."""
    if cluster.is_task():
        return SLURMEnvironment(auto_requeue=False)
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return LightningEnvironment()


def lacking(device: torch.device, config: Config) -> str | None:
    """What keeps a device from training this run, as it says itself; nothing if it can.

    A step on two images is tried on kinds of device that are known to lack operations, and more or
    fewer of them in each version of PyTorch, as Apple's MPS.
    """
    if device.type in TRIED:
        return None
    dtype = torch.float64 if config.trainer.precision == "64-true" else torch.float32
    try:
        net = build_net(config.model, len(config.classes)).to(device, dtype)
        images = torch.rand(2, 1, 28, 28).to(device)
        images = augment(images, parse_ops(config.augment.ops), torch.Generator())
        labels = torch.zeros(2, dtype=torch.int64, device=device)
        loss = F.cross_entropy(net(images.to(dtype)), labels)
        (loss + penalty(net, config.model.l1, config.model.l2)).backward()
        build_optimizer(net, config.optimizer).step()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        return str(error).strip().partition("\n")[0]
    return None
