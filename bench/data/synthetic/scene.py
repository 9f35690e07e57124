"""Scenes: people before a background, far to near, with things in front of them, and the exact annotation of each."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.synthetic.background import draw_background
from bench.data.synthetic.canvas import Canvas, Floats, Floats32
from bench.data.synthetic.choice import choose, choose_weighted
from bench.data.synthetic.figure import Figure, build_figure, rotation, sample_body
from bench.data.synthetic.look import sample_look
from bench.data.synthetic.objects import OBJECTS, draw_stool
from bench.data.synthetic.pose import sample_pose
from bench.data.synthetic.parts import Placed
from bench.data.synthetic.render import draw_person, keypoint_pixels, visible_keypoints
from bench.errors import UserError

MIN_SIDE = 64
MIN_AREA = 100  # pixels of a person; with fewer nobody would annotate it
Rng = np.random.Generator


@dataclass(frozen=True)
class SceneParams:
    """What varies from scene to scene.

    `image_size` (w, h) pixels; `people_per_image` and `num_objects` (least, most); `truncation` the chance that a person is
    placed so that the border cuts it; `unlabelled_fraction` of the present keypoints lose their label, not their truth.

    Raises:
        UserError: a value out of range.
    """

    image_size: tuple[int, int] = (320, 240)
    people_per_image: tuple[int, int] = (1, 3)
    num_objects: tuple[int, int] = (0, 3)
    truncation: float = 0.35
    unlabelled_fraction: float = 0.0

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < MIN_SIDE:
            raise UserError(f"image_size: found {self.image_size}, wanted (w, h) of at least {MIN_SIDE} pixels each")
        for key, least in (("people_per_image", 1), ("num_objects", 0)):
            bounds = getattr(self, key)
            if len(bounds) != 2 or not least <= bounds[0] <= bounds[1]:
                raise UserError(f"{key}: found {bounds}, wanted (least, most) with {least} <= least <= most")
        for key in ("truncation", "unlabelled_fraction"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"{key}: found {getattr(self, key)}, wanted a fraction between 0 and 1")


class Scene(NamedTuple):
    """`image` (h, w, 3) RGB; `annotations` in COCO's form without ids, for each person that can be seen at all."""

    image: NDArray[np.uint8]
    annotations: list[dict[str, Any]]


def draw_scene(params: SceneParams, rng: Rng) -> Scene:
    """A picture of people and the truth about them."""
    horizon = rng.uniform(0.4, 0.72) * params.image_size[1]
    canvas = Canvas.on(draw_background(params.image_size, horizon, rng))
    people = place_people(params, horizon, rng)
    num_objects = int(rng.integers(params.num_objects[0], params.num_objects[1] + 1))
    targets = rng.integers(len(people), size=num_objects).tolist()
    for owner, placed in enumerate(people, start=1):
        _draw_floor_shadow(canvas, placed)
        if placed.figure.pose.seated:
            draw_stool(canvas, placed.pixel("pelvis"), lowest_row(placed), placed.scale, rng)
        draw_person(canvas, placed, owner)
        for _ in range(targets.count(owner - 1)):
            at = keypoint_pixels(placed)[rng.integers(NUM_KEYPOINTS)] + rng.normal(0, (0.45, 0.2)) * placed.scale
            choose(rng, OBJECTS)(canvas, at, placed.scale, rng)
    annotations = [annotate(canvas, placed, owner) for owner, placed in enumerate(people, start=1)]
    image = _develop(canvas.image, rng)
    kept = [_drop_labels(a, params.unlabelled_fraction, rng) for a in annotations if a is not None]
    return Scene(image, [annotation for annotation in kept if annotation["num_keypoints"]])


def place_people(params: SceneParams, horizon: float, rng: Rng) -> list[Placed]:
    """From far to near: those whose feet are lower in the picture stand nearer."""
    number = int(rng.integers(params.people_per_image[0], params.people_per_image[1] + 1))
    people = [place_person(params, horizon, rng) for _ in range(number)]
    return sorted(people, key=lambda placed: placed.scale)


def place_person(params: SceneParams, horizon: float, rng: Rng) -> Placed:
    """A person of a random kind, pose and viewpoint, inside of the image or cut by its border."""
    pose = sample_pose(rng)
    view = rotation(2, rng.normal(0, 3)) @ rotation(0, rng.uniform(-4, 20)) @ rotation(1, _sample_yaw(rng))
    if pose.lying:
        view = rotation(2, choose(rng, (-90, 90))) @ view
    figure = build_figure(sample_body(rng), pose, view)
    cut = rng.random() < params.truncation
    scale = _sample_scale(figure, params.image_size, cut, rng)
    points = np.stack(list(figure.joints.values()))[:, :2] * scale
    low, high = points.min(axis=0) - 0.1 * scale, points.max(axis=0) + 0.1 * scale
    origin = _cut_origin(low, high, params, rng) if cut else _whole_origin(low, high, params, horizon, rng)
    return Placed(figure, sample_look(rng), scale, origin)


def _sample_yaw(rng: Rng) -> float:
    """Degrees: all around, but people turn to a camera more often than away."""
    return rng.uniform(0, 360) if rng.random() < 0.45 else rng.normal(0, 45)


def _sample_scale(figure: Figure, image_size: tuple[int, int], cut: bool, rng: Rng) -> float:
    """Pixels a metre. A cut person may be larger than the image; a whole one fits."""
    width, height = image_size
    smallest, largest = (0.75, 2.2) if cut else (0.43, 1.0)
    share = smallest * (largest / smallest) ** rng.random()
    points = np.stack(list(figure.joints.values()))[:, :2]
    extent = np.ptp(points, axis=0) + 0.25
    fit = min(width / extent[0], height / extent[1])
    scale = float(share * height / (figure.body.height + 0.1))
    return scale if cut else min(scale, 0.97 * fit)


def _whole_origin(low: Floats, high: Floats, params: SceneParams, horizon: float, rng: Rng) -> Floats:
    """Feet on the ground, anywhere in the image where the person is whole."""
    width, height = params.image_size
    x = rng.uniform(-low[0], max(width - high[0], 1 - low[0]))
    lowest = height - high[1]
    y = rng.uniform(max(-low[1], min(horizon + 6 - high[1], lowest)), lowest)
    return np.array([x, y])


def _cut_origin(low: Floats, high: Floats, params: SceneParams, rng: Rng) -> Floats:
    """One border cuts away a share of the person, most often the lower one; the other axis stays mostly inside."""
    size = np.array(params.image_size)
    extent = high - low
    side = choose_weighted(rng, ("bottom", "left", "right", "top"), (0.6, 0.15, 0.15, 0.1))
    lost = rng.uniform(0.25, 0.82 if side == "bottom" else 0.7)
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


def lowest_row(placed: Placed) -> float:
    """Row of the ground under a person."""
    return float(max(placed.pixel(f"{side}_{end}")[1] for side in ("left", "right") for end in ("toe", "heel", "ankle")))


def _draw_floor_shadow(canvas: Canvas, placed: Placed) -> None:
    points = keypoint_pixels(placed)
    center, row = points[:, 0].mean(), lowest_row(placed)
    half = 0.5 * np.ptp(points[11:, 0]) + 0.2 * placed.scale
    height, width = canvas.parts.shape
    x0, x1 = int(max(center - 2 * half, 0)), int(min(center + 2 * half, width))
    y0, y1 = int(max(row - 0.25 * placed.scale, 0)), int(min(row + 0.3 * placed.scale, height))
    if x0 >= x1 or y0 >= y1:
        return
    x = (np.arange(x0, x1, dtype=np.float32) - np.float32(center)) / np.float32(half)
    y = (np.arange(y0, y1, dtype=np.float32) - np.float32(row)) / np.float32(0.09 * placed.scale)
    dark = 1 - np.float32(0.45) * np.exp(-x * x * np.float32(1.5) - (y * y)[:, None])
    canvas.image[:, y0:y1, x0:x1] *= dark


def _develop(planes: Floats32, rng: Rng) -> NDArray[np.uint8]:
    """Light and grain of a camera; (3, h, w) to (h, w, 3)."""
    gain = (rng.normal(1, 0.08) * rng.normal(1, 0.03, 3)).tolist()
    lit = [cv2.convertScaleAbs(plane, alpha=scale) for plane, scale in zip(planes, gain, strict=True)]
    image = cv2.merge(lit)
    grain = rng.uniform(0, 7) / 74  # 74 is the standard deviation of a random byte
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return np.asarray(cv2.addWeighted(image, 1, noise, grain, -127.5 * grain), np.uint8)


def annotate(canvas: Canvas, placed: Placed, owner: int) -> dict[str, Any] | None:
    """COCO annotation with `true_keypoints`, or None if too little of the person is seen."""
    mask = cv2.inRange(canvas.owners, owner, owner)  # type: ignore[call-overload]
    area = cv2.countNonZero(mask)
    if area < MIN_AREA:
        return None
    height, width = canvas.parts.shape
    points = np.round(keypoint_pixels(placed), 2)
    inside = ((points >= 0) & (points <= (width - 1, height - 1))).all(axis=1)
    visibility = np.where(inside, 1 + visible_keypoints(canvas, placed, owner), 0)
    truth = np.column_stack([points, visibility])
    labelled = np.where(inside[:, None], truth, 0)
    x, y, w, h = cv2.boundingRect(mask)
    return {
        "category_id": 1,
        "bbox": [float(x), float(y), float(w), float(h)],
        "area": float(area),
        "segmentation": _polygons(mask[y : y + h, x : x + w], x, y),
        "iscrowd": 0,
        "num_keypoints": int(inside.sum()),
        "keypoints": _flat(labelled),
        "true_keypoints": _flat(truth),
    }


def _polygons(mask: NDArray[np.uint8], x: int, y: int) -> list[list[float]]:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y))
    return [contour.ravel().astype(float).tolist() for contour in contours if len(contour) >= 3]


def _flat(triples: Floats) -> list[float]:
    return [int(value) if number % 3 == 2 else float(value) for number, value in enumerate(triples.ravel().tolist())]


def _drop_labels(annotation: dict[str, Any], fraction: float, rng: Rng) -> dict[str, Any]:
    """A forgetful annotator: each present keypoint loses its label with this chance."""
    triples = np.array(annotation["keypoints"]).reshape(-1, 3)
    triples[rng.random(len(triples)) < fraction] = 0
    return {**annotation, "keypoints": _flat(triples), "num_keypoints": int((triples[:, 2] > 0).sum())}
