from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.people import Detections, People, extent_area, image_positions, people_of
from bench.metrics.average_precision import Evaluation
from bench.metrics.oks import RULES, everyone, ignored_people, match, oks_of_pairs
from bench.metrics.strata import FACTORS, Factor, level_groups, most_similar, strata

Floats = NDArray[np.float64]

SIZE = (640, 480)
DIAGONAL = 5.0 * np.stack([np.arange(NUM_KEYPOINTS)] * 2, axis=1)
FAR = 5000.0


def make_people(bbox: Any, image: Any = None, visibility: Any = None, side: Any = 80.0) -> People:
    """Each in an image of its own, fully visible and 80 x 80 pixels in area unless said otherwise; keypoints on a
    diagonal from the corner of the box, whatever its size."""
    bbox = np.asarray(bbox, dtype=np.float64)
    num_people = len(bbox)
    visibility = np.full((num_people, NUM_KEYPOINTS), 2) if visibility is None else np.asarray(visibility)
    return People(
        image=np.arange(num_people) if image is None else np.asarray(image),
        keypoints=bbox[:, None, :2] + DIAGONAL,
        visibility=visibility,
        area=np.square(np.broadcast_to(side, num_people).astype(np.float64)),
        bbox=bbox,
        crowd=np.zeros(num_people, dtype=bool),
        num_keypoints=(visibility > 0).sum(axis=1),
        annotation_id=np.arange(num_people),
    )


def detect(keypoints: Any, image: Any, score: Any = None) -> Detections:
    keypoints, image = np.array(keypoints, dtype=np.float64), np.asarray(image, dtype=np.int64)
    score = np.linspace(1, 0.5, len(image)) if score is None else np.asarray(score)
    return Detections(image, keypoints, np.ones(keypoints.shape[:2]), score, extent_area(keypoints))


def sizes(num_images: int) -> NDArray[np.int64]:
    return np.tile(SIZE, (num_images, 1))


def levels(factor: str, people: People) -> list[str]:
    """The name of everybody's level."""
    names, level_of = FACTORS[factor]
    return [names[level] for level in level_of(people, sizes(int(people.image.max()) + 1))]


def stats_of(people: People, detections: Detections, num_images: int, **factors: Factor) -> dict[Any, list[float]]:
    """AP and AR by factor and level."""
    found = strata(people, detections, sizes(num_images), np.ones((1, num_images)), factors=factors or FACTORS)
    return {name: stratum.stats[0].tolist() for name, stratum in found.items()}


def read_toy(make_coco: Callable[..., Any], seed: int, num_images: int = 15) -> tuple[People, Detections]:
    truth, results = make_coco(seed, num_images)
    ids = np.array([image["id"] for image in truth["images"]])
    points = np.array([result["keypoints"] for result in results]).reshape(-1, NUM_KEYPOINTS, 3)[..., :2]
    image = image_positions(ids, np.array([result["image_id"] for result in results], dtype=np.int64))
    return people_of(truth["annotations"], ids), detect(points, image, [result["score"] for result in results])


def by_position(people: People, image_size: NDArray[np.number]) -> NDArray[np.int64]:
    """Two levels that say nothing: every other person of the file."""
    return np.arange(len(people.image)) % 2


def test_occlusion() -> None:
    shares = [(17, 0), (16, 1), (9, 3), (8, 3), (0, 5), (0, 0)]  # visible, occluded
    visibility = [[2] * v + [1] * o + [0] * (17 - v - o) for v, o in shares]
    people = make_people([(0, 0, 80, 80)] * len(shares), visibility=visibility)
    more = "more than a quarter"
    assert levels("occlusion", people) == ["none", "up to a quarter", "up to a quarter", more, more, "none"]


def test_num_labelled() -> None:
    numbers = [1, 5, 6, 10, 11, 15, 16, 17]
    visibility = [[1] * n + [0] * (17 - n) for n in numbers]
    people = make_people([(0, 0, 80, 80)] * len(numbers), visibility=visibility)
    assert levels("num_labelled", people) == ["1-5"] * 2 + ["6-10"] * 2 + ["11-15"] * 2 + ["16-17"] * 2


def test_size() -> None:
    sides = [31.9, 32, 63.9, 64, 95.9, 96, 191.9, 192, 1000]
    people = make_people([(0, 0, 80, 80)] * len(sides), side=sides)
    expected = ["below 32", "32-64", "32-64", "64-96", "64-96", "96-192", "96-192", "from 192", "from 192"]
    assert levels("size", people) == expected


def test_size_is_of_the_area_that_the_rules_take() -> None:
    people = make_people([(0, 0, 100, 100)], side=500.0)  # 0.53 of the box is 73 x 73
    rules = RULES["coco"]._replace(segment_area=False)
    members = level_groups(people, detect([DIAGONAL], [0]), sizes(1), rules, {"size": FACTORS["size"]}).people
    assert members[:, 0].tolist() == [False, False, True, False, False]


def test_crowding() -> None:
    # Two boxes of 100 x 100, shifted by 82 pixels, share 18 x 100: IoU .0989; by 81 pixels, .105.
    boxes = [(0, 0, 100, 100), (82, 0, 100, 100), (0, 81, 100, 100), (FAR, 0, 9, 9), *[(0, 0, 100, 100)] * 4]
    people = make_people(boxes, image=[0, 0, 0, 0, 1, 1, 1, 1])
    assert levels("crowding", people) == ["1-2", "0", "1-2", "0", *["3 or more"] * 4]


def test_crowding_counts_all_who_are_annotated() -> None:
    boxes = [(0, 0, 100, 100)] * 4
    visibility = np.full((4, NUM_KEYPOINTS), 2)
    visibility[3] = 0
    people = make_people(boxes, image=[0] * 4, visibility=visibility)._replace(
        crowd=np.array([False, True] + [False] * 2)
    )
    assert levels("crowding", people)[0] == "3 or more"


def test_boxes_without_area_overlap_nothing() -> None:
    assert levels("crowding", make_people([(5, 5, 0, 0)] * 2, image=[0, 0])) == ["0", "0"]


@pytest.mark.parametrize(
    ("bbox", "level"),
    [
        ((2.1, 2.1, 635.8, 475.8), "no"),
        ((2, 3, 9, 9), "yes"),
        ((3, 1.5, 9, 9), "yes"),
        ((600, 3, 38, 9), "yes"),
        ((3, 400, 9, 78.5), "yes"),
        ((-4, 3, 9, 9), "yes"),
    ],
)
def test_truncation(bbox: tuple[float, ...], level: str) -> None:
    assert levels("truncation", make_people([bbox])) == [level]


def test_truncation_reads_the_size_of_the_image() -> None:
    people = make_people([(10, 10, 89, 50)] * 2)
    assert FACTORS["truncation"].level_of(people, np.array([(640, 480), (100, 480)])).tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_levels_share_out_the_people_who_count(make_coco: Callable[..., Any], seed: int) -> None:
    people, detections = read_toy(make_coco, seed)
    num_counted = (~ignored_people(people)).sum()
    found = strata(people, detections, sizes(15), np.ones((1, 15)))
    assert list(found) == [(name, level) for name, factor in FACTORS.items() for level in factor.levels]
    for name in FACTORS:
        assert sum(stratum.num_people for (factor, _), stratum in found.items() if factor == name) == num_counted
    members = level_groups(people, detections, sizes(15)).people
    assert (members.sum(axis=0) == np.where(ignored_people(people), 0, len(FACTORS))).all()


@pytest.mark.parametrize("seed", range(8))
def test_one_level_for_all_is_the_plain_evaluation(make_coco: Callable[..., Any], seed: int) -> None:
    people, detections = read_toy(make_coco, seed)
    _, oks = most_similar(people, detections)
    one = Factor(("all",), lambda people, _: np.zeros(len(people.image), dtype=np.int64))
    counts = np.random.default_rng(seed).integers(3, size=(4, 15))
    for kept in (detections.take(oks >= 0.1), detections):
        plain = Evaluation(match(people, kept, 15, groups=everyone(people, kept)))
        expected = np.stack([plain.group_stats(row)[0] for row in counts])
        stats = strata(people, kept, sizes(15), counts, factors={"one": one})["one", "all"].stats
        if kept is detections and (oks < 0.1).any():  # background is no level's: AP can only be higher, AR is the same
            assert (stats[:, 0] >= expected[:, 0] - 1e-12).all()
            np.testing.assert_allclose(stats[:, 1], expected[:, 1], rtol=0, atol=1e-12)
        else:
            np.testing.assert_allclose(stats, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_truth_scores_one_in_every_level(make_coco: Callable[..., Any], seed: int) -> None:
    people, _ = read_toy(make_coco, seed, num_images=40)
    counted = ~ignored_people(people)
    found = strata(people, detect(people.keypoints[counted], people.image[counted]), sizes(40), np.ones((1, 40)))
    assert sum(stratum.num_people > 0 for stratum in found.values()) > 10
    for stratum in found.values():
        assert stratum.stats[0] == pytest.approx([1, 1] if stratum.num_people else [np.nan] * 2, nan_ok=True)


def test_levels_without_their_detections() -> None:
    # Nobody is near anybody else, so that nobody is matched to another level's detection.
    rng = np.random.default_rng(0)
    corners = FAR * np.stack([np.arange(60), np.zeros(60)], axis=1)
    sides = rng.choice([20.0, 40, 80, 150, 300], 60)
    people = make_people(
        np.concatenate([corners, np.full((60, 2), 80.0)], axis=1),
        image=np.sort(rng.integers(12, size=60)),
        visibility=rng.integers(1, 3, (60, NUM_KEYPOINTS)),
        side=sides,
    )
    noise = rng.normal(size=(60, NUM_KEYPOINTS, 2)) * sides[:, None, None] * 0.1
    detections = detect(people.keypoints + noise, people.image, rng.random(60))
    before = stats_of(people, detections, 12)
    of_size = FACTORS["size"].level_of(people, sizes(12))
    for level, name in enumerate(FACTORS["size"].levels):
        after = stats_of(people, detections.take(of_size != level), 12)
        for other in FACTORS["size"].levels:
            assert after["size", other] == ([0, 0] if other == name else before["size", other])
        assert 0 < before["size", name][0] < before["size", name][1] < 1


def test_a_miss_counts_for_the_level_of_whom_it_is_most_similar_to() -> None:
    # Two people in one image, one of each level, 30 pixels apart. The best scored detection, too poor for any threshold
    # of AP, is nearer to the first.
    people = make_people([(0, 0, 80, 80), (300, 0, 80, 80)], image=[0, 0])
    poor = people.keypoints[0].copy()
    poor[5:] -= FAR  # OKS 5/17
    detections = detect([poor, people.keypoints[0], people.keypoints[1]], [0, 0, 0])
    stats = stats_of(people, detections, 1, half=Factor(("first", "second"), by_position))
    assert stats["half", "first"] == pytest.approx([0.5, 1])
    assert stats["half", "second"] == pytest.approx([1, 1])


@pytest.mark.parametrize("num_right", [1, 2])
def test_background_is_a_miss_of_no_level(num_right: int) -> None:
    # One of 17 keypoints right is OKS .06, two are .12.
    people = make_people([(0, 0, 80, 80)])
    poor = people.keypoints[0].copy()
    poor[num_right:] -= FAR
    detections = detect([poor, people.keypoints[0]], [0, 0])
    stats = stats_of(people, detections, 1)
    assert stats["size", "64-96"] == pytest.approx([1 if num_right == 1 else 0.5, 1])


def test_a_detection_of_another_level_is_ignored() -> None:
    people = make_people([(0, 0, 80, 80), (300, 0, 80, 80)], image=[0, 0])
    detections = detect(people.keypoints[[1]], [0])
    stats = stats_of(people, detections, 1, half=Factor(("first", "second"), by_position))
    assert stats == {("half", "first"): [0, 0], ("half", "second"): pytest.approx([1, 1])}


def test_resamples() -> None:
    people = make_people([(3, 3, 80, 80), (0, 0, 80, 80)])
    detections = detect(people.keypoints[[0]], [0])
    found = strata(people, detections, sizes(2), np.array([[1, 1], [2, 0], [0, 1]]))
    np.testing.assert_allclose(found["truncation", "no"].stats, [[1, 1], [1, 1], [np.nan] * 2])
    np.testing.assert_allclose(found["truncation", "yes"].stats, [[0, 0], [np.nan] * 2, [0, 0]])
    np.testing.assert_allclose(found["crowding", "0"].stats, [[51 / 101, 0.5], [1, 1], [0, 0]])
    assert [found["truncation", level].num_people for level in ("no", "yes")] == [1, 1]


def test_most_similar_is_of_the_image_and_counts() -> None:
    people = make_people([(0, 0, 80, 80), (0, 0, 80, 80), (2, 0, 80, 80), (900, 0, 80, 80)], image=[0, 1, 1, 1])
    people = people._replace(crowd=np.array([False, True, False, False]))
    person, oks = most_similar(people, detect([DIAGONAL, DIAGONAL, DIAGONAL - 1e6], [0, 1, 1]))
    assert person.tolist() == [0, 2, -1]
    assert oks.tolist() == [1.0, float(oks_of_pairs(DIAGONAL[None], people, np.array([2]), RULES["coco"])[0]), 0.0]


def test_most_similar_takes_the_last_among_equals_as_matching_does() -> None:
    people = make_people([(0, 0, 80, 80)] * 2, image=[0, 0])
    detections = detect([DIAGONAL], [0])
    person, _ = most_similar(people, detections)
    matches = match(people, detections, 1, groups=everyone(people, detections))
    assert person.tolist() == [1] == matches.person[0, 0].tolist()
