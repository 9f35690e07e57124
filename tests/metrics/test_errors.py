import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.keypoints import NUM_KEYPOINTS, OKS_SIGMAS, flip_order
from bench.data.people import Detections, People, extent_area, image_positions, people_of
from bench.metrics.average_precision import RECALL_POINTS, Evaluation
from bench.metrics.errors import (
    COSTS,
    GOOD,
    INVERSION,
    JITTER,
    KINDS,
    MISS,
    SWAP,
    UNLABELLED,
    classify_keypoints,
    correct,
    drop_false_positives,
    error_costs,
    ignore_missed,
    rescore,
    shares,
)
from bench.metrics.oks import RULES, THRESHOLDS, everyone, keypoint_similarity, match, pair_up

Floats = NDArray[np.float64]

AREA = 10_000.0
DIAGONAL = 40.0 * np.stack([np.arange(NUM_KEYPOINTS)] * 2, axis=1)  # so far apart that no two are near each other
FAR = 5000.0
LEFT_WRIST, RIGHT_WRIST = 9, 10
LOCALISATION = (JITTER, INVERSION, SWAP, MISS)


def make_people(corners: Any, image: Any = None, labelled: Any = None) -> People:
    """Alike, each in an image of its own unless said otherwise; `labelled` (P, K)."""
    corners = np.asarray(corners, dtype=np.float64)
    num_people = len(corners)
    labelled = np.ones((num_people, NUM_KEYPOINTS), dtype=bool) if labelled is None else np.asarray(labelled)
    return People(
        image=np.arange(num_people) if image is None else np.asarray(image),
        keypoints=(corners[:, None] + DIAGONAL) * labelled[..., None],
        visibility=labelled * 2,
        area=np.full(num_people, AREA),
        bbox=np.concatenate([corners, np.full((num_people, 2), 640.0)], axis=1),
        crowd=np.zeros(num_people, dtype=bool),
        num_keypoints=labelled.sum(axis=1),
        annotation_id=np.arange(num_people),
    )


def detect(keypoints: Any, image: Any, score: Any = None) -> Detections:
    keypoints, image = np.array(keypoints, dtype=np.float64), np.asarray(image, dtype=np.int64)
    score = np.linspace(1, 0.5, len(image)) if score is None else np.asarray(score)
    return Detections(image, keypoints, np.ones(keypoints.shape[:2]), score, extent_area(keypoints))


def distance_of(similarity: float, keypoint: int) -> float:
    return math.sqrt(-2 * AREA * math.log(similarity)) * 2 * float(OKS_SIGMAS[keypoint])


def kinds_of(people: People, detections: Detections) -> list[list[int]]:
    return classify_keypoints(people, detections).kind.tolist()


def good_but(**kinds: Any) -> list[int]:
    """All good, but for the keypoints listed by kind."""
    expected = [GOOD] * NUM_KEYPOINTS
    for kind, keypoints in kinds.items():
        for keypoint in keypoints:
            expected[keypoint] = KINDS.index(kind)
    return expected


def make_scene(seed: int, spread: float, num_images: int = 12) -> tuple[People, Detections]:
    """One to four people an image within `spread` pixels. Every sort of error, and keypoints without error exact;
    everybody is found, some twice, and there are detections of nobody."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(num_images), rng.integers(1, 5, num_images))
    labelled = rng.random((len(image), NUM_KEYPOINTS)) < 0.8
    labelled[:, 0] = True
    people = make_people(rng.uniform(0, spread, (len(image), 2)), image, labelled)
    person = np.concatenate([np.arange(len(image)), rng.choice(len(image), len(image) // 3)])
    points = np.where(labelled[..., None], people.keypoints, people.bbox[:, None, :2])[person]
    other = np.array([rng.choice(np.flatnonzero(image == image[p])) for p in person])
    draw = rng.random(points.shape[:2])[..., None]
    moved = points + rng.normal(scale=12, size=points.shape)
    wrong = [moved, points[:, flip_order()], np.where(labelled[other][..., None], people.keypoints[other], moved)]
    points = np.select([draw < 0.2, draw < 0.25, draw < 0.35], wrong, points)
    background = rng.uniform(-90_000, -50_000, (6, NUM_KEYPOINTS, 2))
    places = np.concatenate([image[person], rng.integers(num_images, size=6)])
    return people, detect(np.concatenate([points, background]), places, rng.random(len(places)).round(2))


def read_toy(make_coco: Callable[..., Any], seed: int) -> tuple[People, Detections]:
    """`make_coco` with limbs exchanged: crowds, people without labels and ties included."""
    truth, results = make_coco(seed, 8)
    ids = np.array([image["id"] for image in truth["images"]])
    people = people_of(truth["annotations"], ids)
    points = np.array([result["keypoints"] for result in results]).reshape(-1, NUM_KEYPOINTS, 3)[..., :2]
    exchanged = np.random.default_rng(seed).random(points.shape[:2]) < 0.3
    points = np.where(exchanged[..., None], points[:, flip_order()], points)
    image = image_positions(ids, np.array([result["image_id"] for result in results], dtype=np.int64))
    return people, detect(points, image, [result["score"] for result in results])


def precision(people: People, detections: Detections, num_images: int) -> Floats:
    """AP at the ten thresholds."""
    matches = match(people, detections, num_images, groups=everyone(people, detections))
    return Evaluation(matches).curves(np.ones(num_images))[0][0]


def costs_of(people: People, detections: Detections, exact: bool = False) -> dict[str, float]:
    counts = np.ones((1, int(people.image.max()) + 1))
    return {name: float(cost[0]) for name, cost in error_costs(people, detections, counts, exact=exact).items()}


def test_truth_is_good() -> None:
    people = make_people([(0, 0), (300, 0)], image=[0, 0])
    errors = classify_keypoints(people, detect(people.keypoints, people.image))
    assert errors.kind.dtype == np.int8
    assert (errors.kind == GOOD).all()
    assert errors.person.tolist() == errors.detection.tolist() == [0, 1]
    assert (errors.similarity == 1).all()


def test_exchanged_wrists_are_two_inversions() -> None:
    people = make_people([(0, 0)])
    detections = detect(people.keypoints, [0])
    detections.keypoints[0, [LEFT_WRIST, RIGHT_WRIST]] = people.keypoints[0, [RIGHT_WRIST, LEFT_WRIST]]
    assert kinds_of(people, detections) == [good_but(inversion=[LEFT_WRIST, RIGHT_WRIST])]


@pytest.mark.parametrize("taken_for", [LEFT_WRIST, RIGHT_WRIST])
def test_a_wrist_on_either_wrist_of_a_neighbour_is_a_swap(taken_for: int) -> None:
    people = make_people([(0, 0), (300, 0)], image=[0, 0])
    detections = detect(people.keypoints, people.image)
    detections.keypoints[0, LEFT_WRIST] = people.keypoints[1, taken_for]
    assert kinds_of(people, detections) == [good_but(swap=[LEFT_WRIST]), good_but()]


def test_a_wrist_on_another_part_of_a_neighbour_is_a_miss() -> None:
    people = make_people([(0, 0), (300, 0)], image=[0, 0])
    detections = detect(people.keypoints, people.image)
    detections.keypoints[0, LEFT_WRIST] = people.keypoints[1, 0]
    assert kinds_of(people, detections) == [good_but(miss=[LEFT_WRIST]), good_but()]


def test_a_neighbour_in_another_image_is_none() -> None:
    people = make_people([(0, 0), (300, 0)])
    detections = detect(people.keypoints, people.image)
    detections.keypoints[0, LEFT_WRIST] = people.keypoints[1, LEFT_WRIST]
    assert kinds_of(people, detections) == [good_but(miss=[LEFT_WRIST]), good_but()]


@pytest.mark.parametrize(
    ("similarity", "kind"),
    [(0.99, "good"), (0.851, "good"), (0.849, "jitter"), (0.7, "jitter"), (0.501, "jitter"), (0.499, "miss")],
)
def test_distance_decides_between_good_jitter_and_miss(similarity: float, kind: str) -> None:
    people = make_people([(0, 0)])
    detections = detect(people.keypoints, [0])
    detections.keypoints[0, LEFT_WRIST, 1] -= distance_of(similarity, LEFT_WRIST)
    errors = classify_keypoints(people, detections)
    assert errors.kind.tolist() == [good_but(**{kind: [LEFT_WRIST]})]
    assert errors.similarity[0, LEFT_WRIST] == pytest.approx(similarity)


def test_nearer_to_a_neighbour_is_a_swap_though_its_own_label_is_near() -> None:
    people = make_people([(0, 0), (8, 0)], image=[0, 0])
    detections = detect(people.keypoints[[0]], [0])
    detections.keypoints[0, 11:13] += (5, 0)  # a hip may be 8 pixels off and still be good
    assert kinds_of(people, detections) == [good_but(swap=[11, 12])]


def test_what_is_not_labelled_cannot_be_judged_nor_be_taken_for() -> None:
    labelled = np.ones((2, NUM_KEYPOINTS), dtype=bool)
    labelled[0, [0, RIGHT_WRIST]] = labelled[1, 5] = False
    people = make_people([(0, 0), (300, 0)], image=[0, 0], labelled=labelled)
    seen = np.array([(0, 0), (300, 0)])[:, None] + DIAGONAL
    detections = detect(seen, [0, 0])
    detections.keypoints[0, 0] = FAR
    detections.keypoints[0, LEFT_WRIST] = seen[0, RIGHT_WRIST]
    detections.keypoints[0, 5] = seen[1, 5]
    first, second = good_but(miss=[LEFT_WRIST, 5]), good_but()
    first[0] = first[RIGHT_WRIST] = second[5] = UNLABELLED
    assert kinds_of(people, detections) == [first, second]


def test_only_detections_of_people_who_count_are_analysed() -> None:
    people = make_people([(0, 0), (FAR, 0), (0, FAR)], image=[0, 0, 0])._replace(crowd=np.array([False, True, False]))
    nowhere = people.keypoints[0] - 2 * FAR
    detections = detect([nowhere, people.keypoints[1], people.keypoints[2]], [0, 0, 0])
    errors = classify_keypoints(people, detections)
    assert (errors.detection.tolist(), errors.person.tolist(), errors.image.tolist()) == ([2], [2], [0])


def test_nothing_found() -> None:
    people = make_people([(0, 0)])
    errors = classify_keypoints(people, detect(np.zeros((0, NUM_KEYPOINTS, 2)), []))
    assert errors.kind.shape == (0, NUM_KEYPOINTS)
    assert all(np.isnan(share).all() for share in shares(errors, np.ones((1, 1))))


def reference(people: People, detections: Detections) -> dict[int, tuple[int, list[int]]]:
    """Whom each detection is matched to and its kinds, keypoint by keypoint; only people who count can be lost."""
    counts = [p for p in range(len(people.image)) if not people.crowd[p] and people.num_keypoints[p]]
    mirror = flip_order()

    def similarity(d: int, k: int, p: int, of: int) -> float:
        if people.visibility[p, of] == 0:
            return -1.0
        x, y = detections.keypoints[d, k] - people.keypoints[p, of]
        return math.exp(-(x * x + y * y) / (2 * people.area[p] * (2 * OKS_SIGMAS[k]) ** 2))

    def oks(d: int, p: int) -> float:
        labelled = [k for k in range(NUM_KEYPOINTS) if people.visibility[p, k]]
        return sum(similarity(d, k, p, k) for k in labelled) / len(labelled)

    def kind(d: int, k: int, p: int) -> int:
        if people.visibility[p, k] == 0:
            return UNLABELLED
        candidates = [(similarity(d, k, p, k), 3, "own"), (similarity(d, k, p, mirror[k]), 2, "mirrored")]
        for q in range(len(people.image)):
            if q != p and people.image[q] == people.image[p]:
                candidates += [(similarity(d, k, q, k), 1, "other"), (similarity(d, k, q, mirror[k]), 1, "other")]
        best, _, whose = max(candidates)
        if best < 0.5:
            return MISS
        return {"own": GOOD if best >= 0.85 else JITTER, "mirrored": INVERSION, "other": SWAP}[whose]

    found: dict[int, tuple[int, list[int]]] = {}
    taken = set()
    for d in sorted(range(len(detections.image)), key=lambda d: -detections.score[d]):
        free = [p for p in counts if p not in taken and people.image[p] == detections.image[d] and oks(d, p) >= 0.1]
        if free:
            p = max(free, key=lambda p: (oks(d, p), p))
            taken.add(p)
            found[d] = p, [kind(d, k, p) for k in range(NUM_KEYPOINTS)]
    return found


@pytest.mark.parametrize("seed", range(10))
def test_equals_a_plain_reference(make_coco: Callable[..., Any], seed: int) -> None:
    for people, detections in (read_toy(make_coco, seed), make_scene(seed, spread=150), make_scene(seed, spread=FAR)):
        errors = classify_keypoints(people, detections)
        rows = zip(errors.detection.tolist(), errors.person.tolist(), errors.kind.tolist(), strict=True)
        assert {d: (p, kinds) for d, p, kinds in rows} == reference(people, detections)


def test_fuzzed_data_hold_every_kind(make_coco: Callable[..., Any]) -> None:
    for people, detections in (read_toy(make_coco, 2), make_scene(0, spread=150)):
        assert set(classify_keypoints(people, detections).kind.ravel().tolist()) == {-1, 0, 1, 2, 3, 4}


def test_shares_of_any_choice_of_images() -> None:
    people = make_people([(0, 0), (0, 0)], labelled=[[True] * NUM_KEYPOINTS, [True] * 15 + [False] * 2])
    detections = detect(np.stack([DIAGONAL] * 2), people.image)
    detections.keypoints[0, 3] = -FAR  # a miss in image 0
    detections.keypoints[1, [LEFT_WRIST, RIGHT_WRIST]] = DIAGONAL[[RIGHT_WRIST, LEFT_WRIST]]
    errors = classify_keypoints(people, detections)
    pooled, by_keypoint = shares(errors, np.array([[1, 1], [2, 0], [1, 3], [0, 0]]))
    expected = [[29 / 32, 0, 2 / 32, 0, 1 / 32], [16 / 17, 0, 0, 0, 1 / 17], [55 / 62, 0, 6 / 62, 0, 1 / 62]]
    np.testing.assert_allclose(pooled[:3], expected)
    assert by_keypoint[:3, 3].tolist() == [[0.5, 0, 0, 0, 0.5], [0, 0, 0, 0, 1], [0.75, 0, 0, 0, 0.25]]
    assert by_keypoint[2, LEFT_WRIST].tolist() == [0.25, 0, 0.75, 0, 0]
    assert by_keypoint[0, 16].tolist() == [1, 0, 0, 0, 0]  # of the one image where it is labelled
    assert np.isnan(pooled[3]).all()
    assert np.isnan(by_keypoint[3]).all()


@pytest.mark.parametrize("kind", LOCALISATION)
def test_a_correction_ends_its_kind_and_nothing_else(kind: int) -> None:
    people, detections = make_scene(3, spread=FAR)
    errors = classify_keypoints(people, detections)
    wrong = errors.kind == kind
    assert wrong.any()
    for exact in (False, True):
        corrected = correct(people, detections, errors, [kind], exact=exact)
        after = keypoint_similarity(corrected.keypoints[errors.detection], people, errors.person, RULES["coco"])[wrong]
        target = {JITTER: np.full(after.shape, 0.85), MISS: np.full(after.shape, 0.5)}.get(
            kind, errors.similarity[wrong]
        )
        np.testing.assert_allclose(after, np.ones(after.shape) if exact else target, rtol=1e-8)
        untouched = np.ones(detections.keypoints.shape[:2], dtype=bool)
        untouched[errors.detection] = ~wrong
        assert (corrected.keypoints == detections.keypoints).all(axis=2)[untouched].all()
        again = classify_keypoints(people, corrected)
        assert again.person.tolist() == errors.person.tolist()
        assert not (again.kind == kind).any()


def test_a_correction_stays_on_its_side_of_the_label() -> None:
    people = make_people([(0, 0)])
    detections = detect(people.keypoints, [0])
    detections.keypoints[0, LEFT_WRIST] -= (300, 400)
    errors = classify_keypoints(people, detections)
    moved = correct(people, detections, errors, [MISS]).keypoints[0, LEFT_WRIST] - people.keypoints[0, LEFT_WRIST]
    np.testing.assert_allclose(moved, -distance_of(0.5, LEFT_WRIST) * np.array([0.6, 0.8]))


def one_person(**moved: float) -> tuple[People, Detections]:
    """Seven labelled keypoints, the wrists among them; the wrists of the detection moved along x."""
    labelled = np.zeros((1, NUM_KEYPOINTS), dtype=bool)
    labelled[0, [0, 5, 6, LEFT_WRIST, RIGHT_WRIST, 11, 12]] = True
    people = make_people([(0, 0)], labelled=labelled)
    detections = detect(people.keypoints, [0])
    for wrist, distance in zip((LEFT_WRIST, RIGHT_WRIST), moved.values(), strict=True):
        detections.keypoints[0, wrist, 0] += distance
    return people, detections


def test_cost_of_an_inversion() -> None:
    # OKS is 5/7 = .71, enough for five thresholds of ten; with the wrists as close as they were to each other's label,
    # which is exactly on it, it is 1.
    people, detections = one_person(left=0, right=0)
    detections.keypoints[0, [LEFT_WRIST, RIGHT_WRIST]] = people.keypoints[0, [RIGHT_WRIST, LEFT_WRIST]]
    expected = dict.fromkeys(COSTS, 0.0) | {"AP": 0.5, "inversion": 0.5, "localisation": 0.5}
    assert costs_of(people, detections) == pytest.approx(expected)


def test_cost_of_jitter() -> None:
    # OKS is (5 + 2 x .7) / 7 = .914, nine thresholds; then (5 + 2 x .85) / 7 = .957, all ten.
    distance = distance_of(0.7, LEFT_WRIST)
    expected = dict.fromkeys(COSTS, 0.0) | {"AP": 0.9, "jitter": 0.1, "localisation": 0.1}
    assert costs_of(*one_person(left=distance, right=-distance)) == pytest.approx(expected)


def test_cost_of_a_miss() -> None:
    # OKS is 5/7, five thresholds; then (5 + 2 x .5) / 7 = .857, eight; or 1 where corrections are exact.
    expected = dict.fromkeys(COSTS, 0.0) | {"AP": 0.5, "miss": 0.3, "localisation": 0.3}
    assert costs_of(*one_person(left=FAR, right=FAR)) == pytest.approx(expected)
    exact = expected | {"miss": 0.5, "localisation": 0.5}
    assert costs_of(*one_person(left=FAR, right=FAR), exact=True) == pytest.approx(exact)


def test_cost_of_scores() -> None:
    # The worse of two detections of a person has the better score. It is enough for five thresholds; at the others
    # the perfect one comes second, at precision 1/2.
    people, worse = one_person(left=FAR, right=FAR)
    detections = detect([worse.keypoints[0], people.keypoints[0]], [0, 0])
    costs = costs_of(people, detections)
    assert costs["AP"] == pytest.approx(0.75)
    assert costs["score"] == pytest.approx(0.25)
    assert costs["false_positives"] == costs["missed"] == 0
    assert rescore(people, detections).score.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("excess", ["background", "second of one person"])
def test_cost_of_false_positives(excess: str) -> None:
    # Between two right detections, each of one of two people, comes one in excess: precision is 1 up to a recall of
    # 1/2, which is 51 of the 101 recall points, then 2/3.
    people = make_people([(0, 0), (0, 0)])
    wrong = DIAGONAL - FAR if excess == "background" else DIAGONAL
    detections = detect([DIAGONAL, wrong, DIAGONAL], [0, 0, 1])
    ap = (51 + 50 * 2 / 3) / 101
    expected = dict.fromkeys(COSTS, 0.0) | {"AP": ap, "score": 1 - ap, "false_positives": 1 - ap}
    assert costs_of(people, detections) == pytest.approx(expected)
    assert drop_false_positives(people, detections).score.tolist() == detections.score[[0, 2]].tolist()


def test_cost_of_missed_people() -> None:
    people = make_people([(0, 0), (0, 0)])
    detections = detect([DIAGONAL], [1])
    expected = dict.fromkeys(COSTS, 0.0) | {"AP": 51 / 101, "missed": 50 / 101}
    assert costs_of(people, detections) == pytest.approx(expected)
    assert ignore_missed(people, detections).num_keypoints.tolist() == [0, NUM_KEYPOINTS]


def test_nobody_found_leaves_nobody_to_count() -> None:
    costs = costs_of(make_people([(0, 0)]), detect([DIAGONAL - FAR], [0]))
    assert costs["AP"] == costs["localisation"] == costs["false_positives"] == 0
    assert math.isnan(costs["missed"])


def test_a_keypoint_given_back_can_take_a_person_from_a_better_detection() -> None:
    # The first detection is hardly about person 0, yet takes him at OKS .1; so the second, mostly on person 0, is
    # matched to person 1 and its keypoints on person 0 are swaps. With these corrected it takes him from the third.
    people = make_people([(0, 0), (300, 0)], image=[0, 0])
    first = np.where(np.arange(NUM_KEYPOINTS)[:, None] < 4, people.keypoints[0], -FAR)
    second = np.where(np.arange(NUM_KEYPOINTS)[:, None] < 14, people.keypoints[0], people.keypoints[1])
    costs = costs_of(people, detect([first, second, people.keypoints[1]], [0, 0, 0]))
    assert costs["swap"] < 0


def test_scores_that_suit_each_person_best_need_not_find_most() -> None:
    # Person 1 is labelled on five of the points of person 0 only. The better detection of person 0 could serve for
    # person 1, too; the other could not. COCO's matching gives the first in line the person most similar to it.
    labelled = np.ones((2, NUM_KEYPOINTS), dtype=bool)
    labelled[1, 5:] = False
    people = make_people([(0, 0), (0, 0)], image=[0, 0], labelled=labelled)
    better, worse = DIAGONAL.copy(), DIAGONAL.copy()
    better[[4, 16]] = worse[:3] = -FAR
    detections = detect([worse, better], [0, 0])
    assert rescore(people, detections).score == pytest.approx([2 / 5, 15 / 17])
    assert costs_of(people, detections)["score"] < 0


@pytest.mark.parametrize("seed", range(6))
def test_best_scores_equal_a_plain_reference(make_coco: Callable[..., Any], seed: int) -> None:
    for people, detections in (read_toy(make_coco, seed), make_scene(seed, spread=150)):
        pairs = pair_up(people, detections, RULES["coco"])
        counts = ~(people.crowd | (people.num_keypoints == 0))
        expected = np.zeros(len(detections.image))
        taken: set[tuple[str, int]] = set()
        for oks, _, d, p in sorted(zip(-pairs.oks, range(len(pairs.oks)), *pairs[:2], strict=True)):
            if counts[p] and not taken & {("detection", d), ("person", p)}:
                taken |= {("detection", d), ("person", p)}
                expected[d] = -oks
        ranked = rescore(people, detections)
        assert ranked.score.tolist() == expected.tolist()
        # All hits come first: precision is 1 up to the recall reached.
        num_hits = (ranked.score[:, None] >= THRESHOLDS).sum(axis=0)
        reached = (num_hits[:, None] / counts.sum() >= RECALL_POINTS).mean(axis=1)
        np.testing.assert_allclose(precision(people, ranked, 12), np.where(num_hits, reached, 0))


@pytest.mark.parametrize("seed", range(12))
def test_costs_are_hardly_ever_negative(seed: int) -> None:
    people, detections = make_scene(seed, spread=[150, FAR][seed % 2])
    rng = np.random.default_rng(seed)
    counts = np.concatenate([np.ones((1, 12)), rng.multinomial(12, np.full(12, 1 / 12), size=20)])
    costs = error_costs(people, detections, counts)
    assert tuple(costs) == ("AP", *COSTS)
    for name in ("false_positives", "missed"):
        assert (costs[name] >= -1e-12).all()
    for name in ("localisation", "score", *KINDS[1:]):
        assert costs[name][0] >= 0
    assert (costs["AP"] + costs["localisation"] <= 1).all()


@pytest.mark.parametrize("seed", range(6))
def test_with_everything_undone_ap_is_one(seed: int) -> None:
    people, detections = make_scene(seed, spread=100 * FAR)
    last = detections.image < 11  # somebody is missed
    detections = detections.take(last)
    errors = classify_keypoints(people, detections)
    assert precision(people, detections, 12)[-1] < 0.7

    def undo_the_rest(corrected: Detections) -> Floats:
        ranked = rescore(people, corrected)
        kept = drop_false_positives(people, ranked)
        return precision(ignore_missed(people, kept), kept, 12)

    np.testing.assert_allclose(undo_the_rest(correct(people, detections, errors, LOCALISATION, exact=True)), 1)
    at_half, *_, at_most = undo_the_rest(correct(people, detections, errors, LOCALISATION))
    assert at_half == pytest.approx(1)  # every keypoint has a similarity of at least 1/2
    assert at_most < 1


def test_resampled_costs_are_those_of_the_images_drawn() -> None:
    people, detections = make_scene(5, spread=150)
    costs = error_costs(people, detections, np.eye(12))
    for i in range(12):
        here = people.image == i
        alone = People(*(values[here] for values in people))._replace(image=np.zeros(here.sum(), dtype=np.int64))
        found = detections.take(detections.image == i)
        expected = costs_of(alone, found._replace(image=np.zeros(len(found.image), dtype=np.int64)))
        assert {name: cost[i] for name, cost in costs.items()} == pytest.approx(expected)


def test_detections_beyond_the_cap_do_not_move_up() -> None:
    people = make_people([(0, 0)])
    nowhere = np.stack([DIAGONAL - FAR] * 20)
    costs = costs_of(people, detect(np.concatenate([nowhere, DIAGONAL[None]]), [0] * 21))
    assert costs["AP"] == costs["false_positives"] == costs["score"] == 0


def test_classification_is_quick() -> None:
    people = make_people(np.zeros((5000, 2)), image=np.repeat(np.arange(2500), 2))
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(2500), 12)
    detections = detect(DIAGONAL + rng.normal(scale=30, size=(30_000, NUM_KEYPOINTS, 2)), image, rng.random(30_000))
    start = time.process_time()
    assert len(classify_keypoints(people, detections).person) > 4000
    assert time.process_time() - start < 1
