"""Scores of poses that can say "not there": gated OKS, Ex-OKS, AP by either, and AP of single keypoints.

COCO's OKS reads neither what a pose says of absent keypoints nor which keypoints are known to be absent. These scores
do. What is known: a keypoint of a person is labelled (v > 0), known to be absent, or unknown, which counts nowhere.
What is said: a keypoint of a pose is emitted or suppressed (`emit`). Under a label policy the known-absent keypoints
are those that count and are not present (`bench.data.presence`); one that is both labelled and known to be absent, say
out of the window, counts as absent.
Letters: I images, P annotated people, D detections, K keypoints, N pairs, Q similarities or presence thresholds,
T similarity thresholds, S data sets, M claims.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.people import Detections, People
from bench.errors import UserError
from bench.metrics.average_precision import RECALL_POINTS, Evaluation
from bench.metrics.errors import FOUND
from bench.metrics.oks import (
    CHUNK,
    RULES,
    THRESHOLDS,
    Bools,
    Ints,
    Matches,
    Pairs,
    Rules,
    everyone,
    ignored_people,
    keep_detections,
    keypoint_similarity,
    match,
    pair_up,
    similarity_at,
)

PRESENCE_THRESHOLDS = np.arange(21) / 20

Similarity = Callable[[Ints, Ints], Floats]
"""Of pairs: places among the detections and among the people, (N,) each, to a similarity (N,)."""

Reading = Literal["edge", "corner"]


def emit(presence: Floats, threshold: float) -> Bools:
    """Which keypoints are emitted: presence >= threshold. One of presence 0 never is: a sure "no" is one at every
    threshold, the lowest included."""
    return (presence >= threshold) & (presence > 0)


def gated_oks_of_pairs(
    points: Floats, people: People, person: Ints, absent: Bools, emitted: Bools, rules: Rules = RULES["coco"]
) -> Floats:
    """Gated OKS (N,) of poses (N, K, 2) with people (N,): the mean over all labelled or known-absent keypoints.

    `absent` (P, K) is what is known to be absent, `emitted` (N, K) what is emitted. A labelled keypoint scores its
    similarity where emitted, else 0; a known-absent one scores 1 where suppressed, else 0. It is OKS, bit for bit,
    where nothing is absent or suppressed, and of people of whom nothing is known, whatever is emitted.
    """
    there, gone, nothing = _known(people, person, absent)
    similarity = keypoint_similarity(points, people, person, rules)
    score = np.where((there & emitted) | nothing, similarity, gone & ~emitted)
    return _mean(score, there | gone | nothing)


def ex_oks_of_pairs(
    points: Floats,
    people: People,
    person: Ints,
    absent: Bools,
    emitted: Bools,
    window: Floats,
    reading: Reading = "edge",
    rules: Rules = RULES["coco"],
) -> Floats:
    """Ex-OKS (N,) of poses (N, K, 2) with people (N,), after Purkrabek and Matas, "ProbPose", CVPR 2025.

    `absent` (P, K) and `emitted` (N, K) as in gated OKS. `window` (N, 4) is the activation window x0, y0, x1, y1 of
    each pair in image pixels, its edge included: the padded crop of the person. A keypoint is truly in where it is
    labelled inside of the window, and truly out where it is labelled outside or known to be absent (the source has
    the former only). It scores as in OKS, but by another distance (the formula of d_i in the README of the authors'
    exococotools; x* is the label, x the predicted point):

        in, emitted      x* to x          as in OKS
        out, emitted     window to x      a false alarm costs the less the nearer it is to the edge, where it is free
        in, suppressed   x* to window     and so does a miss
        out, suppressed  0                scores 1

    The distance to the window is that to its edge, from inside as from outside; `reading` "corner" is the distance to
    its nearest corner, as the released code has it (ProbPose_code, commit 93bc991, _cocoeval.py). Being emitted is all
    that says a point is in: one that is emitted outside of the window is still a claim that it is inside. It is OKS,
    bit for bit, where every labelled keypoint is in and everything is emitted, and of people of whom nothing is known.
    """
    labelled, gone, nothing = _known(people, person, absent)
    label = people.keypoints[person]
    there = labelled & _inside(label, window)
    distance = READINGS[reading]
    from_edge = np.select([there & ~emitted, ~there & emitted], [distance(label, window), distance(points, window)], 0)
    similarity = keypoint_similarity(points, people, person, rules)
    score = np.where((there & emitted) | nothing, similarity, similarity_at(from_edge, people, person, rules))
    return _mean(score, labelled | gone | nothing)


def _known(people: People, person: Ints, absent: Bools) -> tuple[Bools, Bools, Bools]:
    """Labelled and not absent (N, K), absent (N, K), and of whom nothing is known (N, 1)."""
    gone = absent[person]
    labelled = (people.visibility[person] > 0) & ~gone
    nothing: Bools = np.all(~(labelled | gone), axis=1, keepdims=True)
    return labelled, gone, nothing


def _mean(score: Floats, counted: Bools) -> Floats:
    """(N,) over the keypoints (N, K) that count, summed as OKS does."""
    mean: Floats = np.where(counted, score, 0.0).sum(axis=1) / counted.sum(axis=1)
    return mean


def _beyond(points: Floats, window: Floats) -> Floats:
    """How far points (N, K, 2) are out of windows (N, 4) along x and y, (N, K, 2); negative inside."""
    return np.maximum(window[:, None, :2] - points, points - window[:, None, 2:])


def _inside(points: Floats, window: Floats) -> Bools:
    inside: Bools = np.all(_beyond(points, window) <= 0, axis=-1)
    return inside


def _squared_to_edge(points: Floats, window: Floats) -> Floats:
    beyond = _beyond(points, window)
    outside = np.square(np.maximum(beyond, 0)).sum(axis=-1)
    return np.where(_inside(points, window), np.square(beyond.max(axis=-1)), outside)


def _squared_to_corner(points: Floats, window: Floats) -> Floats:
    nearest = np.minimum(np.abs(points - window[:, None, :2]), np.abs(points - window[:, None, 2:]))
    squared: Floats = np.square(nearest).sum(axis=-1)
    return squared


READINGS: dict[Reading, Callable[[Floats, Floats], Floats]] = {"edge": _squared_to_edge, "corner": _squared_to_corner}
"""What "distance to the window" means: from points (N, K, 2) to windows (N, 4), squared, (N, K)."""


def gated_oks(
    people: People, detections: Detections, absent: Bools, emitted: Bools, rules: Rules = RULES["coco"]
) -> Similarity:
    """Gated OKS of the pairs of these people and detections; `absent` is (P, K), `emitted` (D, K)."""

    def similarity(detection: Ints, person: Ints) -> Floats:
        points = detections.keypoints[detection]
        return gated_oks_of_pairs(points, people, person, absent, emitted[detection], rules)

    return similarity


def ex_oks(
    people: People,
    detections: Detections,
    absent: Bools,
    emitted: Bools,
    window: Floats,
    reading: Reading = "edge",
    window_of: Literal["person", "detection"] = "person",
    rules: Rules = RULES["coco"],
) -> Similarity:
    """Ex-OKS of the pairs of these people and detections; `absent` is (P, K), `emitted` (D, K).

    `window` is (P, 4) by person, as in the source, whose window is the padded annotated box whatever box the model was
    given; or (D, 4) by detection, what the model was shown.
    """

    def similarity(detection: Ints, person: Ints) -> Floats:
        points, own = detections.keypoints[detection], person if window_of == "person" else detection
        return ex_oks_of_pairs(points, people, person, absent, emitted[detection], window[own], reading, rules)

    return similarity


def average_precisions(
    people: People,
    detections: Detections,
    similarities: Sequence[Similarity],
    counts: NDArray[np.number],
    rules: Rules = RULES["coco"],
) -> Floats:
    """AP and AR (S, Q, 2) by each similarity, of all people large or small; `counts` (S, I) says how often each image
    is taken in every data set. NaN where nobody counts.

    Matching and accumulation are COCO's, over its ten thresholds. People who do not count only excuse the poses on
    them, so these are compared with them by OKS, as ever.
    """
    kept = keep_detections(detections, rules)
    found = detections.take(kept)
    pairs = pair_up(people, found, rules)
    groups = everyone(people, found)

    def match_by(similarity: Similarity) -> Matches:
        replaced = _replace_oks(pairs, people, kept, similarity)
        return match(people, found, counts.shape[1], rules, groups, pairs=replaced)

    # As if they were so many thresholds more: they share the detections, their order and whatever is unmatched.
    matches = [match_by(similarity) for similarity in similarities]
    outcome = np.concatenate([m.outcome for m in matches], axis=1)
    person = np.concatenate([m.person for m in matches], axis=1)
    evaluation = Evaluation(matches[0]._replace(outcome=outcome, person=person))
    curves = np.stack([np.concatenate(evaluation.curves(row)) for row in counts])  # (S, 2, Q * T)
    means = curves.reshape(len(counts), 2, len(matches), -1).mean(axis=-1)
    return np.asarray(np.swapaxes(means, 1, 2))


def _replace_oks(pairs: Pairs, people: People, kept: Ints, similarity: Similarity) -> Pairs:
    """The pairs with another similarity, where the person counts; `kept` (D,) are the places of their detections."""
    oks = pairs.oks.copy()
    counted = np.flatnonzero(~ignored_people(people)[pairs.person])
    for start in range(0, len(counted), CHUNK):
        chunk = counted[start : start + CHUNK]
        oks[chunk] = similarity(kept[pairs.detection[chunk]], pairs.person[chunk])
    return pairs._replace(oks=oks)


def gated_ap(
    people: People,
    detections: Detections,
    absent: Bools,
    presence: Floats,
    counts: NDArray[np.number],
    thresholds: Floats = PRESENCE_THRESHOLDS,
    rules: Rules = RULES["coco"],
) -> Floats:
    """AP (S, Q) by gated OKS at each presence threshold (Q,).

    `absent` (P, K), `presence` (D, K) as probabilities, `counts` (S, I) how often each image is taken.

    Raises:
        UserError: an array has another shape, or a presence is no probability.
    """
    _check_shapes(people, detections, absent=absent, presence=presence)
    wrong = np.argwhere(~((presence >= 0) & (presence <= 1)))
    if len(wrong):
        detection, keypoint = wrong[0]
        where = f"detection {detection}, keypoint {keypoint}"
        raise UserError(f"gated AP: found presence {presence[detection, keypoint]} at {where}, wanted a probability")
    gates = [gated_oks(people, detections, absent, emit(presence, t), rules) for t in thresholds]
    return average_precisions(people, detections, gates, counts, rules)[..., 0]


def area_under(values: Floats, thresholds: Floats = PRESENCE_THRESHOLDS) -> Floats:
    """Area (S,) under the curves of values (S, Q) against thresholds from 0 to 1 (Q,), by the trapezoidal rule: of
    `gated_ap`, a number that needs no threshold."""
    assert thresholds[0] == 0
    assert thresholds[-1] == 1
    return np.asarray(np.trapezoid(values, thresholds, axis=1))


def find_people(people: People, detections: Detections, rules: Rules = RULES["coco"]) -> Ints:
    """Whom each pose is about, (D,): matched at OKS `FOUND`, the best score first, all poses; -1 for nobody."""
    every = rules._replace(max_detections=max(len(detections.image), 1), drop_zero_scores=False)
    num_images = 1 + max(people.image.max(initial=-1), detections.image.max(initial=-1))
    groups = everyone(people, detections)
    matches = match(people, detections, num_images, every, groups, np.array([FOUND]))
    person = np.empty(len(detections.image), dtype=np.int64)
    person[matches.detection] = matches.person[0, 0]
    return person


class KeypointAP(NamedTuple):
    """AP of single keypoints in every data set, NaN where none is present."""

    pooled: Floats  # (S,) one ranking of all keypoints
    macro: Floats  # (S,) mean over the keypoints that are present in somebody
    per_keypoint: Floats  # (S, K)


def keypoint_ap(
    people: People,
    detections: Detections,
    person: Ints,
    score: Floats,
    absent: Bools,
    counts: NDArray[np.integer],
    rules: Rules = RULES["coco"],
    thresholds: Floats = THRESHOLDS,
) -> KeypointAP:
    """AP of keypoints that are each a detection of their own, the mean over similarity thresholds (T,).

    `person` (D,) is whom each pose is about, -1 for nobody: who is in the annotated box it was found in, or
    `find_people`. `score` (D, K) ranks the keypoints, say presence times peak; -inf is never emitted. `absent` is
    (P, K), `counts` (S, I) how often each image is taken.

    A keypoint is a hit at a threshold where the same keypoint of its person is labelled, not absent, at least so
    similar, and not taken by a better scored pose; it is not counted where this is unknown, or the person does not
    count. All others are false positives: misplaced, known to be absent, taken, or of nobody. Recall is over all
    present keypoints of people who count, also of those without a pose. Precision is interpolated at COCO's 101 points
    of recall. Keypoints of equal score are emitted together, so that their order does not matter: a constant score
    gets the share of hits, up to the recall it reaches.

    Raises:
        UserError: an array has another shape, a score is NaN or +inf, or a person is not in the image of the pose.
    """
    _check_shapes(people, detections, absent=absent, score=score)
    _check_ranking(people, detections, person, score)
    there = (people.visibility > 0) & ~absent & ~ignored_people(people)[:, None]
    num_present = np.zeros((counts.shape[1], there.shape[1]), dtype=np.int64)
    np.add.at(num_present, people.image, there)
    claims = _claims(people, detections, person, score, absent, rules, thresholds)
    rankings = [_Ranking(claims, num_present.sum(axis=1))]
    rankings += [_Ranking(claims.of(k), column) for k, column in enumerate(num_present.T)]
    values = np.array([[ranking.average_precision(row) for ranking in rankings] for row in counts.astype(np.int64)])
    pooled, per_keypoint = values[:, 0], values[:, 1:]
    return KeypointAP(pooled, _mean_of_defined(per_keypoint), per_keypoint)


class _Claims(NamedTuple):
    """Emitted keypoints that count, the best score first."""

    image: Ints  # (M,)
    keypoint: Ints  # (M,)
    score: Floats  # (M,)
    hit: Bools  # (T, M)

    def of(self, keypoint: int) -> "_Claims":
        chosen = self.keypoint == keypoint
        return _Claims(self.image[chosen], self.keypoint[chosen], self.score[chosen], self.hit[:, chosen])


def _claims(
    people: People,
    detections: Detections,
    person: Ints,
    score: Floats,
    absent: Bools,
    rules: Rules,
    thresholds: Floats,
) -> _Claims:
    counted, similarity = _judge(people, detections, person, absent, rules)
    n, keypoint = np.nonzero(counted & (score > -np.inf))
    order = np.argsort(-score[n, keypoint], kind="stable")
    n, keypoint = n[order], keypoint[order]
    similarity = similarity[n, keypoint]
    wanted = person[n] * score.shape[1] + keypoint  # which keypoint of whom; read of similar ones only
    hit = np.zeros((len(thresholds), len(n)), dtype=bool)
    for row, threshold in zip(hit, thresholds, strict=True):
        similar = np.flatnonzero(similarity >= threshold)
        row[similar[np.unique(wanted[similar], return_index=True)[1]]] = True  # the first, whose score is best
    return _Claims(detections.image[n], keypoint, score[n, keypoint], hit)


def _judge(people: People, detections: Detections, person: Ints, absent: Bools, rules: Rules) -> tuple[Bools, Floats]:
    """(D, K) each: which keypoints count, and how similar they are to that of their person; -1 where there is none."""
    counted = np.ones(detections.keypoints.shape[:2], dtype=bool)
    similarity = np.full(counted.shape, -1.0)
    about = np.flatnonzero(person >= 0)
    whom = person[about]
    labelled, gone, _ = _known(people, whom, absent)
    counted[about] = (labelled | gone) & ~ignored_people(people)[whom, None]
    of_pairs = keypoint_similarity(detections.keypoints[about], people, whom, rules)
    similarity[about] = np.where(labelled, of_pairs, -1.0)
    return counted, similarity


class _Curve(NamedTuple):
    """The hits of a ranking at one threshold, the best score first."""

    image: Ints
    end: Ints  # place in the ranking of the last claim of the same score


class _Ranking:
    """Claims in one order, ready to be counted in any multiset of the images."""

    def __init__(self, claims: _Claims, num_present: Ints) -> None:
        """`num_present` (I,) keypoints are there to be found in each image."""
        self._image = claims.image
        self._num_present = num_present
        ends = np.flatnonzero(np.append(np.diff(claims.score) != 0, True)[: len(claims.score)])
        end = np.repeat(ends, np.diff(ends, prepend=-1))
        self._curves = [_Curve(claims.image[row], end[row]) for row in claims.hit]

    def average_precision(self, counts: Ints) -> float:
        """Mean over the thresholds, NaN where nothing is present; image i is taken counts[i] times.

        Counts are whole numbers, which add up twice as fast as floats.
        """
        total = int(self._num_present @ counts)
        if total == 0:
            return np.nan
        needed = _hits_needed(total)
        claimed = np.maximum(np.cumsum(counts[self._image]), 1)  # no hit among none
        values = [_interpolate(np.cumsum(counts[c.image]), claimed[c.end], needed) for c in self._curves]
        return sum(values) / len(values)


def _hits_needed(total: int) -> Ints:
    """The fewest hits with hits / total >= each of `RECALL_POINTS`, to the last rounding of the quotient."""
    needed = np.ceil(RECALL_POINTS * total).astype(np.int64)
    needed -= (needed - 1) / total >= RECALL_POINTS
    needed += needed / total < RECALL_POINTS
    return needed


def _interpolate(hits: Ints, claimed: Ints, needed: Ints) -> float:
    """Average precision from the hits up to each hit and the claims up to each score, as `Evaluation` has it: the
    highest precision at each recall or beyond, 0 beyond the highest reached.

    The hits before the last of a score have all its claims against them, so that none of them is the highest.
    """
    place = np.searchsorted(hits, needed)
    reached = place[place < len(hits)]
    if len(reached) == 0:
        return 0.0
    highest = np.maximum.reduceat(hits / claimed, reached)  # from each recall point to the next
    return float(np.maximum.accumulate(highest[::-1]).sum() / len(needed))


def _mean_of_defined(values: Floats) -> Floats:
    """(S,) of values (S, K) but the NaN, NaN where all are."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0)


def _check_shapes(people: People, detections: Detections, absent: Bools, **of_detections: Floats) -> None:
    wanted = {"absent": people.visibility.shape} | dict.fromkeys(of_detections, detections.keypoints.shape[:2])
    for name, array in {"absent": absent, **of_detections}.items():
        if array.shape != wanted[name]:
            raise UserError(f"pose scores: found {name} of shape {array.shape}, wanted {wanted[name]}")


def _check_ranking(people: People, detections: Detections, person: Ints, score: Floats) -> None:
    wrong = np.argwhere(~(score < np.inf))
    if len(wrong):
        detection, keypoint = wrong[0]
        where = f"detection {detection}, keypoint {keypoint}"
        raise UserError(f"keypoint AP: found score {score[detection, keypoint]} at {where}, wanted a number or -inf")
    if person.shape != detections.image.shape:
        raise UserError(f"keypoint AP: found person of shape {person.shape}, wanted {detections.image.shape}")
    known = (person >= -1) & (person < len(people.image))
    image = np.append(people.image, -1)[np.where(known, person, -1)]  # -1 of nobody
    strangers = np.flatnonzero(~known | ((person >= 0) & (image != detections.image)))
    if len(strangers):
        found = f"person {person[strangers[0]]} of detection {strangers[0]}"
        raise UserError(f"keypoint AP: found {found}, wanted -1 or somebody in its image")
