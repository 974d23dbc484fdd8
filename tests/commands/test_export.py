"""The ONNX file, read by onnxruntime, gives PyTorch's probabilities and says what they are of."""

import copy
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnxruntime import InferenceSession

from fmnist_pl import export
from fmnist_pl.data import source
from fmnist_pl.model.classifier import Classifier
from fmnist_pl.model.inference import load_classifier, predict
from fmnist_pl.model.portable import located, stored_temperature
from fmnist_pl.options.messages import UserError
from tests.conftest import CLASS_NAMES

MODELS = ("mlp", "cnn", "cnn_bn", "cnn_bn_dropout", "cnn_bn_dropout_l2", "cnn_bn_dropout_l1")


def classifier_of(config: Any) -> Classifier:
    """With random weights, running averages too, that make probabilities of every size."""
    classifier = Classifier(asdict(config.model), config.classes, config.optimizer, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in classifier.net.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                tensor.uniform_(0.05, 0.2, generator=generator)
        classifier.net.head.weight.mul_(6)
    return classifier.eval()


def session_of(content: bytes) -> InferenceSession:
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    return InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("model", MODELS)
def test_every_model_gives_pytorchs_probabilities(model: str, configured: Any) -> None:
    experiment = ["experiment=three_class"] if model == "mlp" else []
    classifier = classifier_of(configured(*experiment, f"model={model}"))
    session = session_of(export.to_onnx(classifier))
    pixels = source.load().test_images[:300, None] / np.float32(255)
    exact = copy.deepcopy(classifier).double()
    with torch.inference_mode():
        wanted = exact(torch.from_numpy(pixels).double()).softmax(1).numpy()
    assert np.ptp(wanted, axis=0).max() > 0.25  # they depend on the image
    for n in (1, 7, 300):
        [probabilities] = session.run(None, {"images": pixels[:n]})
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, wanted[:n], atol=1e-5)


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "mlp = 1.onnx"
    checkpoint = str(finished_run / "checkpoints" / "last.ckpt")
    export.work(export.Options(checkpoint=checkpoint, output=str(path)))
    return path


def test_the_file_gives_the_accuracy_of_the_run(exported: Path, finished_run: Path) -> None:
    data = source.load()
    session = session_of(exported.read_bytes())
    pixels = data.test_images[:, None] / np.float32(255)
    [probabilities] = session.run(["probabilities"], {"images": pixels})
    result = json.loads((finished_run / "result.json").read_text())
    assert (probabilities.argmax(1) == data.test_labels).mean() == result["test/acc"]


def test_the_file_says_what_it_takes_and_gives(exported: Path) -> None:
    session = session_of(exported.read_bytes())
    [taken], [given] = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(float)", ["N", 1, 28, 28])
    assert (given.name, given.type, given.shape) == ("probabilities", "tensor(float)", ["N", 10])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(CLASS_NAMES)
    assert json.loads(metadata["classes"]) == {name: [i] for i, name in enumerate(CLASS_NAMES)}
    assert (metadata["model"], metadata["seed"]) == ("mlp", "0")
    assert (metadata["data"], "light on" in metadata["input"]) == ("fashion_mnist", True)


def test_old_runtimes_can_read_the_file(exported: Path) -> None:
    model = onnx.load(exported)
    assert model.ir_version == onnx.helper.find_min_ir_version_for(model.opset_import)


def test_the_file_is_all_there_is(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]
    assert b"fmnist_pl/nets.py" not in exported.read_bytes()
    assert b"site-packages" not in exported.read_bytes()


@pytest.mark.parametrize("value", [float("nan"), 1e-3])
def test_nothing_is_written_if_the_file_computes_something_else(
    value: float, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_onnx = export.to_onnx

    def spoilt(classifier: Classifier) -> bytes:
        other = copy.deepcopy(classifier)
        with torch.no_grad():
            other.net.head.bias[0] += value
        return to_onnx(other)

    monkeypatch.setattr(export, "to_onnx", spoilt)
    checkpoint = str(finished_run / "checkpoints" / "last.ckpt")
    output = tmp_path / "model.onnx"
    output.write_text("the old one")
    with pytest.raises(UserError, match=r"not written. Its probabilities differ .* 1e-05"):
        export.work(export.Options(checkpoint=checkpoint, output=str(output)))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert output.read_text() == "the old one"


def test_a_folder_that_does_not_exist_is_named(finished_run: Path, tmp_path: Path) -> None:
    checkpoint = str(finished_run / "checkpoints" / "last.ckpt")
    output = str(tmp_path / "gone" / "model.onnx")
    with pytest.raises(UserError, match=r"output=.*gone/model.onnx cannot be written: No such"):
        export.work(export.Options(checkpoint=checkpoint, output=output))


def test_missing_packages_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"needs no_such_package.*pip install 'fmnist_pl\[export"):
        export.work(export.Options(checkpoint="last.ckpt"))


def test_averaged_weights_are_a_small_file_that_all_commands_read(
    finished_run: Path, tmp_path: Path
) -> None:
    checkpoint, output = finished_run / "checkpoints" / "last.ckpt", tmp_path / "mlp.safetensors"
    words = {"format": "safetensors", "weights": "averaged", "output": str(output)}
    export.work(export.Options(checkpoint=str(checkpoint), **words))
    result = json.loads((finished_run / "result.json").read_text())
    assert output.stat().st_size < checkpoint.stat().st_size / 2
    data, classifier = source.load(), load_classifier(output)
    right = predict(classifier, data.test_images).logits.argmax(1) == data.test_labels
    assert right.mean() == result["test/acc_by_weights"]["averaged"]


def test_the_small_file_has_the_temperature_of_its_weights(
    finished_run: Path, tmp_path: Path
) -> None:
    checkpoint, output = finished_run / "checkpoints" / "last.ckpt", tmp_path / "mlp.safetensors"
    words = {"format": "safetensors", "output": str(output)}
    export.work(export.Options(checkpoint=str(checkpoint), **words))
    assert stored_temperature(output) == pytest.approx(stored_temperature(checkpoint), rel=1e-5)
    assert 0.5 < stored_temperature(located("bundled")) < 2


def test_operations_of_a_run_are_not_imported_unasked(finished_run: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    shutil.copy(finished_run / "checkpoints" / "last.ckpt", checkpoint)
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    config["augment"]["ops"] = [{"no_such.module.Op": {}}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    given = {"weights": "averaged", "format": "safetensors", "checkpoint": str(checkpoint)}
    with pytest.raises(UserError, match=r"operations from elsewhere, no_such.module.Op.*trust"):
        export.work(export.Options(**given))
    with pytest.raises(UserError, match="cannot be imported"):
        export.work(export.Options(**given, trust_code=True))
