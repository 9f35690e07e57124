"""From backbone features to one heatmap per keypoint. Letters: B batch, C channels, K keypoints, h w feature size."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

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
    channels: int  # of the deconvolutions, where there are any
    num_keypoints: int  # K
    patch_size: int  # input pixels per feature, which `bilinear16` undoes


def classic(sizes: DecoderSizes) -> nn.Module:
    """Two deconvolution blocks and a 1x1 convolution (ViTPose, NeurIPS 2022, section 3.1)."""
    blocks = (upsample_block(sizes.in_channels, sizes.channels), upsample_block(sizes.channels, sizes.channels))
    return nn.Sequential(*blocks, heatmap_conv(sizes.channels, sizes.num_keypoints))


def simple(sizes: DecoderSizes) -> nn.Module:
    """ReLU, bilinear x4, 3x3 convolution (ViTPose, NeurIPS 2022, equation 2)."""
    upsample = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
    return nn.Sequential(nn.ReLU(), upsample, heatmap_conv(sizes.in_channels, sizes.num_keypoints, kernel=3))


def bilinear16(sizes: DecoderSizes) -> nn.Module:
    """The source paper's: bilinear to the input's resolution (x16 for its patches of 16), ReLU, 1x1 convolution."""
    upsample = nn.Upsample(scale_factor=sizes.patch_size, mode="bilinear", align_corners=False)
    return nn.Sequential(upsample, nn.ReLU(), heatmap_conv(sizes.in_channels, sizes.num_keypoints))


DECODERS: dict[str, Callable[[DecoderSizes], nn.Module]] = {
    "classic": classic,
    "simple": simple,
    "bilinear16": bilinear16,
}
