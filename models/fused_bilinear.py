"""Bilinear upsampling, ReLU and 1x1 convolution in one kernel, for GPUs: upsampled features exist in registers alone.

Letters: B batch, C channels, K keypoints, h w feature size, H W heatmap size; c p channels and pixels of one program.

The unit of work is a cell: the pixels between the centres of four neighbouring features, which read these four and no
others. Cell (row, column) lies between features (row - 1, column - 1) and (row, column). There are (h + 1) x (w + 1):
those at the border reach half out of the image.

Sums run in float32 and in a fixed order, without atomics: a training gives the same bits again.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


@triton.jit
def locate(cell: tl.tensor, length: tl.tensor, step: tl.tensor, factor: tl.constexpr) -> tl.tensor:
    """Pixels of a cell on one axis: their positions in a heatmap, and their distances from the first feature."""
    position = (cell - 1) * factor + factor // 2 + step
    distance = (2 * step + 1 - factor % 2) / (2 * factor)
    # At the border the feature is repeated: of two neighbours, only the one in the image counts.
    return position, tl.where(cell == 0, 1.0, tl.where(cell == length, 0.0, distance))


@triton.jit
def within(position: tl.tensor, length: tl.tensor) -> tl.tensor:
    return (position >= 0) & (position < length)


@triton.jit
def read_feature(
    features: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    num_channels: tl.tensor,
) -> tl.tensor:
    """Channels (c,) of one feature in float32, 0 outside of the image."""
    inside = within(row, height) & within(column, width) & (channels < num_channels)
    return tl.load(features + (row * width + column) * num_channels + channels, mask=inside, other=0).to(tl.float32)


@triton.jit
def mix(first: tl.tensor, second: tl.tensor, distance: tl.tensor) -> tl.tensor:
    """From two features (c,) to what lies between them at distances (p,): (p, c)."""
    return first[None, :] + distance[:, None] * (second - first)[None, :]


@triton.jit
def forward_kernel(
    features: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    heatmaps: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    num_channels: tl.tensor,
    num_keypoints: tl.tensor,
    factor: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
    block_keypoints: tl.constexpr,
) -> None:
    """Heatmaps of one cell, or of as many of its pixels as a program takes."""
    row, column = tl.program_id(0) // (width + 1), tl.program_id(0) % (width + 1)
    pixels = tl.program_id(1) * block_pixels + tl.arange(0, block_pixels)
    image = tl.program_id(2).to(tl.int64)
    size = height * width * factor * factor
    features += image * height * width * num_channels
    heatmaps += image * num_keypoints * size
    y, down = locate(row, height, pixels // factor, factor)
    x, across = locate(column, width, pixels % factor, factor)
    keypoints = tl.arange(0, block_keypoints)
    total = tl.zeros((block_pixels, block_keypoints), tl.float32)
    for start in range(0, num_channels, block_channels):
        channels = start + tl.arange(0, block_channels)
        upper_left = read_feature(features, row - 1, column - 1, height, width, channels, num_channels)
        upper_right = read_feature(features, row - 1, column, height, width, channels, num_channels)
        lower_left = read_feature(features, row, column - 1, height, width, channels, num_channels)
        lower_right = read_feature(features, row, column, height, width, channels, num_channels)
        upper, lower = mix(upper_left, upper_right, across), mix(lower_left, lower_right, across)
        upsampled = upper + down[:, None] * (lower - upper)  # (p, c)
        known = (channels < num_channels)[:, None] & (keypoints < num_keypoints)[None, :]
        block = tl.load(weight + keypoints[None, :] * num_channels + channels[:, None], mask=known, other=0)
        total = tl.dot(tl.maximum(upsampled, 0).to(block.dtype), block, total, input_precision="ieee")
    total += tl.load(bias + keypoints, mask=keypoints < num_keypoints, other=0).to(tl.float32)[None, :]
    inside = (pixels < factor * factor) & within(y, height * factor) & within(x, width * factor)
    written = inside[:, None] & (keypoints < num_keypoints)[None, :]
    place = heatmaps + keypoints[None, :] * size + (y * width * factor + x)[:, None]
    tl.store(place, total.to(heatmaps.dtype.element_ty), mask=written)


@triton.jit
def backward_kernel(
    features: tl.tensor,
    weight: tl.tensor,
    slopes: tl.tensor,
    feature_parts: tl.tensor,
    weight_parts: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    num_channels: tl.tensor,
    num_keypoints: tl.tensor,
    factor: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
    block_keypoints: tl.constexpr,
) -> None:
    """What a row of cells sends back to the features above and below it (2, w, c), and to the weights (K, c).

    A cell's right features are the next one's left ones, so that what they get is carried along.
    """
    channels = tl.program_id(0) * block_channels + tl.arange(0, block_channels)
    row, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    size = height * width * factor * factor
    features += image * height * width * num_channels
    slopes += image * num_keypoints * size
    feature_parts += (image * (height + 1) + row) * 2 * width * num_channels
    weight_parts += (image * (height + 1) + row) * num_keypoints * num_channels
    keypoints = tl.arange(0, block_keypoints)
    known = (keypoints < num_keypoints)[:, None] & (channels < num_channels)[None, :]
    place = keypoints[:, None] * num_channels + channels[None, :]
    block = tl.load(weight + place, mask=known, other=0)
    block_total = tl.zeros((block_keypoints, block_channels), tl.float32)
    none = tl.zeros((block_channels,), tl.float32)
    upper_left, lower_left, upper_total, lower_total = none, none, none, none
    step = tl.arange(0, block_pixels)
    for column in range(width + 1):
        upper_right = read_feature(features, row - 1, column, height, width, channels, num_channels)
        lower_right = read_feature(features, row, column, height, width, channels, num_channels)
        x, across = locate(column, width, step, factor)
        upper = mix(upper_left, upper_right, across)
        rise = mix(lower_left, lower_right, across) - upper
        both_back = tl.zeros((block_pixels, block_channels), tl.float32)
        lower_back = tl.zeros((block_pixels, block_channels), tl.float32)
        for line in range(factor):
            y, down = locate(row, height, line, factor)
            inside = (step < factor) & within(y, height * factor) & within(x, width * factor)
            read = inside[:, None] & (keypoints < num_keypoints)[None, :]
            slope = tl.load(slopes + keypoints[None, :] * size + (y * width * factor + x)[:, None], mask=read, other=0)
            upsampled = upper + down * rise
            active = tl.maximum(upsampled, 0).to(block.dtype)
            block_total = tl.dot(tl.trans(slope), active, block_total, input_precision="ieee")
            back = tl.where(upsampled > 0, tl.dot(slope, block, input_precision="ieee"), 0)
            both_back += back
            lower_back += down * back
        upper_back = both_back - lower_back
        written = (channels < num_channels) & (column > 0)
        left = feature_parts + (column - 1) * num_channels + channels
        tl.store(left, upper_total + tl.sum((1 - across)[:, None] * upper_back, 0), mask=written)
        tl.store(left + width * num_channels, lower_total + tl.sum((1 - across)[:, None] * lower_back, 0), mask=written)
        upper_total = tl.sum(across[:, None] * upper_back, 0)
        lower_total = tl.sum(across[:, None] * lower_back, 0)
        upper_left, lower_left = upper_right, lower_right
    tl.store(weight_parts + place, block_total, mask=known)


def block_side(length: int) -> int:
    """The shortest side of a block that holds as many: a power of two, and 16 or more for `tl.dot`."""
    return max(16, triton.next_power_of_2(length))


def forward_options(factor: int, num_keypoints: int) -> dict[str, int]:
    """How the kernel is compiled: the largest blocks without register spills on compute capabilities 8.0 and 9.0."""
    return {
        "factor": factor,
        "block_pixels": min(256, block_side(factor**2)),
        "block_channels": 32,
        "block_keypoints": block_side(num_keypoints),
        "num_warps": 8,
    }


def backward_options(factor: int, num_keypoints: int, dtype: torch.dtype) -> dict[str, int]:
    """The same; a block of pixels is one line of a cell."""
    block_channels, num_warps = (32, 8) if dtype == torch.float32 else (64, 4)
    return {
        "factor": factor,
        "block_pixels": block_side(factor),
        "block_channels": block_channels,
        "block_keypoints": block_side(num_keypoints),
        "num_warps": num_warps,
    }


class FusedBilinear(Function):
    """Features (B, C, h, w), weight (K, C) and bias (K,) to heatmaps (B, K, H, W), and the gradients of the three."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, factor: int, dtype: torch.dtype) -> Tensor:
        rows = features.permute(0, 2, 3, 1).to(dtype).contiguous()  # (B, h, w, C)
        weights = weight.to(dtype).contiguous()
        batch, height, width, num_channels = rows.shape
        sizes = (height, width, num_channels, len(weight))
        heatmaps = rows.new_empty(batch, len(weight), height * factor, width * factor)
        options = forward_options(factor, len(weight))
        grid = ((height + 1) * (width + 1), triton.cdiv(factor**2, options["block_pixels"]), batch)
        with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
            forward_kernel[grid](rows, weights, bias, heatmaps, *sizes, **options)
        ctx.save_for_backward(rows, weights)
        ctx.factor, ctx.dtypes = factor, (features.dtype, weight.dtype, bias.dtype)
        return heatmaps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        rows, weights = ctx.saved_tensors
        batch, height, width, num_channels = rows.shape
        sizes = (height, width, num_channels, len(weights))
        feature_parts = rows.new_empty(batch, height + 1, 2, width, num_channels, dtype=torch.float32)
        weight_parts = rows.new_empty(batch, height + 1, *weights.shape, dtype=torch.float32)
        options = backward_options(ctx.factor, len(weights), rows.dtype)
        grid = (triton.cdiv(num_channels, options["block_channels"]), height + 1, batch)
        with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
            backward_kernel[grid](rows, weights, slopes.contiguous(), feature_parts, weight_parts, *sizes, **options)
        of_features = feature_parts[:, 1:, 0] + feature_parts[:, :-1, 1]  # (B, h, w, C): the cells below and above
        found = (of_features.permute(0, 3, 1, 2), weight_parts.sum((0, 1)), slopes.sum((0, 2, 3), dtype=torch.float32))
        of_features, of_weight, of_bias = (part.to(dtype) for part, dtype in zip(found, ctx.dtypes, strict=True))
        return of_features, of_weight, of_bias, None, None


def fused_bilinear(features: Tensor, weight: Tensor, bias: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling (align_corners=False), ReLU and 1x1 convolution, with autocast as for any convolution.

    Args:
        features: (B, C, h, w) in float32, bfloat16 or float16.
        weight: (K, C).
        bias: (K,).
        factor: of the upsampling.

    Returns:
        Heatmaps (B, K, factor * h, factor * w), in autocast's type where it is on, else in that of the features.
    """
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
    heatmaps: Tensor = FusedBilinear.apply(features, weight, bias, factor, dtype)
    return heatmaps
