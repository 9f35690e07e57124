"""Image-level bootstrap (Efron 1979; percentile intervals), shared by every metric.

People in one image are not independent, so whole images are drawn with replacement (a cluster bootstrap), not people.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

CONFIDENCE = 0.95
MAX_UNDEFINED = 0.1
"""Largest share of undefined resamples that an interval may leave out."""


class Interval(NamedTuple):
    """A statistic and its 95 % bounds. All three are NaN where the statistic itself is undefined; the bounds alone are
    NaN where the data hardly define it (see `percentile_interval`)."""

    value: float
    low: float
    high: float


def draw_images(num_images: int, num_resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of the images in each resample, (num_resamples, num_images), drawn with replacement.

    Raises:
        UserError: no image, or no resample wanted.
    """
    if num_images < 1:
        raise UserError(f"bootstrap: found {num_images} images, wanted at least 1")
    if num_resamples < 1:
        raise UserError(f"num_resamples: found {num_resamples}, wanted at least 1")
    return rng.integers(num_images, size=(num_resamples, num_images))


def count_draws(image_index: NDArray[np.integer]) -> NDArray[np.int64]:
    """How often each image was drawn: (num_resamples, num_images) from the positions of `draw_images`."""
    num_images = image_index.shape[1]
    return np.stack([np.bincount(positions, minlength=num_images) for positions in image_index]).astype(np.int64)


def percentile_interval(value: float, resampled: NDArray[np.floating]) -> Interval:
    """Interval from the statistic of the whole data and its values (num_resamples,) in the resamples.

    A resample can leave a statistic undefined (NaN), say when it holds no absent keypoint. Up to `MAX_UNDEFINED` of
    the resamples such ones are left out; beyond that the rest would be a biased picture, so the bounds become NaN.
    """
    undefined = np.isnan(resampled)
    if math.isnan(value) or undefined.mean() > MAX_UNDEFINED:
        return Interval(value, math.nan, math.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled[~undefined], [tail, 1 - tail])
    return Interval(value, float(low), float(high))
