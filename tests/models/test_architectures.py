"""What all architectures promise: shapes, gradients, learning, layers; and each one's own parts."""

import pytest
import timm
import torch
from torch import nn

from models import BUILDERS
from models.hrnet import HRNetBackbone, create_stages
from models.pose_model import Backbone
from models.transpose import sine_position
from models.vitpose import VitBackbone
from tests.models.small import INPUT_SIZE, NUM_KEYPOINTS, PARAMS, SMALL, build_small, make_images


def normalised(num: int) -> torch.Tensor:
    """What a backbone sees."""
    return make_images(num).float() / 127.5 - 1


def test_the_small_ones_cover_every_architecture() -> None:
    assert {model for model, _ in SMALL.values()} == set(BUILDERS) == set(PARAMS)


@pytest.mark.parametrize("input_size", [INPUT_SIZE, (96, 64), (64, 64)])
@pytest.mark.parametrize("name", SMALL)
def test_output_has_the_size_that_the_model_and_the_config_say(name: str, input_size: tuple[int, int]) -> None:
    model_name, sizes = SMALL[name]
    model = build_small(name, input_size=input_size)
    width, height = model.heatmap_size
    output = model(make_images(2, input_size))
    assert output.heatmaps.shape == (2, NUM_KEYPOINTS, height, width)
    assert output.presence_logits is not None
    assert output.presence_logits.shape == (2, NUM_KEYPOINTS)
    assert output.heatmaps.isfinite().all()
    assert output.presence_logits.isfinite().all()
    assert model.heatmap_size == PARAMS[model_name].model_validate(sizes).heatmap_size(input_size)


@pytest.mark.parametrize("name", SMALL)
def test_without_a_head_there_are_no_logits(name: str) -> None:
    model = build_small(name, head=None)
    assert model(make_images(2)).presence_logits is None
    assert not [key for key in model.state_dict() if "presence" in key]


@pytest.mark.parametrize("name", SMALL)
def test_a_gradient_reaches_every_parameter_that_is_not_fixed(name: str) -> None:
    model = build_small(name)
    with torch.no_grad():
        for parameter in model.parameters():  # timm's residual branches start with a factor 0, which stops gradients
            if not parameter.any():
                parameter.normal_(std=0.1)
    output = model(make_images(2))
    assert output.presence_logits is not None
    (output.heatmaps.square().mean() + output.presence_logits.square().mean()).backward()
    unreached = {key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    assert unreached == ({"backbone.position"} if name.startswith("transpose") else set())
    assert unreached == {key for key, value in model.named_parameters() if not value.requires_grad}


@pytest.mark.parametrize("name", SMALL)
def test_one_batch_can_be_learned_by_heart(name: str) -> None:
    """Coarse heatmaps and labels that the images do not tell."""
    model, images = build_small(name), make_images(2)
    width, height = model.heatmap_size
    generator = torch.Generator().manual_seed(2)
    target = torch.rand(2, NUM_KEYPOINTS, 3, 2, generator=generator)
    target = nn.functional.interpolate(target, (height, width))
    present = torch.randint(2, (2, NUM_KEYPOINTS), generator=generator).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = None
    for _ in range(300):
        output = model(images)
        assert output.presence_logits is not None
        presence = nn.functional.binary_cross_entropy_with_logits(output.presence_logits, present)
        loss = nn.functional.mse_loss(output.heatmaps, target) + presence
        first = first or loss.item()
        if loss < 0.3 * first:  # one answer to both images stays above a third
            return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pytest.fail(f"a loss of {first} only fell to {loss.item()}")


@pytest.mark.parametrize("name", SMALL)
def test_persons_of_a_batch_do_not_see_each_other(name: str) -> None:
    model = build_small(name).eval()
    with torch.no_grad():
        together, alone = model(make_images(3)), model(make_images(3)[1:2])
    torch.testing.assert_close(together.heatmaps[1:2], alone.heatmaps, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(together.presence_logits[1:2], alone.presence_logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["vitpose-classic", "hrnet", "transpose", "transpose-h"])
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


@pytest.mark.parametrize(
    ("name", "input_size", "changes", "message"),
    [
        ("vitpose-classic", (64, 96), {"patch_size": 10}, "input of 64 x 96 is not a multiple of patch_size 10"),
        ("hrnet", (64, 80), {}, "input of 64 x 80 is not a multiple of stride 32"),
        ("transpose", (60, 96), {}, "input of 60 x 96 is not a multiple of stride 8"),
        ("transpose-h", (64, 88), {}, "input of 64 x 88 is not a multiple of stride 16"),
        ("vitpose-classic", (64, 96), {"patch_padding": 4}, "patch_padding 4, wanted less than half of patch_size 8"),
        ("hrnet", (64, 96), {"backbone": "hrnet_w31"}, "backbone: found 'hrnet_w31', wanted a model of timm"),
        ("transpose", (64, 96), {"backbone": "resnet49"}, "backbone: found 'resnet49', wanted a model of timm"),
        (
            "transpose",
            (64, 96),
            {"decoder_channels": None},
            "resnet18: found decoder_channels None, wanted a number",
        ),
        ("transpose-h", (64, 96), {"decoder_channels": 8}, "found decoder_channels 8, wanted None"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(
    name: str, input_size: tuple[int, int], changes: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_small(name, input_size=input_size, **changes)


LAYERS = {
    "vitpose-classic": {
        "vit.pos_embed": 0,
        "vit.patch_embed.proj.bias": 0,
        "vit.blocks.0.norm1.weight": 1,
        "vit.blocks.1.mlp.fc2.bias": 2,
        "vit.norm.weight": 3,
    },
    "hrnet": {
        "stages.conv1.weight": 0,
        "stages.layer1.0.bn1.running_mean": 0,
        "stages.transition1.0.0.weight": 1,
        "stages.stage2.0.branches.0.0.conv1.weight": 1,
        "stages.transition2.2.0.0.weight": 2,
        "stages.stage3.0.fuse_layers.0.1.0.weight": 2,
        "stages.transition3.3.0.0.weight": 3,
        "stages.stage4.0.branches.3.1.conv2.weight": 3,
    },
    "transpose": {
        "stem.layer2.0.conv1.weight": 0,
        "reduce.weight": 0,
        "position": 0,
        "layers.0.attention.in_proj_weight": 1,
        "layers.1.norm2.bias": 2,
    },
    "transpose-h": {"stem.stage3.0.fuse_layers.0.1.0.weight": 0, "layers.1.feedforward.3.weight": 2},
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_name_of_a_backbone_belongs_to_a_layer(name: str) -> None:
    backbone = build_small(name).backbone
    found = {key: backbone.layer_of(key) for key in backbone.state_dict()}
    last = backbone.num_layers + ("vitpose" in name)
    assert set(found.values()) == set(range(last + 1))
    assert {key: found[key] for key in LAYERS[name]} == LAYERS[name]


def vit(patch_padding: int = 0, **sizes: float) -> VitBackbone:
    torch.manual_seed(0)
    shared = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "drop_path": 0.0} | sizes
    return VitBackbone(INPUT_SIZE, patch_padding=patch_padding, **shared)


def patches_that_see(backbone: Backbone, row: int, column: int) -> list[list[int]]:
    """Which features change with one pixel."""
    image = normalised(1)
    changed = image.clone()
    changed[..., row, column] += 1
    with torch.no_grad():
        return (backbone(changed) != backbone(image)).any(1)[0].nonzero().tolist()


def test_tokens_of_a_vit_go_back_to_their_places_and_padding_moves_the_patches() -> None:
    """Without attention a pixel reaches one patch, which begins as many pixels earlier as there is padding."""
    for padding, row, column in ((0, 0, 0), (0, 23, 47), (0, 95, 63), (2, 0, 5), (2, 21, 46), (2, 22, 45)):
        backbone = vit(padding)
        backbone.vit.blocks = nn.Identity()
        assert backbone(normalised(1)).shape == (1, 16, 12, 8)
        assert patches_that_see(backbone, row, column) == [[(row + padding) // 8, (column + padding) // 8]]


def test_padding_cuts_the_last_pixels_off() -> None:
    """As published: with padding 2 the patches end 2 pixels before the image does."""
    backbone = vit(2)
    assert patches_that_see(backbone, 94, 0) == patches_that_see(backbone, 0, 62) == []
    assert patches_that_see(backbone, 93, 61)


def test_the_class_tokens_position_is_added_to_every_patch() -> None:
    first, second = vit(), vit()
    shift = torch.linspace(-1, 1, 16)
    with torch.no_grad():
        first.vit.pos_embed[:, :1] += shift
        second.vit.pos_embed[:, 1:] += shift
        torch.testing.assert_close(first(normalised(2)), second(normalised(2)))
        assert not torch.allclose(first(normalised(2)), vit()(normalised(2)), atol=1e-2)


def test_position_embedding_starts_small_in_two_standard_deviations_at_most() -> None:
    position = vit(embed_dim=64).vit.pos_embed
    assert position.shape == (1, 1 + 12 * 8, 64)
    assert position.std().item() == pytest.approx(0.02, rel=0.05)


def test_drop_path_grows_from_nothing_and_norms_are_those_of_vits() -> None:
    blocks = vit(depth=5, drop_path=0.4).vit.blocks
    assert [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert {module.eps for module in vit().modules() if isinstance(module, nn.LayerNorm)} == {1e-6}


def timm_hrnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("hrnet_w18_small", features_only=True, feature_location="", out_indices=(1,)).eval()


def test_a_pruned_hrnet_computes_what_timms_whole_one_does() -> None:
    """What goes are the fusions into the three lower branches of the last module."""
    whole, ours = timm_hrnet(), HRNetBackbone("hrnet_w18_small").eval()
    missing, left_over = ours.stages.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    assert {key.rsplit("fuse_layers.")[0] for key in left_over} == {"stage4.0."}
    assert {key.split("fuse_layers.")[1][0] for key in left_over} == {"1", "2", "3"}
    with torch.no_grad():
        assert torch.equal(ours(normalised(2)), whole(normalised(2))[0])


def test_transpose_h_begins_with_hrnets_third_stage() -> None:
    whole, ours = timm_hrnet(), create_stages("hrnet_w18_small", 3).eval()
    missing, left_over = ours.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    assert {key.split(".")[0] for key in left_over} == {"stage3", "transition3", "stage4"}
    branches: list[torch.Tensor] = []
    whole.stage3.register_forward_hook(lambda *call: branches.extend(call[-1]))
    with torch.no_grad():
        whole(normalised(2))
        assert torch.equal(ours(normalised(2))[0], branches[0])


@pytest.mark.parametrize(("name", "stride"), [("transpose", 8), ("transpose-h", 4)])
def test_tokens_of_transpose_go_back_to_their_places(name: str, stride: int) -> None:
    backbone = build_small(name).backbone.eval()
    backbone.layers = nn.ModuleList()
    assert backbone(normalised(2)).shape == (2, 16, 96 // stride, 64 // stride)
    assert torch.equal(backbone.position, sine_position((96 // stride, 64 // stride), 16))
    assert torch.equal(backbone(normalised(2)), backbone.reduce(backbone.stem(normalised(2))[0]))
