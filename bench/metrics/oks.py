"""COCO keypoint AP and AR by object keypoint similarity (Lin et al. 2014; cocodataset.org/#keypoints-eval).

pycocotools matches people, image by image; the matches are kept and accumulated here, so that the bootstrap re-weights
images without matching again. Letters: I images, D detections, A area ranges (all, medium, large), T the ten OKS
thresholds, R the 101 recall points.
"""

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench.data.coco import PERSON_CATEGORY, check_annotation
from bench.data.keypoints import NUM_KEYPOINTS
from bench.errors import UserError
from bench.metrics.bootstrap import Interval, draw_images, percentile_interval

STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")

_AREAS = {"all": 0, "medium": 1, "large": 2}  # position in pycocotools' areaRng
_THRESHOLDS = {"50": 0, "75": 5}  # position in pycocotools' iouThrs: .5, .55, ... .95
_RESULT_KEYS = {"image_id", "category_id", "keypoints", "score"}


class ImageMatches(NamedTuple):
    """Matches of every image, images in ascending order of their id; an image's detections are contiguous."""

    num_counted: NDArray[np.int64]  # (A, I) people that count
    offset: NDArray[np.int64]  # (I + 1,) where an image's detections begin
    score: NDArray[np.float64]  # (D,)
    hit: NDArray[np.bool_]  # (A, T, D) matched to a person that counts
    miss: NDArray[np.bool_]  # (A, T, D) matched to nobody, and not to be ignored
    recall_points: NDArray[np.float64]  # (R,)


class OKSEvaluation:
    """`stats`: the ten `STATS` as fractions, NaN where no person counts (pycocotools says -1)."""

    def __init__(self, matches: ImageMatches) -> None:
        self._matches = matches
        self.stats = self.resample(np.arange(self.num_images))

    @property
    def num_images(self) -> int:
        return len(self._matches.offset) - 1

    def resample(self, image_index: NDArray[np.integer]) -> dict[str, float]:
        """The statistics of the images at these positions (any length, repeats allowed), as if a repeated image were
        another one with the same people. Positions follow the ascending image ids.
        """
        matches = self._matches
        detections = _concatenate_ranges(matches.offset[image_index], matches.offset[image_index + 1])
        # Stable, as in pycocotools: the order of ties is part of the definition.
        detections = detections[np.argsort(-matches.score[detections], kind="stable")]
        num_counted = matches.num_counted[:, image_index].sum(axis=1)
        curves = [
            _accumulate(hit[:, detections], miss[:, detections], count, matches.recall_points)
            for hit, miss, count in zip(matches.hit, matches.miss, num_counted, strict=True)
        ]
        precision, recall = np.stack(curves, axis=1)  # (A, T) each
        return _summarise("AP", precision) | _summarise("AR", recall)


def evaluate_oks(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> OKSEvaluation:
    """Match `results` to the people of `ground_truth`, both in COCO's layout and category 1. Neither is changed.

    `ground_truth["images"]` says what is evaluated: annotations of other images are left out. Results carry no bbox:
    with one, the COCO tools would take its area, not the keypoints' extent, and APM and APL would change.

    Raises:
        UserError: no images; a broken annotation; a result with a missing or unknown key, an unknown image or category,
            a wrong number of keypoints, or a coordinate or score that is not finite. The message names the annotation's
            id or the result's index.
    """
    image_ids = {image["id"] for image in ground_truth["images"]}
    if not image_ids:
        raise UserError("ground truth: found no images, wanted at least 1")
    annotations = [dict(person) for person in ground_truth["annotations"] if person.get("image_id") in image_ids]
    for annotation in annotations:
        _check_annotation(annotation)
    for index, result in enumerate(results):
        _check_result(index, result, image_ids)
    # pycocotools takes a match to annotation id 0 for no match, so ours count from 1.
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _index_coco(ground_truth["images"], annotations)
        # loadRes reads the first result, so it fails on none.
        found = truth.loadRes([dict(r) for r in results]) if results else _index_coco(ground_truth["images"], [])
        evaluator = COCOeval(truth, found, "keypoints")
        evaluator.evaluate()
    return OKSEvaluation(_collect_matches(evaluator))


def oks_intervals(evaluation: OKSEvaluation, num_resamples: int, rng: np.random.Generator) -> dict[str, Interval]:
    """95 % intervals of all `STATS` by image bootstrap."""
    resampled = [evaluation.resample(index) for index in draw_images(evaluation.num_images, num_resamples, rng)]
    return {
        name: percentile_interval(evaluation.stats[name], np.array([stats[name] for stats in resampled]))
        for name in STATS
    }


def _accumulate(
    hit: NDArray[np.bool_], miss: NDArray[np.bool_], num_counted: int, recall_points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision and recall (T,) of detections (T, D) sorted by score; COCOeval.accumulate, vectorised."""
    num_thresholds = len(hit)
    if num_counted == 0:
        return np.full(num_thresholds, np.nan), np.full(num_thresholds, np.nan)
    hits = np.cumsum(hit, axis=1, dtype=np.float64)
    precision = hits / (np.cumsum(miss, axis=1, dtype=np.float64) + hits + np.spacing(1))
    # Best precision at this recall or beyond; 0 beyond the highest recall reached.
    envelope = np.pad(np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    recall = hits / num_counted
    position = np.stack([np.searchsorted(row, recall_points) for row in recall])
    average_precision = np.take_along_axis(envelope, position, axis=1).mean(axis=1)
    return average_precision, np.pad(recall, ((0, 0), (1, 0)))[:, -1]


def _summarise(name: str, by_area: NDArray[np.float64]) -> dict[str, float]:
    """The five numbers of AP or of AR from its values (A, T)."""
    everyone = by_area[_AREAS["all"]]
    return {
        name: float(everyone.mean()),
        **{name + label: float(everyone[position]) for label, position in _THRESHOLDS.items()},
        f"{name}M": float(by_area[_AREAS["medium"]].mean()),
        f"{name}L": float(by_area[_AREAS["large"]].mean()),
    }


def _collect_matches(evaluator: COCOeval) -> ImageMatches:
    num_images = len(evaluator.params.imgIds)
    by_area = [evaluator.evalImgs[i * num_images : (i + 1) * num_images] for i in _AREAS.values()]
    num_detections = [len(image["dtScores"]) if image else 0 for image in by_area[0]]
    scores = [image["dtScores"] for image in by_area[0] if image]
    matched = np.stack([_concatenate(images, "dtMatches", evaluator) for images in by_area]) > 0
    ignored = np.stack([_concatenate(images, "dtIgnore", evaluator) for images in by_area]) > 0
    return ImageMatches(
        num_counted=np.array([[np.sum(image["gtIgnore"] == 0) if image else 0 for image in row] for row in by_area]),
        offset=np.concatenate([[0], np.cumsum(num_detections, dtype=np.int64)]),
        score=np.concatenate([np.zeros(0), *scores]),
        hit=matched & ~ignored,
        miss=~matched & ~ignored,
        recall_points=evaluator.params.recThrs,
    )


def _concatenate(images: list[dict[str, Any] | None], key: str, evaluator: COCOeval) -> NDArray[np.float64]:
    """(T, D) of all images; an image without people and detections is None."""
    nothing = np.zeros((len(evaluator.params.iouThrs), 0))
    return np.concatenate([nothing, *(image[key] for image in images if image)], axis=1)


def _concatenate_ranges(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """start[0] .. end[0] - 1, start[1] .. end[1] - 1, and so on, in one array."""
    length = end - start
    shift = start - (np.cumsum(length) - length)
    positions: NDArray[np.int64] = np.arange(length.sum()) + np.repeat(shift, length)
    return positions


def _index_coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": PERSON_CATEGORY}]}
    coco.createIndex()
    return coco


def _check_annotation(annotation: dict[str, Any]) -> None:
    name = f"ground truth: annotation {annotation.get('id')}"
    if problem := check_annotation(annotation):
        raise UserError(f"{name}: {problem}")
    _check_category(name, annotation)


def _check_result(index: int, result: dict[str, Any], image_ids: set[int]) -> None:
    name = f"results[{index}]"
    if result.keys() != _RESULT_KEYS:
        raise UserError(f"{name}: found keys {', '.join(sorted(result))}, wanted {', '.join(sorted(_RESULT_KEYS))}")
    if result["image_id"] not in image_ids:
        raise UserError(f"{name}: found image_id {result['image_id']}, wanted an image of the ground truth")
    _check_category(name, result)
    keypoints = result["keypoints"]
    if len(keypoints) != 3 * NUM_KEYPOINTS:
        raise UserError(f"{name}: found {len(keypoints)} keypoint values, wanted {3 * NUM_KEYPOINTS}")
    broken = np.flatnonzero(~np.isfinite(np.asarray(keypoints, dtype=np.float64)))
    if len(broken):
        raise UserError(f"{name}: found {keypoints[broken[0]]} in keypoint {broken[0] // 3}, wanted finite numbers")
    if not np.isfinite(result["score"]):
        raise UserError(f"{name}: found score {result['score']}, wanted a finite number")


def _check_category(name: str, entry: dict[str, Any]) -> None:
    if entry.get("category_id") != PERSON_CATEGORY:
        raise UserError(f"{name}: found category_id {entry.get('category_id')}, wanted {PERSON_CATEGORY} (person)")
