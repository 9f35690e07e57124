"""OKS AP of one evaluation beside pycocotools, and what our resampling for intervals adds."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pytest_benchmark.fixture import BenchmarkFixture

from bench.metrics.oks import evaluate_oks, oks_intervals
from tests.perf.rates import record_rate, record_ratio

Data = tuple[dict[str, Any], list[dict[str, Any]]]
NUM_IMAGES = 300


@pytest.fixture(scope="module")
def data(make_coco: Callable[[int, int], Data]) -> Data:
    return make_coco(0, NUM_IMAGES)


def with_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes([dict(result) for result in results]), "keypoints")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[0])


def test_oks_beside_pycocotools(benchmark: BenchmarkFixture, data: Data) -> None:
    evaluation = benchmark(evaluate_oks, *data)
    assert evaluation.stats["AP"] == pytest.approx(with_pycocotools(*data))
    record_rate(benchmark, "results", len(data[1]))
    record_ratio(benchmark, "pycocotools_over_ours", lambda: evaluate_oks(*data), lambda: with_pycocotools(*data))


def test_intervals(benchmark: BenchmarkFixture, data: Data) -> None:
    """200 resamples of the images, without matching again."""
    evaluation = evaluate_oks(*data)
    intervals = benchmark(lambda: oks_intervals(evaluation, 200, np.random.default_rng(0)))
    assert intervals["AP"].low < evaluation.stats["AP"] < intervals["AP"].high
    record_rate(benchmark, "resamples", 200)
