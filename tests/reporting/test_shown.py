"""A picture with skeletons: what is called absent is crossed out and no limb ends there."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bench.data.keypoints import NUM_KEYPOINTS, SKELETON
from bench.reporting.shown import ShownPeople, draw_people

ABSENT = (9, 13, 15)  # left wrist, knee and ankle
SIZE = (200, 300)


def people(num_persons: int = 1) -> ShownPeople:
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(20, 180, (num_persons, NUM_KEYPOINTS, 2))
    presence = np.full((num_persons, NUM_KEYPOINTS), 0.9)
    presence[0, list(ABSENT)] = 0.2
    return ShownPeople.of(np.full((num_persons, 4), 20.0), keypoints, presence, threshold=0.5)


def picture() -> NDArray[np.uint8]:
    return np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)


def lines_of(ax: Axes, num_points: int) -> list[Line2D]:
    return [line for line in ax.lines if len(np.asarray(line.get_xdata())) == num_points]


def test_limbs_join_what_is_there_alone() -> None:
    shown = people()
    ax = draw_people(picture(), shown, 0.5, "p/run-0").axes[0]
    ends = {tuple(point) for line in lines_of(ax, 2) for point in np.asarray(line.get_xydata()).tolist()}
    absent = {tuple(point) for point in shown.keypoints[0, list(ABSENT)].tolist()}
    assert not ends & absent
    num_limbs = sum(not {start, end} & set(ABSENT) for start, end in SKELETON)
    assert len(lines_of(ax, 2)) == 2 * num_limbs  # each has a dark border


def test_absent_keypoints_are_crosses_and_present_ones_filled_dots() -> None:
    shown = people()
    ax = draw_people(picture(), shown, 0.5, "p/run-0").axes[0]
    marks = [line for line in lines_of(ax, 1) if line.get_markerfacecolor() != "none"]
    crosses = [line for line in marks if line.get_marker() == "X"]
    found = sorted(np.asarray(line.get_xydata())[0].tolist() for line in crosses)
    assert found == sorted(shown.keypoints[0, list(ABSENT)].tolist())
    assert len(marks) == NUM_KEYPOINTS
    rings = [line for line in lines_of(ax, 1) if line.get_markerfacecolor() == "none"]
    assert len({line.get_markeredgecolor() for line in rings}) == 2  # two probabilities


@pytest.mark.parametrize("size", [(1, 1), (20, 2000), (2000, 20)])
def test_pictures_of_any_shape_have_a_page(size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    width, height = draw_people(image, people(2), 0.5, "p/run-0").get_size_inches()
    assert 5 < width < 9
    assert 1 < height < 10


def test_nobody_can_be_shown() -> None:
    nobody = people().take(np.array([], dtype=np.int64))
    assert not draw_people(picture(), nobody, 0.5, "p/run-0").axes[0].lines
