"""Many data sets at once are what `Evaluation` says of each."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.people import Truth
from bench.metrics import many_sets
from bench.metrics.average_precision import STATS, Evaluation, OKSEvaluation, mix
from bench.metrics.many_sets import ManySets
from bench.metrics.oks import Matches
from tests.metrics.evaluators import draw_case, our_matches


def assert_same(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> None:
    """But for the order of summation; undefined in the same places."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def matches_of(seed: int) -> Matches:
    """With all the oddities: crowds, people without keypoints, equal scores."""
    return our_matches(draw_case(seed))


def draw_counts(matches: Matches, num_sets: int, seed: int) -> NDArray[np.int64]:
    """The last data set is empty."""
    counts = np.random.default_rng(seed).integers(4, size=(num_sets, matches.num_counted.shape[1]))
    counts[-1] = 0
    return counts


@pytest.mark.parametrize("seed", range(40))
def test_every_number_is_that_of_one_data_set_at_a_time(seed: int) -> None:
    matches = matches_of(seed)
    counts = draw_counts(matches, 7, seed)
    found = ManySets(matches).stats_of_sets(STATS, counts)
    assert np.isnan(found[-1]).all()
    assert_same(found, np.stack([OKSEvaluation(matches).stats_of(row) for row in counts]))
    every_group = ManySets(matches).group_stats_of(counts)
    assert_same(every_group, np.stack([Evaluation(matches).group_stats(row) for row in counts]))


def test_some_numbers_are_those_of_all() -> None:
    matches = matches_of(1)
    counts = draw_counts(matches, 5, 1)
    every = ManySets(matches).stats_of_sets(STATS, counts)
    some = ("ARL", "AP75", "AP")
    np.testing.assert_array_equal(
        ManySets(matches).stats_of_sets(some, counts), every[:, [STATS.index(stat) for stat in some]]
    )


def test_images_traded_between_two_systems() -> None:
    for seed in range(20):
        first = matches_of(seed)
        second = our_matches(draw_case(seed)._replace(entries=draw_case(seed).entries[::2]))
        mixed = mix(first, second)
        coins = np.random.default_rng(seed).integers(2, size=(9, first.num_counted.shape[1]))
        sides = np.hstack([1 - coins, coins])
        assert_same(
            ManySets(mixed).stats_of_sets(STATS, sides), np.stack([OKSEvaluation(mixed).stats_of(s) for s in sides])
        )


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    matches = matches_of(3)
    counts = draw_counts(matches, 11, 3)
    whole = ManySets(matches).group_stats_of(counts)
    monkeypatch.setattr(many_sets, "CHUNK", 4)
    np.testing.assert_array_equal(ManySets(matches).group_stats_of(counts), whole)


def test_without_detections_nothing_is_found() -> None:
    case = draw_case(0)
    matches = our_matches(case._replace(entries=[]))
    assert Truth.of(case.coco).num_images == matches.num_counted.shape[1]
    counts = np.ones((2, matches.num_counted.shape[1]), dtype=np.int64)
    found = ManySets(matches).stats_of_sets(("AP", "AR"), counts)
    np.testing.assert_array_equal(found, np.zeros((2, 2)))
