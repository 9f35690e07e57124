"""The score of a person, and predictions in COCO's result format.

COCO's OKS never reads the third value of a predicted keypoint, so confidence reaches AP only through the person score:
every number must say which rule gave it. Letters: N persons, K keypoints.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import PERSON_CATEGORY
from bench.errors import UserError

MIN_KEYPOINT_SCORE = 0.2

ScoreRule = Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.float64]]


def box(
    bbox_score: NDArray[np.floating],
    score: NDArray[np.floating],  # noqa: ARG001  # one signature for all rules
) -> NDArray[np.float64]:
    """The detector's score, whatever the keypoints."""
    return bbox_score.astype(np.float64)


def box_keypoint(bbox_score: NDArray[np.floating], score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Box score times the mean of the keypoint scores above 0.2, 0 when there are none.

    Source: HRNet's COCO evaluation (Sun et al. 2019, section 4.1), as in ViTPose and mmpose.
    """
    score = score.astype(np.float64)
    counts = score > MIN_KEYPOINT_SCORE
    total = np.where(counts, score, 0.0).sum(axis=1)
    mean: NDArray[np.float64] = total / np.maximum(counts.sum(axis=1), 1)
    return bbox_score * mean


SCORE_RULES: dict[str, ScoreRule] = {"box": box, "box_keypoint": box_keypoint}
"""Rules by name: bbox_score (N,) and keypoint score (N, K) give the person score (N,)."""


def to_coco_results(
    image_ids: NDArray[np.integer],
    keypoints: NDArray[np.floating],
    score: NDArray[np.floating],
    person_scores: NDArray[np.floating],
) -> list[dict[str, Any]]:
    """One COCO result per person.

    image_ids and person_scores are (N,), keypoints (N, K, 2) in image pixels, score (N, K).

    There is no bbox on purpose: the COCO tools would then take its area instead of the keypoints' extent, and APM and
    APL would no longer compare with those of HRNet or TransPose.

    Raises:
        UserError: the shapes do not agree.
    """
    num_persons, num_keypoints = score.shape
    found = [image_ids.shape, keypoints.shape, person_scores.shape]
    wanted = [(num_persons,), (num_persons, num_keypoints, 2), (num_persons,)]
    if found != wanted:
        raise UserError(f"results: found image_ids, keypoints, person_scores of shapes {found}, wanted {wanted}")
    triplets = np.concatenate([keypoints, score[..., None]], axis=2, dtype=np.float64)
    flat = triplets.reshape(num_persons, 3 * num_keypoints)
    return [
        {"image_id": int(image_id), "category_id": PERSON_CATEGORY, "keypoints": values, "score": float(person_score)}
        for image_id, values, person_score in zip(image_ids, flat.tolist(), person_scores, strict=True)
    ]
