import math
import time
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from bench.errors import UserError
from bench.metrics.bootstrap import draw_images, percentile_interval
from bench.metrics.presence import METRICS, PresenceMetrics, choose_threshold, presence_metrics


class Toy(NamedTuple):
    score: NDArray[np.float32]
    present: NDArray[np.bool_]
    weight: NDArray[np.float32]
    image_ids: NDArray[np.int64]

    def metrics(self, threshold: float = 0.5, num_resamples: int = 20, seed: int = 0) -> PresenceMetrics:
        score, present, weight, image_ids = self
        rng = np.random.default_rng(seed)
        return presence_metrics(score, present, weight, threshold, image_ids, num_resamples, rng)


def make_toy(seed: int, num_persons: int, num_keypoints: int = 5) -> Toy:
    """Coarse scores, so that some tie; a tenth is ignored; about two persons an image."""
    rng = np.random.default_rng(seed)
    shape = (num_persons, num_keypoints)
    present = rng.random(shape) < 0.6
    score = np.round(rng.normal(loc=present * 0.5), 1).astype(np.float32)
    weight = (rng.random(shape) > 0.1).astype(np.float32)
    return Toy(score, present, weight, rng.integers(max(num_persons // 2, 1), size=num_persons) * 7)


def sklearn_metrics(
    score: NDArray[np.float32], present: NDArray[np.bool_], weight: NDArray[np.float32], threshold: float
) -> list[float]:
    score, present, weight = score.ravel(), present.ravel(), weight.ravel()
    claimed = score >= threshold
    pair = [function(present, claimed, sample_weight=weight) for function in (precision_score, recall_score, f1_score)]
    return [*pair, roc_auc_score(present, score, sample_weight=weight)]


def test_hand_worked_numbers() -> None:
    # At .5: claimed .9 .8 .6 .5, of which .9 .6 are present (tp 2, fp 2); .2 is present and missed (fn 1).
    # Pairs (present, absent), absent being .8 .5 .1: .9 wins 3, .6 wins 2, .2 wins 1: 6 of 9.
    score = np.array([[0.9, 0.8, 0.6], [0.5, 0.2, 0.1]])
    present = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
    micro = Toy(score.astype(np.float32), present, np.ones((2, 3), np.float32), np.array([1, 2])).metrics().micro
    expected = {"precision": 2 / 4, "recall": 2 / 3, "F1": 4 / 7, "AUROC": 6 / 9}
    assert {name: interval.value for name, interval in micro.items()} == pytest.approx(expected)


def test_hand_worked_threshold() -> None:
    # F1 by threshold: .9 2/4, .8 2/5, .6 4/6, .5 4/7, .2 6/8, .1 6/9.
    score = np.array([[0.9, 0.8, 0.6], [0.5, 0.2, 0.1]])
    present = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
    assert choose_threshold(score, present, np.ones((2, 3))) == 0.2


def test_threshold_of_equal_f1_is_the_highest() -> None:
    # One present keypoint each at ranks 1 and 4: F1 is 2/3 at .9 and 4/6 at .3.
    assert (
        choose_threshold(np.array([[0.9, 0.7, 0.5, 0.3]]), np.array([[True, False, False, True]]), np.ones((1, 4)))
        == 0.9
    )


def test_threshold_is_the_best_of_all() -> None:
    for seed in range(6):
        score, present, weight, _ = make_toy(seed, 8)
        best = choose_threshold(score, present, weight)
        f1 = {t: f1_score(present.ravel(), score.ravel() >= t, sample_weight=weight.ravel()) for t in np.unique(score)}
        assert best == max(t for t in f1 if f1[t] >= max(f1.values()) - 1e-12)


def test_threshold_of_float32_scores_claims_its_own_score() -> None:
    score = np.array([[0.1, 0.7]], dtype=np.float32)
    toy = Toy(score, np.array([[False, True]]), np.ones((1, 2), np.float32), np.array([1]))
    assert toy.metrics(choose_threshold(*toy[:3])).micro["F1"].value == 1.0


def test_equals_sklearn_with_ignored_keypoints() -> None:
    for seed in range(5):
        toy = make_toy(seed, 25)
        micro, per_keypoint = toy.metrics(threshold=0.3)
        found = [micro[name].value for name in METRICS]
        np.testing.assert_allclose(found, sklearn_metrics(*toy[:3], 0.3), rtol=0, atol=1e-12)
        for k in range(5):
            column = [array[:, k] for array in toy[:3]]
            found = [per_keypoint[name][k].value for name in METRICS]
            np.testing.assert_allclose(found, sklearn_metrics(*column, 0.3), rtol=0, atol=1e-12)


def test_intervals_equal_a_bootstrap_by_repeated_rows() -> None:
    toy = make_toy(2, 30)
    images = np.unique(toy.image_ids)
    resampled = []
    for positions in draw_images(len(images), 25, np.random.default_rng(9)):
        rows = np.concatenate([np.flatnonzero(toy.image_ids == images[position]) for position in positions])
        resampled.append(sklearn_metrics(*(array[rows] for array in toy[:3]), 0.3))
    micro = toy.metrics(threshold=0.3, num_resamples=25, seed=9).micro
    for column, name in zip(np.array(resampled).T, METRICS, strict=True):
        assert micro[name] == pytest.approx(percentile_interval(micro[name].value, column), abs=1e-12)


def test_ground_truth_scores_one() -> None:
    toy = make_toy(0, 30)
    micro, per_keypoint = toy._replace(score=toy.present.astype(np.float32)).metrics()
    for interval in [*micro.values(), *(interval for intervals in per_keypoint.values() for interval in intervals)]:
        assert interval == (1.0, 1.0, 1.0)


def test_order_of_people_changes_nothing() -> None:
    toy = make_toy(0, 30)
    order = np.random.default_rng(0).permutation(30)
    assert Toy(*(array[order] for array in toy)).metrics() == toy.metrics()


def test_always_present() -> None:
    toy = make_toy(0, 30)._replace(score=np.ones((30, 5), np.float32))
    threshold = choose_threshold(*toy[:3])
    assert threshold == 1.0
    micro = toy.metrics(threshold).micro
    prevalence = (toy.present * toy.weight).sum() / toy.weight.sum()
    assert micro["AUROC"] == (0.5, 0.5, 0.5)
    assert micro["recall"] == (1.0, 1.0, 1.0)
    assert micro["precision"].value == pytest.approx(prevalence)


def test_a_missing_class_is_undefined_for_its_keypoint_only() -> None:
    toy = make_toy(0, 40)
    present = toy.present.copy()
    present[:, 1], present[:, 2] = True, False
    micro, per_keypoint = toy._replace(present=present).metrics(threshold=0.0)
    assert [k for k in range(5) if all(map(math.isnan, per_keypoint["AUROC"][k]))] == [1, 2]
    assert [k for k in range(5) if all(map(math.isnan, per_keypoint["recall"][k]))] == [2]
    assert [k for k in range(5) if all(map(math.isnan, per_keypoint["F1"][k]))] == [2]
    assert per_keypoint["precision"][2].value == 0.0
    assert not any(math.isnan(number) for interval in micro.values() for number in interval)


def test_a_keypoint_ignored_throughout_is_undefined() -> None:
    toy = make_toy(0, 20)
    weight = toy.weight.copy()
    weight[:, 3] = 0
    per_keypoint = toy._replace(weight=weight).metrics().per_keypoint
    assert all(math.isnan(number) for name in METRICS for number in per_keypoint[name][3])


def test_nothing_called_present() -> None:
    micro = make_toy(0, 20).metrics(threshold=99.0).micro
    assert math.isnan(micro["precision"].value)
    assert micro["recall"].value == micro["F1"].value == 0.0


def test_intervals_hold_their_value_and_narrow_with_images() -> None:
    few, many = (make_toy(1, n).metrics(num_resamples=200).micro for n in (20, 300))
    for name in METRICS:
        for interval in (few[name], many[name]):
            assert interval.low <= interval.value <= interval.high
        assert many[name].high - many[name].low < 0.6 * (few[name].high - few[name].low)


def test_people_of_one_image_are_drawn_together() -> None:
    toy = make_toy(1, 40)
    one_image = toy._replace(image_ids=np.full(40, 3)).metrics().micro["F1"]
    assert one_image.low == one_image.value == one_image.high


def test_five_hundred_people_are_quick() -> None:
    toy = make_toy(0, 500, 17)
    start = time.process_time()
    toy.metrics(num_resamples=200)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("score", math.nan, "found score nan at person 2, keypoint 1, wanted finite numbers"),
        ("score", math.inf, "found score inf at person 2, keypoint 1"),
        ("weight", 0.5, "found weight 0.5 at person 2, keypoint 1, wanted 0 or 1"),
    ],
)
def test_broken_values_are_refused_by_place(field: str, value: float, message: str) -> None:
    toy = make_toy(0, 5)
    broken = getattr(toy, field).copy()
    broken[2, 1] = value
    toy = toy._replace(**{field: broken})
    with pytest.raises(UserError, match=message):
        toy.metrics()
    with pytest.raises(UserError, match=message):
        choose_threshold(*toy[:3])


def test_shapes_must_agree() -> None:
    toy = make_toy(0, 5)
    with pytest.raises(UserError, match=r"present \(5, 4\)"):
        toy._replace(present=toy.present[:, :4]).metrics()
    with pytest.raises(UserError, match=r"image_ids of shape \(4,\), wanted \(5,\)"):
        toy._replace(image_ids=toy.image_ids[:4]).metrics()


def test_threshold_needs_a_present_keypoint() -> None:
    with pytest.raises(UserError, match="found no present keypoint"):
        choose_threshold(np.ones((2, 2)), np.eye(2, dtype=bool), 1 - np.eye(2))


def test_no_people_are_refused() -> None:
    with pytest.raises(UserError, match="found 0 images"):
        Toy(*(array[:0] for array in make_toy(0, 5))).metrics()
