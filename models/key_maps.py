"""Which tensor of a published file is which of ours: one map per source, read off its authors' code.

A map is data: rules rename, patterns drop, and a few functions change the form of what is not merely renamed. Every
tensor of a file is renamed or dropped by name, every tensor of a model is filled; anything else is an error.

Letters: N patches, h w their grid, C channels.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from math import isqrt
from typing import NamedTuple

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional

from models.weight_files import WeightsError

State = dict[str, Tensor]

TRUNKS = {"vitpose": "vit", "hrnet": "stages", "transpose": "stem"}
"""By architecture, the part of its backbone that weights for classification fill."""

POSITION_TOLERANCE = 1e-4
"""Between sines of the same place, computed in another order or divided by a length + 1e-6."""


class Target(NamedTuple):
    """What is filled: a whole model, or its backbone alone under the names that it has in the model."""

    architecture: str  # of `models.BUILDERS`
    state: State
    whole: bool
    grid_shape: tuple[int, int] | None = None  # (h, w) of a ViT's patches
    normalisation: str | None = None  # of `models.pose_model.NORMALISATIONS`
    num_heads: int | None = None  # of the attention, where there is any
    patch_padding: int | None = None


Convert = Callable[[State, Target], State]
"""Changes the form of some tensors, all under the names of the model."""


class Source(NamedTuple):
    """A kind of published file.

    `rules` are pairs of a regex for a whole name and its replacement, of which the first that matches counts;
    `{trunk}` in it is the architecture's of `TRUNKS`. `dropped` are pairs of a regex and the reason; where the regex
    has a group, what it matches is dropped only if the model has nothing under that name.
    """

    name: str
    architectures: tuple[str, ...]
    marks: tuple[str, ...]  # a file is of this source when each matches one of its names
    rules: tuple[tuple[str, str], ...]
    dropped: tuple[tuple[str, str], ...] = ()
    convert: tuple[Convert, ...] = ()
    whole: bool = True  # else it holds a trunk alone
    # What a model needs besides the weights, where all files of a source share it and no tensor's shape shows it:
    normalisation: str | None = None
    num_heads: Mapping[int, int] = {}  # by C
    patch_padding: int | None = None


# Tensors that change their form.

THIRDS = ("query", "key", "value")
CLASS_TOKEN = "backbone.vit.cls_token"
POSITION = "backbone.vit.pos_embed"
PATCHES = "backbone.vit.patch_embed.proj.weight"


def join_qkv(state: State, _: Target) -> State:
    """Query, key and value, apart in transformers, as the one projection that timm has."""
    parts = [name for name in state if ".attn.query." in name]
    joined = {
        name.replace(".query.", ".qkv."): torch.cat([state[name.replace(".query.", f".{part}.")] for part in THIRDS])
        for name in parts
        if all(name.replace(".query.", f".{part}.") in state for part in THIRDS)
    }
    used = {name.replace(".qkv.", f".{part}.") for name in joined for part in THIRDS}
    return {name: value for name, value in state.items() if name not in used} | joined


def keep_class_row(state: State, target: Target) -> State:
    """ViTPose: the class token's row of the position embedding (1, 1 + N, C) is added to every patch, so it stays."""
    return _fit_position(state, target, has_row=True, keep_row=True)


def add_class_row(state: State, target: Target) -> State:
    """mmpose: a position embedding (1, N, C), or with the row of a class token that mmpose too would drop."""
    if POSITION not in state:
        return state
    num_rows = state[POSITION].shape[1]
    has_row = _grid_of(num_rows, target) is None and _grid_of(num_rows - 1, target) is not None
    return _fit_position(state, target, has_row=has_row, keep_row=False)


def drop_class_token(state: State, target: Target) -> State:
    """A classifier: its class token goes, with its row of the position embedding, which belonged to nothing else."""
    has_row = CLASS_TOKEN in state
    state = {name: value for name, value in state.items() if name != CLASS_TOKEN}
    return _fit_position(state, target, has_row=has_row, keep_row=False)


def _fit_position(state: State, target: Target, *, has_row: bool, keep_row: bool) -> State:
    """The position embedding as (1, 1 + N, C) of the model's grid; a first row that is not kept is zero.

    Interpolated as timm does for its own models: bicubic, antialiased.
    """
    position = state.get(POSITION)
    if position is None or target.grid_shape is None or position.ndim != 3:
        return state
    row, patches = position[:, :has_row], position[:, has_row:]
    grid = _grid_of(patches.shape[1], target)
    if grid is None:
        raise WeightsError(
            f"its position embedding is for {patches.shape[1]} patches, wanted a square, 4:3 (h:w) or the model's own "
            f"{target.grid_shape[0]} x {target.grid_shape[1]} of them"
        )
    if grid != target.grid_shape:
        patches = resample_abs_pos_embed(patches, list(target.grid_shape), list(grid), num_prefix_tokens=0)
    if not keep_row:
        row = patches.new_zeros(1, 1, patches.shape[2])
    return state | {POSITION: torch.cat([row, patches], dim=1)}


def _grid_of(num_patches: int, target: Target) -> tuple[int, int] | None:
    """(h, w): square, as of classifiers, 4:3, as of published persons (never both), or the model's own."""
    assert target.grid_shape is not None
    if num_patches > 0 and isqrt(num_patches) ** 2 == num_patches:
        return isqrt(num_patches), isqrt(num_patches)
    side = isqrt(num_patches // 12) if num_patches > 0 else 0
    if side and 12 * side**2 == num_patches:
        return 4 * side, 3 * side
    height, width = target.grid_shape
    return target.grid_shape if num_patches == height * width else None


def pad_patches(state: State, target: Target) -> State:
    """Smaller patches (MAE's ViT-H has 14 x 14) framed with zeros to the model's, as ViTPose's authors do."""
    patches, wanted = state.get(PATCHES), target.state.get(PATCHES)
    if patches is None or wanted is None or patches.ndim != 4 or patches.shape[2:] == wanted.shape[2:]:
        return state
    rows, columns = (own - found for found, own in zip(patches.shape[2:], wanted.shape[2:], strict=True))
    if min(rows, columns) < 0:
        return state
    frame = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return state | {PATCHES: functional.pad(patches, frame)}


def check_sines(state: State, target: Target) -> State:
    """TransPose's position embedding (N, 1, C) as (N, C): the model's own sines, or it is refused as learnt.

    Of another input size it is replaced by the model's, which says the same of its own grid.
    """
    name = "backbone.position"
    if name not in state or name not in target.state or state[name].ndim != 3:
        return state
    position, own = state[name].squeeze(1).float(), target.state[name]
    if position.shape == own.shape:
        is_fixed = torch.allclose(position, own.cpu(), atol=POSITION_TOLERANCE)
    elif position.shape[1:] == own.shape[1:] and position.shape[1] % 2 == 0:
        pairs = position.reshape(position.shape[0], -1, 2)  # a sine and a cosine each
        is_fixed = torch.allclose(pairs.square().sum(-1), torch.ones(()), atol=POSITION_TOLERANCE)
        position = own
    else:
        return state | {name: position}
    if not is_fixed:
        raise WeightsError("its position embedding is learnt or of another kind, wanted 2D sines")
    return state | {name: position}


# The sources.

VIT_HEADS = {768: 12, 1024: 16, 1280: 16}
VITPOSE_HEADS = VIT_HEADS | {384: 12}  # of its S too, where others' have 6
TRANSPOSE_ENCODER = (
    (r"reduce\.weight", r"backbone.reduce.weight"),
    (r"pos_embedding", r"backbone.position"),
    (r"global_encoder\.layers\.(\d+)\.self_attn\.(.+)", r"backbone.layers.\1.attention.\2"),
    (r"global_encoder\.layers\.(\d+)\.linear1\.(.+)", r"backbone.layers.\1.feedforward.0.\2"),
    (r"global_encoder\.layers\.(\d+)\.linear2\.(.+)", r"backbone.layers.\1.feedforward.3.\2"),
    (r"global_encoder\.layers\.(\d+)\.(norm[12]\..+)", r"backbone.layers.\1.\2"),
)
HRNET_PARTS = "conv1|bn1|conv2|bn2|layer1|transition[123]|stage[234]"

OWN = "this project"

SOURCES = (
    # bench.stages.train: the names of a PoseModel
    Source(
        OWN,
        architectures=("vitpose", "hrnet", "transpose"),
        marks=(r"backbone\.(vit|stages|stem)\..+",),
        rules=((r"(backbone|decoder|presence_head)\.(.+)", r"\1.\2"),),
    ),
    # ViTAE-Transformer/ViTPose: mmpose/models/backbones/vit.py, mmpose/models/heads/topdown_heatmap_simple_head.py,
    # mmpose/models/detectors/top_down_moe.py, tools/model_split.py
    Source(
        "ViTPose of its authors",
        architectures=("vitpose",),
        marks=(r"backbone\.blocks\.0\.attn\.qkv\.weight",),
        rules=(
            (r"backbone\.last_norm\.(.+)", r"backbone.vit.norm.\1"),
            (r"backbone\.(pos_embed|patch_embed\.proj\..+)", r"backbone.vit.\1"),
            (r"backbone\.blocks\.(\d+)\.((?:norm[12]|attn|mlp\.fc[12])\..+)", r"backbone.vit.blocks.\1.\2"),
            (r"keypoint_head\.deconv_layers\.([01])\.(.+)", r"decoder.0.\1.\2"),
            (r"keypoint_head\.deconv_layers\.3\.(.+)", r"decoder.1.0.\1"),
            (r"keypoint_head\.deconv_layers\.4\.(.+)", r"decoder.1.1.\1"),
            (r"keypoint_head\.final_layer\.(.+)", r"decoder.2.\1"),
        ),
        dropped=(
            (r"backbone\.cls_token", "left from first weights: the model reads none"),
            (r"associate_keypoint_heads\..+", "heads of the other data sets of ViTPose+"),
            (r"backbone\.blocks\.\d+\.mlp\.experts\..+", "of ViTPose+: split for COCO, fc2 has its own"),
        ),
        convert=(keep_class_row,),
        normalisation="imagenet",
        num_heads=VITPOSE_HEADS,
        patch_padding=2,
    ),
    # open-mmlab/mmpose 1.x: configs/.../td-hm_ViTPose-*.py, mmpose/models/heads/heatmap_heads/heatmap_head.py;
    # open-mmlab/mmpretrain: mmpretrain/models/backbones/vision_transformer.py
    Source(
        "ViTPose of mmpose 1.x",
        architectures=("vitpose",),
        marks=(r"backbone\.layers\.0\.attn\.qkv\.weight",),
        rules=(
            (r"backbone\.ln1\.(.+)", r"backbone.vit.norm.\1"),
            (r"backbone\.pos_embed", r"backbone.vit.pos_embed"),
            (r"backbone\.patch_embed\.projection\.(.+)", r"backbone.vit.patch_embed.proj.\1"),
            (r"backbone\.layers\.(\d+)\.ln([12])\.(.+)", r"backbone.vit.blocks.\1.norm\2.\3"),
            (r"backbone\.layers\.(\d+)\.attn\.(.+)", r"backbone.vit.blocks.\1.attn.\2"),
            (r"backbone\.layers\.(\d+)\.ffn\.layers\.0\.0\.(.+)", r"backbone.vit.blocks.\1.mlp.fc1.\2"),
            (r"backbone\.layers\.(\d+)\.ffn\.layers\.1\.(.+)", r"backbone.vit.blocks.\1.mlp.fc2.\2"),
            (r"head\.deconv_layers\.([01])\.(.+)", r"decoder.0.\1.\2"),
            (r"head\.deconv_layers\.3\.(.+)", r"decoder.1.0.\1"),
            (r"head\.deconv_layers\.4\.(.+)", r"decoder.1.1.\1"),
            (r"head\.final_layer\.(.+)", r"decoder.2.\1"),
        ),
        convert=(add_class_row,),
        normalisation="imagenet",
        num_heads=VITPOSE_HEADS,
        patch_padding=2,
    ),
    # huggingface/transformers: src/transformers/models/vitpose/convert_vitpose_to_hf.py and what save_pretrained writes
    Source(
        "ViTPose of transformers",
        architectures=("vitpose",),
        marks=(r"backbone\.encoder\.layer\.0\.attention\.attention\.query\.weight",),
        rules=(
            (r"backbone\.layernorm\.(.+)", r"backbone.vit.norm.\1"),
            (r"backbone\.embeddings\.position_embeddings", r"backbone.vit.pos_embed"),
            (r"backbone\.embeddings\.patch_embeddings\.projection\.(.+)", r"backbone.vit.patch_embed.proj.\1"),
            (r"backbone\.encoder\.layer\.(\d+)\.layernorm_before\.(.+)", r"backbone.vit.blocks.\1.norm1.\2"),
            (r"backbone\.encoder\.layer\.(\d+)\.layernorm_after\.(.+)", r"backbone.vit.blocks.\1.norm2.\2"),
            (r"backbone\.encoder\.layer\.(\d+)\.attention\.attention\.(.+)", r"backbone.vit.blocks.\1.attn.\2"),
            (
                r"backbone\.encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)",
                r"backbone.vit.blocks.\1.attn.proj.\2",
            ),
            (r"backbone\.encoder\.layer\.(\d+)\.mlp\.(fc[12]\..+)", r"backbone.vit.blocks.\1.mlp.\2"),
            (r"head\.deconv1\.(.+)", r"decoder.0.0.\1"),
            (r"head\.batchnorm1\.(.+)", r"decoder.0.1.\1"),
            (r"head\.deconv2\.(.+)", r"decoder.1.0.\1"),
            (r"head\.batchnorm2\.(.+)", r"decoder.1.1.\1"),
            (r"head\.conv\.(.+)", r"decoder.2.\1"),
        ),
        convert=(join_qkv, keep_class_row),
        normalisation="imagenet",
        num_heads=VITPOSE_HEADS,
        patch_padding=2,
    ),
    # leoxiaobin/deep-high-resolution-net.pytorch: lib/models/pose_hrnet.py
    Source(
        "HRNet of its authors",
        architectures=("hrnet",),
        marks=(r"stage4\.0\.branches\.0\.0\.conv1\.weight", r"final_layer\.weight"),
        rules=((rf"({HRNET_PARTS})\.(.+)", r"backbone.stages.\1.\2"), (r"final_layer\.(.+)", r"decoder.\1")),
        normalisation="imagenet",
    ),
    # open-mmlab/mmpose 0.x and 1.x: mmpose/models/backbones/hrnet.py, mmpose/models/heads/heatmap_heads/heatmap_head.py
    Source(
        "HRNet of mmpose",
        architectures=("hrnet",),
        marks=(r"backbone\.stage4\.0\.branches\.0\.0\.conv1\.weight",),
        rules=(
            (rf"backbone\.({HRNET_PARTS})\.(.+)", r"backbone.stages.\1.\2"),
            (r"(?:keypoint_)?head\.final_layer\.(.+)", r"decoder.\1"),
        ),
        normalisation="imagenet",
    ),
    # yangsenius/TransPose: lib/models/transpose_r.py
    Source(
        "TransPose-R of its authors",
        architectures=("transpose",),
        marks=(r"global_encoder\.layers\.0\.self_attn\.in_proj_weight", r"layer2\.0\.conv1\.weight"),
        rules=(
            (r"(conv1|bn1|layer[12])\.(.+)", r"backbone.stem.\1.\2"),
            *TRANSPOSE_ENCODER,
            (r"deconv_layers\.([01])\.(.+)", r"decoder.0.\1.\2"),
            (r"final_layer\.(.+)", r"decoder.1.\1"),
        ),
        convert=(check_sines,),
        normalisation="imagenet",
        num_heads={256: 8},
    ),
    # yangsenius/TransPose: lib/models/transpose_h.py
    Source(
        "TransPose-H of its authors",
        architectures=("transpose",),
        marks=(r"global_encoder\.layers\.0\.self_attn\.in_proj_weight", r"stage3\.0\.branches\.0\.0\.conv1\.weight"),
        rules=(
            (r"(conv1|bn1|conv2|bn2|layer1|transition[12]|stage[23])\.(.+)", r"backbone.stem.\1.\2"),
            *TRANSPOSE_ENCODER,
            (r"final_layer\.(.+)", r"decoder.\1"),
        ),
        convert=(check_sines,),
        normalisation="imagenet",
        num_heads={64: 1, 96: 1, 192: 1},
    ),
    # huggingface/pytorch-image-models: timm/models/vision_transformer.py; facebookresearch/mae: models_mae.py (the row
    # of its class token is zero, so nothing is lost with it)
    Source(
        "ViT of timm or MAE",
        architectures=("vitpose",),
        marks=(r"blocks\.0\.attn\.qkv\.weight", r"patch_embed\.proj\.weight"),
        rules=((r"(pos_embed|cls_token|(?:patch_embed|blocks|norm)\..+)", r"backbone.{trunk}.\1"),),
        dropped=(
            (r"(?:head|fc_norm)\..+", "the classifier"),
            (r"mask_token|decoder_.+", "MAE's decoder, for pretraining alone"),
        ),
        convert=(drop_class_token, pad_patches),
        whole=False,
        num_heads=VIT_HEADS,
    ),
    # huggingface/transformers: src/transformers/models/vit/modeling_vit.py and vit_mae/modeling_vit_mae.py, under the
    # names that save_pretrained writes
    Source(
        "ViT or ViTMAE of transformers",
        architectures=("vitpose",),
        marks=(r"(?:vit\.)?encoder\.layer\.0\.attention\.attention\.query\.weight",),
        rules=(
            (r"(?:vit\.)?layernorm\.(.+)", r"backbone.{trunk}.norm.\1"),
            (r"(?:vit\.)?embeddings\.cls_token", r"backbone.{trunk}.cls_token"),
            (r"(?:vit\.)?embeddings\.position_embeddings", r"backbone.{trunk}.pos_embed"),
            (r"(?:vit\.)?embeddings\.patch_embeddings\.projection\.(.+)", r"backbone.{trunk}.patch_embed.proj.\1"),
            (r"(?:vit\.)?encoder\.layer\.(\d+)\.layernorm_before\.(.+)", r"backbone.{trunk}.blocks.\1.norm1.\2"),
            (r"(?:vit\.)?encoder\.layer\.(\d+)\.layernorm_after\.(.+)", r"backbone.{trunk}.blocks.\1.norm2.\2"),
            (r"(?:vit\.)?encoder\.layer\.(\d+)\.attention\.attention\.(.+)", r"backbone.{trunk}.blocks.\1.attn.\2"),
            (
                r"(?:vit\.)?encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)",
                r"backbone.{trunk}.blocks.\1.attn.proj.\2",
            ),
            (r"(?:vit\.)?encoder\.layer\.(\d+)\.intermediate\.dense\.(.+)", r"backbone.{trunk}.blocks.\1.mlp.fc1.\2"),
            (r"(?:vit\.)?encoder\.layer\.(\d+)\.output\.dense\.(.+)", r"backbone.{trunk}.blocks.\1.mlp.fc2.\2"),
        ),
        dropped=(
            (r"classifier\..+|(?:vit\.)?pooler\..+", "the classifier and what it pools"),
            (r"decoder\..+|(?:vit\.)?embeddings\.mask_token", "ViTMAE's decoder, for pretraining alone"),
        ),
        convert=(join_qkv, drop_class_token, pad_patches),
        whole=False,
        num_heads=VIT_HEADS,
    ),
    # huggingface/pytorch-image-models: timm/models/hrnet.py, with the names of the authors' ImageNet files
    Source(
        "HRNet for ImageNet",
        architectures=("hrnet", "transpose"),
        marks=(r"incre_modules\.0\.0\.conv1\.weight", r"stage4\.0\.branches\.0\.0\.conv1\.weight"),
        rules=((rf"({HRNET_PARTS})\.(.+)", r"backbone.{trunk}.\1.\2"),),
        dropped=(
            (r"(?:incre_modules|downsamp_modules|final_layer|classifier)\..+", "the classifier's widening and itself"),
            (r"(transition3|stage4)\..+", "TransPose-H ends with stage 3"),
            (r"(stage[34]\.\d+\.fuse_layers\.[123])\..+", "the last fusions to branches that pose does not read"),
        ),
        whole=False,
    ),
    # huggingface/pytorch-image-models: timm/models/resnet.py, with torchvision's names
    Source(
        "ResNet for ImageNet",
        architectures=("transpose",),
        marks=(r"layer4\.0\.conv1\.weight",),
        rules=((r"(conv1|bn1|layer[1234])\.(.+)", r"backbone.{trunk}.\1.\2"),),
        dropped=(
            (r"fc\..+", "the classifier"),
            (r"(layer[34])\..+", "TransPose-R ends with the second stage"),
        ),
        whole=False,
    ),
)


# A file into a model.


def recognise(names: Collection[str]) -> Source:
    """The one source that a file is of, by its names alone.

    Raises:
        WeightsError: it is of none, or could be of several.
    """
    found = [source for source in SOURCES if all(_has(names, mark) for mark in source.marks)]
    if len(found) == 1:
        return found[0]
    what = " and ".join(source.name for source in found) or "no known source"
    known = ", ".join(source.name for source in SOURCES)
    raise WeightsError(f"its {len(names)} tensors, the first is {min(names)!r}, are of {what}; known are {known}")


def _has(names: Iterable[str], pattern: str) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)


def translate(source: Source, state: State, target: Target) -> State:
    """A file's tensors under the model's names, in the model's shapes: all that the source fills, and nothing else.

    Raises:
        WeightsError: the source cannot fill the target, or tensors are missing, left over, misshapen or not finite.
    """
    _check_fit(source, state, target)
    renamed, origin, left_over = _rename(source, state, target)
    for convert in source.convert:
        renamed = convert(renamed, target)
    wanted = _wanted(source, target)
    renamed |= _uncounted(renamed, wanted)
    missing = dict.fromkeys(wanted.keys() - renamed.keys(), "")
    if missing and all(name.startswith("presence_head.") for name in missing):
        raise WeightsError("a model without a presence head, wanted one with it: set presence_head.type to none")
    _refuse("missing", missing, len(wanted))
    left_over += [origin.get(name, name) for name in renamed.keys() - wanted.keys()]
    _refuse("left over", dict.fromkeys(left_over, ""), len(state))
    shapes = {name: (tuple(renamed[name].shape), tuple(value.shape)) for name, value in wanted.items()}
    misshapen = {
        origin.get(name, name): f": found {found}, wanted {own}"
        for name, (found, own) in shapes.items()
        if found != own
    }
    _refuse("of another shape", misshapen, len(wanted))
    broken = [origin.get(name, name) for name in wanted if not renamed[name].isfinite().all()]
    _refuse("not finite", dict.fromkeys(broken, ""), len(wanted))
    return {name: renamed[name] for name in wanted}


def _check_fit(source: Source, state: State, target: Target) -> None:
    """What no tensor's shape shows but can be known."""
    if target.architecture not in source.architectures:
        raise WeightsError(f"wanted weights of {target.architecture}")
    if source.name == OWN and not any(name.startswith(f"backbone.{TRUNKS[target.architecture]}.") for name in state):
        raise WeightsError(f"of another architecture, wanted weights of {target.architecture}")
    if target.whole and not source.whole:
        raise WeightsError("a backbone without a decoder, wanted a whole model")
    num_heads = source.num_heads.get(_width(target) or 0)
    padding = source.patch_padding if target.whole else None  # a backbone may be trained on with another
    for setting, trained_with, found in (
        ("normalisation", source.normalisation, target.normalisation),
        ("num_heads", num_heads, target.num_heads),
        ("patch_padding", padding, target.patch_padding),
    ):
        if trained_with is not None and found not in {None, trained_with}:
            raise WeightsError(f"trained with {setting} {trained_with}, found {found}")


def _width(target: Target) -> int | None:
    """C of a model with attention."""
    position = target.state.get(POSITION, target.state.get("backbone.position"))
    return None if position is None else position.shape[-1]


def _rename(source: Source, state: State, target: Target) -> tuple[State, dict[str, str], list[str]]:
    """Tensors under the model's names, the file's names by those, and the names that no rule knows."""
    renamed: State = {}
    origin: dict[str, str] = {}
    left_over = []
    for name, value in state.items():
        if _is_dropped(source, name, target):
            continue
        new_name = _new_name(source, name, target)
        if new_name is None:
            left_over.append(name)
        elif target.whole or new_name.startswith("backbone."):
            renamed[new_name], origin[new_name] = value, name
    return renamed, origin, left_over


def _new_name(source: Source, name: str, target: Target) -> str | None:
    for pattern, replacement in source.rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement).replace("{trunk}", TRUNKS[target.architecture])
    return None


def _is_dropped(source: Source, name: str, target: Target) -> bool:
    trunk = f"backbone.{TRUNKS[target.architecture]}"
    for pattern, _ in source.dropped:
        match = re.fullmatch(pattern, name)
        if match and not (match.groups() and _has_below(target, f"{trunk}.{match[1]}.")):
            return True
    return False


def _has_below(target: Target, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in target.state)


def _wanted(source: Source, target: Target) -> State:
    if source.whole:
        return target.state
    prefix = f"backbone.{TRUNKS[target.architecture]}."
    return {name: value for name, value in target.state.items() if name.startswith(prefix)}


def _uncounted(renamed: State, wanted: State) -> State:
    """Old files do not count the batches that their statistics are of; the count is not read in evaluation."""
    counters = (name for name in wanted if name.endswith(".num_batches_tracked"))
    return {
        name: torch.zeros((), dtype=torch.long)
        for name in counters
        if name not in renamed and name.replace("num_batches_tracked", "running_mean") in renamed
    }


def _refuse(what: str, details: Mapping[str, str], total: int) -> None:
    """One line for tensors that are not as they must be: how many, and the first with its detail."""
    if details:
        first = min(details)
        raise WeightsError(f"{len(details)} of {total} tensors are {what}, the first is {first!r}{details[first]}")
