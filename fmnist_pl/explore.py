"""`python -m fmnist_pl.explore`: pictures of what a run of the same options is fed.

Heavy imports wait until there is work, so that `--help` and a mistake answer at once.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fmnist_pl.config import resolve
from fmnist_pl.data.augment import Op, asdict_op, parse_ops
from fmnist_pl.options.command import CONF_DIR, hydra_help
from fmnist_pl.options.messages import UserError, fail, prepare_terminal, stop_printing
from fmnist_pl.options.refusals import refusal, unknown_flag
from fmnist_pl.options.schema import Config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUBJECTS = 3  # images in the augmentation gallery, each of another class
DRAWS = 4  # versions of each that an operation makes


def main() -> None:
    """The command."""
    prepare_terminal()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over, to be told here
    if wrong := unknown_flag(sys.argv[1:]):
        fail(wrong)
    try:
        if {"-h", "--help"} & set(sys.argv):
            print(hydra_help("explore", sys.argv), flush=True)
        else:
            explore()
    except BrokenPipeError:
        stop_printing()
        sys.exit(1)
    except Exception as error:
        if (said := refusal(error)) is None:
            raise
        fail(said)


@hydra.main(version_base="1.3", config_path=CONF_DIR, config_name="explore")
def explore(options: DictConfig) -> None:
    """The pictures of a composed configuration, into Hydra's folder."""
    from fmnist_pl.drawing.gallery import write

    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        for name, meaning, figure in pictures(resolve(options)):
            path = folder / name
            write(figure, path)
            print(f"{path}  {meaning}")
    except UserError as error:
        fail(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(f"{folder}: cannot be written ({error.strerror}).")


def pictures(config: Config) -> Iterator[tuple[str, str, "Figure"]]:
    """File name, meaning and figure of each picture of the training split.

    Args:
        config: resolved.

    Raises:
        UserError: no data.
    """
    import numpy as np
    import torch

    from fmnist_pl.data import source
    from fmnist_pl.data.augment import augment
    from fmnist_pl.data.datamodule import derive_seed, regroup, split, to_float
    from fmnist_pl.drawing import dataset

    arrays = source.load(config.data)
    train, _ = split(config.data, len(arrays.train_labels))
    images, originals = arrays.train_images[train], arrays.train_labels[train]
    labels, names = regroup(originals, config.classes), list(config.classes)

    title = f"first training image: {names[labels[0]]}"
    yield "first_image.png", title, dataset.first_image(images[0], title)

    sheet = dataset.image_sheet(images[:25], labels[:25], names)
    yield "images.png", "the first 25 training images and their classes", sheet

    histogram = dataset.class_histogram(originals, config.classes, config.data.class_names)
    yield "classes.png", "how many training images each class has", histogram

    ops = parse_ops(config.augment.ops)
    first = np.sort(np.unique(originals, return_index=True)[1])[:SUBJECTS]
    subjects = to_float(torch.from_numpy(images[first]))
    generator = torch.Generator().manual_seed(derive_seed(config.seed))

    def versions(ops: list[Op]) -> Any:
        drawn = augment(subjects.repeat_interleave(DRAWS, 0), ops, generator)
        return drawn.unflatten(0, (-1, DRAWS)).squeeze(2).numpy()

    rows = {"original": subjects.numpy(), **{label(op): versions([op]) for op in ops}}
    if len(ops) > 1:
        rows["all together"] = versions(ops)
    title = "augmentation: " + (", ".join(next(iter(op)) for op in config.augment.ops) or "none")
    yield "augmentation.png", title, dataset.augmentation_gallery(rows, title)


def label(op: Op) -> str:
    """The operation's name, and below it its parameters."""
    [(name, parameters)] = asdict_op(op).items()
    words = (f"{k}: {v:g}" if isinstance(v, float) else f"{k}: {v}" for k, v in parameters.items())
    return f"{name}\n" + fill(", ".join(words), 28)


if __name__ == "__main__":
    main()
