"""Random views of a person for training: flip, half body, scale, rotation, shift.

The family of HRNet's and mmpose's top-down training (facts and defaults in `params.yaml`); each draw comes from `rng`.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

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


class Body(NamedTuple):
    """What a half body is chosen from: keypoints (K, 2) in image pixels and which of them are labelled (K,)."""

    keypoints: Floats
    labelled: NDArray[np.bool_]


def random_view(
    view: View, body: Body, augmentation: Augmentation, input_size: tuple[int, int], rng: np.random.Generator
) -> View:
    """A random neighbour of `view`. The number of draws is fixed, so one factor never changes another's draws."""
    coin_flip, coin_half, coin_rotation, coin_upper = rng.random(4)
    zoom, turn = np.clip(rng.standard_normal(2), -2, 2) / 2
    offset = rng.uniform(-1, 1, 2)
    if coin_half < augmentation.half_body:
        view = _half_body_view(view, body, input_size, upper=coin_upper < 0.5)
    rotation = turn * augmentation.rotation if coin_rotation < augmentation.rotation_probability else 0.0
    return View(
        center=view.center + offset * augmentation.shift * view.scale,
        scale=view.scale * (1 + zoom * augmentation.scale),
        rotation=rotation,
        flip=bool(coin_flip < augmentation.flip),
    )


def _half_body_view(view: View, body: Body, input_size: tuple[int, int], *, upper: bool) -> View:
    if body.labelled.sum() < MIN_KEYPOINTS_WHOLE:
        return view
    halves = [half[body.labelled[half]] for half in (UPPER_BODY, LOWER_BODY)]
    chosen = halves[0] if upper else halves[1]
    if len(chosen) < MIN_KEYPOINTS_HALF:
        return view
    points = body.keypoints[chosen]
    low, high = points.min(0), points.max(0)
    if not (high > low).all():
        return view
    return bbox_to_view(np.concatenate([low, high - low]), input_size, HALF_BODY_PADDING)
