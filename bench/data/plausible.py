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
- three of four boxes can be read as two corners, which hold the keypoints as well and are much smaller;
- one of twenty people reaches beyond the border with box and keypoints, by more than 4 % of the longer side;
- nobody reaches the right and lower part of a picture: labels of a smaller copy.
Of COCO's people (coco-mini: 1,340 annotations, 12,018 labelled keypoints) none is near: boxes lie in the picture, no
labelled keypoint is farther from its box than 0.49 of the longer side, and 1.6 % are farther than `NEAR`.
Where pictures are cut on purpose (CropCOCO), labelled keypoints may lie outside, so only the rules on boxes in their
pictures and on keypoints and their boxes hold, with `NEAR_CROPPED`. Letters: N people, K keypoints.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from bench.data.geometry import Floats
from bench.data.readings import NEAR, TINY, Labels, Mask, any_of, as_corners, fits, looks_like

BEYOND = 0.15
ENOUGH = 3
NEAREST, ALONE, FARTHEST = 0.25, 1.0, 2.0
RARE = 1000
NEAR_CROPPED, STRAY = 0.5, 0.25
FEW = 10  # different boxes prove nothing about the rest
COMMON = 0.1  # of the annotations: with more that are wrong, the file is


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
    alike = (read[:, 2:] > 0).all(axis=1) & much_smaller & (fits(corners) > 0)
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
