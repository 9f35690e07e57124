"""Does a probability mean what it says? ECE, Brier score with its decomposition, NLL, reliability diagrams.

A forecast is calibrated when, of the keypoints given probability p, the share p is there. That of *presence* has an
event as its target; that of *localisation* has the similarity of the keypoint found with the labelled one, a number in
[0, 1]. They are different questions, and one core answers both: nothing below needs a target to be 0 or 1.

Every sum over keypoints is one of per-image sums, weighted by how often each image is taken: a matrix product gives it
in all data sets at once. Keypoints of weight 0 are ignored, whatever their values. Letters: N persons, K keypoints,
I images, M keypoints pooled for one number, L bins, S data sets (see `bench.metrics.bootstrap.Resampling`).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.metrics.bootstrap import Resampling

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Values = dict[str, Floats]
"""By metric, its value in every data set (S,)."""

NUM_BINS = 15
"""As in Guo et al. 2017."""
MIN_PROBABILITY = 1e-7
"""NLL takes probabilities into [this, 1 - this], so that certain and wrong costs 16.1 nats and not infinitely many. It
is about where a sigmoid in single precision becomes 1."""

METRICS = (
    "ECE",
    "ECE_mass",
    "Brier",
    "reliability",
    "resolution",
    "uncertainty",
    "within_bin",
    "reliability_debiased",
    "NLL",
)


class Calibration(NamedTuple):
    """All `METRICS` in every data set.

    `class_wise` is the mean over the keypoints that count in that data set: the class-wise ECE of Kull et al. 2019
    (static calibration error of Nixon et al. 2019), for K yes-or-no questions in place of one with K answers. Pooled,
    a keypoint given too much and one given too little make up for each other; class-wise they do not.
    """

    pooled: Values
    class_wise: Values
    keypoints: list[Values]  # K


def calibration_metrics(
    probability: NDArray[np.floating],
    present: NDArray[np.bool_],
    weight: NDArray[np.floating],
    image: NDArray[np.integer],
    counts: NDArray[np.integer],
) -> Calibration:
    """Of the probability that a keypoint is present: probability, present, weight (0 or 1) are (N, K), image (N,)
    positions of the images, counts (S, I) how often each image is taken.

    * ECE: mean gap between mean probability and observed share over `NUM_BINS` bins of equal width, each counted by
      its keypoints (Naeini et al. 2015, Guo et al. 2017). `ECE_mass`: over bins of equal numbers of keypoints in the
      whole data (ACE of Nixon et al. 2019); their edges are those of the whole data in every data set, and of each
      keypoint its own.
    * Brier: mean squared error. Brier = reliability - resolution + uncertainty (Murphy 1973) holds where each bin has
      one probability. Others differ within theirs, by within_bin (variance of the probability minus twice its
      covariance with the event, in bins of equal width: Stephenson et al. 2008), which makes it exact:
      Brier = reliability - resolution + uncertainty + within_bin. Less reliability and more resolution are better.
    * Chance alone keeps ECE and reliability above 0, the more so the fewer keypoints a bin holds, and resampling adds
      the same once more: where little is amiss, the whole interval of either lies above the value. From
      `reliability_debiased` what chance adds is subtracted, so that it is about 0 (below it, too) for a calibrated
      forecast and its interval can be trusted; compare by it, by Brier score or by NLL. See `_chance`.
    * NLL: mean cross-entropy in nats, of probabilities no closer to 0 or 1 than `MIN_PROBABILITY`.

    NaN where no keypoint counts.

    Raises:
        UserError: shapes differ, a weight is neither 0 nor 1, or a probability that counts is outside [0, 1].
    """
    _check(probability, present, weight, image, ("probability", "present"))
    return _calibration(probability, present, weight, image, counts)


def localisation_calibration(
    confidence: NDArray[np.floating],
    similarity: NDArray[np.floating],
    weight: NDArray[np.floating],
    image: NDArray[np.integer],
    counts: NDArray[np.integer],
) -> Calibration:
    """The same of the confidence that a keypoint is where it was put: confidence, similarity are (N, K).

    The target is not an event but the similarity of the keypoint with the labelled one, its term of OKS: a calibrated
    confidence is the similarity to be expected (Gu et al., "On the Calibration of Human Pose Estimation", ICML 2024).
    Weight is 1 where a keypoint is labelled, 0 elsewhere, where no similarity is known. Uncertainty is the variance of
    the similarity. NLL is lowest at the expected similarity, too, but not 0 there.

    Raises:
        UserError: as `calibration_metrics`; heatmap peaks can leave [0, 1], so that the caller has to clip them.
    """
    _check(confidence, similarity, weight, image, ("confidence", "similarity"))
    return _calibration(confidence, similarity, weight, image, counts)


class Reliability(NamedTuple):
    """A reliability diagram, bin by bin. NaN where a bin is empty; bounds also where resamples often leave it empty."""

    edges: Floats  # (L + 1,); a bin holds its upper edge, not its lower one
    mean_probability: Floats  # (L,)
    observed: Floats  # (L,) share present, or mean similarity
    low: Floats  # (L,) 95 % bounds of what is observed, over images
    high: Floats
    number: Ints  # (L,) of keypoints


Binning = Literal["width", "mass"]


def reliability(
    probability: NDArray[np.floating],
    target: NDArray[np.bool_] | NDArray[np.floating],
    weight: NDArray[np.floating],
    image: NDArray[np.integer],
    resampling: Resampling,
    binning: Binning = "width",
) -> Reliability:
    """Of all keypoints given, (N, K): presence or similarity is the target. Take one column of them for one keypoint.

    Raises:
        UserError: as `calibration_metrics`.
    """
    _check(probability, target, weight, image, ("probability", "target"))
    pool = _pool(probability, target, weight, image)
    edges = EDGES[binning](pool.probability)
    terms = (np.ones_like(pool.target), pool.probability, pool.target)
    number, sum_p, sum_y = _resampled_sums(terms, _bin(pool.probability, edges), pool.image, resampling.counts)
    mean_p, mean_y = (_divide(total, number) for total in (sum_p, sum_y))  # (S, L)
    observed, low, high = np.array(resampling.intervals(mean_y)).T
    return Reliability(edges, mean_p[0], observed, low, high, number[0].astype(np.int64))


class _Pool(NamedTuple):
    """The keypoints behind one number: those of weight 1."""

    probability: Floats  # (M,)
    target: Floats  # (M,)
    image: NDArray[np.integer]  # (M,)


def _pool(
    probability: NDArray[np.floating],
    target: NDArray[np.bool_] | NDArray[np.floating],
    weight: NDArray[np.floating],
    image: NDArray[np.integer],
) -> _Pool:
    counted = weight > 0  # (N, K)
    of_keypoints = np.broadcast_to(image[:, None], counted.shape)
    return _Pool(probability[counted].astype(np.float64), target[counted].astype(np.float64), of_keypoints[counted])


def _calibration(
    probability: NDArray[np.floating],
    target: NDArray[np.bool_] | NDArray[np.floating],
    weight: NDArray[np.floating],
    image: NDArray[np.integer],
    counts: NDArray[np.integer],
) -> Calibration:
    times = counts.astype(np.float64)  # whole numbers are not multiplied by the fast library
    pools = [
        _pool(probability[:, keypoints], target[:, keypoints], weight[:, keypoints], image)
        for keypoints in (slice(None), *(slice(k, k + 1) for k in range(probability.shape[1])))
    ]
    values = _metrics(pools, times)
    class_wise = {name: _mean_of_defined(of_pools[:, 1:]) for name, of_pools in values.items()}
    pooled, *of_keypoints = [{name: values[name][:, q] for name in METRICS} for q in range(len(pools))]
    return Calibration(pooled, class_wise, of_keypoints)


def _metrics(pools: Sequence[_Pool], counts: Floats) -> Values:
    """`METRICS` (S, Q) of Q pools."""
    num_sets, num_images = counts.shape
    cells = np.stack([_cells(pool, num_images) for pool in pools], axis=1)  # (I, Q, C)
    sums = (counts @ cells.reshape(num_images, -1)).reshape(num_sets, len(pools), -1)
    number, sum_p, sum_y, gap = np.split(sums[..., :BINNED], 4, axis=-1)  # (S, Q, L) each
    square, surprise, sum_pp, sum_py, sum_yy = np.moveaxis(sums[..., BINNED:], -1, 0)  # (S, Q) each
    total = number.sum(axis=-1)
    chance = _chance(cells, counts) / np.maximum(number, 1)
    mean_p, mean_y = sum_p / np.maximum(number, 1), sum_y / np.maximum(number, 1)
    base_rate = _divide(sum_y.sum(axis=-1), total)
    reliability = _divide((number * (mean_p - mean_y) ** 2).sum(axis=-1), total)
    # Variance of p less twice its covariance with y, times the number, over all bins.
    within = sum_pp - (sum_p * mean_p).sum(axis=-1) - 2 * (sum_py - (sum_p * mean_y).sum(axis=-1))
    return {
        "ECE": _divide(np.abs(sum_p - sum_y).sum(axis=-1), total),
        "ECE_mass": _divide(np.abs(gap).sum(axis=-1), total),
        "Brier": _divide(square, total),
        "reliability": reliability,
        "resolution": _divide((number * (mean_y - base_rate[..., None]) ** 2).sum(axis=-1), total),
        "uncertainty": _divide(sum_yy, total) - base_rate**2,  # the variance; of an event it is y (1 - y)
        "within_bin": _divide(within, total),
        "reliability_debiased": reliability - _divide(chance.sum(axis=-1), total),
        "NLL": _divide(surprise, total),
    }


BINNED = 4 * NUM_BINS


def _cells(pool: _Pool, num_images: int) -> Floats:
    """What each image adds (I, C): to every bin number, p and y (equal width) and their gap (equal mass), and to the
    totals squared error, cross-entropy, p p, p y and y y."""
    p, y = pool.probability, pool.target
    by_width, by_mass = (_bin(p, edges(p)) for edges in EDGES.values())
    totals = ((p - y) ** 2, _cross_entropy(p, y), p * p, p * y, y * y)
    return np.concatenate(
        [
            _sums_per_image((np.ones_like(p), p, y), by_width, pool.image, num_images),
            _sums_per_image([p - y], by_mass, pool.image, num_images),
            np.stack([np.bincount(pool.image, term, num_images) for term in totals], axis=1),
        ],
        axis=1,
    )


def _chance(cells: Floats, counts: Floats) -> Floats:
    """What chance adds to the squared sum of the gaps in every bin, pool and data set: its sampling variance (S, Q, L).

    Images are independent, their keypoints are not, so it is the sum of the squares of each image's sum. An image that
    is taken c times is still one: it adds c squared times its own. That makes the debiased value of resamples, too, one
    of the population, and not of the sample drawn from. The idea is that of Ferro and Fricker 2012 (Brier score) and
    Kumar et al. 2019 (calibration error), who take every case to be independent and the target to be an event.
    """
    _, p, y = np.split(cells[..., : 3 * NUM_BINS], 3, axis=-1)  # (I, Q, L) each
    variance: Floats = counts**2 @ ((p - y) ** 2).reshape(len(cells), -1)
    return variance.reshape(len(counts), *p.shape[1:])


def _cross_entropy(p: Floats, y: Floats) -> Floats:
    p = np.clip(p, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    entropy: Floats = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return entropy


def _equal_width(probability: Floats) -> Floats:  # noqa: ARG001  # one signature for all
    return np.linspace(0, 1, NUM_BINS + 1)


def _equal_mass(probability: Floats) -> Floats:
    """Quantiles; equal probabilities share a bin, so that bins differ in number, or are empty, where many are equal."""
    if len(probability) == 0:
        return _equal_width(probability)
    return np.quantile(probability, np.linspace(0, 1, NUM_BINS + 1))


EDGES = {"width": _equal_width, "mass": _equal_mass}
"""Edges (L + 1,) of the bins for probabilities (M,)."""


def _bin(probability: Floats, edges: Floats) -> Ints:
    """The bin (M,) of each probability: above its lower edge, up to its upper edge (Guo et al. 2017, scikit-learn)."""
    return np.searchsorted(edges[1:-1], probability).astype(np.int64)


def _resampled_sums(
    terms: Sequence[Floats], bins: Ints, image: NDArray[np.integer], counts: NDArray[np.number]
) -> list[Floats]:
    """Sums (S, L) of each of the terms (M,) in every bin and data set; bins and image are (M,)."""
    return np.split(counts @ _sums_per_image(terms, bins, image, counts.shape[1]), len(terms), axis=1)


def _sums_per_image(terms: Sequence[Floats], bins: Ints, image: NDArray[np.integer], num_images: int) -> Floats:
    """(I, T * L) of T terms (M,)."""
    cell, num_cells = image * NUM_BINS + bins, num_images * NUM_BINS
    return np.concatenate([np.bincount(cell, term, num_cells).reshape(-1, NUM_BINS) for term in terms], axis=1)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _mean_of_defined(values: Floats) -> Floats:
    """Mean (S,) of those (S, K) that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def _check(
    probability: NDArray[np.floating],
    target: NDArray[np.bool_] | NDArray[np.floating],
    weight: NDArray[np.floating],
    image: NDArray[np.integer],
    names: tuple[str, str],
) -> None:
    if probability.ndim != 2 or not probability.shape == target.shape == weight.shape:
        shapes = f"{names[0]} {probability.shape}, {names[1]} {target.shape}, weight {weight.shape}"
        raise UserError(f"calibration: found {shapes}, wanted one shape (N, K)")
    if image.shape != probability.shape[:1]:
        raise UserError(f"calibration: found image of shape {image.shape}, wanted {probability.shape[:1]}")
    counted = weight != 0
    for name, array, right, wanted in (
        ("weight", weight, ~counted | (weight == 1), "0 or 1"),
        (names[0], probability, ~counted | ((probability >= 0) & (probability <= 1)), "at least 0 and at most 1"),
        (names[1], target, ~counted | ((target >= 0) & (target <= 1)), "at least 0 and at most 1"),
    ):
        if not right.all():
            person, keypoint = np.argwhere(~right)[0]
            where = f"person {person}, keypoint {keypoint}"
            raise UserError(f"calibration: found {name} {array[person, keypoint]} at {where}, wanted {wanted}")
