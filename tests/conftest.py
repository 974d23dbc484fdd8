"""What several test files share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from fmnist_pl.config import resolve
from fmnist_pl.data import idx
from fmnist_pl.data.catalogue import named
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.schema import Config

FASHION = named("fashion_mnist")
CLASS_NAMES = tuple(FASHION.class_names)


def with_fewer_test_images(contents: dict[str, bytes], count: int) -> dict[str, bytes]:
    """What the files of a data set hold, the first test images alone among it."""
    fewer = {name: idx.encode(idx.parse(contents[name])[:count]) for name in idx.FILES[2:]}
    return contents | fewer


@pytest.fixture(scope="session")
def configured() -> Callable[..., Config]:
    """The configuration of `python -m fmnist_pl.train OVERRIDES...`."""

    def configured(*overrides: str) -> Config:
        with initialize_config_dir(CONF_DIR, version_base="1.3"):
            return resolve(compose("train", list(overrides)))

    return configured


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, configured: Callable[..., Config]
) -> Path:
    """The folder of an MLP's run, short but tested on all test images; not to be written to."""
    from fmnist_pl.training.folder import run

    folder = tmp_path_factory.mktemp("runs") / "mlp-0"
    overrides = ("model=mlp", "seed=0", "trainer.max_epochs=2", "trainer.limit_train_batches=300")
    run(configured(*overrides, "embeddings=none"), folder)
    return folder
