"""A checkpoint as a file for elsewhere, ONNX or safetensors, checked before it is written.

    python -m fmnist_pl.export checkpoint=last.ckpt output=cnn_bn.onnx
    python -m fmnist_pl.export checkpoint=last.ckpt format=safetensors weights=averaged

Safetensors has the weights alone, in a quarter of a checkpoint's size, and all commands take it for
a checkpoint; it has their temperature, too, for predict's calibrated=true. weights=averaged is the
mean of the weights after each epoch of the second half of a run, whose folder the checkpoint is in.

The ONNX file takes `images`, float32 (N, 1, 28, 28) in [0, 1], any N, light on a black ground as
those of the data set, and gives `probabilities`, float32 (N, C). What the C classes are is in its
metadata. It needs the extra: pip install 'fmnist_pl[export]'
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_pl.data.catalogue import recalled
from fmnist_pl.files import CONFIG, write_atomically
from fmnist_pl.options.command import CheckpointOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fmnist_pl.model.classifier import Classifier

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18  # what the exporter writes without conversion
IR_VERSION = 8  # the lowest that has it; onnxruntime reads both since 1.14
TOLERANCE = 1e-5  # of a probability
BATCH_SIZE = 256  # the last batch of the test images is of another size


@dataclass
class Options(CheckpointOptions):
    output: str | None = option(None, "File to write; if not given, model.onnx or .safetensors.")
    format: str = option("onnx", "Of the file.", choices=("onnx", "safetensors"))
    weights: str = option("last", "The checkpoint's, or averaged.", choices=("last", "averaged"))


def work(options: Options) -> None:
    """Convert, check on the test images, write."""
    onnx = options.format == "onnx"
    if onnx and (missing := [package for package in PACKAGES if find_spec(package) is None]):
        raise UserError(
            f"export needs {', '.join(missing)}, not installed here: "
            "pip install 'fmnist_pl[export]'"
        )

    from fmnist_pl.model import calibration, portable
    from fmnist_pl.model.inference import load_classifier, load_split, predict

    path = Path(options.output or f"model.{options.format}")
    if not onnx and path.suffix != portable.SUFFIX:
        raise UserError(f"output={path}: must end in {portable.SUFFIX}, by which it is known.")
    classifier = load_classifier(options.checkpoint, options.trust_code)
    if options.weights == "averaged":
        average(classifier, options)
    images, labels = load_split(classifier, "test", options.data.root)
    probabilities = predict(classifier, images).probabilities
    if onnx:
        content = to_onnx(classifier)
        difference = largest_difference(content, probabilities, images)
        if not difference <= TOLERANCE:
            raise UserError(
                f"output={path}: not written. Its probabilities differ from PyTorch's by up "
                f"to {difference:.1e}, more than {TOLERANCE:.0e}: some weights may not be finite."
            )
    else:
        val_images, val_labels = load_split(classifier, "val", options.data.root)
        logits = predict(classifier, val_images).logits
        content = portable.to_bytes(classifier, calibration.temperature(logits, val_labels.numpy()))
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"output={path} cannot be written: {error.strerror}.") from None
    print(f"{path}  {printable(classifier.options.name)}-{classifier.seed}, {len(content):,} bytes")
    if onnx:
        print(f"within {difference:.1e} of PyTorch's probabilities for {len(images):,} test images")
    right = (probabilities.argmax(1) == labels.numpy()).mean()
    print(f"right on {right:.4f} of {len(images):,} test images")


def average(classifier: "Classifier", options: Options) -> None:
    """Give it the averaged weights of its run, and batch norm's averages of them.

    Raises:
        UserError: the checkpoint is not in the folder of a run, or of its first half; the run's
            operations are from elsewhere, and not trusted.
    """
    from fmnist_pl import config
    from fmnist_pl.model.inference import read
    from fmnist_pl.training.callbacks import Averaging
    from fmnist_pl.training.fit import build_datamodule
    from fmnist_pl.training.weights import refreshed

    checkpoint = Path(options.checkpoint)
    path = checkpoint.absolute().parents[1] / CONFIG
    try:
        weights = read(checkpoint)["callbacks"][Averaging.__name__]["average"]
        run = config.read(path)
    except Exception:  # every kind of file has its own
        raise UserError(
            f"weights=averaged: takes a checkpoint in the folder of its run, with {path}."
        ) from None
    if not weights.pop("n_averaged"):
        raise UserError("weights=averaged: this run is in the first half of its epochs.")
    elsewhere = [name for op in run.augment.ops for name in op if "." in name]
    if elsewhere and not options.trust_code:
        raise UserError(
            f"weights=averaged: its run has operations from elsewhere, {', '.join(elsewhere)}, "
            "which can run any code. If you trust them, give trust_code=true."
        )
    run.data.root = options.data.root
    datamodule = build_datamodule(run)
    datamodule.setup()
    classifier.net.load_state_dict(
        {name.removeprefix("module."): tensor.float() for name, tensor in weights.items()}
    )
    refreshed(classifier.net, datamodule)
    classifier.eval()


def to_onnx(classifier: "Classifier") -> bytes:
    """The content of an ONNX file: the net, softmax, and the metadata."""
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from torch import nn

    program = torch.onnx.export(
        nn.Sequential(classifier.net, nn.Softmax(dim=1)).eval(),
        (torch.zeros(2, 1, 28, 28),),
        dynamo=True,  # the exporter that is kept up; the other, TorchScript's, is deprecated
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
    )
    assert program is not None
    program.model.ir_version = IR_VERSION
    ClearMetadataAndDocStringPass()(program.model)  # paths and source lines of this machine
    program.model.metadata_props.update(
        {
            "class_names": json.dumps(classifier.class_names),
            "classes": json.dumps(classifier.hparams["classes"]),
            "data": recalled(classifier.hparams["data"]).name,
            "input": "grey images in [0, 1], light on a black ground",
            "model": classifier.options.name,
            "seed": str(classifier.seed),
            "fmnist_pl": version("fmnist_pl"),
        }
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def largest_difference(
    content: bytes, probabilities: "NDArray[np.float32]", images: "Tensor"
) -> float:
    """Between onnxruntime's and these probabilities, (N, C), of images, uint8 (N, 28, 28)."""
    import numpy as np
    from onnxruntime import InferenceSession

    from fmnist_pl.data.datamodule import to_float

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    batches = [
        session.run(["probabilities"], {"images": to_float(batch).numpy()})[0]
        for batch in images.split(BATCH_SIZE)
    ]
    return float(np.abs(np.concatenate(batches) - probabilities).max())


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
