import math

import numpy as np
import pytest

from bench.errors import UserError
from bench.metrics.bootstrap import count_draws, draw_images, percentile_interval


def test_draws_are_positions_with_repeats_and_follow_the_seed() -> None:
    draws = draw_images(5, 300, np.random.default_rng(0))
    assert draws.shape == (300, 5)
    assert set(draws.ravel()) == {0, 1, 2, 3, 4}
    assert any(len(set(row)) < 5 for row in draws)
    np.testing.assert_array_equal(draws, draw_images(5, 300, np.random.default_rng(0)))
    assert (draws != draw_images(5, 300, np.random.default_rng(1))).any()


def test_counts_say_how_often_each_image_was_drawn() -> None:
    np.testing.assert_array_equal(count_draws(np.array([[0, 0, 2], [1, 1, 1]])), [[2, 0, 1], [0, 3, 0]])


def test_bounds_are_the_central_95_percent() -> None:
    interval = percentile_interval(7.0, np.random.default_rng(0).permutation(1001).astype(float))
    assert interval == pytest.approx((7.0, 25.0, 975.0))


def test_a_mean_is_covered_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        sample = rng.normal(size=60)
        interval = percentile_interval(sample.mean(), sample[draw_images(60, 200, rng)].mean(axis=1))
        covered += interval.low <= 0 <= interval.high
    assert 0.90 <= covered / 200 <= 0.98


def test_few_undefined_resamples_are_left_out() -> None:
    defined = np.arange(90.0)
    few = np.concatenate([defined, np.full(10, np.nan)])
    assert percentile_interval(1.0, few) == percentile_interval(1.0, defined)


def test_many_undefined_resamples_undefine_the_bounds_only() -> None:
    many = np.concatenate([np.arange(89.0), np.full(11, np.nan)])
    value, low, high = percentile_interval(1.0, many)
    assert value == 1.0
    assert math.isnan(low)
    assert math.isnan(high)


def test_an_undefined_statistic_has_no_bounds() -> None:
    assert all(math.isnan(number) for number in percentile_interval(math.nan, np.arange(10.0)))


@pytest.mark.parametrize(("num_images", "num_resamples", "culprit"), [(0, 10, "0 images"), (3, 0, "num_resamples")])
def test_nothing_to_draw_is_refused(num_images: int, num_resamples: int, culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        draw_images(num_images, num_resamples, np.random.default_rng(0))
