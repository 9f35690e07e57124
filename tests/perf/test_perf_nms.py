"""OKS-NMS of a whole split: 100,000 detections in 5,000 images, evenly or not, beside a plain loop."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data.keypoints import OKS_SIGMAS
from bench.inference.nms import oks_nms
from tests.perf.rates import record_number, record_rate, record_ratio

Found = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
NUM_IMAGES, THRESHOLD = 5_000, 0.9
COUNTS = {
    "even": np.full(NUM_IMAGES, 20),
    "skewed": np.minimum(np.random.default_rng(1).geometric(1 / 21, NUM_IMAGES), 100),
}
"""Detections of each image."""


def draw(counts: NDArray[np.int64]) -> Found:
    """Image, keypoints, score, area: eight people in each image, found again and again with noise."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(len(counts)), counts)
    people = rng.uniform(0, 400, (8 * len(counts), 1, 2)) + rng.uniform(0, 120, (8 * len(counts), 17, 2))
    found = people[8 * image + rng.integers(8, size=len(image))]
    found += rng.normal(size=found.shape) * rng.uniform(0, 12, (len(image), 1, 1))
    return image, found, rng.random(len(image)), rng.uniform(5e3, 3e4, len(image))


def plain_nms(image: NDArray[np.int64], keypoints: NDArray, score: NDArray, area: NDArray) -> NDArray[np.bool_]:
    """Image by image and detection by detection, as the published code does it; numpy over keypoints only."""
    kept = np.zeros(len(image), dtype=bool)
    for one in np.unique(image):
        order = np.flatnonzero(image == one)
        order = order[np.argsort(-score[order], kind="stable")]
        while len(order):
            best, rest = order[0], order[1:]
            kept[best] = True
            similar = [plain_oks(keypoints[best], keypoints[i], (area[best] + area[i]) / 2) for i in rest]
            order = rest[np.array(similar) <= THRESHOLD]
    return kept


def plain_oks(a: NDArray, b: NDArray, area: float) -> float:
    distance = ((a - b) ** 2).sum(axis=1)
    return float(np.exp(-distance / (2 * OKS_SIGMAS) ** 2 / (area + np.spacing(1)) / 2).sum() / len(OKS_SIGMAS))


@pytest.mark.parametrize("name", COUNTS)
def test_nms_of_a_split(benchmark: BenchmarkFixture, name: str) -> None:
    found = draw(COUNTS[name])
    kept = benchmark(oks_nms, *found, THRESHOLD)
    assert 0.5 < kept.mean() < 1
    record_number(benchmark, f"seconds for OKS-NMS, {name}", benchmark.stats.stats.median, at_most=2)
    record_rate(benchmark, "detections", len(kept))


@pytest.mark.parametrize("name", COUNTS)
def test_nms_beside_the_plain_loop(benchmark: BenchmarkFixture, name: str) -> None:
    """On the first 100 images, as the loop takes its time."""
    found = draw(COUNTS[name][:100])
    kept = benchmark(oks_nms, *found, THRESHOLD)
    np.testing.assert_array_equal(kept, plain_nms(*found))
    record_ratio(benchmark, "plain_loop_over_ours", lambda: oks_nms(*found, THRESHOLD), lambda: plain_nms(*found))
