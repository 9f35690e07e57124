"""Truncation stress test: persons of whom a known part is cut away, left out of the window, or covered.

Of photographs nobody knows which keypoints are absent: COCO's v = 0 says "not labelled". Of a keypoint that we cut away
ourselves it is certain. Three modes:

- `cut`: the image ends at a line across the person. The box is what remains of it, and the crop is made anew.
- `shift`: the image goes on, but the window of that same box is moved until it ends at the line.
- `blackout`: patches cover keypoints. They are in the window still, hence present, but hidden.

What is kept is a fraction of the annotated box along the axis of the cut, not of the labelled keypoints: that would
change with what the annotator left out, and an eighth of COCO's people have five labels or fewer. Lines run between
pixels (a pixel's centre has whole coordinates), so what is kept is exact to half a pixel.
Letters: K keypoints, P patches.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import Person
from bench.data.geometry import Crop, Floats, View, bbox_to_view, crop_matrix, in_shown, inside, invert, warp_points
from bench.data.keypoints import OKS_SIGMAS
from bench.data.presence import PresenceLabel
from bench.errors import UserError

SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
"""Where the person is cut, in the image: the axis (x, y) and the direction of what is lost."""
NO_SIDE = ""
MODES = ("cut", "shift", "blackout")
PADDINGS = ("zeros", "mean", "reflect")
"""What lies outside of the image: black, the mean colour of ImageNet, or the image mirrored at its border."""
KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)

MIN_EXTENT = 1.0  # pixels of a box along the axis; with less nothing is left of the person
PATCH_REACH = (0.6, 1.0)
"""Half the sides of a patch, in units of 2 sigma of the keypoint it covers, times the root of the box: what lies on the
edge of the largest is at a similarity of .61 (OKS) from the keypoint."""


class Condition(NamedTuple):
    """One point of the grid.

    `mode` of `MODES`; `side` of `SIDES`, `NO_SIDE` for blackout; `kept` from above 0 to 1: of the box, or of the
    keypoints (blackout); `padding` of `PADDINGS`: what is shown outside of the image, and the colour of patches.
    """

    mode: str
    side: str
    kept: float
    padding: str


def conditions(
    modes: Sequence[str] = MODES,
    sides: Sequence[str] = tuple(SIDES),
    kept: Sequence[float] = KEPT,
    paddings: Sequence[str] = ("zeros",),
) -> tuple[Condition, ...]:
    """The grid in the order given: by mode, then padding, side and kept. No patch is a reflection.

    Every mode and side has its own kept = 1, so that each curve is whole; they all are the same sample.

    Raises:
        UserError: an unknown name, a fraction that is none, or an empty grid.
    """
    grid = tuple(
        Condition(mode, side, fraction, padding)
        for mode, padding in product(modes, paddings)
        if (mode, padding) != ("blackout", "reflect")
        for side, fraction in product([NO_SIDE] if mode == "blackout" else sides, kept)
    )
    if not grid:
        raise UserError(
            f"truncation: found no condition in {modes} x {sides} x {kept} x {paddings}, wanted one or more"
        )
    for condition in grid:
        check_condition(condition)
    return grid


def check_condition(condition: Condition) -> None:
    """Refuse a condition that does not exist.

    Raises:
        UserError: an unknown name, or a fraction that is none.
    """
    blackout = condition.mode == "blackout"
    fields: dict[str, tuple[object, Sequence[object]]] = {
        "mode": (condition.mode, MODES),
        "side": (condition.side, [NO_SIDE] if blackout else list(SIDES)),
        "padding": (condition.padding, PADDINGS[:2] if blackout else PADDINGS),
    }
    for key, (found, known) in fields.items():
        if found not in known:
            raise UserError(f"truncation: {key}: found {found!r}, wanted {' or '.join(map(repr, known))}")
    if not 0 < condition.kept <= 1:
        raise UserError(f"truncation: kept: found {condition.kept!r}, wanted a fraction above 0 and at most 1")


class Truncated(NamedTuple):
    """What a condition leaves of a person, in image pixels."""

    bbox: Floats  # (4,) x, y, w, h of what is kept
    view: View  # the window
    remains: Floats  # (4,) x0, y0, x1, y1 of what exists of the image, infinite where nothing is cut
    patches: Floats  # (P, 4) x0, y0, x1, y1 of what is covered


def truncate(person: Person, condition: Condition, crop: Crop, rng: np.random.Generator) -> Truncated | None:
    """A person under a condition; None where nothing is kept (`kept_bbox`). Only patches are drawn at random.

    With the same draws, a smaller `kept` takes away every keypoint in the box that a larger one does. Outside of the
    box, few are labelled; these can come into a window that has moved.
    """
    bbox = kept_bbox(person.bbox, condition)
    if bbox is None:
        return None
    view = bbox_to_view(bbox, crop.input_size, crop.bbox_padding, crop.fit)
    remains = np.array([-np.inf, -np.inf, np.inf, np.inf])
    whole = Truncated(bbox, view, remains, patches=np.zeros((0, 4)))
    if condition.kept == 1:
        return whole
    if condition.mode == "blackout":
        return whole._replace(patches=_draw_patches(person, whole, crop, 1 - condition.kept, rng))
    line = cut_line(person.bbox, condition)
    if condition.mode == "shift":
        return whole._replace(view=_end_at(line, condition.side, view, crop))
    axis, direction = SIDES[condition.side]
    remains[axis + 2 if direction > 0 else axis] = line
    return whole


def cut_line(bbox: Floats, condition: Condition) -> float:
    """Where along its axis a box (x, y, w, h) is cut: between the pixels nearest to the fraction that is kept."""
    axis, direction = SIDES[condition.side]
    low, extent = bbox[axis], bbox[axis + 2]
    if direction > 0:
        return float(np.floor(round(low + condition.kept * extent, 6)) + 0.5)  # as .7 * 10 is more than 7
    return float(np.ceil(round(low + (1 - condition.kept) * extent, 6)) - 0.5)


def kept_bbox(bbox: Floats, condition: Condition) -> Floats | None:
    """What is kept of a box (x, y, w, h); None if it is less than `MIN_EXTENT` along the axis of the cut."""
    if condition.kept == 1 or condition.mode == "blackout":
        return bbox
    axis, direction = SIDES[condition.side]
    low, high, line = bbox[axis], bbox[axis] + bbox[axis + 2], cut_line(bbox, condition)
    low, high = (low, min(high, line)) if direction > 0 else (max(low, line), high)
    if high - low < MIN_EXTENT:
        return None
    kept = bbox.copy()
    kept[axis], kept[axis + 2] = low, high - low
    return kept


def _end_at(line: float, side: str, view: View, crop: Crop) -> View:
    """The view moved along an axis so that it shows nothing beyond a line."""
    axis, direction = SIDES[side]
    corner_input = np.array(crop.input_size) - 0.5 if direction > 0 else np.array([-0.5, -0.5])
    corner = warp_points(corner_input[None], invert(crop_matrix(view, crop.input_size, crop.aligned)))[0]
    reach = abs(corner[axis] - view.center[axis])
    if view.shown is not None:
        reach = min(reach, view.shown[axis] / 2)
    center = view.center.copy()
    center[axis] = line - direction * reach
    return view._replace(center=center)


def exists(points: Floats, truncated: Truncated) -> NDArray[np.bool_]:
    """Which points (..., 2) of the image are neither cut away nor outside of what the view shows, if it has bounds."""
    low, high = truncated.remains[:2], truncated.remains[2:]
    uncut = (points > low) & (points < high)
    return uncut.all(axis=-1) & in_shown(points, truncated.view)


def is_shown(points: Floats, truncated: Truncated, crop: Crop) -> NDArray[np.bool_]:
    """Which points (..., 2) of the image exist and are in the window."""
    matrix = crop_matrix(truncated.view, crop.input_size, crop.aligned)
    return exists(points, truncated) & inside(warp_points(points, matrix), crop.input_size)


def is_covered(points: Floats, patches: Floats) -> NDArray[np.bool_]:
    """Which points (K, 2) lie under any of the patches (P, 4)."""
    under = (points[:, None] > patches[:, :2]) & (points[:, None] < patches[:, 2:])  # (K, P, 2)
    return np.asarray(under.all(axis=-1).any(axis=-1))


def known_positions(person: Person) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Positions (K, 2), which of them are in the image (K,), and of which that is known (K,).

    All is known of drawn people; else a labelled keypoint is in the image, and of others nothing is known.
    """
    truth = person.labels.true_visibility
    if person.true_keypoints is None or truth is None:
        labelled = person.labels.visibility > 0
        return person.keypoints, labelled, labelled
    return person.true_keypoints, truth > 0, np.ones(truth.shape, dtype=bool)


def geometric_label(person: Person, truncated: Truncated, crop: Crop) -> PresenceLabel:
    """Present = in the image and shown (`is_shown`); absent = known to be elsewhere; what is not known has weight 0."""
    points, in_image, known = known_positions(person)
    return PresenceLabel(in_image & is_shown(points, truncated, crop), known.astype(np.float32))


def _draw_patches(person: Person, whole: Truncated, crop: Crop, fraction: float, rng: np.random.Generator) -> Floats:
    """Patches (P, 4), one keypoint after the other, until at least this fraction of the present ones is covered.

    A patch can cover neighbours too (a nose is close to two eyes), so that it may be more.
    """
    points = known_positions(person)[0]
    present = geometric_label(person, whole, crop).present
    reach = 2 * OKS_SIGMAS[:, None] * np.sqrt(person.bbox[2] * person.bbox[3])
    half = np.maximum(reach * rng.uniform(*PATCH_REACH, points.shape), 1)  # a pixel of a tiny person
    center = points + half * rng.uniform(-0.5, 0.5, points.shape)
    patches = np.concatenate([center - half, center + half], axis=1)
    wanted = fraction * present.sum() - 1e-6
    chosen: list[int] = []
    for keypoint in rng.permutation(len(points)):
        covered = is_covered(points, patches[chosen]) & present
        if covered.sum() >= wanted:
            break
        if present[keypoint] and not covered[keypoint]:
            chosen.append(keypoint)
    return patches[chosen]
