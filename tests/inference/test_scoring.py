from typing import Any

import numpy as np
import pytest

from bench.errors import UserError
from bench.inference.scoring import SCORE_RULES, to_coco_results
from bench.metrics.oks import evaluate_oks


def test_rules_have_these_names() -> None:
    assert list(SCORE_RULES) == ["box", "box_keypoint"]


def test_box_rule_does_not_look_at_keypoints() -> None:
    score = np.random.default_rng(0).random((2, 17))
    np.testing.assert_array_equal(SCORE_RULES["box"](np.array([0.3, 0.9]), score), [0.3, 0.9])


def test_box_keypoint_rule_by_hand() -> None:
    # .2 itself does not count; the mean is over the keypoints that count, not over all.
    score = np.array([[0.9, 0.5, 0.2, 0.1], [0.2, 0.1, 0.0, -0.3]])
    person_score = SCORE_RULES["box_keypoint"](np.array([0.5, 0.8]), score)
    np.testing.assert_allclose(person_score, [0.5 * 0.7, 0.0], rtol=0, atol=1e-15)


def test_results_have_cocos_fields_and_no_bbox() -> None:
    keypoints = np.array([[[1.0, 2.0], [3.5, 4.5]]], dtype=np.float32)
    results = to_coco_results(np.array([7]), keypoints, np.array([[0.5, 0.25]], dtype=np.float32), np.array([0.75]))
    expected = {"image_id": 7, "category_id": 1, "keypoints": [1.0, 2.0, 0.5, 3.5, 4.5, 0.25], "score": 0.75}
    assert results == [expected]
    assert [type(value) for value in results[0].values()] == [int, int, list, float]  # so that json.dump takes it


def test_labels_as_predictions_score_one(toy_coco: tuple[dict[str, Any], Any]) -> None:
    truth, _ = toy_coco
    people = [person for person in truth["annotations"] if person["num_keypoints"] and not person["iscrowd"]]
    keypoints = np.array([person["keypoints"] for person in people]).reshape(len(people), 17, 3)
    score = np.ones((len(people), 17))
    for rule in SCORE_RULES.values():
        image_ids = np.array([person["image_id"] for person in people])
        results = to_coco_results(image_ids, keypoints[..., :2], score, rule(np.ones(len(people)), score))
        assert list(evaluate_oks(truth, results).stats.values()) == pytest.approx([1.0] * 10)


def test_no_people_give_no_results() -> None:
    assert to_coco_results(np.zeros(0, int), np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros(0)) == []


@pytest.mark.parametrize("changed", ["image_ids", "keypoints", "person_scores"])
def test_shapes_must_agree(changed: str) -> None:
    arrays = {
        "image_ids": np.array([1, 2]),
        "keypoints": np.zeros((2, 17, 2)),
        "score": np.zeros((2, 17)),
        "person_scores": np.zeros(2),
    }
    with pytest.raises(UserError, match="of shapes"):
        to_coco_results(**{**arrays, changed: arrays[changed][:1]})
