"""What is wrong with the poses that were found, and what each kind of error costs in AP.

After Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV 2017, as their
program has it (github.com/matteorr/coco-analyze, commit a4e679f, pycocotools/cocoanalyze.py and cocoeval.py). Where we
differ, the docstring says so. Two differences hold throughout: people below 32 x 32 pixels count, as in COCO's AP of
all people, and only people who count are analysed, never crowds.
Letters: I images, P annotated people, D detections, K keypoints, N detections matched to people who count, C kinds of
error, S data sets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.keypoints import flip_order
from bench.data.people import Detections, People
from bench.metrics.many_sets import ManySets
from bench.metrics.oks import (
    HIT,
    RULES,
    THRESHOLDS,
    Ints,
    Matches,
    Rules,
    everyone,
    ignored_people,
    keep_detections,
    keypoint_similarity,
    match,
    pair_up,
    person_areas,
)

FOUND = 0.1
"""OKS from which on a detection is about a person at all, however badly placed (`oksLocThrs`)."""
NEAR, PRECISE = 0.5, 0.85
"""Similarities from which on a keypoint is near a labelled one, and as near as human annotators are to each other
(`jitterKsThrs`)."""

UNLABELLED, GOOD, JITTER, INVERSION, SWAP, MISS = range(-1, 5)
KINDS = ("good", "jitter", "inversion", "swap", "miss")
"""What a keypoint can be, by number. Nothing can be said of one that nobody labelled: it is -1."""

COSTS = (*KINDS[1:], "localisation", "score", "false_positives", "missed")
"""What `error_costs` undoes: the four kinds of misplaced keypoints, these four at once, and errors of whole poses."""

MIRROR = tuple(flip_order())


class KeypointErrors(NamedTuple):
    """The keypoints of all detections that are matched to people who count."""

    kind: NDArray[np.int8]  # (N, K) a number of `KINDS`, -1 where the person's keypoint is not labelled
    similarity: Floats  # (N, K) with the labelled keypoint that it resembles most, whosever that is; -1 for none
    detection: Ints  # (N,) its place among the detections given
    person: Ints  # (N,)
    image: Ints  # (N,) position of the image


def classify_keypoints(
    people: People, detections: Detections, rules: Rules = RULES["coco"], mirror: Sequence[int] = MIRROR
) -> KeypointErrors:
    """Which keypoints are where they should be, and what the others were taken for (`_find_kpt_errors`; section 3.1).

    Detections are matched at OKS `FOUND`. A keypoint is compared with the labelled ones that it could be taken for: its
    own, its mirror partner (`mirror` (K,) says which), and both of these of everybody else in the image, each on the
    scale of its person. The most similar one decides: none of at least `NEAR`, a miss; its own, good or jitter; its
    mirror partner, an inversion; another person's, a swap. So a keypoint near its own label but nearer to a
    neighbour's is a swap. Ties go to its own, then to its mirror partner. A similarity of exactly `PRECISE` is good;
    the source leaves it without a kind. Keypoints are judged whatever their own score, for COCO's results cannot leave
    one out.
    """
    matches = _match_all(people, detections, rules, [FOUND])
    hit = np.flatnonzero(matches.outcome[0, 0] == HIT)
    detection, person = matches.detection[hit], matches.person[0, 0, hit].astype(np.int64)
    own, mirrored, others = _similarities(people, detections.take(detection), person, rules, mirror)
    best = np.maximum(np.maximum(own, mirrored), others)
    is_own = own == best
    conditions = [best < NEAR, is_own & (own >= PRECISE), is_own, mirrored == best]
    kind = np.select(conditions, [MISS, GOOD, JITTER, INVERSION], SWAP)
    kind[people.visibility[person] == 0] = UNLABELLED
    return KeypointErrors(kind.astype(np.int8), best, detection, person, detections.image[detection])


def _match_all(people: People, detections: Detections, rules: Rules, thresholds: Sequence[float]) -> Matches:
    """Matches of one group of all people."""
    num_images = int(people.image.max(initial=-1)) + 1
    return match(people, detections, num_images, rules, everyone(people, detections), np.array(thresholds))


def _similarities(
    people: People, found: Detections, person: Ints, rules: Rules, mirror: Sequence[int]
) -> tuple[Floats, Floats, Floats]:
    """(N, K) each, -1 where there is nothing labelled: with the own keypoint of the person (N,) each detection is
    matched to, with its mirror partner, and the highest with either of these of any other person in the image."""
    pairs = pair_up(people, found, rules)
    order = list(mirror)
    mirror_image = people._replace(keypoints=people.keypoints[:, order], visibility=people.visibility[:, order])
    points = found.keypoints[pairs.detection]
    own, mirrored = (
        np.where(side.visibility[pairs.person] > 0, keypoint_similarity(points, side, pairs.person, rules), -1.0)
        for side in (people, mirror_image)
    )
    is_match = pairs.person == person[pairs.detection]
    others = np.where(is_match[:, None], -1.0, np.maximum(own, mirrored))
    first = np.searchsorted(pairs.detection, np.arange(len(person)))
    return own[is_match], mirrored[is_match], np.maximum.reduceat(others, first, axis=0)


def count_kinds(errors: KeypointErrors, num_images: int) -> Ints:
    """How many keypoints of each kind there are, (I, K, C)."""
    num_keypoints, num_kinds = errors.kind.shape[1], len(KINDS)
    n, k = np.nonzero(errors.kind != UNLABELLED)
    cell = (errors.image[n] * num_keypoints + k) * num_kinds + errors.kind[n, k]
    counted = np.bincount(cell, minlength=num_images * num_keypoints * num_kinds)
    return counted.reshape(num_images, num_keypoints, num_kinds)


def shares(errors: KeypointErrors, counts: NDArray[np.number]) -> tuple[Floats, Floats]:
    """Share of each kind among the labelled keypoints of people who were found, in every data set.

    `counts` (S, I) says how often each image is taken. Gives (S, C) of all keypoints pooled and (S, K, C) of each;
    NaN where none is labelled.
    """
    num_images = counts.shape[1]
    per_image = count_kinds(errors, num_images)
    # As floats, for whole numbers are not multiplied by the fast library.
    product = counts.astype(np.float64) @ per_image.reshape(num_images, -1).astype(np.float64)
    by_keypoint = product.reshape(len(counts), *per_image.shape[1:])
    return _as_shares(by_keypoint.sum(axis=1)), _as_shares(by_keypoint)


def _as_shares(numbers: Floats) -> Floats:
    total = numbers.sum(axis=-1, keepdims=True)
    return np.divide(numbers, total, out=np.full(numbers.shape, np.nan), where=total > 0)


def correct(
    people: People,
    detections: Detections,
    errors: KeypointErrors,
    kinds: Sequence[int],
    rules: Rules = RULES["coco"],
    exact: bool = False,
) -> Detections:
    """The detections (D,) that `errors` were found in, without the errors of these kinds.

    A correction only ends the error: a jitter moves to where its similarity is `PRECISE`, a miss to where it is `NEAR`,
    an inversion or swap as close to its own label as it was to the wrong one. `exact` puts them on the label instead.
    Scores and areas stay. The source moves them to the right of the label, we between where they were and the label,
    which gives the same similarity; and it takes sigma where OKS takes 2 sigma, so that its corrected keypoints come
    out twice as close as it says (similarity .85 becomes .96, .5 becomes .84).
    """
    assert not {UNLABELLED, GOOD} & set(kinds), "nothing to correct"
    n, k = np.nonzero(np.isin(errors.kind, kinds))
    detection, person = errors.detection[n], errors.person[n]
    label = people.keypoints[person, k]
    away = detections.keypoints[detection, k] - label  # never 0: it would be good
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    target = np.select([errors.kind[n, k] == kind for kind in (JITTER, MISS)], [PRECISE, NEAR], errors.similarity[n, k])
    distance = np.sqrt(-2 * np.log(target) * person_areas(people, rules)[person]) * 2 * rules.sigmas[k]
    distance *= 0.0 if exact else 1 - 1e-9  # rounding must not leave it on the far side of the threshold
    keypoints = detections.keypoints.copy()
    keypoints[detection, k] = label + away * distance[:, None]
    return detections._replace(keypoints=keypoints)


def rescore(people: People, detections: Detections, rules: Rules = RULES["coco"]) -> Detections:
    """The detections with the best scores that poses like these can have: OKS with the person each is about.

    The two that are most similar of all in an image belong together, then the next two of those left, and so on. Who
    is left without a person who counts scores 0. Section 3.2 and `find_score_errors` take the highest OKS with anybody
    instead, and lower that of near duplicates by soft-NMS; ours needs no constants, and puts every hit before every
    miss at every threshold.
    """
    pairs = pair_up(people, detections, rules)
    free = np.flatnonzero(~ignored_people(people)[pairs.person] & (pairs.oks > 0))
    detection, person, oks = (values[free[np.argsort(-pairs.oks[free], kind="stable")]] for values in pairs)
    score = np.zeros(len(detections.image))
    while len(oks):  # as often as one image needs: all who are each other's best at a time
        best_of_detection, best_of_person = (np.unique(side, return_index=True)[1] for side in (detection, person))
        together = np.intersect1d(best_of_detection, best_of_person)
        score[detection[together]] = oks[together]
        left = ~np.isin(detection, detection[together]) & ~np.isin(person, person[together])
        detection, person, oks = detection[left], person[left], oks[left]
    return detections._replace(score=score)


def drop_false_positives(people: People, detections: Detections, rules: Rules = RULES["coco"]) -> Detections:
    """The detections without those in excess: on background, or of somebody whom better scored ones are about.

    They are those matched to nobody, neither at `FOUND` nor at any threshold of AP, so that no match changes when they
    go. The source ignores whatever is unmatched, at each threshold of AP apart (`find_bckgd_errors`): there a badly
    placed pose is a false positive, too, here its placing is to blame. One that is unmatched at `FOUND` alone stays:
    somebody worse, but better scored, has its person there, which is an error of score.
    """
    matches = _match_all(people, detections, rules, [FOUND, *THRESHOLDS])
    return detections.take(np.sort(matches.detection[(matches.person[0] >= 0).any(axis=0)]))


def ignore_missed(people: People, detections: Detections, rules: Rules = RULES["coco"]) -> People:
    """The people, of whom those count no longer that no detection is matched to at `FOUND`.

    Who is missed there is missed at every higher threshold, too. The source takes those unmatched at each threshold of
    AP; that is not done here for the reason given in `drop_false_positives`.
    """
    matches = _match_all(people, detections, rules, [FOUND])
    found = np.isin(np.arange(len(people.image)), matches.person[0, 0, matches.outcome[0, 0] == HIT])
    return people._replace(num_keypoints=np.where(found, people.num_keypoints, 0))


def error_costs(
    people: People,
    detections: Detections,
    counts: NDArray[np.number],
    rules: Rules = RULES["coco"],
    mirror: Sequence[int] = MIRROR,
    exact: bool = False,
) -> dict[str, Floats]:
    """AP (S,), under its name, and for each of `COSTS` how much higher it is when errors of this sort alone are undone.

    `counts` (S, I) says how often each image is taken in every data set. AP is the mean over COCO's ten thresholds, of
    all people large or small; NaN where nobody counts. Matching is done anew for every sort, so that the costs do not
    add up: undoing one error can uncover another. Each is measured from the original, as the source does for its bars
    (`errorsAPImpact`); only its curves undo one after the other, in the order miss, swap, inversion, jitter, score,
    false positives, missed. (Its bar of missed people starts from where false positives are gone; ours does not.)

    The costs of false positives and of missed people are never negative. The others can be, though rarely: a keypoint
    given back to its person can take that person from a better detection, and the score order that suits each person
    best need not find most of them.
    """
    found = detections.take(keep_detections(detections, rules))  # so that nobody moves up when others are dropped
    errors = classify_keypoints(people, found, rules, mirror)

    def corrected(*kinds: int) -> tuple[People, Detections]:
        return people, correct(people, found, errors, kinds, rules, exact)

    cases = {
        **{KINDS[kind]: corrected(kind) for kind in (JITTER, INVERSION, SWAP, MISS)},
        "localisation": corrected(JITTER, INVERSION, SWAP, MISS),
        "score": (people, rescore(people, found, rules)),
        "false_positives": (people, drop_false_positives(people, found, rules)),
        "missed": (ignore_missed(people, found, rules), found),
    }
    original = _average_precisions(people, found, counts, rules)
    return {"AP": original} | {
        name: _average_precisions(*case, counts, rules) - original for name, case in cases.items()
    }


def _average_precisions(people: People, detections: Detections, counts: NDArray[np.number], rules: Rules) -> Floats:
    """AP (S,) of all people in every data set."""
    matches = match(people, detections, counts.shape[1], rules, everyone(people, detections))
    return ManySets(matches).group_stats_of(counts)[:, 0, 0]
