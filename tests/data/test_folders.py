"""Class folders: which files are for what, and what is made of each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist_pl.data import folders, photos, source
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Data


def fill(folder: Path, counts: dict[str, int], start: int = 0) -> Path:
    """Images of which each has a grey of its own, on white, and another size than 28x28."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(start, start + count):
            pixels = np.full((40, 30), 255, np.uint8)
            pixels[5:35, 5:25] = i
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of one set, named out of order."""
    folder = fill(tmp_path / "photos", {"shoe": 21, "bag": 14})
    (folder / "README").touch()
    (folder / "bag" / ".hidden").touch()
    return folder


def names(files: folders.Labelled) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path, _ in files}


def test_a_seventh_of_each_class_is_for_the_test(root: Path) -> None:
    class_names, train, test = folders.listed(root)
    assert class_names == ["bag", "shoe"]
    assert [label for _, label in sorted(test)] == [0, 0, 1, 1, 1]
    assert len(train) == 12 + 18
    assert names(train) | names(test) == {
        f"{path.parent.name}/{path.name}" for path in root.glob("*/[0-9]*.png")
    }
    assert not names(train) & names(test)
    assert {path.parent.name for path, label in train + test if label == 0} == {"bag"}
    labels = [label for _, label in train]
    assert labels not in (sorted(labels), sorted(labels, reverse=True))  # mixed


def test_nothing_but_names_decides(root: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "moved", {"bag": 14, "shoe": 21}, start=0)
    first, second = folders.listed(root), folders.listed(other)
    for ours, theirs in zip(first[1:], second[1:], strict=True):
        assert [path.relative_to(root) for path, _ in ours] == [
            path.relative_to(other) for path, _ in theirs
        ]


def test_an_image_is_what_predict_makes_of_it(root: Path) -> None:
    data = Data("mine", format="folders", root=str(root))
    arrays, listed = source.load(data), folders.listed(root)
    for images, labels, files in (
        (arrays.train_images, arrays.train_labels, listed.train),
        (arrays.test_images, arrays.test_labels, listed.test),
    ):
        assert images.dtype == labels.dtype == np.uint8
        assert labels.tolist() == [label for _, label in files]
        [*made] = photos.read_all([path for path, _ in files], "auto", "mine")
        np.testing.assert_array_equal(images, np.stack([photo.image for photo in made]))
        assert all(photo.cutout.inverted for photo in made)


def test_images_of_28_pixels_are_taken_as_they_are(tmp_path: Path) -> None:
    small = np.zeros((28, 28), np.uint8)
    small[4:24, 6:16] = np.arange(1, 201).reshape(20, 10)  # a digit of MNIST fills 20 pixels
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(small).save(tmp_path / name / "1.png")
        Image.fromarray(255 - small).save(tmp_path / name / "2.png")
    arrays = source.load(Data("mine", format="folders", root=str(tmp_path)))
    for image in [*arrays.train_images, *arrays.test_images]:
        np.testing.assert_array_equal(image, small)


def test_train_and_test_are_taken_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 3, "b": 2})
    fill(tmp_path / "test", {"a": 1, "b": 1}, start=9)
    fill(tmp_path / "others", {"c": 1})
    class_names, train, test = folders.listed(tmp_path)
    assert class_names == ["a", "b"]
    assert names(train) == {"a/000.png", "a/001.png", "a/002.png", "b/000.png", "b/001.png"}
    assert names(test) == {"a/009.png", "b/009.png"}
    assert folders.listed(tmp_path, ["b", "a"]).class_names == ["b", "a"]  # as they are labelled
    assert sorted(label for _, label in folders.listed(tmp_path, ["b", "a"]).train) == [
        0,
        0,
        1,
        1,
        1,
    ]


def test_a_description_of_them_is_filled_in(root: Path) -> None:
    measured = source.measured(Data("mine", format="folders", root=str(root)))
    assert (measured.class_names, measured.train_images, measured.test_images) == (
        ["bag", "shoe"],
        30,
        5,
    )
    assert source.measured(measured) == measured
    folders.contents.cache_clear()
    Image.new("L", (28, 28)).save(root / "bag" / "000.png")
    with pytest.raises(UserError, match=f"data.root={root}: holds other images than mine had"):
        source.load(measured)


def delete(*pattern: str) -> Callable[[Path], None]:
    return lambda root: [path.unlink() for one in pattern for path in root.glob(one)] and None


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda root: root.rename(root.with_name("gone")), "data.root=.*: No such file"),
    "one class": (
        lambda root: (root / "shoe").rename(root.parent / "shoe"),
        r"1 folders of classes; there must be 2 to 256, as FOLDER/train/CLASS/\*",
    ),
    "an empty class": (delete("bag/*"), "bag: 0 images are too few"),
    "a class of one": (delete("bag/00[1-9].png", "bag/01*"), "bag: 1 images are too few"),
    "no image": (lambda root: (root / "bag/a.txt").write_text("a"), "a.txt: no image of a format"),
    "a folder in it": (lambda root: (root / "bag/more").mkdir(), "bag/more: not a regular file"),
    "other classes in test": (
        lambda root: [fill(root / "train", {"a": 1, "b": 1}), fill(root / "test", {"a": 1})],
        "test: has folders a; the classes are a, b",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told(root: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(root)
    with pytest.raises(UserError, match=said):
        source.measured(Data("mine", format="folders", root=str(root)))


def test_classes_of_others_are_refused(root: Path) -> None:
    data = Data("mine", format="folders", class_names=["bag", "hat"], root=str(root))
    with pytest.raises(UserError, match="has folders bag, shoe; the classes are bag, hat"):
        source.load(data)
