"""OKS non-maximum suppression: of several detections of one person only the best stays.

The rule is that of HRNet's evaluation (leoxiaobin/deep-high-resolution-net.pytorch, lib/nms/nms.py), which ViTPose and
mmpose took over. Letters: D detections, K keypoints, N pairs.
"""

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.keypoints import OKS_SIGMAS
from bench.errors import UserError

Ints = NDArray[np.int64]

CHUNK = 4096  # pairs at a time: they stay in the cache, and memory does not grow with the data


def oks_nms(
    image: NDArray[np.integer],
    keypoints: NDArray[np.floating],
    score: NDArray[np.floating],
    area: NDArray[np.floating],
    threshold: float,
    sigmas: Floats = OKS_SIGMAS,
) -> NDArray[np.bool_]:
    """Which detections (D,) are kept.

    image (D,) any numbers of images, keypoints (D, K, 2), score (D,), area (D,) in square pixels, sigmas (K,). The
    published code takes the area of the crop, so of the box after padding and fitting to the input (`View.scale`).

    In each image the detection with the highest score is kept, among equals the one given first, and removes those
    whose OKS with it is above the threshold; then the best of the rest, and so on. (The published order among equals
    is left to an unstable sort.) All keypoints count, whatever their scores.

    One pass over the ranks serves all images. In it a detection meets at most one other, so pairs never outnumber
    detections; their OKS is taken `CHUNK` pairs at a time. Pairs with a removed detection are not looked at.

    Raises:
        UserError: the shapes do not agree.
    """
    _check_shapes(image, keypoints, score, area, sigmas)
    order = np.lexsort((-score, image))
    poses, area, first = keypoints[order], area[order], np.searchsorted(image[order], image[order])
    kept = np.ones(len(order), dtype=bool)
    later, rank = np.arange(len(order)), 0
    while len(later):
        later = later[first[later] + rank < later]
        judge = first[later] + rank
        judged = kept[judge]
        similar = _oks(poses, area, judge[judged], later[judged], sigmas) > threshold
        kept[later[judged][similar]] = False
        later, rank = later[kept[later]], rank + 1
    result = np.empty_like(kept)
    result[order] = kept
    return result


def _oks(poses: NDArray[np.floating], area: NDArray[np.floating], a: Ints, b: Ints, sigmas: Floats) -> Floats:
    """OKS (N,) of detections a (N,) with detections b (N,), under the mean of their areas."""
    variance = (2 * sigmas) ** 2
    oks = np.empty(len(a))
    for start in range(0, len(a), CHUNK):
        c = slice(start, start + CHUNK)
        away = np.square(poses[a[c]] - poses[b[c]])
        distance = away[..., 0] + away[..., 1]  # a sum over an axis of two takes several times as long
        mean_area = (area[a[c]] + area[b[c]])[:, None] / 2 + np.spacing(1)
        oks[c] = np.exp(-(distance / variance / mean_area / 2)).sum(axis=1) / len(sigmas)
    return oks


def _check_shapes(
    image: NDArray[np.integer],
    keypoints: NDArray[np.floating],
    score: NDArray[np.floating],
    area: NDArray[np.floating],
    sigmas: Floats,
) -> None:
    found = [keypoints.shape, image.shape, score.shape, area.shape]
    d, k = len(image), len(sigmas)
    wanted = [(d, k, 2), (d,), (d,), (d,)]
    if found != wanted:
        raise UserError(f"OKS-NMS: found keypoints, image, score, area of shapes {found}, wanted {wanted}")
