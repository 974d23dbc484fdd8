"""Six Fashion-MNIST classifiers on one protocol, in PyTorch Lightning and Hydra.

In Python it is a handful of functions, which take the words of the commands:

    import fmnist_pl

    result = fmnist_pl.train("model=cnn", "trainer.max_epochs=1", "hydra.run.dir=runs/first")
    rows = fmnist_pl.predict("photo.jpg", "runs/first/checkpoints/last.ckpt")

What they need, as PyTorch, is imported with the first that is used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmnist_pl.interface import (
        configure,
        evaluate,
        load,
        predict,
        read_sweep,
        run_sweep,
        train,
        write_report,
    )
    from fmnist_pl.options.messages import UserError
    from fmnist_pl.options.schema import Config

__all__ = [
    "Config",
    "UserError",
    "configure",
    "evaluate",
    "load",
    "predict",
    "read_sweep",
    "run_sweep",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("fmnist_pl.interface"), name)


def __dir__() -> list[str]:
    return list(__all__)


class _Package(ModuleType):
    """Python puts a module that is imported into its package: here a command never hides what
    has its name in the interface."""  # noqa: D205, D209

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
