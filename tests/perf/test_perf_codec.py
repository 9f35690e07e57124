"""Keypoints to heatmaps and back, for a batch of published size: (64, 17, 64, 48)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import VitPoseImageProcessor

from bench.data.codec import CODECS, DECODINGS, Codec, decode, encode
from tests.perf.rates import record_rate, record_ratio

CODEC = Codec("udp", (192, 256), (48, 64), 8.0)
NUM_PERSONS = 64


def keypoints() -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.uniform(24, (168, 232), (NUM_PERSONS, 17, 2))).float()


def heatmaps() -> torch.Tensor:
    return encode(keypoints(), torch.ones(NUM_PERSONS, 17), CODEC)[0]


@pytest.mark.parametrize("name", CODECS)
def test_encode(benchmark: BenchmarkFixture, name: str) -> None:
    weight = torch.ones(NUM_PERSONS, 17)
    maps, _ = benchmark(encode, keypoints(), weight, CODEC._replace(name=name))
    assert maps.shape == (NUM_PERSONS, 17, 64, 48)
    record_rate(benchmark, "persons", NUM_PERSONS)


@pytest.mark.parametrize("decoding", [*DECODINGS, "published"])
def test_decode(benchmark: BenchmarkFixture, decoding: str) -> None:
    decoded = benchmark(decode, heatmaps(), CODEC, decoding)
    assert (decoded.keypoints_input - keypoints()).abs().max() < 4
    record_rate(benchmark, "persons", NUM_PERSONS)


def test_decode_beside_transformers(benchmark: BenchmarkFixture) -> None:
    """The same heatmaps through VitPose's post-processing (DARK, kernel 11), timed in turns."""
    maps, processor = heatmaps(), VitPoseImageProcessor()
    boxes = [[[0.0, 0.0, 192.0, 256.0]] for _ in range(NUM_PERSONS)]

    def theirs() -> list:
        return processor.post_process_pose_estimation(SimpleNamespace(heatmaps=maps), boxes=boxes)

    decoded = benchmark(decode, maps, CODEC, "dark")
    # Theirs are in pixels of the box, which they pad by a quarter.
    wanted = torch.stack([poses[0]["keypoints"] for poses in theirs()]) + torch.tensor([24.0, 32.0])
    assert (
        decoded.keypoints_input / torch.tensor([191.0, 255.0]) - wanted / torch.tensor([240.0, 320.0])
    ).abs().max() < 1e-3
    record_ratio(benchmark, "transformers_over_ours", lambda: decode(maps, CODEC, "dark"), theirs, at_least=20)
