"""The eight configurations of the study, and the figures it printed of them.

Names do not decide which of them a run is, options do.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from fmnist_pl.config import resolve
from fmnist_pl.data.augment import Cutout, FlipHorizontal, Rotate, asdict_op, spell_out
from fmnist_pl.options.schema import FASHION_MNIST, Config, Model

CNN: dict[str, Any] = {"channels": [32, 32], "hidden": [128, 84]}
NETS = {
    "mlp": Model("mlp", hidden=[128]),
    "cnn": Model("cnn", **CNN),
    "cnn_bn": Model("cnn_bn", **CNN, batch_norm=True),
    "cnn_bn_dropout": Model("cnn_bn_dropout", **CNN, batch_norm=True, dropout=0.2),
    "cnn_bn_dropout_l2": Model("cnn_bn_dropout_l2", **CNN, batch_norm=True, dropout=0.2, l2=1e-4),
    "cnn_bn_dropout_l1": Model("cnn_bn_dropout_l1", **CNN, batch_norm=True, dropout=0.2, l1=1e-4),
}
ARMS = ("vanilla", "three_class", *NETS)  # the eight configurations of the study
TEN = [[label] for label in range(10)]
THREE = [[0, 2, 3, 4, 6], [1, 5, 7, 9], [8]]
STANDARD = [asdict_op(op) for op in (Rotate(5.0), FlipHorizontal(0.5), Cutout(0.5, 1, 9, 0.02))]
# The study's own setting, its data among it.
STUDY = resolve(Config(name=""))


def arm_of(config: Config) -> str | None:
    """The study's name for what a configuration trains, whatever its own names; None: not of it.

    The study is of Fashion-MNIST.
    """
    if config.data.name != FASHION_MNIST:
        return None
    nets = [name for name, net in NETS.items() if replace(config.model, name=name) == net]
    ops, groups = spell_out(config.augment.ops), list(config.classes.values())
    if nets == ["mlp"] and not ops and groups in (TEN, THREE):
        return "vanilla" if groups == TEN else "three_class"
    return nets[0] if nets and ops == STANDARD and groups == TEN else None


@cache
def published() -> dict[str, dict[str, Any]]:
    """By arm what the study printed: `epochs`, `test_loss`, `test_acc`, `test_acc_per_class`."""
    text = Path(__file__).with_name("published.json").read_text(encoding="utf-8")
    numbers: dict[str, dict[str, Any]] = json.loads(text)
    return numbers
