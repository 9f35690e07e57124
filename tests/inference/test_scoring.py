from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.people import Truth
from bench.data.predictions import Split
from bench.errors import UserError
from bench.inference.poses import scored_detections
from bench.inference.scoring import SCORE_RULES, person_scores
from bench.metrics.average_precision import OKSEvaluation
from bench.metrics.oks import ignored_people, match

BBOX_SCORE = np.array([0.5, 0.8, 1.0])
SCORE = np.array([[0.9, 0.5, 0.2, 0.1], [0.2, 0.1, 0.0, -0.3], [0.6, 0.4, 0.3, 0.7]])
PRESENCE = np.array([[1.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])

Drawn = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


@pytest.fixture(params=range(5))
def drawn(request: pytest.FixtureRequest) -> Drawn:
    """bbox_score (50,), score and presence (50, 17); some persons have no keypoint by their presence or score."""
    rng = np.random.default_rng(request.param)
    bbox_score, score, presence = rng.random(50), rng.random((50, 17)), rng.random((50, 17))
    presence[:5], presence[5:8], presence[8:10] = 0, 1, 1e-320
    score[10:15], score[15:18] = 0, 1
    return bbox_score, score, presence


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("box", [0.5, 0.8, 1.0]),
        # .2 itself does not count; the mean is over the keypoints that count, not over all.
        ("box_keypoint", [0.5 * (0.9 + 0.5) / 2, 0.0, (0.6 + 0.4 + 0.3 + 0.7) / 4]),
        ("box_presence", [0.5 * 2 / 4, 0.0, 0.25]),
        # The first: (1 x .9 + .5 x .5 + .5 x .2 + 0 x .1) / (1 + .5 + .5 + 0) = 1.25 / 2.
        ("presence_weighted", [0.5 * 0.625, 0.0, 0.5]),
    ],
)
def test_rules_by_hand(rule: str, expected: list[float]) -> None:
    np.testing.assert_allclose(person_scores(rule, BBOX_SCORE, SCORE, PRESENCE), expected, rtol=0, atol=1e-15)


def test_the_rules_by_hand_are_all_rules() -> None:
    assert list(SCORE_RULES) == ["box", "box_keypoint", "box_presence", "presence_weighted"]
    assert [name for name, rule in SCORE_RULES.items() if rule.needs_presence] == ["box_presence", "presence_weighted"]
    assert len({rule.meaning for rule in SCORE_RULES.values()}) == len(SCORE_RULES)


@pytest.mark.parametrize("rule", SCORE_RULES)
def test_scores_are_finite_and_lie_between_nothing_and_the_box(rule: str, drawn: Drawn) -> None:
    found = person_scores(rule, *drawn)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= drawn[0] * (1 + 1e-12)).all()


@pytest.mark.parametrize("rule", SCORE_RULES)
def test_better_boxes_never_score_lower(rule: str, drawn: Drawn) -> None:
    bbox_score, score, presence = drawn
    higher = bbox_score + 0.3 * np.random.default_rng(9).random(50)
    before, after = (person_scores(rule, values, score, presence) for values in (bbox_score, higher))
    assert (after >= before).all()
    assert (after > before).any()


@pytest.mark.parametrize("rule", SCORE_RULES)
def test_persons_do_not_touch_each_other(rule: str, drawn: Drawn) -> None:
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_array_equal(
        person_scores(rule, *(values[order] for values in drawn)), person_scores(rule, *drawn)[order]
    )


def test_what_each_rule_looks_at(drawn: Drawn) -> None:
    bbox_score, score, presence = drawn
    np.testing.assert_array_equal(person_scores("box", bbox_score, 1 - score, None), bbox_score)
    for rule, values in [("box_keypoint", (score, 1 - presence)), ("box_presence", (1 - score, presence))]:
        np.testing.assert_array_equal(person_scores(rule, bbox_score, *values), person_scores(rule, *drawn))


def test_equal_presence_weights_give_the_plain_mean(drawn: Drawn) -> None:
    bbox_score, score, _ = drawn
    for presence in (np.ones((50, 17)), np.full((50, 17), 0.3)):
        found = person_scores("presence_weighted", bbox_score, score, presence)
        np.testing.assert_allclose(found, bbox_score * score.mean(axis=1), rtol=1e-12)


def test_presence_alone_decides_which_keypoints_count() -> None:
    # The peak of an absent keypoint is no evidence: it changes the score by peak, but not the one by presence.
    presence = np.array([[1.0, 1.0, 0.0, 0.0]])
    for peak in (0.0, 0.5, 0.9):
        score = np.array([[0.8, 0.6, peak, peak]])
        assert person_scores("presence_weighted", np.ones(1), score, presence) == pytest.approx([0.7])


def test_single_precision_is_compared_and_summed_in_double() -> None:
    rng = np.random.default_rng(0)
    bbox_score, *maps = (rng.random(shape).astype(np.float32) for shape in ((20,), (20, 17), (20, 17)))
    maps[0][:, 3] = 0.2  # which in single precision is a little more
    for rule in SCORE_RULES:
        doubles = person_scores(rule, bbox_score.astype(np.float64), *(values.astype(np.float64) for values in maps))
        np.testing.assert_array_equal(person_scores(rule, bbox_score, *maps), doubles)


@pytest.mark.parametrize("rule", ["box_presence", "presence_weighted"])
def test_rules_that_need_presence_refuse_to_go_without(rule: str) -> None:
    with pytest.raises(UserError, match=f"score rule {rule}: found a model without presence, wanted one with"):
        person_scores(rule, BBOX_SCORE, SCORE, None)


@pytest.mark.parametrize("value", [np.nan, -0.1, 3.5])
@pytest.mark.parametrize("rule", ["box_presence", "presence_weighted"])
def test_presence_must_be_probabilities(rule: str, value: float) -> None:
    presence = PRESENCE.copy()
    presence[1, 2] = value
    message = f"score rule {rule}: presence of person 1, keypoint 2: found {value:g}, wanted a probability"
    with pytest.raises(UserError, match=message):
        person_scores(rule, BBOX_SCORE, SCORE, presence)
    person_scores("box_keypoint", BBOX_SCORE, SCORE, presence)


def test_labels_as_predictions_score_one(toy_coco: tuple[dict[str, Any], Any]) -> None:
    truth = Truth.of(toy_coco[0])
    people = truth.people
    counted = ~ignored_people(people)
    score = np.ones((int(counted.sum()), 17))
    for rule in SCORE_RULES:
        scores = person_scores(rule, np.ones(len(score)), score, score)
        poses = truth.detections(truth.image_ids[people.image[counted]], people.keypoints[counted], score, scores)
        stats = OKSEvaluation(match(people, poses, truth.num_images)).stats
        assert list(stats.values()) == pytest.approx([1.0] * 10)


def make_split(num_persons: int, **changes: Any) -> Split:
    """Persons of one image, far from each other, each scored higher than the one before."""
    ids = np.arange(num_persons)
    keypoints = np.random.default_rng(0).uniform(0, 100, size=(num_persons, 17, 2)) + 1000 * ids[:, None, None]
    split = Split(
        image_ids=np.full(num_persons, 7), annotation_ids=ids, bbox_score=(ids + 1) / num_persons,
        view_area=np.full(num_persons, 1e4), keypoints=keypoints, score=np.full((num_persons, 17), 0.5),
        presence_logits=None,
        statistics={}, present=np.ones((num_persons, 17), dtype=bool), present_weight=np.ones((num_persons, 17)),
    )  # fmt: skip
    return split._replace(**changes)


def test_repeated_poses_are_evaluated_once_unless_all_stay() -> None:
    truth = Truth.of({"images": [{"id": 7}], "annotations": []})
    split = make_split(4)
    split = split._replace(keypoints=split.keypoints[[0, 1, 1, 3]])
    kept = scored_detections(split, truth, "box", nms_threshold=0.9)
    np.testing.assert_array_equal(kept.score, [0.25, 0.75, 1.0])
    assert len(scored_detections(split, truth, "box", nms_threshold=None).score) == 4


def test_the_view_says_how_alike_poses_are() -> None:
    """Poses 20 pixels apart are the same on a person of 1,000 pixels, and not on one of 100."""
    truth = Truth.of({"images": [{"id": 7}], "annotations": []})
    near = make_split(1).keypoints + np.array([0.0, 20.0])[:, None, None]
    large, small = (make_split(2, keypoints=near, view_area=np.full(2, area)) for area in (1e6, 1e4))
    assert [len(scored_detections(split, truth, "box", 0.9).score) for split in (large, small)] == [1, 2]
