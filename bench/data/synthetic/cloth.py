"""Materials on bones: the colour at every pixel of a limb."""

import numpy as np

from bench.data.synthetic.canvas import ColourAt, Floats, Floats32
from bench.data.synthetic.look import Material, mix


def flat(material: Material) -> ColourAt:
    """The first colour, whatever the pattern."""
    return lambda _x, _y: material.colour


def cloth_at(material: Material, start: Floats, end: Floats, scale: float) -> ColourAt:
    """Colours in the frame of a bone from `start` to `end` (pixels)."""
    if material.pattern == "plain":
        return flat(material)
    bone = end - start
    length = float(np.linalg.norm(bone))
    ax, ay = (bone / length if length > 1 else np.array([0.0, 1.0])).astype(np.float32) / np.float32(scale)

    def colour_at(x: Floats32, y: Floats32) -> Floats32:
        x, y = x - np.float32(start[0]), y - np.float32(start[1])
        return mix(material, x * ax + y * ay, y * ax - x * ay)

    return colour_at


def sleeved(sleeve: Material, skin: Material, hem: float, start: Floats, end: Floats, scale: float) -> ColourAt:
    """Cloth from `start` to the share `hem` of the bone, skin beyond."""
    if hem >= 1:
        return cloth_at(sleeve, start, end, scale)
    if hem <= 0:
        return flat(skin)
    bone = (end - start).astype(np.float32)
    square = np.maximum(bone @ bone, np.float32(1))
    under, edge = cloth_at(sleeve, start, end, scale), np.sqrt(square)

    def colour_at(x: Floats32, y: Floats32) -> Floats32:
        along = ((x - np.float32(start[0])) * bone[0] + (y - np.float32(start[1])) * bone[1]) / square
        share = np.clip((np.float32(hem) - along) * edge + np.float32(0.5), 0, 1)
        mixed: Floats32 = skin.colour + share * (under(x, y) - skin.colour)
        return mixed

    return colour_at
