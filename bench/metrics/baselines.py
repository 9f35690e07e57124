"""Presence without a presence head: what any head must beat, from heatmaps, from labels alone, and from boxes alone.

Each is fitted on one split, and never on the one that is reported: the logistic regression on calibration, the others
on train. All give a probability strictly between 0 and 1, higher where a keypoint is more likely to be there. Keypoints
of weight 0 are ignored, whatever their values. Letters: N persons, K keypoints, F features, M keypoints that count.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from bench.data.predictions import STATISTICS
from bench.errors import UserError

Floats = NDArray[np.float64]

HEATMAP_FEATURES = ("peak", "blurred_peak", "log_mass", "entropy", "peak_gap")
LEAST_MASS = 1e-3  # of a heatmap; below, its logarithm would outweigh everything
BOX_FEATURES = ("aspect", "log_area", "left", "top", "right", "bottom", "width", "height")
ROUNDS = 150  # of boosting
LEAF_SIZE = 20  # persons at least in a leaf: fewer than twice as many cannot be split, and get their prevalence


def heatmap_features(score: NDArray[np.floating], statistics: Mapping[str, NDArray[np.floating]]) -> Floats:
    """(N, K, F), F as `HEATMAP_FEATURES`, of the heatmap peaks (N, K) and `STATISTICS`, (N, K) each."""
    columns = {"score": score, **{name: statistics[name] for name in STATISTICS}}
    columns["mass"] = np.log(np.maximum(columns["mass"], LEAST_MASS))
    return np.stack(list(columns.values()), axis=-1).astype(np.float64)


@dataclass(frozen=True)
class Logistic:
    """sigmoid(slope . feature + intercept), one slope for all keypoints and an intercept for each."""

    slope: Floats  # (F,)
    intercept: Floats  # (K,)

    def __call__(self, features: NDArray[np.floating]) -> Floats:
        """Of features (N, K, F) probabilities (N, K)."""
        found, wanted = features.shape[1:], (len(self.intercept), len(self.slope))
        assert found == wanted, "other keypoints or features than those fitted on"
        return _inside(expit(features @ self.slope + self.intercept))


def fit_logistic(features: NDArray[np.floating], present: NDArray[np.bool_], weight: NDArray[np.floating]) -> Logistic:
    """Logistic regression on features (N, K, F), pooled over keypoints; present, weight (0 or 1) are (N, K).

    Features are standardised over what counts; the penalty (scikit-learn's, C = 1) is on slopes and on how far a
    keypoint's intercept is from that of all, which keeps them finite where classes are separated. A feature that is the
    same everywhere gets slope 0; where only one class counts, all get `prevalence` pooled.

    Raises:
        UserError: shapes differ, a weight is neither 0 nor 1, a feature that counts is not finite, or nothing counts.
    """
    _check_labels("fit_logistic", present, weight)
    if features.ndim != 3 or features.shape[:2] != present.shape:
        raise UserError(
            f"fit_logistic: found features {features.shape}, wanted ({len(present)}, {present.shape[1]}, F)"
        )
    num_keypoints = present.shape[1]
    person, keypoint = np.nonzero(weight > 0)
    x, y = features[person, keypoint].astype(np.float64), present[person, keypoint]
    if not len(x):
        raise UserError("fit_logistic: found no keypoint of weight 1, wanted at least 1")
    _check_features("fit_logistic", x, person)
    if y.all() or not y.any():
        constant = _smoothed(y.sum(), np.array(len(y)))
        return Logistic(np.zeros(x.shape[1]), np.full(num_keypoints, np.log(constant / (1 - constant))))
    center, spread = x.mean(axis=0), np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), np.inf)
    which = np.eye(num_keypoints)[keypoint]  # (M, K)
    model = LogisticRegression(max_iter=1000, tol=1e-6).fit(np.hstack([(x - center) / spread, which]), y)
    slope = model.coef_[0, : x.shape[1]] / spread
    return Logistic(slope, model.coef_[0, x.shape[1] :] + model.intercept_[0] - center @ slope)


def prevalence(present: NDArray[np.bool_], weight: NDArray[np.floating]) -> Floats:
    """(K,) how often each keypoint is there, of those that count; present, weight (0 or 1) are (N, K).

    Of n counted ones with p present it is (p + 1) / (n + 2), Laplace's rule: never 0 or 1, and 1/2 where none counts.

    Raises:
        UserError: shapes differ, or a weight is neither 0 nor 1.
    """
    _check_labels("prevalence", present, weight)
    counted = weight > 0
    return _smoothed((present & counted).sum(axis=0), counted.sum(axis=0))


def box_features(bbox: NDArray[np.floating], image_size: NDArray[np.floating] | NDArray[np.integer]) -> Floats:
    """(N, F), F as `BOX_FEATURES`: of boxes (N, 4) in images of sizes (N, 2), without a look at a pixel.

    Aspect is the log of width over height, area is in pixels; edges and sizes are in widths and heights of the image.

    Raises:
        UserError: shapes differ, a number is not finite, or a width or height is not above 0.
    """
    if bbox.shape != (len(bbox), 4) or image_size.shape != (len(bbox), 2):
        raise UserError(f"box_features: found bbox {bbox.shape}, image_size {image_size.shape}, wanted (N, 4), (N, 2)")
    sizes = np.hstack([bbox[:, 2:], image_size])
    wrong = ~np.isfinite(np.hstack([bbox, image_size])).all(axis=1) | (sizes <= 0).any(axis=1)
    if wrong.any():
        person = int(np.flatnonzero(wrong)[0])
        found = f"bbox {bbox[person].tolist()} in an image of {image_size[person].tolist()}"
        raise UserError(f"box_features: found {found} at person {person}, wanted finite numbers, sizes above 0")
    size = bbox[:, 2:].astype(np.float64)
    start, extent = bbox[:, :2] / image_size, size / image_size
    aspect, log_area = np.log(size[:, 0] / size[:, 1]), np.log(size).sum(axis=1)
    return np.column_stack([aspect, log_area, start, start + extent, extent])


@dataclass(frozen=True)
class BoxGeometry:
    """A classifier for each keypoint; for one of which only one class counts, or nothing, its `prevalence`."""

    models: tuple[HistGradientBoostingClassifier | float, ...]
    num_features: int

    def __call__(self, features: NDArray[np.floating]) -> Floats:
        """Of features (N, F) probabilities (N, K)."""
        assert features.ndim == 2 and features.shape[1] == self.num_features, "other features than those fitted on"
        with _one_thread():
            return _inside(np.column_stack([_apply(model, features) for model in self.models]))


def fit_box_geometry(
    features: NDArray[np.floating], present: NDArray[np.bool_], weight: NDArray[np.floating], seed: int
) -> BoxGeometry:
    """Gradient boosting per keypoint on features (N, F) of the person; present, weight (0 or 1) are (N, K).

    Every round is taken, since early stopping would hold persons back by their number. `seed` is scikit-learn's: it
    draws the persons that bins are made of where there are more than 200,000.

    Raises:
        UserError: shapes differ, a weight is neither 0 nor 1, or a feature of somebody who counts is not finite.
    """
    _check_labels("fit_box_geometry", present, weight)
    if features.ndim != 2 or len(features) != len(present):
        raise UserError(f"fit_box_geometry: found features {features.shape}, wanted ({len(present)}, F)")
    persons = np.flatnonzero((weight > 0).any(axis=1))
    _check_features("fit_box_geometry", features[persons], persons)
    constants = prevalence(present, weight)
    models: list[HistGradientBoostingClassifier | float] = []
    for k, constant in enumerate(constants.tolist()):
        x, y = features[weight[:, k] > 0], present[weight[:, k] > 0, k]
        both = y.any() and not y.all()
        with _one_thread():
            models.append(_boosting(seed).fit(x, y) if both else constant)
    return BoxGeometry(tuple(models), features.shape[1])


def _one_thread() -> threadpool_limits:
    """Several wait for each other at every node of a tree: tenfold the time where cores are shared."""
    return threadpool_limits(1, user_api="openmp")


def _boosting(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=ROUNDS, min_samples_leaf=LEAF_SIZE, early_stopping=False, random_state=seed
    )


def _apply(model: HistGradientBoostingClassifier | float, features: NDArray[np.floating]) -> Floats:
    """Probabilities (N,)."""
    if isinstance(model, float):
        return np.full(len(features), model)
    return np.asarray(model.predict_proba(features)[:, 1])


def _smoothed(num_present: NDArray[np.integer], num_counted: NDArray[np.integer]) -> Floats:
    return np.asarray((num_present + 1) / (num_counted + 2))


def _inside(probability: Floats) -> Floats:
    """Without the 0 and 1 that rounding makes; NaN stays."""
    return np.clip(probability, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg)


def _check_features(name: str, features: NDArray[np.floating], person: NDArray[np.integer]) -> None:
    """Those that count, (M, F), of persons (M,)."""
    wrong = ~np.isfinite(features)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        where = f"feature {column} of person {person[row]}"
        raise UserError(f"{name}: found {features[row, column]} as {where}, wanted a finite number")


def _check_labels(name: str, present: NDArray[np.bool_], weight: NDArray[np.floating]) -> None:
    if present.ndim != 2 or present.shape != weight.shape:
        raise UserError(f"{name}: found present {present.shape}, weight {weight.shape}, wanted one shape (N, K)")
    wrong = (weight != 0) & (weight != 1)
    if wrong.any():
        person, keypoint = np.argwhere(wrong)[0]
        where = f"person {person}, keypoint {keypoint}"
        raise UserError(f"{name}: found weight {weight[person, keypoint]} at {where}, wanted 0 or 1")
