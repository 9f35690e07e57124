import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from bench.errors import UserError
from bench.metrics.bootstrap import (
    MAX_LEFT_OUT,
    MIN_IMAGES,
    Difference,
    Interval,
    Method,
    Resampling,
    bca_interval,
    compare,
    correct,
    draw_resampling,
    few_images_note,
    p_values,
    percentile_interval,
    pool_seeds,
)

Floats = NDArray[np.float64]
MANY = 100  # images
Statistic = Callable[[Floats, NDArray[np.int32]], Floats]  # values of images (I,), counts (S, I) -> (S,)


def make_resampling(num_images: int, num_resamples: int, method: Method = "percentile", seed: int = 0) -> Resampling:
    return draw_resampling(num_images, num_resamples, method, np.random.default_rng(seed))


def mean(sample: Floats, counts: NDArray[np.int32]) -> Floats:
    return np.asarray(counts @ sample / counts.sum(axis=1))


def variance(sample: Floats, counts: NDArray[np.int32]) -> Floats:
    """Skewed: its resamples are biased, and it varies more where it is large."""
    return mean(sample**2, counts) - mean(sample, counts) ** 2


# Draws.


def test_the_first_data_set_is_the_whole() -> None:
    for method in ("percentile", "bca"):
        np.testing.assert_array_equal(draw_resampling(7, 3, method, np.random.default_rng(0)).counts[0], np.ones(7))


def test_draws_have_repeats_and_the_size_of_the_whole_and_follow_the_seed() -> None:
    resampling = make_resampling(5, 300)
    assert resampling.counts.shape == (301, 5)
    assert resampling.num_resamples == 300
    assert {0, 1, 2, 3} < set(resampling.counts[1:].ravel())
    np.testing.assert_array_equal(resampling.counts.sum(axis=1), np.full(301, 5))
    np.testing.assert_array_equal(resampling.counts, make_resampling(5, 300).counts)
    assert (resampling.counts != make_resampling(5, 300, seed=1).counts).any()


def test_every_image_is_drawn_as_often_as_any_other() -> None:
    """Each count is binomial: mean 1, variance 1 - 1 / I."""
    drawn = make_resampling(10, 20_000).counts[1:]
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.03)  # four standard errors
    np.testing.assert_allclose(drawn.var(axis=0), 0.9, atol=0.05)


def test_bca_draws_the_same_and_then_leaves_out_each_image_once() -> None:
    plain, corrected = make_resampling(8, 20), make_resampling(8, 20, "bca")
    np.testing.assert_array_equal(corrected.counts[:21], plain.counts)
    left_out = corrected.counts[21:]
    assert left_out.shape == (8, 8)
    assert set(left_out.ravel()) == {0, 1}
    np.testing.assert_array_equal(np.sort((left_out == 0).argmax(axis=1)), np.arange(8))
    np.testing.assert_array_equal(left_out.sum(axis=1), np.full(8, 7))


@pytest.mark.parametrize("num_images", [MAX_LEFT_OUT, MAX_LEFT_OUT + 1, 2 * MAX_LEFT_OUT + 100])
def test_many_images_are_left_out_by_blocks_of_about_the_same_size(num_images: int) -> None:
    left_out = make_resampling(num_images, 1, "bca").counts[2:] == 0
    assert len(left_out) == MAX_LEFT_OUT
    np.testing.assert_array_equal(left_out.sum(axis=0), np.ones(num_images))
    sizes = left_out.sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    if num_images > MAX_LEFT_OUT:
        steps = np.diff(left_out.argmax(axis=0)) % MAX_LEFT_OUT
        assert len(np.unique(steps)) > 100  # images stand in a file by some order, so blocks are drawn


@pytest.mark.parametrize(("num_images", "num_resamples", "culprit"), [(0, 10, "0 images"), (3, 0, "num_resamples")])
def test_nothing_to_draw_is_refused(num_images: int, num_resamples: int, culprit: str) -> None:
    for method in ("percentile", "bca"):
        with pytest.raises(UserError, match=culprit):
            draw_resampling(num_images, num_resamples, method, np.random.default_rng(0))


def test_intervals_of_many_metrics_are_each_of_its_own_column() -> None:
    sample = np.random.default_rng(1).exponential(size=30)
    plain, corrected = make_resampling(30, 100), make_resampling(30, 100, "bca")
    values = np.stack([function(sample, corrected.counts) for function in (mean, variance)], axis=1)
    for column, percentile, bca in zip(
        values.T, plain.intervals(values[:101]), corrected.intervals(values), strict=True
    ):
        assert percentile == percentile_interval(column[0], column[1:101], MANY)
        assert bca == bca_interval(column[0], column[1:101], column[101:])
        assert bca != percentile


# Intervals.


def test_bounds_are_the_central_95_percent() -> None:
    interval = percentile_interval(7.0, np.random.default_rng(0).permutation(1001).astype(float), MANY)
    assert interval == pytest.approx((7.0, 25.0, 975.0))


def missed(function: Statistic, method: Method, num_images: int, truth: float) -> tuple[float, float]:
    """How often, in the same 500 samples of normal numbers, the interval lies above and below the truth."""
    above, below = 0, 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        sample = rng.normal(size=num_images)
        resampling = draw_resampling(num_images, 200, method, rng)
        (interval,) = resampling.intervals(function(sample, resampling.counts)[:, None])
        above += interval.low > truth
        below += interval.high < truth
    return above / 500, below / 500


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_mean_is_covered_about_as_often_as_promised(method: Method) -> None:
    assert missed(mean, method, 60, truth=0.0) == pytest.approx((0.025, 0.025), abs=0.02)


def test_bca_covers_a_skewed_statistic_better() -> None:
    """A variance is spread to the right, and biased."""
    percentile, bca = (missed(variance, method, 20, truth=1.0) for method in ("percentile", "bca"))
    assert sum(percentile) > 0.15
    assert sum(bca) < sum(percentile) - 0.03
    assert bca[1] - bca[0] < percentile[1] - percentile[0] - 0.05  # both sides more alike


def scipy_bca(sample: Floats, function: Statistic, resampled: Floats) -> tuple[float, float]:
    """Theirs, from the same resamples."""

    def statistic(values: Floats, axis: int = -1) -> Floats:
        flat = values.reshape(-1, values.shape[-1])
        return np.array([function(row, np.ones((1, len(row)), np.int32))[0] for row in flat]).reshape(values.shape[:-1])

    drawn: Any = SimpleNamespace(bootstrap_distribution=resampled)
    found = stats.bootstrap((sample,), statistic, n_resamples=0, bootstrap_result=drawn, method="BCa", vectorized=True)
    return found.confidence_interval.low, found.confidence_interval.high


@pytest.mark.parametrize("function", [mean, variance])
@pytest.mark.parametrize("coarse", [False, True])
def test_bca_equals_scipy(function: Statistic, coarse: bool) -> None:
    """Also where many resamples equal the value itself."""
    for seed in range(5):
        sample = np.random.default_rng(seed).exponential(size=25)
        sample = np.round(sample) if coarse else sample
        resampling = make_resampling(25, 300, "bca", seed)
        values = function(sample, resampling.counts)
        value, low, high = resampling.intervals(values[:, None])[0]
        assert value == values[0]
        assert (low, high) == pytest.approx(scipy_bca(sample, function, values[1:301]), rel=1e-9)
        assert (low, high) != percentile_interval(value, values[1:301], MANY)[1:]


def test_bca_equals_scipy_with_its_own_resamples() -> None:
    sample = np.random.default_rng(3).exponential(size=50)
    resampling = make_resampling(50, 20_000, "bca")
    interval = resampling.intervals(variance(sample, resampling.counts)[:, None])[0]
    theirs = stats.bootstrap((sample,), np.var, n_resamples=20_000, method="BCa", rng=np.random.default_rng(4))
    assert interval[1:] == pytest.approx(theirs.confidence_interval, rel=0.02)


def test_bca_by_hand() -> None:
    """No skew, and 3 resamples below the value, 2 equal to it, 5 above: the bias is that of a share of 0.4."""
    resampled = np.array([1.0, 2.0, 3.0, 5.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    interval = bca_interval(5.0, resampled, np.array([4.0, 5.0, 6.0]))
    quantiles = stats.norm.cdf(2 * stats.norm.ppf(0.4) + stats.norm.ppf([0.025, 0.975]))
    assert interval == pytest.approx((5.0, *np.quantile(resampled, quantiles)))


def test_bca_moves_towards_the_longer_tail() -> None:
    """Without bias: where the statistic varies more above its value, both bounds rise."""
    resampled = np.linspace(-1, 1, 1001)
    plain = percentile_interval(0.0, resampled, MANY)
    # Leaving out the one large image lowers the mean by much: the sample has a tail above.
    above = bca_interval(0.0, resampled, np.array([0.1, 0.1, 0.1, 0.1, -0.4]))
    below = bca_interval(0.0, resampled, np.array([-0.1, -0.1, -0.1, -0.1, 0.4]))
    assert above.low > plain.low
    assert above.high > plain.high
    assert (below.low, below.high) == pytest.approx((-above.high, -above.low))


@pytest.mark.parametrize("side", [-1, 1])
def test_a_value_beyond_all_of_its_resamples_has_finite_bounds(side: int) -> None:
    resampled = np.linspace(0, 1, 100)
    interval = bca_interval(side * 5.0, resampled, np.array([0.0, 1.0, 3.0]))
    assert 0 <= interval.low <= interval.high <= 1
    assert (interval.high if side > 0 else 1 - interval.low) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "left_out",
    [
        np.full(7, 0.7),  # whose mean is not quite 0.7
        np.zeros(3),
        np.array([0.5, math.nan, 0.6]),
        np.full(3, math.nan),
    ],
)
def test_bca_without_a_jackknife_is_the_percentile_interval(left_out: Floats) -> None:
    resampled = np.random.default_rng(0).exponential(size=50)
    assert bca_interval(0.7, resampled, left_out) == percentile_interval(0.7, resampled, MANY)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_one_image_has_no_interval(method: Method) -> None:
    """All of its resamples are the same, so bounds would be equal to the value."""
    resampling = make_resampling(1, 20, method)
    values = np.where(resampling.counts.sum(axis=1) > 0, 0.25, math.nan)
    ((value, low, high),) = resampling.intervals(values[:, None])
    assert value == 0.25
    assert math.isnan(low)
    assert math.isnan(high)


def test_too_few_images_are_said_to_be_so() -> None:
    assert MIN_IMAGES == 20
    assert few_images_note(20) == ""
    assert few_images_note(1) == (
        "Too few images (n < 20): with 1 image, there is no interval, and no difference is called clear."
    )
    assert "with 19 images, the intervals are too narrow" in few_images_note(19)


def both(value: float, resampled: Floats) -> list[Interval]:
    return [percentile_interval(value, resampled, MANY), bca_interval(value, resampled, np.array([0.5, 1.0, 2.0]))]


def test_few_undefined_resamples_are_left_out() -> None:
    defined = np.arange(90.0)
    few = np.concatenate([defined, np.full(10, np.nan)])
    assert both(30.0, few) == both(30.0, defined)


def test_many_undefined_resamples_undefine_the_bounds_only() -> None:
    many = np.concatenate([np.arange(89.0), np.full(11, np.nan)])
    for value, low, high in [*both(1.0, many), *both(1.0, np.full(5, np.nan))]:
        assert value == 1.0
        assert math.isnan(low)
        assert math.isnan(high)


def test_an_undefined_statistic_has_no_bounds() -> None:
    for interval in both(math.nan, np.arange(10.0)):
        assert all(math.isnan(number) for number in interval)


# Training seeds.


def test_one_seed_is_as_it_is() -> None:
    values = np.random.default_rng(0).normal(size=(1, 50, 3))
    np.testing.assert_array_equal(pool_seeds(values, np.random.default_rng(5)), values[0])


def test_pooled_seeds_by_hand() -> None:
    """Two seeds, worth 0 and 1, on any images: a resample is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4."""
    values = np.stack([np.zeros((4001, 1)), np.ones((4001, 1))])
    pooled = pool_seeds(values, np.random.default_rng(0))
    assert pooled.shape == (4001, 1)
    assert pooled[0, 0] == 0.5  # all seeds, once each
    shares = [(pooled[1:] == level).mean() for level in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert sum(shares) == 1


def test_seeds_are_drawn_for_whole_data_sets_and_images_stay_together() -> None:
    """Each pooled row is a mean of rows of its own data set, of the same seeds in every metric."""
    values = np.random.default_rng(0).normal(size=(3, 200, 2))
    pooled = pool_seeds(values, np.random.default_rng(1))
    np.testing.assert_allclose(pooled[0], values[:, 0].mean(axis=0), rtol=1e-12)
    chosen = set()
    for s in range(1, 200):
        options = {c: values[list(c), s].mean(axis=0) for c in itertools.combinations_with_replacement(range(3), 3)}
        fitting = [c for c, option in options.items() if np.allclose(pooled[s], option, rtol=1e-12)]
        assert len(fitting) == 1
        chosen |= set(fitting)
    assert len(chosen) == 10


def test_paired_metrics_draw_the_same_seeds_from_the_same_generator() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 4, 100, 1))
    one, other, difference = (
        pool_seeds(values, np.random.default_rng(7)) for values in (first, second, second - first)
    )
    np.testing.assert_allclose(other - one, difference, atol=1e-12)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(scale=0.1, size=(1, 1001, 1))
    alike, unlike = images + np.zeros((3, 1, 1)), images + np.array([-1.0, 0.0, 1.0])[:, None, None]
    widths = []
    for values in (alike, unlike):
        pooled = pool_seeds(values, np.random.default_rng(1))[:, 0]
        interval = percentile_interval(pooled[0], pooled[1:], MANY)
        widths.append(interval.high - interval.low)
    assert widths[1] > 3 * widths[0]


def test_an_undefined_seed_undefines_the_mean_of_all() -> None:
    values = np.ones((2, 300, 1))
    values[1] = math.nan
    pooled = pool_seeds(values, np.random.default_rng(0))[:, 0]
    assert math.isnan(pooled[0])
    assert np.isnan(pooled[1:]).mean() == pytest.approx(0.75, abs=0.1)


# Comparisons.


def p_of(found: Difference, num_images: int = MANY) -> float:
    return float(p_values(np.array([found.interval.value]), found.null[:, None], num_images)[0])


def excludes_zero(found: Difference) -> bool:
    return found.interval.low > 0 or found.interval.high < 0


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=200)  # how hard an image is, for both systems
    first, second = images + rng.normal(scale=0.1, size=200), images + 0.05 + rng.normal(scale=0.1, size=200)
    shared, other = make_resampling(200, 1000), make_resampling(200, 1000, seed=1)
    paired = compare(mean(first, shared.counts), mean(second, shared.counts), MANY)
    unpaired = compare(mean(first, shared.counts), mean(second, other.counts), MANY)
    assert paired.interval.value == pytest.approx(second.mean() - first.mean())
    assert unpaired.interval.value == pytest.approx(paired.interval.value)
    widths = [found.interval.high - found.interval.low for found in (paired, unpaired)]
    assert widths[0] < widths[1] / 5
    assert excludes_zero(paired)
    assert not excludes_zero(unpaired)
    assert p_of(paired) < 0.01
    assert p_of(unpaired) > 0.3


def test_a_difference_turns_with_its_sides() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 201))
    forth, back = compare(first, second, MANY), compare(second, first, MANY)
    assert back.interval == pytest.approx((-forth.interval.value, -forth.interval.high, -forth.interval.low))
    assert (p_of(back), back.detectable) == pytest.approx((p_of(forth), forth.detectable))


def test_a_comparison_by_hand() -> None:
    """19 resampled differences from -2 to 16. Of these, -2 to 0 and 13 to 16 lie at least 6.5 from the value 6.5."""
    resampled = np.concatenate([[-2.0, -1.0, 0.0], np.arange(1.0, 17.0)])
    found = compare(np.zeros(20), np.concatenate([[6.5], resampled]), MANY)
    assert found.interval == percentile_interval(6.5, resampled, MANY)
    assert p_of(found) == pytest.approx((1 + 3 + 4) / (1 + 19))
    # 2.80: 1.96 for the two-sided 5 % level and 0.84 for 80 % power.
    assert found.detectable == pytest.approx((1.959964 + 0.841621) * np.std(resampled, ddof=1), rel=1e-6)
    assert found.detectable == pytest.approx(2.80 * np.std(resampled, ddof=1), rel=1e-3)


def test_equal_systems_are_not_told_apart() -> None:
    found = compare(np.arange(50.0), np.arange(50.0), MANY)
    assert (found.interval, found.detectable) == (Interval(0.0, 0.0, 0.0), 0.0)
    assert not found.is_tested
    assert not excludes_zero(found)


def test_the_smallest_p_is_given_by_the_number_of_resamples() -> None:
    assert p_of(compare(np.zeros(100), np.ones(100), MANY)) == pytest.approx(1 / 100)


def test_p_is_about_uniform_where_nothing_differs_and_agrees_with_the_interval() -> None:
    rng = np.random.default_rng(0)
    found_p = []
    for _ in range(400):
        difference = rng.normal(size=80)
        counts = draw_resampling(80, 200, "percentile", rng).counts
        found = compare(np.zeros(201), mean(difference, counts), MANY)
        found_p.append(p_of(found))
        if abs(found_p[-1] - 0.05) > 0.03:
            assert excludes_zero(found) == (found_p[-1] < 0.05)
    shares = [(np.array(found_p) <= level).mean() for level in (0.05, 0.25, 0.5, 0.75)]
    assert shares == pytest.approx([0.05, 0.25, 0.5, 0.75], abs=0.06)


def test_a_true_difference_of_the_detectable_size_is_found_in_four_of_five_samples() -> None:
    """Of 400 samples: a share of 0.8 has a standard error of 0.02."""
    rng = np.random.default_rng(0)
    size = 2.801585 / math.sqrt(100)  # of the mean of 100 images whose standard deviation is 1
    found = []
    for _ in range(400):
        counts = draw_resampling(100, 200, "percentile", rng).counts
        found.append(compare(np.zeros(201), mean(rng.normal(loc=size, size=100), counts), MANY))
    assert np.mean([f.detectable for f in found]) == pytest.approx(size, rel=0.05)
    assert np.mean([excludes_zero(f) for f in found]) == pytest.approx(0.8, abs=0.06)


def test_an_undefined_difference_is_not_judged() -> None:
    some, none = np.ones(41), np.full(41, math.nan)
    for first, second in ((some, none), (none, some), (none, none)):
        found = compare(first, second, MANY)
        assert all(math.isnan(number) for number in (*found.interval, found.detectable))
        assert not found.is_tested
        assert not excludes_zero(found)


def test_undefined_resamples_of_a_difference_are_left_out_up_to_a_tenth() -> None:
    second = np.concatenate([[1.0], np.linspace(-1, 3, 36), np.full(4, math.nan)])
    some, all_defined = compare(np.zeros(41), second, MANY), compare(np.zeros(37), second[:37], MANY)
    assert (some.interval, some.detectable) == (all_defined.interval, all_defined.detectable)
    assert p_of(some) == p_of(all_defined)
    second[1] = math.nan
    found = compare(np.zeros(41), second, MANY)
    assert found.interval.value == 1.0
    assert math.isnan(found.interval.low)
    assert math.isnan(found.detectable)


# Corrections.


def test_permutation_p_by_hand() -> None:
    """Of 4 coins, 2 give at least 0.3 either way, 4 at least 0, none 0.9; NaN stays."""
    permuted = np.array([[0.3, 0.1, 0.8, 0.1], [-0.4, 0.2, -0.8, 0.2], [0.2, 0.0, 0.1, 0.3], [-0.1, -0.5, 0.0, 0.4]])
    found = p_values(np.array([-0.3, 0.0, 0.9, math.nan]), permuted, MANY)
    np.testing.assert_allclose(found, [(1 + 2) / 5, 1.0, 1 / 5, math.nan])


def test_a_trade_that_changes_nothing_counts_as_equal() -> None:
    """Sums in another order differ in the last place."""
    assert 0.1 + 0.2 != 0.3
    for observed, traded in ((0.1 + 0.2, 0.3), (0.3, 0.1 + 0.2), (-0.1 - 0.2, 0.3)):
        np.testing.assert_array_equal(p_values(np.array([observed]), np.array([[traded]]), MANY), [1.0])


def test_permutation_p_is_about_uniform_where_nothing_differs() -> None:
    """Trading an image turns the sign of its difference."""
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(50, 400))  # (I, M)
    signs = rng.choice([-1, 1], size=(199, 50))
    p = p_values(differences.mean(axis=0), signs @ differences / 50, 50)
    shares = [(p <= level).mean() for level in (0.05, 0.25, 0.5, 0.75)]
    assert shares == pytest.approx([0.05, 0.25, 0.5, 0.75], abs=0.06)
    assert p.min() >= 1 / 200


@pytest.mark.parametrize(("num_images", "smallest"), [(1, 1.0), (2, 0.5), (5, 1 / 16), (12, 1 / 1000)])
def test_no_p_is_below_what_the_images_permit(num_images: int, smallest: float) -> None:
    """2 of 2^n trades give as much as the largest difference; with many images the 999 draws decide."""
    null = np.random.default_rng(0).normal(size=(999, 2))
    p = p_values(np.array([50.0, -60.0]), null, num_images)
    assert p.tolist() == [smallest, smallest]
    assert correct(np.array([50.0, -60.0]), null, p).tolist() == [smallest, smallest]


# Corrections.


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ((2.5, 1.5, 0.9), (1 / 9, 3 / 9, 1.0)),  # none, then 2 of the draws of the second and third, then all
        ((1.5, 1.4, 0.9), (5 / 9, 5 / 9, 1.0)),  # 4 of all draws; then 2, but no p-value falls
        ((1.4, 1.5, 0.9), (5 / 9, 5 / 9, 1.0)),
        ((-1.5, 0.5, 0.9), (5 / 9, 1.0, 1.0)),
    ],
)
def test_max_t_by_hand(sizes: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    """Of 8 draws, 2 of the first and 2 others of the second are two spreads (2 and 1) from 0; all of the third are one
    spread (4) from it."""
    null = np.array([[4.0, -4, 0, 0, 0, 0, 0, 0], [0.0, 0, 2, -2, 0, 0, 0, 0], [4.0, 4, 4, 4, -4, -4, -4, -4]]).T
    observed = np.array(sizes) * [2, 1, 4]
    p = p_values(observed, null, MANY)
    np.testing.assert_allclose(correct(observed, null, p), wanted)
    turned = [2, 0, 1]
    found = correct(observed[turned], null[:, turned], p[turned])
    np.testing.assert_allclose(found, np.array(wanted)[turned])


def test_one_comparison_is_not_corrected() -> None:
    rng = np.random.default_rng(0)
    for observed in (0.1, 1.0, 2.5, 9.0):
        null = rng.normal(size=(199, 1))
        null[:5] = math.nan
        p = p_values(np.array([observed]), null, MANY)
        assert correct(np.array([observed]), null, p) == p


def test_corrected_p_keeps_the_order_of_sizes_and_undefined_ones_do_not_count() -> None:
    rng = np.random.default_rng(1)
    null, observed = rng.normal(size=(499, 12)), rng.normal(scale=2, size=12)
    p = p_values(observed, null, MANY)
    corrected = correct(observed, null, p)
    order = np.argsort(-np.abs(observed) / null.std(axis=0))
    assert (np.diff(corrected[order]) >= 0).all()
    assert (corrected >= p).all()
    assert (corrected <= 1).all()
    more = np.insert(observed, 3, math.nan), np.insert(null, 3, 0.0, axis=1), np.insert(p, 3, math.nan)
    np.testing.assert_array_equal(np.delete(correct(*more), 3), corrected)
    assert math.isnan(correct(*more)[3])
    assert correct(np.array([]), np.zeros((5, 0)), np.array([])).tolist() == []


def test_copies_of_a_comparison_cost_nothing() -> None:
    """They move together, which a correction by their number alone cannot know."""
    null = np.random.default_rng(0).normal(size=(999, 1))
    p = p_values(np.array([2.2]), null, MANY)
    assert 0.01 < p[0] < 0.05
    np.testing.assert_allclose(correct(np.full(60, 2.2), np.repeat(null, 60, axis=1), np.repeat(p, 60)), p[0])


def test_a_large_difference_stays_clear_among_many() -> None:
    """-10 with a spread of 0.6 among 120 lines: 2,000 resamples times 120 once left no p below .05."""
    null = np.random.default_rng(0).normal(scale=0.6, size=(2000, 120))
    observed = np.concatenate([[-10.0], np.random.default_rng(1).normal(scale=0.6, size=119)])
    corrected = correct(observed, null, p_values(observed, null, 250))
    assert corrected[0] == pytest.approx(1 / 2001)
    assert (corrected[1:] > 0.05).all()


def test_in_one_family_of_twenty_something_is_found_where_nothing_differs() -> None:
    """Of 400 families of 8 differences that are correlated and all 0, about 5 % (standard error 1.1 %)."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        images = rng.normal(size=(60, 8)) + rng.normal(size=(60, 1))
        counts = draw_resampling(60, 300, "percentile", rng).counts
        means = counts @ images / 60
        observed, null = means[0], means[1:] - means[0]
        wrong += (correct(observed, null, p_values(observed, null, 60)) <= 0.05).any()
    assert wrong / 400 == pytest.approx(0.05, abs=0.03)
