"""Heatmap statistics for a batch of published size, (64, 17, 64, 48): on one core, beside decoding them."""

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data.codec import Codec, decode
from bench.inference.statistics import heatmap_statistics
from tests.perf.rates import record_rate, record_ratio

CODEC = Codec("udp", (192, 256), (48, 64), 8.0)
NUM_PERSONS = 64


def test_statistics(benchmark: BenchmarkFixture) -> None:
    heatmaps = torch.randn(NUM_PERSONS, 17, 64, 48, generator=torch.Generator().manual_seed(0))
    found = benchmark(heatmap_statistics, heatmaps)
    assert found.entropy.shape == (NUM_PERSONS, 17)
    record_rate(benchmark, "persons", NUM_PERSONS)
    record_ratio(
        benchmark,
        "published_decoding_over_ours",
        lambda: heatmap_statistics(heatmaps),
        lambda: decode(heatmaps, CODEC, "published"),
    )
