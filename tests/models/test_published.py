"""The published systems: their sizes beside the published ones, and beside independent implementations."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

from bench.published import COUNTING, PUBLISHED, Reached
from bench.stages.architectures import build_published
from models import PoseModel
from models.cost import count_macs, count_parameters
from tests.models.small import PARAMS

of_model = {name: [key for key, system in PUBLISHED.items() if system.model == name] for name in PARAMS}


@cache
def build_empty(key: str) -> PoseModel:
    """A published system without memory behind it."""
    with torch.device("meta"):
        return build_published(PUBLISHED[key]).eval()


@cache
def count_ours(key: str) -> int:
    system = PUBLISHED[key]
    return count_macs(lambda: build_published(system), system.input_size)


@pytest.mark.parametrize("key", PUBLISHED)
def test_parameters_are_the_published_ones(key: str) -> None:
    """To the last digit that is stated."""
    system = PUBLISHED[key]
    digits = len(str(system.num_parameters).split(".")[1])
    assert round(count_parameters(build_empty(key)) / 1e6, digits) == system.num_parameters


@pytest.mark.parametrize("key", of_model["vitpose"])
def test_vitpose_has_exactly_the_parameters_of_transformers(key: str) -> None:
    sizes = PUBLISHED[key].sizes
    backbone = VitPoseBackboneConfig(
        hidden_size=sizes["embed_dim"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["num_heads"],
        image_size=[256, 192],
        out_indices=[sizes["depth"]],
    )
    config = VitPoseConfig(backbone_config=backbone, use_simple_decoder="simple" in key, num_labels=17)
    with torch.device("meta"):
        reference = VitPoseForPoseEstimation(config)
    assert count_parameters(build_empty(key)) == count_parameters(reference)


def test_transpose_r_a4_by_hand() -> None:
    """Stem, layer1, layer2; reduction; 4 layers; deconvolution and norm; heatmaps; the fixed position of 32 x 24."""
    resnet = 9_536 + 215_808 + 1_219_584
    layer = 4 * (256 * 256 + 256) + (2 * 256 * 1024 + 1024 + 256) + 4 * 256
    decoder = (256 * 256 * 16 + 512) + (256 * 17 + 17)
    found = count_parameters(build_empty("transpose_r_a4"))
    assert found == resnet + 512 * 256 + 4 * layer + decoder + 32 * 24 * 256


@pytest.mark.parametrize("key", of_model["hrnet"])
def test_hrnets_published_operations_are_ours_in_units_of_two_to_the_thirty(key: str) -> None:
    assert round(count_ours(key) / 2**30, 1) == PUBLISHED[key].gflops


def count_as_transpose_did(model: PoseModel, input_size: tuple[int, int]) -> int:
    """Batch norms with 4 operations for each value, softmax with 5, dropout and ReLU with 1, a deconvolution over its
    outputs, although only one input in four meets each. Residuals, which the authors count as well, are left out.
    """
    total = 0

    def count(module: nn.Module, arguments: tuple[torch.Tensor, ...], output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            total += module.weight.numel() * output.shape[-1] * output.shape[-2]
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm2d):
            total += 4 * output.numel()
        elif isinstance(module, nn.ReLU):
            total += output.numel()
        elif isinstance(module, nn.MultiheadAttention):
            num_tokens, channels = arguments[0].shape[1:]
            total += 4 * num_tokens * channels**2 + 2 * num_tokens**2 * channels
            total += (5 + 1) * module.num_heads * num_tokens**2  # softmax and dropout

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    width, height = input_size
    with torch.device("meta"), torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("key", of_model["transpose"])
def test_transposes_published_operations_are_ours_as_their_authors_counted(key: str) -> None:
    system = PUBLISHED[key]
    assert system.gflops is not None
    theirs = count_as_transpose_did(build_empty(key), system.input_size) / 1e9
    assert theirs == pytest.approx(system.gflops, abs=0.1)
    ours = count_ours(key) / 1e9
    deconvolution = 3 * 768 * 16 * 256 * 256 / 1e9 if "_r_" in key else 0.0
    assert ours + deconvolution < theirs < ours + deconvolution + 0.5


@pytest.mark.parametrize("key", PUBLISHED)
def test_records_are_complete_and_plausible(key: str) -> None:
    system = PUBLISHED[key]
    assert PARAMS[system.model].model_validate(system.sizes | {"init": "random"}).heatmap_size(
        system.input_size
    ) == (48, 64)  # fmt: skip
    assert build_empty(key).heatmap_size == (48, 64)
    assert (system.gflops is None) == (system.model not in COUNTING)
    for reached in (system.detected_boxes, system.true_boxes or Reached(0.8)):
        assert 0.7 < reached.AP < 0.85
        assert reached.AP75 is None or reached.AP < reached.AP75 < (reached.AP50 or 0)
        assert reached.AR is None or reached.AP < reached.AR < 1
    assert system.true_boxes is None or system.true_boxes.AP > system.detected_boxes.AP
    assert system.source


def test_titles_tell_the_systems_apart() -> None:
    assert len({system.title for system in PUBLISHED.values()}) == len(PUBLISHED) == 15
