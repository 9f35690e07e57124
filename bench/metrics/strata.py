"""AP and AR by attribute of the person: how occluded, labelled, large, crowded, cut by the image border.

Size, crowding and number of keypoints are the attributes of Ronchi and Perona (ICCV 2017; their program:
github.com/matteorr/coco-analyze, analysisAPI/), occlusion and truncation are what keypoint presence is about.
Letters: I images, P annotated people, D detections, K keypoints, A levels of all factors, S data sets.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import reaches_border
from bench.data.geometry import Floats
from bench.data.people import Detections, People
from bench.metrics.errors import FOUND
from bench.metrics.many_sets import ManySets
from bench.metrics.oks import RULES, Groups, Ints, Rules, ignored_people, match, pair_up, person_areas

OVERLAP = 0.1
"""Intersection over union beyond which two boxes overlap."""
OCCLUDED = 0.25
NUM_LABELLED_FROM = (6, 11, 16)
SIDES_FROM = (32.0, 64.0, 96.0, 192.0)
CROWDED_FROM = (1, 3)
"""Where levels begin: share of occluded keypoints (more than), number of labelled keypoints, square root of the area in
pixels, number of overlapping people."""


def _occlusion(people: People, image_size: NDArray[np.number]) -> Ints:  # noqa: ARG001  # one signature for all
    """Share of the labelled keypoints that are labelled as not visible (v = 1)."""
    num_labelled = (people.visibility > 0).sum(axis=1)
    share = (people.visibility == 1).sum(axis=1) / np.maximum(num_labelled, 1)
    return (share > 0).astype(np.int64) + (share > OCCLUDED)


def _num_labelled(people: People, image_size: NDArray[np.number]) -> Ints:  # noqa: ARG001
    """Number of labelled keypoints, as annotated; the levels of occlusionAndCrowdingSensitivity.py."""
    return np.digitize(people.num_keypoints, NUM_LABELLED_FROM)


def _size(people: People, image_size: NDArray[np.number]) -> Ints:  # noqa: ARG001
    """Square root of the area. sizeSensitivity.py has its last edge at 128, and COCO has no AP of the small."""
    return np.digitize(people.area, np.square(SIDES_FROM))


def _crowding(people: People, image_size: NDArray[np.number]) -> Ints:  # noqa: ARG001
    """Number of others whose boxes overlap: all who are annotated in the image, also crowds and people without labelled
    keypoints, as in occlusionAndCrowdingSensitivity.py. (That one leaves out people whom nine or more overlap.)"""
    first, second = _neighbours(people.image)
    overlaps = _iou(people.bbox[first], people.bbox[second]) > OVERLAP
    return np.digitize(np.bincount(first[overlaps], minlength=len(people.image)), CROWDED_FROM)


def _truncation(people: People, image_size: NDArray[np.number]) -> Ints:
    """Whether the box reaches the border of the image, or nearly so."""
    return np.where(reaches_border(people.bbox, image_size[people.image]), 1, 0)


class Factor(NamedTuple):
    """An attribute of people. `level_of(people, image_size)` gives the level (P,) of everybody; image sizes are (I, 2),
    (w, h) in pixels."""

    levels: tuple[str, ...]
    level_of: Callable[[People, NDArray[np.number]], Ints]


FACTORS = {
    "occlusion": Factor(("none", "up to a quarter", "more than a quarter"), _occlusion),
    "num_labelled": Factor(("1-5", "6-10", "11-15", "16-17"), _num_labelled),
    "size": Factor(("below 32", "32-64", "64-96", "96-192", "from 192"), _size),
    "crowding": Factor(("0", "1-2", "3 or more"), _crowding),
    "truncation": Factor(("no", "yes"), _truncation),
}


class Stratum(NamedTuple):
    """The people of one level."""

    num_people: int  # who count, each image taken once
    stats: Floats  # (S, 2) AP and AR, NaN where nobody counts


def strata(
    people: People,
    detections: Detections,
    image_size: NDArray[np.number],
    counts: NDArray[np.number],
    rules: Rules = RULES["coco"],
    factors: Mapping[str, Factor] = FACTORS,
) -> dict[tuple[str, str], Stratum]:
    """AP and AR of the people of every level, by factor and level, also of levels that nobody is in.

    `image_size` (I, 2) is (w, h) in pixels; `counts` (S, I) says how often each image is taken in every data set. The
    levels of a factor share out the people who count; `level_groups` says which detections count for which level.
    """
    groups = level_groups(people, detections, image_size, rules, factors)
    stats = ManySets(match(people, detections, len(image_size), rules, groups)).group_stats_of(counts)  # (S, A, 2)
    names = [(name, level) for name, factor in factors.items() for level in factor.levels]
    return {
        name: Stratum(int(members.sum()), stats[:, a])
        for a, (name, members) in enumerate(zip(names, groups.people, strict=True))
    }


def level_groups(
    people: People,
    detections: Detections,
    image_size: NDArray[np.number],
    rules: Rules = RULES["coco"],
    factors: Mapping[str, Factor] = FACTORS,
) -> Groups:
    """A group of people for every level of every factor, in this order.

    People of other levels are ignored as COCO ignores people of another size: a detection matched to them is not
    counted, but it is matched to somebody of the level first, if similar enough. A detection that is matched to nobody
    is a miss of the level of the person who counts whom it is most similar to, from OKS `FOUND` on; below, it is on
    background, which has no attributes, and a miss of no level. So levels are not punished for the background, and the
    AP of each tends to be higher than that of all people.
    """
    people = people._replace(area=person_areas(people, rules))
    ends = list(accumulate(len(factor.levels) for factor in factors.values()))
    members = np.zeros((ends[-1], len(people.image)), dtype=bool)
    for end, factor in zip(ends, factors.values(), strict=True):
        row = end - len(factor.levels) + factor.level_of(people, image_size)
        members[row, np.arange(len(people.image))] = True
    members &= ~ignored_people(people)
    person, oks = most_similar(people, detections, rules)
    about = np.flatnonzero(oks >= FOUND)
    unmatched = np.zeros((len(members), len(person)), dtype=bool)
    unmatched[:, about] = members[:, person[about]]
    return Groups(members, unmatched)


def most_similar(people: People, detections: Detections, rules: Rules = RULES["coco"]) -> tuple[Ints, Floats]:
    """Who of the people who count in its image a detection is most similar to, and the OKS: (D,) each; -1 and 0 where
    nobody is similar at all. The last of the file among equals."""
    pairs = pair_up(people, detections, rules)
    oks = np.where(ignored_people(people)[pairs.person], 0.0, pairs.oks)
    best = np.zeros(len(detections.image))
    np.maximum.at(best, pairs.detection, oks)
    person = np.full(len(best), -1)
    is_best = (oks == best[pairs.detection]) & (oks > 0)
    person[pairs.detection[is_best]] = pairs.person[is_best]
    return person, best


def _neighbours(image: Ints) -> tuple[Ints, Ints]:
    """All ordered pairs of two different people in the same image; `image` (P,) ascending."""
    start, end = (np.searchsorted(image, image, side) for side in ("left", "right"))
    number = end - start
    first = np.repeat(np.arange(len(image)), number)
    second = np.arange(len(first)) - np.repeat(np.cumsum(number) - number - start, number)
    different = first != second
    return first[different], second[different]


def _iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of boxes x, y, w, h, pair by pair; 0 of two without area."""
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=1)
    union = first[:, 2:].prod(axis=1) + second[:, 2:].prod(axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros(len(union)), where=union > 0)
