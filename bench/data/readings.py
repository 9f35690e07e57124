"""Labels of people as arrays, and which other reading of their numbers makes sense of them.

Letters: N people, K keypoints.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import CocoDict
from bench.data.geometry import Floats

Mask = NDArray[np.bool_]

NEAR = 0.1  # of the longer side of a box: a keypoint that is no farther from it counts as held
TINY = 1.5  # pixels
EPSILON = 1e-9
LARGEST = 1e12  # pixels; beyond, areas would overflow


@dataclass(frozen=True)
class Labels:
    """Annotations as arrays. Without keypoints, K is 0."""

    annotation_id: NDArray[np.int64]  # (N,)
    image_id: NDArray[np.int64]  # (N,)
    bbox: Floats  # (N, 4) x, y, w, h
    keypoints: Floats  # (N, K, 2)
    labelled: Mask  # (N, K)
    image_size: Floats  # (N, 2) w, h; NaN where the file does not say
    cropped: bool  # whether keypoints outside of the picture are labelled on purpose

    def take(self, index: NDArray[np.integer] | Mask) -> "Labels":
        """Some of them, in the order of `index`."""
        return Labels(
            self.annotation_id[index],
            self.image_id[index],
            self.bbox[index],
            self.keypoints[index],
            self.labelled[index],
            self.image_size[index],
            self.cropped,
        )

    @cached_property
    def people(self) -> "Labels":
        """Those with a labelled keypoint, or all where there is none at all."""
        has_labels = any_of(self.labelled)
        return self.take(has_labels) if has_labels.any() else self

    @cached_property
    def end(self) -> Floats:
        """(N, 2) lower right corners."""
        return self.bbox[:, :2] + self.bbox[:, 2:]

    @cached_property
    def reach(self) -> Floats:
        """(N, K) how far keypoints lie from their box, as a part of its longer side; 0 inside, NaN if not labelled."""
        outside = np.maximum(self.bbox[:, None, :2] - self.keypoints, self.keypoints - self.end[:, None])
        side = np.maximum(self.bbox[:, 2:].max(axis=-1), EPSILON)
        distance = np.maximum(outside, 0).max(axis=-1) / side[:, None]
        return np.where(self.labelled, distance, np.nan)

    @cached_property
    def box_beyond(self) -> Floats:
        """(N,) how far boxes run beyond their picture, as a part of its longer side."""
        outside = np.maximum(-self.bbox[:, :2], self.end - self.image_size)
        return np.maximum(outside, 0).max(axis=-1) / self.image_size.max(axis=-1)

    @cached_property
    def keypoint_beyond(self) -> Floats:
        """(N, K) the same of labelled keypoints; 0 if not labelled."""
        outside = np.maximum(-self.keypoints, self.keypoints - self.image_size[:, None])
        beyond = np.maximum(outside, 0).max(axis=-1) / self.image_size.max(axis=-1)[:, None]
        return np.where(self.labelled, beyond, 0.0)


def any_of(mask: Mask) -> Mask:
    """(N,) whether any of each row is."""
    return np.asarray(mask.any(axis=1))


def labels_of(
    annotations: Sequence[CocoDict], size_of: dict[int, tuple[float, float]], *, cropped: bool | None = None
) -> Labels:
    """Of checked annotations, some perhaps without keypoints. A value v = 3 says `cropped` where it is not given."""
    keypoints = [annotation.get("keypoints") for annotation in annotations]
    num_values = max((len(values) for values in keypoints if values), default=0)
    filled = [values or [0] * num_values for values in keypoints]
    triples = np.array(filled, dtype=np.float64).reshape(len(annotations), num_values // 3, 3)
    return Labels(
        annotation_id=np.array([a["id"] for a in annotations], dtype=np.int64),
        image_id=np.array([a["image_id"] for a in annotations], dtype=np.int64),
        bbox=np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4).clip(-LARGEST, LARGEST),
        keypoints=triples[..., :2].clip(-LARGEST, LARGEST),
        labelled=(triples[..., 2] == 1) | (triples[..., 2] == 2),
        image_size=np.array([size_of[a["image_id"]] for a in annotations], dtype=np.float64).reshape(-1, 2),
        cropped=bool((triples[..., 2] == 3).any()) if cropped is None else cropped,
    )


def labels_of_boxes(places: NDArray[np.int64], image_id: NDArray[np.int64], bbox: Floats, image_size: Floats) -> Labels:
    """Of a detector's boxes (N, 4), known by their places in a file, in images (N,) of these sizes (N, 2)."""
    keypoints, bbox = np.zeros((len(bbox), 0, 2)), bbox.clip(-LARGEST, LARGEST)
    return Labels(places, image_id, bbox, keypoints, keypoints[..., 0] > 0, image_size, cropped=False)


# Readings


Reading = Callable[[Floats, Floats], Floats]
"""Of boxes (N, 4) or keypoints (N, K, 2), and of image sizes (N, 2)."""


def as_corners(bbox: Floats, _: Floats) -> Floats:
    """The last two numbers are the lower right corner."""
    return np.concatenate([bbox[:, :2], bbox[:, 2:] - bbox[:, :2]], axis=1)


def _as_centres(bbox: Floats, _: Floats) -> Floats:
    return np.concatenate([bbox[:, :2] - bbox[:, 2:] / 2, bbox[:, 2:]], axis=1)


def _as_rows_first(values: Floats, _: Floats) -> Floats:
    return values.reshape(*values.shape[:-1], values.shape[-1] // 2, 2)[..., ::-1].reshape(values.shape)


def _as_parts_of(whole: float) -> Reading:
    def read(values: Floats, image_size: Floats) -> Floats:
        size = np.tile(image_size, values.shape[-1] // 2) / whole
        return values * size.reshape(len(size), *[1] * (values.ndim - 2), -1)

    return read


def _as_written(values: Floats, _: Floats) -> Floats:
    return values


PARTS: dict[str, Reading] = {
    "values from 0 to 1": _as_parts_of(1.0),
    "per cent of the picture": _as_parts_of(100.0),
}
BOX_READINGS: dict[str, Reading] = {
    "": _as_written,
    "[x1, y1, x2, y2]": as_corners,
    "[centre x, centre y, w, h]": _as_centres,
    **PARTS,
    "[y, x, h, w]": _as_rows_first,
}
KEYPOINT_READINGS: dict[str, Reading] = {"": _as_written, **PARTS, "y before x": _as_rows_first}
MOST = 2000  # people are enough to tell


def looks_like(labels: Labels) -> str:
    """The reading under which most boxes lie in their pictures and hold their keypoints, in words, or nothing."""
    labels = labels.take(np.arange(min(len(labels.bbox), MOST)))
    shares = {name: float(fits(read).mean()) for name, read in _readings(labels)}
    best = max(shares.values())
    return next(name for name, fit in shares.items() if fit >= best - 0.1) if best >= max(0.7, shares[""] + 0.2) else ""


def _readings(labels: Labels) -> Iterator[tuple[str, Labels]]:
    """By name; as written first."""
    for box, read_box in BOX_READINGS.items():
        for points, read_points in KEYPOINT_READINGS.items():
            parts = [f"the boxes look like {box}" if box else "", f"the keypoints look like {points}" if points else ""]
            bbox, keypoints = (
                read(values, labels.image_size)
                for read, values in ((read_box, labels.bbox), (read_points, labels.keypoints))
            )
            yield " and ".join(filter(None, parts)), replace(labels, bbox=bbox, keypoints=keypoints)
    whole, ratio = max(float((labels.end / labels.image_size).max()), EPSILON), _size_ratio(labels)
    size = "of the picture in another size, {:.2g} times this one"
    yield f"the labels look like those {size.format(whole)}", _resized(labels, 1 / whole, 1 / whole)
    yield f"the keypoints look like those {size.format(1 / ratio)}", _resized(labels, 1.0, ratio)
    yield f"the boxes look like those {size.format(ratio)}", _resized(labels, 1 / ratio, 1.0)


def _size_ratio(labels: Labels) -> float:
    """By how much keypoints would have to be larger to lie about the middle of their boxes; 1 without keypoints."""
    people = labels.take(any_of(labels.labelled))
    if not len(people.bbox):
        return 1.0
    total = np.where(people.labelled[..., None], people.keypoints, 0).sum(axis=1)
    points = total / people.labelled.sum(axis=1)[:, None]
    middle = people.bbox[:, :2] + people.bbox[:, 2:] / 2
    return max(float(np.median(middle.sum(axis=1) / np.maximum(np.abs(points).sum(axis=1), EPSILON))), EPSILON)


def _resized(labels: Labels, box: float, points: float) -> Labels:
    return replace(labels, bbox=labels.bbox * box, keypoints=labels.keypoints * points)


def fits(labels: Labels) -> Floats:
    """(N,) 1 where the box lies in the picture, is larger than `TINY` and holds 4 of 5 labelled keypoints, else 0."""
    held = (labels.reach <= NEAR).sum(axis=1) >= 0.8 * labels.labelled.sum(axis=1)
    sound = (labels.bbox[:, 2:] > TINY).all(axis=1) & ~(labels.box_beyond > 0.02)
    return (held & sound).astype(np.float64)
