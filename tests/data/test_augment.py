import numpy as np

from bench.data.augment import Body, random_view
from bench.data.geometry import View, bbox_to_view
from tests.views import Views

INPUT_SIZE = (64, 96)
PLAIN = bbox_to_view(np.array([10.0, 20.0, 60.0, 120.0]), INPUT_SIZE, padding=1.25)
KEYPOINTS = np.random.default_rng(5).uniform([10, 20], [70, 140], (17, 2))
BODY = Body(KEYPOINTS, np.ones(17, dtype=bool))


def draws(augmentation: Views, body: Body = BODY, num: int = 400) -> list[View]:
    return [random_view(PLAIN, body, augmentation, INPUT_SIZE, np.random.default_rng(i)) for i in range(num)]


def test_without_augmentation_the_view_stays() -> None:
    for view in draws(Views(), num=5):
        np.testing.assert_array_equal(view.center, PLAIN.center)
        np.testing.assert_array_equal(view.scale, PLAIN.scale)
        assert (view.rotation, view.flip) == (0, False)


def test_flip_comes_with_its_probability() -> None:
    share = np.mean([view.flip for view in draws(Views(flip=0.3))])
    assert abs(share - 0.3) < 0.08  # 3.5 standard errors


def test_ranges_are_kept_and_used() -> None:
    views = draws(Views(rotation=40, rotation_probability=1, scale=0.3, shift=0.1))
    rotation = np.array([view.rotation for view in views])
    zoom = np.array([view.scale / PLAIN.scale for view in views])
    shift = np.array([(view.center - PLAIN.center) / PLAIN.scale for view in views])
    assert 30 < np.abs(rotation).max() <= 40
    assert zoom.min() >= 0.7 - 1e-9
    assert zoom.max() <= 1.3 + 1e-9
    assert np.ptp(zoom) > 0.4
    np.testing.assert_allclose(zoom[:, 0], zoom[:, 1])
    assert 0.08 < np.abs(shift).max() <= 0.1


def test_one_factor_does_not_change_the_draws_of_another() -> None:
    for alone, both in zip(
        draws(Views(flip=0.5), num=30),
        draws(Views(flip=0.5, rotation=40, rotation_probability=1), num=30),
        strict=True,
    ):
        assert alone.flip == both.flip


def test_half_bodies_hold_the_half() -> None:
    views = draws(Views(half_body=1.0), num=40)
    centres = {tuple(np.round(view.center, 6)) for view in views}
    upper, lower = KEYPOINTS[:11], KEYPOINTS[11:]
    wanted = {tuple(np.round((half.min(0) + half.max(0)) / 2, 6)) for half in (upper, lower)}
    assert centres == wanted


def test_a_body_with_few_keypoints_is_not_halved() -> None:
    labelled = np.zeros(17, dtype=bool)
    labelled[:8] = True
    for view in draws(Views(half_body=1.0), Body(KEYPOINTS, labelled), num=5):
        np.testing.assert_array_equal(view.center, PLAIN.center)
