"""Random ops on a batch of images, one draw per image: pure functions, no state.

Drawing is apart from applying. `draw` takes the parameters of a whole epoch from one CPU
generator; `apply` uses any slice of them on any device. So what happens to an image depends on
the generator alone, not on the size of the chunks or on who computes them.

Nothing is clipped, as in the study: bicubic overshoot and noise may leave [0, 1] a little.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fmnist_pl.schema import Cutout, FlipHorizontal, FlipVertical, Noise, Op, RandomCrop, Rotate

SIDE = 28

# For every op, in order, the tensors it needs; the first dimension is the image.
Draws = tuple[tuple[Tensor, ...], ...]


def augment(images: Tensor, ops: Sequence[Op], generator: Generator) -> Tensor:
    """Draw for every image of a batch and apply: a pure function of the two.

    Args:
        images: float32 (N, 1, 28, 28) in [0, 1], on any device; left as they are.
        ops: applied in this order; without any the result is `images`.
        generator: on the CPU, whatever the device of the images; it moves on.
    """
    return apply(images, ops, to(draw(ops, len(images), generator), images.device))


def draw(ops: Sequence[Op], n: int, generator: Generator) -> Draws:
    """The random parameters of n images, from a CPU generator."""
    return tuple(_draw(op, n, generator) for op in ops)


def take(draws: Draws, index: slice | Tensor) -> Draws:
    """The parameters of the images at `index` alone."""
    return tuple(tuple(tensor[index] for tensor in tensors) for tensors in draws)


def to(draws: Draws, device: torch.device | str) -> Draws:
    """The same parameters on another device."""
    return tuple(tuple(tensor.to(device) for tensor in tensors) for tensors in draws)


def apply(images: Tensor, ops: Sequence[Op], draws: Draws) -> Tensor:
    """The ops, in order, on images (N, 1, 28, 28) whose parameters are `draws`, on one device."""
    for op, parameters in zip(ops, draws, strict=True):
        images = _apply(op, images, *parameters)
    return images


def _draw(op: Op, n: int, generator: Generator) -> tuple[Tensor, ...]:
    def uniform(*shape: int) -> Tensor:  # float64, so that rounding favours no position below
        return torch.rand(n, *shape, dtype=torch.float64, generator=generator)

    def boxes(smallest: int, largest: int) -> Tensor:
        sizes = smallest + (uniform(2) * (largest - smallest + 1)).long()
        corners = (uniform(2) * (SIDE - sizes + 1)).long()
        return torch.cat([corners, sizes], dim=1)

    match op:
        case Rotate(degrees):
            return (((2 * uniform() - 1) * degrees).float(),)
        case FlipHorizontal(p) | FlipVertical(p):
            return (uniform() < p,)
        case Cutout(p, min_size, max_size, max_value):
            hit = (uniform() < p)[:, None]  # where not, the box is empty
            return boxes(min_size, max_size) * hit, (uniform() * max_value).float()
        case RandomCrop(min_size, max_size):
            return (boxes(min_size, max_size),)
        case Noise():
            return (torch.randint(-(2**63), 2**63 - 1, (n,), generator=generator),)


def _apply(op: Op, images: Tensor, *parameters: Tensor) -> Tensor:
    match op:
        case Rotate():
            return rotate(images, *parameters)
        case FlipHorizontal():
            return flip_horizontal(images, *parameters)
        case FlipVertical():
            return flip_vertical(images, *parameters)
        case Cutout():
            return cutout(images, *parameters)
        case RandomCrop():
            return crop_resize(images, *parameters)
        case Noise(std):
            return add_noise(images, parameters[0], std)


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Turn each image about its centre (13.5, 13.5), bilinearly; outside is the nearest edge pixel.

    `angles` (N,) in degrees, counter-clockwise as displayed, like `scipy.ndimage.rotate`.
    """
    centres = _to_grid(torch.arange(SIDE, device=images.device) + 0.5)
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    radians = angles.deg2rad()[:, None, None, None]
    along, across = torch.stack([x, y], dim=-1), torch.stack([-y, x], dim=-1)  # (28, 28, 2)
    # A tenth of the time of F.affine_grid, and no matrix product whose precision is a setting.
    grid = torch.addcmul(radians.cos() * along, radians.sin(), across)  # (N, 28, 28, 2)
    return F.grid_sample(images, grid, "bilinear", padding_mode="border", align_corners=False)


def flip_horizontal(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror left and right where `flips` (N,) bool."""
    return torch.where(flips[:, None, None, None], images.flip(3), images)


def flip_vertical(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror top and bottom where `flips` (N,) bool."""
    return torch.where(flips[:, None, None, None], images.flip(2), images)


def cutout(images: Tensor, boxes: Tensor, values: Tensor) -> Tensor:
    """Fill each image's box (N, 4) int64: top, left, height, width, with its value (N,).

    A box of no height or width leaves its image as it is.
    """
    pixels = torch.arange(SIDE, device=images.device)
    start, size = boxes[:, :2, None], boxes[:, 2:, None]
    rows, columns = ((start <= pixels) & (pixels < start + size)).float().unbind(1)  # (N, 28) each
    inside = rows[:, None, :, None] * columns[:, None, None, :]
    return images.lerp(values[:, None, None, None], inside)  # 0 or 1: exact, and faster than where


def crop_resize(images: Tensor, boxes: Tensor) -> Tensor:
    """Stretch each image's box (N, 4) int64: top, left, height, width, to 28x28 bicubically.

    As `cv2.resize` with INTER_CUBIC: kernel a = -0.75, pixels meet at their edges, and beyond the
    box's border its edge pixels repeat: nothing outside the box is seen.
    """
    pixels = torch.arange(SIDE, device=images.device)
    start, size = boxes[:, :2, None], boxes[:, 2:, None]
    rows, columns = pixels.clamp(start, start + size - 1).unbind(1)  # (N, 28) each
    nearest = (rows[:, :, None] * SIDE + columns[:, None, :]).flatten(1)
    boxed = images.flatten(1).gather(1, nearest).view_as(images)  # edges repeated outwards

    y, x = _to_grid(start + (pixels + 0.5) * (size / SIDE)).unbind(1)
    x, y = x[:, None, :].expand(-1, SIDE, -1), y[:, :, None].expand(-1, -1, SIDE)
    grid = torch.stack([x, y], dim=-1)  # (N, 28, 28, 2)
    return F.grid_sample(boxed, grid, "bicubic", padding_mode="border", align_corners=False)


def add_noise(images: Tensor, keys: Tensor, std: float) -> Tensor:
    """Add an independent Gaussian of standard deviation `std` to every pixel.

    `keys` (N,) int64 seed one SplitMix64 stream per image (Steele, Lea and Flood, 2014), whose
    k-th word makes the noise of pixels k and 392 + k by the Box-Muller transform.
    """
    words = _splitmix64(keys, SIDE * SIDE // 2)
    radius = (((words >> 40 & 0xFFFFFF) + 1).float() * 2**-24).log().mul(-2).sqrt() * std
    angle = (words & 0xFFFFFF).float() * (2 * math.pi * 2**-24)
    noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return images + noise.view_as(images)


def _to_grid(position: Tensor) -> Tensor:
    """Positions in pixels from the image's outer edge, in `grid_sample`'s units: 0..28 -> -1..1."""
    return position * (2 / SIDE) - 1


def _splitmix64(seeds: Tensor, n: int) -> Tensor:
    """The first n words of the stream of each seed (N,) -> (N, n) int64, wrapping round."""

    def shift(z: Tensor, bits: int) -> Tensor:  # to the right, zeros in: `>>` repeats the sign
        return (z >> bits) & ((1 << (64 - bits)) - 1)

    # The published constants as signed numbers.
    steps = torch.arange(1, n + 1, device=seeds.device) * -0x61C8864680B583EB
    z = seeds[:, None] + steps
    z = (z ^ shift(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ shift(z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ shift(z, 31)
