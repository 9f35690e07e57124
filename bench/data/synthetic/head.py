"""Heads, drawn pixel by pixel: each pixel is traced onto the skull and asked what grows there."""

import numpy as np

from bench.data.synthetic.canvas import Canvas, Floats, Floats32, Region, clip_region, pixel_grid
from bench.data.synthetic.look import HAIRLINES, Look, mix

DEPTHS = (-1.0, -0.45, 0.0, 0.4, 1.0)  # where HAIRLINES are given
HAIR_THICKNESS = 1.1


class Surface:
    """The side of an ellipsoid that faces the viewer. `places` (h, w, 3) in half axes (left, up, forward)."""

    def __init__(self, region: Region, center: Floats, scale: float, frame: Floats, axes: Floats) -> None:
        """`center` (x, y) pixels, `scale` pixels a metre, `frame` (3, 3) columns in camera axes, `axes` (3,) metres."""
        into = (frame / axes).T.astype(np.float32)  # camera metres -> half axes
        x, y = pixel_grid(region)
        x, y = (x - np.float32(center[0])) / np.float32(scale), (y - np.float32(center[1])) / np.float32(scale)
        flat = x[..., None] * into[:, 0] + y[..., None] * into[:, 1]
        along, square = flat @ into[:, 2], into[:, 2] @ into[:, 2]
        rim = np.einsum("hwc,hwc->hw", flat, flat) - along * along / square  # squared radius, 1 on the outline
        nearest = (-along - np.sqrt(np.maximum(square * (1 - rim), 0))) / square
        self.places: Floats32 = flat + nearest[..., None] * into[:, 2]
        radius = np.sqrt(np.maximum(rim, 0))
        self.coverage: Floats32 = np.clip((1 - radius) * np.float32(scale * axes.mean()) + 0.5, 0, 1)
        self.shade: Floats32 = 1 - np.float32(0.32) * np.minimum(radius, 1) ** 4 - np.float32(0.5) * (x + y) / np.float32(
            axes.mean() * 6
        )


def paint_head(canvas: Canvas, center: Floats, scale: float, frame: Floats, axes: Floats, look: Look, parts: tuple[int, int]) -> None:
    """Skull with face, then hair over it; `parts` are the numbers of (skin, hair)."""
    reach = 1.3 * axes.max() * scale + 2
    region = clip_region(canvas, center - reach, center + reach)
    if region is None:
        return
    pixels = axes.mean() * scale
    skull = Surface(region, center, scale, frame, axes)
    _blend(canvas, region, _face(skull, pixels, look), skull.coverage, parts[0])
    if look.hairline == "bald":
        return
    outer = Surface(region, center, scale, frame, axes * HAIR_THICKNESS)
    left, up, forward = np.moveaxis(outer.places, -1, 0)
    line = np.interp(forward, DEPTHS, HAIRLINES[look.hairline]).astype(np.float32)
    grown = np.clip((up - line) * np.float32(pixels) + 0.5, 0, 1) * outer.coverage
    hair = mix(look.hat if look.hairline == "cap" else look.hair, up * np.float32(0.1), left * np.float32(0.1))
    _blend(canvas, region, hair * outer.shade[..., None], grown, parts[1])


def _blend(canvas: Canvas, region: Region, colour: Floats32, alpha: Floats32, part: int) -> None:
    below = canvas.image[region].astype(np.float32)
    canvas.image[region] = np.clip(below + alpha[..., None] * (colour - below), 0, 255).astype(np.uint8)
    canvas.parts[region][alpha > 0.5] = part


def _face(skull: Surface, pixels: float, look: Look) -> Floats32:
    """Skin with eyes, brows, mouth, cheeks, beard and glasses, (h, w, 3)."""
    left, up, forward = np.moveaxis(skull.places, -1, 0)
    front = forward > 0
    skin = look.skin.colour
    face = np.broadcast_to(skin, (*left.shape, 3)).astype(np.float32)
    side = np.abs(left)

    def stamp(distance: Floats32, colour: Floats32, strength: float, size: float) -> None:
        """Where `distance` < 1, in units of `size` half axes; never thinner than a pixel."""
        weight = np.clip((1 - distance) * np.float32(max(size * pixels, 0.8)) + 0.5, 0, 1) * front
        np.add(face, (weight * np.float32(strength))[..., None] * (colour - face), out=face)

    def spot(x: float, y: float, rx: float, ry: float) -> Floats32:
        return np.hypot((side - np.float32(x)) / np.float32(rx), (up - np.float32(y)) / np.float32(ry))

    stamp(spot(0.5, -0.3, 0.25, 0.18), np.array([226, 120, 110], np.float32), 0.25, 0.05)
    if look.beard:
        stamp(np.maximum(spot(0.0, -0.95, 0.95, 0.62), 0), look.hair.colour, 0.85, 0.3)
    stamp(spot(0.0, -0.55, 0.28, 0.07), np.array([150, 60, 60], np.float32), 0.9, 0.07)
    stamp(spot(0.37, 0.16, 0.2, 0.115), np.array([250, 250, 248], np.float32), 1, 0.12)
    stamp(spot(0.37, 0.15, 0.105, 0.115), np.array([44, 32, 30], np.float32), 1, 0.1)
    stamp(spot(0.37, 0.36, 0.22, 0.045), look.hair.colour * np.float32(0.7), 0.9, 0.045)
    if look.glasses:
        ring = np.abs(spot(0.37, 0.15, 0.3, 0.22) - 1) * np.float32(4)
        stamp(ring, np.array([30, 30, 34], np.float32), 0.9, 0.06)
    return face * skull.shade[..., None]
