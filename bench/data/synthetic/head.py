"""Heads, drawn pixel by pixel: each pixel is traced onto the skull and asked what grows there."""

from typing import NamedTuple

import numpy as np

from bench.data.synthetic.canvas import Canvas, Floats, Floats32, Region, blend, clip_region, pixel_grid, tubes
from bench.data.synthetic.cloth import cloth_at
from bench.data.synthetic.figure import SIDES
from bench.data.synthetic.look import HAIRLINES, Look, mix
from bench.data.synthetic.parts import NUMBER, Placed, Shape

DEPTHS = (-1.0, -0.45, 0.0, 0.4, 1.0)  # where HAIRLINES are given
HAIR_THICKNESS = 1.1
FROM_BEHIND = 0.8  # depth of the head's forward axis beyond which no part of the face is seen
WHITE, PUPIL, LIPS, BLUSH, FRAME = (
    np.array(colour, np.float32)[:, None, None]
    for colour in ((250, 250, 248), (40, 30, 28), (156, 66, 62), (230, 120, 108), (30, 30, 34))
)


class Head(NamedTuple):
    """Skull, face and hair."""

    depth: float
    placed: Placed

    def draw(self, canvas: Canvas, owner: int) -> None:
        figure, look, scale = self.placed.figure, self.placed.look, self.placed.scale
        numbers = NUMBER["skin"], NUMBER["hair"]
        axes = np.array(figure.body.head)
        paint_head(canvas, self.placed.pixel("head"), scale, figure.head_frame, axes, look, owner, numbers)


class Surface(NamedTuple):
    """The side of an ellipsoid that faces the viewer.

    `places` (3, h, w) in half axes (left, up, forward); `coverage` and `shade` (h, w).
    """

    places: Floats32
    coverage: Floats32
    shade: Floats32


def trace(
    region: Region, center: Floats, scale: float, frame: Floats, axes: Floats, swell: tuple[float, ...]
) -> list[Surface]:
    """Ellipsoids with half axes `axes` (3,) metres times each of `swell`, where the pixels of `region` meet them.

    `center` (x, y) pixels, `scale` pixels a metre, `frame` (3, 3) columns in camera axes.
    """
    into = (frame / axes).T.astype(np.float32)  # camera metres -> half axes
    x, y = pixel_grid(region)
    x, y = (x - np.float32(center[0])) / np.float32(scale), (y - np.float32(center[1])) / np.float32(scale)
    flat = x * into[:, 0, None, None] + y * into[:, 1, None, None]
    square = into[:, 2] @ into[:, 2]
    along = x * (into[:, 0] @ into[:, 2] / square) + y * (into[:, 1] @ into[:, 2] / square)
    rim = flat[0] * flat[0] + flat[1] * flat[1] + flat[2] * flat[2] - along * along * square  # squared radius
    mean = np.float32(axes.mean())
    light = 1 - (x + y) / (12 * mean)
    surfaces = []
    for factor in map(np.float32, swell):
        part = rim / (factor * factor)
        nearest = -along - np.sqrt(np.maximum(1 - part, 0) * (factor * factor / square))
        places = (flat + nearest * into[:, 2, None, None]) / factor
        coverage = np.clip((1 - np.sqrt(np.maximum(part, 0))) * (np.float32(scale) * mean) + np.float32(0.5), 0, 1)
        part = np.minimum(part, 1)
        surfaces.append(Surface(places, coverage, light - np.float32(0.3) * part * part))
    return surfaces


def paint_head(canvas: Canvas, center: Floats, scale: float, frame: Floats, axes: Floats, look: Look, owner: int,
               parts: tuple[int, int]) -> None:  # fmt: skip
    """Skull with face, then hair over it; `parts` are the numbers of (skin, hair); for the rest see `Surface`."""
    reach = 1.15 * axes.max() * scale + 2
    region = clip_region(canvas, *(center - reach), *(center + reach))
    if region is None:
        return
    pixels = float(axes.mean() * scale)
    skull, outer = trace(region, center, scale, frame, axes, (1.0, HAIR_THICKNESS))
    face = look.skin.colour if frame[2, 2] > FROM_BEHIND else _face(skull, pixels, look)
    _cover(canvas, region, skull.coverage, face, skull.shade, owner, parts[0])
    if look.hairline == "bald":
        return
    left, up, forward = outer.places
    line = np.interp(forward, DEPTHS, HAIRLINES[look.hairline]).astype(np.float32)
    grown = np.clip((up - line) * np.float32(pixels) + np.float32(0.5), 0, 1) * outer.coverage
    hair = mix(look.hat if look.hairline == "cap" else look.hair, up * np.float32(0.1), left * np.float32(0.1))
    _cover(canvas, region, grown, hair, outer.shade, owner, parts[1])


def _cover(
    canvas: Canvas, region: Region, alpha: Floats32, colour: Floats32, shade: Floats32, owner: int, part: int
) -> None:
    blend(canvas, region, 1 - alpha, alpha * shade, colour)
    inside = alpha > 0.5
    canvas.owners[region][inside] = owner
    canvas.parts[region][inside] = part


def _face(skull: Surface, pixels: float, look: Look) -> Floats32:
    """Skin with eyes, brows, mouth, cheeks, beard and glasses, (3, h, w)."""
    left, up, forward = skull.places
    side, front = np.abs(left), (forward > 0).astype(np.float32)
    face = np.repeat(np.repeat(look.skin.colour, left.shape[0], 1), left.shape[1], 2)

    def stamp(distance: Floats32, colour: Floats32, strength: float, size: float) -> None:
        """Where `distance` < 1, in units of `size` half axes; never thinner than a pixel."""
        weight = np.clip((1 - distance) * np.float32(max(size * pixels, 0.8)) + np.float32(0.5), 0, 1) * front
        weight *= np.float32(strength)
        np.add(face, weight * (colour - face), out=face)

    def spot(x: float, y: float, rx: float, ry: float) -> Floats32:
        across, down = (side - np.float32(x)) / np.float32(rx), (up - np.float32(y)) / np.float32(ry)
        distance: Floats32 = np.sqrt(across * across + down * down)
        return distance

    if pixels > 12:  # too faint to be seen on a small head
        stamp(spot(0.5, -0.3, 0.25, 0.18), BLUSH, 0.25, 0.05)
    if look.beard:
        stamp(spot(0.0, -0.95, 0.95, 0.62), look.hair.colour, 0.85, 0.3)
    stamp(spot(0.0, -0.55, 0.28, 0.07), LIPS, 0.9, 0.07)
    stamp(spot(0.37, 0.16, 0.2, 0.125), WHITE, 1, 0.12)
    stamp(spot(0.37, 0.15, 0.105, 0.12), PUPIL, 1, 0.1)
    stamp(spot(0.37, 0.36, 0.22, 0.045), look.hair.colour * np.float32(0.7), 0.9, 0.045)
    if look.glasses:
        stamp(np.abs(spot(0.37, 0.15, 0.3, 0.22) - 1) * np.float32(4), FRAME, 0.9, 0.06)
    return face


Blob = tuple[list[tuple[float, float, float]], list[float]]  # places in half axes of the head, radii in its half widths
HAIR_BLOBS: dict[str, list[Blob]] = {
    "bob": [
        ([(0.62, 0.2, -0.4), (0.72, -1.0, -0.35)], [0.7, 0.45]),
        ([(-0.62, 0.2, -0.4), (-0.72, -1.0, -0.35)], [0.7, 0.45]),
        ([(0, 0, -0.55), (0, -1.0, -0.6)], [0.95, 0.75]),
    ],
    "long": [
        ([(0.6, 0.2, -0.4), (0.75, -1.2, -0.5), (0.8, -2.1, -0.6)], [0.7, 0.5, 0.35]),
        ([(-0.6, 0.2, -0.4), (-0.75, -1.2, -0.5), (-0.8, -2.1, -0.6)], [0.7, 0.5, 0.35]),
        ([(0, 0, -0.55), (0, -1.2, -0.75), (0, -2.2, -0.9)], [0.95, 0.85, 0.6]),
    ],
    "ponytail": [([(0, 0.4, -1.0), (0, 0, -1.6), (0, -1.1, -1.6)], [0.3, 0.36, 0.16])],
    "bun": [([(0, 0.9, -0.75), (0, 1.0, -0.8)], [0.42, 0.42])],
    "none": [],
}
BEHIND = 0.75  # how far away from the viewer nose or ear point when the head hides them wholly
NOSE_BLOB: Blob = ([(0, 0.05, 0.98), (0, -0.14, 1.06)], [0.1, 0.17])
EAR_BLOBS: dict[str, Blob] = {
    side: ([(sign * 1.04, 0.06, -0.08), (sign * 1.03, -0.12, -0.05)], [0.24, 0.17]) for side, sign in SIDES
}
BRIM_BLOB: Blob = ([(0.4, 0.46, 1.1), (0, 0.48, 1.5), (-0.4, 0.46, 1.1)], [0.22, 0.2, 0.22])


def face_and_hair(placed: Placed) -> list[Shape]:
    """Tubes fixed to the head."""
    look, away = placed.look, placed.figure.head_frame[2]
    blobs = [("nose", NOSE_BLOB, look.skin)] if away[2] < BEHIND else []
    if not look.covers_ears:
        blobs += [(f"{side}_ear", EAR_BLOBS[side], look.skin) for side, sign in SIDES if sign * away[0] < BEHIND]
    if look.hairline == "cap":
        blobs.append(("brim", BRIM_BLOB, look.hat))
    blobs += [("back_hair", blob, look.hair) for blob in HAIR_BLOBS[look.hair_extra]]
    if not blobs:
        return []
    axes = placed.figure.head_frame * np.array(placed.figure.body.head)  # columns scaled by the half axes
    unit = placed.figure.body.head[0] * placed.scale
    spheres = [placed.figure.joints["head"] + np.array(blob[0]) @ axes.T for _, blob, _ in blobs]
    outlines = tubes(
        *(list(zip(placed.flat(centers), unit * np.array(blob[1]), strict=True))
          for centers, (_, blob, _) in zip(spheres, blobs, strict=True))
    )  # fmt: skip
    center = placed.pixel("head")
    down = center - placed.figure.head_frame[:2, 1] * placed.scale
    return [
        Shape(
            float(centers[:, 2].mean()),
            part,
            outline,
            cloth_at(material, center, down, placed.scale),
            blob[1][0] * unit,
        )
        for centers, outline, (part, blob, material) in zip(spheres, outlines, blobs, strict=True)
    ]
