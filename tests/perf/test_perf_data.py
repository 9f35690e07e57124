"""How fast samples are made, on one core.

All of tests/perf: `make perf`.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.config import AugmentParams
from bench.data.coco import CocoDict, persons_of
from bench.data.dataset import PoseDataset, ordered_loader
from bench.data.geometry import Crop
from tests.perf.rates import record_rate

AUGMENT = AugmentParams(
    flip=0.5, half_body=0.3, rotation=40.0, rotation_probability=0.6, scale=0.35, shift=0.0, shift_probability=0.0
)


@pytest.mark.parametrize("input_size", [(64, 96), (192, 256)], ids=["64x96", "192x256"])
@pytest.mark.parametrize("augment", [None, AUGMENT], ids=["plain", "random views"])
def test_samples(
    benchmark: BenchmarkFixture, drawn: CocoDict, input_size: tuple[int, int], augment: AugmentParams | None
) -> None:
    """From the image file to a collated batch, in this process."""
    samples = PoseDataset(
        persons_of(drawn), Crop(input_size, 1.25, "extend", aligned=True), "labelled", augment, seed=0
    )
    batches = benchmark(lambda: list(ordered_loader(samples, 16, num_workers=0)))
    assert sum(len(batch.image) for batch in batches) == len(samples.persons)
    record_rate(benchmark, "samples", len(samples.persons))
