"""Is a keypoint there? Precision, recall and F1 at a threshold, AUROC without one; micro and per keypoint.

A keypoint is called present where score >= threshold. Keypoints of weight 0 are ignored. Letters: N persons,
K keypoints, I images, M keypoints pooled for one number, S data sets (see `bench.metrics.bootstrap.Resampling`).
"""

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

METRICS = ("precision", "recall", "F1", "AUROC")


def choose_threshold(score: NDArray[np.floating], present: NDArray[np.bool_], weight: NDArray[np.floating]) -> float:
    """The score that, taken as threshold, maximises micro F1; score, present and weight (0 or 1) are (N, K).

    Of thresholds with equal F1 the highest is taken: it calls the fewest keypoints present.

    Raises:
        UserError: shapes differ, a score is not finite, a weight is neither 0 nor 1, or no keypoint is present.
    """
    _check(score, present, weight)
    score, present = score[weight > 0], present[weight > 0]
    num_present = int(present.sum())
    if num_present == 0:
        raise UserError("choose_threshold: found no present keypoint of weight 1, wanted at least 1")
    order = np.argsort(-score)
    score = score[order]
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))  # equal scores are on one side of any threshold
    true_positive = np.cumsum(present[order])[last]
    f1 = 2 * true_positive / (last + 1 + num_present)
    return float(score[last[np.argmax(f1)]])


def presence_metrics(
    score: NDArray[np.floating],
    present: NDArray[np.bool_],
    weight: NDArray[np.floating],
    threshold: float,
    image: NDArray[np.integer],
    counts: NDArray[np.integer],
) -> list[dict[str, NDArray[np.float64]]]:
    """All `METRICS` in every data set, (S,) each: of all keypoints pooled, then of each of the K keypoints.

    score, present, weight (0 or 1) are (N, K), image (N,) positions of the images, counts (S, I) how often each image
    is taken. Undefined, hence NaN: precision where nothing is called present, recall and F1 where nothing is present,
    AUROC where only one class is there.

    Raises:
        UserError: shapes differ, a score is not finite, or a weight is neither 0 nor 1.
    """
    _check(score, present, weight)
    if image.shape != score.shape[:1]:
        raise UserError(f"presence: found image of shape {image.shape}, wanted {score.shape[:1]}")

    def pool(keypoints: slice) -> dict[str, NDArray[np.float64]]:
        counted = weight[:, keypoints] > 0  # (N, K)
        pooled_image = np.broadcast_to(image[:, None], counted.shape)[counted]
        return _metrics(score[:, keypoints][counted], present[:, keypoints][counted], pooled_image, threshold, counts)

    return [pool(slice(None)), *(pool(slice(k, k + 1)) for k in range(score.shape[1]))]


def _metrics(
    score: NDArray[np.floating],
    present: NDArray[np.bool_],
    image: NDArray[np.integer],
    threshold: float,
    counts: NDArray[np.integer],
) -> dict[str, NDArray[np.float64]]:
    """`METRICS` of M pooled keypoints: score, present, image are (M,), counts is (S, I)."""
    claimed = score >= threshold
    num_images = counts.shape[1]
    true_positive = counts @ np.bincount(image[claimed & present], minlength=num_images)  # (S,)
    num_claimed = counts @ np.bincount(image[claimed], minlength=num_images)
    num_present = counts @ np.bincount(image[present], minlength=num_images)
    f1 = _divide(2 * true_positive, num_claimed + num_present)
    return {
        "precision": _divide(true_positive, num_claimed),
        "recall": _divide(true_positive, num_present),
        "F1": np.where(num_present > 0, f1, np.nan),
        "AUROC": _auroc(score, present, image, counts),
    }


def _auroc(
    score: NDArray[np.floating], present: NDArray[np.bool_], image: NDArray[np.integer], counts: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Share of (present, absent) pairs in the right order, ties counted half (Mann-Whitney), in each data set: (S,)."""
    if len(score) == 0:
        return np.full(len(counts), np.nan)
    order = np.argsort(score)
    present, image = present[order], image[order]
    first = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))  # of each run of equal scores
    areas = np.zeros(len(counts))
    pairs = np.zeros(len(counts))
    for i, times in enumerate(counts.astype(np.float64)):
        taken = times[image]  # (M,)
        num_present = np.add.reduceat(taken * present, first)
        num_absent = np.add.reduceat(taken * ~present, first)
        areas[i] = num_present @ (np.cumsum(num_absent) - num_absent / 2)
        pairs[i] = num_present.sum() * num_absent.sum()
    return _divide(areas, pairs)


def _divide(
    numerator: NDArray[np.int64] | NDArray[np.float64], denominator: NDArray[np.int64] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """NaN where the denominator is 0."""
    ratio = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


def _check(score: NDArray[np.floating], present: NDArray[np.bool_], weight: NDArray[np.floating]) -> None:
    if score.ndim != 2 or not score.shape == present.shape == weight.shape:
        shapes = f"score {score.shape}, present {present.shape}, weight {weight.shape}"
        raise UserError(f"presence: found {shapes}, wanted one shape (N, K)")
    for name, array, wrong, wanted in (
        ("score", score, ~np.isfinite(score), "finite numbers"),
        ("weight", weight, (weight != 0) & (weight != 1), "0 or 1"),
    ):
        if wrong.any():
            person, keypoint = np.argwhere(wrong)[0]
            where = f"person {person}, keypoint {keypoint}"
            raise UserError(f"presence: found {name} {array[person, keypoint]} at {where}, wanted {wanted}")
