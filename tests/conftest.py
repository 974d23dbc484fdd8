"""What several test files share."""

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir

from fmnist_pl.config import CONF_DIR, Config, resolve


@pytest.fixture(scope="session")
def configured() -> Callable[..., Config]:
    """The configuration of `python -m fmnist_pl.train OVERRIDES...`."""

    def configured(*overrides: str) -> Config:
        with initialize_config_dir(CONF_DIR, version_base="1.3"):
            return resolve(compose("train", list(overrides)))

    return configured
