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
MAX_TURN = 2  # in `rotation`
BELOW, ABOVE = ndtr(-1), ndtr(1)


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
    places = rng.random(2)
    if coin_half < augmentation.half_body:
        view = _half_body_view(view, body, input_size, fit, upper=coin_upper < 0.5)
    shifted = coin_shift < augmentation.shift_probability
    rotated = coin_rotation < augmentation.rotation_probability
    factor = 1 + augmentation.scale * _clip(zoom, 1)
    offset = _truncated_normal(places) * augmentation.shift if shifted and augmentation.shift else None
    return View(
        center=view.center if offset is None else view.center + offset * view.scale,
        scale=view.scale * factor,
        rotation=augmentation.rotation * _clip(turn, MAX_TURN) if rotated else 0.0,
        flip=bool(coin_flip < augmentation.flip),
        shown=None if view.shown is None else view.shown * factor,
    )


def _clip(number: float, limit: float) -> float:
    return float(min(max(number, -limit), limit))


def _truncated_normal(uniform: Floats) -> Floats:
    """Standard normal numbers within [-1, 1] from uniform ones in [0, 1)."""
    below: Floats = ndtri(BELOW + uniform * (ABOVE - BELOW))
    return below


def reachable(view: View, body: Body, augmentation: Augmentation, input_size: tuple[int, int], fit: str) -> Floats:
    """Bounds (x0, y0, x1, y1) in image pixels, of all that the random neighbours of `view` can show.

    Half bodies are reached by chance alone, so both halves count wherever one may be drawn.
    """
    views = [view]
    if augmentation.half_body:
        views += [_half_body_view(view, body, input_size, fit, upper=upper) for upper in (True, False)]
    bounds = np.array([_reach(start, augmentation) for start in views])
    return np.concatenate([bounds[:, :2].min(0), bounds[:, 2:].max(0)])


def _reach(view: View, augmentation: Augmentation) -> Floats:
    """Bounds (x0, y0, x1, y1) of a view in every zoom, turn and shift."""
    width, height = view.scale * (1 + augmentation.scale) / 2
    turn = np.deg2rad(MAX_TURN * augmentation.rotation) if augmentation.rotation_probability else 0.0
    # A half side across is width * cos + height * sin of the turn, at most half the diagonal.
    across, down = (
        a * np.cos(t) + b * np.sin(t)
        for a, b in ((width, height), (height, width))
        for t in [min(turn, np.arctan2(b, a))]
    )
    shift = augmentation.shift * view.scale if augmentation.shift_probability else np.zeros(2)
    half = np.array([across, down]) + shift
    return np.concatenate([view.center - half, view.center + half])


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
