"""Random views: each factor has the published distribution, checked by sampling with bounds of five standard errors."""

import numpy as np
import pytest
from scipy import stats

from bench.data.augment import Body, random_view
from bench.data.geometry import FITS, View, bbox_to_view
from tests.views import EVERYTHING, Views

INPUT_SIZE = (64, 96)
PLAIN = bbox_to_view(np.array([10.0, 20.0, 60.0, 120.0]), INPUT_SIZE, padding=1.25)
KEYPOINTS = np.random.default_rng(5).uniform([10, 20], [70, 140], (17, 2))
BODY = Body(KEYPOINTS, np.ones(17, dtype=bool))
NUM_DRAWS = 4000


def draws(
    augmentation: Views, body: Body = BODY, num: int = NUM_DRAWS, view: View = PLAIN, fit: str = "extend"
) -> list[View]:
    rng = np.random.default_rng(0)
    return [random_view(view, body, augmentation, INPUT_SIZE, fit, rng) for _ in range(num)]


def assert_share(found: "np.ndarray | list[bool]", wanted: float) -> None:
    error = np.sqrt(wanted * (1 - wanted) / len(found))
    assert abs(np.mean(found) - wanted) <= 5 * error


def assert_clipped_normal(values: np.ndarray, limit: float) -> None:
    """Standard normal numbers, those beyond `limit` moved onto it: mass on each clip, and the shape in between."""
    tail = stats.norm.sf(limit)
    assert_share(values >= limit - 1e-9, tail)
    assert_share(values <= -limit + 1e-9, tail)
    assert np.abs(values).max() <= limit + 1e-9
    between = values[np.abs(values) < limit - 1e-9]
    assert stats.kstest(between, stats.truncnorm(-limit, limit).cdf).pvalue > 1e-4
    pdf = stats.norm.pdf(limit)
    sd = np.sqrt(1 - 2 * tail - 2 * limit * pdf + 2 * limit**2 * tail)
    assert abs(values.mean()) < 5 * sd / np.sqrt(len(values))
    assert values.std() == pytest.approx(sd, rel=0.05)


def test_without_augmentation_the_view_stays() -> None:
    for view in draws(Views(), num=5):
        np.testing.assert_array_equal(view.center, PLAIN.center)
        np.testing.assert_array_equal(view.scale, PLAIN.scale)
        assert (view.rotation, view.flip, view.shown) == (0, False, None)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flip_comes_with_its_probability(probability: float) -> None:
    assert_share([view.flip for view in draws(Views(flip=probability))], probability)


def test_scale_is_a_normal_factor_clipped_at_one_sd() -> None:
    views = draws(Views(scale=0.35))
    factors = np.array([view.scale / PLAIN.scale for view in views])
    np.testing.assert_allclose(factors[:, 0], factors[:, 1])
    assert_clipped_normal((factors[:, 0] - 1) / 0.35, limit=1.0)
    assert all((view.center == PLAIN.center).all() and view.rotation == 0 for view in views)


def test_rotation_is_normal_clipped_at_two_sd() -> None:
    assert_clipped_normal(np.array([view.rotation for view in draws(Views(rotation=40))]) / 40, limit=2.0)


@pytest.mark.parametrize("probability", [0.0, 0.6])
def test_rotation_comes_with_its_probability(probability: float) -> None:
    views = draws(Views(rotation=40, rotation_probability=probability))
    assert_share([view.rotation != 0 for view in views], probability)


def test_shift_is_truncated_normal_within_its_share_of_the_view() -> None:
    views = draws(Views(shift=0.16, scale=0.35))
    shift = np.array([(view.center - PLAIN.center) / PLAIN.scale for view in views]) / 0.16
    for axis in range(2):
        assert np.abs(shift[:, axis]).max() <= 1
        assert stats.kstest(shift[:, axis], stats.truncnorm(-1, 1).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(shift.T)[0, 1]) < 5 / np.sqrt(NUM_DRAWS)


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_shift_comes_with_its_probability(probability: float) -> None:
    views = draws(Views(shift=0.1, shift_probability=probability))
    assert_share([(view.center != PLAIN.center).any() for view in views], probability)


def test_factors_are_drawn_apart() -> None:
    views = draws(EVERYTHING._replace(half_body=0))
    factors = np.array([[v.flip, v.rotation, v.scale[0], *(v.center - PLAIN.center)] for v in views], dtype=float)
    correlation = np.corrcoef(factors.T) - np.eye(5)
    assert np.abs(correlation).max() < 5 / np.sqrt(NUM_DRAWS)


@pytest.mark.parametrize("field", Views._fields)
def test_one_factor_does_not_change_the_draws_of_another(field: str) -> None:
    """The same seed without that one factor: all that does not follow from it stays."""
    whole, less = draws(EVERYTHING, num=50), draws(EVERYTHING._replace(**{field: 0.0}), num=50)
    for one, other in zip(whole, less, strict=True):
        assert field == "flip" or one.flip == other.flip
        assert field.startswith("rotation") or one.rotation == other.rotation
        if field not in {"scale", "half_body"}:
            np.testing.assert_array_equal(one.scale, other.scale)
        if not field.startswith("shift") and field != "half_body":
            np.testing.assert_array_equal(one.center, other.center)


# Half bodies.


def half_box_view(points: np.ndarray, fit: str = "extend") -> View:
    """About the mean of the keypoints: their box, half as large again, in the input's aspect."""
    low, high = points.min(0), points.max(0)
    view = bbox_to_view(np.concatenate([low, high - low]), INPUT_SIZE, 1.5, fit)
    return view._replace(center=points.mean(0))


def body_of(num_upper: int, num_lower: int) -> Body:
    labelled = np.zeros(17, dtype=bool)
    labelled[:num_upper] = True
    labelled[11 : 11 + num_lower] = True
    return Body(KEYPOINTS, labelled)


def centres(views: list[View]) -> set[tuple[float, ...]]:
    return {tuple(np.round(view.center, 6)) for view in views}


def test_half_bodies_are_the_upper_or_the_lower_half_by_a_fair_coin() -> None:
    upper, lower = half_box_view(KEYPOINTS[:11]), half_box_view(KEYPOINTS[11:])
    views = draws(Views(half_body=1.0))
    assert_share([bool(np.allclose(view.center, upper.center)) for view in views], 0.5)
    for view in views[:50]:
        wanted = upper if np.allclose(view.center, upper.center) else lower
        np.testing.assert_allclose(view.center, wanted.center)
        np.testing.assert_allclose(view.scale, wanted.scale)
        assert view.scale[0] / view.scale[1] == pytest.approx(64 / 96)


def test_half_bodies_come_with_their_probability() -> None:
    views = draws(Views(half_body=0.3))
    assert_share([not np.array_equal(view.center, PLAIN.center) for view in views], 0.3)


@pytest.mark.parametrize(("num_upper", "num_lower", "halved"), [(6, 2, False), (4, 4, False), (6, 3, True)])
def test_a_body_of_eight_keypoints_is_not_halved(num_upper: int, num_lower: int, halved: bool) -> None:
    views = draws(Views(half_body=1.0), body_of(num_upper, num_lower), num=20)
    assert (centres(views) != centres([PLAIN])) == halved


@pytest.mark.parametrize(("num_upper", "num_lower"), [(11, 2), (9, 0)])
def test_a_half_of_fewer_than_three_keypoints_leaves_the_other(num_upper: int, num_lower: int) -> None:
    views = draws(Views(half_body=1.0), body_of(num_upper, num_lower), num=20)
    assert centres(views) == centres([half_box_view(KEYPOINTS[:num_upper])])


def test_three_keypoints_are_a_half() -> None:
    wanted = [half_box_view(KEYPOINTS[:8]), half_box_view(KEYPOINTS[11:14])]
    assert centres(draws(Views(half_body=1.0), body_of(8, 3), num=40)) == centres(wanted)


def test_keypoints_without_extent_are_no_half() -> None:
    body = Body(np.full((17, 2), 50.0), np.ones(17, dtype=bool))
    assert centres(draws(Views(half_body=1.0), body, num=5)) == centres([PLAIN])


# Other fits.


@pytest.mark.parametrize("fit", FITS)
def test_every_fit_keeps_what_it_shows_in_proportion(fit: str) -> None:
    view = bbox_to_view(np.array([10.0, 20.0, 60.0, 60.0]), INPUT_SIZE, 1.25, fit)
    for one in draws(EVERYTHING._replace(half_body=0), view=view, fit=fit, num=20):
        assert (one.shown is None) == (fit != "letterbox")
        if view.shown is not None and one.shown is not None:
            np.testing.assert_allclose(one.shown / one.scale, view.shown / view.scale)


@pytest.mark.parametrize("fit", FITS)
def test_half_bodies_are_fitted_as_whole_ones(fit: str) -> None:
    view = bbox_to_view(np.array([10.0, 20.0, 60.0, 60.0]), INPUT_SIZE, 1.25, fit)
    wanted = half_box_view(KEYPOINTS[:9], fit)
    (found,) = draws(Views(half_body=1.0), body_of(9, 0), num=1, view=view, fit=fit)
    np.testing.assert_allclose(found.scale, wanted.scale)
    np.testing.assert_array_equal(found.shown, wanted.shown)
