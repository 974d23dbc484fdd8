"""A piece is found on any plain ground, and what is no such photo is marked or refused.

The photos are made: test images enlarged on grounds of every kind. Real ones come with libraries.
"""

from collections.abc import Callable
from typing import Any

import matplotlib.cbook
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.special import softmax
from sklearn.datasets import load_sample_images

from fmnist_pl.data import source
from fmnist_pl.data.cutout import Cutout, cut_out, to_lab
from fmnist_pl.data.photos import mark
from fmnist_pl.model.inference import load_classifier, predict, predict_photos
from fmnist_pl.model.portable import BUNDLED

Pixels = NDArray[np.uint8]
PIECE = 168  # pixels that the 28 of an image are enlarged to


def photo(
    pixels: Pixels,
    ground: int | NDArray[np.floating[Any]] = 255,
    noise: float = 0,
    light: bool = False,
    size: int = 256,
    at: tuple[int, int] = (44, 44),
    shadow: float = 0,
    gradient: float = 0,
    seed: int = 0,
) -> Image.Image:
    """A piece that darkens a ground, or lightens it.

    Args:
        pixels: of the data set.
        ground: grey of it, or a picture (size, size).
        noise: standard deviation.
        light: whether it lightens it.
        size: of the photo.
        at: row and column of the piece.
        shadow: how much of the ground's light it takes.
        gradient: how much darker the ground is on the right.
        seed: of the noise.
    """
    place = (slice(at[0], at[0] + PIECE), slice(at[1], at[1] + PIECE))
    piece, opaque = np.zeros((2, size, size))
    for canvas, image in ((piece, pixels), (opaque, (pixels > 12) * np.uint8(255))):
        canvas[place] = Image.fromarray(image).resize((PIECE, PIECE), Image.Resampling.BICUBIC)
    opaque /= 255
    under = ground - gradient * np.linspace(0, 1, size) * np.ones((size, 1))
    under *= 1 - shadow * ndimage.gaussian_filter(np.roll(opaque, (10, 10), (0, 1)), 8)
    grey = under + (255 - under) * piece / 255 if light else under * (1 - piece / 255)
    grey += np.random.default_rng(seed).normal(0, noise, grey.shape)
    return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))


def cut(image: Image.Image) -> Cutout:
    cutout = cut_out(image, "auto")
    assert cutout
    return cutout


GROUNDS: dict[str, dict[str, Any]] = {
    "255": {"ground": 255},
    "240": {"ground": 240},
    "225": {"ground": 225},
    "225, noise": {"ground": 225, "noise": 4},
    "180, noise": {"ground": 180, "noise": 4},
    "light on black": {"ground": 0, "light": True},
    "light on 30, noise": {"ground": 30, "noise": 4, "light": True},
    "off centre": {"ground": 240, "noise": 2, "size": 320, "at": (120, 140)},
    "soft shadow": {"ground": 240, "noise": 2, "shadow": 0.25},
    "gradient": {"ground": 245, "noise": 2, "gradient": 60},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GROUNDS)
def test_a_ground_costs_little(kind: str) -> None:
    classifier, data = load_classifier(BUNDLED), source.load()
    images, labels = data.test_images[:300], data.test_labels[:300]
    cutouts = [cut(photo(image, **GROUNDS[kind], seed=i)) for i, image in enumerate(images)]
    found, fitted = (
        np.stack([getattr(each, name) for each in cutouts]) for name in ("image", "fitted")
    )
    guesses = predict_photos(classifier, found, fitted).logits.argmax(1)
    wanted = predict(classifier, images).logits.argmax(1)
    lost = (wanted == labels).sum() - (guesses == labels).sum()
    assert lost <= (4 if kind == "soft shadow" else 3)  # what lies in it is darker
    assert np.mean([bool(each.doubt) for each in cutouts]) < 0.02


def test_what_was_found_is_seen_both_ways_round() -> None:
    classifier, images = load_classifier(BUNDLED), source.load().test_images[:6]
    fitted = np.array([True, False] * 3)
    straight, mirrored = (predict(classifier, each) for each in (images, images[:, :, ::-1].copy()))
    found = predict_photos(classifier, images, fitted)
    mean = (softmax(straight.logits, 1) + softmax(mirrored.logits, 1)) / 2
    np.testing.assert_allclose(found.probabilities[fitted], mean[fitted], atol=1e-6)
    np.testing.assert_array_equal(found.logits[~fitted], straight.logits[~fitted])


@pytest.mark.slow
def test_both_ways_round_are_right_more_often() -> None:
    classifier, data = load_classifier(BUNDLED), source.load()
    every = np.ones(10_000, bool)
    straight = predict(classifier, data.test_images).logits.argmax(1) == data.test_labels
    both = predict_photos(classifier, data.test_images, every).logits.argmax(1) == data.test_labels
    for half in (slice(5_000), slice(5_000, None)):
        assert both[half].mean() > straight[half].mean() + 0.002


@pytest.mark.parametrize("kind", GROUNDS)
def test_what_is_cut_out_is_the_image(kind: str) -> None:
    images = source.load().test_images[:8]
    cutouts = [cut(photo(image, **GROUNDS[kind], seed=i)) for i, image in enumerate(images)]
    for cutout, image in zip(cutouts, images, strict=True):
        assert cutout.inverted is ("light" not in kind)
        assert (cutout.image[image == 0] == 0).mean() > 0.6  # the ground
        assert cutout.image.any(0).sum() == 28 or cutout.image.any(1).sum() == 28
    alike = [
        np.corrcoef(each.image.ravel(), image.ravel())[0, 1]
        for each, image in zip(cutouts, images, strict=True)
    ]
    assert np.median(alike) > (0.85 if kind == "soft shadow" else 0.9)  # some of it stays


@pytest.mark.parametrize(
    ("ground", "piece", "seen"),
    [
        (255, 100, 155),
        (200, 100, 128),  # as if the ground were white: 255 * (1 - 100 / 200)
        (40, 100, 71),  # black: 255 * (100 - 40) / (255 - 40)
        (200, 240, 15),  # white on grey: as it is
        (130, 40, 215),  # no paper
    ],
)
def test_a_dim_ground_is_paper(ground: int, piece: int, seen: int) -> None:
    pixels = np.full((100, 100), ground, np.uint8)
    pixels[20:80, 30:70] = piece
    found = cut(Image.fromarray(pixels)).image
    assert abs(int(found[14, 14]) - seen) <= 1
    assert not found[:, :4].any()


def test_images_of_the_data_set_stay_as_they_are() -> None:
    data = source.load()
    for image in [*data.test_images, *data.train_images[[26299, 41623]]]:  # the border of two: grey
        same = cut(Image.fromarray(image))
        np.testing.assert_array_equal(same.image, image)
        assert (same.inverted, same.doubt) == (False, "")
    for image in data.test_images[:1000]:
        turned = cut(Image.fromarray(255 - image))
        np.testing.assert_array_equal(turned.image, image)
        assert turned.inverted


def test_a_small_image_with_a_margin_is_trimmed() -> None:
    image = source.load().test_images[1]
    small = Image.new("L", (28, 28))
    small.paste(Image.fromarray(image).resize((18, 18)), (5, 5))
    trimmed = cut(small).image
    assert trimmed.any(1).sum() == 28
    assert np.corrcoef(trimmed.ravel(), image.ravel())[0, 1] > 0.9


def test_what_is_transparent_is_ground() -> None:
    image = source.load().test_images[0]
    opaque = (image > 0) * np.uint8(255)
    pixels = np.stack([255 - image] * 3 + [opaque], -1)
    shot = Image.new("RGBA", (400, 300), (90, 200, 30, 0))
    shot.paste(Image.fromarray(pixels).resize((168, 168), Image.Resampling.NEAREST), (200, 60))
    found = cut(shot)
    assert found.doubt == ""
    assert np.abs(found.image.astype(int) - image).mean() < 12


def fabric(seed: int) -> NDArray[np.float64]:
    """A woven ground."""
    rough = np.random.default_rng(seed).normal(0, 1, (256, 256))
    return 170 + 160 * ndimage.gaussian_filter(rough, 2)


def boards(seed: int) -> NDArray[np.float64]:
    """A floor of boards."""
    across = np.random.default_rng(seed).normal(150, 30, 8).repeat(32)
    return across + 6 * np.random.default_rng(seed).normal(0, 1, (256, 1))


def beside(images: Pixels, seed: int) -> Image.Image:
    """Two pieces."""
    pair = (np.asarray(photo(image, 230, 2, seed=seed)) for image in images)
    return Image.fromarray(np.concatenate([*pair], 1))


SCENES: dict[str, Callable[[Pixels, int], Image.Image]] = {
    "fabric": lambda images, seed: photo(images[0], fabric(seed)),
    "boards": lambda images, seed: photo(images[0], boards(seed)),
    "two pieces": beside,
    "cut off": lambda images, seed: photo(images[0], 230, 2).crop((0, 0, 256, 128)),
    "cut off aside": lambda images, seed: photo(images[0], 230, 2).crop((128, 0, 256, 256)),
}


@pytest.mark.parametrize("kind", SCENES)
def test_no_scene_is_wrong_and_sure_and_not_marked(kind: str) -> None:
    classifier, data = load_classifier(BUNDLED), source.load()
    tried = [(i, cut_out(SCENES[kind](data.test_images[i : i + 2], i), "auto")) for i in range(30)]
    places, cutouts = zip(*((i, cutout) for i, cutout in tried if cutout), strict=True)
    probabilities = predict(classifier, np.stack([each.image for each in cutouts])).probabilities
    images, labels = data.test_images[[*places]], data.test_labels[[*places]]
    as_is = predict(classifier, images).logits.argmax(1)
    marks = [
        mark(each.doubt, shares.max()) for each, shares in zip(cutouts, probabilities, strict=True)
    ]
    right = probabilities.argmax(1) == labels
    known = as_is == labels  # others are wrong without any scene
    assert not [i for i in range(len(marks)) if known[i] and not right[i] and not marks[i]]
    assert len(marks) > 20
    assert np.mean([each.startswith("unreliable") for each in marks]) > 0.8


def test_real_photos_of_other_things_are_marked() -> None:
    temple, flower = map(Image.fromarray, load_sample_images().images)
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        person = Image.open(file).convert("RGB")
    for image in (temple, flower, person):
        assert cut(image).doubt == "the ground is not plain"


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (300, 200), (28, 28)])
@pytest.mark.parametrize("grey", [0, 90, 255])
def test_an_empty_wall_shows_nothing(size: tuple[int, int], grey: int) -> None:
    assert cut_out(Image.new("L", size, grey), "auto") is None


def test_a_speck_is_no_piece() -> None:
    wall = Image.new("L", (300, 300), 230)
    wall.paste(20, (140, 140, 160, 160))
    assert cut_out(wall, "auto") is None
    wall.paste(20, (100, 100, 160, 180))
    assert cut(wall).mask.mean() == pytest.approx(60 * 80 / 300**2, rel=0.1)


def test_colour_tells_a_piece_from_a_ground_of_its_grey() -> None:
    shot = np.full((200, 200, 3), (120, 120, 120), np.uint8)
    shot[40:160, 70:130] = (190, 100, 55)  # as light
    found = cut(Image.fromarray(shot))
    assert found.doubt == ""
    assert found.mask.mean() == pytest.approx(120 * 60 / 200**2, rel=0.05)


def test_lab_is_that_of_the_textbooks() -> None:
    """Of sRGB's primaries, with white D65, as they are printed everywhere."""
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    red, green, blue, white = to_lab(colours)[0]
    np.testing.assert_allclose(red, (53.24, 80.09, 67.20), atol=0.02)
    np.testing.assert_allclose(green, (87.73, -86.18, 83.18), atol=0.02)
    np.testing.assert_allclose(blue, (32.30, 79.19, -107.86), atol=0.02)
    np.testing.assert_allclose(white, (100, 0, 0), atol=0.02)
