"""Command: the kernels of `models.fused_bilinear`, run by Triton's interpreter on the CPU, beside double precision.

A process of its own, as TRITON_INTERPRET counts when Triton is imported. Prints, as JSON, the error of heatmaps and of
the gradients of features, weights and biases in each case, relative to the largest value.
"""

import json
import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.decoders import BandedBilinear, DecoderSizes


class Case(NamedTuple):
    height: int
    width: int
    factor: int
    num_channels: int
    num_keypoints: int = 17
    dtype: torch.dtype = torch.float32


CASES = {
    "one_feature": Case(1, 1, 16, 8),
    "channels_past_a_block": Case(2, 2, 8, 40),
    "wide": Case(1, 3, 16, 8),
    "tall": Case(3, 1, 4, 70),
    "odd_factor": Case(2, 2, 5, 8),
    "not_a_power_of_two": Case(2, 1, 14, 8),
    "more_pixels_than_a_block": Case(1, 1, 18, 8),
    "many_keypoints": Case(1, 2, 4, 8, 40),
    # not bfloat16, which the interpreter multiplies as if it were integers
    "half_precision": Case(1, 1, 16, 72, dtype=torch.float16),
}


def values_and_gradients(decode: Callable[[Tensor], Tensor], case: Case, convolution: nn.Conv2d) -> list[Tensor]:
    """Heatmaps, and what an uneven loss sends back to features, weights and biases."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, case.num_channels, case.height, case.width, generator=generator)
    x = x.to(convolution.weight.dtype).requires_grad_()
    heatmaps = decode(x)
    slope = torch.randn(heatmaps.shape, generator=generator)
    assert convolution.bias is not None
    gradients = torch.autograd.grad((heatmaps * slope).sum(), [x, convolution.weight, convolution.bias])
    return [heatmaps.detach(), *gradients]


def errors(case: Case) -> list[float]:
    from models.fused_bilinear import fused_bilinear

    torch.manual_seed(0)
    banded = BandedBilinear(DecoderSizes(case.num_channels, 0, case.num_keypoints, case.factor))
    convolution = banded.convolution
    nn.init.normal_(convolution.weight)
    nn.init.normal_(convolution.bias)

    def fused(features: Tensor) -> Tensor:
        return fused_bilinear(features, convolution.weight.flatten(1), convolution.bias, case.factor)

    with torch.autocast("cpu", dtype=torch.float16, enabled=case.dtype == torch.float16):
        found = values_and_gradients(fused, case, convolution)
    assert [value.dtype for value in found] == [case.dtype, *3 * [torch.float32]]
    wanted = values_and_gradients(banded.double(), case, convolution)
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, wanted, strict=True)]


if __name__ == "__main__":
    assert os.environ["TRITON_INTERPRET"] == "1"
    print(json.dumps({name: errors(case) for name, case in CASES.items()}))
