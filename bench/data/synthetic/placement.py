"""Where people stand, how large they are and from which side they are seen."""

import numpy as np

from bench.data.synthetic.canvas import Floats
from bench.data.synthetic.choice import choose, choose_weighted
from bench.data.synthetic.figure import Figure, build_figure, rotation, sample_body
from bench.data.synthetic.look import sample_look
from bench.data.synthetic.parts import Placed
from bench.data.synthetic.pose import sample_pose

PLACES_TRIED = 3
Rng = np.random.Generator


def place_people(
    image_size: tuple[int, int],
    people_per_image: tuple[int, int],
    truncation: float,
    max_yaw: float,
    horizon: float,
    rng: Rng,
) -> list[Placed]:
    """From far to near. Each of a few places is tried and the one taken where people hide each other least."""
    number = int(rng.integers(people_per_image[0], people_per_image[1] + 1))
    people: list[Placed] = []
    boxes: list[Floats] = []  # x0, y0, x1, y1
    for _ in range(number):
        person = sample_person(max_yaw, rng)
        cut = rng.random() < truncation
        low, high = extent_of(person)
        scale = _sample_scale(person.body.height, high - low, image_size, cut, rng)
        low, high = scale * low, scale * high
        place = _cut_origin if cut else _whole_origin
        origins = [place(low, high, image_size, horizon, rng) for _ in range(PLACES_TRIED if boxes else 1)]
        tried = [np.concatenate([origin + low, origin + high]) for origin in origins]
        best = min(range(len(tried)), key=lambda number: sum(_overlap(tried[number], box) for box in boxes))
        boxes.append(tried[best])
        people.append(Placed(person, sample_look(rng), scale, origins[best]))
    return sorted(people, key=lambda placed: placed.scale)


def _overlap(first: Floats, second: Floats) -> float:
    """Common area of two boxes (x0, y0, x1, y1), pixels."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    return float(np.prod(np.maximum(sides, 0)))


def sample_person(max_yaw: float, rng: Rng) -> Figure:
    """Someone of a random kind, in a random pose, from a random side."""
    pose = sample_pose(rng)
    view = rotation(2, rng.normal(0, 3)) @ rotation(0, rng.uniform(-4, 20)) @ rotation(1, _sample_yaw(max_yaw, rng))
    if pose.lying:
        view = rotation(2, choose(rng, (-90, 90))) @ view
    return build_figure(sample_body(rng), pose, view)


def extent_of(figure: Figure) -> tuple[Floats, Floats]:
    """Corners (x, y) of the box around a figure, metres from its pelvis."""
    points = np.stack(list(figure.joints.values()))[:, :2]
    return points.min(axis=0) - 0.1, points.max(axis=0) + 0.1


def _sample_yaw(max_yaw: float, rng: Rng) -> float:
    """Degrees: to all sides that are allowed, but people turn to a camera more often than away."""
    if rng.random() < 0.45:
        return rng.uniform(-max_yaw, max_yaw)
    return min(max(rng.normal(0, min(45, max_yaw / 2)), -max_yaw), max_yaw)


def _sample_scale(body_height: float, extent: Floats, image_size: tuple[int, int], cut: bool, rng: Rng) -> float:
    """Pixels a metre. A cut person may be larger than the image; a whole one fits."""
    width, height = image_size
    smallest, largest = (0.75, 2.2) if cut else (0.43, 1.0)
    share = smallest * (largest / smallest) ** rng.random()
    fit = min(width / extent[0], height / extent[1])
    scale = float(share * height / (body_height + 0.1))
    return scale if cut else min(scale, 0.99 * float(fit))


def _whole_origin(low: Floats, high: Floats, image_size: tuple[int, int], horizon: float, rng: Rng) -> Floats:
    """Feet on the ground, anywhere in the image where the person is whole."""
    width, height = image_size
    x = rng.uniform(-low[0], max(width - high[0], 1 - low[0]))
    lowest = height - high[1]
    y = rng.uniform(max(-low[1], min(horizon + 6 - high[1], lowest)), lowest)
    return np.array([x, y])


def _cut_origin(low: Floats, high: Floats, image_size: tuple[int, int], _horizon: float, rng: Rng) -> Floats:
    """One border cuts away a share of the person, most often the lower one; the other axis stays mostly inside."""
    size = np.array(image_size)
    extent = high - low
    side = choose_weighted(rng, ("bottom", "left", "right", "top"), (0.6, 0.15, 0.15, 0.1))
    lost = rng.uniform(0.35, 0.86 if side == "bottom" else 0.75)
    origin = -low + rng.uniform(0, 1, 2) * (size - extent)
    if side == "bottom":
        origin[1] = size[1] - high[1] + lost * extent[1]
    elif side == "top":
        origin[1] = -low[1] - lost * extent[1]
    elif side == "left":
        origin[0] = -low[0] - lost * extent[0]
    else:
        origin[0] = size[0] - high[0] + lost * extent[0]
    return origin
