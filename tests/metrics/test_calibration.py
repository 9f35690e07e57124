import math
import time
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from bench.errors import UserError
from bench.metrics.bootstrap import Interval, Resampling, draw_resampling
from bench.metrics.calibration import (
    METRICS,
    MIN_PROBABILITY,
    Binning,
    Calibration,
    Reliability,
    Values,
    calibration_metrics,
    localisation_calibration,
    reliability,
)

Floats = NDArray[np.float64]


class Toy(NamedTuple):
    probability: Floats
    target: NDArray[np.bool_] | Floats
    weight: Floats
    image: NDArray[np.int64]

    def people(self, index: NDArray[np.integer]) -> "Toy":
        return Toy(*(array[index] for array in self))

    def keypoint(self, k: int) -> "Toy":
        return Toy(self.probability[:, [k]], self.target[:, [k]], self.weight[:, [k]], self.image)

    def resampling(self, num_resamples: int = 20, seed: int = 0) -> Resampling:
        num_images = int(self.image.max(initial=-1)) + 1
        return draw_resampling(num_images, num_resamples, "percentile", np.random.default_rng(seed))

    def metrics(self, counts: NDArray[np.integer] | None = None) -> Calibration:
        metrics = calibration_metrics if self.target.dtype == bool else localisation_calibration
        return metrics(*self, self.resampling().counts if counts is None else counts)

    def values(self) -> dict[str, float]:
        """Of all keypoints pooled, in the whole data."""
        return {name: values[0] for name, values in self.metrics().pooled.items()}

    def diagram(self, binning: Binning = "width", num_resamples: int = 20) -> Reliability:
        return reliability(*self, self.resampling(num_resamples), binning)

    def counted(self) -> tuple[Floats, Floats]:
        return self.probability[self.weight > 0], self.target[self.weight > 0].astype(float)


def make_toy(seed: int, num_persons: int, num_keypoints: int = 5, temperature: float = 1.0) -> Toy:
    """Calibrated at temperature 1, over-confident below; a tenth is ignored; about two persons an image."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(1, 2, (num_persons, num_keypoints))
    present = rng.random(logit.shape) < expit(logit)
    weight = (rng.random(logit.shape) > 0.1).astype(float)
    return Toy(expit(logit / temperature), present, weight, rng.integers(max(num_persons // 2, 1), size=num_persons))


def make_similar(seed: int, num_persons: int) -> Toy:
    """Targets between 0 and 1 whose expectation is the confidence; unknown where the weight is 0."""
    toy = make_toy(seed, num_persons)
    p = np.clip(toy.probability, 0.01, 0.99)
    similarity = np.random.default_rng(seed).beta(4 * p, 4 * (1 - p))
    return toy._replace(probability=p, target=np.where(toy.weight > 0, similarity, -1.0))


TOYS = {"presence": make_toy, "localisation": make_similar}


def column(*values: float) -> Floats:
    return np.array(values)[:, None]


def hand_worked() -> Toy:
    """Bins of equal width are 1/15 wide: .1 and .12 share the second, .9 is in the fourteenth."""
    present = np.array([[True], [False], [True], [True], [False]])
    image = np.array([0, 0, 1, 1, 1])
    return Toy(column(0.1, 0.12, 0.9, 0.9, 0.5), present, column(1, 1, 1, 1, 0), image)


def test_hand_worked_numbers() -> None:
    # Second bin: mean .11, observed 1/2, gap .39; fourteenth: mean .9, observed 1, gap .1. Base rate 3/4.
    expected = {
        "ECE": (2 * 0.39 + 2 * 0.1) / 4,
        "Brier": (0.9**2 + 0.12**2 + 0.1**2 + 0.1**2) / 4,
        "reliability": (2 * 0.39**2 + 2 * 0.1**2) / 4,
        "resolution": (2 * 0.25**2 + 2 * 0.25**2) / 4,
        "uncertainty": 3 / 4 * 1 / 4,
        # The variance is 2 x .01 squared; the covariance is .01 x -.5 twice, as the lower one is the one present.
        "within_bin": (2 * 0.01**2 + 2 * (2 * 0.01 * 0.5)) / 4,
        # Each bin is in one image only, so that the whole squared gap may be chance: nothing is left.
        "reliability_debiased": 0.0,
        "NLL": -(math.log(0.1) + math.log(0.88) + 2 * math.log(0.9)) / 4,
    }
    found = hand_worked().values()
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["Brier"] == pytest.approx(
        expected["reliability"] - expected["resolution"] + expected["uncertainty"] + expected["within_bin"]
    )


def test_hand_worked_equal_mass() -> None:
    """Thirty keypoints in two groups of probability, each group in bins of its own: two and two, evenly filled."""
    probability = np.linspace(0.01, 0.3, 30)
    toy = Toy(probability[:, None], np.arange(30)[:, None] % 3 == 0, np.ones((30, 1)), np.arange(30))
    pairs = probability.reshape(15, 2).mean(axis=1), (np.arange(30) % 3 == 0).reshape(15, 2).mean(axis=1)
    assert toy.values()["ECE_mass"] == pytest.approx(np.abs(pairs[0] - pairs[1]).mean())
    assert toy.diagram("mass").number.tolist() == [2] * 15
    assert toy.diagram("width").number[5:].tolist() == [0] * 10


def test_hand_worked_debiasing() -> None:
    """One bin, three images: gaps .9 - 1 = -.1, twice .9 (one image), and -.1."""
    present = np.array([[True], [False], [False], [True]])
    toy = Toy(column(0.9, 0.9, 0.9, 0.9), present, np.ones((4, 1)), np.array([0, 1, 1, 2]))
    counts = np.array([[1, 1, 1], [2, 0, 1]])
    found = toy.metrics(counts).pooled["reliability_debiased"]
    whole = ((-0.1 + 1.8 - 0.1) ** 2 - (0.1**2 + 1.8**2 + 0.1**2)) / 4 / 4
    resampled = ((2 * -0.1 - 0.1) ** 2 - (2**2 * 0.1**2 + 0.1**2)) / 3 / 3
    assert found == pytest.approx([whole, resampled])


def test_probability_on_an_edge_is_in_the_bin_below() -> None:
    diagram = Toy(column(0, 1 / 15, 1), np.ones((3, 1), bool), np.ones((3, 1)), np.arange(3)).diagram()
    assert diagram.number.tolist() == [2, *[0] * 13, 1]


def binned_ece(p: Floats, y: Floats, edges: Floats) -> float:
    """The textbook's, in a loop."""
    inside = [(p > low) & (p <= high) for low, high in pairwise(edges)]
    inside[0] |= p == edges[0]
    return sum(abs(p[use].mean() - y[use].mean()) * use.mean() for use in inside if use.any())


@pytest.mark.parametrize("make", TOYS.values(), ids=TOYS)
def test_ece_equals_its_definition(make) -> None:
    for seed in range(4):
        toy = make(seed, 40)
        values, (p, y) = toy.values(), toy.counted()
        assert values["ECE"] == pytest.approx(binned_ece(p, y, np.linspace(0, 1, 16)), abs=1e-12)
        assert values["ECE_mass"] == pytest.approx(binned_ece(p, y, np.quantile(p, np.linspace(0, 1, 16))), abs=1e-12)


def test_ece_equals_torchmetrics() -> None:
    torch, classification = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.classification")
    toy = make_toy(0, 50, temperature=0.5)
    metric = classification.BinaryCalibrationError(n_bins=15, norm="l1")
    found = float(metric(*(torch.from_numpy(array) for array in toy.counted())))
    assert toy.values()["ECE"] == pytest.approx(found, abs=1e-5)  # in single precision


def test_brier_and_nll_equal_sklearn() -> None:
    for seed in range(4):
        toy = make_toy(seed, 40, temperature=0.3)
        values, (p, y) = toy.values(), toy.counted()
        assert values["Brier"] == pytest.approx(brier_score_loss(y, p), abs=1e-12)
        assert values["NLL"] == pytest.approx(log_loss(y, p), abs=1e-8)  # hardly any is clipped


@pytest.mark.parametrize(("binning", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_diagram_equals_sklearn(binning: Binning, strategy: str) -> None:
    toy = make_toy(1, 80)
    p, y = toy.counted()
    observed, mean_p = calibration_curve(y, p, n_bins=15, strategy=strategy)
    diagram = toy.diagram(binning)
    filled = diagram.number > 0
    np.testing.assert_allclose(diagram.observed[filled], observed, rtol=0, atol=1e-12)
    np.testing.assert_allclose(diagram.mean_probability[filled], mean_p, rtol=0, atol=1e-12)
    assert diagram.number.sum() == len(p)


@pytest.mark.parametrize("make", TOYS.values(), ids=TOYS)
def test_brier_score_is_the_sum_of_its_parts(make) -> None:
    """In every data set, of every keypoint, and as the mean over keypoints."""
    pooled, class_wise, keypoints = make(2, 60).metrics()
    for values in (pooled, class_wise, *keypoints):
        parts = values["reliability"] - values["resolution"] + values["uncertainty"] + values["within_bin"]
        np.testing.assert_allclose(parts, values["Brier"], rtol=0, atol=1e-14)
    assert (np.abs(pooled["within_bin"]) > 1e-6).all()  # Murphy's three alone are not enough


@pytest.mark.parametrize("make", TOYS.values(), ids=TOYS)
def test_resampled_values_are_those_of_repeated_people(make) -> None:
    """But for two: equal-mass edges stay those of the whole data, and debiasing knows that an image is a repeat."""
    toy = make(3, 60)
    counts = toy.resampling(num_resamples=15, seed=9).counts
    found = toy.metrics(counts)
    names = set(METRICS) - {"ECE_mass", "reliability_debiased"}
    for s, times in enumerate(counts):
        repeated = toy.people(np.repeat(np.arange(60), times[toy.image]))
        wanted = repeated.metrics(np.ones((1, counts.shape[1])))
        for part, whole in zip([*found[:2], *found.keypoints], [*wanted[:2], *wanted.keypoints], strict=True):
            for name in names:
                np.testing.assert_allclose(part[name][s], whole[name][0], rtol=0, atol=1e-12, err_msg=name)
        p, y = repeated.counted()
        edges = np.quantile(toy.counted()[0], np.linspace(0, 1, 16))
        assert found.pooled["ECE_mass"][s] == pytest.approx(binned_ece(p, y, edges), abs=1e-12)
    assert all(len(np.unique(found.pooled[name])) > 12 for name in METRICS)


def test_images_without_people_change_nothing() -> None:
    toy = make_toy(3, 30)
    counts = toy.resampling().counts
    more = np.concatenate([counts, np.full((len(counts), 3), 2)], axis=1)
    for name, values in toy.metrics(counts).pooled.items():
        np.testing.assert_allclose(toy.metrics(more).pooled[name], values, rtol=0, atol=1e-14)


def test_order_of_people_changes_nothing() -> None:
    toy = make_toy(4, 30)
    shuffled = toy.people(np.random.default_rng(0).permutation(30))
    for name, values in toy.metrics().pooled.items():
        np.testing.assert_allclose(shuffled.metrics(toy.resampling().counts).pooled[name], values, rtol=0, atol=1e-12)


def test_names_and_shapes() -> None:
    toy = make_toy(0, 20)
    pooled, class_wise, keypoints = toy.metrics()
    assert len(keypoints) == 5
    for values in (pooled, class_wise, *keypoints):
        assert tuple(values) == METRICS
        assert all(column.shape == (21,) for column in values.values())


def test_each_keypoint_is_on_its_own() -> None:
    toy = make_toy(0, 40)
    _, class_wise, keypoints = toy.metrics()
    for k, values in enumerate(keypoints):
        alone = toy.keypoint(k).metrics(toy.resampling().counts).pooled
        for name in METRICS:
            np.testing.assert_allclose(values[name], alone[name], rtol=0, atol=1e-14)
    for name in METRICS:
        np.testing.assert_allclose(class_wise[name], np.mean([values[name] for values in keypoints], axis=0))


def test_opposite_errors_of_keypoints_show_class_wise_only() -> None:
    present = np.tile([[True, False], [True, False], [True, False], [False, True]], (50, 1))
    toy = Toy(np.full((200, 2), 0.5), present, np.ones((200, 2)), np.arange(200))
    pooled, class_wise, _ = toy.metrics()
    assert pooled["ECE"][0] == pytest.approx(0)
    assert class_wise["ECE"][0] == pytest.approx(0.25)


def test_keypoint_that_never_counts_is_left_out_of_the_mean() -> None:
    toy = make_toy(0, 30)
    toy.weight[:, 2] = 0
    _, class_wise, keypoints = toy.metrics()
    assert np.isnan(keypoints[2]["ECE"]).all()
    others = [keypoints[k]["ECE"] for k in (0, 1, 3, 4)]
    np.testing.assert_allclose(class_wise["ECE"], np.mean(others, axis=0))


def test_undefined_without_keypoints_that_count() -> None:
    toy = make_toy(0, 10)
    nothing = toy._replace(weight=np.zeros_like(toy.weight))
    none = toy.metrics(counts=np.zeros((1, 5), dtype=np.int32))
    for calibration in (nothing.metrics(), none):
        for values in (calibration.pooled, calibration.class_wise):
            assert all(np.isnan(values[name]).all() for name in METRICS)


def test_truth_is_perfect() -> None:
    toy = make_toy(0, 40)
    values = toy._replace(probability=toy.target.astype(float)).values()
    assert values["ECE"] == values["ECE_mass"] == values["Brier"] == values["reliability"] == 0
    assert values["resolution"] == pytest.approx(values["uncertainty"])
    assert values["NLL"] == pytest.approx(MIN_PROBABILITY, rel=1e-3)
    wrong = toy._replace(probability=1 - toy.target.astype(float)).values()
    assert wrong["ECE"] == wrong["Brier"] == 1
    assert wrong["NLL"] == pytest.approx(-math.log(MIN_PROBABILITY))  # and finite


@pytest.mark.parametrize("make", TOYS.values(), ids=TOYS)
def test_constant_at_the_base_rate_is_calibrated_without_resolution(make) -> None:
    toy = make(0, 40)
    constant = toy._replace(probability=np.full(toy.probability.shape, toy.counted()[1].mean()))
    values = constant.values()
    for name in ("ECE", "ECE_mass", "reliability", "resolution", "within_bin"):
        assert values[name] == pytest.approx(0, abs=1e-12), name
    assert values["Brier"] == pytest.approx(values["uncertainty"])
    assert values["uncertainty"] == pytest.approx(toy.counted()[1].var())


@pytest.mark.parametrize("make", TOYS.values(), ids=TOYS)
def test_calibrated_forecast_has_little_ece(make) -> None:
    values = make(0, 8000).values()
    assert values["ECE"] < 0.01
    assert values["ECE_mass"] < 0.01
    assert values["reliability"] < 1e-4


def test_overconfident_forecast_has_more() -> None:
    calibrated, overconfident = make_toy(0, 4000).values(), make_toy(0, 4000, temperature=0.5).values()
    for name in set(METRICS) - {"resolution", "uncertainty", "within_bin"}:
        assert overconfident[name] > calibrated[name], name
    assert overconfident["ECE"] > 0.05
    assert overconfident["uncertainty"] == calibrated["uncertainty"]


def interval_of(toy: Toy, name: str) -> Interval:
    resampling = toy.resampling(num_resamples=200)
    return resampling.intervals(toy.metrics(resampling.counts).pooled[name][:, None])[0]


def test_interval_of_debiased_reliability_holds_the_truth_as_that_of_ece_does_not() -> None:
    """For a calibrated forecast, whose ECE is truly 0. Images are alike within: all of their people are the same."""
    holds = {"reliability_debiased": 0, "ECE": 0}
    for seed in range(20):
        toy = make_toy(seed, 100)
        toy = toy.people(np.repeat(np.arange(100), 3))._replace(image=np.repeat(np.arange(100), 3))
        for name in holds:
            interval = interval_of(toy, name)
            holds[name] += interval.low <= 0 <= interval.high
    assert holds["reliability_debiased"] >= 18
    assert holds["ECE"] == 0


def test_debiased_reliability_of_many_is_the_reliability() -> None:
    values = make_toy(0, 8000, temperature=0.5).values()
    assert values["reliability_debiased"] == pytest.approx(values["reliability"], rel=0.02)


def test_bands_hold_the_calibrated_diagonal() -> None:
    diagram = make_toy(0, 3000).diagram(num_resamples=300)
    assert (diagram.low <= diagram.observed).all()
    assert (diagram.observed <= diagram.high).all()
    inside = (diagram.low <= diagram.mean_probability) & (diagram.mean_probability <= diagram.high)
    assert inside.sum() >= 12
    more = make_toy(0, 12000).diagram(num_resamples=300)
    assert (more.high - more.low < diagram.high - diagram.low).all()


def test_bands_are_quantiles_of_repeated_people() -> None:
    toy = make_toy(5, 60)
    resampling = toy.resampling(num_resamples=40)
    top = []
    for times in resampling.counts[1:]:
        p, y = toy.people(np.repeat(np.arange(60), times[toy.image])).counted()
        top.append(y[p > 14 / 15].mean())
    diagram = reliability(*toy, resampling)
    assert (diagram.low[-1], diagram.high[-1]) == pytest.approx(tuple(np.quantile(top, [0.025, 0.975])))


def test_empty_bin_has_no_band() -> None:
    diagram = hand_worked().diagram()
    assert diagram.number.tolist() == [0, 2, *[0] * 11, 2, 0]
    for values in (diagram.mean_probability, diagram.observed, diagram.low, diagram.high):
        assert np.isnan(values[diagram.number == 0]).all()
    np.testing.assert_allclose(diagram.observed[[1, 13]], [0.5, 1.0])


def test_band_leaves_out_the_sets_made_for_bca() -> None:
    toy = make_toy(6, 60)
    resampling = draw_resampling(30, 50, "bca", np.random.default_rng(1))
    assert len(resampling.counts) == 1 + 50 + 30
    diagram = reliability(*toy, resampling)
    assert (diagram.low[-1] < diagram.observed[-1] < diagram.high[-1]) and len(diagram.low) == 15


def test_bins_of_equal_mass_with_ties() -> None:
    """As isotonic regression makes them: equal probabilities stay together, and nothing is lost."""
    toy = make_toy(0, 100)
    toy = toy._replace(probability=np.round(toy.probability * 4) / 4)
    diagram = toy.diagram("mass")
    assert diagram.number.sum() == len(toy.counted()[0])
    sizes = np.unique(toy.counted()[0], return_counts=True)[1]
    assert set(np.cumsum(diagram.number)) <= {0, *np.cumsum(sizes)}


def test_presence_as_similarity_is_the_same() -> None:
    toy = make_toy(0, 40)
    as_similarity = toy._replace(target=toy.target.astype(float)).metrics()
    for name, values in toy.metrics().pooled.items():
        np.testing.assert_array_equal(as_similarity.pooled[name], values)


def test_what_does_not_count_can_be_anything() -> None:
    toy = make_similar(0, 40)
    odd = toy._replace(probability=np.where(toy.weight > 0, toy.probability, np.nan))
    assert odd.values() == toy.values()


def test_inputs_stay_as_they_are() -> None:
    toy = make_toy(0, 20)
    before = Toy(*(array.copy() for array in toy))
    toy.metrics()
    toy.diagram()
    for old, new in zip(before, toy, strict=True):
        np.testing.assert_array_equal(old, new)


def test_user_errors() -> None:
    toy = make_toy(0, 4)
    toy.weight[:] = 1

    def changed(array: Floats, value: float) -> Floats:
        copy = array.astype(float)
        copy[1, 2] = value
        return copy

    for value in (-0.01, 1.02, math.nan):
        with pytest.raises(UserError, match=rf"found probability {value} at person 1, keypoint 2, wanted at least 0"):
            toy._replace(probability=changed(toy.probability, value)).metrics()
    with pytest.raises(UserError, match=r"found weight 0.5 at person 1, keypoint 2, wanted 0 or 1"):
        toy._replace(weight=changed(toy.weight, 0.5)).metrics()
    with pytest.raises(UserError, match=r"found similarity -1.0 at person 1, keypoint 2, wanted at least 0"):
        toy._replace(target=changed(toy.target, -1.0)).metrics()
    with pytest.raises(UserError, match=r"found confidence 1.1 at person 1"):
        toy._replace(probability=changed(toy.probability, 1.1), target=toy.target.astype(float)).metrics()
    with pytest.raises(UserError, match=r"present \(4, 4\), weight \(4, 5\), wanted one shape \(N, K\)"):
        toy._replace(target=toy.target[:, :4]).metrics()
    with pytest.raises(UserError, match=r"found image of shape \(3,\), wanted \(4,\)"):
        toy._replace(image=toy.image[:3]).metrics()


def test_a_diagram_of_nothing_is_empty() -> None:
    toy = make_toy(0, 4)
    found = toy._replace(weight=np.zeros(toy.weight.shape)).diagram()
    assert found.number.sum() == 0
    assert np.isnan(found.observed).all()


def test_a_thousand_resamples_of_coco_val_are_soon_done() -> None:
    """.6 s on one core; the bound is loose, as tests share machines."""
    toy = make_toy(0, 6000, num_keypoints=17)._replace(image=np.random.default_rng(0).integers(2700, size=6000))
    resampling = toy.resampling(num_resamples=1000)
    start = time.perf_counter()
    values: Values = toy.metrics(resampling.counts).pooled
    reliability(*toy, resampling)
    assert time.perf_counter() - start < 6
    assert len(values["ECE"]) == 1001
