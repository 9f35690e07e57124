"""Parameters and multiply-accumulates."""

import pytest
import torch
from torch import nn

from bench.published import PUBLISHED
from bench.stages.architectures import build_published
from models import build_model
from models.cost import count_macs, count_parameters
from tests.models.small import HEAD, HRNET, VITPOSE


def test_parameters_are_counted_whether_trained_or_not() -> None:
    layer = nn.Linear(3, 5)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 20
    assert count_parameters(None) == 0


def test_macs_of_a_vitpose_by_hand() -> None:
    """Of ViTPose-B: 16 x 12 patches of 16 x 16 pixels; 12 blocks; two deconvolutions; 17 heatmaps of 64 x 48."""
    num, channels = 192, 768
    embedding = num * channels * 3 * 16 * 16
    block = num * channels * channels * (3 + 1 + 4 + 4) + 2 * num * num * channels  # of these, attention's products
    decoder = num * 16 * 256 * channels + 4 * num * 16 * 256 * 256 + 16 * num * 256 * 17
    system = PUBLISHED["vitpose_b_classic"]
    assert count_macs(lambda: build_published(system), system.input_size) == embedding + 12 * block + decoder


@pytest.mark.parametrize(("key", "without_attention"), [("vitpose_b_classic", 17.84), ("vitpose_b_simple", 16.78)])
def test_macs_of_a_vitpose_without_the_products_of_attention(key: str, without_attention: float) -> None:
    """As counters see it that know layers alone: torch's of transformers' VitPose says 17.84 and 16.78 G."""
    system = PUBLISHED[key]
    products = 12 * 2 * 192 * 192 * 768  # queries with keys, weights with values
    macs = count_macs(lambda: build_published(system), system.input_size)
    assert round((macs - products) / 1e9, 2) == without_attention


def test_macs_of_a_transpose_by_hand_without_its_stem() -> None:
    """One layer more of TransPose-R-A3: projections, two products of 768 x 768 tokens, feedforward."""
    three, four = (
        count_macs(lambda key=key: build_published(PUBLISHED[key]), (192, 256))  # type: ignore[misc]
        for key in ("transpose_r_a3", "transpose_r_a4")
    )
    assert four - three == 768 * 256 * 256 * 4 + 2 * 768 * 768 * 256 + 2 * 768 * 256 * 1024


def test_macs_grow_with_the_image_and_take_the_head_in() -> None:
    def macs(input_size: tuple[int, int], **head: object) -> int:
        shared = {"input_size": input_size, "num_keypoints": 17, "presence_head": head or None}
        return count_macs(lambda: build_model("hrnet", **shared, **HRNET), input_size)

    assert macs((128, 96)) == 2 * macs((64, 96))  # convolutions alone
    assert macs((64, 96), **HEAD) - macs((64, 96)) == 17 * (4 * 6 * 6 + 6)  # pooled 16 x 24 -> 4 x 6, hidden 6, 1


def test_counting_draws_no_random_numbers_and_needs_no_memory() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    shared = {"input_size": (64, 96), "num_keypoints": 17, "presence_head": None}
    assert count_macs(lambda: build_model("vitpose", **shared, **VITPOSE), (64, 96)) > 0
    assert torch.equal(torch.rand(3), wanted)
