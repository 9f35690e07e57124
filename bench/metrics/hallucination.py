"""Where models put keypoints that are absent: on another one of the person, on its mirror partner, on somebody else.

A heatmap has a peak somewhere, whether its keypoint is there or not; a "swap" is a peak that belongs to a keypoint of
its looks. Predicted and true positions are on one scale, that of image pixels.
Letters: N persons, K keypoints, I images, M keypoints pooled for one number, Q ordered pairs of people in one image,
S data sets (see `bench.metrics.bootstrap.Resampling`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.keypoints import OKS_SIGMAS
from bench.errors import UserError
from bench.metrics.errors import MIRROR, NEAR

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

METRICS = ("on_own", "on_mirror", "on_other", "swap", "distance")
"""Shares of the absent keypoints that lie on one of `Landing`, `swap` on the mirror partner or on somebody else; and
the median distance."""


class Landing(NamedTuple):
    """Where the keypoints went that are absent, (N, K) each; nothing is said of the others."""

    absent: Bools
    distance: (
        Floats  # to the nearest present keypoint of the person, in roots of its area; NaN: not absent, or no other
    )
    nearest: Ints  # which that is; -1 where there is none
    on_own: Bools  # near any present keypoint of the person
    on_mirror: Bools  # near its mirror partner
    on_other: Bools  # near the same keypoint of another person in the image, or near that one's mirror partner

    @property
    def swap(self) -> Bools:
        return self.on_mirror | self.on_other


def swap_distances(
    predicted: Floats,
    keypoints: Floats,
    present: Bools,
    absent: Bools,
    area: Floats,
    image: NDArray[np.integer],
    sigmas: Floats = OKS_SIGMAS,
    mirror: Sequence[int] = MIRROR,
) -> Landing:
    """What each absent keypoint was put on; `absent` can leave out those that the model calls absent, too.

    "Near" is a similarity of at least `NEAR` with a present keypoint, on the scale of that keypoint and of its person,
    as swaps and inversions are told from misses in `bench.metrics.errors`. A position can be near several.

    Args:
        predicted: (N, K, 2) image pixels; finite where absent.
        keypoints: (N, K, 2) image pixels; meaningless where not present.
        present: (N, K) is there, at a known place.
        absent: (N, K) is not there, for certain, and is to be looked at. What is neither is unknown.
        area: (N,) square pixels.
        image: (N,) which image it is, by any number.
        sigmas: (K,) constants of the object keypoint similarity.
        mirror: (K,) for each keypoint its partner, itself where it has none.

    Raises:
        UserError: shapes differ, a keypoint is both present and absent, or an absent one is put nowhere.
    """
    _check(predicted, keypoints, present, absent, area, image)
    distance = np.linalg.norm(predicted[:, :, None] - keypoints[:, None], axis=-1)  # (N, K, K), predicted first
    possible = absent[:, :, None] & present[:, None]
    similarity = np.where(possible, _similarity(distance, area[:, None, None], sigmas), -1.0)
    nearest = np.where(possible, distance, np.inf).argmin(axis=-1)
    is_any = possible.any(axis=-1)
    closest = np.take_along_axis(distance, nearest[..., None], axis=-1)[..., 0]
    each = np.arange(len(sigmas))
    return Landing(
        absent=absent,
        distance=np.where(is_any, closest / np.sqrt(area + np.spacing(1))[:, None], np.nan),
        nearest=np.where(is_any, nearest, -1),
        on_own=np.asarray((similarity >= NEAR).any(axis=-1)),
        on_mirror=similarity[:, each, list(mirror)] >= NEAR,
        on_other=absent & _near_others(predicted, keypoints, present, area, image, sigmas, list(mirror)),
    )


def _similarity(distance: Floats, area: Floats, sigmas: Floats) -> Floats:
    """As in OKS, of keypoints (..., K) at a distance in pixels."""
    similarity: Floats = np.exp(-np.square(distance) / (2 * (area + np.spacing(1)) * (2 * sigmas) ** 2))
    return similarity


def _near_others(
    predicted: Floats,
    keypoints: Floats,
    present: Bools,
    area: Floats,
    image: NDArray[np.integer],
    sigmas: Floats,
    mirror: list[int],
) -> Bools:
    """(N, K) which predicted keypoints are near the same one, or its mirror partner, of any other person."""
    near = np.zeros(present.shape, dtype=bool)
    first, second = _others(image)
    for order in (list(range(len(mirror))), mirror):
        away = np.linalg.norm(predicted[first] - keypoints[second][:, order], axis=-1)  # (Q, K)
        similarity = _similarity(away, area[second, None], sigmas[order])
        np.logical_or.at(near, first, (similarity >= NEAR) & present[second][:, order])
    return near


def _others(image: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """All ordered pairs (Q,) of two different people in the same image."""
    order = np.argsort(image, kind="stable")
    start, end = (np.searchsorted(image[order], image[order], side) for side in ("left", "right"))
    first = np.repeat(np.arange(len(image)), end - start)
    second = np.arange(len(first)) - np.repeat(np.cumsum(end - start) - end, end - start)
    different = first != second
    return order[first[different]], order[second[different]]


def swap_rates(
    landing: Landing, image: NDArray[np.integer], counts: NDArray[np.integer]
) -> list[dict[str, NDArray[np.float64]]]:
    """All `METRICS` in every data set, (S,) each: of all keypoints pooled, then of each of the K keypoints.

    `image` (N,) positions of the images, `counts` (S, I) how often each image is taken. NaN where none is absent; of
    the distance, where none is absent of a person who has a present one.
    """

    def pool(keypoints: slice) -> dict[str, NDArray[np.float64]]:
        absent = landing.absent[:, keypoints]
        pooled_image = np.broadcast_to(image[:, None], absent.shape)[absent]
        total = counts @ np.bincount(pooled_image, minlength=counts.shape[1])
        shares = {}
        for name in METRICS[:-1]:
            hit = pooled_image[getattr(landing, name)[:, keypoints][absent]]
            number = counts @ np.bincount(hit, minlength=counts.shape[1])
            shares[name] = np.divide(number, total, out=np.full(len(counts), np.nan), where=total > 0)
        return {**shares, "distance": _medians(landing.distance[:, keypoints][absent], pooled_image, counts)}

    num_keypoints = landing.absent.shape[1]
    pooled = pool(slice(None))
    return [pooled, *(pool(slice(k, k + 1)) if num_keypoints > 1 else pooled for k in range(num_keypoints))]


def _medians(values: Floats, image: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Lower median (S,) of the values (M,) that are numbers, each as often as its image (M,) is taken."""
    is_number = np.isfinite(values)
    values, image = values[is_number], image[is_number]
    order = np.argsort(values)
    values, image = values[order], image[order]
    medians = np.full(len(counts), np.nan)
    upto = np.cumsum(counts[:, image], axis=1)
    taken = np.flatnonzero(upto[:, -1] if len(values) else np.zeros(0))
    if len(taken):
        medians[taken] = values[(upto[taken] < upto[taken, -1:] / 2).sum(axis=1)]
    return medians


def _check(
    predicted: Floats, keypoints: Floats, present: Bools, absent: Bools, area: Floats, image: NDArray[np.integer]
) -> None:
    shape = present.shape
    wanted = {"predicted": (predicted, (*shape, 2)), "keypoints": (keypoints, (*shape, 2)), "absent": (absent, shape),
              "area": (area, shape[:1]), "image": (image, shape[:1])}  # fmt: skip
    for name, (array, expected) in wanted.items():
        if array.shape != expected:
            raise UserError(
                f"hallucination: found {name} of shape {array.shape}, wanted {expected} as of present {shape}"
            )
    for fault, found in (
        (present & absent, "both present and absent, wanted one of them or none"),
        (absent & ~np.isfinite(predicted).all(axis=-1), "absent and put nowhere, wanted a finite position"),
    ):
        if fault.any():
            person, keypoint = np.argwhere(fault)[0]
            raise UserError(f"hallucination: found person {person}, keypoint {keypoint} {found}")
