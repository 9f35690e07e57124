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
MIN_IMAGES = 20
"""With fewer images nothing is called better or worse: the interval of a mean, said to cover 95 %, covers 93 % at 20
images, 90 % at 10 and 85 % at 5 even where images are normally distributed."""
MIN_KEYPOINTS = 30
"""A class with fewer keypoints, absent or present, is too small to call anything better by: one keypoint moves its
share by more than 3 points, and below about 30 a share is far from normally distributed."""
MAX_UNDEFINED = 0.1
"""Largest share of undefined resamples that an interval may leave out."""
MAX_LEFT_OUT = 400
"""Beyond this many images the jackknife leaves out blocks of them, as it needs a data set for each."""


def few_images_note(num_images: int) -> str:
    """A sentence for beside the numbers; empty where there are images enough."""
    if num_images >= MIN_IMAGES:
        return ""
    intervals = "there is no interval" if num_images < 2 else "the intervals are too narrow"
    found = f"{num_images} image{'s' if num_images > 1 else ''}"
    return f"Too few images (n < {MIN_IMAGES}): with {found}, {intervals}, and no difference is called clear."


class Interval(NamedTuple):
    """A statistic and its 95 % bounds. All three are NaN where the statistic itself is undefined; the bounds alone are
    NaN where the data hardly define it (see `percentile_interval`), and where there is one image: all of its resamples
    are the same."""

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
        num_images = self.counts.shape[1]
        if len(left_out) and num_images > 1:
            return [bca_interval(*column) for column in zip(whole, resampled.T, left_out.T, strict=True)]
        return percentile_intervals(whole, np.ascontiguousarray(resampled.T), num_images)


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


def percentile_interval(value: float, resampled: Floats, num_images: int) -> Interval:
    """Interval from the statistic of the whole data and its values (B,) in resamples of the images.

    A resample can leave a statistic undefined (NaN), say when it holds no absent keypoint. Up to `MAX_UNDEFINED` of
    the resamples such ones are left out; beyond that the rest would be a biased picture, so the bounds become NaN.
    """
    (interval,) = percentile_intervals(np.array([value]), resampled[None], num_images)
    return interval


def percentile_intervals(values: Floats, resampled: Floats, num_images: int) -> list[Interval]:
    """`percentile_interval` of M statistics (M,) from their resamples (M, B): those that are defined in all of them at
    once."""
    if num_images < 2:
        return [Interval(float(value), math.nan, math.nan) for value in values]
    defined = ~(np.isnan(values) | np.isnan(resampled).any(axis=1))
    bounds = np.full((2, len(values)), np.nan)
    bounds[:, defined] = np.quantile(resampled[defined], TAILS, axis=1)
    return [
        Interval(float(value), float(low), float(high)) if known else _quantile_interval(float(value), row, TAILS)
        for value, low, high, known, row in zip(values, *bounds, defined, resampled, strict=True)
    ]


def bca_interval(value: float, resampled: Floats, left_out: Floats) -> Interval:
    """The percentile interval corrected for bias and for a spread that changes with the value (BCa: Efron 1987).

    `left_out` (J,) is the statistic without each image, or block of images. Where it is undefined for one of them, or
    does not vary, nothing says how to correct, and the bounds are those of `percentile_interval`. Of two images or
    more.
    """
    deviation = left_out.mean() - left_out
    spread = float((deviation**2).sum())
    defined = resampled[~np.isnan(resampled)]
    varies = np.ptp(left_out) > 0  # false of NaN too; the mean of equal numbers can miss them by its rounding
    if math.isnan(value) or not varies or len(defined) == 0:
        return _quantile_interval(float(value), resampled, TAILS)
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
    null: Floats  # (B,) as it would vary if there were none: the resampled differences, less the one found
    detectable: float  # the smallest true difference that would be found with 80 % power at the 5 % level

    @property
    def is_tested(self) -> bool:
        """Not where it is undefined, nor where nothing differs in any resample: no chance entered that."""
        return not math.isnan(self.interval.low) and bool(self.interval.value != 0 or np.nan_to_num(self.null).any())


def compare(first: Floats, second: Floats, num_images: int) -> Difference:
    """Second minus first, from their values on the same data sets (S,): the whole, then B resamples."""
    difference = second - first
    interval = percentile_interval(float(difference[0]), difference[1:], num_images)
    null = difference[1:] - difference[0]
    if math.isnan(interval.low):
        return Difference(interval, null, math.nan)
    reach = ndtri((1 + CONFIDENCE) / 2) + ndtri(POWER)
    return Difference(interval, null, float(reach * null[~np.isnan(null)].std(ddof=1)))


def smallest_p(num_images: int) -> float:
    """Below which no two-sided p-value can be: of the 2^n ways to turn the signs of the differences of n images, or to
    trade the images of two systems, two give a difference as large as the largest."""
    return float(2.0 ** (1 - num_images))


def p_values(observed: Floats, null: Floats, num_images: int) -> Floats:
    """Two-sided p-values (M,) of differences (M,), from how they vary (B, M) where there is none; undefined ones (NaN)
    among the B do not count.

    What was found is one of the cases that could have been, hence the 1 (Phipson and Smyth 2010). The slack lets a case
    that changes nothing count as equal whatever the order of summation.
    """
    as_large = (np.abs(null) >= np.abs(observed) * (1 - SLACK)).sum(axis=0)
    p = (1 + as_large) / (1 + (~np.isnan(null)).sum(axis=0))
    return np.where(np.isnan(observed), np.nan, np.maximum(p, smallest_p(num_images)))


SLACK = 1e-9
"""Relative: far above the rounding of a sum, far below a difference that anybody could see."""


def correct(observed: Floats, null: Floats, p: Floats) -> Floats:
    """p-values (M,) of the differences (M,) that answer one question, corrected for their number: step-down max-T
    (Westfall and Young 1993; Romano and Wolf 2005).

    Each difference is measured by the spread of its null (B, M), whose rows are shared draws. The largest is compared
    with the largest of all in each draw, the next with the largest of the rest, and so on. So comparisons that move
    together cost little, and no p-value has to be tiny. NaN in `p` does not count.
    """
    corrected = np.full(len(p), np.nan)
    judged = np.flatnonzero(~np.isnan(p))
    if not len(judged):
        return corrected
    spread = np.nanstd(null[:, judged], axis=0)
    size, varied = (_measured(np.abs(x), spread) for x in (observed[judged], null[:, judged]))
    order = np.argsort(-size, kind="stable")
    varied = np.where(np.isnan(varied), -np.inf, varied)[:, order]
    largest = np.maximum.accumulate(varied[:, ::-1], axis=1)[:, ::-1]  # of this one and all after it
    as_large = (largest >= size[order] * (1 - SLACK)).sum(axis=0)
    found = (1 + as_large) / (1 + (largest > -np.inf).sum(axis=0))
    corrected[judged[order]] = np.maximum.accumulate(np.maximum(found, p[judged[order]]))
    return corrected


def _measured(differences: Floats, spread: Floats) -> Floats:
    """In units of their spread; what does not vary is beyond all measure unless it is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(differences == 0, 0.0, differences / spread)
