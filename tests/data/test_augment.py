"""The ops against scipy, numpy and plain arithmetic; the draws against the study's numbers."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from fmnist_pl.data.augment import (
    Cutout,
    FlipHorizontal,
    FlipVertical,
    Noise,
    Op,
    RandomCrop,
    Rotate,
    apply,
    augment,
    draw,
    take,
    to,
)

EVERY_OP: list[Op] = [Rotate(90.0) if op is Rotate else op() for op in Op.known.values()]


def pictures(n: int) -> Tensor:
    """White noise in [0, 1]: the hardest pictures to interpolate."""
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(7))


def drawn(op: Op, n: int = 50_000, seed: int = 0) -> tuple[np.ndarray, ...]:
    draws = draw([op], n, torch.Generator().manual_seed(seed))
    return tuple(tensor.numpy() for tensor in draws[0])


def assert_uniform(counts: np.ndarray) -> None:
    assert stats.chisquare(counts, axis=None).pvalue > 1e-3, counts


# ---- The ops ----


def test_rotate_is_scipys() -> None:
    angles = torch.tensor([-90.0, -61.3, -5.0, -0.7, 0.0, 1e-3, 3.14, 5.0, 45.0, 90.0, 180.0])
    images = pictures(len(angles))
    for image, angle, result in zip(images, angles, Rotate().apply(images, angles), strict=True):
        expected = ndimage.rotate(
            image[0].double().numpy(), angle.item(), reshape=False, order=1, mode="nearest"
        )
        np.testing.assert_allclose(result[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("flip", "axis"), [(FlipHorizontal(), 3), (FlipVertical(), 2)])
def test_flips_are_numpys(flip: Op, axis: int) -> None:
    images, flips = pictures(4), torch.tensor([True, False, True, False])
    expected = images.numpy().copy()
    expected[::2] = np.flip(expected[::2], axis)
    np.testing.assert_array_equal(flip.apply(images, flips), expected)


def test_cutout_is_numpys() -> None:
    boxes = torch.tensor([[0, 0, 1, 9], [19, 27, 9, 1], [5, 8, 3, 4], [5, 8, 0, 0]])
    values = torch.tensor([0.0, 0.02, 0.5, 0.5])
    images = pictures(4)
    expected = images.numpy().copy()
    for image, (top, left, height, width), value in zip(
        expected, boxes.tolist(), values.tolist(), strict=True
    ):
        image[0, top : top + height, left : left + width] = value
    np.testing.assert_array_equal(Cutout().apply(images, boxes, values), expected)


def cubic_convolution(line: np.ndarray, position: float, a: float = -0.75) -> float:
    """Keys' cubic convolution of a line of pixels, its ends repeated outwards."""
    value = 0.0
    for pixel in range(math.floor(position) - 1, math.floor(position) + 3):
        d = abs(position - pixel)
        if d < 1:
            weight = (a + 2) * d**3 - (a + 3) * d**2 + 1
        else:
            weight = a * (d**3 - 5 * d**2 + 8 * d - 4)
        value += weight * line[min(max(pixel, 0), len(line) - 1)]
    return value


def stretched(line: np.ndarray) -> list[float]:
    return [cubic_convolution(line, (i + 0.5) * len(line) / 28 - 0.5) for i in range(28)]


def test_crop_resize_is_cubic_convolution_of_the_crop() -> None:
    sizes = [(h, w) for h in (25, 26, 27) for w in (25, 26, 27)]
    boxes = [[0, 28 - w, h, w] for h, w in sizes] + [[28 - h, 1, h, w] for h, w in sizes]
    boxes += [[0, 0, 28, 28], [10, 3, 7, 20]]
    images = pictures(len(boxes))
    results = RandomCrop().apply(images, torch.tensor(boxes))
    for image, (top, left, height, width), result in zip(images, boxes, results, strict=True):
        crop = image[0].double().numpy()[top : top + height, left : left + width]
        expected = np.apply_along_axis(stretched, 1, np.apply_along_axis(stretched, 0, crop))
        np.testing.assert_allclose(result[0], expected, rtol=0, atol=1e-5)


def splitmix64(seed: int, n: int) -> list[int]:
    words, ones = [], 2**64 - 1
    for _ in range(n):
        seed = (seed + 0x9E3779B97F4A7C15) & ones
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & ones
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & ones
        words.append(z ^ (z >> 31))
    return words


def test_noise_is_box_muller_of_splitmix64() -> None:
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # as published
    keys = [0, 1234567, 2**63 - 1, -1, -(2**63)]
    noise = Noise(0.5).apply(torch.zeros(len(keys), 1, 28, 28), torch.tensor(keys))
    for key, result in zip(keys, noise.flatten(1), strict=True):
        for pixel, word in enumerate(splitmix64(key, 392)):
            radius = 0.5 * math.sqrt(-2 * math.log(((word >> 40) + 1) / 2**24))
            angle = 2 * math.pi * (word % 2**24) / 2**24
            pair = radius * math.cos(angle), radius * math.sin(angle)
            assert result[[pixel, pixel + 392]].tolist() == pytest.approx(pair, abs=2e-6)


# ---- The draws: 50,000 images, fixed seeds, and the defaults, which are the study's numbers ----


def test_angles_are_uniform() -> None:
    (angles,) = drawn(Rotate())
    assert stats.kstest(angles, stats.uniform(-5, 10).cdf).pvalue > 1e-3


@pytest.mark.parametrize("op", [FlipHorizontal, FlipVertical])
def test_flips_have_their_rate(op: type[FlipHorizontal] | type[FlipVertical]) -> None:
    for p in (0.5, 0.1):
        (flips,) = drawn(op(p=p))
        assert stats.binomtest(int(flips.sum()), len(flips), p).pvalue > 1e-3
    assert not drawn(op(p=0.0))[0].any()
    assert drawn(op(p=1.0))[0].all()


def assert_uniform_boxes(boxes: np.ndarray, smallest: int, largest: int) -> None:
    tops, lefts, heights, widths = boxes.T
    sizes = np.arange(smallest, largest + 1)
    assert set(heights) == set(widths) == set(sizes)
    assert_uniform(stats.contingency.crosstab(heights, widths).count)  # uniform and independent
    for starts, lengths in (tops, heights), (lefts, widths):
        for size in sizes:  # every position where the box fits, the last one too
            assert_uniform(np.bincount(starts[lengths == size], minlength=29 - size))
            assert starts[lengths == size].max() == 28 - size
    halves = [starts * 2 // (29 - size) for starts, size in ((tops, heights), (lefts, widths))]
    assert stats.chi2_contingency(stats.contingency.crosstab(*halves).count).pvalue > 1e-3


def test_cutout_boxes_and_values_as_seen_in_the_pictures() -> None:
    n = 50_000
    results = augment(torch.ones(n, 1, 28, 28), [Cutout()], torch.Generator().manual_seed(1))
    dark = (results[:, 0] < 1).numpy()
    rows, columns = dark.any(axis=2), dark.any(axis=1)
    hit = rows.any(axis=1)
    assert stats.binomtest(int(hit.sum()), n, 0.5).pvalue > 1e-3

    corners = [rows.argmax(axis=1), columns.argmax(axis=1)]
    boxes = np.stack([*corners, rows.sum(axis=1), columns.sum(axis=1)], axis=1)[hit]
    np.testing.assert_array_equal(dark.sum(axis=(1, 2))[hit], boxes[:, 2] * boxes[:, 3])
    assert_uniform_boxes(boxes, 1, 9)

    values = results.amin(dim=(1, 2, 3)).numpy()[hit]
    assert stats.kstest(values, stats.uniform(0, 0.02).cdf).pvalue > 1e-3


def test_crop_boxes_are_uniform() -> None:
    (boxes,) = drawn(RandomCrop())
    assert_uniform_boxes(boxes, 25, 27)
    np.testing.assert_array_equal(drawn(RandomCrop(28, 28))[0], [[0, 0, 28, 28]] * 50_000)


def test_ops_of_a_list_draw_independently() -> None:
    ops = [FlipHorizontal(), FlipVertical(), FlipHorizontal(), Cutout()]
    draws = draw(ops, 50_000, torch.Generator().manual_seed(3))
    events = torch.stack([draws[0][0], draws[1][0], draws[2][0], draws[3][0][:, 2] > 0])
    codes = (events.long() * torch.tensor([[1], [2], [4], [8]])).sum(dim=0)
    assert_uniform(torch.bincount(codes, minlength=16).numpy())


def assert_uncorrelated(rows: np.ndarray) -> None:
    """No pair of rows correlates beyond six standard errors, nor do their squares."""
    for values in rows, rows**2:
        correlations = np.corrcoef(values)[np.triu_indices(len(rows), k=1)]
        assert np.abs(correlations).max() < 6 / math.sqrt(rows.shape[1])


@pytest.mark.parametrize("keys", ["drawn", "consecutive"])
def test_noise_is_independent_gaussian(keys: str) -> None:
    (numbers,) = drawn(Noise(), 4000) if keys == "drawn" else (np.arange(4000),)
    images = torch.zeros(4000, 1, 28, 28)
    noise = Noise(0.01).apply(images, torch.from_numpy(numbers)).flatten(1).double().numpy()
    assert stats.kstest(noise[:400].ravel(), stats.norm(0, 0.01).cdf).pvalue > 1e-3
    ratio = noise.var() / 0.01**2  # of the variances; its standard error is sqrt(2 / size)
    assert abs(ratio - 1) < 4 * math.sqrt(2 / noise.size)
    assert_uncorrelated(noise.T)  # pixels
    assert_uncorrelated(noise[:400])  # images


def test_two_noises_are_independent() -> None:
    images = torch.zeros(400, 1, 28, 28)
    both = augment(images, [Noise(0.03), Noise(0.04)], torch.Generator().manual_seed(4))
    # If they repeated each other, the deviation would be 0.07.
    assert stats.kstest(both.flatten().numpy(), stats.norm(0, 0.05).cdf).pvalue > 1e-3


# ---- Purity ----


@pytest.mark.parametrize(
    ("op", "least"),
    [
        (FlipHorizontal(), 2),
        (FlipVertical(), 2),
        (Rotate(), 200),
        (Cutout(), 80),  # half of the images are not cut
        (RandomCrop(), 60),  # there are 81 crops
        (Noise(), 200),
    ],
)
def test_copies_of_one_image_come_out_different(op: Op, least: int) -> None:
    copies = pictures(1).expand(200, -1, -1, -1)
    results = augment(copies, [op], torch.Generator().manual_seed(0))
    assert len(results.unique(dim=0)) >= least


def test_result_depends_on_the_generator_alone() -> None:
    images = pictures(50)
    torch.manual_seed(0)
    first = augment(images, EVERY_OP, torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    again = augment(images, EVERY_OP, torch.Generator().manual_seed(5))
    other = augment(images, EVERY_OP, torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert (first != other).flatten(1).any(dim=1).all()


def test_generator_moves_on() -> None:
    generator = torch.Generator().manual_seed(5)
    images = pictures(50)
    assert not torch.equal(
        augment(images, EVERY_OP, generator), augment(images, EVERY_OP, generator)
    )


@pytest.mark.parametrize("chunk", [1, 7, 64, 999])
def test_chunks_of_any_size_give_the_same_bits(chunk: int) -> None:
    images = pictures(1000)
    draws = draw(EVERY_OP, 1000, torch.Generator().manual_seed(8))
    parts = [
        apply(images[i : i + chunk], EVERY_OP, take(draws, slice(i, i + chunk)))
        for i in range(0, 1000, chunk)
    ]
    assert torch.equal(torch.cat(parts), apply(images, EVERY_OP, draws))


def test_draws_of_any_images_in_any_order() -> None:
    images = pictures(100)
    draws = draw(EVERY_OP, 100, torch.Generator().manual_seed(9))
    some = torch.tensor([99, 3, 3, 42])
    assert torch.equal(
        apply(images[some], EVERY_OP, take(draws, some)), apply(images, EVERY_OP, draws)[some]
    )


def test_ops_are_applied_in_listed_order() -> None:
    images, generator = pictures(20), torch.Generator().manual_seed(10)
    ops = [Rotate(90.0), Cutout(p=1.0), FlipVertical(), RandomCrop(), FlipHorizontal()]
    draws = draw(ops, 20, generator)
    (angles,), (boxes, values), (downs,), (crops,), (sides,) = draws
    expected = Cutout().apply(Rotate().apply(images, angles), boxes, values)
    expected = RandomCrop().apply(FlipVertical().apply(expected, downs), crops)
    expected = FlipHorizontal().apply(expected, sides)
    assert torch.equal(apply(images, ops, draws), expected)
    backwards = apply(images, ops[::-1], draws[::-1])
    assert not torch.equal(backwards, expected)


@pytest.mark.parametrize("op", EVERY_OP, ids=lambda op: type(op).__name__)
def test_input_is_left_alone(op: Op) -> None:
    images = pictures(50)
    before = images.clone()
    results = augment(images, [op], torch.Generator().manual_seed(11))
    assert torch.equal(images, before)
    assert results.shape == images.shape
    assert results.dtype == torch.float32
    assert results.data_ptr() != images.data_ptr()


def test_no_ops_change_nothing() -> None:
    images = pictures(5)
    assert torch.equal(augment(images, [], torch.Generator()), images)


def test_applying_reads_no_value_back_from_the_device() -> None:
    # Tensors of the meta device have no values: whatever would wait for one fails.
    draws = draw(EVERY_OP, 5, torch.Generator())
    results = apply(pictures(5).to("meta"), EVERY_OP, to(draws, "meta"))
    assert results.shape == (5, 1, 28, 28)
    assert results.device.type == "meta"
