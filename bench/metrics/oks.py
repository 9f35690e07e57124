"""Object keypoint similarity and who is matched to whom, on arrays (Lin et al. 2014; cocodataset.org/#keypoints-eval).

The rules are those of pycocotools to the last tie; other evaluators' are named switches (`RULES`).
Letters: P annotated people, D detections, K keypoints, N pairs, T thresholds, A groups of people that are scored apart.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.keypoints import CROWDPOSE_SIGMAS, OKS_SIGMAS
from bench.data.people import Detections, People

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = {"": (0.0, 1e5**2), "M": (32.0**2, 96.0**2), "L": (96.0**2, 1e5**2)}
"""COCO's groups of people by area in square pixels, both ends included: all, medium, large. Nobody is small."""

IGNORED, MISS, HIT = 0, 1, 2
"""What a detection is at one threshold: not to be counted, matched to nobody, matched to somebody who counts."""

CHUNK = 20_000  # pairs at a time, so that they fit into a core's cache


class Rules(NamedTuple):
    """Where evaluators differ on the same keypoints."""

    sigmas: Floats = OKS_SIGMAS
    max_detections: int = 20  # of an image, the highest scores
    segment_area: bool = True  # else 0.53 of the box, for data sets that annotate no area
    drop_zero_scores: bool = False  # detections whose keypoint scores are all 0 or less vanish
    count_labels: bool = False  # whoever has a labelled keypoint counts, whatever num_keypoints says
    ignore_unmatched_outside: bool = True  # unmatched detections outside of an area range are not counted in it


RULES = {
    "coco": Rules(),
    "xtcocotools": Rules(drop_zero_scores=True, count_labels=True),
    "xtcocotools_before_1_12": Rules(drop_zero_scores=True, count_labels=True, ignore_unmatched_outside=False),
    "crowdpose": Rules(sigmas=CROWDPOSE_SIGMAS, segment_area=False, drop_zero_scores=True),
}
"""pycocotools; xtcocotools, and how it took APM and APL before version 1.12; CrowdPose as xtcocotools reads it."""


class Groups(NamedTuple):
    """Parts of the people that are scored apart: the others are ignored, and so is who is matched to them."""

    people: Bools  # (A, P) counts in the group
    unmatched: Bools  # (A, D) a detection that is matched to nobody counts as a miss in the group


def everyone(people: People, detections: Detections) -> Groups:
    """One group of all people, large or small."""
    return Groups(~ignored_people(people)[None], np.ones((1, len(detections.image)), dtype=bool))


class Matches(NamedTuple):
    """What every detection is in every group at every threshold. Detections stand by image, best first."""

    image: Ints  # (D,) position of the image, ascending
    score: Floats  # (D,) descending within an image
    outcome: NDArray[np.int8]  # (A, T, D) IGNORED, MISS or HIT
    person: NDArray[np.int32]  # (A, T, D) whom it is matched to, -1 for nobody
    detection: Ints  # (D,) its place among the detections given
    num_counted: Ints  # (A, I) people that count, by image


def keep_detections(detections: Detections, rules: Rules) -> Ints:
    """Places of the detections that are evaluated: by image, by descending score (ties as given), at most so many."""
    score = detections.score
    order = np.lexsort((-score, detections.image))
    if rules.drop_zero_scores:
        order = order[(detections.keypoint_score[order] > 0).any(axis=1)]
    image = detections.image[order]
    first = np.searchsorted(image, image)  # of its image
    return order[np.arange(len(order)) - first < rules.max_detections].astype(np.int64)


def person_areas(people: People, rules: Rules) -> Floats:
    """(P,) in square pixels; 0.53 is the median share of a person's box that its segment fills."""
    return people.area if rules.segment_area else people.bbox[:, 2] * people.bbox[:, 3] * 0.53


def ignored_people(people: People, rules: Rules = RULES["coco"]) -> Bools:
    """(P,) crowds and people without labelled keypoints."""
    unlabelled = ~(people.visibility > 0).any(axis=1) if rules.count_labels else people.num_keypoints == 0
    return people.crowd | unlabelled


def area_groups(people: People, detections: Detections, rules: Rules) -> Groups:
    """COCO's three groups by area (`AREA_RANGES`)."""
    low, high = (np.array(ends)[:, None] for ends in zip(*AREA_RANGES.values(), strict=True))
    area = person_areas(people, rules)
    within = (area >= low) & (area <= high)
    unmatched = (detections.area >= low) & (detections.area <= high) | (not rules.ignore_unmatched_outside)
    return Groups(within & ~ignored_people(people, rules), unmatched)


def keypoint_similarity(points: Floats, people: People, person: Ints, rules: Rules) -> Floats:
    """Similarity (N, K) of each keypoint (N, K, 2) with that of a person (N,); meaningless where it is not labelled.

    Nobody labelled a keypoint of some people: then it is the distance to their box, doubled in size, that counts.
    """
    away = points - people.keypoints[person]
    unlabelled = ~(people.visibility[person] > 0).any(axis=1)
    if unlabelled.any():
        corner, size = people.bbox[person[unlabelled], None, :2], people.bbox[person[unlabelled], None, 2:]
        point = points[unlabelled]
        away[unlabelled] = np.maximum(0, corner - size - point) + np.maximum(0, point - (corner + size * 2))
    return similarity_at(np.square(away).sum(axis=-1), people, person, rules)


def similarity_at(squared_distance: Floats, people: People, person: Ints, rules: Rules) -> Floats:
    """Similarity (N, K) of keypoints so far away, in square pixels, (N, K), from those of people (N,)."""
    return falloff(squared_distance, person_areas(people, rules)[person, None], rules.sigmas)


def falloff(squared_distance: Floats, area: Floats, sigmas: Floats) -> Floats:
    """The term of OKS for points so far from where they belong, on a person of an area in the same square pixels."""
    variance = (2 * sigmas) ** 2
    similarity: Floats = np.exp(-(squared_distance / variance / (area + np.spacing(1)) / 2))
    return similarity


def oks_of_pairs(points: Floats, people: People, person: Ints, rules: Rules) -> Floats:
    """OKS (N,) of poses (N, K, 2) with people (N,): the mean over labelled keypoints, or over all where none is."""
    labelled = people.visibility[person] > 0
    labelled |= ~labelled.any(axis=1, keepdims=True)
    similarity = np.where(labelled, keypoint_similarity(points, people, person, rules), 0.0)
    oks: Floats = similarity.sum(axis=1) / labelled.sum(axis=1)
    return oks


class Pairs(NamedTuple):
    """Every detection with every person of its image; a detection's pairs stand together, in the order of people."""

    detection: Ints  # (N,)
    person: Ints  # (N,)
    oks: Floats  # (N,)


def pair_up(people: People, detections: Detections, rules: Rules) -> Pairs:
    """All pairs and their OKS. Detections as `keep_detections` orders them."""
    first, last = (np.searchsorted(people.image, detections.image, side) for side in ("left", "right"))
    detection = np.repeat(np.arange(len(detections.image)), last - first)
    person = _ranges(first, last)
    chunks = (slice(start, start + CHUNK) for start in range(0, len(person), CHUNK))
    oks = [oks_of_pairs(detections.keypoints[detection[c]], people, person[c], rules) for c in chunks]
    return Pairs(detection, person, np.concatenate([np.zeros(0), *oks]))


def match(
    people: People,
    detections: Detections,
    num_images: int,
    rules: Rules = RULES["coco"],
    groups: Groups | None = None,
    thresholds: Floats = THRESHOLDS,
    pairs: Pairs | None = None,
) -> Matches:
    """Match detections to people, image by image: the best detection first takes the person it is most similar to.

    Only similarities of at least the threshold count. People who count are preferred to ignored ones; among equals the
    last of the file is taken; a crowd can be taken again and again. All as in pycocotools. `pairs`, those of `pair_up`,
    put another similarity in the place of OKS; the detections must then stand as `keep_detections` orders them.
    """
    kept = keep_detections(detections, rules)
    assert pairs is None or np.array_equal(kept, np.arange(len(detections.image))), "pairs of other detections"
    found = detections.take(kept)
    if groups is None:
        groups = area_groups(people, found, rules)
    else:
        groups = groups._replace(unmatched=groups.unmatched[:, kept])
    person = np.full((len(groups.people), len(thresholds), len(kept)), -1, dtype=np.int32)
    pairs = pair_up(people, found, rules) if pairs is None else pairs
    for block in _blocks(people, found, pairs):
        _match_block(block, people, groups, thresholds, person)
    group = np.arange(len(groups.people))[:, None, None]
    counts = np.concatenate([groups.people, np.zeros((len(group), 1), dtype=bool)], axis=1)[group, person]
    outcome = np.where(counts, HIT, np.where((person < 0) & groups.unmatched[:, None], MISS, IGNORED))
    num_counted = np.stack([np.bincount(people.image[row], minlength=num_images) for row in groups.people])
    return Matches(found.image, found.score, outcome.astype(np.int8), person, kept, num_counted)


class Block(NamedTuple):
    """Images with about equally many people, in one array. Letters: n images, R detections of each, G people of each.

    Images stand by falling number of detections.
    """

    detection: Ints  # (n, R), -1 for none
    person: Ints  # (n, G), -1 for none
    oks: Floats  # (n, R, G), -1 for none


def _blocks(people: People, detections: Detections, pairs: Pairs) -> Iterator[Block]:
    """The images with detections and people, those with 1, 2, up to 4, up to 8, ... people at a time."""
    images, first, num_detections = np.unique(detections.image, return_index=True, return_counts=True)
    first_person, last_person = (np.searchsorted(people.image, images, side) for side in ("left", "right"))
    num_people = last_person - first_person
    first_pair = np.searchsorted(pairs.detection, first)
    size = np.ceil(np.log2(np.maximum(num_people, 1))).astype(np.int64)
    for exponent in np.unique(size[num_people > 0]):
        chosen = np.flatnonzero((size == exponent) & (num_people > 0))
        chosen = chosen[np.argsort(-num_detections[chosen], kind="stable")]
        r, g = (np.arange(numbers[chosen].max()) for numbers in (num_detections, num_people))
        is_detection, is_person = r < num_detections[chosen, None], g < num_people[chosen, None]
        pair = first_pair[chosen, None, None] + r[:, None] * num_people[chosen, None, None] + g
        real = is_detection[:, :, None] & is_person[:, None]
        yield Block(
            detection=np.where(is_detection, first[chosen, None] + r, -1),
            person=np.where(is_person, first_person[chosen, None] + g, -1),
            oks=np.where(real, pairs.oks[np.where(real, pair, 0)], -1.0),
        )


def _match_block(block: Block, people: People, groups: Groups, thresholds: Floats, person: NDArray[np.int32]) -> None:
    """Fill `person` (A, T, D): one pass over the ranks of detections, all images, groups and thresholds at once."""
    g = block.person.shape[1]
    lowest = np.minimum(thresholds, 1 - 1e-10)
    free = np.ones((len(groups.people), len(thresholds), len(block.person), g), dtype=bool)
    crowd = people.crowd[block.person]
    bonus = (groups.people[:, block.person] * np.int16(g + 1)).astype(np.int16)  # (A, n, G)
    for rank in range(block.detection.shape[1]):
        n = int(np.searchsorted(-(block.detection[:, rank] >= 0).astype(int), 0))
        oks = block.oks[:n, rank]
        # Places among the image's people are compared, not similarities: exact, in small numbers, ties kept.
        place = (oks[:, :, None] >= oks[:, None]).sum(axis=2).astype(np.int16)  # (n, G)
        allowed = free[:, :, :n] & (oks >= lowest[:, None, None])
        preference = np.where(allowed, (place + bonus[:, :n])[:, None], np.int16(0))  # (A, T, n, G)
        best = g - 1 - preference[..., ::-1].argmax(axis=-1)  # the last among equals
        taken = np.take_along_axis(preference, best[..., None], axis=-1)[..., 0] > 0
        a, t, i = np.nonzero(taken)
        chosen = best[a, t, i]
        person[a, t, block.detection[i, rank]] = block.person[i, chosen]
        free[a, t, i, chosen] = crowd[i, chosen]


def _ranges(start: Ints, end: Ints) -> Ints:
    """start[0] .. end[0] - 1, start[1] .. end[1] - 1, and so on, in one array."""
    length = end - start
    shift = start - (np.cumsum(length) - length)
    positions: Ints = np.arange(length.sum()) + np.repeat(shift, length)
    return positions
