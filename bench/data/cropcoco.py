"""CropCOCO: people of COCO val2017 in pictures cut so that keypoints lie outside (Purkrabek and Matas, CVPR 2025).

A COCO keypoint file (huggingface.co/datasets/vrg-prague/CropCOCO, GPL-3.0: nothing of it is here) with a fourth level
of visibility. Positions outside of the picture are annotated. By its author (github.com/MiraPurkrabek/ProbPose_code,
issue 11), one in the activation window, which is the box given 3:4 and then widened by 1.25, has v = 1, for the border
of a picture hides like any other thing; one beyond the window has v = 3; v = 0 is not annotated and never counts.
An annotation may have `pad_to_contain`: for each keypoint, by how much the 3:4 box must be widened to hold it. Their
evaluation goes by that instead of v, and computes it where it is not stored (mmpose/evaluation/metrics/_cocoeval.py,
coco_metric.py at 008bd55); so does `in_window`. Derived from there and written anew.
Letters: N persons, K keypoints.
"""

import math
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.checks import area_faults, check_categories, check_owners, first_of, implausible
from bench.data.coco import (
    CROPCOCO_LAYOUT,
    OUTSIDE,
    CocoDict,
    Person,
    check_annotation,
    check_image,
    persons_of,
    read_coco,
)
from bench.data.geometry import Floats, bbox_to_view
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.presence import PresenceLabel
from bench.errors import UserError

WINDOW_SIZE, WINDOW_PADDING = (3, 4), 1.25


class Annotated(NamedTuple):
    """What a rule decides on, of N persons."""

    keypoints: Floats  # (N, K, 2) image pixels
    visibility: NDArray[np.int64]  # (N, K) 0 to 3, as written
    padding: Floats  # (N, K) `pad_to_contain`, computed where it is not stored; -1 without a label
    image_size: NDArray[np.int64]  # (N, 2) w, h


def as_written(annotated: Annotated) -> NDArray[np.bool_]:
    """Present = in the activation window by the annotated level alone (v = 1 or 2)."""
    return np.asarray((annotated.visibility > 0) & (annotated.visibility < OUTSIDE))


def in_window(annotated: Annotated) -> NDArray[np.bool_]:
    """Present = in the activation window by geometry, outside of the picture or not: what Ex-OKS takes for present."""
    return np.asarray((annotated.padding >= 0) & (annotated.padding <= WINDOW_PADDING))


def in_image(annotated: Annotated) -> NDArray[np.bool_]:
    """Present = in the picture: what pixels can show, and what is present where we cut (`bench.data.truncation`)."""
    low, high = -0.5, annotated.image_size[:, None] - 0.5  # pixel centres are counted from 0
    within = ((annotated.keypoints > low) & (annotated.keypoints < high)).all(axis=-1)
    return np.asarray(within & (annotated.visibility > 0))


RULES: dict[str, Callable[[Annotated], NDArray[np.bool_]]] = {
    "written": as_written,
    "window": in_window,
    "image": in_image,
}
"""What present means for a keypoint that has a label."""


class CropCoco(NamedTuple):
    """The annotated persons of a file, in its order, and what they are known to be in their pictures."""

    persons: list[Person]  # v = 3 is 0 in their labels, as there is nothing to localise; positions stay
    annotated: Annotated
    area: Floats  # (N,) as annotated, square pixels

    def label(self, rule: str) -> PresenceLabel:
        """Presence and its weight, (N, K) each, by one of `RULES`; weight 0 without a label.

        Raises:
            UserError: an unknown rule.
        """
        if rule not in RULES:
            raise UserError(f"CropCOCO: rule: found {rule!r}, wanted {' or '.join(map(repr, RULES))}")
        weight = (self.annotated.visibility > 0).astype(np.float32)
        return PresenceLabel(RULES[rule](self.annotated), weight)


def read_cropcoco(file: Path, image_root: Path) -> CropCoco:
    """Everybody of whom a keypoint is annotated, in the picture or not, and who is no crowd.

    Raises:
        UserError: missing, unreadable or broken JSON, not COCO's layout, or a value that is not of this format; the
            message names the file, the annotation and the key. Nobody annotated. See also `bench.data.checks`.
    """
    content = read_coco(file)
    size_of = _image_sizes(file, content["images"])
    check_categories(file, content)
    check_owners(file, content)
    for annotation in content["annotations"]:
        if fault := check_cropped(annotation):
            raise UserError(f"{file}: annotation {annotation['id']}: {fault}")
    kept = [a for a in content["annotations"] if any(a["keypoints"][2::3]) and not a["iscrowd"]]
    if not kept:
        raise UserError(f"{file}: found nobody with an annotated keypoint, wanted one or more")
    if faults := area_faults(kept) | implausible(file, content, content["annotations"], cropped=True):
        raise first_of(file, faults)
    manifest = {
        "info": {"image_root": str(image_root)},
        "images": content["images"],
        # Persons of whom all is out of the window count here, unlike in COCO.
        "annotations": [_as_coco(a, num_keypoints=sum(v > 0 for v in a["keypoints"][2::3])) for a in kept],
    }
    area = np.array([annotation["area"] for annotation in kept], dtype=np.float64)
    return CropCoco(persons_of(manifest), _annotated(kept, size_of), area)


def _image_sizes(file: Path, images: list[CocoDict]) -> dict[int, tuple[int, int]]:
    """(w, h) by image id."""
    for image in images:
        if fault := check_image(image):
            raise UserError(f"{file}: image {image['id']}: {fault}")
    return {image["id"]: (image["width"], image["height"]) for image in images}


def check_cropped(annotation: CocoDict) -> str | None:
    """What is wrong with an annotation, or None: `key: found, wanted`.

    It is COCO's but for v = 3. `num_keypoints` may count those, or not, or be left out: the format does not say. Its
    authors ship what COCO counted before the picture was cut, which may be more than is labelled now.
    """
    return check_annotation(_with_count(annotation), CROPCOCO_LAYOUT) or _padding_fault(annotation)


def _with_count(annotation: CocoDict) -> CocoDict:
    keypoints = annotation.get("keypoints")
    if "num_keypoints" in annotation or not isinstance(keypoints, list):
        return annotation
    return {**annotation, "num_keypoints": sum(v in (1, 2) for v in keypoints[2::3])}


def _as_coco(annotation: CocoDict, num_keypoints: int) -> CocoDict:
    """With v = 0 for v = 3. What is not there is not added."""
    keypoints = annotation.get("keypoints")
    if isinstance(keypoints, list):
        keypoints = [0 if i % 3 == 2 and value == OUTSIDE else value for i, value in enumerate(keypoints)]
    return {**annotation, "keypoints": keypoints, "num_keypoints": num_keypoints}


def _padding_fault(annotation: CocoDict) -> str | None:
    padding = annotation.get("pad_to_contain")
    if padding is None:
        return None
    if not isinstance(padding, list) or len(padding) != NUM_KEYPOINTS:
        return f"pad_to_contain: found {short(padding)}, wanted {NUM_KEYPOINTS} numbers"
    for value, v in zip(padding, annotation["keypoints"][2::3], strict=True):
        if type(value) not in {int, float} or not (v == 0 or 1 <= value < math.inf):
            return f"pad_to_contain: found {short(value)} for v = {v:g}, wanted a number of at least 1, or -1 for v = 0"
    return None


def _annotated(annotations: list[CocoDict], size_of: dict[int, tuple[int, int]]) -> Annotated:
    triples = np.array([a["keypoints"] for a in annotations], dtype=np.float64).reshape(-1, NUM_KEYPOINTS, 3)
    visibility = triples[..., 2].astype(np.int64)
    stored = [a.get("pad_to_contain") for a in annotations]
    padding = np.array(
        [
            widening(points, np.array(a["bbox"], dtype=np.float64)) if given is None else given
            for points, a, given in zip(triples[..., :2], annotations, stored, strict=True)
        ],
        dtype=np.float64,
    )
    return Annotated(
        keypoints=triples[..., :2],
        visibility=visibility,
        padding=np.where(visibility > 0, padding, -1.0),
        image_size=np.array([size_of[a["image_id"]] for a in annotations], dtype=np.int64),
    )


def widening(points: Floats, bbox: Floats) -> Floats:
    """By how much a box (x, y, w, h), given 3:4, must be widened on all sides to hold each of the points (K, 2)."""
    view = bbox_to_view(bbox, WINDOW_SIZE, 1.0)
    widened: Floats = np.maximum(np.abs(points - view.center) / (view.scale / 2), 1.0).max(axis=-1)
    return widened
