"""What is said to the user."""

import sys
from pathlib import Path

import pytest

from fmnist_pl.options import messages


@pytest.mark.parametrize(
    ("found", "command"),
    [("/bin/tensorboard", "tensorboard"), (None, f"{sys.executable} -m tensorboard.main")],
)
def test_the_hint_works_where_no_environment_is_active(
    found: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "which", lambda name: found)
    assert messages.tensorboard(Path("runs/a")) == f"{command} --logdir runs/a"
