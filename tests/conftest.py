"""What several test files share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from fmnist_pl.config import resolve
from fmnist_pl.options.command import CONF_DIR
from fmnist_pl.options.schema import Config


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
