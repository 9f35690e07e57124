"""The decoder at the input's resolution on a GPU: its kernels interpreted, compiled and, where there is one, run."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from models import decoders
from models.decoders import BandedBilinear, DecoderSizes, runs_fused
from tests.models import interpreted_bilinear

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton for this platform")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[float]]:
    """Errors of each case of `interpreted_bilinear`."""
    command = [sys.executable, "-m", "tests.models.interpreted_bilinear"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, check=True)
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("case", interpreted_bilinear.CASES)
def test_kernels_have_the_values_and_gradients_of_the_banded_form(
    interpreted: dict[str, list[float]], case: str
) -> None:
    most = 1e-6 if interpreted_bilinear.CASES[case].dtype == torch.float32 else 2e-3  # half precision keeps 11 bits
    assert max(interpreted[case]) < most


class Compiled(NamedTuple):
    shared: int  # bytes
    registers: int  # of a thread
    stack: int  # bytes of a thread, where registers are spilled


def compile_kernel(kernel: str, dtype: torch.dtype, capability: int, options: dict[str, int]) -> Compiled:
    """To machine code, for 768 channels and aligned tensors, as the launcher would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models import fused_bilinear

    function = getattr(fused_bilinear, kernel)
    short = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype]
    types = {"features": short, "weight": short, "heatmaps": short, "slopes": short}
    types |= {"bias": "*fp32", "feature_parts": "*fp32", "weight_parts": "*fp32"}
    constants = {name: value for name, value in options.items() if name != "num_warps"}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in function.arg_names}
    aligned = [i for i, name in enumerate(function.arg_names) if name in types or name == "num_channels"]
    source = ASTSource(function, signature, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": options["num_warps"]})
    registers, stack = resources(compiled.asm["cubin"])
    return Compiled(compiled.metadata.shared, registers, stack)


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack, as `cuobjdump` reads them from machine code."""
    from triton import knobs

    file = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    file.write_bytes(cubin)
    command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file]
    found = re.search(
        r"REG:(\d+) STACK:(\d+)", subprocess.run(command, capture_output=True, check=True, text=True).stdout
    )
    assert found
    return int(found[1]), int(found[2])


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kernel", ["forward_kernel", "backward_kernel"])
def test_a_kernel_compiles_without_a_gpu(
    kernel: str, dtype: torch.dtype, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fits the 99 KiB of shared memory that cards of capability 8.6, 8.9 and 12.0 leave to a program."""
    from models.fused_bilinear import backward_options, forward_options

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    options = forward_options(16, 17) if kernel == "forward_kernel" else backward_options(16, 17, dtype)
    found = compile_kernel(kernel, dtype, capability, options)
    print(f"\n{kernel} {dtype} sm_{capability}: {found}")
    assert found.shared < 99 * 1024
    assert found.stack == 0


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "module", "fused"),
    [
        ("cuda", torch.float32, (8, 0), "triton", True),
        ("cuda", torch.bfloat16, (9, 0), "triton", True),
        ("cuda", torch.float64, (9, 0), "triton", False),
        ("cuda", torch.float32, (7, 5), "triton", False),
        ("cuda", torch.float32, (9, 0), None, False),
        ("cpu", torch.float32, (9, 0), "triton", False),
    ],
)
def test_where_the_kernel_runs(
    device: str,
    dtype: torch.dtype,
    capability: tuple[int, int],
    module: str | None,
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", {torch.device(device): capability}.get)
    monkeypatch.setattr(decoders, "find_spec", {"triton": module}.get)
    assert runs_fused(torch.device(device), dtype) == fused


def decoder_of_vit_b() -> BandedBilinear:
    """On the GPU, with weights of a size at which a difference shows."""
    torch.manual_seed(0)
    decoder = BandedBilinear(DecoderSizes(768, None, 17, 16)).cuda()
    nn.init.normal_(decoder.convolution.weight, std=0.2)
    assert decoder.convolution.bias is not None
    nn.init.normal_(decoder.convolution.bias)
    return decoder


def values_and_gradients(
    decode: Callable[[Tensor], Tensor], decoder: BandedBilinear, dtype: torch.dtype
) -> list[Tensor]:
    """Heatmaps of three images, and what an uneven loss sends back to features, weights and biases.

    Features are multiples of 1/8: every type holds them, and what lies between them, so that none takes a value near 0
    for one of the other sign, where the gradient jumps.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 14, 14, 768, generator=generator).mul(8).round().div(8).permute(0, 3, 1, 2)
    x = x.to("cuda", dtype).requires_grad_()
    heatmaps = decode(x)
    slope = torch.randn(heatmaps.shape, generator=generator).cuda()
    gradients = torch.autograd.grad((heatmaps * slope).sum(), [x, *decoder.parameters()])
    return [heatmaps.detach(), *gradients]


@needs_gpu
@needs_triton
@pytest.mark.parametrize(("half", "most"), [(None, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str)
def test_a_gpu_makes_what_double_precision_makes(half: torch.dtype | None, most: float) -> None:
    decoder = decoder_of_vit_b()
    with torch.autocast("cuda", dtype=half, enabled=half is not None):
        found = values_and_gradients(decoder, decoder, torch.float32)
    assert [value.dtype for value in found] == [half or torch.float32, *3 * [torch.float32]]
    decoder.double()
    wanted = values_and_gradients(decoder.banded, decoder, torch.float64)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).norm() < most * theirs.norm()


@needs_gpu
@needs_triton
def test_a_gpu_gives_the_same_bits_again() -> None:
    decoder = decoder_of_vit_b()
    first, second = (values_and_gradients(decoder, decoder, torch.float32) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))
