"""From a predictions file to COCO's ten numbers, at COCO's size, and 2,000 resamples of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.people import Truth
from bench.data.predictions import DETECTED, STATISTICS, UNLABELLED, read_split, write_predictions
from bench.inference.poses import scored_detections
from bench.metrics.average_precision import OKSEvaluation
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.oks import match
from tests.perf.rates import record_rate

NUM_IMAGES, NUM_WITH_PEOPLE, NUM_PEOPLE, NUM_DETECTIONS = 5000, 2693, 6267, 100_000  # as COCO val2017


@pytest.fixture(scope="module")
def truth() -> Truth:
    rng = np.random.default_rng(0)
    image_ids = rng.permutation(600_000)[:NUM_IMAGES] + 1
    owners = rng.permutation(np.resize(image_ids[:NUM_WITH_PEOPLE], NUM_PEOPLE))
    annotations = [{"id": i} | make_person(rng, int(image_id)) for i, image_id in enumerate(owners)]
    return Truth.of({"images": [{"id": int(image_id)} for image_id in image_ids], "annotations": annotations})


def make_person(rng: np.random.Generator, image_id: int) -> dict[str, object]:
    size = rng.uniform(35, 250, size=2)
    corner = rng.uniform(0, 640 - size)
    keypoints = np.column_stack([corner + size * rng.random((NUM_KEYPOINTS, 2)), rng.integers(0, 3, NUM_KEYPOINTS)])
    keypoints[0, 2] = 2
    return {
        "image_id": image_id, "keypoints": keypoints.ravel(), "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "area": float(size.prod() * 0.53), "bbox": [*corner, *size], "iscrowd": 0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def file(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detection near each person, the rest somewhere."""
    rng = np.random.default_rng(1)
    people, num_others = truth.people, NUM_DETECTIONS - NUM_PEOPLE
    noise = rng.normal(size=people.keypoints.shape) * rng.uniform(0, 12, size=(NUM_PEOPLE, 1, 1))
    others = rng.uniform(0, 500, size=(num_others, 1, 2)) + rng.uniform(0, 140, size=(num_others, NUM_KEYPOINTS, 2))
    keypoints = np.concatenate([people.keypoints + noise, others])
    image_ids = truth.image_ids[np.concatenate([people.image, np.arange(num_others) % NUM_IMAGES])]
    bbox_score = np.concatenate([rng.uniform(0.3, 1, NUM_PEOPLE), rng.uniform(0, 0.6, num_others)])
    frame = pd.DataFrame(
        {
            "split": DETECTED,
            "image_id": np.repeat(image_ids, NUM_KEYPOINTS),
            "annotation_id": UNLABELLED,
            "keypoint": np.tile(np.arange(NUM_KEYPOINTS), NUM_DETECTIONS),
            "x": keypoints[..., 0].ravel(),
            "y": keypoints[..., 1].ravel(),
            "score": rng.random(keypoints[..., 0].size, dtype=np.float32),
            "presence_logit": np.float32(np.nan),
            "visibility": UNLABELLED,
            "bbox_score": np.repeat(bbox_score, NUM_KEYPOINTS),
            "view_area": 2e4,
            **dict.fromkeys(STATISTICS, np.float32(0)),
            "present_labelled": False,
            "present_weight_labelled": np.float32(0),
        }
    )
    file = tmp_path_factory.mktemp("predictions") / "run-0.parquet"
    write_predictions(file, [frame])
    return file


def evaluate(file: Path, truth: Truth) -> OKSEvaluation:
    detections = scored_detections(read_split(file, DETECTED, "labelled"), truth, "box_keypoint", nms_threshold=None)
    return OKSEvaluation(match(truth.people, detections, truth.num_images))


def test_from_the_file_to_ten_numbers(benchmark: BenchmarkFixture, file: Path, truth: Truth) -> None:
    stats = benchmark(lambda: evaluate(file, truth).stats)
    assert 0 < stats["AP"] < stats["AP50"] < 1
    record_rate(benchmark, "detections", NUM_DETECTIONS)


def test_two_thousand_resamples(benchmark: BenchmarkFixture, file: Path, truth: Truth) -> None:
    evaluation = evaluate(file, truth)
    counts = draw_resampling(truth.num_images, 2000, "percentile", np.random.default_rng(0)).counts
    stats = benchmark.pedantic(lambda: np.stack([evaluation.stats_of(row) for row in counts]), rounds=3)
    assert stats[1:, 0].min() < stats[0, 0] < stats[1:, 0].max()
    record_rate(benchmark, "resamples", 2000)
