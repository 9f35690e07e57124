"""A picture and, drawn together with it, which part of whom every pixel shows.

Everything is drawn far to near, so what is hidden is known exactly: it was painted over. Colours are planar (3, h, w)
while people are drawn: numpy and cv2 are quicker with whole rows of one channel.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int32]
Image = cv2.typing.MatLike  # what cv2 returns: here one channel, uint8 or float32
Region = tuple[slice, slice]
Chain = Sequence[tuple[Floats, float]]  # centers (x, y) and radii in pixels
ColourAt = Callable[[Floats32, Floats32], Floats32]  # x (1, w), y (h, 1) image pixels -> RGB (3, h, w) or (3, 1, 1)

NOBODY = 0
TINY, TINY_SHADE = 2.2, np.float32(0.86)  # a rim of less pixels cannot be seen
SHADOW = 0.35  # how dark a part makes what is right behind it
BITS = 4  # of sub-pixel position in cv2's drawing
ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


class Canvas(NamedTuple):
    """`image` (3, h, w) RGB 0 to 255; `owners` (h, w) persons from 1, or NOBODY; `parts` (h, w) their body parts."""

    image: Floats32
    owners: NDArray[np.uint16]
    parts: NDArray[np.uint8]

    @classmethod
    def on(cls, background: NDArray[np.uint8]) -> "Canvas":
        """Nobody yet, before a background (h, w, 3)."""
        shape = background.shape[:2]
        planes = np.empty((3, *shape), np.float32)
        for plane, channel in zip(planes, cv2.split(background), strict=True):
            plane[:] = channel
        return cls(planes, np.zeros(shape, np.uint16), np.zeros(shape, np.uint8))


class Ink(NamedTuple):
    """How a shape is painted: colours, whose part it is, and how wide its dark rim is in pixels.

    Near `joint` (x, y, radius), where a limb goes on, there is no rim.
    """

    colour_at: ColourAt
    owner: int
    part: int
    roundness: float
    joint: tuple[float, float, float] | None = None


def circles(centers: Floats, radii: Floats) -> Ints:
    """Outlines (N, 16, 2) around centers (N, 2), in the fixed-point pixels that all outlines are in."""
    return fixed(centers[:, None] + CIRCLE * radii[:, None, None])


def fixed(points: Floats) -> Ints:
    """Pixels to whole numbers of 1 / 2 ** BITS pixels."""
    return np.rint(points * (1 << BITS)).astype(np.int32)


def hull(points: Ints) -> Ints:
    """Convex hull (M, 1, 2) of points (..., 2)."""
    return np.asarray(cv2.convexHull(points.reshape(-1, 2)), np.int32)


def tubes(*chains: Chain) -> list[list[Ints]]:
    """Of each chain of spheres the outlines that together show it, each sphere joined to the next."""
    centers, radii = zip(*(sphere for chain in chains for sphere in chain), strict=True)
    rings = circles(np.array(centers), np.array(radii))
    ends = list(accumulate(map(len, chains), initial=0))
    return [stack(rings[start:end]) for start, end in pairwise(ends)]


def stack(rings: Ints) -> list[Ints]:
    """Outlines that together show rings (N, 16, 2), each joined to the next."""
    return [hull(rings[number : number + 2]) for number in range(len(rings) - 1)]


def clip_region(canvas: Canvas, x0: float, y0: float, x1: float, y1: float) -> Region | None:
    """Rows and columns of the canvas inside of a box, or None."""
    height, width = canvas.parts.shape
    left, top, right, bottom = max(int(x0), 0), max(int(y0), 0), min(int(x1) + 1, width), min(int(y1) + 1, height)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def pixel_grid(region: Region) -> tuple[Floats32, Floats32]:
    """x (1, w) and y (h, 1) of the pixels of a region."""
    rows, columns = region
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :]
    return x, np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]


def paint(canvas: Canvas, outlines: Sequence[Ints], ink: Ink) -> None:
    """Draw the union of convex outlines, lit from the upper left, with a rim.

    A body part throws a shadow on its owner alone, a thing on all.
    """
    region = _region_around(canvas, outlines, 2 + 0.5 * ink.roundness)
    if region is None:
        return
    mask = _coverage(region, outlines)
    inside = mask > 127
    if ink.roundness < TINY:
        alpha = mask * np.float32(1 / 255)
        blend(canvas, region, 1 - alpha, alpha * TINY_SHADE, ink.colour_at(*pixel_grid(region)))
    else:
        _paint_round(canvas, region, mask, ink)
    canvas.owners[region][inside] = ink.owner
    canvas.parts[region][inside] = ink.part


def _paint_round(canvas: Canvas, region: Region, mask: NDArray[np.uint8], ink: Ink) -> None:
    soft, shade = _light(mask, ink.roundness)
    if ink.owner != NOBODY:
        soft = cv2.bitwise_and(soft, cv2.inRange(canvas.owners[region], ink.owner, ink.owner))
    under = cv2.addWeighted(soft, -SHADOW / 255, soft, 0, 1, dtype=cv2.CV_32F)
    if ink.joint is not None and ink.joint[2] > TINY:  # smaller ones have no rim to see
        _smooth_joint(shade, under, region, ink.joint)
    keep = cv2.multiply(cv2.bitwise_not(mask), under, scale=1 / 255, dtype=cv2.CV_32F)
    blend(
        canvas,
        region,
        keep,
        cv2.multiply(mask, shade, scale=1 / 255, dtype=cv2.CV_32F),
        ink.colour_at(*pixel_grid(region)),
    )


def blend(canvas: Canvas, region: Region, keep: Image, add: Image, colour: Floats32) -> None:
    """The image times `keep` plus `colour` times `add`, both (h, w)."""
    for plane, ink in zip(canvas.image, colour, strict=True):
        below = plane[region]
        cv2.multiply(below, keep, dst=below)
        if ink.size == 1:
            cv2.scaleAdd(add, float(ink[0, 0]), below, dst=below)
        else:
            cv2.accumulateProduct(add, ink, below)


def _region_around(canvas: Canvas, outlines: Sequence[Ints], pad: float) -> Region | None:
    x, y, w, h = (side / (1 << BITS) for side in cv2.boundingRect(np.concatenate(outlines)))
    return clip_region(canvas, x - pad, y - pad, x + w + pad, y + h + pad)


def _coverage(region: Region, outlines: Sequence[Ints]) -> NDArray[np.uint8]:
    """How much of each pixel is covered, 0 to 255 (h, w)."""
    rows, columns = region
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    origin = np.array([columns.start << BITS, rows.start << BITS], np.int32)
    for outline in outlines:
        cv2.fillConvexPoly(mask, outline - origin, 255, cv2.LINE_AA, BITS)
    return mask


def _light(mask: NDArray[np.uint8], roundness: float) -> tuple[Image, Image]:
    """The shape blurred, which is its thickness, and its brightness 0 to 1, (h, w) each."""
    size = max(3, int(roundness) | 1)
    soft = cv2.blur(mask, (size, size), borderType=cv2.BORDER_REPLICATE)
    shift = min(size - 1, size // 2 + max(1, size // 3))
    moved = cv2.blur(mask, (size, size), anchor=(shift, shift), borderType=cv2.BORDER_REPLICATE)
    return soft, cv2.addWeighted(soft, 0.75 / 255, moved, -0.25 / 255, 0.53, dtype=cv2.CV_32F)


def _smooth_joint(shade: Image, under: Image, region: Region, joint: tuple[float, float, float]) -> None:
    """In place."""
    center_x, center_y, radius = joint
    center_x, center_y, reach = center_x - region[1].start, center_y - region[0].start, 1.7 * radius + 1
    x0, x1 = max(int(center_x - reach), 0), min(int(center_x + reach) + 1, shade.shape[1])
    y0, y1 = max(int(center_y - reach), 0), min(int(center_y + reach) + 1, shade.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    across = (np.arange(x0, x1, dtype=np.float32) - np.float32(center_x)) / np.float32(reach)
    down = (np.arange(y0, y1, dtype=np.float32) - np.float32(center_y)) / np.float32(reach)
    far = np.minimum(np.add.outer(down * down, across * across), 1)
    bright, dark = shade[y0:y1, x0:x1], under[y0:y1, x0:x1]
    near = 1 - far
    cv2.multiply(bright, far, dst=bright)
    cv2.add(bright, near, dst=bright)
    cv2.multiply(dark, far, dst=dark)
    cv2.add(dark, near, dst=dark)
