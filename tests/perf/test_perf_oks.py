"""OKS at the size of COCO val2017: ten numbers, from arrays and from files, beside other evaluators, and resampled.

What it must not exceed on one core: 1 s for the ten numbers, 10 s and 2 GB for 2,000 resamples of them.
"""

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data.coco import COCO_LAYOUT, CocoDict
from bench.data.people import Detections, Truth
from bench.data.results import read_results, write_results
from bench.metrics.average_precision import OKSEvaluation
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.oks import RULES, match
from bench.score import REFERENCES, read_annotations, run_evaluator
from tests.metrics.evaluators import Case, with_faster_coco_eval
from tests.perf.rates import record_number, record_rate, record_ratios

NUM_IMAGES, NUM_WITH_PEOPLE, NUM_PEOPLE, NUM_DETECTIONS, NUM_RESAMPLES = 5_000, 2_693, 6_267, 100_000, 2_000


pytestmark = pytest.mark.benchmark(timer=time.process_time)  # of one core, however busy the others are

Arrays = tuple[Truth, Detections]


class Files(NamedTuple):
    results: Path
    annotations: Path


def draw_people(rng: np.random.Generator) -> CocoDict:
    """One in each of some images, the others crowded together as they are in COCO."""
    images = np.concatenate([np.arange(NUM_WITH_PEOPLE), rng.geometric(0.002, NUM_PEOPLE - NUM_WITH_PEOPLE) % 2_000])
    size = np.exp(rng.uniform(np.log(30), np.log(400), (NUM_PEOPLE, 1, 2)))
    corner = rng.uniform(0, 400, (NUM_PEOPLE, 1, 2))
    visibility = rng.choice(3, (NUM_PEOPLE, 17), p=[0.3, 0.1, 0.6])
    points = (corner + size * rng.random((NUM_PEOPLE, 17, 2))) * (visibility > 0)[..., None]
    keypoints = np.concatenate([points, visibility[..., None]], axis=2).reshape(NUM_PEOPLE, 51)
    people = [
        {
            "id": i + 1,
            "image_id": int(images[i]),
            "category_id": 1,
            "keypoints": keypoints[i].tolist(),
            "num_keypoints": int((visibility[i] > 0).sum()),
            "bbox": [*corner[i, 0].tolist(), *size[i, 0].tolist()],
            "area": float(size[i].prod() * 0.53),
            "iscrowd": int(rng.random() < 0.01),
        }
        for i in range(NUM_PEOPLE)
    ]
    return {"images": [{"id": i} for i in range(NUM_IMAGES)], "annotations": people}


def draw_detections(rng: np.random.Generator, people: CocoDict) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Image ids, keypoints, their scores and person scores: each person three times, worse and worse, and strays."""
    truth = Truth.of(people).people
    size = np.sqrt(truth.area)[:, None, None]
    near = [truth.keypoints + rng.normal(size=truth.keypoints.shape) * size * noise for noise in (0.04, 0.1, 0.3)]
    num_strays = NUM_DETECTIONS - 3 * NUM_PEOPLE
    strays = rng.uniform(0, 400, (num_strays, 1, 2)) + rng.uniform(0, 150, (num_strays, 17, 2))
    image_ids = np.concatenate([truth.image, truth.image, truth.image, rng.integers(NUM_IMAGES, size=num_strays)])
    score = np.concatenate([rng.beta(5, 2, NUM_PEOPLE), rng.beta(2, 4, NUM_DETECTIONS - NUM_PEOPLE)])
    order = rng.permutation(NUM_DETECTIONS)
    keypoints = np.concatenate([*near, strays])
    return image_ids[order], keypoints[order], rng.random((NUM_DETECTIONS, 17)), score[order]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("coco")
    files = Files(folder / "results.json", folder / "annotations.json")
    people = draw_people(rng)
    files.annotations.write_text(json.dumps(people))
    write_results(files.results, *draw_detections(rng, people))
    return files


@pytest.fixture(scope="module")
def arrays(files: Files) -> Arrays:
    return read(files)


def read(files: Files) -> Arrays:
    """With every check of the two files."""
    truth = Truth.of(read_annotations(files.annotations, COCO_LAYOUT))
    return truth, read_results(files.results, truth.image_ids, 17).detections


def evaluate(truth: Truth, found: Detections) -> OKSEvaluation:
    return OKSEvaluation(match(truth.people, found, truth.num_images))


def megabytes(run: Callable[[], object]) -> int:
    """At the peak, beyond what was there before."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 2**20)


def test_ten_numbers_of_arrays(benchmark: BenchmarkFixture, arrays: Arrays) -> None:
    stats = benchmark(lambda: evaluate(*arrays).stats)
    assert 0.2 < stats["AP"] < 0.8
    record_rate(benchmark, "detections", NUM_DETECTIONS)
    record_number(benchmark, "seconds to ten numbers of 100,000 detections", benchmark.stats.stats.median, at_most=1)
    record_number(benchmark, "MB to ten numbers of 100,000 detections", megabytes(lambda: evaluate(*arrays).stats))


OTHERS: dict[str, Callable[[Case], NDArray[np.float64]]] = {
    "pycocotools": lambda case: run_evaluator(REFERENCES["coco"], RULES["coco"], *case),
    "xtcocotools": lambda case: run_evaluator(REFERENCES["xtcocotools"], RULES["xtcocotools"], *case),
    "faster_coco_eval": with_faster_coco_eval,
}


@pytest.mark.parametrize("name", OTHERS)
def test_ten_numbers_of_files(benchmark: BenchmarkFixture, name: str, files: Files) -> None:
    """Both read and parse the JSON, then from what is parsed; once each, as the others take their time."""
    pytest.importorskip(name)
    stats = benchmark.pedantic(lambda: evaluate(*read(files)).stats, rounds=3)
    parsed_ours = read(files)
    start = time.process_time()
    evaluate(*parsed_ours)
    ours_alone, start = time.process_time() - start, time.process_time()
    coco, entries = (json.loads(file.read_text()) for file in (files.annotations, files.results))
    parsed = time.process_time()
    expected = OTHERS[name](Case(coco, entries))
    end = time.process_time()
    np.testing.assert_allclose(list(stats.values()), expected, rtol=0, atol=1e-9)
    record_ratios(benchmark, f"{name} over ours, from JSON", [(end - start) / benchmark.stats.stats.median])
    record_ratios(benchmark, f"{name} over ours, once the JSON is parsed", [(end - parsed) / ours_alone])


def test_ten_numbers_of_resamples(benchmark: BenchmarkFixture, arrays: Arrays) -> None:
    """From one matching; the images are drawn beforehand."""
    evaluation = evaluate(*arrays)
    drawn = draw_resampling(NUM_IMAGES, NUM_RESAMPLES, "percentile", np.random.default_rng(0)).counts
    stats = benchmark.pedantic(lambda: np.stack([evaluation.stats_of(counts) for counts in drawn]), rounds=1)
    assert stats[1:, 0].min() < stats[0, 0] < stats[1:, 0].max()
    record_rate(benchmark, "resamples", NUM_RESAMPLES)
    memory = megabytes(lambda: np.stack([evaluate(*arrays).stats_of(counts) for counts in drawn[:5]]))
    record_number(benchmark, "seconds for 2,000 resamples", benchmark.stats.stats.median, at_most=10)
    record_number(benchmark, "GB for 2,000 resamples", memory / 1024 + drawn.nbytes / 2**30, at_most=2)
