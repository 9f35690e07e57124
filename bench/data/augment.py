"""Random views of a person for training: flip, half body, scale, rotation, shift.

As in the top-down training of HRNet (Sun et al. 2019) and ViTPose; the shift is mmpose's. One difference: which half of
a body is shown is a fair coin, where the published code draws a normal number below 0.5, upper halves in 69 %.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from bench.data.geometry import Floats, View, bbox_to_view

UPPER_BODY = np.arange(11)  # nose to wrists
LOWER_BODY = np.arange(11, 17)  # hips to ankles
MIN_KEYPOINTS_WHOLE = 9  # a body is halved only when more than 8 keypoints are labelled (HRNet)
MIN_KEYPOINTS_HALF = 3
HALF_BODY_PADDING = 1.5


class Augmentation(Protocol):
    """Probabilities and ranges; `bench.config.AugmentParams` has just these."""

    @property
    def flip(self) -> float: ...
    @property
    def half_body(self) -> float: ...
    @property
    def rotation(self) -> float: ...
    @property
    def rotation_probability(self) -> float: ...
    @property
    def scale(self) -> float: ...
    @property
    def shift(self) -> float: ...
    @property
    def shift_probability(self) -> float: ...


class Body(NamedTuple):
    """What a half body is chosen from: keypoints (K, 2) in image pixels and which of them are labelled (K,)."""

    keypoints: Floats
    labelled: NDArray[np.bool_]


def random_view(
    view: View,
    body: Body,
    augmentation: Augmentation,
    input_size: tuple[int, int],
    fit: str,
    rng: np.random.Generator,
) -> View:
    """A random neighbour of `view`, which was fitted to the input by `fit`.

    The number of draws is fixed, so one factor never changes another's draws.
    """
    coin_flip, coin_half, coin_upper, coin_rotation, coin_shift = rng.random(5)
    zoom, turn = rng.standard_normal(2)
    offset = _truncated_normal(rng.random(2)) * augmentation.shift
    if coin_half < augmentation.half_body:
        view = _half_body_view(view, body, input_size, fit, upper=coin_upper < 0.5)
    shifted = coin_shift < augmentation.shift_probability
    rotated = coin_rotation < augmentation.rotation_probability
    factor = 1 + augmentation.scale * float(np.clip(zoom, -1, 1))
    return View(
        center=view.center + offset * view.scale if shifted else view.center,
        scale=view.scale * factor,
        rotation=augmentation.rotation * float(np.clip(turn, -2, 2)) if rotated else 0.0,
        flip=bool(coin_flip < augmentation.flip),
        shown=None if view.shown is None else view.shown * factor,
    )


def _truncated_normal(uniform: Floats) -> Floats:
    """Standard normal numbers within [-1, 1] from uniform ones in [0, 1)."""
    below: Floats = ndtri(ndtr(-1) + uniform * (ndtr(1) - ndtr(-1)))
    return below


def _half_body_view(view: View, body: Body, input_size: tuple[int, int], fit: str, *, upper: bool) -> View:
    """The box of the labelled keypoints of one half, about their mean."""
    if body.labelled.sum() < MIN_KEYPOINTS_WHOLE:
        return view
    chosen, other = (half[body.labelled[half]] for half in (UPPER_BODY, LOWER_BODY)[:: 1 if upper else -1])
    points = body.keypoints[chosen if len(chosen) >= MIN_KEYPOINTS_HALF else other]
    low, high = points.min(0), points.max(0)
    if not (high > low).all():
        return view
    half = bbox_to_view(np.concatenate([low, high - low]), input_size, HALF_BODY_PADDING, fit)
    return half._replace(center=points.mean(0))
