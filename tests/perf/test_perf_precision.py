"""Which precision a CPU is fast in, and two trainings side by side."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from models import build_model
from tests.perf.rates import record_ratio, record_ratios, seconds

CPU_FLAGS = Path("/proc/cpuinfo")
MODELS = {
    "ViT-B 192 x 256": ((192, 256), 4, {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}),
    "demo's ViT": ((64, 96), 16, {"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}),
}
SHARED = {
    "patch_padding": 0, "drop_path": 0.0, "decoder": "simple", "decoder_channels": 64, "normalisation": "imagenet",
    "init": "random",
}  # fmt: skip
ALONE = """
import sys, torch
from bench.machine import keep_memory
from tests.perf.test_perf_precision import train_steps
keep_memory()
torch.set_num_threads(int(sys.argv[1]))
train_steps(60)
"""


def has_amx() -> bool:
    """Whether the processor multiplies bf16 tiles (Intel's AMX)."""
    return CPU_FLAGS.is_file() and "amx_bf16" in CPU_FLAGS.read_text()


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    input_size, batch_size, sizes = MODELS[name]
    torch.manual_seed(0)
    model = build_model("vitpose", input_size=input_size, num_keypoints=17, presence_head=None, **sizes, **SHARED)
    return model, torch.randint(0, 256, (batch_size, 3, input_size[1], input_size[0]), dtype=torch.uint8)


@pytest.mark.parametrize("name", MODELS)
def test_bf16_beside_float32(benchmark: BenchmarkFixture, name: str) -> None:
    """Forward passes; at least 3 x as fast for ViT-B where the processor has AMX, else as it is."""
    model, images = make(name)
    model.eval()

    def full() -> None:
        with torch.inference_mode():
            model(images)

    def half() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            model(images)

    benchmark.pedantic(half, rounds=3, warmup_rounds=1)
    amx = has_amx()
    what = f"float32 over bf16, forward of {name}, {'with' if amx else 'without'} AMX"
    record_ratio(benchmark, what, half, full, at_least=3 if amx and name.startswith("ViT-B") else None)


def train_steps(num: int) -> None:
    """Forward, backward and optimiser on the demo's ViT."""
    model, images = make("demo's ViT")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for _ in range(num):
        model(images).heatmaps.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def start(num_threads: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", ALONE, str(num_threads)], cwd=Path(__file__).parents[2])


def test_two_trainings_side_by_side(benchmark: BenchmarkFixture) -> None:
    """On one thread each, beside one after the other on two: at least 1.3 x, start of the processes included."""

    def wait(*processes: subprocess.Popen[bytes]) -> None:
        assert [process.wait() for process in processes] == [0] * len(processes)

    def side_by_side() -> None:
        wait(*[start(1) for _ in range(2)])

    def one_after_the_other() -> None:
        for _ in range(2):
            wait(start(2))

    benchmark.pedantic(side_by_side, rounds=1, warmup_rounds=1)
    ratios = [seconds(one_after_the_other) / seconds(side_by_side) for _ in range(5)]
    what = "two trainings of the demo's ViT, one after the other on two threads over side by side on one each"
    record_ratios(benchmark, what, ratios, at_least=1.3)
