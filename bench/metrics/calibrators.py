"""From scores to calibrated probabilities of presence: functions fitted on the calibration split, and on it only.

Those in `NEED_LOGITS` take the score for a logit, whose sign and size mean something: a presence head has one (its own,
not the logit of a probability that was rounded to 1 in single precision, which is infinite). The others take any real
number that is larger where a keypoint is more likely to be there: a heatmap peak needs Platt scaling or isotonic
regression. Keypoints of weight 0 are ignored, whatever their values. Letters: N persons, K keypoints, M keypoints that
count.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit

from bench.errors import UserError

Floats = NDArray[np.float64]
Scores = NDArray[np.floating]

TEMPERATURES = (0.05, 20.0)
"""Bounds of any temperature. Logits that separate the classes without error would be multiplied without end."""

Calibrator = Callable[[Scores], Floats]
"""Takes scores or logits (N, K), gives probabilities (N, K); of NaN it makes NaN."""


@dataclass(frozen=True)
class Temperature:
    """sigmoid(logit / temperature), with one temperature (K,) for each keypoint. Keeps the order of each keypoint's
    logits, and of all where it is the same for all (but for those so large that their probability rounds to 0 or 1)."""

    temperature: Floats  # (K,)
    largest: float  # stands for infinity

    def __call__(self, score: Scores) -> Floats:
        assert score.shape[-1] == len(self.temperature), "other keypoints than those fitted on"
        return np.asarray(expit(_make_finite(score, self.largest) / self.temperature))


@dataclass(frozen=True)
class Platt:
    """sigmoid(slope * score + intercept). Keeps the order of the scores where slope > 0; scores that are lower where a
    keypoint is present get slope < 0, and are turned round."""

    slope: float
    intercept: float
    largest: float

    def __call__(self, score: Scores) -> Floats:
        return np.asarray(expit(self.slope * _make_finite(score, self.largest) + self.intercept))


@dataclass(frozen=True)
class Isotonic:
    """A rising function, linear between knots and flat beyond the outermost. Much of it is flat: scores that it gives
    the same probability lose their order, so that AUROC can change."""

    score: Floats  # of the knots, rising
    probability: Floats
    largest: float

    def __call__(self, score: Scores) -> Floats:
        finite = _make_finite(score, self.largest)
        return np.where(np.isnan(finite), np.nan, np.interp(finite, self.score, self.probability))


def fit_none(score: Scores, present: NDArray[np.bool_], weight: Scores) -> Calibrator:
    """The sigmoid of the logit as it is."""
    _check(score, present, weight)
    return Temperature(np.ones(score.shape[1]), np.inf)


def fit_temperature(score: Scores, present: NDArray[np.bool_], weight: Scores) -> Calibrator:
    """One temperature for all keypoints, the one of lowest NLL (Guo et al. 2017); 1 where only one class counts, which
    says nothing of how sure to be."""
    x, y, largest = _counted(score, present, weight)
    return Temperature(np.full(score.shape[1], _best_temperature(x, y, 1.0)), largest)


def fit_temperature_per_keypoint(score: Scores, present: NDArray[np.bool_], weight: Scores) -> Calibrator:
    """A temperature for each keypoint; that of all pooled for one of which nothing, or only one class, counts."""
    x, y, largest = _counted(score, present, weight)
    pooled = _best_temperature(x, y, 1.0)
    finite = _make_finite(score, largest)
    counted = [(finite[:, k], present[:, k], weight[:, k] > 0) for k in range(score.shape[1])]
    return Temperature(np.array([_best_temperature(x[use], y[use], pooled) for x, y, use in counted]), largest)


def fit_platt(score: Scores, present: NDArray[np.bool_], weight: Scores) -> Calibrator:
    """Logistic regression on the score of all keypoints pooled (Platt 1999).

    Not penalised, but with Platt's targets, (P + 1) / (P + 2) for the P present and 1 / (A + 2) for the A absent
    keypoints in place of 1 and 0. They keep it finite where scores separate the classes, or where only one class
    counts: then everything gets the target of that class as its probability.
    """
    x, y, largest = _counted(score, present, weight)
    num_present, num_absent = int(y.sum()), int((~y).sum())
    target = np.where(y, (num_present + 1) / (num_present + 2), 1 / (num_absent + 2))
    # The same precision for scores of any unit. The deviation of equal scores is 0 up to rounding, hence the range.
    center, spread = float(x.mean()), float(x.std()) if np.ptp(x) > 0 else 1.0
    z = (x - center) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        raw = parameters[0] * z + parameters[1]
        error = expit(raw) - target
        return float((np.logaddexp(0, raw) - target * raw).mean()), np.array([(error * z).mean(), error.mean()])

    start = np.array([0.0, logit(target.mean())])
    slope, intercept = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return Platt(float(slope / spread), float(intercept - slope * center / spread), largest)


def fit_isotonic(score: Scores, present: NDArray[np.bool_], weight: Scores) -> Calibrator:
    """Isotonic regression on the score of all keypoints pooled (Zadrozny and Elkan 2002). Scores beyond those fitted on
    get the probability of the outermost ones, which often is 0 or 1: dear in NLL when wrong."""
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415  # slow, and pages fit none

    x, y, largest = _counted(score, present, weight)
    regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y)
    return Isotonic(regression.X_thresholds_, regression.y_thresholds_, largest)


CALIBRATORS: dict[str, Callable[[Scores, NDArray[np.bool_], Scores], Calibrator]] = {
    "none": fit_none,
    "temperature": fit_temperature,
    "temperature_per_keypoint": fit_temperature_per_keypoint,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}
"""How to fit each: from score, present, weight (0 or 1), (N, K) each. Infinite scores count as the largest finite one
in size, with their sign; for `none` they are certainty.

Raises:
    UserError: shapes differ, a weight is neither 0 nor 1, a score that counts is NaN, or no keypoint counts (which
        `none` does not ask for, as it fits nothing).
"""

UNFITTED = "none"

NEED_LOGITS = frozenset({"none", "temperature", "temperature_per_keypoint"})


def _best_temperature(x: Floats, y: NDArray[np.bool_], otherwise: float) -> float:
    """The temperature of lowest NLL for finite logits (M,), within `TEMPERATURES`; `otherwise` without both classes.

    NLL is convex in 1 / temperature, hence falls and then rises in its logarithm: there is one minimum to find.
    """
    if y.all() or not y.any():
        return otherwise

    def loss(log_temperature: float) -> float:
        scaled = x / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - y * scaled).mean())

    bounds = tuple(np.log(TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def _make_finite(score: Scores, largest: float) -> Floats:
    return np.nan_to_num(score.astype(np.float64), nan=np.nan, posinf=largest, neginf=-largest)


def _counted(score: Scores, present: NDArray[np.bool_], weight: Scores) -> tuple[Floats, NDArray[np.bool_], float]:
    """Score and presence (M,) of the keypoints that count, made finite, and what stands for infinity: the largest
    finite score in size, 1 where there is none."""
    _check(score, present, weight)
    if not (weight > 0).any():
        raise UserError("calibrators: found no keypoint of weight 1, wanted at least 1")
    x, y = score[weight > 0].astype(np.float64), present[weight > 0]
    largest = float(np.abs(x[np.isfinite(x)]).max(initial=0)) or 1.0
    return _make_finite(x, largest), y, largest


def _check(score: Scores, present: NDArray[np.bool_], weight: Scores) -> None:
    if score.ndim != 2 or not score.shape == present.shape == weight.shape:
        shapes = f"score {score.shape}, present {present.shape}, weight {weight.shape}"
        raise UserError(f"calibrators: found {shapes}, wanted one shape (N, K)")
    for name, array, wrong, wanted in (
        ("weight", weight, (weight != 0) & (weight != 1), "0 or 1"),
        ("score", score, (weight != 0) & np.isnan(score), "a number"),
    ):
        if wrong.any():
            person, keypoint = np.argwhere(wrong)[0]
            where = f"person {person}, keypoint {keypoint}"
            raise UserError(f"calibrators: found {name} {array[person, keypoint]} at {where}, wanted {wanted}")
