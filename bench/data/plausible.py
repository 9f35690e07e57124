"""Whether labels can belong to their pictures, and what they look like where they cannot.

The rule. An annotation is refused, named by its id, where
- its box lies wholly outside of the picture, or runs beyond it by more than `BEYOND` of the picture's longer side;
- a labelled keypoint lies as far beyond the picture;
- all of at least `ENOUGH` labelled keypoints lie within `TINY` pixels of the corner, or the box is as small;
- the labelled keypoint nearest to the box is farther from it than `NEAREST` of the box's longer side (`ALONE` where
  fewer than `ENOUGH` are labelled), or any is farther than `FARTHEST`, or one lies at (0, 0) outside of the box. COCO
  itself may have such mistakes, so at most one in `RARE` people is let pass.
A whole file is refused where the single annotations do not prove it, but all of them together do:
- `STRAY` of the labelled keypoints lie farther from their box than `NEAR` of its longer side;
- nearly all boxes can be read as two corners, which hold the keypoints as well and are much smaller;
- some people reach beyond the border with box and keypoints, though by little;
- nobody reaches the right and lower part of a picture: labels of a smaller copy.
Of COCO's people (coco-mini: 1,340 annotations, 12,018 labelled keypoints) none is near: boxes lie in the picture, no
labelled keypoint is farther from its box than 0.49 of the longer side, and 1.6 % are farther than `NEAR`.
Where pictures are cut on purpose (CropCOCO), labelled keypoints may lie outside, so only the rules on boxes in their
pictures and on keypoints and their boxes hold, with `NEAR_CROPPED`. Letters: N people, K keypoints.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import CocoDict
from bench.data.geometry import Floats

Mask = NDArray[np.bool_]

BEYOND = 0.15
TINY = 1.5
ENOUGH = 3
NEAREST, ALONE, FARTHEST = 0.25, 1.0, 2.0
RARE = 1000
NEAR, NEAR_CROPPED, STRAY = 0.1, 0.5, 0.25
FEW = 10  # different boxes prove nothing about the rest
COMMON = 0.1  # of the annotations: with more that are wrong, the file is
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


# Single annotations


class Rule(NamedTuple):
    """`find` gives who breaks it: (N,) of boxes, (N, K) of keypoints."""

    find: Callable[[Labels], Mask]
    wanted: str
    cause: str  # if the labels fit no other reading
    rare: bool = False  # one in `RARE` people is let pass


OTHER_SIZE = "are they labels of the picture in another size?"
SMALLER = "are they per cent, or labels of a smaller copy of the picture?"
OTHER_PERSON = "is it the box or are they the keypoints of another person?"
PIXELS = "boxes in pixels", "are they in pixels?"
NOT_LABELLED = "a keypoint that is not labelled has v = 0"


def _is_wholly_outside(labels: Labels) -> Mask:
    shown = np.minimum(labels.end, labels.image_size) - np.maximum(labels.bbox[:, :2], 0)
    return np.asarray((shown <= 0).any(axis=1))


def _is_tiny(labels: Labels) -> Mask:
    return np.asarray((labels.bbox[:, 2:].max(axis=1) < TINY) & labels.labelled.any(axis=1))


def _runs_beyond(labels: Labels) -> Mask:
    return np.asarray((labels.box_beyond > BEYOND) & (not labels.cropped))


def _lies_beyond(labels: Labels) -> Mask:
    return np.asarray((labels.keypoint_beyond > BEYOND) & (not labels.cropped))


def _are_tiny(labels: Labels) -> Mask:
    near = (np.abs(labels.keypoints).max(axis=-1) <= TINY) | ~labels.labelled
    return labels.labelled & (near.all(axis=1) & (labels.labelled.sum(axis=1) >= ENOUGH))[:, None]


def _are_apart(labels: Labels) -> Mask:
    few = labels.labelled.sum(axis=1) < ENOUGH
    limit = np.where(few, ALONE, NEAR_CROPPED if labels.cropped else NEAREST)
    reach = labels.reach
    nearest = np.where(labels.labelled, reach, np.inf).min(axis=1, initial=np.inf)
    return labels.labelled & (nearest > limit)[:, None]


def _is_far(labels: Labels) -> Mask:
    return np.asarray(labels.reach > FARTHEST)


def _is_at_corner(labels: Labels) -> Mask:
    return np.asarray((labels.keypoints == 0).all(axis=-1) & (labels.reach > NEAR))


BOX_RULES = (
    Rule(_is_wholly_outside, "a part of the picture", OTHER_SIZE),
    Rule(_is_tiny, "a box in pixels", "is it in pixels?"),
    Rule(_runs_beyond, "a box in the picture", OTHER_SIZE),
)
KEYPOINT_RULES = (
    Rule(_are_tiny, "keypoints in pixels", "are they in pixels?"),
    Rule(_lies_beyond, "a keypoint in the picture", f"{OTHER_SIZE} or {NOT_LABELLED}"),
    Rule(_is_at_corner, "a labelled keypoint at the box", NOT_LABELLED, rare=True),
    Rule(_are_apart, "labelled keypoints in the box or near it", OTHER_PERSON, rare=True),
    Rule(_is_far, "labelled keypoints in the box or near it", OTHER_PERSON, rare=True),
)


def faults_of_people(labels: Labels) -> dict[int, str]:
    """What is wrong with the labels of single annotations, by their ids."""
    faults: dict[int, str] = {}
    for rule in BOX_RULES:
        faults = _texts("bbox", rule, labels, rule.find(labels), labels.bbox) | faults
    for rule in KEYPOINT_RULES if labels.labelled.any() else ():
        found = rule.find(labels)
        shown = labels.keypoints[np.arange(len(found)), found.argmax(axis=1)]
        faults = _texts("keypoints", rule, labels, any_of(found), shown) | faults
    return faults


def _texts(key: str, rule: Rule, labels: Labels, wrong: Mask, shown: Floats) -> dict[int, str]:
    """By annotation id; `shown` (N, V) are the values that are wrong."""
    if wrong.sum() <= (len(wrong) // RARE if rule.rare else 0):
        return {}
    end = f"wanted {rule.wanted} ({_share(wrong)} are so); {looks_like(labels.take(wrong)) or rule.cause}"
    return {
        int(labels.annotation_id[place]): f"{key}: found {_numbers(shown[place])}{_of(labels, place, key)}, {end}"
        for place in np.flatnonzero(wrong).tolist()
    }


def _share(wrong: Mask) -> str:
    return f"{wrong.sum()} of {len(wrong)} annotations"


def _numbers(values: Floats) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in values)}]"


def _of(labels: Labels, place: int, key: str) -> str:
    """Beside what the values stand."""
    width, height = labels.image_size[place]
    picture = "" if np.isnan(width) else f" in a picture of {width:g} x {height:g} pixels"
    return picture if key == "bbox" else f" for the box {_numbers(labels.bbox[place])}{picture}"


# A whole file


class FileFault(NamedTuple):
    """What labels prove together."""

    first: int  # id of the first of them
    found: str
    wanted: str
    likely: str

    def text(self, noun: str) -> str:
        """In words; `noun` is what the labels are called in their file."""
        return f"{noun} {self.first} and more: found {self.found}, wanted {self.wanted}; {self.likely}"


def fault_of_file(labels: Labels) -> FileFault | None:
    """What the annotations of a file prove together, or None."""
    people = labels.people
    if _num_different(people) < FEW:
        return None
    return next(filter(None, (find(people) for find in FILE_RULES)), None)


def _num_different(labels: Labels) -> int:
    """At least so many boxes differ."""
    return max(len(np.unique(column)) for column in labels.bbox.T)


def _stray(labels: Labels) -> FileFault | None:
    near = NEAR_CROPPED if labels.cropped else NEAR
    stray = labels.reach > near
    if not labels.labelled.any() or stray.sum() < STRAY * labels.labelled.sum():
        return None
    found = f"{stray.sum()} of {labels.labelled.sum()} labelled keypoints are far from their box"
    return _file_fault(labels, any_of(stray), found, "boxes that hold their keypoints", OTHER_PERSON)


def _corners(labels: Labels) -> FileFault | None:
    """Boxes as corners hold the keypoints as well as wider boxes do: the right and lower part of those is empty."""
    read, w_h = as_corners(labels.bbox, labels.image_size), labels.bbox[:, 2:]
    much_smaller = read[:, 2:].prod(axis=1) <= 0.8 * w_h.prod(axis=1)
    corners = replace(labels, bbox=read)
    if not labels.labelled.any():
        return None
    alike = (read[:, 2:] > 0).all(axis=1) & much_smaller & (_fits(corners) > 0)
    if alike.mean() < 0.75:
        return None
    found = f"the boxes of {alike.sum()} of {len(alike)} people are empty at their right and lower side"
    return _file_fault(labels, alike, found, "boxes [x, y, w, h]", "they look like [x1, y1, x2, y2]")


def _larger(labels: Labels) -> FileFault | None:
    both = (labels.box_beyond > 0.04) & (labels.keypoint_beyond > 0.04).any(axis=1)
    if len(both) < 20 or both.mean() < 0.05 or labels.cropped:
        return None
    found = f"the boxes and keypoints of {both.sum()} of {len(both)} people run beyond their pictures"
    return _file_fault(labels, both, found, "labels in the picture", OTHER_SIZE)


def _smaller(labels: Labels) -> FileFault | None:
    """Boxes, or keypoints."""
    if len(np.unique(labels.image_id)) < 5 or np.isnan(labels.image_size).any():
        return None
    points = labels.keypoints / labels.image_size[:, None]
    ends = {
        "boxes": (labels.bbox[:, :2] / labels.image_size, labels.end / labels.image_size),
        "labelled keypoints": (
            np.where(labels.labelled[..., None], points, np.inf).min(axis=1, initial=np.inf),
            np.where(labels.labelled[..., None], points, -np.inf).max(axis=1, initial=-np.inf),
        ),
    }
    for name, (start, end) in ends.items():
        width, height = end.max(axis=0)
        if np.isfinite(end).all() and _is_part(start, end):
            found = f"no {name} of {len(end)} people beyond {width:.0%} of the width and {height:.0%} of the height"
            return _file_fault(labels, np.ones(len(end), bool), found, "people all over the pictures", SMALLER)
    return None


def _is_part(start: Floats, end: Floats) -> bool:
    """Whether all lies in the upper left quarter, or touches the upper and left border and stays off the others."""
    if (end.max(axis=0) <= 0.55).all():
        return True
    at_border = (start <= 0.005).mean(axis=0)
    return bool((end.max(axis=0) <= 0.9).all() and (at_border >= 0.02).all() and len(end) >= 20)


FILE_RULES = (_stray, _corners, _larger, _smaller)


def _file_fault(labels: Labels, wrong: Mask, found: str, wanted: str, cause: str) -> FileFault:
    first = int(labels.annotation_id[wrong.argmax()])
    return FileFault(first, found, wanted, looks_like(labels.take(wrong)) or cause)


def fault_of_boxes(labels: Labels) -> FileFault | None:
    """What boxes of a detector prove together, or None: unlike annotated ones they may run over the border."""
    tiny = ~any_of(labels.bbox[:, 2:] >= TINY)
    middle = labels.bbox[:, :2] + labels.bbox[:, 2:] / 2
    outside = any_of((middle < 0) | (middle > labels.image_size))
    far = labels.box_beyond > BEYOND
    if len(tiny) and tiny.mean() >= 0.5:
        return _file_fault(labels, tiny, f"{tiny.sum()} of {len(tiny)} boxes smaller than {TINY} pixels", *PIXELS)
    if _num_different(labels) < FEW:
        return None
    if outside.mean() >= 0.05:
        found = f"the middle of {outside.sum()} of {len(outside)} boxes outside of the picture"
        return _file_fault(labels, outside, found, "people in their pictures", OTHER_SIZE)
    if far.mean() >= 0.2 and looks_like(labels.take(far)):
        found = f"{far.sum()} of {len(far)} boxes far over the border of their pictures"
        return _file_fault(labels, far, found, "people in their pictures", OTHER_SIZE)
    return _smaller(labels)


# Other readings


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
    fits = {name: float(_fits(read).mean()) for name, read in _readings(labels)}
    best = max(fits.values())
    return next(name for name, fit in fits.items() if fit >= best - 0.1) if best >= max(0.7, fits[""] + 0.2) else ""


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


def _fits(labels: Labels) -> Floats:
    """(N,) 1 where the box lies in the picture, is larger than `TINY` and holds 4 of 5 labelled keypoints, else 0."""
    held = (labels.reach <= NEAR).sum(axis=1) >= 0.8 * labels.labelled.sum(axis=1)
    sound = (labels.bbox[:, 2:] > TINY).all(axis=1) & ~(labels.box_beyond > 0.02)
    return (held & sound).astype(np.float64)
