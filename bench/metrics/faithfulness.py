"""Is a map of what matters right? Deletion and insertion (Petsiuk et al., RISE, BMVC 2018), by cells of a grid.

A map ranks the cells of a picture. *Deletion* spoils a share of them, the highest first; *insertion* spoils all but
that share. What a system said of the whole picture should be lost early by deletion, and found early by insertion.
Letters: Q questions, M maps, S shares between 0 and 1, h w grid, I images, B data sets (see
`bench.metrics.bootstrap.Resampling`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats

DELETION, INSERTION = "deletion", "insertion"
MODES = (DELETION, INSERTION)
FAITHFULNESS = "faithfulness"
"""Area under insertion minus area under deletion: 0 for a map that knows nothing."""


def keep_masks(maps: Floats, shares: Sequence[float], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which cells are not spoiled, (..., 2, S, h, w) in the order of `MODES`, by maps (..., h, w).

    Equal values are ranked at random, so that no order of the cells is favoured.
    """
    flat = maps.reshape(*maps.shape[:-2], -1)
    order = np.lexsort((rng.random(flat.shape), -flat), axis=-1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(flat.shape[-1]), order.shape), axis=-1)
    number = np.round(np.asarray(shares) * flat.shape[-1])
    highest = rank[..., None, :] < number[:, None]  # (..., S, h * w)
    kept = np.stack([~highest, highest], axis=-3)
    return kept.reshape(*kept.shape[:-1], *maps.shape[-2:])


def area_under(curves: Floats, shares: Sequence[float]) -> Floats:
    """Area (...) under curves (..., S + 2) over the shares from 0 to 1, both ends included (trapezoids)."""
    return np.asarray(np.trapezoid(curves, [0.0, *shares, 1.0], axis=-1))


def whole_curves(between: Floats, whole: Floats, nothing: Floats) -> Floats:
    """Curves (Q, M, 2, S + 2) from what lies between (Q, M, 2, S) and the ends (Q,), the same for all maps."""
    ends = {DELETION: (whole, nothing), INSERTION: (nothing, whole)}
    first, last = (
        np.stack([np.broadcast_to(ends[mode][i][:, None], between.shape[:2]) for mode in MODES], axis=-1)
        for i in range(2)
    )
    return np.concatenate([first[..., None], between, last[..., None]], axis=-1)


def kept_curves(curves: Floats, image: NDArray[np.int64], counts: NDArray[np.integer]) -> Floats:
    """What is left of all questions together, (B, M, 2, S + 2): of sums, the share of that of the whole picture.

    Args:
        curves: (Q, M, 2, S + 2), their first point that of the whole picture.
        image: (Q,) position of the image.
        counts: (B, I) how often each image is taken.
    """
    sums = np.zeros((counts.shape[1], *curves.shape[1:]))
    np.add.at(sums, image, curves)
    taken = (counts @ sums.reshape(len(sums), -1)).reshape(len(counts), *curves.shape[1:])
    return np.asarray(taken / taken[:, :1, :1, :1])
