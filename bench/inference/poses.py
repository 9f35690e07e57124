"""Which poses of a run are evaluated."""

import numpy as np
from numpy.typing import NDArray

from bench.data.people import Detections, Truth
from bench.data.predictions import Split
from bench.inference.nms import oks_nms
from bench.inference.scoring import person_scores


def scored_detections(split: Split, truth: Truth, rule: str, nms_threshold: float | None) -> Detections:
    """The poses of a split, scored by a rule, without those that OKS-NMS takes for repetitions."""
    return choose_detections(split, truth, rule, nms_threshold)[0]


def choose_detections(
    split: Split, truth: Truth, rule: str, nms_threshold: float | None
) -> tuple[Detections, NDArray[np.int64]]:
    """The same, and their places (D,) in the split."""
    score = person_scores(rule, split.bbox_score, split.score, split.presence)
    detections = truth.detections(split.image_ids, split.keypoints, split.score, score)
    if nms_threshold is None:
        return detections, np.arange(len(score))
    kept = np.flatnonzero(oks_nms(detections.image, split.keypoints, score, split.view_area, nms_threshold))
    return detections.take(kept), kept
