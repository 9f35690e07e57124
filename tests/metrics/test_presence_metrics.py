import math
import time
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from bench.errors import UserError
from bench.metrics.bootstrap import Resampling, draw_resampling
from bench.metrics.presence import (
    NUM_LEVELS,
    Labelled,
    choose_threshold,
    choose_thresholds,
    metrics_at,
    ranking,
    with_macro,
)

METRICS = ("precision", "recall", "F1", "AUROC")
Pool = dict[str, NDArray[np.float64]]  # by metric, its value in every data set


class Toy(NamedTuple):
    score: NDArray[np.float32]
    present: NDArray[np.bool_]
    weight: NDArray[np.float32]
    image: NDArray[np.int64]

    def people(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "Toy":
        return Toy(self.score[index], self.present[index], self.weight[index], self.image[index])

    def keypoint(self, k: int) -> "Toy":
        return Toy(self.score[:, [k]], self.present[:, [k]], self.weight[:, [k]], self.image)

    def resampling(self, num_resamples: int = 20, seed: int = 0) -> Resampling:
        num_images = int(self.image.max(initial=-1)) + 1
        return draw_resampling(num_images, num_resamples, "percentile", np.random.default_rng(seed))

    def metrics(self, threshold: float = 0.5, counts: NDArray[np.integer] | None = None) -> list[Pool]:
        """Of all keypoints pooled, then of each."""
        views = self.views(threshold, self.resampling().counts if counts is None else counts)
        places = [0, *range(2, self.score.shape[1] + 2)]  # between them stands the mean over keypoints
        return [{name: views[name][:, place] for name in METRICS} for place in places]

    def views(self, threshold: float, counts: NDArray[np.integer]) -> Pool:
        """Every metric in every view."""
        return metrics_at(self.score, self.labels, threshold, counts) | ranking(self.score, self.labels, counts)

    @property
    def labels(self) -> Labelled:
        return Labelled(self.present, self.weight, self.image)

    def values(self, threshold: float = 0.5) -> list[dict[str, float]]:
        """The same of the whole data."""
        return [{name: column[0] for name, column in pool.items()} for pool in self.metrics(threshold)]


def make_toy(seed: int, num_persons: int, num_keypoints: int = 5) -> Toy:
    """Coarse scores, so that some tie; a tenth is ignored; about two persons an image."""
    rng = np.random.default_rng(seed)
    shape = (num_persons, num_keypoints)
    present = rng.random(shape) < 0.6
    score = np.round(rng.normal(loc=present * 0.5), 1).astype(np.float32)
    weight = (rng.random(shape) > 0.1).astype(np.float32)
    return Toy(score, present, weight, rng.integers(max(num_persons // 2, 1), size=num_persons))


def sklearn_metrics(toy: Toy, threshold: float) -> list[float]:
    score, present, weight = toy.score.ravel(), toy.present.ravel(), toy.weight.ravel()
    claimed = score >= threshold
    pair = [function(present, claimed, sample_weight=weight) for function in (precision_score, recall_score, f1_score)]
    return [*pair, roc_auc_score(present, score, sample_weight=weight)]


def test_hand_worked_numbers() -> None:
    # At .5: claimed .9 .8 .6 .5, of which .9 .6 are present (tp 2, fp 2); .2 is present and missed (fn 1).
    # Pairs (present, absent), absent being .8 .5 .1: .9 wins 3, .6 wins 2, .2 wins 1: 6 of 9.
    score = np.array([[0.9, 0.8, 0.6], [0.5, 0.2, 0.1]])
    present = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
    toy = Toy(score.astype(np.float32), present, np.ones((2, 3), np.float32), np.array([0, 1]))
    expected = {"precision": 2 / 4, "recall": 2 / 3, "F1": 4 / 7, "AUROC": 6 / 9}
    assert toy.values()[0] == pytest.approx(expected)
    # The first image twice: tp 4, claimed 7, present 5; pairs with absent .8 .8 .5 .1: .9 wins 4, .6 2, .2 1, and so
    # (2 x 4 + 2 x 2 + 1) / (5 x 4). The second alone: .5 is claimed, .2 is present and beats .1 of two.
    pools = toy.metrics(counts=np.array([[1, 1], [2, 1], [0, 1], [0, 0]]))
    assert [pools[0][name][1] for name in METRICS] == pytest.approx([4 / 7, 4 / 5, 8 / 12, 13 / 20])
    assert [pools[0][name][2] for name in METRICS] == pytest.approx([0.0, 0.0, 0.0, 1 / 2])
    assert all(math.isnan(pools[0][name][3]) for name in METRICS)
    # The first keypoint: .9 present, .5 absent.
    assert toy.values()[1] == pytest.approx({"precision": 1 / 2, "recall": 1.0, "F1": 2 / 3, "AUROC": 1.0})


def test_hand_worked_threshold() -> None:
    # F1 by threshold: .9 2/4, .8 2/5, .6 4/6, .5 4/7, .2 6/8, .1 6/9.
    score = np.array([[0.9, 0.8, 0.6], [0.5, 0.2, 0.1]])
    present = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
    assert choose_threshold(score, Labelled(present, np.ones((2, 3)), np.arange(2))) == 0.2


def test_threshold_of_equal_f1_is_the_highest() -> None:
    # One present keypoint each at ranks 1 and 4: F1 is 2/3 at .9 and 4/6 at .3.
    assert (
        choose_threshold(
            np.array([[0.9, 0.7, 0.5, 0.3]]),
            Labelled(np.array([[True, False, False, True]]), np.ones((1, 4)), np.zeros(1, dtype=int)),
        )
        == 0.9
    )


def test_threshold_is_the_best_of_all() -> None:
    for seed in range(6):
        toy = make_toy(seed, 8)
        score, present, weight, _ = toy
        best = choose_threshold(score, toy.labels)
        f1 = {t: f1_score(present.ravel(), score.ravel() >= t, sample_weight=weight.ravel()) for t in np.unique(score)}
        assert best == max(t for t in f1 if f1[t] >= max(f1.values()) - 1e-12)


def test_threshold_of_float32_scores_claims_its_own_score() -> None:
    score = np.array([[0.1, 0.7]], dtype=np.float32)
    toy = Toy(score, np.array([[False, True]]), np.ones((1, 2), np.float32), np.array([0]))
    assert toy.values(choose_threshold(toy.score, toy.labels))[0]["F1"] == 1.0


def test_equals_sklearn_with_ignored_keypoints() -> None:
    for seed in range(5):
        toy = make_toy(seed, 25)
        pools = toy.values(threshold=0.3)
        for pool, part in zip(pools, [toy, *map(toy.keypoint, range(5))], strict=True):
            assert tuple(pool) == METRICS
            np.testing.assert_allclose(list(pool.values()), sklearn_metrics(part, 0.3), rtol=0, atol=1e-12)


def test_equals_sklearn_on_repeated_rows() -> None:
    """In every resample, pooled and for each keypoint."""
    toy = make_toy(2, 60)
    resampling = toy.resampling(num_resamples=25, seed=9)
    pools = toy.metrics(threshold=0.3, counts=resampling.counts)
    for s, counts in enumerate(resampling.counts):
        repeated = toy.people(np.repeat(np.arange(60), counts[toy.image]))
        for pool, part in zip(pools, [repeated, *map(repeated.keypoint, range(5))], strict=True):
            found = [pool[name][s] for name in METRICS]
            np.testing.assert_allclose(found, sklearn_metrics(part, 0.3), rtol=0, atol=1e-12)
    assert len(np.unique(pools[0]["F1"])) > 20


def test_an_image_left_out_is_as_if_it_were_not_there() -> None:
    toy = make_toy(3, 30)
    counts = np.ones((1, toy.image.max() + 1), dtype=np.int32)
    left_out = toy.metrics(0.3, counts * (np.arange(counts.shape[1]) != 4))
    for found, wanted in zip(left_out, toy.people(toy.image != 4).metrics(0.3, counts), strict=True):
        for name in METRICS:
            np.testing.assert_array_equal(found[name], wanted[name])


def test_images_without_people_change_nothing() -> None:
    toy = make_toy(3, 30)
    counts = toy.resampling().counts
    more = np.concatenate([counts, np.full((len(counts), 3), 2, dtype=counts.dtype)], axis=1)
    for before, after in zip(toy.metrics(0.3, counts), toy.metrics(0.3, more), strict=True):
        for name in METRICS:
            np.testing.assert_array_equal(before[name], after[name])


def test_ground_truth_scores_one() -> None:
    toy = make_toy(0, 30)
    for pool in toy._replace(score=toy.present.astype(np.float32)).metrics():
        for column in pool.values():
            np.testing.assert_array_equal(column, np.ones(21))


def test_order_of_people_changes_nothing() -> None:
    toy = make_toy(0, 30)
    order = np.random.default_rng(0).permutation(30)
    for before, after in zip(toy.metrics(), toy.people(order).metrics(), strict=True):
        for name in METRICS:
            np.testing.assert_array_equal(before[name], after[name])


def test_always_present() -> None:
    toy = make_toy(0, 30)._replace(score=np.ones((30, 5), np.float32))
    threshold = choose_threshold(toy.score, toy.labels)
    assert threshold == 1.0
    micro = toy.metrics(threshold)[0]
    prevalence = (toy.present * toy.weight).sum() / toy.weight.sum()
    np.testing.assert_array_equal(micro["AUROC"], np.full(21, 0.5))
    np.testing.assert_array_equal(micro["recall"], np.ones(21))
    assert micro["precision"][0] == pytest.approx(prevalence)


def test_a_missing_class_is_undefined_for_its_keypoint_only() -> None:
    toy = make_toy(0, 40)
    present = toy.present.copy()
    present[:, 1], present[:, 2] = True, False
    micro, *per_keypoint = toy._replace(present=present).metrics(threshold=0.0)
    for name, undefined in {"AUROC": [1, 2], "recall": [2], "F1": [2], "precision": []}.items():
        assert [k for k in range(5) if np.isnan(per_keypoint[k][name]).all()] == undefined
        assert not any(np.isnan(per_keypoint[k][name]).any() for k in range(5) if k not in undefined)
    np.testing.assert_array_equal(per_keypoint[2]["precision"], np.zeros(21))
    assert not any(np.isnan(column).any() for column in micro.values())


def test_a_class_that_a_resample_lacks_is_undefined_there_only() -> None:
    toy = make_toy(0, 10, 1)
    toy = toy._replace(present=(toy.image == 0)[:, None], weight=np.ones((10, 1), np.float32))
    counts = np.stack([np.ones(5), [0, 2, 1, 1, 1], [5, 0, 0, 0, 0]]).astype(np.int32)
    pool = toy.metrics(-99.0, counts)[0]
    assert np.isnan(pool["AUROC"]).tolist() == [False, True, True]
    for name in ("recall", "F1"):
        assert np.isnan(pool[name]).tolist() == [False, True, False]
    assert pool["precision"][1:].tolist() == [0.0, 1.0]


def test_a_keypoint_ignored_throughout_is_undefined() -> None:
    toy = make_toy(0, 20)
    weight = toy.weight.copy()
    weight[:, 3] = 0
    pools = toy._replace(weight=weight).metrics()
    assert all(np.isnan(pools[1 + 3][name]).all() for name in METRICS)
    others = [pool for place, pool in enumerate(pools) if place != 1 + 3]
    assert not any(np.isnan(pool["F1"][0]) for pool in others)


def test_what_is_said_of_ignored_keypoints_changes_nothing() -> None:
    toy = make_toy(0, 20)
    ignored = toy.weight == 0
    assert ignored.any()
    other = toy._replace(score=np.where(ignored, 9, toy.score), present=toy.present ^ ignored)
    for before, after in zip(toy.metrics(), other.metrics(), strict=True):
        for name in METRICS:
            np.testing.assert_array_equal(before[name], after[name])
    assert choose_threshold(other.score, other.labels) == choose_threshold(toy.score, toy.labels)


def test_nothing_called_present() -> None:
    micro = make_toy(0, 20).values(threshold=99.0)[0]
    assert math.isnan(micro["precision"])
    assert micro["recall"] == micro["F1"] == 0.0


def test_intervals_hold_their_value_and_narrow_with_images() -> None:
    widths = []
    for num_persons in (20, 300):
        toy = make_toy(1, num_persons)
        resampling = toy.resampling(num_resamples=200)
        micro = toy.metrics(counts=resampling.counts)[0]
        intervals = resampling.intervals(np.stack([micro[name] for name in METRICS], axis=1))
        assert all(interval.low <= interval.value <= interval.high for interval in intervals)
        widths.append(np.array([interval.high - interval.low for interval in intervals]))
    assert (widths[1] < 0.6 * widths[0]).all()


def test_people_of_one_image_are_drawn_together() -> None:
    toy = make_toy(1, 40)
    one_image = toy._replace(image=np.zeros(40, dtype=np.int64)).metrics()[0]["F1"]
    assert np.ptp(one_image) == 0
    assert np.ptp(toy.metrics()[0]["F1"]) > 0.01


def test_five_hundred_people_are_quick() -> None:
    toy = make_toy(0, 500, 17)
    counts = toy.resampling(num_resamples=200).counts
    start = time.process_time()
    toy.metrics(counts=counts)
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
        choose_threshold(toy.score, toy.labels)


def test_shapes_must_agree() -> None:
    toy = make_toy(0, 5)
    with pytest.raises(UserError, match=r"present \(5, 4\)"):
        toy._replace(present=toy.present[:, :4]).metrics()
    with pytest.raises(UserError, match=r"image \(4,\), wanted \(N, K\) three times and \(N,\)"):
        toy._replace(image=toy.image[:4]).metrics()


def one_class(*, present: bool) -> Labelled:
    """Of four keypoints that count and one, of the other class, that does not."""
    labels, weight = np.full((5, 1), present), np.ones((5, 1))
    labels[4], weight[4] = not present, 0
    return Labelled(labels, weight, np.arange(5))


SCORES = np.array([[0.9], [0.7], [0.5], [0.3], [0.1]])


def test_without_a_present_keypoint_there_is_no_threshold() -> None:
    labels = one_class(present=False)
    assert np.isnan(choose_threshold(SCORES, labels))
    assert np.isnan(choose_thresholds(SCORES, labels)).all()
    assert not labels.has_both_classes


def test_without_an_absent_keypoint_the_threshold_calls_all_present() -> None:
    labels = one_class(present=True)
    assert choose_threshold(SCORES, labels) == 0.3  # the .1 does not count
    assert not labels.has_both_classes
    assert labels._replace(weight=np.ones((5, 1))).has_both_classes


@pytest.mark.parametrize("present", [True, False])
def test_one_class_leaves_undefined_what_needs_both(present: bool) -> None:
    labels, counts = one_class(present=present), np.ones((1, 5), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        views = metrics_at(SCORES, labels, 0.4, counts) | ranking(SCORES, labels, counts)
    defined = {name for name, values in views.items() if not np.isnan(values).any()}
    of_present = {"recall", "F1"} if present else set()
    assert defined == {"precision", "hallucinated", "missed"} | of_present


def test_at_no_threshold_there_is_no_number() -> None:
    labels = one_class(present=True)._replace(weight=np.ones((5, 1)))
    for values in metrics_at(SCORES, labels, np.nan, np.ones((2, 5), dtype=int)).values():
        assert np.isnan(values).all()


def test_no_people_are_refused() -> None:
    with pytest.raises(UserError, match="found 0 images"):
        make_toy(0, 5).people(np.arange(0)).metrics()


def test_images_without_anybody_have_no_numbers() -> None:
    nobody = make_toy(0, 5).people(np.arange(0))
    for pool in nobody.metrics(counts=np.ones((2, 3), dtype=np.int32)):
        assert tuple(pool) == METRICS
        assert all(np.isnan(column).tolist() == [True, True] for column in pool.values())


def test_all_other_metrics_equal_sklearn() -> None:
    for seed in range(5):
        toy = make_toy(seed, 40)
        views = toy.views(0.3, np.ones((1, int(toy.image.max()) + 1), dtype=int))
        for place, part in zip([0, *range(2, 7)], [toy, *map(toy.keypoint, range(5))], strict=True):
            score, present, weight = part.score.ravel(), part.present.ravel(), part.weight.ravel()
            called = score >= 0.3
            fpr, tpr, _ = roc_curve(present, score, sample_weight=weight, drop_intermediate=False)
            expected = {
                "balanced_accuracy": balanced_accuracy_score(present, called, sample_weight=weight),
                "MCC": matthews_corrcoef(present, called, sample_weight=weight),
                "hallucinated": ((called & ~present) * weight).sum() / len(toy.score),
                "missed": ((~called & present) * weight).sum() / len(toy.score),
                "AP_present": average_precision_score(present, score, sample_weight=weight),
                "AP_absent": average_precision_score(~present, -score, sample_weight=weight),
                "FPR95": fpr[tpr >= 0.95 - 1e-12][0],
            }
            assert {name: views[name][0, place] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_macro_is_the_mean_over_keypoints() -> None:
    views = make_toy(1, 40).views(0.3, np.ones((1, 20), dtype=int))
    for values in views.values():
        assert values[0, 1] == pytest.approx(values[0, 2:].mean())


def test_macro_leaves_out_what_the_whole_data_do_not_define() -> None:
    nan = np.nan
    values = with_macro(np.array([[0.5, 0.2, nan, 0.4], [0.5, nan, 0.9, 0.6], [0.5, nan, 0.9, nan]]))
    np.testing.assert_allclose(values[:, 1], [0.3, 0.6, nan])


def test_many_scores_are_rounded_in_resamples_alone() -> None:
    rng = np.random.default_rng(0)
    present = rng.random((600, 5)) < 0.7
    score = rng.normal(size=present.shape) + present
    labels = Labelled(present, np.ones(present.shape), np.arange(600) // 2)
    assert len(np.unique(score)) > NUM_LEVELS
    counts = draw_resampling(300, 20, "percentile", np.random.default_rng(0)).counts
    found = ranking(score, labels, counts)
    metrics = {"AUROC": roc_auc_score, "AP_present": average_precision_score}
    for name, metric in metrics.items():
        exact = [
            metric(present.ravel(), score.ravel(), sample_weight=np.repeat(row[labels.image], 5)) for row in counts
        ]
        assert found[name][0, 0] == pytest.approx(exact[0], abs=1e-12)
        assert np.abs(found[name][:, 0] - exact).max() < 2e-3


def test_thresholds_by_keypoint_are_each_the_best_of_its_own() -> None:
    toy = make_toy(3, 30)
    toy = toy._replace(present=toy.present & (np.arange(5) != 4))
    chosen = choose_thresholds(toy.score, toy.labels)
    for k in range(4):
        assert chosen[k] == choose_threshold(toy.keypoint(k).score, toy.keypoint(k).labels)
    assert chosen[4] == choose_threshold(toy.score, toy.labels)  # never present: that of all pooled


def test_a_threshold_for_each_keypoint_is_used_for_its_own() -> None:
    toy, thresholds = make_toy(4, 30), np.linspace(-0.5, 1.0, 5)
    counts = np.ones((1, int(toy.image.max()) + 1), dtype=int)
    together = metrics_at(toy.score, toy.labels, thresholds, counts)["F1"][0, 2:]
    alone = [metrics_at(toy.score, toy.labels, t, counts)["F1"][0, 2 + k] for k, t in enumerate(thresholds)]
    np.testing.assert_array_equal(together, alone)


def test_known_predictors_get_the_scores_they_must() -> None:
    """Perfect, blind, and one that knows nothing but how often each keypoint is there."""
    rng = np.random.default_rng(0)
    rates = np.array([0.2, 0.5, 0.9])
    present = rng.random((4000, 3)) < rates
    labels = Labelled(present, np.ones(present.shape), np.arange(4000))
    counts = np.ones((1, 4000), dtype=int)
    perfect, blind, prevalence = (
        ranking(score, labels, counts)
        for score in (present.astype(float), np.ones(present.shape), np.tile(rates, (4000, 1)))
    )
    assert [perfect[name][0, 0] for name in ("AUROC", "AP_present", "AP_absent", "FPR95")] == [1, 1, 1, 0]
    share = present.mean()
    assert [blind[name][0, 0] for name in ("AUROC", "AP_present", "AP_absent", "FPR95")] == pytest.approx(
        [0.5, share, 1 - share, 1.0]
    )
    assert prevalence["AUROC"][0, 0] > 0.7
    assert prevalence["AUROC"][0, 1:] == pytest.approx([0.5] * 4)
