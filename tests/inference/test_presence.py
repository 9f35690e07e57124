"""Calibrated presence: what the calibrators say, and the same keypoints present as by the row's threshold."""

import numpy as np
import pytest

from bench.data.predictions import STATISTICS, Split
from bench.errors import UserError
from bench.inference.presence import NothingToReadError, presence_score, read_presence
from bench.metrics.calibrators import fit_platt, fit_temperature

NUM_PERSONS = 40


def split(*, head: bool, sign: float = 1.0) -> Split:
    """Predictions whose scores know something of presence; `sign` -1 turns them round."""
    rng = np.random.default_rng(0)
    present = rng.random((NUM_PERSONS, 17)) < 0.7
    raw = sign * (2.0 * present - 0.5 + rng.normal(size=present.shape))
    weight = (rng.random(present.shape) < 0.9).astype(np.float64)
    ids = np.arange(NUM_PERSONS)
    return Split(
        image_ids=ids,
        annotation_ids=ids,
        bbox_score=np.ones(NUM_PERSONS),
        view_area=np.ones(NUM_PERSONS),
        keypoints=np.zeros((NUM_PERSONS, 17, 2)),
        score=0.5 + raw / 10,
        presence_logits=raw if head else None,
        statistics=dict.fromkeys(STATISTICS, raw),
        present=present,
        present_weight=weight,
    )


@pytest.mark.parametrize("head", [True, False])
def test_it_is_what_the_calibrator_of_the_source_says(head: bool) -> None:
    found = split(head=head)
    fit = fit_temperature if head else fit_platt
    score = presence_score(found)
    wanted = fit(score, found.present, found.present_weight)(score)
    reading = read_presence(found, 0.5)
    assert reading.calibrator == ("temperature" if head else "platt")
    np.testing.assert_allclose(reading.probability(score), wanted, rtol=1e-12)
    assert (score is found.presence_logits) == head


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.41, 0.63, 1.0])
def test_the_threshold_parts_keypoints_as_before_calibration(head: bool, threshold: float) -> None:
    found = split(head=head)
    reading = read_presence(found, threshold)
    before = found.presence if head else found.score
    assert before is not None
    present = reading.probability(presence_score(found)) >= reading.threshold
    np.testing.assert_array_equal(present, before >= threshold)


def one_class(*, head: bool, present: bool) -> Split:
    """All that counts is present, or absent."""
    found = split(head=head)
    return found._replace(present=np.full(found.present.shape, present))


@pytest.mark.parametrize("present", [True, False])
def test_a_head_keeps_its_sigmoid_where_nothing_can_be_fitted(present: bool) -> None:
    reading = read_presence(one_class(head=True, present=present), 0.3)
    assert (reading.calibrator, reading.slope, reading.intercept) == ("none", 1, 0)
    assert reading.threshold == pytest.approx(0.3)


def test_peaks_of_one_class_give_nothing_to_read() -> None:
    with pytest.raises(NothingToReadError, match=r"^the calibration split has one class of keypoints only: nothing"):
        read_presence(one_class(head=False, present=True), 0.5)


@pytest.mark.parametrize("head", [True, False])
def test_without_a_threshold_there_is_nothing_to_read(head: bool) -> None:
    with pytest.raises(NothingToReadError, match=r"^the calibration split has no present keypoint: nothing to read$"):
        read_presence(one_class(head=head, present=False), np.nan)


def test_peaks_that_are_lower_where_a_keypoint_is_there_are_refused() -> None:
    with pytest.raises(UserError, match=r"^heatmap peaks .* are no higher where a keypoint is there: nothing to read$"):
        read_presence(split(head=False, sign=-1.0), 0.5)
