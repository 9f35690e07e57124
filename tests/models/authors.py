"""State dicts as other projects publish them: their names and shapes, from their architectures, with random values.

Written from the papers and the authors' modules, without a look at `models.key_maps`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]


class Draw:
    """Random layers under given names; the values are such that signals neither vanish nor explode."""

    def __init__(self, seed: int = 0) -> None:
        self.state: State = {}
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, name: str, *shape: int, std: float = 1.0) -> None:
        self.state[name] = std * torch.randn(shape, generator=self._generator)

    def linear(self, name: str, out: int, inputs: int) -> None:
        self.normal(f"{name}.weight", out, inputs, std=inputs**-0.5)
        self.normal(f"{name}.bias", out, std=0.1)

    def conv(self, name: str, out: int, inputs: int, kernel: int, *, bias: bool = False) -> None:
        self.normal(f"{name}.weight", out, inputs, kernel, kernel, std=(2 / inputs) ** 0.5 / kernel)
        if bias:
            self.normal(f"{name}.bias", out, std=0.1)

    def norm(self, name: str, channels: int, *, batch: bool = False) -> None:
        self.state[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=self._generator)
        self.normal(f"{name}.bias", channels, std=0.1)
        if batch:
            self.normal(f"{name}.running_mean", channels, std=0.1)
            self.state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=self._generator)
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(77)

    def conv_norm(self, conv: str, norm: str, out: int, inputs: int, kernel: int) -> None:
        self.conv(conv, out, inputs, kernel)
        self.norm(norm, out, batch=True)


# ViTPose.


def vitpose_decoder(draw: Draw, head: str, decoder: str, channels: int, inner: int, num_keypoints: int) -> None:
    """The names of mmpose's heads: a flat sequence of deconvolution, norm and ReLU, twice, then `final_layer`."""
    if decoder == "simple":
        draw.conv(f"{head}.final_layer", num_keypoints, channels, 3, bias=True)
        return
    for index, inputs in ((0, channels), (3, inner)):
        draw.normal(f"{head}.deconv_layers.{index}.weight", inputs, inner, 4, 4, std=(0.5 / inputs) ** 0.5)
        draw.norm(f"{head}.deconv_layers.{index + 1}", inner, batch=True)
    draw.conv(f"{head}.final_layer", num_keypoints, inner, 1, bias=True)


def vitpose(
    decoder: str, channels: int, depth: int, num_patches: int, patch: int, inner: int = 8, num_keypoints: int = 17
) -> State:
    """ViTAE-Transformer/ViTPose."""
    draw = Draw()
    draw.normal("backbone.pos_embed", 1, 1 + num_patches, channels)
    draw.conv("backbone.patch_embed.proj", channels, 3, patch, bias=True)
    for block in (f"backbone.blocks.{index}" for index in range(depth)):
        draw.norm(f"{block}.norm1", channels)
        draw.linear(f"{block}.attn.qkv", 3 * channels, channels)
        draw.linear(f"{block}.attn.proj", channels, channels)
        draw.norm(f"{block}.norm2", channels)
        draw.linear(f"{block}.mlp.fc1", 4 * channels, channels)
        draw.linear(f"{block}.mlp.fc2", channels, 4 * channels)
    draw.norm("backbone.last_norm", channels)
    vitpose_decoder(draw, "keypoint_head", decoder, channels, inner, num_keypoints)
    return draw.state


def mmpose_vitpose(
    decoder: str, channels: int, depth: int, num_patches: int, patch: int, inner: int = 8, num_keypoints: int = 17
) -> State:
    """open-mmlab/mmpose 1.x with the ViT of mmpretrain, which has no class token there."""
    draw = Draw()
    draw.normal("backbone.pos_embed", 1, num_patches, channels)
    draw.conv("backbone.patch_embed.projection", channels, 3, patch, bias=True)
    for layer in (f"backbone.layers.{index}" for index in range(depth)):
        draw.norm(f"{layer}.ln1", channels)
        draw.linear(f"{layer}.attn.qkv", 3 * channels, channels)
        draw.linear(f"{layer}.attn.proj", channels, channels)
        draw.norm(f"{layer}.ln2", channels)
        draw.linear(f"{layer}.ffn.layers.0.0", 4 * channels, channels)
        draw.linear(f"{layer}.ffn.layers.1", channels, 4 * channels)
    draw.norm("backbone.ln1", channels)
    vitpose_decoder(draw, "head", decoder, channels, inner, num_keypoints)
    return draw.state


def vit(channels: int, depth: int, num_patches: int, patch: int) -> State:
    """facebookresearch/mae's encoder, and timm's ViT without its classifier."""
    draw = Draw()
    draw.normal("cls_token", 1, 1, channels)
    draw.normal("pos_embed", 1, 1 + num_patches, channels)
    draw.conv("patch_embed.proj", channels, 3, patch, bias=True)
    for block in (f"blocks.{index}" for index in range(depth)):
        draw.norm(f"{block}.norm1", channels)
        draw.linear(f"{block}.attn.qkv", 3 * channels, channels)
        draw.linear(f"{block}.attn.proj", channels, channels)
        draw.norm(f"{block}.norm2", channels)
        draw.linear(f"{block}.mlp.fc1", 4 * channels, channels)
        draw.linear(f"{block}.mlp.fc2", channels, 4 * channels)
    draw.norm("norm", channels)
    return draw.state


# HRNet: the stages as (modules, blocks of a branch), the first of bottlenecks.

W18_SMALL = {"widths": (16, 32, 64, 128), "first": (1, 32), "stages": ((1, 2), (1, 2), (1, 2))}
W32 = {"widths": (32, 64, 128, 256), "first": (4, 64), "stages": ((1, 4), (4, 4), (3, 4))}
W48 = {"widths": (48, 96, 192, 384), "first": (4, 64), "stages": ((1, 4), (4, 4), (3, 4))}


def draw_hrnet(
    draw: Draw, widths: Sequence[int], first: tuple[int, int], stages: Sequence[tuple[int, int]], last_stage: int
) -> None:
    """The stages to `last_stage`, whose last module fuses into the branch of the highest resolution alone."""
    num_blocks, planes = first
    draw.conv_norm("conv1", "bn1", 64, 3, 3)
    draw.conv_norm("conv2", "bn2", 64, 64, 3)
    inputs = 64
    for index in range(num_blocks):
        draw_bottleneck(draw, f"layer1.{index}", inputs, planes, shortcut=index == 0)
        inputs = 4 * planes
    for stage in range(2, last_stage + 1):
        if stage == 2:
            draw.conv_norm("transition1.0.0", "transition1.0.1", widths[0], inputs, 3)
        else:
            inputs = widths[stage - 2]
        new = f"transition{stage - 1}.{stage - 1}.0"
        draw.conv_norm(f"{new}.0", f"{new}.1", widths[stage - 1], inputs, 3)
        num_modules, num_blocks = stages[stage - 2]
        for module in range(num_modules):
            for branch, width in enumerate(widths[:stage]):
                for block in range(num_blocks):
                    draw_basic(draw, f"stage{stage}.{module}.branches.{branch}.{block}", width, width)
            is_last = stage == last_stage and module == num_modules - 1
            draw_fusions(draw, f"stage{stage}.{module}.fuse_layers", widths[:stage], 1 if is_last else stage)


def draw_fusions(draw: Draw, prefix: str, widths: Sequence[int], num_outputs: int) -> None:
    """To every output from every other branch: 1x1 from coarser ones, a chain of strided 3x3 from finer ones."""
    for to in range(num_outputs):
        for source, width in enumerate(widths):
            name = f"{prefix}.{to}.{source}"
            if source > to:
                draw.conv_norm(f"{name}.0", f"{name}.1", widths[to], width, 1)
            for step in range(to - source):
                out = widths[to] if step == to - source - 1 else width
                draw.conv_norm(f"{name}.{step}.0", f"{name}.{step}.1", out, width, 3)


def draw_basic(draw: Draw, name: str, inputs: int, planes: int) -> None:
    draw.conv_norm(f"{name}.conv1", f"{name}.bn1", planes, inputs, 3)
    draw.conv_norm(f"{name}.conv2", f"{name}.bn2", planes, planes, 3)
    if inputs != planes:
        draw.conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", planes, inputs, 1)


def draw_bottleneck(draw: Draw, name: str, inputs: int, planes: int, *, shortcut: bool) -> None:
    draw.conv_norm(f"{name}.conv1", f"{name}.bn1", planes, inputs, 1)
    draw.conv_norm(f"{name}.conv2", f"{name}.bn2", planes, planes, 3)
    draw.conv_norm(f"{name}.conv3", f"{name}.bn3", 4 * planes, planes, 1)
    if shortcut:
        draw.conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", 4 * planes, inputs, 1)


def hrnet(sizes: dict, num_keypoints: int = 17) -> State:
    """leoxiaobin/deep-high-resolution-net.pytorch."""
    draw = Draw()
    draw_hrnet(draw, **sizes, last_stage=4)
    draw.conv("final_layer", num_keypoints, sizes["widths"][0], 1, bias=True)
    return draw.state


def mmpose_hrnet(sizes: dict, head: str) -> State:
    """open-mmlab/mmpose: the authors' names in `backbone`, the last convolution in `head` (0.x: `keypoint_head`)."""
    return {
        f"{head}.{name}" if name.startswith("final_layer") else f"backbone.{name}": value
        for name, value in hrnet(sizes).items()
    }


# TransPose.


def draw_encoder(draw: Draw, channels: int, depth: int, feedforward: int) -> None:
    """torch's MultiheadAttention between DETR's names."""
    for layer in (f"global_encoder.layers.{index}" for index in range(depth)):
        draw.normal(f"{layer}.self_attn.in_proj_weight", 3 * channels, channels, std=channels**-0.5)
        draw.normal(f"{layer}.self_attn.in_proj_bias", 3 * channels, std=0.1)
        draw.linear(f"{layer}.self_attn.out_proj", channels, channels)
        draw.linear(f"{layer}.linear1", feedforward, channels)
        draw.linear(f"{layer}.linear2", channels, feedforward)
        draw.norm(f"{layer}.norm1", channels)
        draw.norm(f"{layer}.norm2", channels)


def sines(grid_shape: tuple[int, int], channels: int) -> Tensor:
    """(N, 1, C): a plain loop over DETR's formula, y before x, positions over the length + 1e-6."""
    height, width = grid_shape
    half = channels // 2
    rows = []
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            row = []
            for position, length in ((y, height), (x, width)):
                angle = position / (length + 1e-6) * 2 * torch.pi
                for index in range(half):
                    value = torch.tensor(angle / 10_000 ** (2 * (index // 2) / half), dtype=torch.float64)
                    row.append(value.cos() if index % 2 else value.sin())
            rows.append(torch.stack(row))
    return torch.stack(rows).float()[:, None]


def transpose_r(
    blocks: Sequence[int], grid_shape: tuple[int, int], channels: int, depth: int, feedforward: int, *, bottleneck: bool
) -> State:
    """yangsenius/TransPose on a ResNet's stem and first two stages."""
    draw = Draw()
    draw.conv_norm("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for stage, planes in ((0, 64), (1, 128)):
        for block in range(blocks[stage]):
            name = f"layer{stage + 1}.{block}"
            if bottleneck:
                draw_bottleneck(draw, name, inputs, planes, shortcut=block == 0)
            else:
                draw_basic(draw, name, inputs, planes)
            inputs = 4 * planes if bottleneck else planes
    draw.conv("reduce", channels, inputs, 1)
    draw.state["pos_embedding"] = sines(grid_shape, channels)
    draw_encoder(draw, channels, depth, feedforward)
    draw.normal("deconv_layers.0.weight", channels, channels, 4, 4, std=(0.5 / channels) ** 0.5)
    draw.norm("deconv_layers.1", channels, batch=True)
    draw.conv("final_layer", 17, channels, 1, bias=True)
    return draw.state


def transpose_h(sizes: dict, grid_shape: tuple[int, int], channels: int, depth: int, feedforward: int) -> State:
    """yangsenius/TransPose on HRNet to its third stage."""
    draw = Draw()
    draw_hrnet(draw, **sizes, last_stage=3)
    draw.conv("reduce", channels, sizes["widths"][0], 1)
    draw.state["pos_embedding"] = sines(grid_shape, channels)
    draw_encoder(draw, channels, depth, feedforward)
    draw.conv("final_layer", 17, channels, 1, bias=True)
    return draw.state
