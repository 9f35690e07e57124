"""The threshold explorer counts what the metrics count."""

import json

import numpy as np
import pytest

from bench.data.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS
from bench.errors import UserError
from bench.metrics.presence import VIEWS, Labelled, metrics_at
from bench.reporting.explorer import MIN_CALLED, STEPS, Explored, Levels, as_json, levels_of, pooled_metrics

NUM_PERSONS = 40
CHOSEN = 0.4371


@pytest.fixture
def case() -> tuple[np.ndarray, Labelled]:
    """Scores that leave [0, 1], some of them exactly on a threshold; some keypoints do not count."""
    rng = np.random.default_rng(0)
    shape = (NUM_PERSONS, NUM_KEYPOINTS)
    score = rng.normal(0.5, 0.3, shape)
    score[::3] = np.round(score[::3], 2)
    score[5] = CHOSEN
    return score, Labelled(rng.random(shape) < 0.7, (rng.random(shape) < 0.9) * 1.0, np.arange(NUM_PERSONS) // 2)


def thresholds_as_script(chosen: float) -> list[float]:
    return sorted([*(i / STEPS for i in range(STEPS + 1)), chosen])


def test_the_json_gives_the_numbers_of_the_metrics(case: tuple[np.ndarray, Labelled]) -> None:
    score, labels = case
    explored = [Explored("hrnet", "heatmap_peak", {"labelled": levels_of(score, labels, CHOSEN)})]
    told = json.loads(json.dumps(as_json(explored, {"heatmap_peak": "heatmap peak"}, NUM_PERSONS)))
    (source,) = told["sources"]
    counts = source["policies"]["labelled"]
    assert source["label"] == "hrnet, heatmap peak"
    once = np.ones((1, NUM_PERSONS // 2), dtype=int)
    thresholds = thresholds_as_script(counts["chosen"])
    for i in (0, 1, 17, thresholds.index(CHOSEN), 60, len(thresholds) - 1):
        wanted = metrics_at(score, labels, thresholds[i], once)
        for view, keypoints in {
            "all": range(NUM_KEYPOINTS),
            "left_wrist": [KEYPOINT_NAMES.index("left_wrist")],
        }.items():
            tp, fp = (sum(sum(counts[kind][k][i + 1 :]) for k in keypoints) for kind in ("present", "absent"))
            present = sum(sum(counts["present"][k]) for k in keypoints)
            place = VIEWS.index(view)
            assert tp / present == pytest.approx(wanted["recall"][0, place])
            assert 2 * tp / (tp + fp + present) == pytest.approx(wanted["F1"][0, place])
            assert fp / told["num_persons"] == pytest.approx(wanted["hallucinated"][0, place])
            assert (present - tp) / told["num_persons"] == pytest.approx(wanted["missed"][0, place])


def test_the_figure_shows_the_numbers_of_the_metrics(case: tuple[np.ndarray, Labelled]) -> None:
    score, labels = case
    levels = levels_of(score, labels, CHOSEN)
    found = pooled_metrics(levels, NUM_PERSONS)
    for i, threshold in enumerate(levels.thresholds.tolist()):
        wanted = metrics_at(score, labels, threshold, np.ones((1, NUM_PERSONS // 2), dtype=int))
        called = int(((score >= threshold) & (labels.weight > 0)).sum())
        for metric, values in found.items():
            number = np.nan if metric == "precision" and called < MIN_CALLED else wanted[metric][0, 0]
            assert values[i] == pytest.approx(number, nan_ok=True)


def test_precision_of_few_keypoints_is_not_drawn() -> None:
    """29 are called present at the highest thresholds, 30 at the lowest ones."""
    score = np.full((3, NUM_KEYPOINTS), -1.0)
    score.flat[:29] = 0.9
    score.flat[29] = 0.3
    labels = Labelled(np.arange(score.size).reshape(score.shape) % 2 == 0, np.ones(score.shape), np.arange(3))
    levels = levels_of(score, labels, CHOSEN)
    found = pooled_metrics(levels, 3)
    few = levels.thresholds > 0.3
    assert np.isnan(found["precision"][few]).all()
    np.testing.assert_allclose(found["precision"][~few], 0.5)
    assert not np.isnan(found["recall"]).any()


def test_a_chosen_threshold_may_lie_on_or_beyond_the_sampled_ones(case: tuple[np.ndarray, Labelled]) -> None:
    score, labels = case
    for chosen in (0.5, 1.7, -0.2):
        levels = levels_of(score, labels, chosen)
        counts = levels.at_thresholds()
        at = thresholds_as_script(chosen).index(chosen)
        called = (score >= chosen) & (labels.weight > 0)
        assert counts["TP"][:, at].sum() == (called & labels.present).sum()
        assert counts["FP"][:, at].sum() == (called & ~labels.present).sum()


def test_scores_that_are_no_numbers_are_refused(case: tuple[np.ndarray, Labelled]) -> None:
    score, labels = case
    score[3, 4] = np.nan
    with pytest.raises(UserError, match="found score nan at person 3, keypoint 4"):
        levels_of(score, labels, CHOSEN)


def test_counts_are_of_what_counts() -> None:
    levels = Levels(0.5, *(np.eye(1, STEPS + 3, i, dtype=np.int64) for i in (STEPS + 2, 0)))
    counts = levels.at_thresholds()
    assert counts["TP"].all()
    assert not counts["FP"].any()
    assert not counts["FN"].any()
