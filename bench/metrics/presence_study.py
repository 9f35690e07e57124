"""Every number on presence of one run: all policies, sources, thresholds and calibrators, from its predictions alone.

Whatever is chosen or fitted (thresholds, calibrators, the logistic baseline) is so on the calibration split; `val` is
only measured. Letters: N persons, K keypoints, I images, S data sets, V views.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.metrics.calibration import Calibration, calibration_metrics, localisation_calibration
from bench.metrics.calibrators import CALIBRATORS, NEED_LOGITS, UNFITTED
from bench.metrics.presence import Labelled, Views, choose_threshold, choose_thresholds, metrics_at, ranking

RANKED = "ranking"
GLOBAL, PER_KEYPOINT, HALF = "max_f1", "max_f1_per_keypoint", "half"
THRESHOLD_RULES = {
    GLOBAL: "the highest F1 on calibration",
    PER_KEYPOINT: "the highest F1 on calibration, of each keypoint by itself",
    HALF: "0.5",
}
THRESHOLD = "threshold"
LOCALISATION, LOCALISED = "localisation", "labelled"
"""Localisation is looked at where there are positions: of what is present under this policy."""
CALIBRATION_METRICS = ("ECE", "ECE_mass", "Brier", "reliability_debiased", "resolution", "NLL")


class Source(NamedTuple):
    """Scores of every keypoint on both splits; higher = more likely there."""

    calibration: Floats  # (N, K)
    val: Floats  # (N, K)
    is_probability: bool = False
    logits: tuple[Floats, Floats] | None = None  # of a head: what calibrators of logits take


class Splits(NamedTuple):
    """The labels of both splits under one policy."""

    calibration: Labelled
    val: Labelled


class Number(NamedTuple):
    """What was measured how: `rule` is `RANKED`, a threshold rule, a calibrator, or `LOCALISATION`."""

    source: str
    rule: str
    metric: str


def thresholds_of(source: Source, labels: Labelled) -> dict[str, float | Floats]:
    """By rule, from the calibration split; .5 only means something for probabilities."""
    chosen: dict[str, float | Floats] = {
        GLOBAL: choose_threshold(source.calibration, labels),
        PER_KEYPOINT: choose_thresholds(source.calibration, labels),
    }
    return chosen | {HALF: 0.5} if source.is_probability else chosen


def calibrated(source: Source, labels: Labelled) -> Iterator[tuple[str, Floats]]:
    """Probabilities on val by each calibrator that can take the source, fitted on calibration; where that has one class
    only, there is nothing to fit, and the head's own sigmoid is left."""
    for name, fit in CALIBRATORS.items():
        if (name in NEED_LOGITS and source.logits is None) or (name != UNFITTED and not labels.has_both_classes):
            continue
        fitted_on, applied_to = source.logits if source.logits is not None else (source.calibration, source.val)
        yield name, fit(fitted_on, labels.present, labels.weight)(applied_to)


def study(sources: Mapping[str, Source], splits: Splits, counts: NDArray[np.integer]) -> dict[Number, Floats]:
    """Every number under one policy, (S, V) each."""
    numbers: dict[Number, Floats] = {}
    for name, source in sources.items():
        numbers |= _named(name, RANKED, ranking(source.val, splits.val, counts))
        for rule, threshold in thresholds_of(source, splits.calibration).items():
            views = metrics_at(source.val, splits.val, threshold, counts)
            numbers |= _named(name, rule, views | {THRESHOLD: _everywhere(threshold, views["F1"].shape)})
    return numbers


def study_calibration(
    sources: Mapping[str, Source], splits: Splits, counts: NDArray[np.integer]
) -> dict[Number, Floats]:
    """Calibration of every source by every calibrator, (S, V) each."""
    numbers: dict[Number, Floats] = {}
    for name, source in sources.items():
        for calibrator, probability in calibrated(source, splits.calibration):
            numbers |= _named(name, calibrator, _views_of(calibration_metrics(probability, *splits.val, counts)))
    return numbers


class Located(NamedTuple):
    """How sure a source is of every keypoint of val, and how near it is to its label."""

    confidence: Floats  # (N, K) in [0, 1]
    similarity: Floats  # (N, K) its term of OKS
    weight: Floats  # (N, K) 1 where it is labelled
    image: NDArray[np.integer]  # (N,) position of the image


def study_localisation(located: Mapping[str, Located], counts: NDArray[np.integer]) -> dict[Number, Floats]:
    """Whether confidence is the similarity to be expected, (S, V) each."""
    numbers: dict[Number, Floats] = {}
    for name, found in located.items():
        numbers |= _named(name, LOCALISATION, _views_of(localisation_calibration(*found, counts)))
    return numbers


def _views_of(found: Calibration) -> Views:
    pools = [found.pooled, found.class_wise, *found.keypoints]
    return {metric: np.stack([pool[metric] for pool in pools], axis=1) for metric in CALIBRATION_METRICS}


def _everywhere(threshold: float | Floats, shape: tuple[int, ...]) -> Floats:
    """A threshold, as it stands beside its numbers: the same in every data set, in the pooled view the one for all."""
    views = np.full(shape[1], np.nan)
    views[2:] = threshold
    if np.ndim(threshold) == 0:
        views[0] = threshold
    return np.broadcast_to(views, shape)


def _named(source: str, rule: str, views: Views) -> dict[Number, Floats]:
    return {Number(source, rule, metric): values for metric, values in views.items()}


def kendall_tau(first: Floats, second: Floats) -> Floats:
    """Agreement (S,) of two rankings of systems by their numbers (S, Q), from -1 to 1 (Kendall 1938, tau a: equal
    numbers agree with nothing); NaN for fewer than two."""
    signs = [np.sign(values[:, :, None] - values[:, None]) for values in (first, second)]
    num_systems = first.shape[1]
    pairs = num_systems * (num_systems - 1)
    agreement = (signs[0] * signs[1]).sum(axis=(1, 2))
    return agreement / pairs if pairs else np.full(len(first), np.nan)
