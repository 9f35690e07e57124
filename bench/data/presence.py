"""Label policies: what "present" means, and which keypoints count. One named function each.

COCO's v = 0 says "not labelled", which is not "absent" (out of the picture, hidden, too small or simply not annotated);
so every number of this suite names its policy.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError


class Labels(NamedTuple):
    """What is known of keypoints, each (..., K): COCO's v, and for drawn people the true one, else None."""

    visibility: NDArray[np.int64]
    true_visibility: NDArray[np.int64] | None


class PresenceLabel(NamedTuple):
    """`present` (..., K) and `present_weight` (..., K): 1 where the label counts, 0 where it is ignored."""

    present: NDArray[np.bool_]
    present_weight: NDArray[np.float32]


def labelled(labels: Labels) -> PresenceLabel:
    """Present = the annotator gave a position (v > 0), hidden ones included: the source paper's reading."""
    return _all_count(labels.visibility > 0)


def visible(labels: Labels) -> PresenceLabel:
    """Present = labelled and not hidden (v = 2)."""
    return _all_count(labels.visibility == 2)


def true(labels: Labels) -> PresenceLabel:
    """Present = inside the image in truth, labelled or not. Only drawn people carry it.

    Raises:
        UserError: the data carry no truth.
    """
    if labels.true_visibility is None:
        raise UserError("presence_policy 'true': the data carry no true_keypoints, wanted drawn people")
    return _all_count(labels.true_visibility > 0)


POLICIES: dict[str, Callable[[Labels], PresenceLabel]] = {"labelled": labelled, "visible": visible, "true": true}


def _all_count(present: NDArray[np.bool_]) -> PresenceLabel:
    return PresenceLabel(present, np.ones(present.shape, dtype=np.float32))
