"""From backbone features to one heatmap per keypoint.

Letters: B batch, C channels, K keypoints, h w feature size, H W heatmap size, R rows of one band.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

INIT_STD = 0.001  # of the last layers, as published (SimpleBaselines, HRNet, ViTPose): heatmaps start near zero


def upsample_block(in_channels: int, channels: int) -> nn.Sequential:
    """Twice the resolution: transposed convolution 4x4, stride 2; batch norm; ReLU (SimpleBaselines, ECCV 2018)."""
    deconvolution = nn.ConvTranspose2d(in_channels, channels, 4, stride=2, padding=1, bias=False)
    nn.init.normal_(deconvolution.weight, std=INIT_STD)
    return nn.Sequential(deconvolution, nn.BatchNorm2d(channels), nn.ReLU())


def heatmap_conv(in_channels: int, num_keypoints: int, kernel: int = 1) -> nn.Conv2d:
    """The last convolution of every decoder."""
    convolution = nn.Conv2d(in_channels, num_keypoints, kernel, padding=kernel // 2)
    nn.init.normal_(convolution.weight, std=INIT_STD)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


class DecoderSizes(NamedTuple):
    in_channels: int  # C
    channels: int | None  # of the deconvolutions; None where there are none
    num_keypoints: int  # K
    patch_size: int  # input pixels per feature, which `bilinear16` undoes


def classic(sizes: DecoderSizes) -> nn.Module:
    """Two deconvolution blocks and a 1x1 convolution (ViTPose, NeurIPS 2022, section 3.1)."""
    assert sizes.channels is not None
    blocks = (upsample_block(sizes.in_channels, sizes.channels), upsample_block(sizes.channels, sizes.channels))
    return nn.Sequential(*blocks, heatmap_conv(sizes.channels, sizes.num_keypoints))


def simple(sizes: DecoderSizes) -> nn.Module:
    """ReLU, bilinear x4, 3x3 convolution (ViTPose, NeurIPS 2022, equation 2)."""
    upsample = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
    return nn.Sequential(nn.ReLU(), upsample, heatmap_conv(sizes.in_channels, sizes.num_keypoints, kernel=3))


def bilinear_matrix(length: int, factor: int, like: Tensor) -> Tensor:
    """Linear interpolation of one axis as a matrix (factor * length, length), with the type and device of a tensor.

    Interpolation is linear, so its matrix is what it makes of the unit vectors; corners as with align_corners=False.
    """
    units = torch.eye(length, device=like.device)[None]  # (1, vectors, positions)
    return functional.interpolate(units, scale_factor=factor, mode="linear", align_corners=False)[0].T.to(like.dtype)


def runs_fused(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `models.fused_bilinear` takes features there: the type is single or half precision, on a GPU that knows
    bfloat16 (compute capability 8.0), with Triton, which torch brings along on Linux only."""
    return (
        device.type == "cuda"
        and dtype != torch.float64
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


class BandedBilinear(nn.Module):
    """Bilinear upsampling, ReLU, 1x1 convolution, without ever holding the upsampled features.

    At the input's resolution these take 147 MiB an image and tensor (224 x 224, 768 channels, float32), of which
    training would keep two. On a GPU one kernel goes from features to heatmaps (`models.fused_bilinear`). Elsewhere,
    and in double precision, the heatmaps are made in bands of `factor` rows, each of which reads three rows of features
    at the most; for the backward pass a band is computed again instead of kept. Values are those of the plain form.
    """

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        self.factor = sizes.patch_size
        self.convolution = heatmap_conv(sizes.in_channels, sizes.num_keypoints)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) to heatmaps (B, K, H, W)."""
        return self.fused(features) if runs_fused(features.device, features.dtype) else self.banded(features)

    def fused(self, features: Tensor) -> Tensor:
        from models.fused_bilinear import fused_bilinear  # noqa: PLC0415  # Triton is not everywhere

        assert self.convolution.bias is not None
        return fused_bilinear(features, self.convolution.weight.flatten(1), self.convolution.bias, self.factor)

    def banded(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        down = bilinear_matrix(height, self.factor, features)  # (H, h)
        across = bilinear_matrix(width, self.factor, features)  # (W, w)
        rows = features.permute(0, 2, 3, 1)  # (B, h, w, C)
        learns = torch.is_grad_enabled() and (rows.requires_grad or self.convolution.weight.requires_grad)
        bands = []
        for row in range(height):
            read = slice(max(row - 1, 0), row + 2)
            made = slice(row * self.factor, (row + 1) * self.factor)
            band = (rows[:, read], down[made, read], across)
            bands.append(
                checkpoint(self.band, *band, use_reentrant=False, preserve_rng_state=False)
                if learns
                else self.band(*band)
            )
        return torch.cat(bands, dim=1).permute(0, 3, 1, 2).contiguous()

    def band(self, rows: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Rows of features (B, 3, w, C) and the two interpolations to a band of heatmaps (B, R, W, K)."""
        wide = across @ rows  # (B, 3, W, C)
        upsampled = (down @ wide.flatten(2)).relu_()  # (B, R, W*C); in place, as a second one would cost memory
        pixels = upsampled.reshape(*upsampled.shape[:2], *wide.shape[2:])  # (B, R, W, C)
        return functional.linear(pixels, self.convolution.weight.flatten(1), self.convolution.bias)


def bilinear16(sizes: DecoderSizes) -> nn.Module:
    """The source paper's: bilinear to the input's resolution (x16 for its patches of 16), ReLU, 1x1 convolution."""
    return BandedBilinear(sizes)


def bilinear16_relu_first(sizes: DecoderSizes) -> nn.Module:
    """The same with ReLU before the upsampling, as in `simple`: 1x1 convolution and upsampling may then change places.

    Both are linear, one over channels, one over pixels, and a bias survives because bilinear weights sum to 1. So the
    convolution runs at the features' resolution: 1/256 of the work for patches of 16, and no memory to speak of.
    """
    upsample = nn.Upsample(scale_factor=sizes.patch_size, mode="bilinear", align_corners=False)
    return nn.Sequential(nn.ReLU(), heatmap_conv(sizes.in_channels, sizes.num_keypoints), upsample)


DECODERS: dict[str, Callable[[DecoderSizes], nn.Module]] = {
    "classic": classic,
    "simple": simple,
    "bilinear16": bilinear16,
    "bilinear16_relu_first": bilinear16_relu_first,
}
