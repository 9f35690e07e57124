import math
import pickle
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from bench.errors import UserError
from bench.metrics.calibration import calibration_metrics
from bench.metrics.calibrators import CALIBRATORS, NEED_LOGITS, TEMPERATURES, Calibrator, Isotonic, Platt, Temperature

Floats = NDArray[np.float64]
FITTED = [name for name in CALIBRATORS if name != "none"]


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class Toy(NamedTuple):
    score: Floats
    present: NDArray[np.bool_]
    weight: Floats

    def fit(self, name: str) -> Calibrator:
        return CALIBRATORS[name](*self)

    def counted(self) -> tuple[Floats, NDArray[np.bool_]]:
        return self.score[self.weight > 0], self.present[self.weight > 0]

    def nll(self, calibrator: Calibrator) -> float:
        return float(log_loss(self.present[self.weight > 0], calibrator(self.score)[self.weight > 0]))


def make_toy(seed: int, num_persons: int = 400, temperature: float | Floats = 1.0, num_keypoints: int = 4) -> Toy:
    """Logits that are `temperature` times those that presence is drawn from; a tenth is ignored."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0.7, 1.5, (num_persons, num_keypoints))
    weight = (rng.random(true.shape) > 0.1).astype(float)
    return Toy(true * temperature, rng.random(true.shape) < expit(true), weight)


def temperature_of(calibrator: Calibrator) -> Floats:
    assert isinstance(calibrator, Temperature)
    return calibrator.temperature


def test_none_is_the_sigmoid() -> None:
    toy = make_toy(0)
    toy.score[0, :2] = [np.inf, -np.inf]
    np.testing.assert_array_equal(toy.fit("none")(toy.score), expit(toy.score))


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5, 6.0])
def test_known_temperature_is_recovered(true: float) -> None:
    """Over-confident logits, those too large, need one above 1."""
    toy = make_toy(0, 6000, true)
    found = temperature_of(toy.fit("temperature"))
    assert found.shape == (4,)
    assert len(np.unique(found)) == 1
    assert found[0] == pytest.approx(true, rel=0.04)


def test_known_temperatures_of_keypoints_are_recovered() -> None:
    true = np.array([0.5, 1, 2, 4])
    found = temperature_of(make_toy(1, 20000, true).fit("temperature_per_keypoint"))
    np.testing.assert_allclose(found, true, rtol=0.06)


def test_temperature_is_the_best_of_all() -> None:
    """Against a fine grid of them, and hand-worked: of logits ±1, three of four right, p = 3/4 = sigmoid(1 / T)."""
    for seed in range(4):
        toy = make_toy(seed, 30, 2.0)
        losses = [toy.nll(Temperature(np.full(4, t), np.inf)) for t in np.geomspace(*TEMPERATURES, 100)]
        assert toy.nll(toy.fit("temperature")) <= min(losses) + 1e-9
    toy = Toy(np.array([[1.0, 1, -1, 1]]), np.array([[True, True, False, False]]), np.ones((1, 4)))
    assert temperature_of(toy.fit("temperature")) == pytest.approx(np.full(4, 1 / math.log(3)), rel=1e-5)


def test_platt_recovers_a_line() -> None:
    """Scores that are no logits at all: a peak between 0 and 1, or one counted in thousands."""
    toy = make_toy(2, 20000)
    for unit, offset in ((0.1, 0.4), (1000.0, -3.0)):
        platt = toy._replace(score=toy.score * unit + offset).fit("platt")
        assert isinstance(platt, Platt)
        assert platt.slope * unit == pytest.approx(1, abs=0.04)
        assert platt.intercept + platt.slope * offset == pytest.approx(0, abs=0.04)


def test_platt_does_not_depend_on_the_unit() -> None:
    toy = make_toy(3, 100)
    other = toy._replace(score=toy.score * 1e4 + 1e6)
    np.testing.assert_allclose(other.fit("platt")(other.score), toy.fit("platt")(toy.score), rtol=0, atol=1e-6)


def test_platt_equals_sklearn_given_its_targets() -> None:
    """Logistic regression with each keypoint taken as present and as absent, weighted by target and 1 - target."""
    for seed in range(3):
        toy = make_toy(seed, 60, 2.0)
        x, y = toy.counted()
        target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
        both, label = np.tile(x, 2)[:, None], np.repeat([1, 0], len(x))
        regression = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        regression.fit(both, label, sample_weight=np.concatenate([target, 1 - target]))
        platt = toy.fit("platt")
        assert isinstance(platt, Platt)
        assert (platt.slope, platt.intercept) == pytest.approx(
            (regression.coef_.item(), regression.intercept_.item()), rel=1e-4, abs=1e-5
        )
        np.testing.assert_allclose(platt(x), regression.predict_proba(x[:, None])[:, 1], rtol=0, atol=1e-5)


def test_platt_is_near_plain_logistic_regression_for_many() -> None:
    toy = make_toy(4, 5000, 2.0)
    x, y = toy.counted()
    regression = LogisticRegression(C=np.inf).fit(x[:, None], y)
    np.testing.assert_allclose(toy.fit("platt")(x), regression.predict_proba(x[:, None])[:, 1], rtol=0, atol=1e-3)


def test_isotonic_equals_sklearn() -> None:
    toy = make_toy(5, 100)
    regression = IsotonicRegression(out_of_bounds="clip").fit(*toy.counted())
    new = np.random.default_rng(0).normal(0, 5, (50, 4))
    np.testing.assert_allclose(toy.fit("isotonic")(new), regression.predict(new.ravel()).reshape(50, 4), atol=1e-12)


def test_isotonic_is_hand_worked_and_monotone() -> None:
    # The pair .2 present, .3 absent is in the wrong order: both get 1/2.
    toy = Toy(np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[False, True, False, True]]), np.ones((1, 4)))
    assert toy.fit("isotonic")(toy.score).tolist() == [[0, 0.5, 0.5, 1]]
    assert toy.fit("isotonic")(np.array([[-9, 0.15, 0.25, 9]])) == pytest.approx(np.array([[0, 0.25, 0.5, 1]]))
    found = make_toy(6).fit("isotonic")(np.linspace(-20, 20, 1000)[:, None])
    assert (np.diff(found[:, 0]) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("name", ["none", "temperature", "platt"])
def test_auroc_stays(name: str) -> None:
    for seed in range(3):
        toy = make_toy(seed, 200, 3.0)
        probability = toy.fit(name)(toy.score)
        assert roc_auc_score(toy.present.ravel(), probability.ravel()) == pytest.approx(
            roc_auc_score(toy.present.ravel(), toy.score.ravel()), abs=1e-12
        )


def test_auroc_of_each_keypoint_stays_with_a_temperature_each() -> None:
    toy = make_toy(0, 200, np.array([0.5, 1, 2, 4]))
    probability = toy.fit("temperature_per_keypoint")(toy.score)
    for k in range(4):
        pair = [roc_auc_score(toy.present[:, k], values[:, k]) for values in (probability, toy.score)]
        assert pair[0] == pytest.approx(pair[1], abs=1e-12)


@pytest.mark.parametrize("name", FITTED)
def test_calibration_helps_people_not_fitted_on(name: str) -> None:
    """Over-confident by 3: ECE and NLL fall, and ECE nearly to 0."""
    toy, new = make_toy(0, 3000, 3.0), make_toy(1, 3000, 3.0)
    calibrator = toy.fit(name)

    def ece(probability: Floats) -> float:
        whole = np.ones((1, 3000))
        return calibration_metrics(probability, new.present, new.weight, np.arange(3000), whole).pooled["ECE"][0]

    assert ece(expit(new.score)) > 0.1
    assert ece(calibrator(new.score)) < 0.02
    assert new.nll(calibrator) < new.nll(new.fit("none"))


@pytest.mark.parametrize("name", CALIBRATORS)
class TestEvery:
    def test_gives_probabilities_of_the_same_shape(self, name: str) -> None:
        toy = make_toy(0)
        for score in (toy.score, toy.score[:7], toy.score[:0], toy.score.astype(np.float32)):
            probability = toy.fit(name)(score)
            assert probability.shape == score.shape
            assert probability.dtype == np.float64
            assert ((probability >= 0) & (probability <= 1)).all()

    def test_ignores_what_has_no_weight(self, name: str) -> None:
        toy = make_toy(0)
        odd = Toy(np.where(toy.weight > 0, toy.score, np.nan), np.where(toy.weight > 0, toy.present, True), toy.weight)
        np.testing.assert_array_equal(odd.fit(name)(toy.score), toy.fit(name)(toy.score))
        assert np.isnan(toy.fit(name)(odd.score)[toy.weight == 0]).all()

    def test_is_the_same_in_any_order_of_people(self, name: str) -> None:
        toy = make_toy(0)
        shuffled = Toy(*(array[::-1] for array in toy))
        np.testing.assert_allclose(shuffled.fit(name)(toy.score), toy.fit(name)(toy.score), rtol=0, atol=1e-6)

    def test_keeps_its_inputs_and_travels(self, name: str) -> None:
        toy = make_toy(0)
        before = Toy(*(array.copy() for array in toy))
        calibrator = toy.fit(name)
        probability = calibrator(toy.score)
        for old, new in zip(before, toy, strict=True):
            np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(calibrator))(toy.score), probability)

    def test_takes_infinite_scores(self, name: str) -> None:
        """They count as the largest finite one in size, and so are at least as sure as any that was fitted on."""
        toy = make_toy(0)
        toy.score[:3] = np.inf
        toy.score[3:5] = -np.inf
        probability = toy.fit(name)(toy.score)
        assert np.isfinite(probability).all()
        for k in range(4):
            assert probability[0, k] == probability[:, k].max()
            assert probability[3, k] == probability[:, k].min()

    def test_takes_nothing_but_infinite_scores(self, name: str) -> None:
        present = np.array([[True] * 3 + [False], [False] * 3 + [True]])
        toy = Toy(np.array([[np.inf] * 4, [-np.inf] * 4]), present, np.ones((2, 4)))
        wanted = (
            expit(toy.score) if name == "none" else np.where(toy.score > 0, 0.75, 0.25)  # three of four are right
        )
        tolerance = 0.5 if name in ("temperature_per_keypoint", "platt") else 1e-5  # of two, and with Platt's targets
        np.testing.assert_allclose(toy.fit(name)(toy.score), wanted, atol=tolerance)

    def test_takes_one_class_only(self, name: str) -> None:
        toy = make_toy(0)
        for value in (True, False):
            one = toy._replace(present=np.full(toy.present.shape, value))
            probability = one.fit(name)(toy.score)
            n = int(toy.weight.sum())
            if name in NEED_LOGITS:
                np.testing.assert_allclose(probability, expit(toy.score))  # as it was
            elif name == "platt":
                np.testing.assert_allclose(probability, (n + 1) / (n + 2) if value else 1 / (n + 2), atol=1e-6)
            else:
                assert (probability == value).all()

    def test_takes_separable_data(self, name: str) -> None:
        toy = make_toy(0)
        separable = toy._replace(present=toy.score > 0.3)
        probability = separable.fit(name)(toy.score)
        assert np.isfinite(probability).all()
        if name != "none":
            assert separable.nll(separable.fit(name)) < toy.nll(toy.fit("none")) / 2

    def test_takes_constant_scores(self, name: str) -> None:
        toy = make_toy(0)
        constant = toy._replace(score=np.full(toy.score.shape, 0.1 if name == "platt" else 1.0))  # .1: a rounded mean
        probability = constant.fit(name)(constant.score)
        if name in ("temperature", "platt", "isotonic"):
            rate = toy.counted()[1].mean()
            np.testing.assert_allclose(probability, rate, atol=1e-3)
            np.testing.assert_allclose(constant.fit(name)(constant.score + 1e-6), rate, atol=1e-3)

    def test_takes_one_keypoint(self, name: str) -> None:
        toy = Toy(np.array([[0.4]]), np.array([[True]]), np.ones((1, 1)))
        assert 0 <= toy.fit(name)(toy.score).item() <= 1

    def test_user_errors(self, name: str) -> None:
        toy = make_toy(0, 5)
        if name != "none":  # which fits nothing
            with pytest.raises(UserError, match="found no keypoint of weight 1, wanted at least 1"):
                toy._replace(weight=np.zeros((5, 4))).fit(name)
            with pytest.raises(UserError, match="found no keypoint of weight 1, wanted at least 1"):
                Toy(*(array[:0] for array in toy)).fit(name)
        with pytest.raises(UserError, match=r"present \(4, 4\), weight \(5, 4\), wanted one shape \(N, K\)"):
            toy._replace(present=toy.present[1:]).fit(name)
        with pytest.raises(UserError, match=r"found weight 2.0 at person 0, keypoint 0, wanted 0 or 1"):
            toy._replace(weight=np.full((5, 4), 2.0)).fit(name)
        toy.weight[:] = 1
        toy.score[1, 2] = np.nan
        with pytest.raises(UserError, match="found score nan at person 1, keypoint 2, wanted a number"):
            toy.fit(name)


def test_separable_temperature_is_at_its_bound() -> None:
    toy = make_toy(0)
    separable = toy._replace(present=toy.score > 0)
    assert temperature_of(separable.fit("temperature")) == pytest.approx(np.full(4, TEMPERATURES[0]), rel=1e-3)
    inverted = toy._replace(present=toy.score <= 0)
    assert temperature_of(inverted.fit("temperature")) == pytest.approx(np.full(4, TEMPERATURES[1]), rel=1e-3)


def test_keypoint_that_says_nothing_gets_the_pooled_temperature() -> None:
    toy = make_toy(0, 500, np.array([0.5, 1, 2, 4]))
    toy.weight[:, 0] = 0
    toy.present[:, 3] = True
    pooled, each = (temperature_of(toy.fit(name)) for name in ("temperature", "temperature_per_keypoint"))
    assert each[0] == each[3] == pooled[0]
    assert len({*each[:3]}) == 3


def test_the_score_that_is_lower_where_present_is_turned_round() -> None:
    toy = make_toy(0, 2000)
    platt = toy._replace(score=-toy.score).fit("platt")
    assert isinstance(platt, Platt)
    assert platt.slope == pytest.approx(-1, abs=0.1)


def test_logit_of_a_saturated_probability_is_no_trouble() -> None:
    """A head's probability that rounded to 1 has an infinite logit."""
    toy = make_toy(0, 2000, 4.0)
    probability = expit(toy.score).astype(np.float32)
    assert (probability == 1).any()
    with np.errstate(divide="ignore"):
        saturated = toy._replace(score=logit(probability).astype(np.float64))
    assert temperature_of(saturated.fit("temperature"))[0] == pytest.approx(4, rel=0.1)


def test_other_number_of_keypoints_is_refused() -> None:
    with pytest.raises(AssertionError, match="other keypoints"):
        make_toy(0).fit("temperature")(np.zeros((3, 1)))


def test_which_need_logits() -> None:
    """Of a peak between 0 and 1, no temperature can make a probability below one half."""
    assert set(CALIBRATORS) > NEED_LOGITS
    toy = make_toy(0, 1000)
    peak = toy._replace(score=expit(toy.score - 2))
    for name in NEED_LOGITS:
        assert (peak.fit(name)(peak.score) >= 0.5).all()
    for name in CALIBRATORS.keys() - NEED_LOGITS:
        assert peak.nll(peak.fit(name)) == pytest.approx(toy.nll(toy.fit("none")), abs=0.02)
        assert peak.fit(name)(peak.score).min() < 0.3


def test_isotonic_has_few_knots() -> None:
    isotonic = make_toy(0, 2000).fit("isotonic")
    assert isinstance(isotonic, Isotonic)
    assert len(isotonic.score) == len(isotonic.probability) < 400


def test_fits_are_soon_done() -> None:
    """Of 6,000 people, each takes less than .1 s on one core; the bound is loose, as tests share machines."""
    toy = make_toy(0, 6000, 2.0, num_keypoints=17)
    start = time.perf_counter()
    for name in CALIBRATORS:
        toy.fit(name)(toy.score)
    assert time.perf_counter() - start < 4
