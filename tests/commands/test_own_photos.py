"""`evaluate images=FOLDER` counts what is right among one's own photos."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from fmnist_pl.data import source
from fmnist_pl.evaluate import Options, work
from fmnist_pl.model.inference import load_classifier, predict
from fmnist_pl.model.portable import BUNDLED
from fmnist_pl.options.messages import UserError
from tests.conftest import CLASS_NAMES

FOLDERS = {0: "T-shirt top", 1: "TROUSER", 9: "ankle-boot"}


@pytest.fixture
def wardrobe(tmp_path: Path) -> Path:
    data = source.load()
    for label, name in FOLDERS.items():
        folder = tmp_path / "wardrobe" / name
        folder.mkdir(parents=True)
        for i in np.flatnonzero(data.test_labels == label)[:12]:
            Image.fromarray(data.test_images[i]).save(folder / f"{i:05}.png")
    return tmp_path / "wardrobe"


def test_figures_are_those_of_the_images(
    wardrobe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (wardrobe / "TROUSER" / "notes.txt").write_text("no image")
    folder = wardrobe.parent / "figures"
    assert work(Options(images=str(wardrobe), folder=str(folder))) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {wardrobe}/TROUSER/notes.txt: no image")

    data = source.load()
    chosen = np.concatenate([np.flatnonzero(data.test_labels == label)[:12] for label in FOLDERS])
    shares = predict(load_classifier(BUNDLED), data.test_images[chosen]).probabilities
    guesses, labels = shares.argmax(1), data.test_labels[chosen]
    result = json.loads((folder / "evaluation.json").read_text())
    assert result["own/acc"] == pytest.approx((guesses == labels).mean())
    wanted = confusion_matrix(labels, guesses, labels=range(10))
    np.testing.assert_array_equal(result["own/confusion_matrix"], wanted)
    assert result["own/acc_per_class"]["Bag"] is None
    assert result["own/acc_per_class"]["Trouser"] == wanted[1, 1] / 12
    sure = shares.max(1) >= 0.9
    assert result["own/unmarked"] == sure.sum()
    assert f"{sure.sum()} without a mark, {(guesses == labels)[sure].sum()} of them right" in out
    assert sorted(result["files"].values()) == sorted("" if each else "unsure" for each in sure)
    assert (folder / "confusion_matrix.png").exists()


def test_folders_that_are_no_classes_are_told(wardrobe: Path) -> None:
    def told(images: Path) -> str:
        with pytest.raises(UserError) as raised:
            work(Options(images=str(images)))
        return str(raised.value)

    assert "'T-shirt/top'" not in told(wardrobe / "gone")
    assert "no such folder" in told(wardrobe / "gone")
    assert "no subfolder" in told(wardrobe / "TROUSER")
    (wardrobe / "hats").mkdir()
    assert "'hats' is no class; a subfolder is named by a class: T-shirt/top" in told(wardrobe)
    assert ", ".join(CLASS_NAMES) in told(wardrobe)
