"""Decoders beside transformers' VitPose heads, and what their formulas say."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

from models.decoders import DECODERS, BandedBilinear, DecoderSizes, bilinear_matrix

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


@pytest.mark.parametrize(
    ("kind", "factor"), [("classic", 4), ("simple", 4), ("bilinear16", 16), ("bilinear16_relu_first", 16)]
)
def test_resolution(kind: str, factor: int) -> None:
    assert DECODERS[kind](SIZES)(features()).shape == (2, 17, 6 * factor, 4 * factor)


def signed_convolution(decoder: nn.Module) -> nn.Conv2d:
    """The decoder's only convolution, with weights and biases of a size at which a difference shows."""
    (convolution,) = (layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        convolution.weight.normal_(std=0.2)
        assert convolution.bias is not None
        convolution.bias.normal_()
    return convolution


def plain_bilinear(convolution: nn.Conv2d, factor: int) -> Callable[[Tensor], Tensor]:
    """As the source paper writes it, with everything held in memory."""

    def decode(features: Tensor) -> Tensor:
        upsampled = functional.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)
        return functional.conv2d(upsampled.relu(), convolution.weight, convolution.bias)

    return decode


def values_and_gradients(decode: Callable[[Tensor], Tensor], x: Tensor, convolution: nn.Conv2d) -> list[Tensor]:
    """Heatmaps, and what an uneven loss sends back to features, weights and biases."""
    x = x.clone().requires_grad_()
    heatmaps = decode(x)
    slope = torch.randn(heatmaps.shape, generator=torch.Generator().manual_seed(2))
    assert convolution.bias is not None
    gradients = torch.autograd.grad((heatmaps * slope).sum(), [x, convolution.weight, convolution.bias])
    return [heatmaps.detach(), *gradients]


@pytest.mark.parametrize(("height", "width"), [(6, 4), (1, 1), (2, 5), (14, 14)])
@pytest.mark.parametrize("factor", [2, 8, 16])
def test_bilinear16_has_the_values_and_gradients_of_the_plain_form(height: int, width: int, factor: int) -> None:
    torch.manual_seed(0)
    decoder = BandedBilinear(DecoderSizes(8, 0, 5, factor))
    convolution = signed_convolution(decoder)
    x = torch.randn(2, 8, height, width)
    found = values_and_gradients(decoder, x, convolution)
    wanted = values_and_gradients(plain_bilinear(convolution, factor), x, convolution)
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-6 * wanted[0].abs().max().item())
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


def test_bilinear16_is_right_to_the_last_digits_of_double_precision() -> None:
    torch.manual_seed(0)
    decoder = BandedBilinear(DecoderSizes(8, 0, 5, 16)).double()
    convolution = signed_convolution(decoder)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    found = values_and_gradients(decoder, x, convolution)
    wanted = values_and_gradients(plain_bilinear(convolution, 16), x, convolution)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_bilinear16_is_differentiated_in_mixed_precision_too() -> None:
    torch.manual_seed(0)
    decoder = BandedBilinear(DecoderSizes(8, 0, 5, 16))
    convolution = signed_convolution(decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = values_and_gradients(decoder, features()[:, :8], convolution)
    wanted = values_and_gradients(plain_bilinear(convolution, 16), features()[:, :8], convolution)
    assert found[0].dtype == torch.bfloat16
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()  # bfloat16 keeps 8 bits


def test_a_band_is_computed_twice_only_where_something_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = BandedBilinear(DecoderSizes(32, 0, 17, 16))
    calls: list[int] = []
    band = decoder.band
    monkeypatch.setattr(decoder, "band", lambda *parts: calls.append(1) or band(*parts))
    with torch.no_grad():
        decoder(features())
    assert len(calls) == 6  # rows of features
    decoder(features()).sum().backward()  # a frozen backbone: the features ask for no gradient, the weights do
    assert decoder.convolution.weight.grad is not None
    assert len(calls) == 6 + 12
    decoder.requires_grad_(False)
    decoder(features())
    assert len(calls) == 18 + 6


def test_interpolation_of_one_axis_by_hand() -> None:
    """Two pixels become four: their centres lie at -1/4, 1/4, 3/4, 5/4, and the edge is repeated."""
    matrix = bilinear_matrix(2, 2, torch.zeros(0, dtype=torch.float64))
    assert matrix.dtype == torch.float64
    assert matrix.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]


class PeakMemory(TorchDispatchMode):
    """Bytes of all tensors made inside, as many as are alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self.storages: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.count(leaf.untyped_storage())
        return result

    def count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.storages:
            return

        def forget(_: weakref.ref) -> None:
            del self.storages[key]
            self.live -= size

        self.storages[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def training_peak(decode: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Bytes that one forward and backward pass adds."""
    with PeakMemory() as memory:
        decode(x).square().mean().backward()
    return memory.peak


@pytest.fixture
def one_image() -> Iterator[Tensor]:
    """Features of ViT-B for an image of 224 x 224."""
    yield torch.randn(1, 768, 14, 14, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_bilinear16_takes_a_fraction_of_the_memory_of_the_plain_form(one_image: Tensor) -> None:
    """Upsampled features are 147 MiB. The plain form holds them, their ReLU and, going back, both gradients."""
    upsampled = 768 * 224 * 224 * 4
    decoder = BandedBilinear(DecoderSizes(768, 0, 17, 16))
    plain = training_peak(plain_bilinear(decoder.convolution, 16), one_image)
    assert plain > 3 * upsampled
    assert training_peak(decoder, one_image) < plain / 8


def test_relu_first_is_upsampling_and_convolution_in_either_order() -> None:
    """Features -> ReLU -> upsample -> 1x1, as written, beside the cheap order that is built."""
    torch.manual_seed(0)
    decoder = DECODERS["bilinear16_relu_first"](SIZES)
    convolution = signed_convolution(decoder)
    as_written = nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=16, mode="bilinear"), convolution)
    found = values_and_gradients(decoder, features(), convolution)
    wanted = values_and_gradients(as_written, features(), convolution)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


def test_the_place_of_the_relu_shows_on_signed_features() -> None:
    torch.manual_seed(0)
    last, first = (DECODERS[kind](SIZES) for kind in ("bilinear16", "bilinear16_relu_first"))
    values = signed_convolution(last).state_dict()
    signed_convolution(first).load_state_dict(values)
    gap = (last(features()) - first(features())).norm() / last(features()).norm()
    assert gap > 0.1
    torch.testing.assert_close(last(features().abs()), first(features().abs()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", DECODERS)
def test_heatmaps_start_near_zero(kind: str) -> None:
    torch.manual_seed(0)
    decoder = DECODERS[kind](SIZES)
    heatmaps = decoder(features())
    assert 0 < heatmaps.abs().max() < 0.1
    for layer in decoder.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight.std().item() == pytest.approx(0.001, rel=0.1)
