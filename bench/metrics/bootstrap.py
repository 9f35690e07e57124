"""Image-level resampling (Efron 1979), shared by every metric: intervals, paired comparisons, corrections.

People in one image are not independent, so whole images are drawn with replacement (a cluster bootstrap), not people.
Every run of a profile sees the same draws, so that runs can be compared draw by draw.
Letters: I images, B resamples, J images or blocks of images left out, S data sets, M metrics, E training seeds.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri  # scipy.stats takes as long to import as all else

from bench.errors import UserError

Floats = NDArray[np.float64]
Method = Literal["percentile", "bca"]

CONFIDENCE = 0.95
TAILS = ((1 - CONFIDENCE) / 2, 1 - (1 - CONFIDENCE) / 2)
POWER = 0.8
MAX_UNDEFINED = 0.1
"""Largest share of undefined resamples that an interval may leave out."""
MAX_LEFT_OUT = 400
"""Beyond this many images the jackknife leaves out blocks of them, as it needs a data set for each."""


class Interval(NamedTuple):
    """A statistic and its 95 % bounds. All three are NaN where the statistic itself is undefined; the bounds alone are
    NaN where the data hardly define it (see `percentile_interval`)."""

    value: float
    low: float
    high: float


class Resampling(NamedTuple):
    """Data sets made of the same images: `counts` (S, I) says how often each image is taken.

    The first data set is the whole, then come B = `num_resamples` draws, then, for BCa intervals, J sets with some
    images left out. A metric takes `counts` and gives S values.
    """

    counts: NDArray[np.int32]
    num_resamples: int

    def intervals(self, values: Floats) -> list[Interval]:
        """95 % intervals of M metrics from their values (S, M): BCa where images were left out, else percentile."""
        whole, resampled, left_out = values[0], values[1 : 1 + self.num_resamples], values[1 + self.num_resamples :]
        if len(left_out):
            return [bca_interval(*column) for column in zip(whole, resampled.T, left_out.T, strict=True)]
        return percentile_intervals(whole, np.ascontiguousarray(resampled.T))


def draw_resampling(num_images: int, num_resamples: int, method: Method, rng: np.random.Generator) -> Resampling:
    """Raises:
    UserError: no image, or no resample wanted.
    """
    if num_images < 1:
        raise UserError(f"bootstrap: found {num_images} images, wanted at least 1")
    if num_resamples < 1:
        raise UserError(f"num_resamples: found {num_resamples}, wanted at least 1")
    drawn = rng.integers(num_images, size=(num_resamples, num_images))
    parts = [np.ones((1, num_images)), *(np.bincount(row, minlength=num_images)[None] for row in drawn)]
    if method == "bca":
        block = rng.permutation(num_images) % min(num_images, MAX_LEFT_OUT)
        parts.append(block[None] != np.arange(block.max() + 1)[:, None])
    return Resampling(np.concatenate(parts).astype(np.int32), num_resamples)


def percentile_interval(value: float, resampled: Floats) -> Interval:
    """Interval from the statistic of the whole data and its values (B,) in the resamples.

    A resample can leave a statistic undefined (NaN), say when it holds no absent keypoint. Up to `MAX_UNDEFINED` of
    the resamples such ones are left out; beyond that the rest would be a biased picture, so the bounds become NaN.
    """
    return _quantile_interval(value, resampled, TAILS)


def percentile_intervals(values: Floats, resampled: Floats) -> list[Interval]:
    """`percentile_interval` of M statistics (M,) from their resamples (M, B): those that are defined in all of them at
    once."""
    defined = ~(np.isnan(values) | np.isnan(resampled).any(axis=1))
    bounds = np.full((2, len(values)), np.nan)
    bounds[:, defined] = np.quantile(resampled[defined], TAILS, axis=1)
    return [
        Interval(float(value), float(low), float(high)) if known else percentile_interval(float(value), row)
        for value, low, high, known, row in zip(values, *bounds, defined, resampled, strict=True)
    ]


def bca_interval(value: float, resampled: Floats, left_out: Floats) -> Interval:
    """The percentile interval corrected for bias and for a spread that changes with the value (BCa: Efron 1987).

    `left_out` (J,) is the statistic without each image, or block of images. Where it is undefined for one of them, or
    does not vary, nothing says how to correct, and the bounds are those of `percentile_interval`.
    """
    deviation = left_out.mean() - left_out
    spread = float((deviation**2).sum())
    defined = resampled[~np.isnan(resampled)]
    varies = np.ptp(left_out) > 0  # false of NaN too; the mean of equal numbers can miss them by its rounding
    if math.isnan(value) or not varies or len(defined) == 0:
        return percentile_interval(float(value), resampled)
    acceleration = float((deviation**3).sum()) / (6 * spread**1.5)
    # The share below the value, half of the ties counted, kept from 0 and 1, where no correction is finite.
    below = ((defined < value).sum() + (defined == value).sum() / 2) / len(defined)
    bias = ndtri(np.clip(below, 1 / (len(defined) + 1), len(defined) / (len(defined) + 1)))
    z = bias + ndtri(TAILS)
    low, high = ndtr(bias + z / (1 - acceleration * z))
    return _quantile_interval(float(value), resampled, (float(low), float(high)))


def _quantile_interval(value: float, resampled: Floats, quantiles: tuple[float, float]) -> Interval:
    undefined = np.isnan(resampled)
    if math.isnan(value) or undefined.mean() > MAX_UNDEFINED:
        return Interval(float(value), math.nan, math.nan)
    low, high = np.quantile(resampled[~undefined], quantiles)
    return Interval(float(value), float(low), float(high))


def pool_seeds(values: Floats, rng: np.random.Generator) -> Floats:
    """Means over training seeds (S, M) of values (E, S, M): of all seeds for the whole data, and for each resample of
    the images of as many seeds drawn with replacement (a hierarchical bootstrap: seeds, then images)."""
    num_seeds, num_sets, _ = values.shape
    drawn = rng.integers(num_seeds, size=(num_sets, num_seeds))
    drawn[0] = np.arange(num_seeds)
    return np.asarray(values[drawn, np.arange(num_sets)[:, None]].mean(axis=1))


class Difference(NamedTuple):
    """A paired difference: the same images, the same draws, the same training seeds on both sides."""

    interval: Interval
    p: float  # two-sided; NaN where undefined
    detectable: float  # the smallest true difference that would be found with 80 % power at the 5 % level

    @property
    def excludes_zero(self) -> bool:
        return self.interval.low > 0 or self.interval.high < 0


def compare(first: Floats, second: Floats) -> Difference:
    """Second minus first, from their values on the same data sets (S,): the whole, then B resamples.

    The p-value inverts the percentile interval: twice the smaller share of differences on one side of 0.
    """
    difference = second - first
    interval = percentile_interval(float(difference[0]), difference[1:])
    if math.isnan(interval.low):
        return Difference(interval, math.nan, math.nan)
    resampled = difference[1:][~np.isnan(difference[1:])]
    one_side = min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * (1 + float(one_side)) / (1 + len(resampled)))
    reach = ndtri((1 + CONFIDENCE) / 2) + ndtri(POWER)
    return Difference(interval, p, float(reach * resampled.std(ddof=1)))


def permutation_p(observed: Floats, permuted: Floats) -> Floats:
    """Two-sided p-values (M,) of differences (M,), from their values (B, M) where the two systems trade images by coin.

    The coin that trades nothing is one of those that could have fallen, hence the 1 (Phipson and Smyth 2010). The
    slack lets a trade that changes nothing count as equal whatever the order of summation.
    """
    as_large = (np.abs(permuted) >= np.abs(observed) - 1e-12).sum(axis=0)
    return np.where(np.isnan(observed), np.nan, (1 + as_large) / (1 + len(permuted)))


def holm(p: Floats) -> Floats:
    """p-values (M,) of a family of comparisons, corrected for their number (Holm 1979); NaN does not count."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted
