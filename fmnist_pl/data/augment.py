"""Random operations on a batch of images, one draw per image; each is one class below.

Drawing is apart from applying. `draw` takes the parameters of a whole epoch from one CPU
generator; `apply` uses any slice of them on any device. So what happens to an image depends on
the generator alone, not on the size of the chunks or on who computes them.

An operation is a subclass of `Op`: its options with their ranges, what it draws for an image, and
what it does to a batch. `augment.ops` finds one of these by its name, `FlipHorizontal` as
`flip_horizontal`, and one from elsewhere by its dotted path, which is imported to train only.
torch is imported where there are tensors, since options are listed and checked without it.

Nothing is clipped, as in the study: bicubic overshoot and noise may leave [0, 1] a little.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from inspect import isabstract, isclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmnist_pl.data.protocol import SIDE
from fmnist_pl.options.fields import check, option
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.targets import locate

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

# What an operation draws: tensors whose first dimension is the image. And for every one of a list.
Drawn = tuple["Tensor", ...]
Draws = tuple[Drawn, ...]


@dataclass
class Op(ABC):
    """An operation; subclasses are dataclasses of its options."""

    known: ClassVar[dict[str, type["Op"]]] = {}  # those of this module
    name: ClassVar[str]

    def __init_subclass__(cls, name: str = "") -> None:
        cls.name = name or f"{cls.__module__}.{cls.__qualname__}"
        if cls.__module__ == __name__:
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
            Op.known[cls.name] = cls

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """The operation of these parameters; those left out keep their defaults.

        Raises:
            UserError: an unknown parameter, a wrong type, a value out of range.
        """
        try:
            op: Self = OmegaConf.to_object(OmegaConf.merge(cls, parameters))  # type: ignore[assignment]
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            reason = str(getattr(error, "msg", None) or error).partition("\n")[0]
            legal = ", ".join(item.name for item in fields(cls))
            raise UserError(
                f"augment.ops: {cls.name}: {reason}; its parameters: {legal}."
            ) from None
        check(op, f"augment.ops: {cls.name}.")
        if getattr(op, "min_size", 0) > getattr(op, "max_size", 28):
            raise UserError(f"augment.ops: {cls.name}: min_size must be at most max_size.")
        return op

    def parameters(self) -> dict[str, Any]:
        """As `of` takes them, all filled in."""
        return asdict(self)

    @abstractmethod
    def draw(self, n: int, generator: "Generator") -> Drawn:
        """The random parameters of n images, from a CPU generator."""

    @abstractmethod
    def apply(self, images: "Tensor", *drawn: "Tensor") -> "Tensor":
        """Images (N, 1, 28, 28) changed as `drawn` says, on their device; left as they are."""


@dataclass
class Rotate(Op):
    """Rotation about the centre, bilinear, edges repeated."""

    degrees: float = option(5.0, "Angle uniform in [-degrees, degrees].", ge=0, le=180)

    def draw(self, n: int, generator: "Generator") -> Drawn:
        """Angles (N,) in degrees, counter-clockwise as displayed, like `scipy.ndimage.rotate`."""
        return (((2 * uniform(n, generator=generator) - 1) * self.degrees).float(),)

    def apply(self, images: "Tensor", *drawn: "Tensor") -> "Tensor":
        import torch

        (angles,) = drawn
        centres = to_grid(torch.arange(SIDE, device=images.device) + 0.5)
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        radians = angles.deg2rad()[:, None, None, None]
        along, across = torch.stack([x, y], dim=-1), torch.stack([-y, x], dim=-1)  # (28, 28, 2)
        # A tenth of the time of F.affine_grid, and no matrix product whose precision is a setting.
        grid = torch.addcmul(radians.cos() * along, radians.sin(), across)  # (N, 28, 28, 2)
        return sample(images, grid, "bilinear")


@dataclass
class FlipHorizontal(Op):
    """Left and right exchanged."""

    p: float = option(0.5, "Probability.", ge=0, le=1)

    def draw(self, n: int, generator: "Generator") -> Drawn:
        """Whether to (N,), bool."""
        return (uniform(n, generator=generator) < self.p,)

    def apply(self, images: "Tensor", *drawn: "Tensor") -> "Tensor":
        (flips,) = drawn
        return images.flip(3).where(flips[:, None, None, None], images)


@dataclass
class FlipVertical(Op):
    """Top and bottom exchanged."""

    p: float = option(0.5, "Probability.", ge=0, le=1)

    def draw(self, n: int, generator: "Generator") -> Drawn:
        """Whether to (N,), bool."""
        return (uniform(n, generator=generator) < self.p,)

    def apply(self, images: "Tensor", *drawn: "Tensor") -> "Tensor":
        (flips,) = drawn
        return images.flip(2).where(flips[:, None, None, None], images)


@dataclass
class Cutout(Op):
    """A rectangle painted over with one dark value."""

    p: float = option(0.5, "Probability.", ge=0, le=1)
    min_size: int = option(1, "Smallest height and width, pixels.", ge=1, le=28)
    max_size: int = option(9, "Largest height and width, pixels.", ge=1, le=28)
    max_value: float = option(0.02, "Paint uniform in [0, max_value].", ge=0, le=1)

    def draw(self, n: int, generator: "Generator") -> Drawn:
        """Boxes (N, 4), empty where there is to be none, and paint (N,)."""
        hit = (uniform(n, generator=generator) < self.p)[:, None]
        rectangles = boxes(n, self.min_size, self.max_size, generator) * hit
        return rectangles, (uniform(n, generator=generator) * self.max_value).float()

    def apply(self, images: "Tensor", *drawn: "Tensor") -> "Tensor":
        import torch

        rectangles, paint = drawn
        pixels = torch.arange(SIDE, device=images.device)
        start, size = rectangles[:, :2, None], rectangles[:, 2:, None]
        rows, columns = ((start <= pixels) & (pixels < start + size)).float().unbind(1)  # (N, 28)
        inside = rows[:, None, :, None] * columns[:, None, None, :]
        return images.lerp(paint[:, None, None, None], inside)  # 0 or 1: exact, faster than where


@dataclass
class RandomCrop(Op):
    """A window, resized to 28x28 bicubically."""

    min_size: int = option(25, "Smallest height and width, pixels.", ge=1, le=28)
    max_size: int = option(27, "Largest height and width, pixels.", ge=1, le=28)

    def draw(self, n: int, generator: "Generator") -> Drawn:
        """Boxes (N, 4)."""
        return (boxes(n, self.min_size, self.max_size, generator),)

    def apply(self, images: "Tensor", *drawn: "Tensor") -> "Tensor":
        """Each image's box stretched to 28x28.

        As `cv2.resize` with INTER_CUBIC: kernel a = -0.75, pixels meet at their edges, and beyond
        the box's border its edge pixels repeat: nothing outside the box is seen.
        """
        import torch

        (windows,) = drawn
        pixels = torch.arange(SIDE, device=images.device)
        start, size = windows[:, :2, None], windows[:, 2:, None]
        rows, columns = pixels.clamp(start, start + size - 1).unbind(1)  # (N, 28) each
        nearest = (rows[:, :, None] * SIDE + columns[:, None, :]).flatten(1)
        boxed = images.flatten(1).gather(1, nearest).view_as(images)  # edges repeated outwards

        y, x = to_grid(start + (pixels + 0.5) * (size / SIDE)).unbind(1)
        x, y = x[:, None, :].expand(-1, SIDE, -1), y[:, :, None].expand(-1, -1, SIDE)
        return sample(boxed, torch.stack([x, y], dim=-1), "bicubic")


@dataclass
class Noise(Op):
    """Gaussian noise on every pixel."""

    std: float = option(0.01, "Standard deviation; pixels are in [0, 1].", ge=0)

    def draw(self, n: int, generator: "Generator") -> Drawn:
        """Keys (N,) int64, each of a stream of noise of its own."""
        import torch

        return (torch.randint(-(2**63), 2**63 - 1, (n,), generator=generator),)

    def apply(self, images: "Tensor", *drawn: "Tensor") -> "Tensor":
        """Independent noise for every pixel.

        A key seeds a SplitMix64 stream (Steele, Lea and Flood, 2014), whose k-th word makes the
        noise of pixels k and 392 + k by the Box-Muller transform.
        """
        import torch

        (keys,) = drawn
        words = splitmix64(keys, SIDE * SIDE // 2)
        radius = (((words >> 40 & 0xFFFFFF) + 1).float() * 2**-24).log().mul(-2).sqrt() * self.std
        angle = (words & 0xFFFFFF).float() * (2 * math.pi * 2**-24)
        noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return images + noise.view_as(images)


def augment(images: "Tensor", ops: Sequence[Op], generator: "Generator") -> "Tensor":
    """Draw for every image of a batch and apply: a pure function of the two.

    Args:
        images: float32 (N, 1, 28, 28) in [0, 1], on any device; left as they are.
        ops: applied in this order; without any the result is `images`.
        generator: on the CPU, whatever the device of the images; it moves on.
    """
    return apply(images, ops, to(draw(ops, len(images), generator), images.device))


def draw(ops: Sequence[Op], n: int, generator: "Generator") -> Draws:
    """The random parameters of n images, from a CPU generator."""
    return tuple(op.draw(n, generator) for op in ops)


def take(draws: Draws, index: "slice | Tensor") -> Draws:
    """The parameters of the images at `index` alone."""
    return tuple(tuple(tensor[index] for tensor in drawn) for drawn in draws)


def to(draws: Draws, device: "torch.device | str") -> Draws:
    """The same parameters on another device."""
    return tuple(tuple(tensor.to(device) for tensor in drawn) for drawn in draws)


def apply(images: "Tensor", ops: Sequence[Op], draws: Draws) -> "Tensor":
    """The ops, in order, on images (N, 1, 28, 28) whose parameters are `draws`, on one device."""
    for op, drawn in zip(ops, draws, strict=True):
        images = op.apply(images, *drawn)
    return images


def uniform(*shape: int, generator: "Generator") -> "Tensor":
    """Uniform in [0, 1), float64, so that rounding favours none of the values made of it."""
    import torch

    return torch.rand(*shape, dtype=torch.float64, generator=generator)


def boxes(n: int, smallest: int, largest: int, generator: "Generator") -> "Tensor":
    """Boxes (N, 4) int64: top, left, height, width; each size and each place equally likely."""
    import torch

    sizes = smallest + (uniform(n, 2, generator=generator) * (largest - smallest + 1)).long()
    corners = (uniform(n, 2, generator=generator) * (SIDE - sizes + 1)).long()
    return torch.cat([corners, sizes], dim=1)


def to_grid(position: "Tensor") -> "Tensor":
    """Positions in pixels from the image's outer edge, in `grid_sample`'s units: 0..28 -> -1..1."""
    return position * (2 / SIDE) - 1


def sample(images: "Tensor", grid: "Tensor", mode: str) -> "Tensor":
    """Images as seen at the places of a grid (N, 28, 28, 2); outside is the nearest edge pixel."""
    from torch.nn.functional import grid_sample

    return grid_sample(images, grid, mode, padding_mode="border", align_corners=False)


def splitmix64(seeds: "Tensor", n: int) -> "Tensor":
    """The first n words of the stream of each seed (N,) -> (N, n) int64, wrapping round."""
    import torch

    def shift(z: "Tensor", bits: int) -> "Tensor":  # to the right, zeros in: `>>` repeats the sign
        return (z >> bits) & ((1 << (64 - bits)) - 1)

    # The published constants as signed numbers.
    steps = torch.arange(1, n + 1, device=seeds.device) * -0x61C8864680B583EB
    z = seeds[:, None] + steps
    z = (z ^ shift(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ shift(z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ shift(z, 31)


# Operations with a short name that are imported as those with a dotted path are.
SHORT = {"torchvision": "fmnist_pl.data.transforms.Torchvision"}


def parse_ops(ops: Sequence[Any]) -> list[Op]:
    """The operations of `augment.ops`, in order; those from elsewhere are imported.

    Args:
        ops: one `{name: {parameter: value}}` each; parameters left out keep their defaults.

    Raises:
        UserError: an unknown operation or parameter, a wrong type, a value out of range.
    """
    return [find(name).of(parameters) for name, parameters in map(split, ops)]


def spell_out(ops: Sequence[Any]) -> list[dict[str, dict[str, Any]]]:
    """`augment.ops` with all parameters filled in; operations from elsewhere as they are given.

    Nothing is imported, so that what somebody else has trained with can be read.

    Raises:
        UserError: as of `parse_ops`, for the operations of this module.
    """
    return [
        {name: dict(parameters)} if imported(name) else asdict_op(find(name).of(parameters))
        for name, parameters in map(split, ops)
    ]


def asdict_op(op: Op) -> dict[str, dict[str, Any]]:
    """The configuration of an operation: the inverse of `parse_ops`, all parameters filled in."""
    return {op.name: op.parameters()}


def split(op: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and parameters of an entry of `augment.ops`."""
    if isinstance(op, Mapping) and len(op) == 1:
        [(name, parameters)] = op.items()
        if isinstance(name, str) and isinstance(parameters, Mapping | None):
            return name, parameters or {}
    raise UserError(f"augment.ops: {op!r} is not of the form {{name: {{parameter: value}}}}.")


def imported(name: str) -> bool:
    """Whether an operation is imported when it is trained with, and not before."""
    return "." in name or name in SHORT


def find(name: str) -> type[Op]:
    """The class of an operation."""
    if not imported(name):
        if name in Op.known:
            return Op.known[name]
        raise UserError(
            f"augment.ops: no operation {name!r}; there are {', '.join([*Op.known, *SHORT])}, and "
            "by its dotted path, as mypackage.ops.Brightness, any of your own."
        )
    found = locate(SHORT.get(name, name), "augment.ops")
    # A subclass without its own @dataclass would silently have the parameters of its parent alone.
    if (
        isclass(found)
        and issubclass(found, Op)
        and not isabstract(found)
        and "__dataclass_fields__" in vars(found)
    ):
        return found
    raise UserError(
        f"augment.ops: {name} is no operation: a dataclass that is a subclass of "
        "fmnist_pl.data.augment.Op and has its own draw and apply."
    )
