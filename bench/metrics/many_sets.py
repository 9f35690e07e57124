"""AP and AR of very many data sets at once: resamples of the images, or trades of them between two systems.

`Evaluation` takes one data set at a time, with about ten calls of numpy for each curve. Here every call is for all
data sets: hits are gone through one after the other, and a row holds a number of each data set.
Letters: I images, D detections, A groups, T thresholds, H hits of one group at one threshold, S data sets.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.metrics.average_precision import RECALL_POINTS, STATS, Evaluation
from bench.metrics.oks import Ints, Matches

CHUNK = 1024  # data sets at a time, so that a few rows fit into a core's fastest cache
GROUPS = {"M": 1, "L": 2}
"""Of COCO's groups by area, those after which a number is named; the others are of all people, group 0."""
PLACES = {"50": 0, "75": 5}
"""In `bench.metrics.oks.THRESHOLDS`."""


class ManySets(Evaluation):
    """`Evaluation` of all data sets together; numbers are the same but for the order of summation."""

    def __init__(self, matches: Matches) -> None:
        super().__init__(matches)
        ends = [*self._deviation_start[1:], len(self._deviation_image)]
        self._deviations = [slice(start, end) for start, end in zip(self._deviation_start, ends, strict=True)]

    def group_stats_of(self, counts: NDArray[np.number]) -> Floats:
        """AP and AR (S, A, 2) of every group, means over the thresholds, NaN where nobody counts; image i is taken
        counts[s, i] times, counts are (S, I)."""
        return np.stack([self.group_curves_of(a, counts).mean(axis=2).T for a in range(self.num_groups)], axis=1)

    def stats_of_sets(self, stats: Sequence[str], counts: NDArray[np.number]) -> Floats:
        """Some of `STATS` (S, len(stats)), of matches in COCO's three groups by area at its ten thresholds."""
        assert set(stats) <= set(STATS), stats
        curves = {a: self.group_curves_of(a, counts) for a in sorted({group_of(stat) for stat in stats})}
        return np.stack([_stat(stat, curves[group_of(stat)]) for stat in stats], axis=1)

    def group_curves_of(self, group: int, counts: NDArray[np.number]) -> Floats:
        """Average precision and recall (2, S, T) of one group, NaN where nobody counts."""
        chunks = [self._curves_of_chunk(group, counts[i : i + CHUNK]) for i in range(0, len(counts), CHUNK)]
        return np.concatenate(chunks, axis=1)

    def _curves_of_chunk(self, group: int, counts: NDArray[np.number]) -> Floats:
        steps = np.ascontiguousarray(counts.T, dtype=np.int64)  # (I, S)
        weight = steps.astype(np.float64)
        before = _sums_before(weight[self._base[group]])
        num_counted = self._num_counted[group].astype(np.int64) @ steps
        reached = Reached(num_counted)
        found = np.full((2, steps.shape[1], self.num_thresholds), np.nan)
        for t in range(self.num_thresholds):
            i = group * self.num_thresholds + t
            found[:, :, t] = reached.precision_and_recall(
                weight, steps, self._hit_image[i], self._counted_at_hits(i, before, weight)
            )
        found[:, num_counted == 0] = np.nan
        return found

    def _counted_at_hits(self, i: int, before: Floats, weight: Floats) -> Floats:
        """How many detections count up to each hit (H, S), at one threshold of a group."""
        counted = before[self._hit_base[i]]
        own = self._deviations[i]
        if own.start < own.stop:
            deviation = _sums_before(weight[self._deviation_image[own]] * self._deviation_sign[own, None])
            counted += deviation[self._hit_deviation[i] - own.start]
        return counted


class Reached:
    """How many of the recall points each data set has reached, by its number of hits."""

    def __init__(self, num_counted: Ints) -> None:
        self.num_counted = np.maximum(num_counted, 1)  # where nobody counts there are no numbers
        sizes, place = np.unique(self.num_counted, return_inverse=True)
        recall = np.arange(sizes[-1] + 1) / sizes[:, None]
        self.points = np.searchsorted(RECALL_POINTS, recall, side="right").astype(np.float64).ravel()
        self.start = place * recall.shape[1]  # (S,) of the row of a data set in `points`

    def precision_and_recall(self, weight: Floats, steps: Ints, image: Ints, counted: Floats) -> Floats:
        """(2, S), from the images of the hits (H,) in the order of their scores; COCOeval.accumulate.

        At every recall point counts the best precision from there on. So a hit counts as often as it reaches recall
        points, with the best precision of itself and of all later ones.
        """
        num_sets = len(self.start)
        if len(image) == 0:
            return np.zeros((2, num_sets))
        precision, new_points = counted, np.empty((len(image), num_sets))
        precision += np.spacing(1)
        hits, place = np.zeros(num_sets), self.start.copy()
        points, now = np.zeros(num_sets), np.empty(num_sets)
        for h, i in enumerate(image.tolist()):
            hits += weight[i]
            place += steps[i]
            np.divide(hits, precision[h], out=precision[h])
            self.points.take(place, out=now, mode="clip")  # the mode that needs no buffer
            np.subtract(now, points, out=new_points[h])
            points, now = now, points
        best, total = np.zeros(num_sets), np.zeros(num_sets)
        for h in range(len(image) - 1, -1, -1):
            np.maximum(best, precision[h], out=best)
            new_points[h] *= best
            total += new_points[h]
        return np.stack([total / len(RECALL_POINTS), hits / self.num_counted])


def group_of(stat: str) -> int:
    """Of COCO's three groups by area, that of one of `STATS`."""
    return GROUPS.get(stat[2:], 0)


def _stat(stat: str, curves: Floats) -> Floats:
    """One of `STATS` (S,) from the curves (2, S, T) of its group."""
    values = curves[0 if stat.startswith("AP") else 1]
    return values[:, PLACES[stat[2:]]] if stat[2:] in PLACES else np.asarray(values.mean(axis=1))


def _sums_before(number: Floats) -> Floats:
    """Sums of the first 0, 1, 2, ... rows (D + 1, S), row by row: `np.cumsum` goes down every column, which is slow."""
    total = np.zeros((len(number) + 1, number.shape[1]))
    for d in range(len(number)):
        np.add(total[d], number[d], out=total[d + 1])
    return total
