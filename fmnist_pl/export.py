"""A checkpoint as an ONNX file, checked against PyTorch before it is written.

    python -m fmnist_pl.export checkpoint=last.ckpt output=cnn_bn.onnx

It takes `images`, float32 (N, 1, 28, 28) in [0, 1], any N, a light piece of clothing on a black
ground, and gives `probabilities`, float32 (N, C). What the C classes are is in its metadata. It
needs the extra: pip install 'fmnist_pl[export]'
"""

import json
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_pl.files import write_atomically
from fmnist_pl.options.command import DataOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError, printable

if TYPE_CHECKING:
    from torch import Tensor

    from fmnist_pl.model.classifier import Classifier

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18  # what the exporter writes without conversion
IR_VERSION = 8  # the lowest that has it; onnxruntime reads both since 1.14
TOLERANCE = 1e-5  # of a probability
BATCH_SIZE = 256  # the last batch of the test images is of another size


@dataclass
class Options:
    checkpoint: str = option(help="Checkpoint of a run.")
    output: str = option("model.onnx", "File to write.")
    data: DataOptions = field(default_factory=DataOptions)


def work(options: Options) -> None:
    """Convert, check on the test images, write."""
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise UserError(
            f"export needs {', '.join(missing)}, not installed here: "
            "pip install 'fmnist_pl[export]'"
        )

    from fmnist_pl.model.inference import load_classifier, load_split

    classifier = load_classifier(options.checkpoint)
    images, _ = load_split(classifier, "test", options.data.root)
    content = to_onnx(classifier)
    difference = largest_difference(content, classifier, images)
    if not difference <= TOLERANCE:
        raise UserError(
            f"output={options.output}: not written. Its probabilities differ from PyTorch's by up "
            f"to {difference:.1e}, more than {TOLERANCE:.0e}: some weights may not be finite."
        )
    path = Path(options.output)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"output={path} cannot be written: {error.strerror}.") from None
    print(f"{path}  {printable(classifier.options.name)}-{classifier.seed}, {len(content):,} bytes")
    print(f"within {difference:.1e} of PyTorch's probabilities for {len(images):,} test images")


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
            "input": "grey images in [0, 1], a light piece of clothing on a black ground",
            "model": classifier.options.name,
            "seed": str(classifier.seed),
            "fmnist_pl": version("fmnist_pl"),
        }
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def largest_difference(content: bytes, classifier: "Classifier", images: "Tensor") -> float:
    """Between the probabilities of onnxruntime and of PyTorch, of images, uint8 (N, 28, 28)."""
    import numpy as np
    from onnxruntime import InferenceSession

    from fmnist_pl.data.datamodule import to_float
    from fmnist_pl.model.inference import predict

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    batches = [
        session.run(["probabilities"], {"images": to_float(batch).numpy()})[0]
        for batch in images.split(BATCH_SIZE)
    ]
    probabilities = predict(classifier, images).probabilities
    return float(np.abs(np.concatenate(batches) - probabilities).max())


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
