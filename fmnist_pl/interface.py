"""What `import fmnist_pl` gives: the commands as functions, for Python and notebooks.

They take a command's words, return what it prints or writes, and raise `UserError` with what it
says of a mistake. Settings of the process, as its number of threads, are left as they were.
"""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT
from subprocess import PIPE, STDOUT, Popen
from typing import Any

import numpy as np
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra.version import VersionBase
from numpy.typing import NDArray
from omegaconf import DictConfig

from fmnist_pl.config import resolve
from fmnist_pl.data.photos import find
from fmnist_pl.data.protocol import SIDE
from fmnist_pl.evaluate import Options as EvaluateOptions
from fmnist_pl.evaluate import on
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import load_classifier
from fmnist_pl.model.portable import located, stored_temperature
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.fields import check
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.refusals import refusal
from fmnist_pl.options.schema import Config
from fmnist_pl.predict import Item, answers, read_files, row
from fmnist_pl.predict import Options as PredictOptions
from fmnist_pl.report import summary, variants
from fmnist_pl.report.summary import Summary
from fmnist_pl.report.variants import Sweep
from fmnist_pl.sweep.compose import quoted, without_hydra
from fmnist_pl.training.folder import run
from fmnist_pl.training.trained import Result


@contextmanager
def as_before() -> Iterator[None]:
    """Leave a process as it was: threads, precision, determinism, random state, warnings."""
    threads, environment = torch.get_num_threads(), dict(os.environ)
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = range(torch.cuda.device_count())
    with warnings.catch_warnings(), torch.random.fork_rng(devices):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.allow_tf32 = tf32
            torch.backends.cudnn.benchmark = benchmark
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


def configure(*words: str) -> Config:
    """The configuration of a run, as `python -m fmnist_pl.train WORDS` has it; it can be changed.

    Args:
        words: as `model=cnn`, `optimizer.lr=0.01`.

    Raises:
        UserError: what the command would refuse before it runs.
    """
    return resolve(composed(words)[0])


@as_before()
def train(*options: str | Config, folder: str | Path | None = None) -> Result:
    """Train and test a run, or go on with one that was stopped; the content of `result.json`.

    Args:
        options: words of the command, as `model=cnn`; or a configuration alone.
        folder: of the run; if not given, `hydra.run.dir` among the words, or a new one in `runs`.

    Raises:
        UserError: what the command would refuse.
    """
    match options:
        case [Config() as config]:
            config = resolve(config)
            _, usual = composed([f"name={quoted(config.name)}", f"seed={config.seed}"])
        case _ if any(isinstance(one, Config) for one in options):
            raise UserError("a configuration is given alone; words are for `configure`.")
        case _:
            composition, usual = composed([str(word) for word in options])
            config = resolve(composition)
    folder = Path(folder or usual)
    result = run(config, folder)
    print(f"run folder  {folder}")
    return result


@as_before()
def load(checkpoint: str | Path = "bundled", trust_code: bool = False) -> Classifier:
    """The classifier of a checkpoint, a LightningModule on the CPU in evaluation mode.

    Args:
        checkpoint: of a run; bundled: the net that comes with the package.
        trust_code: import what else than `fmnist_pl` it names; that can run any code.

    Raises:
        UserError: no such file, or no checkpoint of this project.
    """
    return load_classifier(located(str(checkpoint)), trust_code)


def evaluate(
    checkpoint: str | Path | Classifier = "bundled",
    split: str = "test",
    *,
    images: str | Path | None = None,
    root: str | Path | None = None,
) -> dict[str, Any]:
    """The figures of a classifier, named as in a run's `result.json`: `test/acc` and others.

    Args:
        checkpoint: as of `load`, or what it returned.
        split: of its data set: train, val or test.
        images: a folder of photos in a subfolder for each class, in place of a split.
        root: folder of the data set; looked at first.

    Raises:
        UserError: no such checkpoint, split, photos or data set.
    """
    check(EvaluateOptions(split=split))
    classifier = checkpoint if isinstance(checkpoint, Classifier) else load(checkpoint)
    folders = (None if each is None else str(each) for each in (images, root))
    return on(classifier, split, *folders).figures


def predict(
    images: str | Path | Sequence[str | Path] | NDArray[np.uint8],
    checkpoint: str | Path | Classifier = "bundled",
    *,
    invert: str = "auto",
    calibrated: bool = False,
) -> list[dict[str, Any]]:
    """The classes of photos or of images of a data set; each as the command has it in JSON.

    An entry has `image`, `class`, `probability`, `mark` (why not to trust it, else empty) and
    `probabilities` by class. Files that cannot be read are reported on stderr and left out.

    Args:
        images: a file, a folder, a pattern, or several of them; or pixels, uint8 (N, 28, 28), light
            on black.
        checkpoint: as of `load`, or what it returned.
        invert: photos; auto: those on a light ground; yes; no.
        calibrated: divide logits by the temperature of the checkpoint, which is given by its path.

    Raises:
        UserError: no such checkpoint, or none with a temperature; no file that shows a piece;
            pixels of another form.
    """
    check(PredictOptions(images="", invert=invert))
    if calibrated and isinstance(checkpoint, Classifier):
        raise UserError(
            "calibrated=True: takes the path of a checkpoint, not what `load` returned."
        )
    classifier = checkpoint if isinstance(checkpoint, Classifier) else load(checkpoint)
    temperature = stored_temperature(located(str(checkpoint))) if calibrated else 1.0
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
            raise UserError(f"images: {images.dtype} {images.shape}: must be uint8 (N, 28, 28).")
        items = [Item(str(i), image, {}) for i, image in enumerate(images)]
    else:
        several = [images] if isinstance(images, str | Path) else images
        paths = [path for one in several for path in find(str(one))]
        if not (items := list(read_files(classifier, paths, invert))):
            raise UserError(f"images: none of {len(paths)} files shows a piece.")
    found = zip(items, *answers(classifier, items, temperature), strict=True) if items else []
    return [row(*each, classifier.class_names) for each in found]


def read_sweep(*folders: str | Path) -> Sweep:
    """The runs below some folders, finished or not.

    `runs` has each with its `config`, `epochs` and `result`; `variants` puts together those that
    differ by nothing but their seed.

    Raises:
        UserError: not a folder.
    """
    return variants.read_sweep(map(Path, folders))


def write_report(folder: str | Path, *more: str | Path, margin: float | None = None) -> Summary:
    """Write the report of some sweeps into the first folder. Printed, it is what `report` prints.

    Args:
        folder: of a sweep.
        more: of others that the report is of, too.
        margin: the smallest difference of accuracies, in [0, 1], that counts; None: 0.002, or as
            a sweep with hydra/sweeper=until_decided has planned.

    Raises:
        UserError: not a folder, or one that cannot be written.
    """
    return summary.write_report([Path(folder), *map(Path, more)], Path(folder), margin)


def run_sweep(*words: str) -> Summary:
    """Train a sweep as `python -m fmnist_pl.train -m WORDS` does, in processes of its own.

    The same call goes on where it was stopped. A notebook shows what is returned as the report.

    Args:
        words: as `model=mlp,cnn`, `seed=range(3)`, `hydra.sweep.dir=FOLDER`.

    Raises:
        UserError: what the command would refuse; a run that failed, while the others are done.
    """
    _, folder = composed(words, RunMode.MULTIRUN)
    command = [sys.executable, "-m", "fmnist_pl.train", "-m", *words]
    said = []
    with Popen(command, stdout=PIPE, stderr=STDOUT, text=True, encoding="utf-8") as process:
        assert process.stdout
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                said.append(line.strip())
        except KeyboardInterrupt:
            process.send_signal(SIGINT)
            raise
    if process.returncode:
        refused = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        raise UserError("\n".join(refused) or f"{folder}: not all runs are finished.")
    return summary.summarise([folder], folder)  # the command has written it


def composed(words: Sequence[str], mode: RunMode = RunMode.RUN) -> tuple[DictConfig, Path]:
    """What Hydra makes of the words, and the folder that it names; its global state stays.

    Raises:
        UserError: what Hydra refuses.
    """
    if flags := [word for word in words if word.startswith("-")]:
        raise UserError(f"{flags[0]}: a flag of the command; `run_sweep` is for -m.")
    version, others = VersionBase.instance().getbase(), GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(CONF_DIR, version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra
            config = hydra.compose_config("train", list(words), mode, from_shell=False)
            own = config.hydra.run if mode is RunMode.RUN else config.hydra.sweep
            return without_hydra(config), Path(own.dir)
    except Exception as error:
        if (said := refusal(error, words)) is None:
            raise
        raise UserError(str(said)) from None
    finally:
        VersionBase.instance().version_base = version
        GlobalHydra.instance().hydra = others
