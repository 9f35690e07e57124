"""Mirrored outputs: left and right swap exactly once, and a model that treats both sides alike is not changed."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.vitpose.modeling_vitpose import flip_back

from bench.data.keypoints import FLIP_PAIRS, KEYPOINT_NAMES, flip_order
from bench.inference.flip import flip_output, mean_output
from models import PoseOutput

NUM_KEYPOINTS = len(KEYPOINT_NAMES)


def random_output(seed: int = 0) -> PoseOutput:
    generator = torch.Generator().manual_seed(seed)
    heatmaps = torch.randn(2, NUM_KEYPOINTS, 6, 4, generator=generator)
    presence = torch.randn(2, NUM_KEYPOINTS, generator=generator)
    return PoseOutput(heatmaps, presence, torch.randn(2, NUM_KEYPOINTS, 3, generator=generator))


class Equivariant(nn.Module):
    """A convolution whose kernel for a left keypoint is that for the right one mirrored."""

    def __init__(self) -> None:
        super().__init__()
        kernels = torch.randn(NUM_KEYPOINTS, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        self.kernels = kernels + kernels.flip(-1)[flip_order()]

    def forward(self, image: Tensor) -> PoseOutput:
        heatmaps = functional.conv2d(image, self.kernels, padding=1)
        peaks = heatmaps.amax((-2, -1))
        return PoseOutput(heatmaps, peaks, torch.stack([-peaks, peaks, peaks**2], dim=-1))


@pytest.mark.parametrize("keypoint", range(NUM_KEYPOINTS), ids=KEYPOINT_NAMES)
def test_a_channel_goes_to_the_other_side_and_its_peak_to_the_other_edge(keypoint: int) -> None:
    """By name, not by the pairs that the code uses."""
    name = KEYPOINT_NAMES[keypoint]
    side, _, rest = name.partition("_")
    wanted = KEYPOINT_NAMES.index({"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name))
    heatmaps, logits = torch.zeros(1, NUM_KEYPOINTS, 6, 4), torch.zeros(1, NUM_KEYPOINTS)
    heatmaps[0, keypoint, 2, 1], logits[0, keypoint] = 1.0, 1.0
    flipped = flip_output(PoseOutput(heatmaps, logits, logits[..., None] * torch.tensor([1, 2, 3])), shift=False)
    assert flipped.heatmaps.nonzero().tolist() == [[0, wanted, 2, 2]]
    assert flipped.presence_logits is not None
    assert flipped.presence_logits.nonzero().tolist() == [[0, wanted]]
    assert flipped.visibility_logits is not None
    assert flipped.visibility_logits[0, wanted].tolist() == [1, 2, 3]
    assert flipped.visibility_logits.sum() == 6


def test_flipping_twice_is_nothing() -> None:
    for found, wanted in zip(
        flip_output(flip_output(random_output(), shift=False), shift=False), random_output(), strict=True
    ):
        assert torch.equal(found, wanted)


def test_heatmaps_flip_as_in_transformers() -> None:
    wanted = flip_back(random_output().heatmaps, torch.tensor(FLIP_PAIRS))
    assert torch.equal(flip_output(random_output(), shift=False).heatmaps, wanted)


def test_the_shift_moves_heatmaps_right_by_one_and_keeps_the_first_column() -> None:
    plain, shifted = (flip_output(random_output(), shift=shift) for shift in (False, True))
    assert torch.equal(shifted.heatmaps[..., 1:], plain.heatmaps[..., :-1])
    assert torch.equal(shifted.heatmaps[..., 0], plain.heatmaps[..., 0])
    for field in ("presence_logits", "visibility_logits"):
        assert torch.equal(getattr(shifted, field), getattr(plain, field))


def test_flipping_edits_nothing() -> None:
    output = random_output()
    flip_output(output, shift=True)
    mean_output(output, random_output(1))
    for found, wanted in zip(output, random_output(), strict=True):
        assert torch.equal(found, wanted)


def test_an_equivariant_model_is_not_changed_by_the_flip_test() -> None:
    model, image = Equivariant(), torch.rand(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    plain = model(image)
    mirrored = flip_output(model(image.flip(-1)), shift=False)
    assert not torch.allclose(plain.heatmaps, plain.heatmaps[:, flip_order()])  # the sides do differ
    for found, wanted in zip(mean_output(plain, mirrored), plain, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_average_is_of_heatmaps_and_of_logits() -> None:
    """Not of probabilities: logits of 4 and -2 give the probability of logit 1."""
    heatmaps, ones = torch.ones(1, NUM_KEYPOINTS, 6, 4), torch.ones(1, NUM_KEYPOINTS)
    first = PoseOutput(heatmaps, ones * 4, ones[..., None] * torch.tensor([4, 0, -4]))
    second = PoseOutput(heatmaps * 3, ones * -2, ones[..., None] * torch.tensor([-2, 0, -4]))
    mean = mean_output(first, second)
    assert (mean.heatmaps == 2).all()
    assert mean.presence_logits is not None
    assert (mean.presence_logits == 1).all()
    assert mean.visibility_logits is not None
    assert (mean.visibility_logits == torch.tensor([1, 0, -4])).all()


def test_without_a_head_there_is_nothing_to_average() -> None:
    output = PoseOutput(random_output().heatmaps, None)
    for found in (flip_output(output, shift=True), mean_output(output, output)):
        assert found.presence_logits is found.visibility_logits is None
