"""Image files of every kind predict what the run that made the checkpoint predicted."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from fmnist_pl.data import photos, source
from fmnist_pl.data.photos import find, read
from fmnist_pl.model.inference import load_classifier, predict
from fmnist_pl.options.command import parse
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import FASHION_MNIST
from fmnist_pl.predict import Options, caption, work
from tests.conftest import CLASS_NAMES

COUNT = 40  # test images that are written as files

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def images() -> Pixels:
    return source.load().test_images[:COUNT]


@pytest.fixture(scope="session")
def expected(finished_run: Path) -> NDArray[np.float32]:
    """The probabilities, (COUNT, 10), that the run itself left."""
    with np.load(finished_run / "predictions.npz") as arrays:
        probabilities: NDArray[np.float32] = softmax(arrays["logits"][:COUNT], axis=1)
    return probabilities


@pytest.fixture
def options(finished_run: Path, tmp_path: Path) -> Callable[..., Options]:
    def options(images: object, **others: Any) -> Options:
        checkpoint = str(finished_run / "checkpoints" / "last.ckpt")
        others = {"format": "json", **others}
        return Options(checkpoint=checkpoint, images=str(images), **others)

    return options


def transparent(pixels: Pixels) -> Image.Image:
    """Cut out of its ground, the piece dark."""
    return Image.fromarray(
        np.stack([255 - pixels, np.where(pixels, np.uint8(255), np.uint8(0))], -1)
    )


def turned(pixels: Pixels) -> Image.Image:
    """As a camera held upright stores it: to be rotated by whoever shows it."""
    image = Image.fromarray(np.rot90(pixels))
    image.getexif()[274] = 6
    return image


EXACT: dict[str, tuple[str, Callable[[Pixels], Image.Image]]] = {
    "grey": ("png", Image.fromarray),
    "bitmap": ("bmp", Image.fromarray),
    "pgm": ("pgm", Image.fromarray),
    "gif": ("gif", Image.fromarray),
    "tiff": ("tif", Image.fromarray),
    "inverted": ("png", lambda pixels: Image.fromarray(255 - pixels)),
    "colour": ("png", lambda pixels: Image.fromarray(pixels).convert("RGB")),
    "opaque": ("png", lambda pixels: Image.fromarray(pixels).convert("RGBA")),
    "transparent": ("png", transparent),
    "palette": ("png", lambda pixels: Image.fromarray(pixels).convert("P")),
    "16 bits": ("png", lambda pixels: Image.fromarray(pixels.astype(np.uint16) * 257)),
    "16 bits, pgm": ("pgm", lambda pixels: Image.fromarray(pixels.astype(np.int32) * 257)),
    "float": ("tif", lambda pixels: Image.fromarray(pixels.astype(np.float32) / 255)),
    "turned": ("png", turned),
}


def save(image: Image.Image, path: Path, **how: Any) -> None:
    image.save(path, exif=image.getexif(), **how)


def predictions(
    options: Options, capsys: pytest.CaptureFixture[str], code: int = 0
) -> list[dict[str, Any]]:
    assert work(options) == code
    items: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return items


def table_of(items: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([list(item["probabilities"].values()) for item in items])


@pytest.mark.parametrize("kind", EXACT)
def test_the_same_pixels_in_any_format_predict_the_same(
    kind: str,
    images: Pixels,
    expected: NDArray[np.float32],
    tmp_path: Path,
    options: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ending, make = EXACT[kind]
    for i, pixels in enumerate(images):
        save(make(pixels), tmp_path / f"{i:02}.{ending}")
    items = predictions(options(tmp_path), capsys)
    np.testing.assert_allclose(table_of(items), expected, atol=1e-5)
    for item, shares in zip(items, expected, strict=True):
        assert list(item["probabilities"]) == list(CLASS_NAMES)
        assert item["class"] == CLASS_NAMES[shares.argmax()]
        assert item["probability"] == max(item["probabilities"].values())
        assert item["size"] == "28x28"
        assert item["inverted"] is (kind in ("inverted", "transparent"))


LOSSY: dict[str, tuple[str, Callable[[Pixels], Image.Image]]] = {
    "JPEG": ("jpg", Image.fromarray),
    "WebP": ("webp", Image.fromarray),
    "AVIF": ("avif", Image.fromarray),
    "CMYK": ("tif", lambda pixels: Image.fromarray(pixels).convert("RGB").convert("CMYK")),
    "CMYK JPEG": ("jpg", lambda pixels: Image.fromarray(pixels).convert("RGB").convert("CMYK")),
    "large": ("png", lambda pixels: Image.fromarray(pixels).resize((300, 300))),
    "larger than decoded": ("jpg", lambda pixels: Image.fromarray(pixels).resize((1000, 1000))),
    "with margins": ("png", lambda pixels: margins(pixels)),
}


def margins(pixels: Pixels) -> Image.Image:
    """A product shot: dark on white, much of it."""
    shot = Image.new("RGB", (400, 260), "white")
    shot.paste(Image.fromarray(255 - pixels).convert("RGB").resize((140, 140)), (200, 60))
    return shot


@pytest.mark.parametrize("kind", LOSSY)
def test_changed_a_little_they_predict_nearly_always_the_same(
    kind: str,
    images: Pixels,
    expected: NDArray[np.float32],
    tmp_path: Path,
    options: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ending, make = LOSSY[kind]
    for i, pixels in enumerate(images):
        save(make(pixels), tmp_path / f"{i:02}.{ending}")
    shares = table_of(predictions(options(tmp_path), capsys))
    sure = expected.max(1) > 0.9
    assert sure.sum() > COUNT / 3
    np.testing.assert_array_equal(shares.argmax(1)[sure], expected.argmax(1)[sure])
    # Cut out, a piece is not to the pixel where it was, which this short run's MLP minds.
    same = (shares.argmax(1) == expected.argmax(1)).mean()
    assert same >= (0.8 if kind == "with margins" else 0.9)


def test_invert_can_be_told(
    images: Pixels,
    expected: NDArray[np.float32],
    tmp_path: Path,
    options: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "dark on light.png"
    save(Image.fromarray(255 - images[1]), path)
    told, left = (predictions(options(path, invert=how), capsys)[0] for how in ("yes", "no"))
    assert told["probability"] == pytest.approx(expected[1].max(), abs=1e-5)
    assert (told["inverted"], left["inverted"]) == (True, False)
    assert table_of([left]) != pytest.approx(table_of([told]), abs=0.1)


def test_of_an_animation_the_first_frame_counts(
    images: Pixels,
    expected: NDArray[np.float32],
    tmp_path: Path,
    options: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, *others = map(Image.fromarray, images[:3])
    for ending in ("gif", "png", "tif"):
        first.save(tmp_path / f"animated.{ending}", save_all=True, append_images=others)
    items = predictions(options(tmp_path), capsys)
    assert [item["size"] for item in items] == ["28x28, first of 3 frames"] * 3
    np.testing.assert_allclose(table_of(items), expected[[0, 0, 0]], atol=1e-5)


def test_a_photo_is_trimmed_fitted_and_inverted(tmp_path: Path) -> None:
    photo = np.full((150, 300), 245, np.uint8)
    photo[30:110, 40:80] = 5  # of twice the height of its width
    Image.fromarray(photo).save(tmp_path / "photo.png")
    found = read(tmp_path / "photo.png", "auto", FASHION_MNIST)
    assert not isinstance(found, str)
    assert (found.size, found.cutout.inverted, found.cutout.doubt) == ("300x150", True, "")
    assert not found.image[:, [*range(6), *range(22, 28)]].any()
    assert (found.image[2:-2, 9:19] > 230).all()


def test_a_long_thin_piece_is_seen(tmp_path: Path) -> None:
    photo = np.zeros((300, 700), np.uint8)
    photo[100:110, 50:650] = 200
    Image.fromarray(photo).save(tmp_path / "belt.png")
    found = read(tmp_path / "belt.png", "auto", FASHION_MNIST)
    assert not isinstance(found, str)
    assert found.image[14].min() > 100
    assert not found.image[[*range(13), *range(15, 28)]].any()


@pytest.mark.parametrize("size", [(60, 1200), (1500, 2000), (28, 28), (40, 30)])
def test_any_size_is_predicted_and_an_empty_one_refused(
    size: tuple[int, int], tmp_path: Path, options: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    width, height = size
    wall = Image.new("L", size, 220)
    wall.save(tmp_path / "empty.png")
    wall.paste(20, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    wall.save(tmp_path / "piece.png")
    assert work(options(tmp_path)) == 1
    out, err = capsys.readouterr()
    [item] = json.loads(out)
    assert item["size"] == f"{width}x{height}"
    assert item["inverted"]
    np.testing.assert_allclose(table_of([item]).sum(1), 1, atol=1e-5)
    assert err == f"error: {tmp_path}/empty.png: nothing stands out from the ground.\n"


def test_an_answer_not_to_be_trusted_is_marked(
    images: Pixels, tmp_path: Path, options: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.effect_noise((12, 12), 90).resize((200, 200)).save(tmp_path / "scene.png")
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    items = predictions(options(tmp_path), capsys)
    marks = {Path(item["image"]).stem: item for item in items}
    assert marks.pop("scene")["mark"] == "unreliable: the ground is not plain"
    for item in marks.values():
        assert item["mark"] == ("unsure" if item["probability"] < 0.9 else "")


def test_probabilities_are_calibrated_with_the_temperature_of_the_run(
    finished_run: Path, options: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    items = predictions(options("test:0-39", calibrated=True), capsys)
    temperature = json.loads((finished_run / "result.json").read_text())["temperature"]
    with np.load(finished_run / "predictions.npz") as arrays:
        expected = softmax(arrays["logits"][:COUNT] / temperature, axis=1)
    np.testing.assert_allclose(table_of(items), expected, atol=1e-5)
    for item in items:
        assert item["mark"] == ("unsure" if item["probability"] < 0.9 else "")


def test_both_ways_round_are_calibrated(
    finished_run: Path, images: Pixels, tmp_path: Path, options: Any, capsys: Any
) -> None:
    save(margins(images[0]), tmp_path / "shot.png")
    classifier = load_classifier(finished_run / "checkpoints" / "last.ckpt")
    temperature = json.loads((finished_run / "result.json").read_text())["temperature"]
    found = read(tmp_path / "shot.png", "auto", FASHION_MNIST)
    assert not isinstance(found, str)
    both = predict(classifier, np.stack([found.image, found.image[:, ::-1]]))
    [item] = predictions(options(tmp_path, calibrated=True), capsys)
    expected = softmax(both.logits / temperature, axis=1).mean(0)
    np.testing.assert_allclose(table_of([item])[0], expected, atol=1e-5)


def test_where_there_is_no_temperature_it_is_said(
    finished_run: Path, tmp_path: Path, options: Any
) -> None:
    given = options("test:0", calibrated=True)
    given.checkpoint = str(finished_run / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"has the temperature of last.ckpt, which was tested, not"):
        work(given)
    given.checkpoint = shutil.copy(given.checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"no temperature for .*/last.ckpt. One has the tested"):
        work(given)


def test_the_package_has_a_checkpoint(
    images: Pixels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    items = predictions(Options(images=str(tmp_path), format="json"), capsys)
    labels = [CLASS_NAMES[label] for label in source.load().test_labels[:COUNT]]
    right = [item["class"] == label for item, label in zip(items, labels, strict=True)]
    assert np.mean(right) >= 0.8


def test_pages_show_them_all(
    images: Pixels, tmp_path: Path, options: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(17):
        shot = Image.new("L", (80, 80), 235)
        shot.paste(Image.fromarray(255 - images[i]).resize((56, 56)), (12, 12))
        shot.save(tmp_path / f"{i:02}.png")
    picture = tmp_path / "drawn.jpg.png"
    given = options(tmp_path / "*.png", format="table", picture=str(picture))
    assert work(given) == 0
    assert capsys.readouterr().out.endswith(f"{picture}, 15 of 17; pages=... draws more\n")
    picture.unlink()
    given.pages = 2
    assert work(given) == 0
    second = tmp_path / "drawn.jpg-2.png"
    assert capsys.readouterr().out.endswith(f"picture  {picture} to {second}\n")
    with Image.open(picture) as five_rows, Image.open(second) as one_row:
        assert five_rows.height > 3 * one_row.height


def test_a_thousand_files(
    images: Pixels,
    expected: NDArray[np.float32],
    tmp_path: Path,
    options: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for i in range(1000):
        Image.fromarray(images[i % COUNT]).save(tmp_path / f"{i:03}.png")
    items = predictions(options(tmp_path / "*.png"), capsys)
    assert [Path(item["image"]).stem for item in items] == [f"{i:03}" for i in range(1000)]
    np.testing.assert_allclose(table_of(items), expected[np.arange(1000) % COUNT], atol=1e-5)


def test_files_that_are_no_images_are_named_and_the_others_predicted(
    images: Pixels,
    expected: NDArray[np.float32],
    tmp_path: Path,
    options: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(images[0]).save(good)
    bad = {
        "notes.txt": b"no image",
        "empty.png": b"",
        "cut.png": good.read_bytes()[:-200],
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / ".hidden").write_text("not looked at")
    (tmp_path / "folder").mkdir()

    assert work(options(tmp_path)) == 1
    out, err = capsys.readouterr()
    [item] = json.loads(out)
    assert item["image"] == str(good)
    np.testing.assert_allclose(table_of([item]), expected[:1], atol=1e-5)
    lines = err.splitlines()
    for name, reason in {
        **dict.fromkeys(["notes.txt", "postscript.png"], "no image of a format"),
        "empty.png": "an empty file",
        "cut.png": "truncated",
        "bomb.png": "100000000 pixels",
        "nowhere.png": "No such file",
        "pipe.png": "not a regular file",
    }.items():
        [line] = [line for line in lines if line.startswith(f"error: {tmp_path / name}: ")]
        assert reason in line
    assert len(lines) == 7

    (tmp_path / "good.png").unlink()
    assert predictions(options(tmp_path), capsys, code=1) == []


@pytest.mark.parametrize("installed", [True, False])
def test_heic_is_read_or_told_the_remedy(
    installed: bool, images: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif")
    shot = Image.new("RGB", (80, 80), "white")
    shot.paste(Image.fromarray(255 - images[0]).resize((56, 56)), (12, 12))
    shot.save(tmp_path / "phone.heic", format="HEIF")
    if not installed:
        monkeypatch.setattr(photos, "FORMATS", ["PNG"])
    found = read(tmp_path / "phone.heic", "auto", FASHION_MNIST)
    if installed:
        assert not isinstance(found, str)
        assert np.corrcoef(found.image.ravel(), images[0].ravel())[0, 1] > 0.9
    else:
        assert found == "HEIC: export it as JPEG, or pip install pillow-heif."


def test_programs_get_the_predictions_and_nothing_else(
    images: Pixels, tmp_path: Path, options: Any
) -> None:
    for name in ("good.png", "comma, \x1b[31m.png", b"latin-\xe9.png"):
        path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))  # noqa: PTH118 (bytes)
        Image.fromarray(images[0]).save(path, format="PNG")
    (tmp_path / "\x1b[31mbad.png").write_text("no image")
    words = [f"checkpoint={options('').checkpoint}", f"images={tmp_path}", "format=csv"]
    command = [sys.executable, "-m", "fmnist_pl.predict", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/ [31mbad.png: no image of a format")
    assert done.stderr.count("\n") == 1
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 3
    assert {"good.png", "comma, \x1b[31m.png"} < {Path(row["image"]).name for row in rows}
    for row in rows:
        assert row["class"] in CLASS_NAMES
        assert float(row["probability"]) == float(row[f"P({row['class']})"])
    assert set(tmp_path.iterdir()) == set(find(str(tmp_path)))  # no picture


def test_test_images_are_predicted_with_their_classes(
    expected: NDArray[np.float32], tmp_path: Path, options: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "chosen.png"
    items = predictions(options("test:0,12,20-22", picture=str(picture)), capsys)
    chosen = [0, 12, 20, 21, 22]
    assert [item["image"] for item in items] == [f"test:{i}" for i in chosen]
    np.testing.assert_allclose(table_of(items), expected[chosen], atol=1e-5)
    labels = source.load().test_labels[chosen]
    assert [item["true class"] for item in items] == [CLASS_NAMES[label] for label in labels]
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 300


def test_people_get_a_table_and_a_picture(
    images: Pixels,
    expected: NDArray[np.float32],
    tmp_path: Path,
    options: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(255 - images[2]).save(tmp_path / "trousers \x1b[31m.png")
    picture = tmp_path / "out.png"
    given = options(tmp_path, format="table", picture=str(picture))
    assert work(given) == 0
    header, line, _, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "class", "probability", "size", "inverted", "mark"]
    assert "trousers  [31m.png  Trouser" in line
    shown = [f"{expected[2].max():.4f}", "28x28", "yes"]
    assert line.split("Trouser")[1].split()[:3] == shown
    assert last == f"picture  {picture}"
    assert picture.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": "/nonexistent/*.png"}, "images=/nonexistent/.*: no such file"),
        ({"images": "test:"}, "'' is neither an index nor a range"),
        ({"images": "test:3,x"}, "'x' is neither"),
        ({"images": "test:5-3"}, "'5-3' is neither"),
        ({"images": "test:-1"}, "'-1' is neither"),
        ({"images": "test:3,9-10000"}, "test:10000: the 10000 test images are 0 to 9999"),
        ({"images": "test:0", "checkpoint": "/gone.ckpt"}, "checkpoint=/gone.ckpt: No such file"),
        ({"images": "test:0", "picture": "/nonexistent/a.png"}, "picture=/nonexistent/a.png cann"),
    ],
)
def test_mistakes_are_told(
    changed: dict[str, str], message: str, options: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(changed["images"])
    for name, value in changed.items():
        setattr(given, name, value)
    with pytest.raises(UserError, match=message):
        work(given)


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"^images=b: images has been given already"):
        parse(Options, ["images=a", "checkpoint=x", "images=b"])


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    for name in ("shirt [1].png", "shirt 1.png"):
        (tmp_path / name).touch()
    assert [path.name for path in find(f"{tmp_path}/shirt [1].png")] == ["shirt [1].png"]
    assert [path.name for path in find(f"{tmp_path}/**/*.png")] == ["shirt 1.png", "shirt [1].png"]


def test_small_files_are_images_of_another_data_set_as_they_are(tmp_path: Path) -> None:
    """A digit has a margin; of Fashion-MNIST it would be a piece that is too small."""
    digit = np.zeros((28, 28), np.uint8)
    digit[8:20, 10:18] = 200
    Image.fromarray(digit).save(tmp_path / "digit.png")
    for data_set, kept in (("mnist", True), (FASHION_MNIST, False)):
        photo = read(tmp_path / "digit.png", "auto", data_set)
        assert isinstance(photo, photos.Photo)
        assert np.array_equal(photo.image, digit) is kept


def test_captions_are_short_names() -> None:
    assert caption("test:12") == "test:12"
    assert caption("wardrobe/summer/boot.jpg") == "boot.jpg"
    short = caption("wardrobe/00_label0_summer_holiday.jpg")
    assert short == "00_label0…iday.jpg"
