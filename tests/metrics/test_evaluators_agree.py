"""Our evaluator beside everybody else's: equal to all of them, and where they differ among themselves, known to."""

import inspect
import textwrap
from collections import Counter
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import cocoeval as pycocotools_cocoeval

from bench.data.coco import CROWDPOSE_LAYOUT
from bench.data.keypoints import OKS_SIGMAS
from bench.metrics.average_precision import STATS
from bench.metrics.oks import RULES, THRESHOLDS
from bench.score import REFERENCES, Evaluator, run_evaluator
from tests.metrics.evaluators import (
    Case,
    Dict,
    as_result,
    draw_case,
    make_large_person,
    make_truth,
    our_stats,
    ours,
    with_faster_coco_eval,
)

Array = NDArray[np.float64]
BY_AREA = ["APM", "APL"]


def theirs(case: Case, rules: str = "coco", evaluator: Evaluator | None = None) -> Array:
    return run_evaluator(evaluator or REFERENCES[rules], RULES[rules], case.coco, case.entries)


def named(stats: Array) -> dict[str, float]:
    return dict(zip(STATS, stats.tolist(), strict=True))


def assert_same(found: Array, wanted: Array, message: object = "") -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9, err_msg=str(message))


@pytest.fixture(scope="module")
def xtcocotools() -> ModuleType:
    """Its evaluator's module."""
    try:
        from xtcocotools import cocoeval
    except (ImportError, ValueError) as error:  # ValueError: built against another numpy
        pytest.skip(f"xtcocotools does not import: {error}")
    return cocoeval


@pytest.fixture(scope="module")
def faster_coco_eval() -> None:
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed: pip install it to check")


# Drawn cases


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_equals_pycocotools(first: int) -> None:
    for seed in range(first, first + 100):
        case = draw_case(seed)
        assert_same(ours(case), theirs(case), seed)


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_equals_xtcocotools(first: int, xtcocotools: ModuleType) -> None:
    for seed in range(first, first + 100):
        case = draw_case(seed)
        assert_same(ours(case, RULES["xtcocotools"]), theirs(case, "xtcocotools"), seed)


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_equals_faster_coco_eval(first: int, faster_coco_eval: None) -> None:
    for seed in range(first, first + 100):
        case = draw_case(seed)
        assert_same(ours(case), with_faster_coco_eval(case), seed)


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_equals_xtcocotools_on_crowdpose(first: int, xtcocotools: ModuleType) -> None:
    for seed in range(first, first + 100):
        case = draw_case(seed, CROWDPOSE_LAYOUT)
        assert_same(ours(case, RULES["crowdpose"]), theirs(case, "crowdpose"), seed)


def test_crowdpose_rules_without_its_count_of_keypoints(xtcocotools: ModuleType) -> None:
    """Its other type of evaluation, which counts keypoints itself: the same sigmas and areas of boxes."""
    rules = RULES["crowdpose"]._replace(count_labels=True)
    for seed in range(50):
        case = draw_case(seed, CROWDPOSE_LAYOUT)
        expected = theirs(case, "crowdpose", Evaluator("xtcocotools", "keypoints"))
        assert_same(ours(case, rules), expected, seed)


def test_crowdpose_people_of_whom_head_and_neck_alone_are_labelled(xtcocotools: ModuleType) -> None:
    """Nobody counts in them, as num_keypoints is 0, but they can be matched."""
    for seed in range(100):
        case = draw_case(seed, CROWDPOSE_LAYOUT)
        for person in case.coco["annotations"][::2]:
            person["keypoints"][:36] = [0.0] * 36
            person["num_keypoints"] = 0
        assert_same(ours(case, RULES["crowdpose"]), theirs(case, "crowdpose"), seed)


@pytest.mark.parametrize("rules", ["coco", "xtcocotools", "xtcocotools_before_1_12"])
def test_cropcoco_as_shipped(rules: str, xtcocotools: ModuleType) -> None:
    """v = 3, and counts from before the picture was cut, also of people of whom nothing is left or was counted."""
    rng = np.random.default_rng(0)
    alike = [STATS.index(stat) for stat in REFERENCES[rules].stats]
    for seed in range(100):
        case = draw_case(seed)
        for person in case.coco["annotations"]:
            level = rng.choice([0, 1, 3], 17) * (rng.random() < 0.8)
            person["keypoints"][2::3] = level.tolist()
            person["num_keypoints"] = int(rng.choice([0, 5, 17]))
        assert_same(ours(case, RULES[rules])[alike], theirs(case, rules)[alike], seed)


def test_the_constants_are_pycocotools_own() -> None:
    params = pycocotools_cocoeval.Params(iouType="keypoints")
    np.testing.assert_allclose(OKS_SIGMAS, params.kpt_oks_sigmas, rtol=1e-15)
    np.testing.assert_array_equal(THRESHOLDS, params.iouThrs)
    assert params.maxDets == [RULES["coco"].max_detections]


def test_the_drawn_cases_hold_everything() -> None:
    """Each oddity in at least 15 of 500 cases, or the tests above would not say what they seem to say."""
    seen: Counter[str] = Counter()
    for seed in range(500):
        case = draw_case(seed)
        seen.update(oddities(case))
    rare = {name: number for name, number in seen.items() if number < 15}
    assert not rare
    assert len(seen) == 17


def oddities(case: Case) -> set[str]:
    people, entries = case.coco["annotations"], case.entries
    image_ids = [image["id"] for image in case.coco["images"]]
    found = Counter(entry["image_id"] for entry in entries)
    scores = [entry["score"] for entry in entries]
    poses = [points_of(entry) for entry in entries]
    areas = {float(np.prod(np.ptp(points, axis=0))) for points in poses}
    kinds = Counter((person["image_id"], *person["keypoints"]) for person in people)
    stats = ours(case)
    names = {
        "nobody at all": not people,
        "an image without people": set(image_ids) > {person["image_id"] for person in people},
        "an image without detections": set(image_ids) > set(found),
        "all detections in one image": len(found) == 1 < len(image_ids),
        "images out of order": image_ids != sorted(image_ids),
        "people out of order": [p["id"] for p in people] != sorted(p["id"] for p in people),
        "more than 20 detections": max(found.values()) > 20,
        "equal scores": len(set(scores)) < len(scores),
        "crowds": any(person["iscrowd"] for person in people),
        "nobody labelled": any(person["num_keypoints"] == 0 for person in people),
        "people twice": bool(kinds) and max(kinds.values()) > 1,
        "exact detections": any((points_of(p) == points).all() for p in people for points in poses),
        "people at the borders": any(person["area"] in {32.0**2, 96.0**2} for person in people),
        "detections at the borders": bool(areas & {32.0**2, 96.0**2}),
        "no keypoint score": any(max(entry["keypoints"][2::3]) <= 0 for entry in entries),
        "boxes": "bbox" in entries[0],
        "some of it right": bool(0 < stats[0] < 1),
    }
    return {name for name, holds in names.items() if holds}


def points_of(entry: Dict) -> Array:
    return np.array(entry["keypoints"]).reshape(-1, 3)[:, :2]


@pytest.mark.parametrize(("num_labelled", "num_right", "recall"), [(2, 1, 0.1), (4, 3, 0.6), (16, 12, 0.6)])
def test_a_similarity_of_just_the_threshold_is_enough(num_labelled: int, num_right: int, recall: float) -> None:
    """Some of the labelled keypoints are exact and the others far away: OKS is exactly .5, at one of ten thresholds,
    or .75, at six."""
    person = make_large_person(1, labelled=tuple(range(num_labelled)))
    keypoints = as_result(person)["keypoints"]
    far = [value + 1e5 * (i >= 3 * num_right) for i, value in enumerate(keypoints)]
    case = Case(make_truth(person), [as_result(person) | {"keypoints": far}])
    assert our_stats(case)["AR"] == named(theirs(case))["AR"] == pytest.approx(recall)


# What COCO's evaluation never reads


def test_gated_keypoints_change_no_bit(xtcocotools: ModuleType) -> None:
    """14 of 17 keypoints are given the score 0, as a presence head would: nobody notices."""
    for seed in range(20):
        case = draw_case(seed)
        scored = case._replace(entries=[with_third_values(entry, [0.9] * 17) for entry in case.entries])
        gated = case._replace(entries=[with_third_values(entry, [0.9] * 3 + [0.0] * 14) for entry in case.entries])
        for rules in ("coco", "xtcocotools"):
            np.testing.assert_array_equal(ours(gated, RULES[rules]), ours(scored, RULES[rules]))
            np.testing.assert_array_equal(theirs(gated, rules), theirs(scored, rules))


def with_third_values(entry: Dict, third: list[float]) -> Dict:
    return entry | {"keypoints": np.column_stack([points_of(entry), third]).ravel().tolist()}


# Where evaluators differ: toys with numbers by hand


def gated_case() -> Case:
    """Eleven of twelve people are found, each in an image of its own; beside each a stray with a higher score, whose
    keypoints all score 0."""
    people = [make_large_person(i) for i in range(1, 13)]
    hits = [as_result(person, 0.5) for person in people[:11]]
    strays = [with_third_values(as_result(person, 0.8, shift=900.0), [0.0] * 17) for person in people[:11]]
    return Case(make_truth(*people), hits + strays)


def test_a_detection_without_keypoint_scores_is_a_miss_to_one_and_nothing_to_the_other(xtcocotools: ModuleType) -> None:
    # The highest recall is 11/12 = .9167, which is 92 of the 101 recall points. Without the strays precision there is
    # 1. With them the i-th hit has 11 strays before it, precision i / (11 + i), at best 11/22.
    case = gated_case()
    for stats in (our_stats(case), named(theirs(case))):
        assert stats["AP"] == pytest.approx(92 / 202)  # .455
    for stats in (our_stats(case, RULES["xtcocotools"]), named(theirs(case, "xtcocotools"))):
        assert stats["AP"] == pytest.approx(92 / 101)  # .911
    assert our_stats(case)["AR"] == our_stats(case, RULES["xtcocotools"])["AR"] == pytest.approx(11 / 12)


def stray_case(boxes: bool) -> Case:
    """A large person and a medium one, both found, and before them a stray whose keypoints extend over a large area,
    though its box, if it has one, is of medium size."""
    large, medium = make_large_person(1), make_large_person(2) | {"area": 2500.0}
    entries = [as_result(large, 0.9, shift=900.0), as_result(medium, 0.8), as_result(large, 0.7)]
    sides = [50.0, 50.0, 160.0]
    if boxes:
        entries = [entry | {"bbox": [0.0, 0.0, side, side]} for entry, side in zip(entries, sides, strict=True)]
    return Case(make_truth(large, medium), entries)


# Precision is 1/2 at the first hit and 2/3 at the second. In the group where the stray counts it precedes the one hit.
@pytest.mark.parametrize(
    ("rules", "boxes", "medium", "large"),
    [
        ("coco", False, 1, 1 / 2),
        ("coco", True, 1 / 2, 1),
        ("xtcocotools", False, 1, 1 / 2),
        ("xtcocotools", True, 1 / 2, 1),
        ("xtcocotools_before_1_12", False, 1 / 2, 1 / 2),
        ("xtcocotools_before_1_12", True, 1 / 2, 1 / 2),
    ],
)
def test_what_a_stray_counts_for(rules: str, boxes: bool, medium: float, large: float, xtcocotools: ModuleType) -> None:
    case = stray_case(boxes)
    expected = dict.fromkeys(STATS, 1.0) | dict.fromkeys(("AP", "AP50", "AP75"), 2 / 3) | {"APM": medium, "APL": large}
    assert our_stats(case, RULES[rules]) == pytest.approx(expected)
    if rules != "xtcocotools_before_1_12":
        assert named(theirs(case, rules)) == pytest.approx(expected)


def before_1_12(cocoeval: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the line that xtcocotools 1.12 mended (2022-04-10) back: it asks for the match 0, where -1 says none."""
    source = inspect.getsource(cocoeval.COCOeval.evaluateImg)
    mended = "np.logical_and(dtm < 0, np.repeat(a, T, 0))"
    assert source.count(mended) == 1
    namespace = dict(vars(cocoeval))
    exec(textwrap.dedent(source).replace(mended, mended.replace("dtm < 0", "dtm == 0")), namespace)
    monkeypatch.setattr(cocoeval.COCOeval, "evaluateImg", namespace["evaluateImg"])


def test_xtcocotools_before_1_12_saw_medium_and_large_lower(
    xtcocotools: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules, by_area = "xtcocotools_before_1_12", [STATS.index(stat) for stat in BY_AREA]
    cases = [draw_case(seed) for seed in range(300)]
    mended = [theirs(case, "xtcocotools") for case in cases]
    before_1_12(xtcocotools, monkeypatch)
    lowered = Counter[str]()
    for case, now in zip(cases, mended, strict=True):
        then = theirs(case, rules)
        assert_same(ours(case, RULES[rules]), then)
        np.testing.assert_array_equal(np.delete(then, by_area), np.delete(now, by_area))
        lowered.update(stat for stat, place in zip(BY_AREA, by_area, strict=True) if then[place] < now[place] - 1e-9)
        assert not (then[by_area] > now[by_area] + 1e-12).any()
    assert min(lowered[stat] for stat in BY_AREA) > 20


def test_xtcocotools_in_the_stray_case_before_1_12(xtcocotools: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    before_1_12(xtcocotools, monkeypatch)
    stats = named(theirs(stray_case(boxes=False), "xtcocotools_before_1_12"))
    assert (stats["AP"], stats["APM"], stats["APL"]) == pytest.approx((2 / 3, 1 / 2, 1 / 2))


def one_person(annotation_id: int) -> Case:
    person = make_large_person(1) | {"id": annotation_id}
    return Case(make_truth(person), [as_result(person)])


@pytest.mark.parametrize(("annotation_id", "pycocotools_ap", "xtcocotools_ap"), [(1, 1, 1), (0, 0, 1), (-7, 1, 0)])
def test_ids_that_say_no_match(
    annotation_id: int, pycocotools_ap: float, xtcocotools_ap: float, xtcocotools: ModuleType
) -> None:
    """To pycocotools a match with 0 is none, to xtcocotools one with a negative id; to us an id is a name."""
    case = one_person(annotation_id)
    assert our_stats(case)["AP"] == pytest.approx(1)
    assert named(theirs(case))["AP"] == pytest.approx(pycocotools_ap)
    assert named(theirs(case, "xtcocotools"))["AP"] == pytest.approx(xtcocotools_ap)


def test_no_result_at_all(xtcocotools: ModuleType) -> None:
    """AP 0, though pycocotools breaks."""
    case = stray_case(boxes=False)._replace(entries=[])
    assert ours(case).tolist() == [0.0] * len(STATS)
    assert_same(ours(case), theirs(case, "xtcocotools"))
    with pytest.raises(IndexError):
        theirs(case)


def test_where_faster_coco_eval_is_not_pycocotools(faster_coco_eval: None) -> None:
    """It takes a list without results, a negative id for no match, and refuses NaN as a score."""
    case = stray_case(boxes=False)
    assert_same(with_faster_coco_eval(case._replace(entries=[])), ours(case._replace(entries=[])))
    assert named(with_faster_coco_eval(one_person(-7)))["AP"] == 0.0
    with pytest.warns(UserWarning, match="annotation id 0"):
        assert named(with_faster_coco_eval(one_person(0)))["AP"] == 0.0
    with pytest.raises(ValueError, match="NaN"):
        with_faster_coco_eval(case._replace(entries=[case.entries[0] | {"score": float("nan")}]))


def test_a_pose_that_is_nowhere_finds_everybody_in_pycocotools(xtcocotools: ModuleType) -> None:
    """Why NaN is refused (tests/data/test_results.py): no comparison with it holds, so no threshold keeps it out."""
    person = make_large_person(1)
    nowhere = as_result(person) | {"keypoints": [float("nan"), float("nan"), 0.9] * 17}
    case = Case(make_truth(person), [nowhere])
    assert named(theirs(case))["AP"] == named(theirs(case, "xtcocotools"))["AP"] == pytest.approx(1.0)
    assert our_stats(case)["AP"] == 0.0
