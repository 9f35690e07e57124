"""What a heatmap says of presence besides its peak: the measures that a presence head has to beat.

Letters: B batch, K keypoints, h w heatmap height and width.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bench.data.codec import blur

BLUR_SIGMA = 2.0  # heatmap pixels; a kernel of 11 x 11, the one in DARK's configs
REACH = 3  # heatmap pixels: the first peak's own surroundings are 7 x 7


class HeatmapStatistics(NamedTuple):
    """(B, K) each. What is not positive counts as nothing: raw heatmaps may be negative."""

    blurred_peak: Tensor  # highest value after DARK's blur, which sees zeros beyond the borders
    mass: Tensor  # sum of the positive part
    entropy: Tensor  # nats, of the positive part as a distribution; log(h w), the largest, where nothing is positive
    peak_gap: Tensor  # the peak less the second one; the peak itself where there is no second


def heatmap_statistics(heatmaps: Tensor) -> HeatmapStatistics:
    """Statistics of heatmaps (B, K, h, w), on their device.

    The blurred peak is not scaled back to the peak, as DARK's decoding scales it: it would be the peak.
    """
    positive = heatmaps.clamp_min(0)
    mass = positive.sum((-2, -1))
    return HeatmapStatistics(
        blurred_peak=blur(heatmaps, BLUR_SIGMA, mirrored=False).amax((-2, -1)),
        mass=mass,
        entropy=_entropy(positive, mass),
        peak_gap=_peak_gap(heatmaps),
    )


def _entropy(positive: Tensor, mass: Tensor) -> Tensor:
    share = positive / torch.where(mass > 0, mass, 1.0)[..., None, None]
    tiny = torch.finfo(share.dtype).tiny  # 0 log 0 is 0; torch's own `entr` takes three times as long on a CPU
    entropy = -(share * share.clamp_min(tiny).log()).sum((-2, -1))
    return torch.where(mass > 0, entropy, math.log(positive.shape[-2] * positive.shape[-1]))


def _peak_gap(heatmaps: Tensor) -> Tensor:
    """The second peak is the highest positive pixel that none of its eight neighbours exceeds, outside of the first
    one's surroundings. Of equal first peaks the first in reading order is taken: the gap is 0 if they are far apart."""
    height, width = heatmaps.shape[-2:]
    peak, place = heatmaps.flatten(2).max(-1)
    rows, columns = (torch.arange(length, device=heatmaps.device) for length in (height, width))
    near_rows = ((place // width)[..., None] - rows).abs() <= REACH  # (B, K, h)
    near_columns = ((place % width)[..., None] - columns).abs() <= REACH  # (B, K, w)
    near = near_rows[..., :, None] & near_columns[..., None, :]
    others = (heatmaps == _highest_around(heatmaps)) & ~near
    second = torch.where(others, heatmaps, 0.0).amax((-2, -1))  # 0, too, where all others are negative
    return peak - second


def _highest_around(heatmaps: Tensor) -> Tensor:
    """Of every pixel and its eight neighbours. Twenty times as fast on a CPU as torch's max pooling."""
    padded = functional.pad(heatmaps, (1, 1, 1, 1), value=-torch.inf)
    across = torch.maximum(torch.maximum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    return torch.maximum(torch.maximum(across[..., :-2, :], across[..., 1:-1, :]), across[..., 2:, :])
