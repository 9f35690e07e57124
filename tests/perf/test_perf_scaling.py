"""How time and memory grow with persons and runs."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data.coco import CocoDict, persons_of
from bench.data.dataset import PoseDataset
from bench.data.geometry import Floats
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.people import Detections, People
from bench.metrics.average_precision import OKSEvaluation
from bench.metrics.oks import match
from bench.training.loop import Length
from tests.perf.rates import record_number, record_scaling, seconds
from tests.perf.test_perf_oks import megabytes
from tests.training.toys import make_model, make_samples, train

SIZES = (10_000, 100_000, 1_000_000)
PER_IMAGE = 20  # detections
REPEATS = (8, 32, 128)


def draw(num_detections: int) -> tuple[People, Detections, int]:
    """One person for every 16 detections, as COCO val2017 has with 100,000 detections."""
    rng = np.random.default_rng(0)
    num_images, num_people = num_detections // PER_IMAGE, num_detections // 16
    points: Floats = rng.uniform(0, 400, (num_people, NUM_KEYPOINTS, 2))
    people = People(
        image=np.sort(rng.integers(num_images, size=num_people)),
        keypoints=points,
        visibility=rng.choice(3, (num_people, NUM_KEYPOINTS), p=[0.3, 0.1, 0.6]),
        bbox=np.tile([0.0, 0.0, 400.0, 400.0], (num_people, 1)),
        area=rng.uniform(1_000, 90_000, num_people),
        crowd=np.zeros(num_people, dtype=bool),
        num_keypoints=np.full(num_people, NUM_KEYPOINTS),
        annotation_id=np.arange(num_people),
    )
    whose = rng.integers(num_people, size=num_detections)
    detections = Detections(
        image=people.image[whose],
        keypoints=points[whose] + rng.normal(size=(num_detections, NUM_KEYPOINTS, 2)) * 30,
        keypoint_score=np.ones((num_detections, NUM_KEYPOINTS)),
        score=rng.random(num_detections),
        area=people.area[whose],
    )
    return people, detections, num_images


@pytest.mark.benchmark(timer=time.process_time)
def test_evaluation_against_detections(benchmark: BenchmarkFixture) -> None:
    """Ten numbers from arrays: time grows hardly faster than the detections, and a million stay under 4 GB."""
    times, memory = [], []
    for size in SIZES:
        people, detections, num_images = draw(size)

        def evaluate(people: People = people, detections: Detections = detections, num: int = num_images) -> object:
            return OKSEvaluation(match(people, detections, num)).stats

        times.append(process_seconds(evaluate))
        memory.append(float(megabytes(evaluate)))
    benchmark.pedantic(evaluate, rounds=1)
    exponent = record_scaling(benchmark, "seconds of an evaluation", "detections", SIZES, times)
    record_scaling(benchmark, "MB of an evaluation", "detections", SIZES, memory)
    record_number(benchmark, "GB at 1,000,000 detections", memory[-1] / 1024, at_most=4)
    assert exponent < 1.2


@pytest.mark.parametrize("num_threads", [1, 2])
def test_training_against_persons(benchmark: BenchmarkFixture, drawn: CocoDict, num_threads: int) -> None:
    """One epoch and its validation, on one core and on two."""
    persons = persons_of(drawn)[:32]
    torch.set_num_threads(num_threads)
    times = []
    for repeats in REPEATS:
        train_set, calibration_set = make_samples(persons * repeats), make_samples(persons[:8])

        def fit(train_set: PoseDataset = train_set, calibration_set: PoseDataset = calibration_set) -> object:
            return train(make_model(embed_dim=128), train_set, calibration_set, drawn, length=Length(1, 16, 0))

        times.append(seconds(fit))
    benchmark.pedantic(fit, rounds=1)
    sizes = [len(persons) * repeats for repeats in REPEATS]
    record_scaling(benchmark, f"seconds of a training, {num_threads} threads", "persons", sizes, times)


def process_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start
