"""Scenes: people before a background, far to near, with things in front of them, and the exact annotation of each."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.data.synthetic.background import draw_background
from bench.data.synthetic.canvas import Canvas, Floats, Floats32
from bench.data.synthetic.choice import choose
from bench.data.synthetic.objects import OBJECTS, draw_stool
from bench.data.synthetic.parts import Placed
from bench.data.synthetic.placement import place_people
from bench.data.synthetic.render import draw_person, keypoint_pixels, visible_keypoints
from bench.errors import UserError

MIN_SIDE = 64
MIN_AREA = 100  # pixels of a person; with fewer nobody would annotate it
Rng = np.random.Generator


@dataclass(frozen=True)
class SceneParams:
    """What varies from scene to scene.

    `image_size` (w, h) pixels; `people_per_image` and `num_objects` (least, most); `truncation` the chance that a
    person is placed so that the border cuts it; `max_yaw` degrees that a person may be turned from the camera (180:
    seen from all sides); `unlabelled_fraction` of the present keypoints lose their label, not
    their truth.

    Raises:
        UserError: a value out of range.
    """

    image_size: tuple[int, int] = (320, 240)
    people_per_image: tuple[int, int] = (1, 3)
    num_objects: tuple[int, int] = (0, 3)
    truncation: float = 0.35
    max_yaw: float = 180.0
    unlabelled_fraction: float = 0.0

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < MIN_SIDE:
            raise UserError(f"image_size: found {self.image_size}, wanted (w, h) of at least {MIN_SIDE} pixels each")
        for key, least in (("people_per_image", 1), ("num_objects", 0)):
            bounds = getattr(self, key)
            if len(bounds) != 2 or not least <= bounds[0] <= bounds[1]:
                raise UserError(f"{key}: found {bounds}, wanted (least, most) with {least} <= least <= most")
        if not 0 <= self.truncation <= 1:
            raise UserError(f"truncation: found {self.truncation}, wanted a fraction between 0 and 1")
        if not 0 <= self.max_yaw <= 180:
            raise UserError(f"max_yaw: found {self.max_yaw}, wanted degrees between 0 and 180")
        if not 0 <= self.unlabelled_fraction < 1:  # with 1 nobody is ever labelled and drawing has no end
            raise UserError(f"unlabelled_fraction: found {self.unlabelled_fraction}, wanted at least 0 and less than 1")


class Scene(NamedTuple):
    """`image` (h, w, 3) RGB; `annotations` in COCO's form without ids, for each person that can be seen at all."""

    image: NDArray[np.uint8]
    annotations: list[dict[str, Any]]


def draw_scene(params: SceneParams, rng: Rng) -> Scene:
    """A picture of people and the truth about them."""
    horizon = rng.uniform(0.4, 0.72) * params.image_size[1]
    canvas = Canvas.on(draw_background(params.image_size, horizon, rng))
    people = place_people(params.image_size, params.people_per_image, params.truncation, params.max_yaw, horizon, rng)
    num_objects = int(rng.integers(params.num_objects[0], params.num_objects[1] + 1))
    targets = rng.integers(len(people), size=num_objects).tolist()
    for owner, placed in enumerate(people, start=1):
        _draw_floor_shadow(canvas, placed)
        if placed.figure.pose.seated:
            draw_stool(canvas, placed.pixel("pelvis"), lowest_row(placed), placed.scale, rng)
        draw_person(canvas, placed, owner)
        for _ in range(targets.count(owner - 1)):
            unit = min(placed.scale, 0.5 * params.image_size[1])
            at = choose(rng, list(keypoint_pixels(placed))) + rng.normal(0, (0.6, 0.25)) * unit
            choose(rng, OBJECTS)(canvas, at, unit, rng)
    annotations = [annotate(canvas, placed, owner) for owner, placed in enumerate(people, start=1)]
    image = _develop(canvas.image, rng)
    kept = [_drop_labels(a, params.unlabelled_fraction, rng) for a in annotations if a is not None]
    return Scene(image, [annotation for annotation in kept if annotation["num_keypoints"]])


def lowest_row(placed: Placed) -> float:
    """Row of the ground under a person."""
    ends = ("toe", "heel", "ankle")
    return float(max(placed.pixel(f"{side}_{end}")[1] for side in ("left", "right") for end in ends))


def _draw_floor_shadow(canvas: Canvas, placed: Placed) -> None:
    points = keypoint_pixels(placed)
    center, row = points[11:, 0].mean(), lowest_row(placed)
    half = 0.5 * np.ptp(points[11:, 0]) + 0.2 * placed.scale
    height, width = canvas.parts.shape
    x0, x1 = int(max(center - 2 * half, 0)), int(min(center + 2 * half, width))
    y0, y1 = int(max(row - 0.25 * placed.scale, 0)), int(min(row + 0.3 * placed.scale, height))
    if x0 >= x1 or y0 >= y1:
        return
    x = (np.arange(x0, x1, dtype=np.float32) - np.float32(center)) / np.float32(half)
    y = (np.arange(y0, y1, dtype=np.float32) - np.float32(row)) / np.float32(0.09 * placed.scale)
    dark = 1 - np.outer(np.float32(0.45) * np.exp(-y * y), np.exp(-x * x * np.float32(1.5)))
    canvas.image[:, y0:y1, x0:x1] *= dark


def _develop(planes: Floats32, rng: Rng) -> NDArray[np.uint8]:
    """Light and grain of a camera; (3, h, w) to (h, w, 3)."""
    gain = (min(rng.normal(0.96, 0.08), 1.06) * rng.normal(1, 0.03, 3)).tolist()
    lit = [cv2.convertScaleAbs(plane, alpha=scale) for plane, scale in zip(planes, gain, strict=True)]
    image = cv2.merge(lit)
    grain = rng.uniform(0, 5) / 74  # 74 is the standard deviation of a random byte
    noise = np.frombuffer(rng.bytes(image[..., 0].size), np.uint8).reshape(image.shape[:2])
    return np.asarray(cv2.addWeighted(image, 1, cv2.merge([noise] * 3), grain, -127.5 * grain), np.uint8)


def annotate(canvas: Canvas, placed: Placed, owner: int) -> dict[str, Any] | None:
    """COCO annotation with `true_keypoints`, or None if too little of the person is seen."""
    mask = (canvas.owners == owner).astype(np.uint8)
    area = cv2.countNonZero(mask)
    if area < MIN_AREA:
        return None
    height, width = canvas.parts.shape
    points = np.round(keypoint_pixels(placed), 2)
    inside = np.asarray(((points >= 0) & (points <= (width - 1, height - 1))).all(axis=1), bool)
    visibility = np.where(inside, 1 + visible_keypoints(canvas, placed, owner), 0)
    truth = np.column_stack([points, visibility])
    labelled = np.where(inside[:, None], truth, 0)
    x, y, w, h = cv2.boundingRect(mask)
    polygons = _polygons(mask[y : y + h, x : x + w], x, y)
    if not polygons:  # nothing but lines of single pixels
        return None
    return {
        "category_id": 1,
        "bbox": [float(x), float(y), float(w), float(h)],
        "area": float(area),
        "segmentation": polygons,
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
