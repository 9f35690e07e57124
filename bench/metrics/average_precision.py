"""AP and AR of a whole split, of resampled images, and of two systems mixed, all from one matching.

An image that is drawn n times counts n times: only counts and cumulative sums change, nobody is matched again.
Letters: I images, D detections, A groups, T thresholds, H hits of all groups and thresholds, R recall points, S stats.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.metrics.oks import AREA_RANGES, HIT, IGNORED, Ints, Matches

STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""COCO's ten, as fractions."""

RECALL_POINTS = np.linspace(0, 1, 101)
_AT = {"": slice(None), "50": 0, "75": 5}  # places in `bench.metrics.oks.THRESHOLDS`


class _Deviations(NamedTuple):
    """Where detections count otherwise in one group at one threshold than they would unmatched."""

    image: Ints
    sign: NDArray[np.int8]  # 1 counts nevertheless, -1 does not


class Evaluation:
    """Precision and recall of matched detections, for any multiset of the images.

    Counting who stands before a hit would need a pass over all detections for each of A x T curves. But an unmatched
    detection counts alike at every threshold, so one cumulative sum a group does for all, and the matched ones, who
    are few, correct it.
    """

    def __init__(self, matches: Matches) -> None:
        self.num_images = matches.num_counted.shape[1]
        self.num_groups, self.num_thresholds, _ = matches.outcome.shape
        self._num_counted = matches.num_counted.astype(np.float64)
        order = np.argsort(-matches.score, kind="stable")
        image, outcome = matches.image[order], matches.outcome[:, :, order]
        unmatched = outcome.max(axis=1) != IGNORED  # of a detection that is matched at some thresholds only, a guess
        self._base = [image[row] for row in unmatched]
        self._hit_image: list[Ints] = []
        self._hit_base: list[Ints] = []
        self._hit_deviation: list[Ints] = []
        deviations: list[_Deviations] = []
        num_deviations = 0
        for row, base in zip(outcome, unmatched, strict=True):
            rank = np.cumsum(base)
            for column in row:
                hits = np.flatnonzero(column == HIT)
                sign = (column != IGNORED).astype(np.int8) - base
                places = np.flatnonzero(sign)
                deviations.append(_Deviations(image[places], sign[places]))
                self._hit_image.append(image[hits])
                self._hit_base.append(rank[hits])
                self._hit_deviation.append(num_deviations + np.searchsorted(places, hits, side="right"))
                num_deviations += len(places)
        self._deviation_image = np.concatenate([d.image for d in deviations])
        self._deviation_sign = np.concatenate([d.sign for d in deviations])
        self._deviation_start = np.cumsum([0, *(len(d.image) for d in deviations[:-1])])

    def curves(self, counts: NDArray[np.number]) -> tuple[Floats, Floats]:
        """Average precision and recall, (A, T) each, NaN where nobody counts; image i is taken counts[i] times."""
        weight = counts.astype(np.float64)
        before = [_cumulate(weight[image]) for image in self._base]
        deviation = _cumulate(weight[self._deviation_image] * self._deviation_sign)
        num_counted = self._num_counted @ weight
        precision = np.full((self.num_groups, self.num_thresholds), np.nan)
        recall = precision.copy()
        for i, (image, base, end) in enumerate(zip(self._hit_image, self._hit_base, self._hit_deviation, strict=True)):
            a, t = divmod(i, self.num_thresholds)
            if num_counted[a] == 0:
                continue
            hits = np.cumsum(weight[image])
            counted = before[a][base] + deviation[end] - deviation[self._deviation_start[i]]
            precision[a, t] = _average_precision(hits, counted, num_counted[a])
            recall[a, t] = hits[-1] / num_counted[a] if len(hits) else 0.0
        return precision, recall

    def group_stats(self, counts: NDArray[np.number]) -> Floats:
        """AP and AR (A, 2) of every group, means over the thresholds."""
        return np.stack([curve.mean(axis=1) for curve in self.curves(counts)], axis=1)


class OKSEvaluation(Evaluation):
    """COCO's ten numbers, of matches in COCO's three groups by area at its ten thresholds."""

    def stats_of(self, counts: NDArray[np.number]) -> Floats:
        """The `STATS` (S,), NaN where no person counts (pycocotools says -1); image i is taken counts[i] times."""
        return np.concatenate([_summarise(curve) for curve in self.curves(counts)])

    @property
    def stats(self) -> dict[str, float]:
        """The `STATS` of all images, once each."""
        return dict(zip(STATS, self.stats_of(np.ones(self.num_images)).tolist(), strict=True))


def mix(first: Matches, second: Matches) -> Matches:
    """Two systems on the same images as one on twice as many: image i of the second is image I + i.

    Counts of 1 for some images of the first and for the others of the second take each image from one of the two, as
    a permutation test does.
    """
    num_images = first.num_counted.shape[1]
    # By image, whichever system it is taken from: among equal scores the order of images decides.
    order = np.argsort(np.concatenate([first.image, second.image]), kind="stable")
    return Matches(
        image=np.concatenate([first.image, second.image + num_images])[order],
        score=np.concatenate([first.score, second.score])[order],
        outcome=np.concatenate([first.outcome, second.outcome], axis=2)[:, :, order],
        person=np.concatenate([first.person, second.person], axis=2)[:, :, order],
        detection=np.concatenate([first.detection, second.detection])[order],
        num_counted=np.concatenate([first.num_counted, second.num_counted], axis=1),
    )


def _average_precision(hits: Floats, counted: Floats, num_people: float) -> float:
    """From the hits up to each hit and the detections up to it; COCOeval.accumulate.

    Misses need no points of their own: between two hits precision only falls.
    """
    if len(hits) == 0:
        return 0.0
    precision = hits / (counted + np.spacing(1))
    best = np.zeros(len(hits) + 1)  # at this recall or beyond; 0 beyond the highest recall reached
    best[:-1] = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[np.searchsorted(hits / num_people, RECALL_POINTS)].mean())


def _summarise(by_group: Floats) -> Floats:
    """The five numbers of AP or of AR from its values (A, T)."""
    everyone, medium, large = by_group[: len(AREA_RANGES)]
    return np.array([everyone.mean(), everyone[_AT["50"]], everyone[_AT["75"]], medium.mean(), large.mean()])


def _cumulate(values: Floats) -> Floats:
    """Sums of the first 0, 1, 2, ... values."""
    return np.concatenate([np.zeros(1), np.cumsum(values)])
