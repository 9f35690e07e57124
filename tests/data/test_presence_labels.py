import numpy as np
import pytest

from bench.data.presence import POLICIES, Labels
from bench.errors import UserError

VISIBILITY = np.array([0, 1, 2, 0])
TRUTH = np.array([0, 1, 2, 1])  # the last one is in the image, but the annotator left it out


@pytest.mark.parametrize(
    ("policy", "present"),
    [("labelled", [0, 1, 1, 0]), ("visible", [0, 0, 1, 0]), ("true", [0, 1, 1, 1])],
)
def test_policies_by_hand(policy: str, present: list[int]) -> None:
    label = POLICIES[policy](Labels(VISIBILITY, TRUTH))
    assert label.present.tolist() == [bool(x) for x in present]
    assert label.present_weight.tolist() == [1, 1, 1, 1]


def test_truth_needs_drawn_people() -> None:
    with pytest.raises(UserError, match="no true_keypoints, wanted drawn people"):
        POLICIES["true"](Labels(VISIBILITY, None))
