import numpy as np
import pytest

from bench.data.coco import reaches_border
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.presence import POLICIES, EmptyClass, Labels, empty_class_lines, empty_classes
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


def people(visibility: int, **changed: int) -> Labels:
    """Two persons away from the border whose keypoints have one v, but `changed` ones (`k3=0`) of the first."""
    found = np.full((2, NUM_KEYPOINTS), visibility)
    for name, value in changed.items():
        found[0, int(name[1:])] = value
    return Labels(found, None, np.zeros(2, dtype=bool))


NO_V0 = EmptyClass(["labelled", "visible", "border_aware", "three_class"], "absent", [])


def test_where_everything_is_visible_nothing_is_absent() -> None:
    assert empty_classes(people(2)) == [NO_V0]


def test_where_everything_is_hidden_policies_differ() -> None:
    assert empty_classes(people(1)) == [
        EmptyClass(["labelled", "border_aware", "three_class"], "absent", []),
        EmptyClass(["visible", "three_class"], "present", []),  # three_class ignores all of it
    ]


def test_a_kind_of_keypoint_that_is_never_labelled() -> None:
    labels = people(2)
    labels.visibility[:, 15:] = 0
    labels.visibility[0, :15] = 0
    under = ["labelled", "visible", "border_aware", "three_class"]
    assert EmptyClass(under, "present", ["left_ankle", "right_ankle"]) in empty_classes(labels)
    assert [found.keypoints for found in empty_classes(labels) if found.lacking == "absent"] == [[]]  # border_aware


def test_both_classes_of_every_keypoint_leave_nothing_to_say() -> None:
    visibility = np.stack([np.full(NUM_KEYPOINTS, v) for v in (0, 2)])
    labels = Labels(visibility, visibility, np.ones(2, dtype=bool))
    assert empty_classes(labels) == []
    assert empty_class_lines("val", labels) == []


def test_truth_is_looked_at_where_it_is_carried() -> None:
    labels = people(2)._replace(true_visibility=np.full((2, NUM_KEYPOINTS), 2))
    assert empty_classes(labels) == [NO_V0._replace(policies=[*NO_V0.policies, "true"])]


@pytest.mark.parametrize(
    ("split", "consequence"),
    [
        ("train", "neither a presence head nor the box baseline can learn there to tell present from absent"),
        ("calibration", "no calibrator and no regression can be fitted there, and no threshold chosen"),
        ("val", "presence cannot be measured there; pages show an en dash"),
    ],
)
def test_a_line_says_what_follows(split: str, consequence: str) -> None:
    [line] = empty_class_lines(split, people(2))
    start = f"{split}: no absent keypoint under policies labelled, visible, border_aware, three_class: "
    assert line.startswith(start + consequence)


def test_a_line_names_the_keypoints() -> None:
    lines = empty_class_lines("val", people(2, k0=0))
    assert any(line.startswith("val: no absent left eye, right eye, ") for line in lines)
