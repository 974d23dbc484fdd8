"""A classifier as one small file: weights, and how the net is built. Safetensors holds no code.

The one that comes with the package is such a file; docs/photos.md says how it was made.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save

from fmnist_pl.files import CHECKPOINTS, RESULT
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.options.messages import UserError

SUFFIX = ".safetensors"
BUNDLED = Path(__file__).with_name(f"cnn_bn{SUFFIX}")


def located(checkpoint: str) -> str | Path:
    """The file of a checkpoint, or of the one that comes with the package: `bundled`."""
    return BUNDLED if checkpoint == "bundled" else checkpoint


def to_bytes(classifier: Classifier, temperature: float) -> bytes:
    """The content of a file that `load_classifier` reads."""
    weights = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
    hyper_parameters = json.dumps(dict(classifier.hparams))
    metadata = {"temperature": repr(temperature), "fmnist_pl": version("fmnist_pl")}
    return save(weights, {"hyper_parameters": hyper_parameters, **metadata})


def read(path: str | Path) -> dict[str, Any]:
    """`hyper_parameters` and `state_dict`, as a checkpoint of Lightning has them; `temperature`."""
    with safe_open(path, "pt") as file:
        return {
            **file.metadata(),
            "hyper_parameters": json.loads(file.metadata()["hyper_parameters"]),
            "state_dict": {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
        }


def stored_temperature(checkpoint: str | Path) -> float:
    """By what to divide the logits of a checkpoint: its run has found it, or its export.

    Raises:
        UserError: the run has not finished, or has tested another checkpoint; there is no run.
    """
    path = Path(checkpoint).absolute()
    run = path.parent.parent
    try:
        if path.suffix == SUFFIX:
            return float(read(path)["temperature"])
        result = json.loads((run / RESULT).read_text(encoding="utf-8"))
        tested, temperature = result["tested_checkpoint"], float(result["temperature"])
    except Exception:  # every kind of file has its own
        raise UserError(
            f"calibrated=true: no temperature for {checkpoint}. One has the tested checkpoint in "
            "the folder of its finished run, and a file of export format=safetensors."
        ) from None
    if path != run / CHECKPOINTS / f"{tested}.ckpt":
        raise UserError(
            f"calibrated=true: {run / RESULT} has the temperature of {tested}.ckpt, which was "
            f"tested, not of checkpoint={checkpoint}."
        )
    return temperature
