"""Decoders beside transformers' VitPose heads, and what their formulas say."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

from models.decoders import DECODERS, DecoderSizes

SIZES = DecoderSizes(in_channels=32, channels=256, num_keypoints=17, patch_size=16)


def features() -> torch.Tensor:
    return torch.randn(2, 32, 6, 4, generator=torch.Generator().manual_seed(0))


def vitpose_head(kind: str) -> nn.Module:
    """The head of transformers' model with a tiny backbone; its own initial weights."""
    backbone = VitPoseBackboneConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=[96, 64], out_indices=[1]
    )
    config = VitPoseConfig(backbone_config=backbone, use_simple_decoder=kind == "simple", num_labels=17)
    return VitPoseForPoseEstimation(config).head


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("kind", ["classic", "simple"])
def test_a_vitpose_decoder_is_that_of_transformers(kind: str, training: bool) -> None:
    """Layers have the same order in both, so weights are copied by position; batch statistics are made uneven."""
    torch.manual_seed(0)
    theirs, ours = vitpose_head(kind), DECODERS[kind](SIZES)
    with torch.no_grad():
        for value in theirs.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.1, 0.3)
    values, names = list(theirs.state_dict().values()), list(ours.state_dict())
    ours.load_state_dict(dict(zip(names, values, strict=True)))
    ours.train(training)
    theirs.train(training)
    with torch.no_grad():
        found, wanted = ours(features()), theirs(features())
    assert wanted.std() > 0.01
    torch.testing.assert_close(found / wanted.abs().max(), wanted / wanted.abs().max(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "factor"), [("classic", 4), ("simple", 4), ("bilinear16", 16)])
def test_resolution(kind: str, factor: int) -> None:
    assert DECODERS[kind](SIZES)(features()).shape == (2, 17, 6 * factor, 4 * factor)


def test_bilinear16_is_upsampling_then_relu_then_a_linear_map_of_each_pixel() -> None:
    """Not ReLU first, as in the simple decoder: on signed features the order shows."""
    decoder = DECODERS["bilinear16"](SIZES)
    convolution = decoder[2]
    upsampled = functional.interpolate(features(), size=(96, 64), mode="bilinear", align_corners=False)
    wanted = torch.einsum("kc,bchw->bkhw", convolution.weight[..., 0, 0], upsampled.relu())
    torch.testing.assert_close(decoder(features()), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", DECODERS)
def test_heatmaps_start_near_zero(kind: str) -> None:
    torch.manual_seed(0)
    decoder = DECODERS[kind](SIZES)
    heatmaps = decoder(features())
    assert 0 < heatmaps.abs().max() < 0.1
    for layer in decoder.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight.std().item() == pytest.approx(0.001, rel=0.1)
