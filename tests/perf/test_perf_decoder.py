"""What the lean form of the decoder at the input's resolution costs in time: it saves memory (`test_decoders.py`).

On a GPU, where it is one kernel, its memory is measured too, and how near it comes to the cost of inputs and outputs.
"""

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from models.decoders import DECODERS, DecoderSizes
from tests.perf.rates import record_number, record_rate, record_ratio, record_ratios

BATCH_SIZE = 2
GPU_BATCH_SIZE = 16  # the plain form holds three tensors of 147 MiB an image
NUM_STEPS = 20  # of a GPU between two looks at the clock
SIZES = DecoderSizes(in_channels=768, channels=256, num_keypoints=17, patch_size=16)  # ViT-B


def plain_decoder() -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=16, mode="bilinear"), nn.ReLU(), nn.Conv2d(768, 17, 1))


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
    plain = make_step(plain_decoder())
    assert benchmark(lean).isfinite()
    record_rate(benchmark, "images", BATCH_SIZE)
    record_ratio(benchmark, "lean_over_plain", plain, lean)


def test_bilinear16_beside_relu_first(benchmark: BenchmarkFixture) -> None:
    lean, first = (make_step(DECODERS[kind](SIZES)) for kind in ("bilinear16", "bilinear16_relu_first"))
    assert benchmark(first).isfinite()
    record_rate(benchmark, "images", BATCH_SIZE)
    record_ratio(benchmark, "relu_last_over_first", first, lean)


def make_gpu_step(decoder: nn.Module, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Forward and backward pass without a loss; features lie in memory as a ViT leaves them, channels last."""
    decoder.to("cuda", dtype)
    rows = torch.randn(GPU_BATCH_SIZE, 14, 14, 768, device="cuda", dtype=dtype)
    features = rows.permute(0, 3, 1, 2).requires_grad_()
    slope = torch.randn(GPU_BATCH_SIZE, 17, 224, 224, device="cuda", dtype=dtype)

    def step() -> Tensor:
        heatmaps = decoder(features)
        torch.autograd.grad(heatmaps, [features, *decoder.parameters()], slope)
        return heatmaps

    return step


def make_copy(dtype: torch.dtype) -> Callable[[], Tensor]:
    """Reads and writes as much as features, heatmaps and the gradients of both."""
    source = torch.randn(GPU_BATCH_SIZE, 768 * 14 * 14 + 17 * 224 * 224, device="cuda", dtype=dtype)
    return source.clone


def finished(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Many steps, until the GPU is done with them."""

    def steps() -> Tensor:
        for _ in range(NUM_STEPS):
            last = step()
        torch.cuda.synchronize()
        return last

    return steps


def peak_memory(step: Callable[[], Tensor]) -> int:
    """Bytes that a step takes, beyond those that stood before it."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_bilinear16_on_a_gpu(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    """Faster than the plain form, in an eighth of its memory."""
    lean, plain = make_gpu_step(DECODERS["bilinear16"](SIZES), dtype), make_gpu_step(plain_decoder(), dtype)
    copy = make_copy(dtype)
    for step in (lean, plain, copy):
        step()  # kernels are compiled and chosen
    assert benchmark(finished(lean)).isfinite().all()
    record_rate(benchmark, "images", GPU_BATCH_SIZE * NUM_STEPS)
    record_ratio(benchmark, "lean_over_plain", finished(lean), finished(plain), at_least=1.0)
    record_ratio(benchmark, "lean over a copy of inputs and outputs, rates", finished(lean), finished(copy))
    lean_bytes, plain_bytes = peak_memory(lean), peak_memory(plain)
    record_ratios(benchmark, "memory of the plain form over that of the lean", [plain_bytes / lean_bytes], at_least=8)
    record_number(benchmark, "MiB an image, bilinear16", lean_bytes / 2**20 / GPU_BATCH_SIZE)
