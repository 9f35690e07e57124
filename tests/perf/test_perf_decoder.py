"""What the lean form of the decoder at the input's resolution costs in time: it saves memory (`test_decoders.py`)."""

from collections.abc import Callable

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from models.decoders import DECODERS, DecoderSizes
from tests.perf.rates import record_rate, record_ratio

BATCH_SIZE = 2
SIZES = DecoderSizes(in_channels=768, channels=256, num_keypoints=17, patch_size=16)  # ViT-B


def make_step(decoder: nn.Module) -> Callable[[], Tensor]:
    """Forward and backward pass from features of images of 224 x 224."""
    features = torch.randn(BATCH_SIZE, 768, 14, 14).requires_grad_()

    def step() -> Tensor:
        loss = decoder(features).square().mean()
        loss.backward()
        return loss

    return step


def test_bilinear16_beside_its_plain_form(benchmark: BenchmarkFixture) -> None:
    lean = make_step(DECODERS["bilinear16"](SIZES))
    upsample = nn.Upsample(scale_factor=16, mode="bilinear")
    plain = make_step(nn.Sequential(upsample, nn.ReLU(), nn.Conv2d(768, 17, 1)))
    assert benchmark(lean).isfinite()
    record_rate(benchmark, "images", BATCH_SIZE)
    record_ratio(benchmark, "lean_over_plain", plain, lean)


def test_bilinear16_beside_relu_first(benchmark: BenchmarkFixture) -> None:
    lean, first = (make_step(DECODERS[kind](SIZES)) for kind in ("bilinear16", "bilinear16_relu_first"))
    assert benchmark(first).isfinite()
    record_rate(benchmark, "images", BATCH_SIZE)
    record_ratio(benchmark, "relu_last_over_first", first, lean)
