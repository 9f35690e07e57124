"""Things that stand in front of people, and stools under them."""

from collections.abc import Callable

import numpy as np

from bench.data.synthetic.background import EVERY_COLOUR, GRASS, darker, pick
from bench.data.synthetic.canvas import NOBODY, Canvas, Floats, Ink, Ints, circles, fixed, paint, tubes
from bench.data.synthetic.look import Colour

Rng = np.random.Generator


def _paint(canvas: Canvas, outlines: list[Ints], colour: Colour, roundness: float) -> None:
    flat = np.array(colour, np.float32)[:, None, None]
    paint(canvas, outlines, Ink(lambda _x, _y: flat, NOBODY, 0, roundness))


def slab(
    canvas: Canvas, low: tuple[float, float], high: tuple[float, float], colour: Colour, roundness: float = 6
) -> None:
    """An upright rectangle from corner to corner (x, y)."""
    (x0, y0), (x1, y1) = low, high
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    _paint(canvas, [fixed(corners)], colour, roundness)


def draw_crate(canvas: Canvas, at: Floats, unit: float, rng: Rng) -> None:
    """`at` (x, y) is the middle of the thing, `unit` its person's pixels a metre; so for all below."""
    w, h = rng.uniform(0.15, 0.36) * unit, rng.uniform(0.15, 0.36) * unit
    colour = pick(EVERY_COLOUR, rng)
    slab(canvas, (at[0] - w, at[1] - h), (at[0] + w, at[1] + h), colour, 9)
    for share in (-0.4, 0.4):
        y = at[1] + share * h
        slab(canvas, (at[0] - w, y - 1.5), (at[0] + w, y + 1.5), darker(colour, 0.75), 3)


def draw_pole(canvas: Canvas, at: Floats, unit: float, rng: Rng) -> None:
    half = rng.uniform(0.03, 0.09) * unit
    slab(canvas, (at[0] - half, -5), (at[0] + half, at[1] + 1.3 * unit), pick(EVERY_COLOUR, rng), 2 * half)


def draw_table(canvas: Canvas, at: Floats, unit: float, rng: Rng) -> None:
    w, top, foot = rng.uniform(0.4, 0.75) * unit, at[1] - 0.1 * unit, at[1] + 0.75 * unit
    colour = pick(EVERY_COLOUR, rng)
    if rng.random() < 0.5:  # a front panel hides the legs
        slab(canvas, (at[0] - 0.95 * w, top), (at[0] + 0.95 * w, foot), darker(colour, 0.85), 9)
    for x in (at[0] - 0.9 * w, at[0] + 0.9 * w):
        slab(canvas, (x - 0.03 * unit, top), (x + 0.03 * unit, foot), darker(colour, 0.8), 4)
    slab(canvas, (at[0] - w, top), (at[0] + w, top + 0.07 * unit), colour, 4)


def draw_bush(canvas: Canvas, at: Floats, unit: float, rng: Rng) -> None:
    leaves = pick(GRASS, rng)
    for _ in range(7):
        center = at + rng.normal(0, (0.24, 0.12), 2) * unit
        outline = circles(center[None], rng.uniform(0.08, 0.18, 1) * unit)[0]
        _paint(canvas, [outline], darker(leaves, rng.uniform(0.75, 1.15)), 0.15 * unit)


def draw_fence(canvas: Canvas, at: Floats, unit: float, rng: Rng) -> None:
    colour, half = pick(EVERY_COLOUR, rng), rng.uniform(0.5, 1.0) * unit
    for y in (at[1] - 0.25 * unit, at[1] + 0.15 * unit):
        slab(canvas, (at[0] - half, y), (at[0] + half, y + 0.06 * unit), colour, 4)
    for x in np.arange(at[0] - half, at[0] + half, 0.35 * unit):
        slab(canvas, (x, at[1] - 0.4 * unit), (x + 0.05 * unit, at[1] + 0.5 * unit), darker(colour, 0.9), 4)


def draw_balloon(canvas: Canvas, at: Floats, unit: float, rng: Rng) -> None:
    radius = rng.uniform(0.1, 0.22) * unit
    _paint(canvas, [circles(at[None], np.array([radius]))[0]], pick(EVERY_COLOUR, rng), radius)


OBJECTS: tuple[Callable[[Canvas, Floats, float, Rng], None], ...] = (
    draw_crate, draw_pole, draw_table, draw_bush, draw_fence, draw_balloon,
)  # fmt: skip


def draw_stool(canvas: Canvas, seat: Floats, ground: float, unit: float, rng: Rng) -> None:
    """Under a seated person: `seat` (x, y) is the pelvis, `ground` the row of the feet."""
    colour = pick(EVERY_COLOUR, rng)
    top = seat[1] + 0.1 * unit
    foot = max(ground, top)
    legs = [
        [(np.array([seat[0] + share * dx * unit, y]), 0.03 * unit) for share, y in ((1, top), (1.2, foot))]
        for dx in (-0.16, 0.16)
    ]
    ends = [(np.array([seat[0] + dx * unit, top]), 0.05 * unit) for dx in (-0.2, 0.2)]
    left, right, board = tubes(*legs, ends)
    for leg in (left, right):
        _paint(canvas, leg, darker(colour, 0.8), 3)
    _paint(canvas, board, colour, 4)
