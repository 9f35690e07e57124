"""What all architectures promise: shapes, sizes, gradients, published numbers of parameters."""

import re

import pytest
import torch
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

from models import BUILDERS, PoseModel
from tests.models.small import (
    INPUT_SIZE,
    NUM_KEYPOINTS,
    PARAMS,
    SMALL,
    TRANSPOSE_R_A4,
    VITPOSE_B,
    build_meta,
    build_small,
)

# timm's HRNet ends with all four branches fused, as a classifier needs; of these, pose reads the first alone.
DEAD_FUSION = re.compile(r"backbone\.stages\.stage4\.(?P<module>\d+)\.fuse_layers\.[123]\.")


def images(num: int) -> torch.Tensor:
    width, height = INPUT_SIZE
    return torch.randn(num, 3, height, width, generator=torch.Generator().manual_seed(1))


def dead_parameters(model: PoseModel) -> set[str]:
    """Names of the parameters in the last HRNet module's fusions that nothing reads."""
    found = {name: match for name, _ in model.named_parameters() if (match := DEAD_FUSION.match(name))}
    last = max((int(match["module"]) for match in found.values()), default=0)
    return {name for name, match in found.items() if int(match["module"]) == last}


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_small_ones_cover_every_architecture() -> None:
    assert {model for model, _ in SMALL.values()} == set(BUILDERS) == set(PARAMS)


@pytest.mark.parametrize("name", SMALL)
def test_output_has_the_size_that_the_model_and_the_config_say(name: str) -> None:
    model_name, sizes = SMALL[name]
    model = build_small(name)
    width, height = model.heatmap_size
    output = model(images(2))
    assert output.heatmaps.shape == (2, NUM_KEYPOINTS, height, width)
    assert output.presence_logits is not None
    assert output.presence_logits.shape == (2, NUM_KEYPOINTS)
    assert model.heatmap_size == PARAMS[model_name].model_validate(sizes).heatmap_size(INPUT_SIZE)


@pytest.mark.parametrize("name", SMALL)
def test_without_a_head_there_are_no_logits(name: str) -> None:
    model = build_small(name, head=None)
    assert model(images(2)).presence_logits is None
    assert not [key for key in model.state_dict() if "presence" in key]


@pytest.mark.parametrize("name", SMALL)
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    model = build_small(name)
    with torch.no_grad():
        for parameter in model.parameters():  # timm's residual branches start with a factor 0, which stops gradients
            if not parameter.any():
                parameter.normal_(std=0.1)
    output = model(images(2))
    assert output.presence_logits is not None
    (output.heatmaps.square().mean() + output.presence_logits.square().mean()).backward()
    unreached = {key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    assert unreached == dead_parameters(model)


@pytest.mark.parametrize("name", SMALL)
def test_persons_of_a_batch_do_not_see_each_other(name: str) -> None:
    model = build_small(name).eval()
    with torch.no_grad():
        together, alone = model(images(3)), model(images(3)[1:2])
    torch.testing.assert_close(together.heatmaps[1:2], alone.heatmaps, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(together.presence_logits[1:2], alone.presence_logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (11, 7)])
def test_tokens_of_a_vit_go_back_to_their_places(row: int, column: int) -> None:
    """Without attention, a patch of the image reaches one feature alone."""
    backbone = build_small("vitpose-classic").backbone
    backbone.vit.blocks = torch.nn.Identity()
    changed = images(1)
    changed[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 1
    moved = (backbone(changed) != backbone(images(1))).any(1)[0]
    assert moved.shape == (12, 8)
    assert moved.nonzero().tolist() == [[row, column]]


def test_tokens_of_transpose_go_back_to_their_places() -> None:
    backbone = build_small("transpose").backbone.eval()
    backbone.layers = torch.nn.ModuleList()
    assert torch.equal(backbone(images(2)), backbone.reduce(backbone.stem(images(2))[0]))


@pytest.mark.parametrize("name", ["vitpose-classic", "hrnet", "transpose"])
def test_building_leaves_batch_statistics_alone_and_the_model_in_training(name: str) -> None:
    """The size of the heatmaps is measured with an empty image, which must leave no trace."""
    model = build_small(name)
    assert all(module.training for module in model.modules())
    counters = [value.item() for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")]
    assert set(counters) == {0}


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_weights(name: str) -> None:
    first, again, other = (build_small(name, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", SMALL)
def test_a_pool_that_does_not_divide_the_heatmap_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^presence head: pool 5 does not divide heatmaps of \d+ x \d+$"):
        build_small(name, head={"type": "mlp", "pool": 5, "hidden": 4, "dropout": 0.0})


def test_an_input_that_patches_do_not_fill_is_refused() -> None:
    message = "^vitpose: input of 64 x 96 is not a multiple of patch_size 10$"
    with pytest.raises(ValueError, match=message):
        build_small("vitpose-classic", patch_size=10)


@pytest.mark.parametrize(("decoder", "published"), [("classic", 89.99e6), ("simple", 85.91e6)])
def test_vitpose_b_has_the_published_number_of_parameters(decoder: str, published: float) -> None:
    """Beside transformers' model, which is without the class token: one vector of 768."""
    ours = count(build_meta("vitpose", **VITPOSE_B | {"decoder": decoder}))
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": [256, 192]}
    backbone = VitPoseBackboneConfig(**sizes, out_indices=[12])
    config = VitPoseConfig(backbone_config=backbone, use_simple_decoder=decoder == "simple", num_labels=NUM_KEYPOINTS)
    with torch.device("meta"):
        reference = VitPoseForPoseEstimation(config)
    assert ours == count(reference) + 768
    assert ours == pytest.approx(published, rel=0.005)


def test_hrnet_w32_has_the_published_number_of_parameters_and_timms_unread_fusions() -> None:
    """28.5M published. timm's features keep the last module's fusions into the three lower branches: 0.77M unread."""
    model = build_meta("hrnet", backbone="hrnet_w32", init="random")
    unread = dead_parameters(model)
    num_unread = sum(value.numel() for key, value in model.named_parameters() if key in unread)
    assert num_unread == pytest.approx(0.77e6, rel=0.001)
    assert count(model) == pytest.approx(29.306e6, rel=1e-4)
    assert count(model) - num_unread == pytest.approx(28.536e6, rel=1e-4)


def test_transpose_r_a4_has_the_published_number_of_parameters() -> None:
    """6.0M published, which counts the fixed position embedding of 32 x 24 tokens; here it is a buffer."""
    model = build_meta("transpose", **TRANSPOSE_R_A4)
    assert count(model) + 32 * 24 * 256 == pytest.approx(6.0e6, rel=0.005)
    # By hand: stem, layer1, layer2; reduction; 4 x (attention, feedforward, norms); deconvolution and norm; heatmaps.
    resnet = 9_536 + 215_808 + 1_219_584
    layer = 4 * (256 * 256 + 256) + (2 * 256 * 1024 + 1024 + 256) + 4 * 256
    assert count(model) == resnet + 512 * 256 + 4 * layer + (256 * 256 * 16 + 512) + (256 * 17 + 17)
