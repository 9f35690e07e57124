"""Is a keypoint there? How well a score tells, at a threshold and without one, in every resample of the images.

A keypoint is called present where score >= threshold. Keypoints of weight 0 are ignored. Every number is taken of all
keypoints pooled, as the mean over keypoints, and of each keypoint (`VIEWS`).
Letters: N persons, K keypoints, I images, L levels of score, S data sets (see `bench.metrics.bootstrap.Resampling`),
V views.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

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

NUM_LEVELS = 256
"""Scores are rounded to so many levels in resamples, equally many keypoints each; the whole data are taken exactly, and
what rounding does to them (under 0.1 points of AUROC) is taken off the resamples."""
RECALL = 0.95
CHUNK = 16
"""Resamples counted together: few enough for their levels to stay in the processor's cache."""

Views = dict[str, Floats]  # name of a metric -> (S, V)


class Labelled(NamedTuple):
    """What is known of the keypoints of a split under one policy."""

    present: NDArray[np.bool_]  # (N, K)
    weight: NDArray[np.floating]  # (N, K) 0 or 1
    image: NDArray[np.integer]  # (N,) position of the image

    @property
    def classes(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The present and the absent, (N, K) each, those that do not count included."""
        return self.present, ~self.present

    @property
    def has_both_classes(self) -> bool:
        """Whether a present and an absent keypoint count: without both, there is nothing to tell apart."""
        return len(np.unique(self.present[self.weight > 0])) == 2

    def of(self, keypoint: int) -> "Labelled":
        """One keypoint alone."""
        return self._replace(present=self.present[:, [keypoint]], weight=self.weight[:, [keypoint]])


def choose_threshold(score: Floats, labels: Labelled) -> float:
    """The score that, taken as threshold, maximises F1 of all keypoints pooled.

    Of thresholds with equal F1 the highest is taken: it calls the fewest keypoints present. NaN where no keypoint is
    present, as F1 is undefined then; where none is absent it is the lowest score, which calls everything present.

    Raises:
        UserError: shapes differ, a score is not finite, or a weight is neither 0 nor 1.
    """
    check(score, labels)
    counted = labels.weight > 0
    score, present = score[counted], labels.present[counted]
    num_present = int(present.sum())
    if num_present == 0:
        return math.nan
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
    accuracy and MCC where one class is missing (MCC also where all is called the same); all of them where the
    threshold is NaN.

    Raises:
        UserError: shapes differ, a score is not finite, or a weight is neither 0 nor 1.
    """
    check(score, labels)
    called, counted = score >= threshold, labels.weight > 0
    cells = [called & labels.present, called & ~labels.present, ~called & labels.present, ~called & ~labels.present]
    weight = counts.astype(np.float64)
    tables = [weight @ _per_image(cell & counted, labels.image, counts.shape[1]) for cell in cells]  # (S, K)
    tables = [np.where(np.isnan(threshold), np.nan, table) for table in tables]
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
    counted = labels.weight > 0
    level = _levels(score, counted)
    present, absent = (_by_level(chosen & counted, level, labels.image, counts.shape[1]) for chosen in labels.classes)
    chunks = [_rank_each(present, absent, sets[i : i + CHUNK], score.shape[1]) for i in range(0, len(sets), CHUNK)]
    values = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in RANKING}  # (S, K + 1)
    return {name: with_macro(found[1:] + (exact[name] - found[0])) for name, found in values.items()}


def _exact_ranking(score: Floats, labels: Labelled) -> dict[str, Floats]:
    """Of the whole data, pooled and by keypoint (K + 1,), with a level for every score."""
    columns = [slice(None), *(slice(k, k + 1) for k in range(score.shape[1]))]
    rows = []
    for column in columns:
        counted = labels.weight[:, column] > 0
        _, level = np.unique(-score[:, column][counted], return_inverse=True)
        num_levels = int(level.max(initial=0)) + 1
        numbers = [np.bincount(level[chosen[:, column][counted]], minlength=num_levels) for chosen in labels.classes]
        rows.append(_rank(*(number[:, None].astype(np.float64) for number in numbers)))
    return {name: np.array([row[name][0] for row in rows]) for name in RANKING}


def _rank_each(
    present: csr_array, absent: csr_array, counts: NDArray[np.integer], num_keypoints: int
) -> dict[str, Floats]:
    """`RANKING` (S, K + 1), pooled first, from `_by_level` of present and of absent keypoints."""
    times = counts.T.astype(np.float64)
    numbers = [(table @ times).reshape(-1, num_keypoints, len(counts)) for table in (present, absent)]  # (L, K, S) each
    if num_keypoints > 1:
        numbers = [np.concatenate([n.sum(axis=1, keepdims=True), n], axis=1) for n in numbers]
    found = _rank(*(n.reshape(len(n), -1) for n in numbers))
    times_shown = 1 if num_keypoints > 1 else 2  # the only keypoint is all of them
    return {name: np.tile(values.reshape(-1, len(counts)).T, times_shown) for name, values in found.items()}


def _rank(present: Floats, absent: Floats) -> dict[str, Floats]:
    """`RANKING` (S,) from the numbers of present and absent keypoints at every level (L, S), the highest first."""
    present_above, absent_above = _cumulate(present), _cumulate(absent)  # and at the level
    num_present, num_absent = present_above[-1], absent_above[-1]
    present_below, absent_below = num_present - present_above + present, num_absent - absent_above + absent
    # At the highest level at which enough of the present ones are called so.
    reached = (present_above >= RECALL * num_present).argmax(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # undefined, see below
        found = {
            "AUROC": _sum_over_levels(present, absent_below - absent / 2) / (num_present * num_absent),
            "AP_present": _sum_over_levels(present, _share(present_above, absent_above)) / num_present,
            "AP_absent": _sum_over_levels(absent, _share(absent_below, present_below)) / num_absent,
            "FPR95": np.take_along_axis(absent_above, reached[None], axis=0)[0] / num_absent,
        }
    defined = (num_present > 0) & (num_absent > 0)
    return {name: np.where(defined, values, np.nan) for name, values in found.items()}


def _cumulate(number: Floats) -> Floats:
    """Sums over the levels up to each (L, S), row by row: `np.cumsum` goes down every column, at a fourth of the speed
    unless there is but one."""
    if number.shape[1] == 1:
        return np.cumsum(number, axis=0)
    total = number.copy()
    for level in range(1, len(total)):
        total[level] += total[level - 1]
    return total


def _sum_over_levels(number: Floats, value: Floats) -> Floats:
    return np.asarray(np.einsum("ls,ls->s", number, value))


def _share(number: Floats, others: Floats) -> Floats:
    """0 of nothing."""
    return np.asarray(number / np.maximum(number + others, 1))


def _levels(score: Floats, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Level (N, K) of every score, 0 the highest: one for each score where these are few, else equally filled ones."""
    scores = np.unique(score[counted])
    if len(scores) > NUM_LEVELS:
        scores = np.unique(np.quantile(score[counted], np.linspace(0, 1, NUM_LEVELS + 1)[:-1]))
    ascending = np.maximum(np.searchsorted(scores, score, side="right") - 1, 0)
    return np.asarray(max(len(scores) - 1, 0) - ascending)


def _by_level(
    chosen: NDArray[np.bool_], level: NDArray[np.int64], image: NDArray[np.integer], num_images: int
) -> csr_array:
    """How many chosen keypoints (N, K) are at every level of every keypoint, (L * K, I), in every image."""
    n, k = np.nonzero(chosen)
    num_keypoints = chosen.shape[1]
    shape = ((int(level.max(initial=0)) + 1) * num_keypoints, num_images)
    return coo_array((np.ones(len(n)), (level[n, k] * num_keypoints + k, image[n])), shape=shape).tocsr()


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
