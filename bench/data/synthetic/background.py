"""What stands behind the people: rooms, streets, parks and plain clutter, in colours that people wear too."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.data.synthetic.canvas import Floats32
from bench.data.synthetic.choice import choose
from bench.data.synthetic.look import CLOTH, HAIR, SKIN, TROUSERS, Colour

Image = NDArray[np.uint8]
Rng = np.random.Generator
EVERY_COLOUR = SKIN + HAIR + CLOTH + TROUSERS
WALLS = ((222, 214, 200), (200, 210, 214), (214, 196, 180), (176, 192, 178), (232, 228, 220), (168, 150, 140),
                  (150, 168, 190), (206, 178, 150))  # fmt: skip
FLOORS = ((150, 116, 84), (120, 110, 104), (176, 160, 140), (96, 84, 78), (190, 176, 150))
GRASS = ((110, 150, 80), (140, 164, 96), (96, 128, 74), (170, 160, 110))
PAVING = ((150, 150, 148), (126, 124, 126), (176, 170, 160), (110, 106, 104))
SKY = ((150, 190, 226), (186, 208, 226), (214, 216, 220), (236, 204, 176))


def draw_background(size: tuple[int, int], horizon: float, rng: Rng) -> Image:
    """RGB picture of `size` (w, h); the ground begins at row `horizon`."""
    image = np.empty((size[1], size[0], 3), np.uint8)
    kinds = (_room, _room, _street, _park, _clutter)
    choose(rng, kinds)(image, int(horizon), rng)
    return image


def pick(palette: Sequence[Colour], rng: Rng, spread: float = 8) -> Colour:
    """A colour near one of the palette."""
    base, (red, green, blue) = choose(rng, palette), rng.normal(0, spread, 3).tolist()
    return _byte(base[0] + red), _byte(base[1] + green), _byte(base[2] + blue)


def darker(colour: Colour, factor: float) -> Colour:
    """Brighter with a factor above 1."""
    red, green, blue = colour
    return _byte(red * factor), _byte(green * factor), _byte(blue * factor)


def _byte(value: float) -> int:
    return min(max(int(value), 0), 255)


def box(image: Image, x: float, y: float, w: float, h: float, colour: Colour, *, line: float = 0.7) -> None:
    """A filled rectangle with a border `line` times as bright."""
    low, high = (int(x), int(y)), (int(x + w), int(y + h))
    cv2.rectangle(image, low, high, colour, -1)
    cv2.rectangle(image, low, high, darker(colour, line), 1)


def _gradient(image: Image, top: int, bottom: int, first: Colour, last: Colour) -> None:
    rows = max(bottom - top, 1)
    share = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    colours: Floats32 = (1 - share) * np.array(first, np.float32) + share * np.array(last, np.float32)
    fitting = colours[: max(len(image) - top, 0), None].astype(np.uint8)
    if fitting.size:
        image[top : top + rows] = cv2.resize(fitting, (image.shape[1], len(fitting)), interpolation=cv2.INTER_NEAREST)


def _ground(image: Image, horizon: int, colour: Colour) -> None:
    _gradient(image, horizon, len(image), darker(colour, 0.85), darker(colour, 1.1))


def _room(image: Image, horizon: int, rng: Rng) -> None:
    height, width = image.shape[:2]
    wall, floor = pick(WALLS, rng), pick(FLOORS, rng)
    _gradient(image, 0, horizon, darker(wall, 1.05), darker(wall, 0.9))
    if rng.random() < 0.35:
        step = int(rng.integers(10, 40))
        for x in range(int(rng.integers(step)), width, step):
            cv2.line(image, (x, 0), (x, horizon), darker(wall, 0.93), 1)
    _ground(image, horizon, floor)
    if rng.random() < 0.6:  # planks run to a vanishing point
        middle = rng.uniform(0.2, 0.8) * width
        for x in np.linspace(-1.5 * width, 2.5 * width, 22):
            start = (int(middle + 0.25 * (x - middle)), horizon)
            cv2.line(image, start, (int(x), height), darker(floor, 0.82), 1, cv2.LINE_AA)
    box(image, -2, horizon - 4, width + 4, 5, darker(wall, 0.8))
    pieces = (_picture, _window, _shelf, _door, _cabinet, _lamp)
    for _ in range(rng.integers(2, 7)):
        choose(rng, pieces)(image, horizon, rng)


def _picture(image: Image, horizon: int, rng: Rng) -> None:
    x, y = rng.uniform(0, image.shape[1]), rng.uniform(0, 0.5) * horizon
    w, h = rng.uniform(18, 60, 2)
    box(image, x, y, w, h, pick(EVERY_COLOUR, rng), line=0.4)
    center = (int(x + w * rng.uniform(0.3, 0.7)), int(y + h * 0.55))
    cv2.ellipse(image, center, (int(w * 0.22), int(h * 0.25)), 0, 0, 360, pick(EVERY_COLOUR, rng), -1, cv2.LINE_AA)


def _window(image: Image, horizon: int, rng: Rng) -> None:
    x, y = rng.uniform(0, image.shape[1]), rng.uniform(0.02, 0.3) * horizon
    w, h = rng.uniform(35, 80), rng.uniform(0.3, 0.6) * horizon
    box(image, x - 3, y - 3, w + 6, h + 6, (238, 236, 230))
    box(image, x, y, w, h, pick(SKY, rng))
    cv2.line(image, (int(x + w / 2), int(y)), (int(x + w / 2), int(y + h)), (238, 236, 230), 2)


def _shelf(image: Image, horizon: int, rng: Rng) -> None:
    x, y, w = rng.uniform(-20, image.shape[1]), rng.uniform(0.1, 0.8) * horizon, rng.uniform(40, 90)
    left = x
    while left < x + w - 4:
        thick, tall = rng.uniform(4, 12), rng.uniform(10, 26)
        box(image, left, y - tall, thick, tall, pick(EVERY_COLOUR, rng))
        left += thick + 1
    box(image, x, y, w, 4, pick(FLOORS, rng))


def _door(image: Image, horizon: int, rng: Rng) -> None:
    x, w, h = rng.uniform(-10, image.shape[1]), rng.uniform(40, 64), rng.uniform(0.75, 1) * horizon
    colour = pick(WALLS + FLOORS, rng)
    box(image, x, horizon - h, w, h, colour)
    for share in (0.1, 0.55):
        box(image, x + w * 0.15, horizon - h * (1 - share), w * 0.7, h * 0.35, darker(colour, 0.94))
    cv2.circle(image, (int(x + w * 0.9), int(horizon - h * 0.45)), 2, (210, 180, 90), -1, cv2.LINE_AA)


def _cabinet(image: Image, horizon: int, rng: Rng) -> None:
    x, w, h = rng.uniform(-20, image.shape[1]), rng.uniform(40, 100), rng.uniform(25, 70)
    colour, y = pick(FLOORS + CLOTH, rng), horizon + rng.uniform(2, 14)
    box(image, x, y - h, w, h, colour)
    for row in range(2):
        box(image, x + 3, y - h * (1 - row * 0.48) + 3, w - 6, h * 0.42, darker(colour, 1.08))


def _lamp(image: Image, horizon: int, rng: Rng) -> None:
    """A pole with a round head: upright, thin and no person."""
    x, top = int(rng.uniform(0, image.shape[1])), int(rng.uniform(0.1, 0.5) * horizon)
    cv2.line(image, (x, top), (x, horizon + 8), pick(EVERY_COLOUR, rng), int(rng.integers(2, 7)), cv2.LINE_AA)
    axes = (int(rng.integers(7, 16)), int(rng.integers(8, 16)))
    cv2.ellipse(image, (x, top), axes, 0, 0, 360, pick(EVERY_COLOUR, rng), -1, cv2.LINE_AA)


def _street(image: Image, horizon: int, rng: Rng) -> None:
    width = image.shape[1]
    sky = pick(SKY, rng)
    _gradient(image, 0, horizon, sky, darker(sky, 1.08))
    left = -rng.uniform(0, 30)
    while left < width:
        w, h = rng.uniform(35, 90), rng.uniform(0.3, 0.98) * horizon
        colour = pick(WALLS + CLOTH, rng)
        box(image, left, horizon - h, w, h, colour)
        pane, step = darker(colour, rng.uniform(0.5, 0.75)), int(rng.integers(11, 20))
        for y in range(int(horizon - h) + 6, horizon - 8, step):
            for x in range(int(left) + 5, int(left + w) - 7, step):
                cv2.rectangle(image, (x, y), (x + step // 2, y + step // 2 + 1), pane, -1)
        left += w + rng.uniform(-4, 8)
    _ground(image, horizon, pick(PAVING, rng))
    box(image, -2, horizon, width + 4, 5, pick(PAVING, rng))
    for _ in range(rng.integers(3)):
        _lamp(image, horizon, rng)
    if rng.random() < 0.4:
        _tree(image, horizon, rng)


def _park(image: Image, horizon: int, rng: Rng) -> None:
    width = image.shape[1]
    sky = pick(SKY, rng)
    _gradient(image, 0, horizon, sky, darker(sky, 1.1))
    hill = pick(GRASS, rng)
    for _ in range(rng.integers(1, 4)):
        center = (int(rng.uniform(0, width)), horizon + 5)
        cv2.ellipse(image, center, (int(rng.uniform(60, 200)), int(rng.uniform(12, 60))), 0, 180, 360,
                    darker(hill, rng.uniform(0.7, 1)), -1, cv2.LINE_AA)  # fmt: skip
    grass = pick(GRASS, rng)
    _ground(image, horizon, grass)
    x = rng.integers(0, width, 50)
    y = rng.integers(horizon, len(image), 50)
    for start_x, start_y in zip(x.tolist(), y.tolist(), strict=True):
        cv2.line(image, (start_x, start_y), (start_x + 1, start_y - 4), darker(grass, 0.8), 1, cv2.LINE_AA)
    for _ in range(rng.integers(1, 5)):
        _tree(image, horizon, rng)


def _tree(image: Image, horizon: int, rng: Rng) -> None:
    x, top, foot = rng.uniform(0, image.shape[1]), rng.uniform(0.05, 0.5) * horizon, horizon + rng.uniform(0, 14)
    cv2.line(image, (int(x), int(top)), (int(x), int(foot)), pick(HAIR, rng), int(rng.integers(4, 11)), cv2.LINE_AA)
    leaves = pick(GRASS, rng)
    for dx, dy, radius in zip(rng.normal(0, 14, 7), rng.normal(0, 11, 7), rng.uniform(8, 20, 7), strict=True):
        shade = darker(leaves, 0.85 - 0.008 * dy)
        cv2.circle(image, (int(x + dx), int(top + dy)), int(radius), shade, -1, cv2.LINE_AA)


def _clutter(image: Image, horizon: int, rng: Rng) -> None:
    """Shapes of every colour, limb-like bars among them."""
    height, width = image.shape[:2]
    wall = pick(WALLS + PAVING, rng)
    _gradient(image, 0, height, wall, darker(wall, 0.8))
    draw: tuple[Callable[[Image, Rng], None], ...] = (_disc, _bar, _panel)
    for _ in range(rng.integers(12, 30)):
        choose(rng, draw)(image, rng)
    cv2.line(image, (0, horizon), (width, horizon), darker(wall, 0.7), 1)


def _anywhere(image: Image, rng: Rng) -> tuple[int, int]:
    return int(rng.integers(image.shape[1])), int(rng.integers(image.shape[0]))


def _disc(image: Image, rng: Rng) -> None:
    axes = (int(rng.integers(4, 30)), int(rng.integers(4, 30)))
    turn = rng.uniform(0, 180)
    cv2.ellipse(image, _anywhere(image, rng), axes, turn, 0, 360, pick(EVERY_COLOUR, rng), -1, cv2.LINE_AA)


def _bar(image: Image, rng: Rng) -> None:
    x, y = _anywhere(image, rng)
    dx, dy = rng.integers(-50, 50, 2).tolist()
    cv2.line(image, (x, y), (x + dx, y + dy), pick(EVERY_COLOUR, rng), int(rng.integers(3, 12)), cv2.LINE_AA)


def _panel(image: Image, rng: Rng) -> None:
    x, y = _anywhere(image, rng)
    w, h = rng.uniform(10, 70, 2)
    box(image, x, y, w, h, pick(EVERY_COLOUR, rng))
