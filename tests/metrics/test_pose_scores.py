import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.keypoints import NUM_KEYPOINTS, OKS_SIGMAS
from bench.data.people import Detections, People, extent_area, image_positions, people_of
from bench.errors import UserError
from bench.metrics.average_precision import RECALL_POINTS, Evaluation
from bench.metrics.oks import (
    RULES,
    THRESHOLDS,
    everyone,
    ignored_people,
    keep_detections,
    keypoint_similarity,
    match,
    oks_of_pairs,
    pair_up,
)
from bench.metrics.pose_scores import (
    PRESENCE_THRESHOLDS,
    READINGS,
    KeypointAP,
    area_under,
    average_precisions,
    emit,
    ex_oks,
    ex_oks_of_pairs,
    find_people,
    gated_ap,
    gated_oks,
    gated_oks_of_pairs,
    keypoint_ap,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

AREA = 10_000.0
DIAGONAL = 10.0 * np.stack([np.arange(NUM_KEYPOINTS)] * 2, axis=1)
FAR = 5000.0
COCO = RULES["coco"]
NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR = range(5)


def mask(num_rows: int, *keypoints: int) -> Bools:
    """These keypoints of everybody."""
    chosen = np.zeros((num_rows, NUM_KEYPOINTS), dtype=bool)
    chosen[:, list(keypoints)] = True
    return chosen


def make_people(labelled: Bools, image: Any = None) -> People:
    """Alike, on the diagonal, each in an image of its own unless said otherwise; `labelled` (P, K)."""
    num_people = len(labelled)
    return People(
        image=np.arange(num_people) if image is None else np.asarray(image),
        keypoints=DIAGONAL * labelled[..., None],
        visibility=labelled * 2,
        area=np.full(num_people, AREA),
        bbox=np.tile([0.0, 0.0, 160.0, 160.0], (num_people, 1)),
        crowd=np.zeros(num_people, dtype=bool),
        num_keypoints=labelled.sum(axis=1),
        annotation_id=np.arange(num_people),
    )


def detect(keypoints: Any, image: Any, score: Any = None) -> Detections:
    keypoints, image = np.array(keypoints, dtype=np.float64), np.asarray(image, dtype=np.int64)
    score = np.linspace(1, 0.5, len(image)) if score is None else np.asarray(score)
    return Detections(image, keypoints, np.ones(keypoints.shape[:2]), score, extent_area(keypoints))


def true_poses(people: People) -> Detections:
    return detect(np.tile(DIAGONAL, (len(people.image), 1, 1)), people.image)


def distance_of(similarity: float, keypoint: int) -> float:
    return math.sqrt(-2 * AREA * math.log(similarity)) * 2 * float(OKS_SIGMAS[keypoint])


class Scene:
    """`make_coco` with everything that these scores read: crowds, people without labels and ties included."""

    def __init__(self, make_coco: Callable[..., Any], seed: int, num_images: int = 8) -> None:
        truth, results = make_coco(seed, num_images)
        ids = np.array([image["id"] for image in truth["images"]])
        self.rng = np.random.default_rng(seed)
        self.num_images = num_images
        self.people = people_of(truth["annotations"], ids)
        points = np.array([result["keypoints"] for result in results]).reshape(-1, NUM_KEYPOINTS, 3)[..., :2]
        image = image_positions(ids, np.array([result["image_id"] for result in results], dtype=np.int64))
        self.detections = detect(points, image, [result["score"] for result in results])
        self.absent = self.rng.random(self.people.visibility.shape) < 0.3
        self.presence = self.rng.random(points.shape[:2]).round(1)
        x, y, w, h = self.people.bbox.T
        self.window = np.stack([x + w / 8, y, x + w, y + h], axis=1)  # some labelled keypoints are out

    def pairs(self, num: int = 300) -> tuple[Floats, NDArray[np.int64], Bools]:
        """Poses, people and what is emitted."""
        person = self.rng.integers(len(self.people.image), size=num)
        points = self.people.keypoints[person] + self.rng.normal(scale=15, size=(num, NUM_KEYPOINTS, 2))
        return points, person, self.rng.random((num, NUM_KEYPOINTS)) < 0.6

    def resampled(self, counts: NDArray[np.int64]) -> "Scene":
        """The images as often as counts (I,) says, with copies of all that is in them."""
        new = object.__new__(Scene)
        copies = np.repeat(np.arange(self.num_images), counts)
        new.num_images, new.rng = len(copies), self.rng
        person = [np.flatnonzero(self.people.image == i) for i in copies]
        found = [np.flatnonzero(self.detections.image == i) for i in copies]
        people, detection = (np.concatenate([np.zeros(0, dtype=np.int64), *rows]) for rows in (person, found))
        places = [np.repeat(np.arange(len(copies)), [len(row) for row in rows]) for rows in (person, found)]
        new.people = People(*(values[people] for values in self.people))._replace(image=places[0])
        new.detections = self.detections.take(detection)._replace(image=places[1])
        new.absent, new.window, new.presence = self.absent[people], self.window[people], self.presence[detection]
        return new


def every_emitted(num: int) -> Bools:
    return np.ones((num, NUM_KEYPOINTS), dtype=bool)


# Gated OKS


def test_gated_oks_by_hand() -> None:
    # Labelled: exact 1, at similarity .5, suppressed 0. Absent: emitted 0, suppressed 1. The others are unknown.
    people = make_people(mask(1, NOSE, LEFT_EYE, RIGHT_EYE))
    points = DIAGONAL[None].copy()
    points[0, LEFT_EYE, 0] += distance_of(0.5, LEFT_EYE)
    points[0, 10:] = FAR
    emitted = ~mask(1, RIGHT_EYE, RIGHT_EAR)
    oks = gated_oks_of_pairs(points, people, np.array([0]), mask(1, LEFT_EAR, RIGHT_EAR), emitted)
    assert oks == pytest.approx([(1 + 0.5 + 0 + 0 + 1) / 5])


@pytest.mark.parametrize("seed", range(6))
def test_gated_oks_equals_a_plain_reference(make_coco: Callable[..., Any], seed: int) -> None:
    scene = Scene(make_coco, seed)
    points, person, emitted = scene.pairs()
    similarity = keypoint_similarity(points, scene.people, person, COCO)
    found = gated_oks_of_pairs(points, scene.people, person, scene.absent, emitted)
    for n, p in enumerate(person):
        scores = []
        for k in range(NUM_KEYPOINTS):
            if scene.absent[p, k]:
                scores.append(0.0 if emitted[n, k] else 1.0)
            elif scene.people.visibility[p, k] > 0:
                scores.append(similarity[n, k] if emitted[n, k] else 0.0)
        assert found[n] == pytest.approx(np.mean(scores or similarity[n]))


@pytest.mark.parametrize("seed", range(6))
def test_oks_where_nothing_is_absent_or_suppressed(make_coco: Callable[..., Any], seed: int) -> None:
    scene = Scene(make_coco, seed)
    points, person, _ = scene.pairs()
    nowhere, everything = np.zeros_like(scene.absent), every_emitted(len(person))
    oks = oks_of_pairs(points, scene.people, person, COCO)
    assert (scene.people.visibility[person] == 0).all(axis=1).any()
    np.testing.assert_array_equal(gated_oks_of_pairs(points, scene.people, person, nowhere, everything), oks)
    window = np.tile([-1e4, -1e4, 1e4, 1e4], (len(person), 1))
    for reading in READINGS:
        extended = ex_oks_of_pairs(points, scene.people, person, nowhere, everything, window, reading)
        np.testing.assert_array_equal(extended, oks)


@pytest.mark.parametrize("seed", range(3))
def test_true_poses_that_emit_everything_or_nothing(make_coco: Callable[..., Any], seed: int) -> None:
    scene = Scene(make_coco, seed)
    labelled = (scene.people.visibility > 0) & ~scene.absent
    person = np.flatnonzero((labelled | scene.absent).any(axis=1))
    share = scene.absent[person].sum(axis=1) / (labelled | scene.absent)[person].sum(axis=1)
    points, everything = scene.people.keypoints[person], every_emitted(len(person))
    gate = (points, scene.people, person, scene.absent)
    np.testing.assert_allclose(gated_oks_of_pairs(*gate, everything), 1 - share)
    np.testing.assert_allclose(gated_oks_of_pairs(*gate, ~everything), share)
    np.testing.assert_array_equal(gated_oks_of_pairs(*gate, ~scene.absent[person]), 1)


def test_nothing_known_is_oks_whatever_is_emitted() -> None:
    people = make_people(mask(1))
    points = DIAGONAL[None] + np.linspace(0, 400, NUM_KEYPOINTS)[:, None]
    nothing, window = mask(1), np.array([[0.0, 0, 100, 100]])
    oks = oks_of_pairs(points, people, np.array([0]), COCO)
    assert 0 < oks[0] < 1
    assert gated_oks_of_pairs(points, people, np.array([0]), nothing, nothing) == oks
    assert ex_oks_of_pairs(points, people, np.array([0]), nothing, nothing, window) == oks


def test_what_is_emitted() -> None:
    presence = np.array([[0.0, 0.15, 0.5, 1.0]])
    assert emit(presence, 0).tolist() == [[False, True, True, True]]
    assert emit(presence, PRESENCE_THRESHOLDS[3]).tolist() == [[False, True, True, True]]
    assert emit(presence, 0.5).tolist() == [[False, False, True, True]]
    assert emit(presence, 1).tolist() == [[False, False, False, True]]


# Ex-OKS


@pytest.mark.parametrize(
    ("point", "edge", "corner"),
    [
        ((10, 50), 0, 30),  # the middle of the left edge: half of the height
        ((60, 20), 0, 50),
        ((10, 20), 0, 0),
        ((60, 50), 30, math.hypot(50, 30)),  # the centre
        ((13, 60), 3, math.hypot(3, 20)),
        ((60, 76), 4, math.hypot(50, 4)),
        ((5, 50), 5, math.hypot(5, 30)),  # outside
        ((60, 95), 15, math.hypot(50, 15)),
        ((113, 84), 5, 5),
    ],
)
def test_distance_to_the_window(point: tuple[float, float], edge: float, corner: float) -> None:
    window = np.array([[10.0, 20, 110, 80]])
    points = np.array([[point]], dtype=np.float64)
    assert READINGS["edge"](points, window) == pytest.approx(edge**2)
    assert READINGS["corner"](points, window) == pytest.approx(corner**2)


@pytest.mark.parametrize("reading", ["edge", "corner"])
def test_ex_oks_by_hand(reading: Any) -> None:
    # The window ends at 45 both ways: keypoints 8 and 9 are labelled, but out of it; 10 and 11 are known to be absent.
    people = make_people(mask(1, NOSE, LEFT_EYE, 8, 9))
    window, points = np.array([[-20.0, -40, 45, 45]]), DIAGONAL[None].copy()
    points[0, NOSE, 0] += distance_of(0.5, NOSE)
    points[0, 8] = 40, 20
    points[0, 10] = 45, 2.5
    emitted = mask(1, NOSE, 8, 10)  # but not the left eye, at (10, 10)
    squared = {
        "edge": {LEFT_EYE: 30**2, 8: 5**2, 10: 0},
        "corner": {LEFT_EYE: 30**2 + 35**2, 8: 5**2 + 25**2, 10: 42.5**2},
    }[reading]
    others = [math.exp(-away / (2 * AREA * (2 * OKS_SIGMAS[k]) ** 2)) for k, away in squared.items()]
    found = ex_oks_of_pairs(points, people, np.array([0]), mask(1, 10, 11), emitted, window, reading)
    assert found == pytest.approx([(0.5 + sum(others) + 1 + 1) / 6])


@pytest.mark.parametrize("reading", ["edge", "corner"])
@pytest.mark.parametrize("seed", range(4))
def test_ex_oks_equals_a_plain_reference(make_coco: Callable[..., Any], seed: int, reading: Any) -> None:
    scene = Scene(make_coco, seed)
    people = scene.people
    points, person, emitted = scene.pairs()
    found = ex_oks_of_pairs(points, people, person, scene.absent, emitted, scene.window[person], reading)
    plain = oks_of_pairs(points, people, person, COCO)
    cases = set()
    for n, p in enumerate(person):
        x0, y0, x1, y1 = scene.window[p]
        scores = []

        def to_window(x: float, y: float, x0: float = x0, y0: float = y0, x1: float = x1, y1: float = y1) -> float:
            if reading == "corner":
                return min(math.hypot(x - cx, y - cy) for cx in (x0, x1) for cy in (y0, y1))
            if x0 <= x <= x1 and y0 <= y <= y1:
                return min(x - x0, x1 - x, y - y0, y1 - y)
            return math.hypot(x - min(max(x, x0), x1), y - min(max(y, y0), y1))

        for k in range(NUM_KEYPOINTS):
            label = people.keypoints[p, k]
            if people.visibility[p, k] == 0 and not scene.absent[p, k]:
                continue
            there = x0 <= label[0] <= x1 and y0 <= label[1] <= y1 and not scene.absent[p, k]
            cases.add((there, emitted[n, k]))
            away = {
                (True, True): math.dist(label, points[n, k]),
                (False, True): to_window(*points[n, k]),
                (True, False): to_window(*label),
                (False, False): 0.0,
            }[there, bool(emitted[n, k])]
            scores.append(math.exp(-(away**2) / (2 * people.area[p] * (2 * OKS_SIGMAS[k]) ** 2)))
        assert found[n] == pytest.approx(np.mean(scores) if scores else plain[n], abs=1e-12)
    assert len(cases) == 4


def test_a_false_alarm_at_the_edge_is_free_in_one_reading_only() -> None:
    people, window = make_people(mask(1, NOSE)), np.array([[0.0, 0, 100, 200]])
    points = np.tile([0.0, 100.0], (1, NUM_KEYPOINTS, 1))
    points[0, NOSE] = 0, 0
    args = (points, people, np.array([0]), mask(1, 11), mask(1, NOSE, 11), window)
    assert ex_oks_of_pairs(*args, "edge") == [1.0]
    assert ex_oks_of_pairs(*args, "corner") == pytest.approx([0.5], abs=0.01)
    assert gated_oks_of_pairs(*args[:-1]) == [0.5]


# AP by them


def as_similarity(people: People, detections: Detections) -> Any:
    return lambda d, p: oks_of_pairs(detections.keypoints[d], people, p, COCO)


def draw_counts(num_images: int, seed: int = 0, num: int = 6) -> NDArray[np.int64]:
    drawn = np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), size=num)
    return np.concatenate([np.ones((1, num_images), dtype=np.int64), drawn])


def plain_ap(people: People, detections: Detections, counts: NDArray[np.int64]) -> Floats:
    matches = match(people, detections, counts.shape[1], groups=everyone(people, detections))
    return np.stack([Evaluation(matches).group_stats(row)[0] for row in counts])


def test_matches_by_given_pairs_are_those_by_oks(make_coco: Callable[..., Any]) -> None:
    scene = Scene(make_coco, 0)
    people, found = scene.people, scene.detections.take(keep_detections(scene.detections, COCO))
    pairs = pair_up(people, found, COCO)
    given = match(people, found, scene.num_images, pairs=pairs)
    for one, other in zip(given, match(people, found, scene.num_images), strict=True):
        np.testing.assert_array_equal(one, other)
    nothing = match(people, found, scene.num_images, pairs=pairs._replace(oks=pairs.oks * 0))
    assert (nothing.person == -1).all()
    with pytest.raises(AssertionError, match="pairs of other detections"):
        match(people, found.take(np.arange(len(found.image))[::-1]), scene.num_images, pairs=pairs)


@pytest.mark.parametrize("seed", range(8))
def test_ap_by_oks_is_the_plain_one(make_coco: Callable[..., Any], seed: int) -> None:
    scene = Scene(make_coco, seed)
    people, detections, counts = scene.people, scene.detections, draw_counts(scene.num_images)
    expected = plain_ap(people, detections, counts)
    found = average_precisions(people, detections, [as_similarity(people, detections)] * 2, counts)
    np.testing.assert_array_equal(found, np.stack([expected] * 2, axis=1))
    nowhere = np.zeros_like(scene.absent)
    gated = gated_ap(people, detections, nowhere, np.ones(scene.presence.shape), counts, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(gated, np.stack([expected[:, 0]] * 3, axis=1))


def reference_ap(people: People, detections: Detections, similarity: Any, threshold: float, num_images: int) -> float:
    """AP at one threshold by COCO's rules, in plain loops; `similarity(d, p)` of one pair."""
    counted = ~ignored_people(people)
    ranked = []
    for image in range(num_images):
        poses = sorted(np.flatnonzero(detections.image == image), key=lambda d: -detections.score[d])
        people_here = sorted(np.flatnonzero(people.image == image), key=lambda p: not counted[p])
        taken = set()
        for d in poses[:20]:
            best, chosen = min(threshold, 1 - 1e-10), -1
            for p in people_here:
                if p in taken and not people.crowd[p]:
                    continue
                if chosen >= 0 and counted[chosen] and not counted[p]:
                    break
                if similarity(d, p) >= best:
                    best, chosen = similarity(d, p), p
            taken.add(chosen)
            if chosen < 0 or counted[chosen]:
                ranked.append((-detections.score[d], chosen >= 0))
    ranked.sort(key=lambda entry: entry[0])
    return reference_average([hit for _, hit in ranked], int(counted.sum()))


def reference_average(hits: list[bool], total: int) -> float:
    """COCO's interpolated precision of a ranking, by its definition."""
    points = [(sum(hits[: n + 1]) / (n + 1), sum(hits[: n + 1]) / total) for n in range(len(hits))]
    best = [max((p for p, recall in points if recall >= wanted), default=0.0) for wanted in RECALL_POINTS]
    return float(np.mean(best))


@pytest.mark.parametrize("seed", range(5))
def test_gated_ap_equals_a_plain_reference(make_coco: Callable[..., Any], seed: int) -> None:
    scene = Scene(make_coco, seed)
    people, detections = scene.people, scene.detections
    detections.keypoints[:] = detections.keypoints.round()
    presence = np.where(scene.rng.random(scene.presence.shape) < 0.1, scene.presence, 0.9)
    absent = scene.absent & (scene.rng.random(scene.absent.shape) < 0.5)
    found = gated_ap(people, detections, absent, presence, np.ones((1, scene.num_images)), np.array([0.1, 0.5]))[0]
    assert (found > 0).all()
    for q, threshold in enumerate((0.1, 0.5)):
        emitted = presence >= threshold

        def similarity(d: int, p: int, emitted: Bools = emitted) -> float:
            pair = (detections.keypoints[[d]], people, np.array([p]))
            if ignored_people(people)[p]:
                return float(oks_of_pairs(*pair, COCO)[0])
            return float(gated_oks_of_pairs(*pair, absent, emitted[[d]])[0])

        expected = [reference_ap(people, detections, similarity, t, scene.num_images) for t in THRESHOLDS]
        assert found[q] == pytest.approx(np.mean(expected))


def ten_people() -> tuple[People, Bools]:
    """Of each, three keypoints are labelled and a fourth is known to be absent."""
    return make_people(mask(10, NOSE, LEFT_EYE, RIGHT_EYE)), mask(10, LEFT_EAR)


def test_perfect_presence_scores_one_at_every_threshold() -> None:
    people, absent = ten_people()
    detections, counts = true_poses(people), draw_counts(10)
    at = gated_ap(people, detections, absent, (~absent).astype(np.float64), counts)
    np.testing.assert_allclose(at, np.ones((len(counts), 21)), rtol=1e-12)
    np.testing.assert_allclose(area_under(at), 1)


@pytest.mark.parametrize(
    ("presence", "at"),
    [
        (1.0, [0.6] * 21),  # everything emitted: gated OKS 3/4, enough for six of the ten thresholds
        (0.0, [0.0] * 21),  # nothing: 1/4
        (0.5, [0.6] * 11 + [0.0] * 10),
    ],
)
def test_blind_presence_pays_for_what_is_absent(presence: float, at: list[float]) -> None:
    people, absent = ten_people()
    found = gated_ap(people, true_poses(people), absent, np.full(absent.shape, presence), draw_counts(10))
    np.testing.assert_allclose(found, [at] * 7)
    half = 0.05 * (sum(at) - (at[0] + at[-1]) / 2)
    assert area_under(found) == pytest.approx([half] * 7)


def test_prevalence_says_yes_where_the_rate_is_high_enough() -> None:
    # The left ear is absent in four of ten people, in whom its prevalence emits it up to a threshold of .6.
    people, _ = ten_people()
    absent = mask(10, LEFT_EAR) & (np.arange(10) < 4)[:, None]
    labelled = mask(10, NOSE, LEFT_EYE, RIGHT_EYE, LEFT_EAR) & ~absent
    people = make_people(labelled)
    presence = np.tile(labelled.mean(axis=0), (10, 1))
    at = gated_ap(people, true_poses(people), absent, presence, np.ones((1, 10)), np.array([0.6, 0.65]))
    # Emitted: OKS 3/4 of four, 1 of six. Suppressed: 1 of four, 3/4 of six. All are found up to .75; the scores fall
    # with the number of the person, so that beyond the four are misses before the hits, or hits before the misses.
    assert at[0, 0] == pytest.approx((6 + 4 * 0.6 * 61 / 101) / 10)
    assert at[0, 1] == pytest.approx((6 + 4 * 41 / 101) / 10)


def test_people_who_do_not_count_excuse_poses_as_ever() -> None:
    # The better scored pose is on a crowd; it suppresses all that is labelled there.
    people = make_people(mask(2, NOSE, LEFT_EYE), image=[0, 0])
    people = people._replace(crowd=np.array([False, True]))
    people.keypoints[1] += 900
    detections = detect([DIAGONAL + 900, DIAGONAL], [0, 0])
    presence = np.array([[0.1], [0.9]]) * np.ones(NUM_KEYPOINTS)
    assert gated_ap(people, detections, mask(2), presence, np.ones((1, 1)), np.array([0.5])) == pytest.approx(1)


def test_ex_oks_by_person_and_by_detection() -> None:
    people, detections = make_people(mask(2, NOSE)), true_poses(make_people(mask(2, NOSE)))
    window = np.array([[-50.0, -50, 50, 50], [50.0, 50, 100, 100]])
    detection, person = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    args = (people, detections, mask(2), mask(2, NOSE), window, "edge")
    out = math.exp(-(50**2 * 2) / (2 * AREA * (2 * OKS_SIGMAS[NOSE]) ** 2))
    assert ex_oks(*args)(detection, person) == pytest.approx([1, out, 1, out])
    assert ex_oks(*args, window_of="detection")(detection, person) == pytest.approx([1, 1, out, out])


@pytest.mark.parametrize("seed", range(4))
def test_resampled_ap_is_that_of_repeated_images(make_coco: Callable[..., Any], seed: int) -> None:
    scene = Scene(make_coco, seed)
    scene.detections.score[:] += scene.rng.random(len(scene.detections.score)) / 100  # ties are broken by order

    def numbers(scene: Scene, counts: Any) -> Floats:
        people, detections, absent = scene.people, scene.detections, scene.absent
        gates = [gated_oks(people, detections, absent, emit(scene.presence, t)) for t in (0.1, 0.2)]
        gates += [
            ex_oks(people, detections, absent, emit(scene.presence, 0.1), scene.window, reading) for reading in READINGS
        ]
        return average_precisions(people, detections, gates, counts)

    counts = draw_counts(scene.num_images, seed)
    found = numbers(scene, counts)
    assert (found[0] > 0).any()
    for values, row in zip(found, counts, strict=True):
        again = scene.resampled(row)
        np.testing.assert_allclose(values, numbers(again, np.ones((1, again.num_images)))[0], rtol=1e-12)


def test_nobody_to_find_is_undefined() -> None:
    people = make_people(mask(1))
    detections = true_poses(people)
    assert np.isnan(gated_ap(people, detections, mask(1), np.ones((1, NUM_KEYPOINTS)), np.ones((1, 1)))).all()
    values = keypoint_ap(people, detections, np.array([0]), detections.keypoint_score, mask(1), np.ones((1, 1)))
    assert all(np.isnan(value).all() for value in values)


# AP of single keypoints


def keypoints_of(people: People, detections: Detections, score: Any, absent: Any = None, **options: Any) -> KeypointAP:
    """In all images once; pose d is about person d unless said otherwise."""
    person = options.pop("person", np.arange(len(detections.image)))
    absent = mask(len(people.image)) if absent is None else absent
    num_images = int(max(people.image.max(), detections.image.max())) + 1
    counts = options.pop("counts", np.ones((1, num_images), dtype=np.int64))
    return keypoint_ap(people, detections, np.asarray(person), np.asarray(score), absent, counts, **options)


def of_nose(*scores: float) -> Floats:
    score = np.full((len(scores), NUM_KEYPOINTS), 0.5)
    score[:, NOSE] = scores
    return score


def test_keypoint_ap_by_hand() -> None:
    # Noses, best first: exact, absent, at similarity .72 (five thresholds), of an unknown one. At these thresholds
    # precision is 1 up to a recall of 1/2, 51 of the 101 points, then 2/3; else it ends at 1/2.
    people = make_people(mask(4, LEFT_EYE) | mask(4, NOSE) & np.array([1, 0, 1, 0], dtype=bool)[:, None])
    absent = mask(4, NOSE) & np.array([0, 1, 0, 0], dtype=bool)[:, None]
    detections = true_poses(people)
    detections.keypoints[2, NOSE, 0] += distance_of(0.72, NOSE)
    found = keypoints_of(people, detections, of_nose(0.9, 0.8, 0.7, 0.6), absent)
    nose = (51 + 50 * (2 / 3) * 0.5) / 101
    assert found.per_keypoint[0, [NOSE, LEFT_EYE]] == pytest.approx([nose, 1])
    assert np.isnan(found.per_keypoint[0, RIGHT_EYE:]).all()
    assert found.macro == pytest.approx([(nose + 1) / 2])
    # Pooled, the four left eyes come after the noses, all at once: six of six at 6/7, which beats 2/3, or five at 5/7.
    # Up to 1/6 there are 17 recall points, up to 5/6 there are 84.
    assert found.pooled == pytest.approx([((17 + 84 * 6 / 7) + (17 + 67 * 5 / 7)) / 2 / 101])


@pytest.mark.parametrize("order", [1, -1])
def test_keypoints_of_equal_score_are_emitted_together(order: int) -> None:
    noses = mask(5, NOSE) & np.array([1, 1, 0, 1, 0], dtype=bool)[::order, None]
    people = make_people(noses | mask(5, LEFT_EYE))
    found = keypoints_of(people, true_poses(people), of_nose(*[0.5] * 5), mask(5, NOSE) & ~noses)
    assert found.per_keypoint[0, NOSE] == pytest.approx(3 / 5)
    assert found.pooled == pytest.approx([8 / 10])


@pytest.mark.parametrize("seed", range(3))
def test_perfect_blind_and_prevalence_scores(make_coco: Callable[..., Any], seed: int) -> None:
    people = Scene(make_coco, seed, num_images=30).people
    counted = ~ignored_people(people)
    labelled = people.visibility > 0
    poses = detect(people.keypoints, people.image)
    truth, prevalence = labelled[counted], labelled[counted].mean(axis=0)

    def score_by(score: Any) -> KeypointAP:
        return keypoints_of(people, poses, np.broadcast_to(score, labelled.shape).astype(np.float64), ~labelled)

    perfect = score_by(labelled)
    for values in perfect:
        np.testing.assert_array_equal(values, 1)
    blind = score_by(1.0)
    assert blind.pooled == pytest.approx(truth.mean())
    np.testing.assert_allclose(blind.per_keypoint[0], prevalence)
    by_rate = score_by(prevalence)
    np.testing.assert_allclose(by_rate.per_keypoint[0], prevalence)
    assert by_rate.macro == pytest.approx(prevalence.mean())
    assert truth.mean() < by_rate.pooled[0] < 1


def test_unknown_keypoints_do_not_count() -> None:
    people = make_people(mask(3, NOSE))
    poses = true_poses(people)
    before = keypoints_of(people, poses, of_nose(0.3, 0.2, 0.1))
    poses.keypoints[:, 1:] = FAR
    after = keypoints_of(people, poses, of_nose(0.3, 0.2, 0.1))
    assert before.pooled == after.pooled == before.macro == after.macro == 1


def test_a_person_who_does_not_count_takes_the_pose_along() -> None:
    people = make_people(mask(3, NOSE))
    poses = true_poses(people)
    people = people._replace(crowd=np.array([True, False, False]), num_keypoints=np.array([1, 0, 1]))
    assert keypoints_of(people, poses, of_nose(0.3, 0.2, 0.1)).pooled == [1.0]


def test_keypoints_of_nobody_are_false() -> None:
    people = make_people(mask(1, NOSE))
    poses = true_poses(make_people(mask(2, NOSE), image=[0, 0]))
    found = keypoints_of(people, poses, of_nose(0.1, 0.9), person=[0, -1])
    assert found.per_keypoint[0, NOSE] == pytest.approx(1 / 2)
    assert found.pooled == pytest.approx([1 / 18])  # after the seventeen of nobody
    for score, precision in ((-1e9, 1 / 2), (-np.inf, 1)):  # of nobody's: ahead of the hit, or not emitted
        found = keypoints_of(people, poses, of_nose(-2e9, score), person=[0, -1])
        assert found.per_keypoint[0, NOSE] == pytest.approx(precision)


def test_people_without_a_pose_are_missed() -> None:
    people = make_people(mask(2, NOSE))
    poses = true_poses(people).take(np.array([0]))
    assert keypoints_of(people, poses, of_nose(0.1)).pooled == pytest.approx([51 / 101])


def test_the_best_scored_of_two_poses_that_is_similar_enough_takes_the_keypoint() -> None:
    # The better scored nose, at similarity .72, takes it at five thresholds, where the exact one is too many.
    people = make_people(mask(1, NOSE))
    poses = true_poses(make_people(mask(2, NOSE), image=[0, 0]))
    poses.keypoints[0, NOSE, 0] += distance_of(0.72, NOSE)
    found = keypoints_of(people, poses, of_nose(0.9, 0.8), person=[0, 0])
    assert found.pooled == pytest.approx([(1 + 1 / 2) / 2])


def test_a_second_pose_of_somebody_is_false() -> None:
    people = make_people(mask(2, NOSE))
    poses = true_poses(make_people(mask(3, NOSE), image=[0, 0, 1]))
    found = keypoints_of(people, poses, of_nose(0.9, 0.8, 0.7), person=[0, 0, 1])
    assert found.pooled == pytest.approx([(51 + 50 * 2 / 3) / 101])


def reference_keypoint_ap(scene: Scene, person: NDArray[np.int64], score: Floats, keypoints: range) -> float:
    """In plain loops; every score differs."""
    people, counted = scene.people, ~ignored_people(scene.people)
    labelled = (people.visibility > 0) & ~scene.absent
    total = int(labelled[counted][:, keypoints].sum())
    entries = [(d, k) for d in range(len(person)) for k in keypoints]
    entries.sort(key=lambda entry: -score[entry])
    values = []
    for threshold in THRESHOLDS if total else ():
        hits, taken = [], set()
        for d, k in entries:
            p = person[d]
            if p >= 0 and not (counted[p] and (labelled[p, k] or scene.absent[p, k])):
                continue
            hit = p >= 0 and labelled[p, k] and (p, k) not in taken
            if hit:
                point = scene.detections.keypoints[d, k]
                away = math.dist(point, people.keypoints[p, k])
                hit = math.exp(-(away**2) / (2 * people.area[p] * (2 * OKS_SIGMAS[k]) ** 2)) >= threshold
            hits.append(hit)
            taken |= {(p, k)} if hit else set()
        values.append(reference_average(hits, total))
    return float(np.mean(values)) if total else math.nan


@pytest.mark.parametrize("seed", range(4))
def test_keypoint_ap_equals_a_plain_reference(make_coco: Callable[..., Any], seed: int) -> None:
    scene = Scene(make_coco, seed)
    person = find_people(scene.people, scene.detections)
    for d in np.flatnonzero(person < 0):  # a second pose of somebody
        person[d] = scene.rng.choice(np.flatnonzero(scene.people.image == scene.detections.image[d]))
    person[::5] = -1
    score = scene.rng.random(scene.presence.shape)
    found = keypoints_of(scene.people, scene.detections, score, scene.absent, person=person)
    assert found.pooled == pytest.approx([reference_keypoint_ap(scene, person, score, range(NUM_KEYPOINTS))])
    expected = [reference_keypoint_ap(scene, person, score, range(k, k + 1)) for k in range(NUM_KEYPOINTS)]
    assert found.per_keypoint[0] == pytest.approx(expected, nan_ok=True)
    assert found.macro == pytest.approx([np.nanmean(expected)])


def test_keypoint_ap_is_that_of_evaluation() -> None:
    # One labelled keypoint a person and every score another: then the pose is the keypoint.
    rng = np.random.default_rng(0)
    people = make_people(mask(300, NOSE), image=np.sort(rng.integers(100, size=300)))
    poses = true_poses(people)
    poses.keypoints[:, NOSE] += rng.normal(scale=4, size=(300, 2))
    poses = poses._replace(score=rng.random(300))
    people.keypoints[:] += FAR * np.arange(300)[:, None, None]
    poses.keypoints[:] += FAR * np.arange(300)[:, None, None]
    counts = draw_counts(100, num=50)
    found = keypoints_of(people, poses, np.tile(poses.score[:, None], NUM_KEYPOINTS), counts=counts)
    np.testing.assert_allclose(found.pooled, plain_ap(people, poses, counts)[:, 0], rtol=0, atol=1e-14)
    assert len(set(found.pooled)) == 51


@pytest.mark.parametrize("seed", range(4))
def test_resampled_keypoint_ap_is_that_of_repeated_images(make_coco: Callable[..., Any], seed: int) -> None:
    scene = Scene(make_coco, seed)
    counts = draw_counts(scene.num_images, seed)

    def numbers(scene: Scene, counts: Any) -> KeypointAP:
        person = find_people(scene.people, scene.detections)
        return keypoint_ap(scene.people, scene.detections, person, scene.presence, scene.absent, counts)

    found = numbers(scene, counts)
    assert len(np.unique(scene.presence)) < 12 < scene.presence.size
    for s, row in enumerate(counts):
        again = scene.resampled(row)
        repeated = numbers(again, np.ones((1, again.num_images), dtype=np.int64))
        for values, expected in zip(found, repeated, strict=True):
            np.testing.assert_allclose(values[s], expected[0], rtol=1e-12)


def test_order_of_poses_changes_nothing(make_coco: Callable[..., Any]) -> None:
    scene = Scene(make_coco, 1)
    person = find_people(scene.people, scene.detections)
    order = scene.rng.permutation(len(person))
    before = keypoints_of(scene.people, scene.detections, scene.presence, scene.absent, person=person)
    detections, presence = scene.detections.take(order), scene.presence[order]
    after = keypoints_of(scene.people, detections, presence, scene.absent, person=person[order])
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_keypoint_that_nobody_has_is_left_out_of_the_mean() -> None:
    people = make_people(np.stack([mask(1, NOSE)[0], mask(1, LEFT_EYE)[0]]))
    found = keypoints_of(people, true_poses(people), of_nose(0.9, 0.9), counts=np.array([[1, 1], [2, 0], [0, 0]]))
    np.testing.assert_array_equal(found.per_keypoint[:, :2], [[1, 1], [1, np.nan], [np.nan] * 2])
    np.testing.assert_array_equal(found.macro, [1, 1, np.nan])
    np.testing.assert_array_equal(found.pooled, [1, 1, np.nan])


def test_whom_poses_are_about() -> None:
    # Two of seventeen keypoints right are .12, one is .06; the second pose of somebody is about nobody. No pose is
    # beyond a cap, and none is dropped for its scores.
    people = make_people(mask(1, *range(NUM_KEYPOINTS)))
    points = np.full((23, NUM_KEYPOINTS, 2), FAR)
    points[20, :1], points[21, :2], points[22] = DIAGONAL[:1], DIAGONAL[:2], DIAGONAL
    poses = detect(points, [0] * 23)._replace(keypoint_score=np.zeros((23, NUM_KEYPOINTS)))
    for rules in ("coco", "xtcocotools"):
        assert find_people(people, poses, RULES[rules]).tolist() == [-1] * 21 + [0, -1]
    assert find_people(people, poses.take(np.arange(0))).tolist() == []
    nobody = make_people(mask(0))
    assert find_people(nobody, poses).tolist() == [-1] * 23


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"absent": mask(3)}, r"found absent of shape \(3, 17\), wanted \(2, 17\)"),
        ({"score": np.zeros((2, 16))}, r"found score of shape \(2, 16\), wanted \(2, 17\)"),
        ({"score": of_nose(0, np.nan)}, "found score nan at detection 1, keypoint 0, wanted a number or -inf"),
        ({"score": of_nose(0, np.inf)}, "found score inf at detection 1, keypoint 0"),
        ({"person": np.array([0])}, r"found person of shape \(1,\), wanted \(2,\)"),
        ({"person": np.array([0, 2])}, "found person 2 of detection 1, wanted -1 or somebody in its image"),
        ({"person": np.array([0, -2])}, "found person -2 of detection 1"),
        ({"person": np.array([1, -1])}, "found person 1 of detection 0"),
    ],
)
def test_broken_input_of_keypoint_ap_is_refused(change: dict[str, Any], message: str) -> None:
    people = make_people(mask(2, NOSE))
    args: dict[str, Any] = {"person": np.arange(2), "score": of_nose(0, 1), "absent": mask(2)} | change
    with pytest.raises(UserError, match=message):
        keypoints_of(people, true_poses(people), **args)


@pytest.mark.parametrize(
    ("presence", "message"),
    [
        (np.ones((2, 16)), r"found presence of shape \(2, 16\), wanted \(2, 17\)"),
        (of_nose(1, 1.5), "found presence 1.5 at detection 1, keypoint 0, wanted a probability"),
        (of_nose(np.nan, 1), "found presence nan at detection 0, keypoint 0"),
    ],
)
def test_broken_presence_is_refused(presence: Floats, message: str) -> None:
    people = make_people(mask(2, NOSE))
    with pytest.raises(UserError, match=message):
        gated_ap(people, true_poses(people), mask(2), presence, np.ones((1, 2)))


def test_resamples_are_quick() -> None:
    # A quarter of COCO val, a hundred resamples.
    rng = np.random.default_rng(0)
    labelled = rng.random((1500, NUM_KEYPOINTS)) < 0.6
    people = make_people(labelled, image=np.sort(rng.integers(700, size=1500)))
    poses, absent = true_poses(people), ~labelled & (rng.random(labelled.shape) < 0.6)
    poses.keypoints[:] += rng.normal(scale=6, size=poses.keypoints.shape)
    presence, counts = rng.random(labelled.shape), draw_counts(700, num=100)
    start = time.process_time()
    keypoints_of(people, poses, presence, absent, counts=counts)
    assert time.process_time() - start < 2
    start = time.process_time()
    gated_ap(people, poses, absent, presence, counts)
    assert time.process_time() - start < 2
