"""Label policies: what "present" means, and which keypoints count. One named function each.

COCO's v = 0 says "not labelled", which is not "absent": out of the picture, hidden, too small or simply not annotated.
Every policy reads the same labels another way, so every number of this suite names its policy.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.keypoints import KEYPOINT_NAMES
from bench.errors import UserError

Bools = NDArray[np.bool_]

BORDER = 2.0
"""A box that comes this close to the border of the image, in pixels, is taken to be cut by it."""


class Labels(NamedTuple):
    """What is known of the keypoints of persons: COCO's v (..., K); for drawn people the true one, else None; and
    whether the person's box reaches the border of the image (...)."""

    visibility: NDArray[np.int64]
    true_visibility: NDArray[np.int64] | None
    at_border: Bools = np.zeros((), dtype=bool)


class PresenceLabel(NamedTuple):
    """`present` (..., K) and `present_weight` (..., K): 1 where the label counts, 0 where it is ignored."""

    present: Bools
    present_weight: NDArray[np.float32]


def labelled(labels: Labels, in_window: Bools) -> PresenceLabel:  # noqa: ARG001  # one signature for all policies
    """Present = the annotator gave a position (v > 0), hidden ones included: the source paper's reading."""
    return _all_count(labels.visibility > 0)


def visible(labels: Labels, in_window: Bools) -> PresenceLabel:  # noqa: ARG001
    """Present = labelled and not hidden (v = 2)."""
    return _all_count(labels.visibility == 2)


def in_window(labels: Labels, in_window: Bools) -> PresenceLabel:
    """Present = labelled and inside the crop that the model is shown; everything else is absent."""
    return _all_count((labels.visibility > 0) & in_window)


def known(labels: Labels, in_window: Bools) -> PresenceLabel:
    """Present = labelled inside the crop, absent = labelled outside of it; v = 0 is ignored, for nothing is known of it
    (ProbPose: Purkrabek and Matas, CVPR 2025)."""
    is_labelled = labels.visibility > 0
    return PresenceLabel(is_labelled & in_window, is_labelled.astype(np.float32))


def border_aware(labels: Labels, in_window: Bools) -> PresenceLabel:  # noqa: ARG001
    """Present = labelled; absent = not labelled on a person whom the image border cuts; other v = 0 are ignored."""
    is_labelled = labels.visibility > 0
    return PresenceLabel(is_labelled, (is_labelled | labels.at_border[..., None]).astype(np.float32))


def three_class(labels: Labels, in_window: Bools) -> PresenceLabel:  # noqa: ARG001
    """The ends of the three classes (not labelled, occluded, visible): present = visible, absent = not labelled; the
    occluded ones between them are ignored. `labelled` and `visible` put them on either side."""
    return PresenceLabel(labels.visibility == 2, (labels.visibility != 1).astype(np.float32))


def true(labels: Labels, in_window: Bools) -> PresenceLabel:  # noqa: ARG001
    """Present = inside the image in truth, labelled or not. Only drawn people carry it.

    Raises:
        UserError: the data carry no truth.
    """
    if labels.true_visibility is None:
        raise UserError("presence_policy 'true': the data carry no true_keypoints, wanted drawn people")
    return _all_count(labels.true_visibility > 0)


class Policy(NamedTuple):
    """A reading of labels. `label(labels, in_window)` takes (..., K) which labelled keypoints the crop shows; a policy
    that `reads_window` calls those outside absent, for the others they do not count where a random view cut them away.
    """

    label: Callable[[Labels, Bools], PresenceLabel]
    meaning: str
    reads_window: bool = False
    needs_truth: bool = False


POLICIES = {
    "labelled": Policy(labelled, "v > 0 present, v = 0 absent"),
    "visible": Policy(visible, "v = 2 present, the rest absent"),
    "in_window": Policy(in_window, "labelled inside the crop present, the rest absent", reads_window=True),
    "known": Policy(known, "labelled inside the crop present, outside absent, v = 0 ignored", reads_window=True),
    "border_aware": Policy(border_aware, "v > 0 present, v = 0 absent on persons cut by the border, else ignored"),
    "three_class": Policy(three_class, "v = 2 present, v = 0 absent, v = 1 ignored"),
    "true": Policy(true, "in the image in truth (drawn people alone)", needs_truth=True),
}


TRUE = "true"
"""The policy that no annotator's choice enters."""


class EmptyClass(NamedTuple):
    """Policies under which a set of persons has no keypoint of a class."""

    policies: list[str]
    lacking: str  # "present" or "absent"
    keypoints: list[str]  # that lack it; empty: all of them do


def empty_classes(labels: Labels) -> list[EmptyClass]:
    """What no crop can change: classes (N, K) that are empty, of all keypoints or of some, policies alike together.

    Policies that read the window are left out: what is absent under them depends on the crop.
    """
    policies: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, policy in POLICIES.items():
        if policy.reads_window or (policy.needs_truth and labels.true_visibility is None):
            continue
        present, weight = policy.label(labels, labels.visibility > 0)
        for lacking, members in (("present", present), ("absent", ~present)):
            empty = ~(members & (weight > 0)).any(axis=0)
            names = () if empty.all() else tuple(np.array(KEYPOINT_NAMES)[empty].tolist())
            if empty.any():
                policies.setdefault((lacking, names), []).append(name)
    return [EmptyClass(under, lacking, list(names)) for (lacking, names), under in policies.items()]


CONSEQUENCES = {
    "train": (
        "neither a presence head nor the box baseline can learn there to tell present from absent",
        "of these neither a presence head nor the box baseline can learn there to tell present from absent",
    ),
    "calibration": (
        "no calibrator and no regression can be fitted there, and no threshold chosen that tells present from absent",
        "these have no threshold of their own that tells present from absent",
    ),
    "val": (
        "presence cannot be measured there; pages show an en dash",
        "presence cannot be measured for these; pages show an en dash, and means over keypoints leave them out",
    ),
}
"""Of an empty class of all keypoints and of some, by the split that has it."""


def empty_class_lines(split: str, labels: Labels) -> list[str]:
    """A line in words for each of `empty_classes` of a split."""
    lines = []
    for policies, lacking, keypoints in empty_classes(labels):
        under = f"{'policy' if len(policies) == 1 else 'policies'} {', '.join(policies)}"
        names = ", ".join(name.replace("_", " ") for name in keypoints) or "keypoint"
        lines.append(f"{split}: no {lacking} {names} under {under}: {CONSEQUENCES[split][bool(keypoints)]}")
    return lines


def _all_count(present: Bools) -> PresenceLabel:
    return PresenceLabel(present, np.ones(present.shape, dtype=np.float32))
