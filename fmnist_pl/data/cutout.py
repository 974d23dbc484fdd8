"""The piece in a photo found and cut out, as it is in the images of the data set: on pure black.

What a photo has around the piece, a grey, a shadow, noise, is no ground to a net that has only seen
black: it reads it as part of the piece, most often of a bag.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fmnist_pl.data.protocol import SIDE

FINEST = 192  # longer side, in pixels, at which a photo is looked at
LEAST = 0.01  # of the picture: what is smaller is no piece
LEVEL = 5  # of 255: what differs less from black is black in the images of the data set
DIMMEST = 85  # of 255: darker paper, seen inverted, is taken for a ground of that colour
FILLED = 26  # pixels: the longer side of the piece in the images of the data set, at least

Mask = NDArray[np.bool_]
Grey = NDArray[np.uint8]
Lab = NDArray[np.float32]


class Cutout(NamedTuple):
    """A piece of clothing as the data set would have it, and where it was found."""

    image: Grey  # (28, 28)
    inverted: bool
    photo: NDArray[np.uint8]  # (H, W, 3), at the size at which it was looked at
    mask: Mask  # (H, W)
    doubt: str = ""  # why its class is not to be relied on
    fitted: bool = False  # found in a photo, not as it was in the file


class Ground(NamedTuple):
    """What a photo would be without a piece: a plane through the colours of its border."""

    colour: Lab  # (H, W, 3)
    spread: float  # of the border around it, a standard deviation
    share: float  # of the border that is ground

    @property
    def plain(self) -> bool:
        return self.spread < 3 and self.share > 0.8


def cut_out(image: Image.Image, invert: str, ready: bool = False) -> Cutout | None:
    """The piece, its grey inverted where the ground is light; None where nothing stands out.

    An image of the data set, or one inverted, stays as it is. Otherwise the piece is
    fitted in: 28 pixels on its longer side, in the middle, 0 around it.

    Args:
        image: of any mode and size.
        invert: yes, no, or auto: where the ground is light.
        ready: 28x28 pixels are an image of the data set, whatever they show.
    """
    photo, alpha = to_rgb(image, ground="black" if invert == "no" else "white")
    grey = np.asarray(photo.convert("L"))
    light = is_light(grey)
    if (ready and grey.shape == (SIDE, SIDE)) or is_of_data_set(grey, light):
        mask = (255 - grey if light else grey) > LEVEL
        inverted = invert == "yes" or (invert == "auto" and light)
        return Cutout(255 - grey if inverted else grey, inverted, np.asarray(photo), mask)

    size = scaled(photo.size)
    photo = photo.resize(size, Image.Resampling.BICUBIC)
    pixels, grey = np.asarray(photo), np.asarray(photo.convert("L"))
    if alpha:
        mask, doubt = np.asarray(alpha.resize(size, Image.Resampling.BICUBIC)) > 127, ""
    else:
        mask, doubt = find_piece(pixels)
    if mask.mean() < LEAST:
        return None
    inverted = invert == "yes" or (invert == "auto" and bool(np.median(grey[border(mask)]) > 127))
    shown = 255 - grey if inverted else grey
    piece = np.where(mask, shown if alpha else levelled(shown, mask), np.uint8(0))
    return Cutout(fit(Image.fromarray(piece), mask), inverted, pixels, mask, doubt, True)


def to_rgb(image: Image.Image, ground: str) -> tuple[Image.Image, Image.Image | None]:
    """A photo on a ground, no larger than it is looked at, and its alpha where that cuts it out."""
    if image.mode[0] in "IF":
        full_scale = {"I": 65535, "F": 1}.get(image.mode, 65535)  # of Pillow's modes; else 16 bits
        values = np.asarray(image, np.float32) * (255 / full_scale)
        image = Image.fromarray(np.nan_to_num(values).clip(0, 255).round().astype(np.uint8))
    if transparent := image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("1", "P"):
        image = image.convert("RGB")
    if max(image.size) > FINEST:
        size = scaled(image.size)
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if not transparent:
        return image.convert("RGB"), None
    alpha = image.getchannel("A")
    on_ground = Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")
    return on_ground, alpha if (np.asarray(alpha) <= 127).mean() >= 0.02 else None


def is_light(grey: Grey) -> bool:
    """Whether the border of an image of the data set would be white: it is inverted."""
    edge = grey[border(grey)]
    return bool((edge >= 255 - LEVEL).sum() > (edge <= LEVEL).sum())


def is_of_data_set(grey: Grey, light: bool) -> bool:
    """Whether it could be: 28x28, some of its border pure, and the piece as large as it goes.

    Of the 70,000 images the one with least has a tenth of its border black.
    """
    if grey.shape != (SIDE, SIDE):
        return False
    piece = (255 - grey if light else grey) > LEVEL
    extents = [np.ptp(np.flatnonzero(piece.any(axis))) + 1 for axis in (0, 1) if piece.any()]
    return bool((~piece[border(piece)]).mean() >= 0.1 and max(extents, default=0) >= FILLED)


def scaled(size: tuple[int, int]) -> tuple[int, int]:
    """The width and height at which a photo is looked at."""
    width, height = (max(1, round(side * FINEST / max(size))) for side in size)
    return width, height


def border(image: NDArray[np.generic]) -> Mask:
    """Its ring, 3% of the shorter side (H, W)."""
    height, width = image.shape[:2]
    thickness = max(1, round(0.03 * min(height, width)))
    ring = np.ones((height, width), bool)
    ring[thickness:-thickness, thickness:-thickness] = False
    return ring


def find_piece(pixels: NDArray[np.uint8]) -> tuple[Mask, str]:
    """Where the piece is (H, W) in a photo (H, W, 3), and what there is to doubt about it."""
    lab = ndimage.gaussian_filter(to_lab(pixels), (0.7, 0.7, 0))
    ground = ground_of(lab)
    away = distance(lab, ground.colour) > max(6, min(4 * ground.spread, 25))
    mask = np.pad(ndimage.binary_opening(without_shadow(away, lab, ground)), 3)
    mask = ndimage.binary_closing(mask, iterations=3)[3:-3, 3:-3]
    mask, parts = main_parts(mask)
    if not ground.plain:
        return mask, "the ground is not plain"
    if parts > 1:
        return mask, "more than one piece"
    touching = max(edge.mean() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    return mask, "the piece reaches the edge" if touching > 0.03 else ""


def ground_of(lab: Lab) -> Ground:
    """The plane, by least squares over those pixels of the border (H, W, 3) that lie near it."""
    terms, ring = plane_terms(lab.shape), border(lab)
    places, colours = terms[ring], lab[ring]
    off = distance(colours, np.median(colours, 0))
    near = off <= max(2 * float(np.median(off)), 6)
    for _ in range(4):
        plane = np.linalg.lstsq(places[near], colours[near], rcond=None)[0]
        off = distance(colours, places @ plane)
        spread = max(1.0, 1.4826 * float(np.median(off[near])))
        near = off <= max(3 * spread, 4)
    return Ground(terms @ plane, spread, float(near.mean()))


def plane_terms(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """1, x and y of each pixel, (H, W, 3)."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    return np.stack([np.ones_like(x), x, y], -1).astype(np.float32)


def levelled(grey: Grey, mask: Mask) -> Grey:
    """A photo with its ground as black as it is in the data set; the piece is brighter.

    Paper in a dim light is grey, and so are the darks of what lies on it. A ground that is no
    paper, and one with a piece darker than itself, stay as they are.
    """
    terms, ring = plane_terms(grey.shape), border(mask) & ~mask
    if not ring.any() or grey[ring].mean() > DIMMEST:
        return grey
    under = terms @ np.linalg.lstsq(terms[ring], grey[ring].astype(np.float32), rcond=None)[0]
    if (grey[mask] < under[mask]).mean() > 0.1:
        return grey
    level: Grey = ((grey - under) / (255 - under) * 255).round().clip(0, 255).astype(np.uint8)
    return level


def without_shadow(away: Mask, lab: Lab, ground: Ground) -> Mask:
    """What is away from the ground, but for what it reaches over a slope: a soft shadow on it.

    A shadow is darker than the ground, of its hue, and ends slowly; a piece has an edge.
    """
    change = ground.colour - lab
    slope = ndimage.gaussian_gradient_magnitude(lab[..., 0], 1.0)
    hue = np.hypot(change[..., 1], change[..., 2])
    depth = change[..., 0] / ground.colour[..., 0].clip(1)
    shadow = (slope < 1.5) & (depth > 0) & (depth < 0.3) & (hue < 6)
    wide = np.pad(~away | shadow, 2, mode="edge")  # it does not leak in where an edge has a gap
    wide = ndimage.binary_opening(wide, iterations=2)[2:-2, 2:-2]
    reached: Mask = ndimage.binary_propagation(~away, mask=wide | ~away)
    return ~reached


def main_parts(mask: Mask) -> tuple[Mask, int]:
    """The largest part, those in the middle preferred, with others nearly as large: a pair."""
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    if count < 2:
        return mask, count
    areas = np.bincount(parts.ravel())[1:]
    centres = np.array(ndimage.center_of_mass(mask, parts, range(1, count + 1)))
    from_middle = np.linalg.norm(2 * centres / mask.shape - 1, axis=1)
    main = areas[np.argmax(areas * np.exp(-2 * from_middle))]
    kept = 1 + np.flatnonzero(areas >= 0.35 * main)
    return np.isin(parts, kept), len(kept)


def fit(piece: Image.Image, mask: Mask) -> Grey:
    """What the mask holds, as large as it goes and in the middle of 28x28 pixels.

    Where it cannot be there, it is nearer to the right and the bottom, as in the data set.
    """
    piece = piece.crop(Image.fromarray(mask).getbbox())
    # ImageOps.pad lets the short side of a long piece become 0.
    width, height = (max(1, round(side / max(piece.size) * SIDE)) for side in piece.size)
    piece = piece.resize((width, height), Image.Resampling.LANCZOS)
    image = Image.new("L", (SIDE, SIDE))
    image.paste(piece, ((SIDE - width + 1) // 2, (SIDE - height + 1) // 2))
    return np.asarray(image)


def distance(one: Lab, other: Lab) -> NDArray[np.float32]:
    """Euclidean, of colours (..., 3)."""
    change = one - other
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("...c,...c", change, change))
    return lengths


LEVELS = np.arange(256) / 255
LINEAR = np.where(LEVELS > 0.04045, ((LEVELS + 0.055) / 1.055) ** 2.4, LEVELS / 12.92)
TO_XYZ = np.array(  # of linear sRGB, in parts of the white point, D65
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
) / [[0.95047], [1], [1.08883]]


def to_lab(pixels: NDArray[np.uint8]) -> Lab:
    """CIE L*a*b* of sRGB (H, W, 3)."""
    xyz = LINEAR.astype(np.float32)[pixels] @ TO_XYZ.T.astype(np.float32)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * (841 / 108) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
