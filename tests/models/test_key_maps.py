"""Published files fill our models tensor for tensor, and our models then compute what their authors' do.

The files are random, under the authors' names (`tests.models.authors`, or as transformers itself writes them); the
authors' computation is transformers', torchvision's or timm's own, or spelled out here.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from models import PoseModel, build_model
from models.key_maps import SOURCES, recognise
from models.transpose import sine_position
from models.weights import WeightsError, load_init, load_weights
from tests.models import authors
from tests.models.authors import W18_SMALL, W32, State
from tests.models.small import HEAD, HRNET, SMALL, TRANSPOSE, VITPOSE, build_small, make_images

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Tiny models with the settings that their sources are published with; 48 x 64 has the grid of 3:4.
SIZE = (48, 64)  # (w, h)
TINY_VIT = VITPOSE | {"patch_size": 8, "patch_padding": 2}
VIT_SHAPES: dict[str, Any] = {"channels": 16, "depth": 2, "num_patches": 48, "patch": 8}
TINY_R = {"blocks": (2, 2), "grid_shape": (8, 6), "channels": 16, "depth": 2, "feedforward": 16, "bottleneck": False}
TINY_H = {"sizes": W18_SMALL, "grid_shape": (24, 16), "channels": 16, "depth": 2, "feedforward": 16}
TRANSPOSE_H = TRANSPOSE | {"backbone": "hrnet_w18_small", "decoder_channels": None}


def build(model: str, sizes: dict[str, Any], input_size: tuple[int, int] = SIZE, head: Any = None) -> PoseModel:
    torch.manual_seed(1)
    return build_model(model, input_size=input_size, num_keypoints=17, presence_head=head, **sizes)


def vitpose_of(decoder: str, input_size: tuple[int, int] = SIZE, **changes: Any) -> PoseModel:
    return build("vitpose", TINY_VIT | {"decoder": decoder} | changes, input_size)


def write(state: State, file: Path) -> Path:
    """As authors write it: a training checkpoint by torch.save, or safetensors."""
    if file.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, file)
    else:
        torch.save({"meta": {"epoch": 210}, "state_dict": state}, file)
    return file


def heatmaps_of(model: PoseModel, images: Tensor | None = None) -> Tensor:
    images = make_images(2, SIZE) if images is None else images
    with torch.no_grad():
        return model.eval()(images).heatmaps


# ViTPose.


def transformers_vitpose(
    simple: bool, channels: int = 16, depth: int = 2, heads: int = 2, size: tuple[int, int] = SIZE, patch: int = 8
) -> nn.Module:
    """transformers' model with random weights, none of them as it is initialised."""
    torch.manual_seed(0)
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=channels,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=[size[1], size[0]],
        patch_size=[patch, patch],
        out_indices=[depth],
        layer_norm_eps=1e-6,  # the authors'; its own 1e-12 tells in the seventh digit
    )
    config = transformers.VitPoseConfig(backbone_config=backbone, use_simple_decoder=simple, num_labels=17)
    model = transformers.VitPoseForPoseEstimation(config)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "running_var" in name or name.endswith("norm1.weight"):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point() and "conv" not in name:
                value.add_(0.02 * torch.randn_like(value))
    return model.eval()


@pytest.mark.parametrize("simple", [False, True], ids=["classic", "simple"])
def test_vitpose_computes_what_transformers_computes(simple: bool, tmp_path: Path) -> None:
    published = transformers_vitpose(simple)
    published.save_pretrained(tmp_path)
    model = vitpose_of("simple" if simple else "classic", decoder_channels=256)
    assert load_weights(model, tmp_path) == "ViTPose of transformers"
    pixels = model.normalise(make_images(2, SIZE)).double()
    with torch.no_grad():
        wanted = published.double()(pixels).heatmaps
        found = model.eval().double().decoder(model.backbone(pixels))
    assert wanted.std() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("simple", [False, True], ids=["classic", "simple"])
@pytest.mark.parametrize(("channels", "heads"), [(384, 12), (768, 12)], ids=["S", "B"])
def test_vitpose_of_published_size_computes_what_transformers_computes(
    channels: int, heads: int, simple: bool, tmp_path: Path
) -> None:
    size = (192, 256)
    published = transformers_vitpose(simple, channels, 12, heads, size, patch=16)
    published.save_pretrained(tmp_path)
    sizes = {"patch_size": 16, "embed_dim": channels, "depth": 12, "num_heads": heads, "decoder_channels": 256}
    model = vitpose_of("simple" if simple else "classic", size, **sizes)
    load_weights(model, tmp_path)
    images = make_images(1, size)
    with torch.no_grad():
        wanted = published(model.normalise(images)).heatmaps
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(heatmaps_of(model, images), wanted, rtol=0, atol=1e-4)


def as_vitpose(state: State) -> State:
    """The authors' names for mmpose's, whose position embedding has no row of a class token: there it is 0."""
    pairs = (
        (r"backbone\.ln1\.", "backbone.last_norm."),
        (r"patch_embed\.projection", "patch_embed.proj"),
        (r"layers\.(\d+)\.ln(\d)", r"blocks.\1.norm\2"),
        (r"layers\.(\d+)\.attn", r"blocks.\1.attn"),
        (r"layers\.(\d+)\.ffn\.layers\.0\.0", r"blocks.\1.mlp.fc1"),
        (r"layers\.(\d+)\.ffn\.layers\.1", r"blocks.\1.mlp.fc2"),
        (r"^head\.", "keypoint_head."),
    )
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        renamed[name] = value
    renamed["backbone.pos_embed"] = functional.pad(state["backbone.pos_embed"], (0, 0, 1, 0))
    return renamed


def as_transformers(state: State) -> State:
    """transformers' names for the authors' (the classic decoder's alone)."""
    pairs = (
        (r"pos_embed", "embeddings.position_embeddings"),
        (r"patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"blocks\.", "encoder.layer."),
        (r"attn\.proj", "attention.output.dense"),
        (r"last_norm", "layernorm"),
        (r"norm1", "layernorm_before"),
        (r"norm2", "layernorm_after"),
        (r"keypoint_head\.deconv_layers\.0", "head.deconv1"),
        (r"keypoint_head\.deconv_layers\.1", "head.batchnorm1"),
        (r"keypoint_head\.deconv_layers\.3", "head.deconv2"),
        (r"keypoint_head\.deconv_layers\.4", "head.batchnorm2"),
        (r"keypoint_head\.final_layer", "head.conv"),
    )
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        if "attn.qkv" in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = third
        else:
            renamed[name] = value
    return renamed


@pytest.mark.parametrize("file", ["vitpose.pth", "vitpose.safetensors"])
@pytest.mark.parametrize("kind", ["ViTPose of its authors", "ViTPose of mmpose 1.x"])
def test_vitpose_of_its_authors_and_of_mmpose_computes_what_transformers_computes(
    kind: str, file: str, tmp_path: Path
) -> None:
    shapes = VIT_SHAPES | {"inner": 256}
    is_mmpose = kind.endswith("1.x")
    state = authors.mmpose_vitpose("classic", **shapes) if is_mmpose else authors.vitpose("classic", **shapes)
    published = transformers_vitpose(simple=False)
    published.load_state_dict(as_transformers(as_vitpose(state) if is_mmpose else state))
    model = vitpose_of("classic", decoder_channels=256)
    assert load_weights(model, write(state, tmp_path / file)) == kind
    with torch.no_grad():
        wanted = published(model.normalise(make_images(2, SIZE))).heatmaps
    assert wanted.std() > 0.1
    torch.testing.assert_close(heatmaps_of(model), wanted, rtol=0, atol=1e-4 * float(wanted.std()))


@pytest.mark.parametrize("generate", [authors.vitpose, authors.mmpose_vitpose])
def test_the_simple_decoder_is_one_convolution(generate: Callable[..., State], tmp_path: Path) -> None:
    state = generate("simple", **VIT_SHAPES)
    model = vitpose_of("simple")
    load_weights(model, write(state, tmp_path / "vitpose.pth"))
    head = next(name for name in state if name.endswith("head.final_layer.weight"))
    assert torch.equal(model.state_dict()["decoder.2.weight"], state[head])


def test_what_vitpose_carries_along_is_left_behind(tmp_path: Path) -> None:
    state = authors.vitpose("classic", **VIT_SHAPES)
    plain, laden = vitpose_of("classic"), vitpose_of("classic")
    load_weights(plain, write(state, tmp_path / "plain.pth"))
    state["backbone.cls_token"] = torch.ones(1, 1, 16)  # of the files trained on several data sets
    for name in [name for name in state if name.startswith("keypoint_head.")]:
        state[name.replace("keypoint_head", "associate_keypoint_heads.0")] = torch.ones_like(state[name])
    state["backbone.blocks.0.mlp.experts.0.weight"] = torch.ones(4, 64)
    load_weights(laden, write(state, tmp_path / "laden.pth"))
    assert all(torch.equal(value, laden.state_dict()[name]) for name, value in plain.state_dict().items())


# HRNet.


def published_hrnet(state: State) -> Callable[[Tensor], Tensor]:
    """timm's HRNet, whole, and the last convolution; pixels to heatmaps."""
    network = timm.create_model("hrnet_w18_small").eval()
    result = network.load_state_dict(state, strict=False)
    assert set(result.unexpected_keys) == {"final_layer.weight", "final_layer.bias"}
    captured: list[list[Tensor]] = []
    network.stage4.register_forward_hook(lambda *arguments: captured.append(arguments[2]))

    def run(pixels: Tensor) -> Tensor:
        network.forward_features(pixels)
        return functional.conv2d(captured[-1][0], state["final_layer.weight"], state["final_layer.bias"])

    return run


@pytest.mark.parametrize("kind", ["HRNet of its authors", "mmpose 0.x", "mmpose 1.x"])
def test_hrnet_computes_what_the_published_one_computes(kind: str, tmp_path: Path) -> None:
    state = authors.hrnet(W18_SMALL)
    file = {
        "HRNet of its authors": state,
        "mmpose 0.x": authors.mmpose_hrnet(W18_SMALL, "keypoint_head"),
        "mmpose 1.x": authors.mmpose_hrnet(W18_SMALL, "head"),
    }[kind]
    model = build("hrnet", HRNET, (64, 96))
    source = load_weights(model, write(file, tmp_path / "hrnet.pth"))
    assert source == ("HRNet of mmpose" if kind.startswith("mmpose") else kind)
    images = make_images(2)
    with torch.no_grad():
        wanted = published_hrnet(state)(model.normalise(images))
    assert wanted.std() > 0.1
    torch.testing.assert_close(heatmaps_of(model, images), wanted, rtol=0, atol=1e-4 * float(wanted.std()))


def test_hrnet_of_published_size_has_every_tensor(tmp_path: Path) -> None:
    model = build("hrnet", HRNET | {"backbone": "hrnet_w32"}, (64, 96))
    load_weights(model, write(authors.hrnet(W32), tmp_path / "pose_hrnet_w32_256x192.pth"))


# TransPose.


def encode(state: State, features: Tensor, num_heads: int) -> Tensor:
    """The authors' encoder, spelled out: (B, C, h, w) to the same."""
    tokens = functional.conv2d(features, state["reduce.weight"]).flatten(2).mT  # (B, N, C)
    position = state["pos_embedding"][:, 0]
    width = tokens.shape[-1]
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("global_encoder."))
    for index in range(depth):
        layer = f"global_encoder.layers.{index}."
        of = {name.removeprefix(layer): value for name, value in state.items() if name.startswith(layer)}
        to_query, to_key, to_value = of["self_attn.in_proj_weight"].split(width)
        query_bias, key_bias, value_bias = of["self_attn.in_proj_bias"].split(width)
        query = (tokens + position) @ to_query.T + query_bias
        key = (tokens + position) @ to_key.T + key_bias
        value = tokens @ to_value.T + value_bias
        query, key, value = (part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        attention = (query @ key.mT / (width / num_heads) ** 0.5).softmax(-1)
        attended = (attention @ value).transpose(1, 2).flatten(2)
        attended = attended @ of["self_attn.out_proj.weight"].T + of["self_attn.out_proj.bias"]
        tokens = functional.layer_norm(tokens + attended, (width,), of["norm1.weight"], of["norm1.bias"])
        hidden = (tokens @ of["linear1.weight"].T + of["linear1.bias"]).relu()
        hidden = hidden @ of["linear2.weight"].T + of["linear2.bias"]
        tokens = functional.layer_norm(tokens + hidden, (width,), of["norm2.weight"], of["norm2.bias"])
    return tokens.mT.unflatten(2, features.shape[-2:])


def published_transpose_r(state: State, pixels: Tensor) -> Tensor:
    stem = torchvision.models.resnet18().eval()
    stem.load_state_dict(state, strict=False)
    features = stem.layer2(stem.layer1(stem.maxpool(stem.relu(stem.bn1(stem.conv1(pixels))))))
    up = functional.conv_transpose2d(encode(state, features, 2), state["deconv_layers.0.weight"], stride=2, padding=1)
    norm = [state[f"deconv_layers.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    return functional.conv2d(
        functional.batch_norm(up, *norm).relu(), state["final_layer.weight"], state["final_layer.bias"]
    )


def published_transpose_h(state: State, pixels: Tensor) -> Tensor:
    stem = timm.create_model("hrnet_w18_small").eval()
    stem.load_state_dict(state, strict=False)
    captured: list[list[Tensor]] = []
    stem.stage3.register_forward_hook(lambda *arguments: captured.append(arguments[2]))
    stem.forward_features(pixels)
    return functional.conv2d(encode(state, captured[0][0], 2), state["final_layer.weight"], state["final_layer.bias"])


TRANSPOSES = {
    "TransPose-R of its authors": (
        TRANSPOSE | {"decoder_channels": 16},
        lambda: authors.transpose_r(**TINY_R),
        published_transpose_r,
        SIZE,
    ),
    "TransPose-H of its authors": (TRANSPOSE_H, lambda: authors.transpose_h(**TINY_H), published_transpose_h, (64, 96)),
}


@pytest.mark.parametrize("kind", TRANSPOSES)
def test_transpose_computes_what_the_published_one_computes(kind: str, tmp_path: Path) -> None:
    sizes, generate, published, input_size = TRANSPOSES[kind]
    state, model = generate(), build("transpose", sizes, input_size)
    assert load_weights(model, write(state, tmp_path / "transpose.pth")) == kind
    images = make_images(2, input_size)
    with torch.no_grad():
        wanted = published(state, model.normalise(images))
    assert wanted.std() > 0.1
    torch.testing.assert_close(heatmaps_of(model, images), wanted, rtol=0, atol=3e-4 * float(wanted.std()))


def test_transpose_of_published_size_has_every_tensor(tmp_path: Path) -> None:
    state = authors.transpose_r((3, 4), (8, 6), 256, 4, 1024, bottleneck=True)
    changes = {"embed_dim": 256, "depth": 4, "num_heads": 8, "feedforward_dim": 1024, "decoder_channels": 256}
    model = build("transpose", TRANSPOSE | changes | {"backbone": "resnet50"})
    load_weights(model, write(state, tmp_path / "tp_r_256x192_enc4_d256_h1024_mh8.pth"))
    assert torch.equal(model.state_dict()["backbone.reduce.weight"], state["reduce.weight"])


def test_transpose_for_another_input_keeps_the_position_embedding_of_its_own(tmp_path: Path) -> None:
    file = write(authors.transpose_h(**TINY_H), tmp_path / "transpose.pth")
    model = build("transpose", TRANSPOSE_H)
    load_weights(model, file)
    assert torch.equal(model.state_dict()["backbone.position"], sine_position((16, 12), 16))


@pytest.mark.parametrize("input_size", [SIZE, (64, 96)])
def test_a_learnt_position_embedding_of_transpose_is_refused(input_size: tuple[int, int], tmp_path: Path) -> None:
    state = authors.transpose_h(**TINY_H)
    state["pos_embedding"] = torch.randn_like(state["pos_embedding"])
    with pytest.raises(WeightsError, match=r"its position embedding is learnt or of another kind, wanted 2D sines$"):
        load_weights(build("transpose", TRANSPOSE_H, input_size), write(state, tmp_path / "transpose.pth"))


# Our own.


@pytest.mark.parametrize("name", SMALL)
def test_our_own_checkpoint_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    source, model = build_small(name, seed=0), build_small(name, seed=1)
    with torch.no_grad():
        for value in source.state_dict().values():
            value.add_(1)  # batch statistics too are no longer those of a fresh model
    file = write(source.state_dict(), tmp_path / "checkpoint.safetensors")
    assert load_weights(model, file) == "this project"
    assert all(torch.equal(model.state_dict()[key], value) for key, value in source.state_dict().items())
    assert write(model.state_dict(), tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["vitpose-classic", "hrnet", "transpose", "transpose-h"])
def test_of_a_whole_model_first_weights_are_the_backbone(name: str, tmp_path: Path) -> None:
    source, model, fresh = build_small(name, seed=0), build_small(name, None, seed=1), build_small(name, None, seed=1)
    file = write(source.state_dict(), tmp_path / "checkpoint.safetensors")
    load_init(model.backbone, SMALL[name][0], str(file), "imagenet")
    for key, value in model.state_dict().items():
        wanted = source if key.startswith("backbone.") else fresh
        assert torch.equal(value, wanted.state_dict()[key]), key


# Backbones.


def load_backbone(model: PoseModel, architecture: str, path: Path) -> State:
    """The backbone after it; everything outside of its trunk must be as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_init(model.backbone, architecture, str(path), "imagenet")
    trunk = {"vitpose": "backbone.vit.", "hrnet": "backbone.stages.", "transpose": "backbone.stem."}[architecture]
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith(trunk))
    return {name.removeprefix(trunk): value for name, value in after.items() if name.startswith(trunk)}


@pytest.mark.parametrize("extra", ["classifier", "decoder"])
def test_a_vit_of_timm_or_mae_fills_all_but_its_class_token(extra: str, tmp_path: Path) -> None:
    state = authors.vit(channels=16, depth=2, num_patches=48, patch=8)
    draw = authors.Draw()
    if extra == "classifier":
        draw.linear("head", 10, 16)
    else:  # MAE's
        draw.linear("decoder_embed", 8, 16)
        draw.normal("mask_token", 1, 1, 8)
        draw.norm("decoder_blocks.0.norm1", 8)
    torch.save({"model": state | draw.state}, tmp_path / "vit.pth")
    loaded = load_backbone(vitpose_of("classic"), "vitpose", tmp_path / "vit.pth")
    assert loaded.keys() == state.keys() - {"cls_token"}
    for name in loaded.keys() - {"pos_embed"}:
        assert torch.equal(loaded[name], state[name]), name
    assert torch.equal(loaded["pos_embed"][:, 1:], state["pos_embed"][:, 1:])
    assert not loaded["pos_embed"][:, 0].any()


def test_a_vit_without_a_class_token_has_no_row_of_it(tmp_path: Path) -> None:
    state = authors.vit(channels=16, depth=2, num_patches=48, patch=8)
    del state["cls_token"]
    state["pos_embed"] = state["pos_embed"][:, 1:]
    loaded = load_backbone(vitpose_of("classic"), "vitpose", write(state, tmp_path / "vit.pth"))
    assert torch.equal(loaded["pos_embed"], functional.pad(state["pos_embed"], (0, 0, 1, 0)))


def test_the_position_embedding_is_interpolated_as_timm_does(tmp_path: Path) -> None:
    """From 14 x 14 to 8 x 6: timm's own model for that size, and the formula."""
    sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    published = timm.create_model("vit_base_patch16_224", **sizes)
    torch.nn.init.normal_(published.pos_embed)
    file = write(published.state_dict(), tmp_path / "vit.safetensors")
    resized = timm.create_model(
        "vit_base_patch16_224", **sizes, img_size=(128, 96), pretrained=True, pretrained_cfg_overlay={"file": str(file)}
    )
    loaded = load_backbone(vitpose_of("classic", (96, 128), patch_size=16), "vitpose", file)["pos_embed"]
    grid = published.pos_embed[:, 1:].mT.unflatten(2, (14, 14))
    wanted = functional.interpolate(grid, size=(8, 6), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(loaded[:, 1:], wanted.flatten(2).mT)
    torch.testing.assert_close(loaded[:, 1:], resized.pos_embed[:, 1:])


@pytest.mark.parametrize("generate", [authors.vitpose, authors.mmpose_vitpose])
@pytest.mark.parametrize("input_size", [(64, 64), (64, 48)], ids=["square", "landscape of as many patches"])
def test_the_position_embedding_of_a_published_pose_is_read_as_portrait(
    generate: Callable[..., State], input_size: tuple[int, int], tmp_path: Path
) -> None:
    state = generate("classic", **VIT_SHAPES)
    file = write(state, tmp_path / "vitpose.pth")
    model = vitpose_of("classic", input_size)
    load_weights(model, file)
    position = model.state_dict()["backbone.vit.pos_embed"]
    width, height = input_size
    published = state["backbone.pos_embed"]
    row, patches = (published[:, :1], published[:, 1:]) if published.shape[1] == 49 else (None, published)
    wanted = functional.interpolate(
        patches.mT.unflatten(2, (8, 6)), size=(height // 8, width // 8), mode="bicubic", antialias=True
    )
    torch.testing.assert_close(position[:, 1:], wanted.flatten(2).mT)
    assert torch.equal(position[:, :1], torch.zeros(1, 1, 16) if row is None else row)


def test_a_row_that_mmpose_would_drop_is_dropped(tmp_path: Path) -> None:
    state = authors.mmpose_vitpose("classic", **(VIT_SHAPES | {"num_patches": 192}))
    plain, model = (vitpose_of("classic", (96, 128)) for _ in range(2))
    load_weights(plain, write(state, tmp_path / "plain.pth"))
    state["backbone.pos_embed"] = functional.pad(state["backbone.pos_embed"], (0, 0, 1, 0), value=3.0)
    load_weights(model, write(state, tmp_path / "with_row.pth"))
    name = "backbone.vit.pos_embed"
    assert torch.equal(model.state_dict()[name], plain.state_dict()[name])


def test_a_position_embedding_of_unknown_shape_is_refused(tmp_path: Path) -> None:
    state = authors.vit(channels=16, depth=2, num_patches=50, patch=8)
    wanted = "its position embedding is for 50 patches, wanted a square, 4:3 (h:w) or the model's own 8 x 6 of them"
    with pytest.raises(WeightsError, match=re.escape(wanted)):
        load_backbone(vitpose_of("classic"), "vitpose", write(state, tmp_path / "vit.pth"))


def test_a_grid_of_the_models_own_needs_no_guess(tmp_path: Path) -> None:
    state = authors.vit(channels=16, depth=2, num_patches=50, patch=8)
    loaded = load_backbone(vitpose_of("classic", (40, 80)), "vitpose", write(state, tmp_path / "vit.pth"))
    assert torch.equal(loaded["pos_embed"][:, 1:], state["pos_embed"][:, 1:])


def test_smaller_patches_are_framed_with_zeros(tmp_path: Path) -> None:
    """MAE's ViT-H has patches of 14; an image under a frame of zeros weights gives the same embedding."""
    state = authors.vit(channels=16, depth=2, num_patches=48, patch=5)
    loaded = load_backbone(vitpose_of("classic"), "vitpose", write(state, tmp_path / "vit.pth"))
    weight = loaded["patch_embed.proj.weight"]
    assert weight.shape[2:] == (8, 8)
    assert torch.equal(weight[:, :, 1:6, 1:6], state["patch_embed.proj.weight"])
    assert weight.count_nonzero() == state["patch_embed.proj.weight"].count_nonzero()


def test_larger_patches_are_refused(tmp_path: Path) -> None:
    state = authors.vit(channels=16, depth=2, num_patches=48, patch=14)
    with pytest.raises(
        WeightsError, match=r"'patch_embed.proj.weight': found \(16, 3, 14, 14\), wanted \(16, 3, 8, 8\)"
    ):
        load_backbone(vitpose_of("classic"), "vitpose", write(state, tmp_path / "vit.pth"))


VIT_CONFIG = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MAE_DECODER = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification", "ViTForMaskedImageModeling", "ViTMAE"])
def test_a_vit_of_transformers_computes_the_same_after_its_embedding(kind: str, tmp_path: Path) -> None:
    config: dict[str, Any] = VIT_CONFIG | {"image_size": 56, "patch_size": 8, "layer_norm_eps": 1e-6}
    torch.manual_seed(0)
    if kind == "ViTMAE":
        published = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**config, **MAE_DECODER))
    else:
        published = getattr(transformers, kind)(transformers.ViTConfig(**config, encoder_stride=8))
    with torch.no_grad():
        for value in published.parameters():
            value.add_(0.1 * torch.randn_like(value))
    published.eval().save_pretrained(tmp_path)
    model = vitpose_of("classic", (56, 56))
    loaded = load_backbone(model, "vitpose", tmp_path)
    vit = published if kind == "ViTModel" else published.vit
    position = vit.embeddings.position_embeddings
    assert torch.equal(loaded["pos_embed"][:, 1:], position[:, 1:])
    assert not loaded["pos_embed"][:, 0].any()
    assert torch.equal(loaded["patch_embed.proj.weight"], vit.embeddings.patch_embeddings.projection.weight)
    tokens = torch.randn(2, 49, 16)
    with torch.no_grad():
        wanted = tokens
        for layer in vit.layers:
            wanted = layer(wanted)
        wanted = vit.layernorm(wanted)
        found = model.eval().backbone.vit.norm(model.backbone.vit.blocks(tokens))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "sizes"), [("hrnet", HRNET), ("transpose", TRANSPOSE_H)], ids=["HRNet", "TransPose-H"]
)
def test_an_hrnet_for_imagenet_fills_what_pose_reads(architecture: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    published = timm.create_model("hrnet_w18_small").state_dict()
    state = {name: torch.rand_like(value) if "running" in name else value for name, value in published.items()}
    file = write(state, tmp_path / "hrnet_w18_small.pth")
    loaded = load_backbone(build(architecture, sizes, (64, 96)), architecture, file)
    assert any("running_var" in name for name in loaded)
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


def test_a_resnet_for_imagenet_fills_the_stem_of_transpose(tmp_path: Path) -> None:
    published = torchvision.models.resnet18().state_dict()
    state = {name: torch.rand_like(value) if "running" in name else value for name, value in published.items()}
    file = write(state, tmp_path / "resnet18.pth")
    loaded = load_backbone(build("transpose", TRANSPOSE), "transpose", file)
    assert {name.split(".")[0] for name in loaded} == {"conv1", "bn1", "layer1", "layer2"}
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


# The maps themselves.


def every_file() -> dict[str, list[State]]:
    """A file of every source, with all that its authors ever put into one, by the source's name."""
    laden = authors.vitpose("classic", **VIT_SHAPES)
    extra = (
        "backbone.cls_token",
        "associate_keypoint_heads.0.final_layer.bias",
        "backbone.blocks.0.mlp.experts.0.bias",
    )
    ours = [build_small(name).state_dict() for name in ("vitpose-classic", "hrnet", "transpose")]
    config: dict[str, Any] = VIT_CONFIG | {"image_size": 48, "patch_size": 8}
    mae = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**config, **MAE_DECODER))
    masked = transformers.ViTForMaskedImageModeling(transformers.ViTConfig(**config, encoder_stride=8))
    classifier = transformers.ViTForImageClassification(transformers.ViTConfig(**config))
    return {
        "this project": ours,
        "ViTPose of its authors": [laden | dict.fromkeys(extra, torch.zeros(1))],
        "ViTPose of mmpose 1.x": [authors.mmpose_vitpose("classic", **VIT_SHAPES)],
        "ViTPose of transformers": [transformers_vitpose(simple=False).state_dict()],
        "HRNet of its authors": [authors.hrnet(W18_SMALL)],
        "HRNet of mmpose": [authors.mmpose_hrnet(W18_SMALL, head) for head in ("head", "keypoint_head")],
        "TransPose-R of its authors": [authors.transpose_r(**TINY_R)],
        "TransPose-H of its authors": [authors.transpose_h(**TINY_H)],
        "ViT of timm or MAE": [
            timm.create_model("vit_tiny_patch16_224", depth=1).state_dict(),
            authors.vit(16, 2, 48, 8) | {"mask_token": torch.zeros(1), "decoder_embed.bias": torch.zeros(1)},
        ],
        "ViT or ViTMAE of transformers": [saved_names(model) for model in (mae, masked, classifier)],
        "HRNet for ImageNet": [timm.create_model("hrnet_w18_small").state_dict()],
        "ResNet for ImageNet": [timm.create_model("resnet18").state_dict()],
    }


def saved_names(model: nn.Module) -> State:
    """The state dict under the names that `save_pretrained` writes, which are not those in memory."""
    pairs = (
        ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"),
        ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
        ("layers.", "encoder.layer."),
    )
    state = {}
    for name, value in model.state_dict().items():
        for old, new in pairs:
            name = name.replace(old, new)  # noqa: PLW2901
        state[name] = value
    return state


@pytest.fixture(scope="module")
def files() -> dict[str, list[State]]:
    return every_file()


def test_every_source_is_recognised_by_its_names_alone(files: dict[str, list[State]]) -> None:
    assert files.keys() == {source.name for source in SOURCES}
    for name, states in files.items():
        assert [recognise(state).name for state in states] == [name] * len(states)


def test_every_rule_is_of_use(files: dict[str, list[State]]) -> None:
    """And for every name: one rule, or a reason to drop it."""
    for source in SOURCES:
        names = {name for state in files[source.name] for name in state}
        patterns = [pattern for pattern, _ in (*source.rules, *source.dropped)]
        idle = [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in names)]
        assert not idle, (source.name, idle)
        unknown = [name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)]
        assert not unknown, (source.name, unknown)


# Files that do not fit.


def expect(message: str, model: PoseModel, state: State, file: Path) -> None:
    """One line that names the file, its source and the culprit; and the model is as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write(state, file)
    with pytest.raises(WeightsError, match=f"^{re.escape(str(file))}(?: \\([^)]*\\))?: {message}$") as caught:
        load_weights(model, file)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.fixture
def vitpose_state() -> State:
    return authors.vitpose("classic", **VIT_SHAPES)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.pth"


def test_a_file_of_no_known_source_is_refused(file: Path) -> None:
    known = "known are this project, ViTPose of its authors, .*, ResNet for ImageNet"
    message = f"its 2 tensors, the first is 'bias', are of no known source; {known}"
    expect(message, vitpose_of("classic"), {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, file)


def test_a_file_that_could_be_of_two_sources_is_refused(vitpose_state: State, file: Path) -> None:
    both = vitpose_state | authors.hrnet(W18_SMALL)
    message = "its .* tensors, .*, are of ViTPose of its authors and HRNet of its authors; known are .*"
    expect(message, vitpose_of("classic"), both, file)


def test_missing_tensors_are_counted_and_the_first_is_named(vitpose_state: State, file: Path) -> None:
    del vitpose_state["backbone.blocks.1.attn.proj.bias"], vitpose_state["keypoint_head.final_layer.bias"]
    message = r"2 of 43 tensors are missing, the first is 'backbone\.vit\.blocks\.1\.attn\.proj\.bias'"
    expect(message, vitpose_of("classic"), vitpose_state, file)


def test_a_file_of_a_deeper_model_is_refused(file: Path) -> None:
    deeper = authors.vitpose("classic", **(VIT_SHAPES | {"depth": 3}))
    message = r"12 of 55 tensors are left over, the first is 'backbone\.blocks\.2\.attn\.proj\.bias'"
    expect(message, vitpose_of("classic"), deeper, file)


def test_a_tensor_that_no_rule_knows_is_left_over(vitpose_state: State, file: Path) -> None:
    vitpose_state["backbone.blocks.0.gamma"] = torch.ones(16)
    message = r"1 of 44 tensors are left over, the first is 'backbone\.blocks\.0\.gamma'"
    expect(message, vitpose_of("classic"), vitpose_state, file)


def test_another_number_of_keypoints_is_refused(file: Path) -> None:
    state = authors.vitpose("classic", **VIT_SHAPES, num_keypoints=16)
    shapes = r"found \(16,\), wanted \(17,\)"
    message = rf"2 of 43 tensors are of another shape, the first is 'keypoint_head\.final_layer\.bias': {shapes}"
    expect(message, vitpose_of("classic"), state, file)


def test_the_other_decoder_is_refused(vitpose_state: State, file: Path) -> None:
    message = r"\d+ of \d+ tensors are left over, the first is 'keypoint_head\.deconv_layers\.0\.weight'"
    expect(message, vitpose_of("simple"), vitpose_state, file)
    message = r"\d+ of \d+ tensors are missing, the first is 'decoder\.0\.0\.weight'"
    expect(message, vitpose_of("classic"), authors.vitpose("simple", **VIT_SHAPES), file)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused(value: float, vitpose_state: State, file: Path) -> None:
    vitpose_state["backbone.blocks.1.norm2.weight"][3] = value
    message = r"1 of 43 tensors are not finite, the first is 'backbone\.blocks\.1\.norm2\.weight'"
    expect(message, vitpose_of("classic"), vitpose_state, file)


def test_a_published_file_has_no_presence_head(vitpose_state: State, file: Path) -> None:
    model = build("vitpose", TINY_VIT, SIZE, HEAD)
    expect("a model without a presence head, .* set presence_head.type to none", model, vitpose_state, file)


def test_a_file_of_another_architecture_is_refused(vitpose_state: State, file: Path) -> None:
    expect("wanted weights of hrnet", build("hrnet", HRNET, (64, 96)), vitpose_state, file)


def test_a_backbone_is_no_whole_model(file: Path) -> None:
    message = "a backbone without a decoder, wanted a whole model"
    expect(message, vitpose_of("classic"), authors.vit(16, 2, 48, 8), file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalisation": "half"}, "trained with normalisation imagenet, found half"),
        ({"patch_padding": 0}, "trained with patch_padding 2, found 0"),
    ],
)
def test_settings_that_no_tensor_shows_are_checked(
    changes: dict[str, Any], message: str, vitpose_state: State, file: Path
) -> None:
    expect(message, vitpose_of("classic", **changes), vitpose_state, file)


def test_the_number_of_heads_is_checked_where_it_is_known(file: Path) -> None:
    """Of width 384 ViTPose has 12 where others have 6, and no tensor's shape tells them apart."""
    state = authors.vitpose("simple", **(VIT_SHAPES | {"channels": 384, "depth": 1}))
    wrong, right = (vitpose_of("simple", embed_dim=384, depth=1, num_heads=heads) for heads in (6, 12))
    expect("trained with num_heads 12, found 6", wrong, state, file)
    load_weights(right, file)


def test_old_files_that_do_not_count_batches_are_read(file: Path) -> None:
    state = authors.hrnet(W18_SMALL)
    model = build("hrnet", HRNET, (64, 96))
    write({name: value for name, value in state.items() if "num_batches" not in name}, file)
    load_weights(model, file)
    counters = [value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")]
    assert counters
    assert not torch.stack(counters).any()


def test_data_parallels_prefix_is_taken_off(vitpose_state: State, file: Path) -> None:
    wrapped = {f"module.{name}": value for name, value in vitpose_state.items()}
    assert load_weights(vitpose_of("classic"), write(wrapped, file)) == "ViTPose of its authors"


def test_half_precision_is_read_in_the_models_own(vitpose_state: State, file: Path) -> None:
    write({name: value.half() if value.is_floating_point() else value for name, value in vitpose_state.items()}, file)
    model = vitpose_of("classic")
    load_weights(model, file)
    weight = model.state_dict()["backbone.vit.blocks.0.mlp.fc1.weight"]
    assert torch.equal(weight, vitpose_state["backbone.blocks.0.mlp.fc1.weight"].half().float())
