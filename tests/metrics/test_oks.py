"""What must hold of our evaluator by itself; that it agrees with others: test_evaluators_agree.py."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.people import Truth
from bench.metrics.average_precision import STATS, Evaluation, OKSEvaluation, mix
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.oks import RULES, everyone, match
from tests.metrics.evaluators import (
    Case,
    Dict,
    as_result,
    draw_case,
    make_large_person,
    make_truth,
    our_matches,
    our_stats,
    ours,
)

ToyCoco = tuple[dict[str, Any], list[dict[str, Any]]]
MakeCoco = Callable[[int, int], ToyCoco]


def assert_same(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.fixture
def toy(toy_coco: ToyCoco) -> Case:
    """Twenty images; no two scores are equal, for ties are broken by order, as in COCO's own tool."""
    coco, entries = toy_coco
    scores = np.random.default_rng(0).permutation(len(entries)).tolist()
    return Case(coco, [entry | {"score": float(score)} for entry, score in zip(entries, scores, strict=True)])


def test_ground_truth_scores_one(toy: Case) -> None:
    # Not the unlabelled ones: their copies, all points at (0, 0), would be false detections.
    people = [p for p in toy.coco["annotations"] if p["num_keypoints"] and not p["iscrowd"]]
    assert_same(ours(toy._replace(entries=[as_result(person) for person in people])), np.ones(len(STATS)))


def test_order_changes_nothing(toy: Case) -> None:
    rng = np.random.default_rng(0)
    coco = {
        "images": list(rng.permutation(toy.coco["images"])),
        "annotations": rng.permutation(toy.coco["annotations"]),
    }
    assert our_stats(Case(coco, list(rng.permutation(toy.entries)))) == our_stats(toy)


def test_inputs_are_left_alone_and_nothing_is_printed(toy: Case, capsys: pytest.CaptureFixture[str]) -> None:
    before = copy.deepcopy(toy)
    ours(toy)
    assert toy == before
    assert capsys.readouterr().out == ""


def test_one_keypoint_at_a_known_distance() -> None:
    # One labelled keypoint k, so OKS = exp(-d^2 / (2 area (2 sigma_k)^2)); d is chosen for OKS = .72,
    # which passes the thresholds .50 .55 .60 .65 .70: five of ten.
    person = make_large_person(1, labelled=(9,))
    distance = math.sqrt(-math.log(0.72) * 2 * 10000 * (2 * 0.062) ** 2)
    stats = our_stats(Case(make_truth(person), [as_result(person, shift=distance)]))
    half = dict.fromkeys(("AP", "APL", "AR", "ARL"), 0.5)
    expected = half | {"AP50": 1, "AR50": 1, "AP75": 0, "AR75": 0, "APM": math.nan, "ARM": math.nan}
    assert stats == pytest.approx(expected, nan_ok=True)


def test_unlabelled_keypoints_do_not_count() -> None:
    person = make_large_person(1, labelled=(0, 5, 11))
    result = as_result(person)
    result["keypoints"][3 * 16 : 3 * 16 + 2] = [5000.0, 5000.0]
    assert our_stats(Case(make_truth(person), [result]))["AP"] == pytest.approx(1.0)


def test_score_order_decides_average_precision() -> None:
    # Two people, one found and one missed by far. Right one first: precision 1 up to recall 1/2, which is 51 of the 101
    # recall points. Wrong one first: precision 1/2 there.
    people = [make_large_person(1), make_large_person(2)]

    def stats(right: float, wrong: float) -> dict[str, float]:
        entries = [as_result(people[0], right), as_result(people[1], wrong, shift=900.0)]
        return our_stats(Case(make_truth(*people), entries))

    assert stats(0.9, 0.1)["AP"] == pytest.approx(51 / 101)
    assert stats(0.1, 0.9)["AP"] == pytest.approx(51 / 202)
    assert stats(0.9, 0.1)["AR"] == stats(0.1, 0.9)["AR"] == 0.5


@pytest.mark.parametrize("change", [{"iscrowd": 1}, {"num_keypoints": 0, "keypoints": [0.0] * 51}])
def test_crowds_and_unlabelled_people_are_ignored(change: Dict) -> None:
    counted, ignored = make_large_person(1), make_large_person(2)
    truth = make_truth(counted, ignored | change)
    missed = our_stats(Case(truth, [as_result(counted)]))
    found = our_stats(Case(truth, [as_result(counted), as_result(ignored, score=0.9)]))
    assert missed["AP"] == found["AP"] == pytest.approx(1.0)
    assert missed["AR"] == 1.0


def test_a_crowd_takes_many_and_a_person_one() -> None:
    person = make_large_person(1)
    for annotated, num_misses in ((person, 2), (person | {"iscrowd": 1}, 0)):
        matches = our_matches(Case(make_truth(annotated), [as_result(person)] * 3))
        assert (matches.person[0, 0] < 0).sum() == num_misses


def test_only_the_twenty_best_of_an_image_count() -> None:
    person = make_large_person(1)
    strays = [as_result(person, score=0.9, shift=900.0)] * 20
    for found in ([*strays[1:], as_result(person)], [*strays, as_result(person)]):
        recall = our_stats(Case(make_truth(person), found))["AR"]
        assert recall == (1.0 if len(found) == 20 else 0.0)


def test_nobody_to_find_is_undefined() -> None:
    case = Case({"images": [{"id": 1}, {"id": 2}], "annotations": []}, [as_result(make_large_person(1))])
    assert np.isnan(ours(case)).all()
    assert np.isnan(ours(case._replace(entries=[]))).all()


def test_annotations_of_other_images_are_left_out() -> None:
    truth = make_truth(make_large_person(1))
    truth["annotations"].append(make_large_person(2))
    assert our_stats(Case(truth, [as_result(make_large_person(1))]))["AR"] == 1.0


def test_a_group_of_everyone_is_the_first_of_the_groups_by_area(toy: Case) -> None:
    truth = Truth.of(toy.coco)
    triplets = np.array([entry["keypoints"] for entry in toy.entries]).reshape(-1, 17, 3)
    image_ids, scores = (np.array([entry[key] for entry in toy.entries]) for key in ("image_id", "score"))
    found = truth.detections(image_ids, triplets[..., :2], triplets[..., 2], scores)
    evaluation = Evaluation(match(truth.people, found, truth.num_images, groups=everyone(truth.people, found)))
    stats = our_stats(toy)
    assert evaluation.group_stats(np.ones(truth.num_images)).tolist() == [[stats["AP"], stats["AR"]]]


# Resampled images


def test_every_image_once_changes_nothing(toy: Case) -> None:
    evaluation = OKSEvaluation(our_matches(toy))
    assert evaluation.stats_of(np.ones(20, dtype=np.int32)).tolist() == list(evaluation.stats.values())
    assert 0 < evaluation.stats["AP"] < 1


def repeated(case: Case, counts: NDArray[np.int64]) -> Case:
    """As many copies of each image, in the order of ids, as images of their own."""
    images, people, entries = [], [], []
    for image_id, count in zip(sorted(image["id"] for image in case.coco["images"]), counts, strict=True):
        for _ in range(count):
            new = {"image_id": len(images) + 1}
            images.append({"id": new["image_id"]})
            people += [person | new for person in case.coco["annotations"] if person["image_id"] == image_id]
            entries += [entry | new for entry in case.entries if entry["image_id"] == image_id]
    return Case({"images": images, "annotations": people}, entries)


def test_a_resample_is_the_evaluation_of_repeated_images(make_coco: MakeCoco) -> None:
    rng = np.random.default_rng(0)
    for seed in range(8):
        coco, entries = make_coco(seed, 10)
        case = Case(coco, [entry | {"score": float(rng.random())} for entry in entries])
        evaluation = OKSEvaluation(our_matches(case))
        for drawn in (rng.integers(10, size=10), rng.integers(10, size=10), np.array([4]), np.array([7, 7, 7])):
            counts = np.bincount(drawn, minlength=10)
            assert_same(evaluation.stats_of(counts), ours(repeated(case, counts)))


def test_a_resample_of_drawn_cases_is_the_evaluation_of_repeated_images() -> None:
    """Under other rules too, with all the oddities but equal scores, whose order copies would change."""
    rng = np.random.default_rng(0)
    for seed in range(100):
        case = draw_case(seed)
        case = case._replace(entries=[entry | {"score": float(rng.random())} for entry in case.entries])
        counts = rng.integers(3, size=len(case.coco["images"]))
        for rules in (RULES["coco"], RULES["xtcocotools_before_1_12"]):
            found = OKSEvaluation(our_matches(case, rules)).stats_of(counts)
            assert_same(found, ours(repeated(case, counts), rules) if counts.any() else np.full(len(STATS), np.nan))


def test_intervals_hold_their_value_and_narrow_with_images(make_coco: MakeCoco) -> None:
    widths = []
    for num_images in (15, 120):
        evaluation = OKSEvaluation(our_matches(Case(*make_coco(1, num_images))))
        resampling = draw_resampling(num_images, 100, "percentile", np.random.default_rng(0))
        intervals = resampling.intervals(np.stack([evaluation.stats_of(counts) for counts in resampling.counts]))
        assert all(low <= value <= high for value, low, high in intervals)
        widths.append(intervals[0].high - intervals[0].low)
    assert widths[1] < 0.7 * widths[0]


def two_systems(seed: int) -> tuple[Case, Case]:
    """Two lists of detections of the same people."""
    first = draw_case(seed)
    rng = np.random.default_rng(seed)
    moved = np.array([entry["keypoints"] for entry in first.entries]) + rng.normal(size=(len(first.entries), 51))
    entries = [entry | {"keypoints": row} for entry, row in zip(first.entries, moved.tolist(), strict=True)]
    return first, first._replace(entries=entries[len(entries) // 3 :])


def test_all_images_of_one_of_two_mixed_systems_are_that_system() -> None:
    for seed in range(50):
        first, second = two_systems(seed)
        mixed = OKSEvaluation(mix(our_matches(first), our_matches(second)))
        one, none = np.ones(len(first.coco["images"])), np.zeros(len(first.coco["images"]))
        np.testing.assert_array_equal(mixed.stats_of(np.concatenate([one, none])), ours(first))
        np.testing.assert_array_equal(mixed.stats_of(np.concatenate([none, one])), ours(second))


def test_some_images_of_each_system_are_the_evaluation_of_their_entries() -> None:
    rng = np.random.default_rng(0)
    for seed in range(50):
        first, second = two_systems(seed)
        scores = rng.permutation(len(first.entries) + len(second.entries)).tolist()  # ties are broken by system
        first, second = (
            case._replace(entries=[entry | {"score": float(scores.pop())} for entry in case.entries])
            for case in (first, second)
        )
        ids = np.array(sorted(image["id"] for image in first.coco["images"]))
        of_second = rng.random(len(ids)) < 0.5
        traded = set(ids[of_second].tolist())
        kept = [entry for entry in first.entries if entry["image_id"] not in traded]
        kept += [entry for entry in second.entries if entry["image_id"] in traded]
        mixed = OKSEvaluation(mix(our_matches(first), our_matches(second)))
        assert_same(mixed.stats_of(np.concatenate([~of_second, of_second])), ours(first._replace(entries=kept)))
