"""Keypoints to heatmaps and back.

Encoding: an unnormalised Gaussian with its centre at the true sub-pixel place (UDP, Huang et al., CVPR 2020).
Decoding: the highest pixel (`argmax`), or a Newton step on the log of the blurred heatmap from there (`dark`: DARK,
Zhang et al., CVPR 2020).
Letters: B batch, K keypoints, h w heatmap height and width. Input and heatmap share their corner pixel centres.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TRUNCATE = 3.0  # a Gaussian further than three sigma from every heatmap pixel leaves nothing to learn
LOG_FLOOR = 1e-6  # raw heatmaps may be negative


class Codec(NamedTuple):
    """Sizes are (w, h); `sigma` in input pixels, the same for every heatmap stride."""

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float

    @property
    def stride(self) -> tuple[float, float]:
        """Input pixels per heatmap pixel, (x, y)."""
        (in_w, in_h), (map_w, map_h) = self.input_size, self.heatmap_size
        return (in_w - 1) / (map_w - 1), (in_h - 1) / (map_h - 1)


def encode(keypoints_input: Tensor, weight: Tensor, codec: Codec) -> tuple[Tensor, Tensor]:
    """Target heatmaps of a batch, on the device of the keypoints.

    Args:
        keypoints_input: (B, K, 2) in input pixels.
        weight: (B, K), 0 for keypoints without a position.
        codec: sizes and sigma.

    Returns:
        Heatmaps (B, K, h, w) with peak 1 and target_weight (B, K): `weight`, but 0 where the Gaussian lies outside.
    """
    stride_x, stride_y = codec.stride
    columns = torch.arange(codec.heatmap_size[0], device=weight.device) * stride_x
    rows = torch.arange(codec.heatmap_size[1], device=weight.device) * stride_y
    distance_x = columns - keypoints_input[..., :1]  # (B, K, w)
    distance_y = rows - keypoints_input[..., 1:]  # (B, K, h)
    denominator = 2 * codec.sigma**2
    profile_x = torch.exp(-(distance_x**2) / denominator)
    profile_y = torch.exp(-(distance_y**2) / denominator)
    reach = TRUNCATE * codec.sigma
    near = (distance_x.abs().amin(-1) <= reach) & (distance_y.abs().amin(-1) <= reach)
    target_weight = weight * near
    heatmaps = profile_y[..., :, None] * profile_x[..., None, :]  # (B, K, h, w)
    return heatmaps * (target_weight > 0)[..., None, None], target_weight


class Decoded(NamedTuple):
    keypoints_input: Tensor  # (B, K, 2) input pixels
    score: Tensor  # (B, K) heatmap peak


def decode_argmax(heatmaps: Tensor, codec: Codec) -> Decoded:
    """The centre of the highest pixel; the first of equals."""
    score, place = heatmaps.flatten(2).max(-1)
    width = heatmaps.shape[-1]
    points = torch.stack([place % width, place // width], dim=-1).to(heatmaps.dtype)
    return Decoded(_to_input(points, codec), score)


def decode_dark(heatmaps: Tensor, codec: Codec) -> Decoded:
    """The highest pixel, refined by one Newton step on the log of the heatmap after a light blur.

    A step is taken only where the log-heatmap is concave, and never further than a pixel: a flat or border peak stays.
    """
    score, place = heatmaps.flatten(2).max(-1)
    width, height = codec.heatmap_size
    column, row = place % width, place // width
    logs = _blur(heatmaps, codec).clamp_min(LOG_FLOOR).log().flatten(2)

    def at(step_x: int, step_y: int) -> Tensor:
        x, y = (column + step_x).clamp(0, width - 1), (row + step_y).clamp(0, height - 1)
        return logs.gather(-1, (y * width + x)[..., None])[..., 0]

    here, left, right, above, below = at(0, 0), at(-1, 0), at(1, 0), at(0, -1), at(0, 1)
    # Beyond a border there is nothing to lean on: repeated pixels would push every border peak half a pixel outwards.
    inner_x, inner_y = (column % (width - 1)) > 0, (row % (height - 1)) > 0
    gradient_x, gradient_y = (right - left) / 2 * inner_x, (below - above) / 2 * inner_y
    curve_x, curve_y = right - 2 * here + left, below - 2 * here + above
    cross = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4 * (inner_x & inner_y)
    determinant = curve_x * curve_y - cross**2
    concave = (determinant > 1e-9) & (curve_x < 0)
    safe = torch.where(concave, determinant, torch.ones_like(determinant))
    step_x = -(curve_y * gradient_x - cross * gradient_y) / safe
    step_y = -(curve_x * gradient_y - cross * gradient_x) / safe
    step = torch.stack([step_x, step_y], dim=-1).clamp(-1, 1) * concave[..., None]
    points = torch.stack([column, row], dim=-1) + step
    return Decoded(_to_input(points, codec), score)


DECODERS: dict[str, Callable[[Tensor, Codec], Decoded]] = {"argmax": decode_argmax, "dark": decode_dark}


def _to_input(points: Tensor, codec: Codec) -> Tensor:
    return points * torch.tensor(codec.stride, dtype=points.dtype, device=points.device)


def _blur(heatmaps: Tensor, codec: Codec) -> Tensor:
    """Gaussian blur with half of the target's sigma; borders replicated, so that no border peak is pulled inwards."""
    across, down = (_gaussian(codec.sigma / stride / 2).to(heatmaps) for stride in codec.stride)
    (radius_x, radius_y), shape = (len(across) // 2, len(down) // 2), heatmaps.shape
    padded = functional.pad(heatmaps.flatten(0, 1)[:, None], (radius_x, radius_x, radius_y, radius_y), mode="replicate")
    blurred = functional.conv2d(functional.conv2d(padded, across[None, None, None, :]), down[None, None, :, None])
    return blurred.reshape(shape)


def _gaussian(sigma: float) -> Tensor:
    """A kernel of sum 1 that reaches two sigma, at least one pixel."""
    radius = max(1, math.ceil(2 * sigma))
    kernel = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()
