"""Baselines for presence find what is there to be found, and do not fail where nothing is."""

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from bench.data.predictions import STATISTICS
from bench.errors import UserError
from bench.metrics.baselines import (
    BOX_FEATURES,
    HEATMAP_FEATURES,
    LEAF_SIZE,
    LEAST_MASS,
    box_features,
    fit_box_geometry,
    fit_logistic,
    heatmap_features,
    prevalence,
)

COCO_MINI = Path(__file__).parents[3] / "shared" / "coco-mini"
ANKLES = [15, 16]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class Toy(NamedTuple):
    features: Floats
    present: Bools
    weight: Floats


def make_logistic(num_persons: int, seed: int = 0) -> tuple[Toy, Floats, Floats]:
    """Presence drawn from a known logistic model of features of very different size; slopes and intercepts."""
    rng = np.random.default_rng(seed)
    slope, intercept = np.array([8.0, 0.01, -0.5]), np.array([1.0, -2.0, 0.0, 0.5])
    features = rng.normal([0, 100, 5], [0.1, 100, 2], (num_persons, 4, 3))
    present = rng.random((num_persons, 4)) < expit(features @ slope + intercept)
    return Toy(features, present, np.ones(present.shape)), slope, intercept


def make_boxes(num_persons: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Boxes within images of many sizes; a third ends at the lower border."""
    rng = np.random.default_rng(seed)
    image_size = rng.integers(200, 640, (num_persons, 2))
    size = rng.uniform(0.1, 0.6, (num_persons, 2)) * image_size
    start = rng.uniform(0, 0.95, (num_persons, 2)) * (image_size - size)
    at_bottom = rng.random(num_persons) < 1 / 3
    start[:, 1] = np.where(at_bottom, image_size[:, 1] - size[:, 1], start[:, 1])
    return np.hstack([start, size]), image_size


def make_cut(num_persons: int, seed: int = 0) -> Toy:
    """Ankles are absent from boxes that touch the bottom, all else is there in four of five persons."""
    boxes, image_size = make_boxes(num_persons, seed)
    present = np.random.default_rng(seed + 1).random((num_persons, 17)) < 0.8
    bottom = boxes[:, 1] + boxes[:, 3] > image_size[:, 1] - 1
    present[:, ANKLES] = ~bottom[:, None]
    return Toy(box_features(boxes, image_size), present, np.ones(present.shape))


def test_known_slopes_and_intercepts_are_recovered() -> None:
    toy, slope, intercept = make_logistic(20_000)
    found = fit_logistic(*toy)
    np.testing.assert_allclose(found.slope, slope, rtol=0.06)
    np.testing.assert_allclose(found.intercept, intercept, atol=0.12)


def test_probabilities_of_new_persons_are_nearly_as_good_as_the_true_ones() -> None:
    toy, slope, intercept = make_logistic(2000)
    new, *_ = make_logistic(2000, seed=1)
    found, true = fit_logistic(*toy)(new.features), expit(new.features @ slope + intercept)
    assert found.shape == new.present.shape
    loss, best = (log_loss(new.present.ravel(), values.ravel()) for values in (found, true))
    assert loss < best + 0.005


def test_the_unit_of_a_feature_does_not_matter() -> None:
    toy, *_ = make_logistic(500)
    scaled = toy.features * [1e3, 1e-3, -1.0] + [5.0, 0.0, 2.0]
    found = fit_logistic(scaled, toy.present, toy.weight)(scaled)
    np.testing.assert_allclose(found, fit_logistic(*toy)(toy.features), atol=1e-4)


def test_what_does_not_count_is_not_read() -> None:
    toy, *_ = make_logistic(300)
    weight = (np.random.default_rng(2).random(toy.weight.shape) < 0.7).astype(float)
    wanted = fit_logistic(toy.features, toy.present, weight)
    ignored = weight == 0
    features = np.where(ignored[..., None], np.nan, toy.features)
    found = fit_logistic(features, toy.present ^ ignored, weight)
    np.testing.assert_array_equal(found.slope, wanted.slope)
    np.testing.assert_array_equal(found.intercept, wanted.intercept)


@pytest.mark.parametrize("value", [True, False])
def test_logistic_of_one_class_is_constant(value: bool) -> None:
    toy, *_ = make_logistic(50)
    found = fit_logistic(toy.features, np.full(toy.present.shape, value), toy.weight)(toy.features)
    np.testing.assert_allclose(found, (200 * value + 1) / 202)


def test_a_constant_feature_says_nothing() -> None:
    """0.1 is not the mean of many 0.1 in floating point."""
    toy, *_ = make_logistic(500)
    more = np.concatenate([toy.features, np.full((500, 4, 1), 0.1)], axis=2)
    found = fit_logistic(more, toy.present, toy.weight)
    assert found.slope[3] == 0
    np.testing.assert_allclose(found.slope[:3], fit_logistic(*toy).slope, rtol=1e-3)


def test_separated_classes_and_a_keypoint_that_is_always_there_stay_finite() -> None:
    toy, *_ = make_logistic(100)
    present = toy.features[..., 0] > 0
    present[:, 2] = True
    found = fit_logistic(toy.features, present, toy.weight)(toy.features)
    assert ((found > 0) & (found < 1)).all()
    assert roc_auc_score(present[:, :2].ravel(), found[:, :2].ravel()) > 0.95
    assert found[:, 2].mean() > 0.9


def test_features_far_away_do_not_reach_0_or_1() -> None:
    toy, *_ = make_logistic(100)
    found = fit_logistic(*toy)(np.array([[[1e6, 0, 0]] * 4, [[-1e6, 0, 0]] * 4]))
    assert ((found > 0) & (found < 1)).all()


def test_heatmap_features_are_in_the_order_of_their_names() -> None:
    values = dict(zip(("score", *STATISTICS), np.arange(1.0, 6), strict=True))
    score = np.full((3, 17), values.pop("score"))
    features = heatmap_features(score, {name: np.full((3, 17), v) for name, v in reversed(values.items())})
    assert features.shape == (3, 17, len(HEATMAP_FEATURES))
    wanted = {"peak": 1.0, "blurred_peak": 2.0, "log_mass": np.log(3.0), "entropy": 4.0, "peak_gap": 5.0}
    assert tuple(wanted) == HEATMAP_FEATURES
    np.testing.assert_allclose(features[1, 2], list(wanted.values()))


def test_a_heatmap_without_mass_has_a_finite_feature() -> None:
    statistics = {name: np.zeros((1, 17)) for name in STATISTICS}
    assert (heatmap_features(np.zeros((1, 17)), statistics)[..., 2] == np.log(LEAST_MASS)).all()


def test_prevalence_by_hand() -> None:
    present = np.array([[1, 0, 1, 1], [1, 0, 0, 1], [1, 0, 1, 0]], dtype=bool)
    weight = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=float)
    np.testing.assert_allclose(prevalence(present, weight), [4 / 5, 1 / 5, 2 / 4, 1 / 2])


def test_prevalence_tends_to_the_share() -> None:
    present = np.random.default_rng(0).random((50_000, 3)) < [0.1, 0.5, 0.99]
    np.testing.assert_allclose(prevalence(present, np.ones(present.shape)), present.mean(axis=0), atol=1e-4)


def test_box_features_by_hand() -> None:
    (found,) = box_features(np.array([[20.0, -10.0, 40.0, 80.0]]), np.array([[200, 100]]))
    wanted = [np.log(0.5), np.log(3200), 0.1, -0.1, 0.3, 0.7, 0.2, 0.8]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert len(found) == len(BOX_FEATURES)


def test_ankles_are_missing_from_boxes_that_touch_the_bottom() -> None:
    train, val = make_cut(1500), make_cut(800, seed=10)
    found = fit_box_geometry(*train, seed=0)(val.features)
    assert found.shape == (800, 17)
    for ankle in ANKLES:
        assert roc_auc_score(val.present[:, ankle], found[:, ankle]) > 0.99
        assert found[~val.present[:, ankle], ankle].mean() < 0.05
    others = [roc_auc_score(val.present[:, k], found[:, k]) for k in range(15)]
    assert abs(np.mean(others) - 0.5) < 0.03  # nothing to be found


def test_the_same_persons_give_the_same_numbers() -> None:
    toy = make_cut(300)
    first, again, other = (fit_box_geometry(*toy, seed)(toy.features) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, other)  # so few persons are all looked at


def test_boxes_of_whom_nothing_counts_are_not_read() -> None:
    toy = make_cut(200)
    weight = toy.weight.copy()
    weight[::4] = 0
    weight[:, 3] = np.arange(200) % 8 == 1
    features, present = toy.features.copy(), toy.present ^ (weight == 0)
    features[::4] = np.nan
    found = fit_box_geometry(features, present, weight, 0)(toy.features)
    np.testing.assert_array_equal(found, fit_box_geometry(toy.features, toy.present, weight, 0)(toy.features))


def test_where_nothing_counts_a_regression_is_refused_and_boxes_say_one_half() -> None:
    present, weight = np.ones((6, 4), dtype=bool), np.zeros((6, 4))
    with pytest.raises(UserError, match="fit_logistic: found no keypoint of weight 1, wanted at least 1"):
        fit_logistic(np.ones((6, 4, 3)), present, weight)
    np.testing.assert_array_equal(fit_box_geometry(np.ones((6, 8)), present, weight, 0)(np.ones((2, 8))), 0.5)


def test_keypoints_of_one_class_get_their_prevalence() -> None:
    toy = make_cut(100)
    present, weight = toy.present.copy(), toy.weight.copy()
    present[:, 0], present[:, 1], weight[:, 2] = True, False, 0
    found = fit_box_geometry(toy.features, present, weight, 0)(toy.features)
    np.testing.assert_array_equal(found[:, :3], np.tile(prevalence(present, weight)[:3], (100, 1)))


@pytest.mark.parametrize("num_persons", [1, 2, 3, LEAF_SIZE, 2 * LEAF_SIZE - 1])
def test_few_persons_give_what_is_common_to_all(num_persons: int) -> None:
    """Too few for a leaf on either side of a split."""
    toy = make_cut(num_persons)
    found = fit_box_geometry(*toy, seed=0)(make_cut(30, seed=5).features)
    assert ((found > 0) & (found < 1)).all()
    np.testing.assert_allclose(found, np.tile(found[0], (30, 1)))


def test_boxes_of_the_same_form_are_fitted() -> None:
    toy = make_cut(100)
    found = fit_box_geometry(np.ones_like(toy.features), toy.present, toy.weight, 0)(toy.features)
    np.testing.assert_allclose(found, np.tile(toy.present.mean(axis=0), (100, 1)), atol=1e-6)


def test_fifteen_hundred_persons_take_seconds() -> None:
    toy = make_cut(1500)
    start = time.perf_counter()
    fit_box_geometry(*toy, seed=0)
    assert time.perf_counter() - start < 60


def coco_people(split: str) -> tuple[Floats, Bools]:
    content = json.loads((COCO_MINI / "annotations" / f"person_keypoints_{split}2017.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    people = [one for one in content["annotations"] if one["num_keypoints"] > 0 and not one["iscrowd"]]
    visibility = np.array([one["keypoints"] for one in people]).reshape(-1, 17, 3)[..., 2]
    bbox = np.array([one["bbox"] for one in people], dtype=float)
    return box_features(bbox, np.array([sizes[one["image_id"]] for one in people])), visibility > 0


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="no COCO people here")
def test_boxes_of_real_people_say_more_than_prevalence() -> None:
    """On all of COCO 0.789 beside 0.647 (micro AUROC, train to val), and per keypoint 0.759 beside 0.5."""
    (features, present), (val_features, val_present) = coco_people("train"), coco_people("val")
    weight = np.ones(present.shape)
    boxes = fit_box_geometry(features, present, weight, 0)(val_features)
    prior = np.tile(prevalence(present, weight), (len(val_present), 1))
    by_boxes, by_prior = (roc_auc_score(val_present.ravel(), values.ravel()) for values in (boxes, prior))
    assert by_prior == pytest.approx(0.647, abs=0.03)
    assert by_boxes > by_prior + 0.03
    assert np.mean([roc_auc_score(val_present[:, k], boxes[:, k]) for k in range(17)]) > 0.62


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"present": np.ones((5, 4), bool)}, r"found present \(5, 4\), weight \(6, 4\), wanted one shape \(N, K\)"),
        ({"weight": np.full((6, 4), 0.5)}, "found weight 0.5 at person 0, keypoint 0, wanted 0 or 1"),
    ],
)
def test_wrong_labels_are_refused(change: dict, message: str) -> None:
    labels = {"present": np.arange(24).reshape(6, 4) % 2 > 0, "weight": np.ones((6, 4))} | change
    with pytest.raises(UserError, match=f"fit_logistic: {message}"):
        fit_logistic(np.ones((6, 4, 3)), **labels)
    with pytest.raises(UserError, match=f"fit_box_geometry: {message}"):
        fit_box_geometry(np.ones((6, 8)), **labels, seed=0)
    if "no keypoint" not in message:
        with pytest.raises(UserError, match=f"prevalence: {message}"):
            prevalence(**labels)


def test_wrong_features_are_refused() -> None:
    present, weight = np.arange(24).reshape(6, 4) % 2 > 0, np.ones((6, 4))
    features = np.ones((6, 4, 3))
    with pytest.raises(UserError, match=r"found features \(6, 3, 3\), wanted \(6, 4, F\)"):
        fit_logistic(features[:, :3], present, weight)
    with pytest.raises(UserError, match=r"found features \(5, 3\), wanted \(6, F\)"):
        fit_box_geometry(features[:5, 0], present, weight, 0)
    features[4, :, 1] = np.inf
    with pytest.raises(UserError, match="found inf as feature 1 of person 4, wanted a finite number"):
        fit_logistic(features, present, weight)
    with pytest.raises(UserError, match="found inf as feature 1 of person 4, wanted a finite number"):
        fit_box_geometry(features[:, 0], present, weight, 0)


@pytest.mark.parametrize(
    ("bbox", "image_size", "message"),
    [
        ([[0, 0, 1, 1], [1, 2, 0, 4]], [[9, 9]] * 2, r"found bbox \[1.0, 2.0, 0.0, 4.0\] .* at person 1, wanted .* 0"),
        ([[0, 0, 1, 1]], [[0, 9]], r"image of \[0, 9\] at person 0"),
        ([[np.nan, 0, 1, 1]], [[9, 9]], "at person 0, wanted finite numbers"),
        ([[0, 0, 1]], [[9, 9]], r"bbox \(1, 3\), image_size \(1, 2\), wanted \(N, 4\), \(N, 2\)"),
        ([[0, 0, 1, 1]] * 2, [[9, 9]], r"bbox \(2, 4\), image_size \(1, 2\)"),
    ],
)
def test_wrong_boxes_are_refused(bbox: list, image_size: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        box_features(np.array(bbox, dtype=float), np.array(image_size))
