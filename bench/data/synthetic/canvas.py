"""A picture and, drawn together with it, which part of whom every pixel shows.

Everything is drawn far to near, so what is hidden is known exactly: it was painted over.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Region = tuple[slice, slice]
ColourAt = Callable[[Floats32, Floats32], Floats32]  # x, y (h, w) image pixels -> RGB (h, w, 3) or (3,)

PARTS_PER_PERSON = 64
NOBODY = 0
BITS = 4  # of sub-pixel position in cv2's drawing
ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


class Canvas(NamedTuple):
    """`image` (h, w, 3) RGB uint8; `parts` (h, w) uint16: PARTS_PER_PERSON * person + part, or NOBODY."""

    image: NDArray[np.uint8]
    parts: NDArray[np.uint16]


def circle(center: Floats, radius: float) -> Floats:
    """Outline points (16, 2)."""
    return center + CIRCLE * radius


def hull(*outlines: Floats) -> Floats:
    """Convex hull (M, 2) of several outlines."""
    return cv2.convexHull(np.concatenate(outlines).astype(np.float32))[:, 0].astype(np.float64)


def tube(centers: Sequence[Floats], radii: Sequence[float]) -> list[Floats]:
    """Outlines that together show a chain of spheres, each joined to the next."""
    circles = [circle(center, radius) for center, radius in zip(centers, radii, strict=True)]
    return [hull(first, second) for first, second in zip(circles, circles[1:], strict=False)]


def clip_region(canvas: Canvas, low: Floats, high: Floats) -> Region | None:
    """Rows and columns of the canvas inside of the box from `low` to `high` (x, y), or None."""
    height, width = canvas.parts.shape
    x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
    x1, y1 = min(int(high[0]) + 1, width), min(int(high[1]) + 1, height)
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def coverage(region: Region, outlines: Sequence[Floats]) -> NDArray[np.uint8]:
    """How much of each pixel the union of convex outlines covers, 0 to 255 (h, w)."""
    rows, columns = region
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    origin = np.array([columns.start, rows.start])
    for outline in outlines:
        points = np.round((outline - origin) * (1 << BITS)).astype(np.int32)
        cv2.fillConvexPoly(mask, points, 255, cv2.LINE_AA, BITS)
    return mask


def pixel_grid(region: Region) -> tuple[Floats32, Floats32]:
    """x (1, w) and y (h, 1) of the pixels of a region."""
    rows, columns = region
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :]
    return x, np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]


def paint(canvas: Canvas, outlines: Sequence[Floats], colour_at: ColourAt, part: int, roundness: float) -> None:
    """Draw a soft-shaded shape: light from the upper left, dark rims `roundness` pixels wide, a shadow on its owner."""
    points = np.concatenate(outlines)
    pad = 3 + roundness
    region = clip_region(canvas, points.min(axis=0) - pad, points.max(axis=0) + pad)
    if region is None:
        return
    mask = coverage(region, outlines)
    size = max(3, int(roundness) | 1)
    soft = cv2.blur(mask, (size, size), borderType=cv2.BORDER_REPLICATE).astype(np.float32) / np.float32(255)
    lit = soft - np.roll(soft, (max(1, size // 3),) * 2, axis=(0, 1))
    shade = (np.float32(0.5) + np.float32(0.5) * np.minimum(soft * np.float32(1.1), 1) + np.float32(0.25) * lit)[..., None]
    parts = canvas.parts[region]
    owner = part // PARTS_PER_PERSON
    if part != NOBODY:
        under = (parts // PARTS_PER_PERSON == owner).astype(np.float32)
        shadow = 1 - np.float32(0.4) * soft * under
    else:
        shadow = 1 - np.float32(0.25) * soft
    alpha = mask.astype(np.float32)[..., None] / np.float32(255)
    below = canvas.image[region] * shadow[..., None]
    colour = np.minimum(colour_at(*pixel_grid(region)) * shade, 255)
    canvas.image[region] = (below + alpha * (colour - below)).astype(np.uint8)
    parts[mask > 127] = part
