"""Deletion and insertion, by hand."""

import numpy as np
import pytest

from bench.metrics.faithfulness import area_under, keep_masks, kept_curves, whole_curves

RNG = np.random.default_rng


def test_the_highest_cells_are_spoiled_first_and_shown_first() -> None:
    kept = keep_masks(np.array([[3.0, 1.0], [4.0, 2.0]]), [0.25, 0.5], RNG(0))
    deletion, insertion = kept
    assert deletion.tolist() == [[[True, True], [False, True]], [[False, True], [False, True]]]
    assert insertion.tolist() == [[[False, False], [True, False]], [[True, False], [True, False]]]


def test_the_two_modes_are_opposites_and_spoil_what_they_should() -> None:
    maps = RNG(1).random((3, 5, 4, 6))
    kept = keep_masks(maps, [0.1, 0.25, 0.9], RNG(0))
    assert kept.shape == (3, 5, 2, 3, 4, 6)
    assert (kept[:, :, 0] == ~kept[:, :, 1]).all()
    assert (kept[:, :, 1].sum(axis=(-1, -2)) == [2, 6, 22]).all()


def test_equal_cells_are_ranked_at_random() -> None:
    kept = keep_masks(np.zeros((400, 2, 2)), [0.25], RNG(0))[:, 1, 0].reshape(400, 4)
    assert (kept.sum(axis=1) == 1).all()
    assert kept.mean(axis=0) == pytest.approx(np.full(4, 0.25), abs=0.08)


def test_areas_by_hand() -> None:
    curves = np.array([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    assert area_under(curves, [0.2]).tolist() == pytest.approx([0.2 * 0.75 + 0.8 * 0.25, 1.0])


def test_curves_begin_and_end_with_the_whole_and_with_nothing() -> None:
    between = RNG(2).random((2, 3, 2, 4))
    curves = whole_curves(between, np.array([1.0, 0.9]), np.array([0.1, 0.2]))
    assert curves.shape == (2, 3, 2, 6)
    np.testing.assert_array_equal(curves[..., 1:-1], between)
    for m in range(3):
        assert curves[1, m, 0, [0, -1]].tolist() == [0.9, 0.2]
        assert curves[1, m, 1, [0, -1]].tolist() == [0.2, 0.9]


def test_what_is_left_is_a_share_of_sums() -> None:
    """Two questions of image 0 and one of image 1; one map, so that (3, 1, 2, 2) are its ends alone."""
    ends = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.1]])
    curves = np.stack([ends, ends[:, ::-1]], axis=1)[:, None]
    kept = kept_curves(curves, np.array([0, 0, 1]), np.array([[1, 1], [2, 0], [0, 3]]))
    assert kept[:, 0, 0, 1].tolist() == pytest.approx([0.6 / 2, 0.5 / 1.5, 0.1 / 0.5])
    assert (kept[:, 0, 0, 0] == 1).all()
    assert (kept[:, 0, 1, 1] == 1).all()


def test_a_right_map_beats_its_reverse_and_chance_lies_between() -> None:
    """What is said depends on one cell alone."""
    num = 300
    truth = RNG(3).integers(16, size=num)
    right = np.eye(16)[truth].reshape(num, 4, 4)
    maps = np.stack([right, -right, RNG(4).random((num, 4, 4))], axis=1)
    shares = [0.125, 0.5, 0.875]
    kept = keep_masks(maps, shares, RNG(5)).reshape(num, 3, 2, 3, 16)
    said = np.take_along_axis(kept, truth[:, None, None, None, None], axis=-1)[..., 0].astype(float)
    curves = whole_curves(said, np.ones(num), np.zeros(num))
    areas = area_under(kept_curves(curves, np.arange(num), np.ones((1, num), dtype=int))[0], shares)
    faithful = areas[:, 1] - areas[:, 0]
    assert faithful[0] > 0.8
    assert faithful[1] < -0.8
    assert faithful[2] == pytest.approx(0, abs=0.08)
