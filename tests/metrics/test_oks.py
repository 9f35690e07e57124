import contextlib
import copy
import io
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench.data.keypoints import NUM_KEYPOINTS, OKS_SIGMAS
from bench.errors import UserError
from bench.metrics.oks import STATS, evaluate_oks, oks_intervals

ToyCoco = tuple[dict[str, Any], list[dict[str, Any]]]
MakeCoco = Callable[[int, int], ToyCoco]


def make_truth(*people: dict[str, Any]) -> dict[str, Any]:
    return {"images": [{"id": i} for i in sorted({p["image_id"] for p in people})], "annotations": list(people)}


def make_large_person(image_id: int, labelled: tuple[int, ...] = tuple(range(NUM_KEYPOINTS))) -> dict[str, Any]:
    """Area 10,000 (large), keypoints on a diagonal."""
    keypoints = [[10.0 * k, 10.0 * k, 2.0] if k in labelled else [0.0, 0.0, 0.0] for k in range(NUM_KEYPOINTS)]
    return {
        "id": image_id,
        "image_id": image_id,
        "category_id": 1,
        "keypoints": [value for triplet in keypoints for value in triplet],
        "num_keypoints": len(labelled),
        "bbox": [0, 0, 160, 160],
        "area": 10000.0,
        "iscrowd": 0,
    }


def as_result(person: dict[str, Any], score: float = 0.5, shift: float = 0.0) -> dict[str, Any]:
    keypoints = [value + shift * (i % 3 == 0) for i, value in enumerate(person["keypoints"])]
    return {"image_id": person["image_id"], "category_id": 1, "keypoints": keypoints, "score": score}


def evaluate_with(coco_class: Any, make_evaluator: Callable[..., Any], truth: dict[str, Any], results: Any) -> Any:
    truth, results = copy.deepcopy((truth, results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_class()
        coco.dataset = truth
        coco.createIndex()
        evaluator = make_evaluator(coco, coco.loadRes(results))
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return np.where(evaluator.stats == -1, np.nan, evaluator.stats)


def values(stats: dict[str, float]) -> list[float]:
    assert tuple(stats) == STATS
    return list(stats.values())


def test_equals_pycocotools(make_coco: MakeCoco) -> None:
    for seed in range(12):
        truth, results = make_coco(seed, 6)
        expected = evaluate_with(COCO, lambda gt, dt: COCOeval(gt, dt, "keypoints"), truth, results)
        np.testing.assert_allclose(values(evaluate_oks(truth, results).stats), expected, rtol=0, atol=1e-12)


def test_equals_xtcocotools(make_coco: MakeCoco) -> None:
    try:
        from xtcocotools import coco, cocoeval
    except (ImportError, ValueError) as error:  # ValueError: built against another numpy
        pytest.skip(f"xtcocotools does not import: {error}")
    for seed in range(12):
        truth, results = make_coco(seed, 6)
        expected = evaluate_with(
            coco.COCO, lambda gt, dt: cocoeval.COCOeval(gt, dt, "keypoints", OKS_SIGMAS), truth, results
        )
        np.testing.assert_allclose(values(evaluate_oks(truth, results).stats), expected, rtol=0, atol=1e-9)


def test_ground_truth_scores_one(toy_coco: ToyCoco) -> None:
    truth, _ = toy_coco
    # Not the unlabelled ones: their copies, all points at (0, 0), would be false detections.
    people = [p for p in truth["annotations"] if p["num_keypoints"] and not p["iscrowd"]]
    stats = evaluate_oks(truth, [as_result(person) for person in people]).stats
    assert values(stats) == pytest.approx([1.0] * 10)


def test_order_of_people_changes_nothing(toy_coco: ToyCoco) -> None:
    truth, results = toy_coco
    rng = np.random.default_rng(0)
    # Ties are broken by order, here as in COCO's own tool, so the scores must differ.
    results = [
        {**result, "score": float(score)} for result, score in zip(results, rng.permutation(len(results)), strict=True)
    ]
    shuffled = {
        "images": list(rng.permutation(truth["images"])),
        "annotations": list(rng.permutation(truth["annotations"])),
    }
    permuted = evaluate_oks(shuffled, list(rng.permutation(results)))
    assert permuted.stats == evaluate_oks(truth, results).stats


def test_inputs_are_left_alone_and_nothing_is_printed(toy_coco: ToyCoco, capsys: pytest.CaptureFixture[str]) -> None:
    before = copy.deepcopy(toy_coco)
    evaluate_oks(*toy_coco)
    assert toy_coco == before
    assert capsys.readouterr().out == ""


def test_one_keypoint_at_a_known_distance() -> None:
    # One labelled keypoint k, so OKS = exp(-d^2 / (2 area (2 sigma_k)^2)); d is chosen for OKS = .72,
    # which passes the thresholds .50 .55 .60 .65 .70: five of ten.
    person = make_large_person(1, labelled=(9,))
    distance = math.sqrt(-math.log(0.72) * 2 * 10000 * (2 * 0.062) ** 2)
    stats = evaluate_oks(make_truth(person), [as_result(person, shift=distance)]).stats
    expected = {
        "AP": 0.5,
        "AP50": 1,
        "AP75": 0,
        "APM": np.nan,
        "APL": 0.5,
        "AR": 0.5,
        "AR50": 1,
        "AR75": 0,
        "ARM": np.nan,
    }
    assert {name: stats[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_unlabelled_keypoints_do_not_count() -> None:
    person = make_large_person(1, labelled=(0, 5, 11))
    result = as_result(person)
    result["keypoints"][3 * 16 : 3 * 16 + 2] = [5000.0, 5000.0]
    assert evaluate_oks(make_truth(person), [result]).stats["AP"] == pytest.approx(1.0)


def test_score_order_decides_average_precision() -> None:
    # Two people, one found and one missed by far. Right one first: precision 1 up to recall 1/2, which is 51 of the 101
    # recall points. Wrong one first: precision 1/2 there.
    people = [make_large_person(1), make_large_person(2)]
    truth = make_truth(*people)

    def stats(right: float, wrong: float) -> dict[str, float]:
        return evaluate_oks(truth, [as_result(people[0], right), as_result(people[1], wrong, shift=900.0)]).stats

    assert stats(0.9, 0.1)["AP"] == pytest.approx(51 / 101)
    assert stats(0.1, 0.9)["AP"] == pytest.approx(51 / 202)
    assert stats(0.9, 0.1)["AR"] == stats(0.1, 0.9)["AR"] == 0.5


@pytest.mark.parametrize("change", [{"iscrowd": 1}, {"num_keypoints": 0, "keypoints": [0.0] * 3 * NUM_KEYPOINTS}])
def test_crowds_and_unlabelled_people_are_ignored(change: dict[str, Any]) -> None:
    counted, ignored = make_large_person(1), make_large_person(2)
    truth = make_truth(counted, ignored | change)
    missed = evaluate_oks(truth, [as_result(counted)])
    found = evaluate_oks(truth, [as_result(counted), as_result(ignored, score=0.9)])
    assert missed.stats["AP"] == found.stats["AP"] == pytest.approx(1.0)
    assert missed.stats["AR"] == 1.0


def test_no_results_score_zero() -> None:
    stats = evaluate_oks(make_truth(make_large_person(1)), []).stats
    assert [stats[name] for name in STATS if not name.endswith("M")] == [0.0] * 8


def test_nobody_to_find_is_undefined() -> None:
    evaluation = evaluate_oks({"images": [{"id": 1}, {"id": 2}], "annotations": []}, [as_result(make_large_person(1))])
    assert all(math.isnan(value) for value in evaluation.stats.values())


def test_annotation_id_zero_can_be_matched() -> None:
    person = make_large_person(1) | {"id": 0}
    assert evaluate_oks(make_truth(person), [as_result(person)]).stats["AP"] == pytest.approx(1.0)


def test_annotations_of_other_images_are_left_out() -> None:
    truth = make_truth(make_large_person(1))
    truth["annotations"].append(make_large_person(2))
    assert evaluate_oks(truth, [as_result(make_large_person(1))]).stats["AR"] == 1.0


def test_resample_of_every_image_once_changes_nothing(toy_coco: ToyCoco) -> None:
    evaluation = evaluate_oks(*toy_coco)
    assert evaluation.resample(np.arange(20)) == evaluation.stats
    assert 0 < evaluation.stats["AP"] < 1


def test_resample_equals_evaluation_of_repeated_images(make_coco: MakeCoco) -> None:
    truth, results = make_coco(3, 10)
    evaluation = evaluate_oks(truth, results)
    image_ids = sorted(image["id"] for image in truth["images"])
    rng = np.random.default_rng(0)
    for image_index in [*rng.integers(10, size=(8, 10)), np.array([4]), np.array([7, 7, 7])]:
        copies: dict[str, Any] = {"images": [], "annotations": []}
        found = []
        for new_id, image_id in enumerate([image_ids[position] for position in image_index], start=5000):
            copies["images"].append({"id": new_id})
            people = [p for p in truth["annotations"] if p["image_id"] == image_id]
            copies["annotations"] += [{**p, "id": 100 * new_id + i, "image_id": new_id} for i, p in enumerate(people)]
            found += [{**r, "image_id": new_id} for r in results if r["image_id"] == image_id]
        brute_force = evaluate_oks(copies, found).stats
        np.testing.assert_allclose(values(evaluation.resample(image_index)), values(brute_force), rtol=0, atol=1e-12)


def test_intervals_hold_their_value_and_narrow_with_images(make_coco: MakeCoco) -> None:
    few, many = (oks_intervals(evaluate_oks(*make_coco(1, n)), 100, np.random.default_rng(0)) for n in (15, 120))
    for intervals in (few, many):
        assert tuple(intervals) == STATS
        assert all(low <= value <= high for value, low, high in intervals.values())
    assert many["AP"].high - many["AP"].low < 0.7 * (few["AP"].high - few["AP"].low)


def test_intervals_follow_the_seed(toy_coco: ToyCoco) -> None:
    evaluation = evaluate_oks(*toy_coco)
    first, again, other = (oks_intervals(evaluation, 20, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_two_hundred_resamples_are_quick(make_coco: MakeCoco) -> None:
    evaluation = evaluate_oks(*make_coco(0, 200))
    start = time.process_time()
    oks_intervals(evaluation, 200, np.random.default_rng(0))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [math.nan] + [0.0] * 50}, r"results\[1\]: found nan in keypoint 0"),
        ({"keypoints": [0.0] * 48 + [math.inf, 0.0, 0.0]}, r"results\[1\]: found inf in keypoint 16"),
        ({"keypoints": [0.0] * 48}, r"results\[1\]: found 48 keypoint values, wanted 51"),
        ({"image_id": 77}, r"results\[1\]: found image_id 77, wanted an image"),
        ({"category_id": 2}, r"results\[1\]: found category_id 2, wanted 1"),
        ({"score": math.nan}, r"results\[1\]: found score nan"),
        ({"bbox": [0, 0, 1, 1]}, r"results\[1\]: found keys bbox, .*wanted category_id, image_id, keypoints, score"),
    ],
)
def test_broken_results_are_refused_by_index(change: dict[str, Any], message: str) -> None:
    person = make_large_person(1)
    with pytest.raises(UserError, match=message):
        evaluate_oks(make_truth(person), [as_result(person), as_result(person) | change])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [0.0] * 48}, "ground truth: annotation 1: keypoints"),
        ({"area": math.nan}, "ground truth: annotation 1: area"),
        ({"category_id": 3}, "ground truth: annotation 1: category_id: found 3, wanted 1"),
    ],
)
def test_broken_annotations_are_refused_by_id(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate_oks(make_truth(make_large_person(1) | change), [])


def test_no_images_are_refused() -> None:
    with pytest.raises(UserError, match="found no images"):
        evaluate_oks({"images": [], "annotations": []}, [])
