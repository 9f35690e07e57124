"""The score of a person.

COCO's OKS never reads the third value of a predicted keypoint, so confidence reaches AP only through the person score:
every number must say which rule gave it. Letters: N persons, K keypoints.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.errors import UserError

MIN_KEYPOINT_SCORE = 0.2

Array = NDArray[np.floating]


def box(
    bbox_score: Array,
    score: Array,  # noqa: ARG001  # one signature for all rules
    presence: Array,  # noqa: ARG001
) -> Floats:
    """The detector's score, whatever the keypoints."""
    return bbox_score.astype(np.float64)


def box_keypoint(bbox_score: Array, score: Array, presence: Array) -> Floats:  # noqa: ARG001
    """Box score times the mean of the keypoint scores above 0.2, 0 when there are none.

    Source: HRNet's COCO evaluation (Sun et al. 2019, section 4.1), as in ViTPose and mmpose.
    """
    score = score.astype(np.float64)  # as their code compares a single precision peak with .2
    return bbox_score * _weighted_mean(score, (score > MIN_KEYPOINT_SCORE).astype(np.float64))


def box_presence(bbox_score: Array, score: Array, presence: Array) -> Floats:  # noqa: ARG001
    """Box score times the mean probability that a keypoint is there, whatever the heatmaps."""
    return bbox_score * presence.mean(axis=1, dtype=np.float64)


def presence_weighted(bbox_score: Array, score: Array, presence: Array) -> Floats:
    """Box score times the mean of the keypoint scores, weighted by presence; 0 when nothing is there."""
    return bbox_score * _weighted_mean(score, presence)


def _weighted_mean(score: Array, weight: Array) -> Floats:
    """(N,) over the keypoints (N, K), 0 where the weights sum to 0."""
    weight = weight.astype(np.float64)
    total = (weight * score).sum(axis=1)
    norm = weight.sum(axis=1)
    return np.divide(total, norm, out=np.zeros_like(total), where=norm > 0)


class ScoreRule(NamedTuple):
    """A rule, what it must know and, for tables, what it says."""

    function: Callable[[Array, Array, Array], Floats]  # bbox_score (N,), score (N, K), presence (N, K) to (N,)
    needs_presence: bool
    meaning: str


SCORE_RULES = {
    "box": ScoreRule(box, False, "detector's score"),
    "box_keypoint": ScoreRule(box_keypoint, False, "detector's score x mean keypoint score above 0.2"),
    "box_presence": ScoreRule(box_presence, True, "detector's score x mean presence"),
    "presence_weighted": ScoreRule(
        presence_weighted, True, "detector's score x mean keypoint score weighted by presence"
    ),
}
"""Rules by name."""


def person_scores(rule: str, bbox_score: Array, score: Array, presence: Array | None) -> Floats:
    """The score (N,) of each person under a rule of `SCORE_RULES`.

    bbox_score (N,), keypoint score (N, K), presence (N, K) as probabilities, None for a model without a presence head.

    Raises:
        UserError: the rule needs presence and there is none, or not for every keypoint.
    """
    chosen = SCORE_RULES[rule]
    unknown = np.full(score.shape, np.nan)  # shows in the scores of a rule that looks at presence after all
    known = _require_probabilities(presence, rule) if chosen.needs_presence else unknown
    return chosen.function(bbox_score, score, known)


def _require_probabilities(presence: Array | None, rule: str) -> Array:
    if presence is None:
        raise UserError(f"score rule {rule}: found a model without presence, wanted one with a presence head")
    wrong = np.argwhere(~((presence >= 0) & (presence <= 1)))
    if len(wrong):
        person, keypoint = wrong[0]
        raise UserError(
            f"score rule {rule}: presence of person {person}, keypoint {keypoint}: "
            f"found {presence[person, keypoint]:g}, wanted a probability"
        )
    return presence
