"""Scores of poses that can say "not there": gated OKS, Ex-OKS, AP by either, and AP of single keypoints.

COCO's OKS reads neither what a pose says of absent keypoints nor which keypoints are known to be absent. These scores
do. What is known: a keypoint of a person is labelled (v > 0), known to be absent, or unknown, which counts nowhere.
What is said: a keypoint of a pose is emitted or suppressed (`emit`). Under a label policy the known-absent keypoints
are those that count and are not present (`bench.data.presence`); one that is both labelled and known to be absent, say
out of the window, counts as absent.
Letters: I images, P annotated people, D detections, K keypoints, N pairs, Q similarities or presence thresholds,
T similarity thresholds, S data sets, M claims, R runs of hits.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.people import Detections, People
from bench.errors import UserError
from bench.metrics.average_precision import RECALL_POINTS
from bench.metrics.errors import FOUND
from bench.metrics.oks import (
    CHUNK,
    HIT,
    IGNORED,
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
COCO_SLACK = np.spacing(1)  # which COCOeval adds to the number of detections
CELLS = 2**18  # claims of all data sets at a time, so that they fit into a core's cache

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
    counts: NDArray[np.integer],
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

    # As if they were so many thresholds more: many are hit alike, and those are counted once.
    matches = [match_by(similarity) for similarity in similarities]
    outcome, alike = np.unique(np.concatenate([m.outcome[0] for m in matches]), axis=0, return_inverse=True)
    curves = _average_matches(matches[0], outcome, counts.astype(np.int64))
    means = curves.take(alike.ravel(), axis=-1).reshape(len(counts), 2, len(matches), -1).mean(axis=-1)
    return np.asarray(np.swapaxes(means, 1, 2))


def _average_matches(matches: Matches, outcome: NDArray[np.int8], counts: Ints) -> Floats:
    """Average precision and recall (S, 2, T) of these detections, where they are what `outcome` (T, D) says."""
    order = np.argsort(-matches.score, kind="stable")
    image, outcome = matches.image[order], outcome[:, order]
    counted, alike = np.unique(outcome != IGNORED, axis=0, return_inverse=True)  # few, most often one
    values = np.empty((len(counts), 2, len(outcome)))
    for i, row in enumerate(counted):
        chosen, places = np.flatnonzero(alike.ravel() == i), np.flatnonzero(row)
        hit = outcome[chosen][:, places] == HIT
        ranking = _Ranking(image[places], np.arange(len(places)), hit, matches.num_counted[0], slack=COCO_SLACK)
        values[:, :, chosen] = np.stack([ranking.average_precisions(counts), ranking.recalls(counts)], axis=1)
    return values


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
    counts: NDArray[np.integer],
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
    rankings = [claims.rank(num_present.sum(axis=1))]
    rankings += [claims.of(k).rank(column) for k, column in enumerate(num_present.T)]
    values = [ranking.average_precisions(counts.astype(np.int64)).mean(axis=1) for ranking in rankings]
    pooled, per_keypoint = values[0], np.stack(values[1:], axis=1)
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

    def rank(self, num_present: Ints) -> "_Ranking":
        """Those of equal score together; `num_present` (I,) keypoints are there to be found in each image."""
        ends = np.flatnonzero(np.append(np.diff(self.score) != 0, True)[: len(self.score)])
        return _Ranking(self.image, np.repeat(ends, np.diff(ends, prepend=-1)), self.hit, num_present)


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


class _Runs(NamedTuple):
    """Hits that stand together at one threshold, of which the last has the highest precision whatever is taken."""

    first: Ints  # (R,) place among the claims
    last: Ints  # (R,)
    end: Ints  # (R,) place of the last claim that is emitted with the last hit


class _Ranking:
    """Claims in one order, the best score first, ready to be counted in any multiset of the images."""

    def __init__(self, image: Ints, end: Ints, hit: Bools, num_present: Ints, slack: float = 0) -> None:
        """Of claims: `image` (M,), `end` (M,) the place of the last one that is emitted with it, `hit` (T, M); of
        images: `num_present` (I,), what is there to be found. `slack` is added to the number of claims."""
        self._image = image
        self._num_present = num_present
        self._hit = hit
        self._slack = slack
        self._runs = [_runs(row, end) for row in hit]

    def average_precisions(self, counts: Ints) -> Floats:
        """(S, T), NaN where nothing is present; image i is taken counts[s, i] times in data set s."""
        step = max(CELLS // max(len(self._image), 1), 1)
        parts = [self._average_precisions(counts[start : start + step]) for start in range(0, len(counts), step)]
        return np.concatenate(parts)

    def _average_precisions(self, counts: Ints) -> Floats:
        total = counts @ self._num_present
        needed = _hits_needed(np.maximum(total, 1))
        claimed = np.zeros((len(counts), len(self._image) + 1), dtype=np.int64)  # up to each claim, 0 before the first
        np.cumsum(counts[:, self._image], axis=1, out=claimed[:, 1:])
        values = [
            _interpolate(
                claimed[:, runs.last + 1] - claimed[:, runs.first],
                np.maximum(claimed[:, runs.end + 1], 1) + self._slack,  # no hit among none
                needed,
            )
            for runs in self._runs
        ]
        return np.where(total[:, None] > 0, np.stack(values, axis=1), np.nan)

    def recalls(self, counts: Ints) -> Floats:
        """(S, T) of all claims, NaN where nothing is present."""
        num_images = len(self._num_present)
        hits = counts @ np.stack([np.bincount(self._image[row], minlength=num_images) for row in self._hit], axis=1)
        total = (counts @ self._num_present)[:, None]
        return np.divide(hits, total, out=np.full(hits.shape, np.nan), where=total > 0)


def _runs(hit: Bools, end: Ints) -> _Runs:
    """Of hits (M,). The next claim goes on with a run where it is a hit, and no miss is emitted with it alone."""
    alone = end == np.arange(len(end))
    goes_on = hit[:-1] & hit[1:] & (alone[1:] | (end[1:] == end[:-1]))
    first = np.flatnonzero(hit & ~np.concatenate([[False], goes_on])[: len(hit)])
    last = np.flatnonzero(hit & ~np.concatenate([goes_on, [False]])[: len(hit)])
    return _Runs(first, last, end[last])


def _hits_needed(total: Ints) -> Ints:
    """The fewest hits (S, R) with hits / total >= each of `RECALL_POINTS`, to the last rounding of the quotient."""
    total = total[:, None]
    needed = np.ceil(RECALL_POINTS * total).astype(np.int64)
    needed -= (needed - 1) / total >= RECALL_POINTS
    needed += needed / total < RECALL_POINTS
    return needed


def _interpolate(taken: Ints, claimed: Floats, needed: Ints) -> Floats:
    """Average precision (S,) as `Evaluation` has it: the highest precision at each recall or beyond, 0 beyond the
    highest reached.

    From the hits of each run (S, R), the claims up to its end (S, R), and the hits needed for each point of recall
    (S, 101). The hits before the last of a score have all its claims against them, so that none of them is the highest.
    """
    if not taken.any():
        return np.zeros(len(taken))
    hits = np.cumsum(taken, axis=1)
    reached = needed <= hits[:, -1:]
    run_of_hit = np.repeat(np.arange(taken.size), taken.ravel())  # of all data sets, one after the other
    before = np.cumsum(hits[:, -1]) - hits[:, -1]
    place = run_of_hit[np.where(reached & (needed > 0), before[:, None] + needed - 1, 0)]
    place = np.where(needed > 0, place, np.arange(0, taken.size, taken.shape[1])[:, None])
    highest = np.zeros(needed.shape)  # from each point of recall to the next
    highest[reached] = np.maximum.reduceat((hits / claimed).ravel(), place[reached])  # recall 0 begins every data set
    best = np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.ascontiguousarray(best).mean(axis=1))


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
