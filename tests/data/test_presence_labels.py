import numpy as np
import pytest

from bench.data.coco import reaches_border
from bench.data.presence import POLICIES, Labels
from bench.errors import UserError

VISIBILITY = np.array([0, 1, 2, 0, 2])
TRUTH = np.array([0, 1, 2, 1, 2])  # the fourth is in the image, but the annotator left it out
IN_WINDOW = np.array([True, True, True, True, False])  # the last is labelled, but outside of the crop
INSIDE, CUT = (Labels(VISIBILITY, TRUTH, np.array(at_border)) for at_border in (False, True))


@pytest.mark.parametrize(
    ("policy", "labels", "present", "weight"),
    [
        ("labelled", INSIDE, [0, 1, 1, 0, 1], [1, 1, 1, 1, 1]),
        ("visible", INSIDE, [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]),
        ("in_window", INSIDE, [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]),
        ("known", INSIDE, [0, 1, 1, 0, 0], [0, 1, 1, 0, 1]),
        ("border_aware", INSIDE, [0, 1, 1, 0, 1], [0, 1, 1, 0, 1]),
        ("border_aware", CUT, [0, 1, 1, 0, 1], [1, 1, 1, 1, 1]),
        ("three_class", INSIDE, [0, 0, 1, 0, 1], [1, 0, 1, 1, 1]),
        ("true", INSIDE, [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
    ],
)
def test_policies_by_hand(policy: str, labels: Labels, present: list[int], weight: list[int]) -> None:
    label = POLICIES[policy].label(labels, IN_WINDOW)
    assert label.present.tolist() == [bool(x) for x in present]
    assert label.present_weight.tolist() == weight


@pytest.mark.parametrize("policy", POLICIES)
def test_many_persons_are_labelled_as_each_by_itself(policy: str) -> None:
    rng = np.random.default_rng(0)
    visibility, truth = rng.integers(3, size=(2, 40, 17))
    at_border, in_window = rng.random(40) < 0.3, rng.random((40, 17)) < 0.9
    together = POLICIES[policy].label(Labels(visibility, truth, at_border), in_window)
    for i in range(40):
        alone = POLICIES[policy].label(Labels(visibility[i], truth[i], at_border[i]), in_window[i])
        np.testing.assert_array_equal(together.present[i], alone.present)
        np.testing.assert_array_equal(together.present_weight[i], alone.present_weight)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_says_what_it_reads(policy: str) -> None:
    """Only those that say so change with the window, and only they need the truth."""
    labels = Labels(np.full(17, 2), np.full(17, 2), np.array(True))
    shown, hidden = (POLICIES[policy].label(labels, np.full(17, value)) for value in (True, False))
    assert (shown.present != hidden.present).any() == POLICIES[policy].reads_window
    if POLICIES[policy].needs_truth:
        with pytest.raises(UserError, match="no true_keypoints, wanted drawn people"):
            POLICIES[policy].label(labels._replace(true_visibility=None), np.full(17, True))
    else:
        POLICIES[policy].label(labels._replace(true_visibility=None), np.full(17, True))


def test_boxes_at_the_border() -> None:
    boxes = np.array([[2.1, 5, 20, 20], [2, 5, 20, 20], [5, 5, 93, 20], [5, 5, 20, 72.5], [5, 5, 20, 73]], dtype=float)
    sizes = np.tile([100, 80], (5, 1))
    assert reaches_border(boxes, sizes).tolist() == [False, True, True, False, True]
