"""What a run says of presence, as calibrated probabilities.

A presence head speaks in logits and is calibrated by one temperature; a run without one has only the peaks of its
heatmaps, which Platt scaling turns into probabilities. Both are fitted on the calibration split alone, and both are
`sigmoid(slope * score + intercept)`, which any runtime can compute.
Letters: N persons, K keypoints.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from bench.data.geometry import Floats
from bench.data.predictions import Split
from bench.errors import UserError
from bench.metrics.calibrators import UNFITTED, Platt, Temperature, fit_none, fit_platt, fit_temperature
from bench.metrics.presence import Labelled


class NothingToReadError(UserError):
    """Heatmap peaks that are no higher where a keypoint is there, or a calibration split that cannot tell."""


class Scored(Protocol):
    """`Predictions`, or a `Split` of a predictions file."""

    @property
    def score(self) -> NDArray[np.floating]: ...  # (N, K) heatmap peak

    @property
    def presence_logits(self) -> NDArray[np.floating] | None: ...  # (N, K); None without a head


class PresenceReading(NamedTuple):
    """How a run's scores become probabilities, and from which on a keypoint is called present."""

    from_head: bool
    slope: float
    intercept: float
    threshold: float  # a probability
    is_fitted: bool = True  # else it is the head's own sigmoid

    @property
    def calibrator(self) -> str:
        """Its name in `bench.metrics.calibrators.CALIBRATORS`."""
        if not self.is_fitted:
            return UNFITTED
        return "temperature" if self.from_head else "platt"

    def probability(self, score: NDArray[np.floating]) -> Floats:
        """Calibrated probabilities (N, K) of `presence_score`."""
        return np.asarray(expit(self.slope * score.astype(np.float64) + self.intercept))


def presence_score(found: Scored) -> NDArray[np.floating]:
    """What presence is read from, (N, K): logits of the head where there is one, else heatmap peaks."""
    return found.score if found.presence_logits is None else found.presence_logits


def read_presence(calibration: Split, threshold: float) -> PresenceReading:
    """The reading of a run by its calibration split.

    `threshold` is that of the run's row: a probability of the head before calibration, or a heatmap peak. Both
    calibrators keep the order of scores, so the same keypoints are called present before and after. Where the split has
    one class of keypoints only, nothing can be fitted: a head keeps its own sigmoid, and peaks give nothing to read.

    Raises:
        NothingToReadError: heatmap peaks are no higher where a keypoint is there, or peaks and one class; the threshold
            is NaN.
    """
    if math.isnan(threshold):
        raise NothingToReadError("the calibration split has no present keypoint: nothing to read")
    labels = Labelled(calibration.present, calibration.present_weight, calibration.image_ids)
    from_head = calibration.presence_logits is not None
    if not (from_head or labels.has_both_classes):
        raise NothingToReadError("the calibration split has one class of keypoints only: nothing to read")
    fit = fit_temperature if from_head else fit_platt
    fit = fit if labels.has_both_classes else fit_none
    slope, intercept = _line(fit(presence_score(calibration), labels.present, labels.weight))
    if slope <= 0:
        raise NothingToReadError(
            "heatmap peaks of the calibration split are no higher where a keypoint is there: nothing to read"
        )
    score = logit(threshold) if from_head else threshold
    threshold = float(expit(slope * score + intercept))
    return PresenceReading(from_head, slope, intercept, threshold, labels.has_both_classes)


def _line(calibrator: object) -> tuple[float, float]:
    """Slope and intercept of what is put into the sigmoid."""
    if isinstance(calibrator, Temperature):
        return 1 / float(calibrator.temperature[0]), 0.0
    assert isinstance(calibrator, Platt)
    return calibrator.slope, calibrator.intercept
