"""Cases in COCO's format, by hand and drawn, with all that evaluators have stumbled over, and ours run on them."""

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import COCO_LAYOUT, Layout
from bench.data.people import Truth
from bench.metrics.average_precision import STATS, OKSEvaluation
from bench.metrics.oks import RULES, Matches, Rules, match

Dict = dict[str, Any]


class Case(NamedTuple):
    coco: Dict
    entries: list[Dict]


def our_matches(case: Case, rules: Rules = RULES["coco"]) -> Matches:
    """As of a result file: boxes of the entries, where the first has one, decide the area."""
    truth = Truth.of(case.coco)
    triplets = np.array([entry["keypoints"] for entry in case.entries], dtype=np.float64)
    triplets = triplets.reshape(len(case.entries), len(rules.sigmas), 3)
    found = truth.detections(
        np.array([entry["image_id"] for entry in case.entries], dtype=np.int64),
        triplets[..., :2],
        triplets[..., 2],
        np.array([entry["score"] for entry in case.entries], dtype=np.float64),
    )
    if case.entries and "bbox" in case.entries[0]:
        found = found._replace(area=np.array([entry["bbox"][2] * entry["bbox"][3] for entry in case.entries]))
    return match(truth.people, found, truth.num_images, rules)


def our_stats(case: Case, rules: Rules = RULES["coco"]) -> dict[str, float]:
    return OKSEvaluation(our_matches(case, rules)).stats


def ours(case: Case, rules: Rules = RULES["coco"]) -> NDArray[np.float64]:
    """The ten numbers."""
    return np.array(list(our_stats(case, rules).values()))


def with_faster_coco_eval(case: Case) -> NDArray[np.float64]:
    """What it says, if it is installed."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO()
    people = [dict(person) for person in case.coco["annotations"]]
    truth.dataset = {**case.coco, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([dict(entry) for entry in case.entries])
        evaluator = COCOeval_faster(truth, found, "keypoints", print_function=print)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    stats = np.array(evaluator.stats[: len(STATS)], dtype=np.float64)
    return np.where(stats == -1, np.nan, stats)


def make_truth(*people: Dict) -> Dict:
    return {"images": [{"id": i} for i in sorted({p["image_id"] for p in people})], "annotations": list(people)}


def make_large_person(image_id: int, labelled: tuple[int, ...] = tuple(range(17))) -> Dict:
    """Area 10,000 (large), keypoints on a diagonal."""
    keypoints = [[10.0 * k, 10.0 * k, 2.0] if k in labelled else [0.0, 0.0, 0.0] for k in range(17)]
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


def as_result(person: Dict, score: float = 0.5, shift: float = 0.0) -> Dict:
    """The person, moved to the right."""
    keypoints = [value + shift * (i % 3 == 0) for i, value in enumerate(person["keypoints"])]
    return {"image_id": person["image_id"], "category_id": 1, "keypoints": keypoints, "score": score}


class Odds(NamedTuple):
    """What the images, people and detections of one case are like."""

    people: int  # in an image, at most
    crowd: float
    unlabelled: float
    twin: float  # of an annotation that is there twice
    exact: float  # of a detection that equals its person
    scoreless: float  # of a detection whose third values are all 0 or less
    surplus: int  # strays in one image
    score: str
    boxes: bool  # beside the keypoints of detections


def draw_odds(rng: np.random.Generator) -> Odds:
    return Odds(
        people=int(rng.integers(1, 5)),
        crowd=rng.choice([0.0, 0.2, 0.6]),
        unlabelled=rng.choice([0.0, 0.2, 0.6]),
        twin=rng.choice([0.0, 0.4]),
        exact=rng.choice([0.0, 0.3]),
        scoreless=rng.choice([0.0, 0.0, 0.4]),
        surplus=int(rng.choice([0, 0, 0, 30])),
        score=rng.choice(["coarse", "equal", "distinct", "of either sign"]),
        boxes=rng.random() < 0.2,
    )


def draw_case(seed: int, layout: Layout = COCO_LAYOUT) -> Case:
    """A few images: ids, annotations and detections in any order."""
    rng = np.random.default_rng(seed)
    odds = draw_odds(rng)
    image_ids = (rng.choice(10**6, rng.integers(1, 6), replace=False) + 1).tolist()
    num_people = rng.integers(odds.people + 1, size=len(image_ids))
    people = [draw_person(rng, i, odds, layout) for i in np.repeat(image_ids, num_people).tolist()]
    people += [person for person in people if rng.random() < odds.twin]
    annotation_ids = (rng.choice(10**6, len(people), replace=False) + 1).tolist()
    people = [{**person, "id": i} for person, i in zip(people, annotation_ids, strict=True)]
    entries = [draw_detection(rng, person, odds) for person in people for _ in range(rng.choice([0, 1, 1, 2]))]
    strays = [*rng.choice(image_ids, rng.integers(1, 5)).tolist(), *[image_ids[0]] * odds.surplus]
    entries += [draw_stray(rng, i, odds, layout.num_keypoints) for i in strays]
    images = [{"id": i} for i in rng.permutation(image_ids).tolist()]
    return Case({"images": images, "annotations": list(rng.permutation(people))}, list(rng.permutation(entries)))


def draw_person(rng: np.random.Generator, image_id: int, odds: Odds, layout: Layout) -> Dict:
    """Often with an area at which medium or large begins, or next to it."""
    x, y, w, h = np.add(rng.integers(0, 200, 4), (0.0, 0.25, 1.0, 1.5)).tolist()
    visibility = rng.integers(0, 3, layout.num_keypoints) * (rng.random() >= odds.unlabelled)
    points = (x, y) + rng.random((layout.num_keypoints, 2)) * (w, h)
    borders = [32.0**2, 96.0**2, np.nextafter(32.0**2, 0), np.nextafter(96.0**2, 1e9), 0.0]
    return {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": np.column_stack([points * (visibility > 0)[:, None], visibility]).ravel().tolist(),
        "num_keypoints": layout.count(visibility.tolist()),
        "bbox": [x, y, w, h],
        "area": float(rng.choice([*borders, *[w * h * 0.6] * 5])) if layout.has_area else np.nan,
        "iscrowd": int(rng.random() < odds.crowd),
    }


def draw_detection(rng: np.random.Generator, person: Dict, odds: Odds) -> Dict:
    """A person with noise, from none to a third of the size of the box."""
    points = np.array(person["keypoints"]).reshape(-1, 3)[:, :2]
    size = np.sqrt(person["bbox"][2] * person["bbox"][3])
    noise = 0.0 if rng.random() < odds.exact else rng.choice([0.01, 0.1, 0.3]) * size
    return make_entry(rng, person["image_id"], points + rng.normal(size=points.shape) * noise, odds)


def draw_stray(rng: np.random.Generator, image_id: int, odds: Odds, num_keypoints: int) -> Dict:
    """A pose of nobody, on whole pixels; often its area is exactly that at which medium or large begins."""
    size = rng.choice([(32, 32), (96, 96), (16, 64), (200, 60), (31, 33)])
    points = rng.integers(0, size, (num_keypoints, 2), endpoint=True)
    points[:2] = [(0, 0), size]
    return make_entry(rng, image_id, points + rng.integers(0, 200, 2), odds)


def make_entry(rng: np.random.Generator, image_id: int, points: NDArray, odds: Odds) -> Dict:
    third = rng.random(len(points)) if rng.random() >= odds.scoreless else -rng.integers(0, 2, len(points))
    scores = {"coarse": rng.integers(4) / 4, "equal": 0.5, "distinct": rng.random(), "of either sign": rng.normal()}
    entry = {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": np.column_stack([points, third]).astype(float).ravel().tolist(),
        "score": float(scores[odds.score]),
    }
    w, h = rng.choice([(32.0, 32.0), (96.0, 96.0), (200.0, 60.0), (31.0, 33.0)]).tolist()
    return entry | ({"bbox": [0.0, 0.0, w, h]} if odds.boxes else {})
