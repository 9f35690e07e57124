"""Is a keypoint there? How well a score tells, at a threshold and without one, in every resample of the images.

A keypoint is called present where score >= threshold. Keypoints of weight 0 are ignored. Every number is taken of all
keypoints pooled, as the mean over keypoints, and of each keypoint (`VIEWS`).
Letters: N persons, K keypoints, I images, L levels of score, S data sets (see `bench.metrics.bootstrap.Resampling`),
V views.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from bench.data.geometry import Floats
from bench.data.keypoints import KEYPOINT_NAMES
from bench.errors import UserError

POOLED, MACRO = "all", "macro"
VIEWS = (POOLED, MACRO, *KEYPOINT_NAMES)

AT_THRESHOLD = ("precision", "recall", "F1", "balanced_accuracy", "MCC", "hallucinated", "missed")
"""Where something is called present. The last two are numbers per person: absent keypoints called present, and present
ones called absent."""
RANKING = ("AUROC", "AP_present", "AP_absent", "FPR95")
"""Without a threshold. AP_absent takes absence, the rarer event, for what is to be found; FPR95 is the share of absent
keypoints called present where 95 % of the present ones are."""
LESS_IS_BETTER = ("hallucinated", "missed", "FPR95")

NUM_LEVELS = 256
"""Scores are rounded to so many levels in resamples, equally many keypoints each; the whole data are taken exactly, and
what rounding does to them (under 0.1 points of AUROC) is taken off the resamples."""
RECALL = 0.95

Views = dict[str, Floats]  # name of a metric -> (S, V)


class Labelled(NamedTuple):
    """What is known of the keypoints of a split under one policy."""

    present: NDArray[np.bool_]  # (N, K)
    weight: NDArray[np.floating]  # (N, K) 0 or 1
    image: NDArray[np.integer]  # (N,) position of the image

    def of(self, keypoint: int) -> "Labelled":
        """One keypoint alone."""
        return self._replace(present=self.present[:, [keypoint]], weight=self.weight[:, [keypoint]])


def choose_threshold(score: Floats, labels: Labelled) -> float:
    """The score that, taken as threshold, maximises F1 of all keypoints pooled.

    Of thresholds with equal F1 the highest is taken: it calls the fewest keypoints present.

    Raises:
        UserError: shapes differ, a score is not finite, a weight is neither 0 nor 1, or no keypoint is present.
    """
    check(score, labels)
    counted = labels.weight > 0
    score, present = score[counted], labels.present[counted]
    num_present = int(present.sum())
    if num_present == 0:
        raise UserError("choose_threshold: found no present keypoint of weight 1, wanted at least 1")
    order = np.argsort(-score)
    score = score[order]
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))  # equal scores are on one side of any threshold
    true_positive = np.cumsum(present[order])[last]
    f1 = 2 * true_positive / (last + 1 + num_present)
    return float(score[last[np.argmax(f1)]])


def choose_thresholds(score: Floats, labels: Labelled) -> Floats:
    """The same for each keypoint by itself, (K,); one that is never present takes the threshold of all pooled."""
    pooled = choose_threshold(score, labels)
    seen = np.asarray((labels.present & (labels.weight > 0)).any(axis=0))
    return np.array(
        [choose_threshold(score[:, [k]], labels.of(k)) if seen[k] else pooled for k in range(score.shape[1])]
    )


def metrics_at(score: Floats, labels: Labelled, threshold: float | Floats, counts: NDArray[np.integer]) -> Views:
    """`AT_THRESHOLD` in every data set and view; `threshold` is one for all or (K,).

    Undefined, hence NaN: precision where nothing is called present, recall and F1 where nothing is present, balanced
    accuracy and MCC where one class is missing (MCC also where all is called the same).

    Raises:
        UserError: shapes differ, a score is not finite, or a weight is neither 0 nor 1.
    """
    check(score, labels)
    called, counted = score >= threshold, labels.weight > 0
    cells = [called & labels.present, called & ~labels.present, ~called & labels.present, ~called & ~labels.present]
    weight = counts.astype(np.float64)
    tables = [weight @ _per_image(cell & counted, labels.image, counts.shape[1]) for cell in cells]  # (S, K)
    tp, fp, fn, tn = (np.concatenate([table.sum(axis=1, keepdims=True), table], axis=1) for table in tables)
    num_persons = weight @ np.bincount(labels.image, minlength=counts.shape[1])
    return {name: with_macro(values) for name, values in _at_threshold(tp, fp, fn, tn, num_persons[:, None]).items()}


def _at_threshold(tp: Floats, fp: Floats, fn: Floats, tn: Floats, num_persons: Floats) -> dict[str, Floats]:
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: undefined
        recall = tp / (tp + fn)
        mcc = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return {
            "precision": tp / (tp + fp),
            "recall": recall,
            "F1": np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan),
            "balanced_accuracy": (recall + tn / (tn + fp)) / 2,
            "MCC": mcc,
            "hallucinated": fp / num_persons,
            "missed": fn / num_persons,
        }


def ranking(score: Floats, labels: Labelled, counts: NDArray[np.integer]) -> Views:
    """`RANKING` in every data set and view; NaN where one class is missing.

    AP is the sum of precisions over steps of recall, as in scikit-learn's average_precision_score; equal scores are one
    step, and half of the pairs of equal scores are in order for AUROC.

    Raises:
        UserError: shapes differ, a score is not finite, or a weight is neither 0 nor 1.
    """
    check(score, labels)
    exact = _exact_ranking(score, labels)
    sets = np.concatenate([np.ones((1, counts.shape[1]), dtype=counts.dtype), counts])  # the whole, to see the rounding
    level = _levels(score, labels.weight > 0)
    num_levels = int(level.max(initial=0)) + 1
    present, absent = (
        _by_level(chosen & (labels.weight > 0), level, num_levels, labels.image, sets)
        for chosen in (labels.present, ~labels.present)
    )  # (K + 1, L, S)
    rows = [_rank(p.astype(np.float64), a.astype(np.float64)) for p, a in zip(present, absent, strict=True)]
    values = {name: np.stack([row[name] for row in rows], axis=1) for name in RANKING}  # (S, K + 1)
    return {name: with_macro(found[1:] + (exact[name] - found[0])) for name, found in values.items()}


def _exact_ranking(score: Floats, labels: Labelled) -> dict[str, Floats]:
    """Of the whole data, pooled and by keypoint (K + 1,), with a level for every score."""
    columns = [slice(None), *(slice(k, k + 1) for k in range(score.shape[1]))]
    rows = []
    for column in columns:
        counted = labels.weight[:, column] > 0
        _, level = np.unique(score[:, column][counted], return_inverse=True)
        present = labels.present[:, column][counted]
        num_levels = int(level.max(initial=0)) + 1
        numbers = [np.bincount(level[x], minlength=num_levels)[:, None].astype(float) for x in (present, ~present)]
        rows.append(_rank(*numbers))
    return {name: np.array([row[name][0] for row in rows]) for name in RANKING}


def _rank(present: Floats, absent: Floats) -> dict[str, Floats]:
    """`RANKING` (S,) from the numbers of present and absent keypoints at every level (L, S), ascending."""
    num_present, num_absent = present.sum(axis=0), absent.sum(axis=0)
    present_above, absent_above = (np.cumsum(x[::-1], axis=0)[::-1] for x in (present, absent))  # and at the level
    absent_below = num_absent - absent_above + absent
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = present_above / (present_above + absent_above)
        present_below = num_present - present_above + present
        absent_precision = absent_below / (absent_below + present_below)
        reached = present_above >= RECALL * num_present
        # The highest level at which enough of the present ones are called so.
        last = len(present) - 1 - reached[::-1].argmax(axis=0)
        fpr = np.take_along_axis(absent_above, last[None], axis=0)[0] / num_absent
        found = {
            "AUROC": (present * (absent_below - absent / 2)).sum(axis=0) / (num_present * num_absent),
            "AP_present": np.nansum(present * precision, axis=0) / num_present,
            "AP_absent": np.nansum(absent * absent_precision, axis=0) / num_absent,
            "FPR95": fpr,
        }
    defined = (num_present > 0) & (num_absent > 0)
    return {name: np.where(defined, values, np.nan) for name, values in found.items()}


def _levels(score: Floats, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Level (N, K) of every score, ascending: one for each score where these are few, else equally filled ones."""
    scores = np.unique(score[counted])
    if len(scores) > NUM_LEVELS:
        scores = np.unique(np.quantile(score[counted], np.linspace(0, 1, NUM_LEVELS + 1)[:-1]))
    level: NDArray[np.int64] = np.maximum(np.searchsorted(scores, score, side="right") - 1, 0)
    return level


def _by_level(
    chosen: NDArray[np.bool_],
    level: NDArray[np.int64],
    num_levels: int,
    image: NDArray[np.integer],
    counts: NDArray[np.integer],
) -> Floats:
    """How many chosen keypoints (N, K) are at every level in every data set, (K + 1, L, S), all pooled first."""
    n, k = np.nonzero(chosen)
    cell = k * num_levels + level[n, k]
    shape = (chosen.shape[1] * num_levels, counts.shape[1])
    numbers = coo_array((np.ones(len(n), dtype=np.float32), (cell, image[n])), shape=shape).tocsr()
    by_keypoint = (numbers @ counts.T.astype(np.float32)).reshape(chosen.shape[1], num_levels, len(counts))
    return np.concatenate([by_keypoint.sum(axis=0, keepdims=True), by_keypoint])


def _per_image(chosen: NDArray[np.bool_], image: NDArray[np.integer], num_images: int) -> Floats:
    """How many keypoints are chosen in every image, (I, K)."""
    n, k = np.nonzero(chosen)
    num_keypoints = chosen.shape[1]
    numbers = np.bincount(image[n] * num_keypoints + k, minlength=num_images * num_keypoints)
    return numbers.reshape(num_images, num_keypoints).astype(np.float64)


def with_macro(values: Floats) -> Floats:
    """(S, V) from the pooled value and those of the keypoints (S, K + 1): the mean is over keypoints for which the
    first data set defines it, and in another one over those of them for which that defines it, too."""
    keypoints = values[:, 1:][:, ~np.isnan(values[0, 1:])]
    defined = (~np.isnan(keypoints)).sum(axis=1)
    total = np.nansum(keypoints, axis=1)
    macro = np.divide(total, defined, out=np.full(len(values), np.nan), where=defined > 0)
    return np.concatenate([values[:, :1], macro[:, None], values[:, 1:]], axis=1)


def check(score: Floats, labels: Labelled) -> None:
    """Raises:
    UserError: shapes differ, a score is not finite, or a weight is neither 0 nor 1.
    """
    present, weight, image = labels
    if score.ndim != 2 or not score.shape == present.shape == weight.shape or image.shape != score.shape[:1]:
        shapes = f"score {score.shape}, present {present.shape}, weight {weight.shape}, image {image.shape}"
        raise UserError(f"presence: found {shapes}, wanted (N, K) three times and (N,)")
    for name, array, wrong, wanted in (
        ("score", score, ~np.isfinite(score), "finite numbers"),
        ("weight", weight, (weight != 0) & (weight != 1), "0 or 1"),
    ):
        if wrong.any():
            person, keypoint = np.argwhere(wrong)[0]
            where = f"person {person}, keypoint {keypoint}"
            raise UserError(f"presence: found {name} {array[person, keypoint]} at {where}, wanted {wanted}")
