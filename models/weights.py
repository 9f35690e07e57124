"""Where first weights come from: random, a committed warm start, timm, or a published file.

What a published file's tensors are called is in `models.key_maps`, how a file is read in `models.weight_files`.
"""

import json
import textwrap
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from models import key_maps
from models.key_maps import State, Target
from models.pose_model import NORMALISATIONS, PoseModel
from models.weight_files import WeightsError, read_tensors

__all__ = [
    "WeightsError",
    "load_init",
    "load_warmstart",
    "load_weights",
    "read_history",
    "save_warmstart",
    "warmstart_file",
]

WARMSTART_DIR = Path(__file__).parent / "warmstart"
HISTORY = "history"  # the metadata key of a warm start's provenance
SETTINGS = "settings"  # that of a checkpoint's architecture
GRID = "grid_shape"  # and of the grid (h, w) of a ViT's patches, else null
POSITION = "vit.pos_embed"
FIXED = {"position"}  # of a TransPose: computed from the input's size, never learnt, so in no warm start


def load_init(backbone: nn.Module, architecture: str, init: str, normalisation: str) -> None:
    """Fill a backbone, or the trunk of it that classifiers have, with first weights.

    Args:
        backbone: of a model of `models.BUILDERS`.
        architecture: the model's name there.
        init: random (as it is) | warmstart | timm:<tag> | a published file or folder.
        normalisation: of the model's pixels, which the weights must have been trained with where that is known.

    Raises:
        WeightsError: the weights cannot be had or do not fit; the backbone is as it was.
    """
    kind, _, tag = init.partition(":")
    if init == "random":
        return
    if init == "warmstart":
        load_warmstart(backbone, warmstart_file(architecture))
        return
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    target = _describe(backbone, architecture, state, whole=False, normalisation=normalisation)
    if kind == "timm":
        label = f"init 'timm:{tag}'"
        tensors = _read_timm(tag, target, label)
    else:
        label, tensors = init, read_tensors(Path(init))
    _, filled = _translate(label, tensors, target)
    backbone.load_state_dict({name.removeprefix("backbone."): value for name, value in filled.items()}, strict=False)


def load_weights(model: PoseModel, path: Path) -> str:
    """Fill a whole model with a published one, or one of our own; the name of the file's source.

    Raises:
        WeightsError: the file cannot be read, or is not exactly this model; the model is as it was.
    """
    state = model.state_dict()
    trunks = key_maps.TRUNKS.items()
    architecture = next(name for name, trunk in trunks if any(key.startswith(f"backbone.{trunk}.") for key in state))
    target = _describe(model.backbone, architecture, state, whole=True, normalisation=_normalisation_of(model))
    source, filled = _translate(str(path), read_tensors(path), target)
    _check_settings(path, target)
    model.load_state_dict(filled)
    return source


def _check_settings(path: Path, target: Target) -> None:
    """What a checkpoint of this project says of itself, where no tensor shows it."""
    recorded = json.loads(_read_metadata(path).get(SETTINGS, "{}")) if path.suffix == ".safetensors" else {}
    for setting in ("normalisation", "num_heads", "patch_padding"):
        trained_with, found = recorded.get(setting), getattr(target, setting)
        if trained_with is not None and found not in {None, trained_with}:
            raise WeightsError(f"{path}: trained with {setting} {trained_with}, found {found}")


def _translate(label: str, tensors: State, target: Target) -> tuple[str, State]:
    """The name of the tensors' source, and the tensors as the model has them; `label` says where they are from."""
    try:
        source = key_maps.recognise(tensors)
        label = f"{label} ({source.name})"
        return source.name, key_maps.translate(source, tensors, target)
    except WeightsError as error:
        raise WeightsError(f"{label}: {error}") from error


def _describe(backbone: nn.Module, architecture: str, state: State, *, whole: bool, normalisation: str) -> Target:
    """A model, or its backbone alone, as a target, with what its tensors do not show."""
    grid_shape = num_heads = patch_padding = None
    if architecture == "vitpose":
        grid_shape = cast(tuple[int, int], backbone.grid_shape)
        num_heads = cast(int, backbone.get_submodule("vit.blocks.0.attn").num_heads)
        patch_padding = cast(nn.Conv2d, backbone.get_submodule("vit.patch_embed.proj")).padding[0]
    if architecture == "transpose":
        num_heads = cast(int, backbone.get_submodule("layers.0.attention").num_heads)
    return Target(architecture, state, whole, grid_shape, normalisation, num_heads, cast(int | None, patch_padding))


def _normalisation_of(model: PoseModel) -> str:
    """The name of what a model does to its pixels."""
    mean = model.pixel_mean.flatten() / 255
    return next(name for name, (its_mean, _) in NORMALISATIONS.items() if torch.tensor(its_mean).allclose(mean.cpu()))


def _read_timm(tag: str, target: Target, label: str) -> State:
    """The state dict of a classifier that timm has weights of.

    Raises:
        WeightsError: the tag is unknown, its weights cannot be had, or its model differs in what no tensor shows.
    """
    if not timm.is_model(tag) or tag not in timm.list_pretrained():
        raise WeightsError(f"{label}: timm {timm.__version__} knows no such weights")
    _check_pixels(tag, target, label)
    try:
        classifier = timm.create_model(tag, pretrained=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        # The hub's errors are OSErrors; missing, left over and misshapen tensors are RuntimeErrors of many lines.
        reason = textwrap.shorten(str(error), width=300)
        raise WeightsError(
            f"{label}: cannot load the published weights ({reason}). Fetch them once where there is a network, "
            f"python -c \"import timm; timm.create_model('{tag}', pretrained=True)\", or set HF_HOME to a folder that "
            "holds them"
        ) from error
    if isinstance(classifier, VisionTransformer) and target.architecture == "vitpose":
        num_heads = classifier.get_submodule("blocks.0.attn").num_heads
        if num_heads != target.num_heads:
            raise WeightsError(f"{label}: trained with num_heads {num_heads}, found {target.num_heads}")
    return cast(State, classifier.state_dict())


def _check_pixels(tag: str, target: Target, label: str) -> None:
    """Weights read pixels as those that they were trained with."""
    published = timm.get_pretrained_cfg(tag)
    assert published is not None
    trained_with = (tuple(published.mean), tuple(published.std))
    if target.normalisation is None or trained_with == NORMALISATIONS[target.normalisation]:
        return
    same = next((name for name, value in NORMALISATIONS.items() if value == trained_with), None)
    wanted = f"set normalisation to {same}" if same else f"which is none of {', '.join(NORMALISATIONS)}"
    raise WeightsError(
        f"{label}: trained with mean {trained_with[0]} and std {trained_with[1]}, found normalisation "
        f"{target.normalisation}: {wanted}"
    )


def warmstart_file(name: str) -> Path:
    """Where the warm start of an architecture lies."""
    return WARMSTART_DIR / f"{name}.safetensors"


def load_warmstart(backbone: nn.Module, file: Path) -> None:
    """Put a warm start into a backbone, in the backbone's own precision; a ViT may have another input size.

    Raises:
        WeightsError: the file is missing or broken, or its tensors are not exactly the backbone's.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: missing; make it with `python -m bench.stages.warmstart {file.stem}`")
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: cannot be read as safetensors ({error})") from error
    state = _resize_position(backbone, file, state)
    wanted = _learnt(backbone)
    for what, names in (
        ("missing", wanted.keys() - state.keys()),
        ("left over", state.keys() - wanted.keys()),
        ("of another shape", {n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape}),
    ):
        if names:
            raise WeightsError(
                f"{file}: {len(names)} of {len(wanted)} tensors are {what}, the first is {min(names)!r}: the warm "
                "start has other sizes than the model; make it anew with "
                f"`python -m bench.stages.warmstart {file.stem}`"
            )
    if broken := [name for name, value in state.items() if not value.isfinite().all()]:
        raise WeightsError(
            f"{file}: {len(broken)} of {len(state)} tensors are not finite, the first is {min(broken)!r}"
        )
    backbone.load_state_dict(state, strict=False)  # what is fixed is not in it


def _resize_position(backbone: nn.Module, file: Path, state: State) -> State:
    """The warm start of a ViT with its position embedding on the backbone's grid, interpolated as timm does."""
    position, wanted = state.get(POSITION), getattr(backbone, "grid_shape", None)
    found = json.loads(_read_metadata(file).get(GRID, "null"))
    if position is None or wanted is None or found is None or tuple(found) == wanted:
        return state
    resized = resample_abs_pos_embed(position.float(), list(wanted), found, num_prefix_tokens=1)
    return state | {POSITION: resized}


def _learnt(backbone: nn.Module) -> State:
    return {name: value for name, value in backbone.state_dict().items() if name not in FIXED}


def read_history(file: Path) -> list[dict[str, Any]]:
    """Where a warm start comes from: one record for each training, the first from random weights."""
    try:
        history: list[dict[str, Any]] = json.loads(_read_metadata(file)[HISTORY])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"{file}: its history cannot be read ({error}), wanted a warm start of this project"
        ) from error
    return history


def _read_metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as content:
        return content.metadata() or {}


def save_warmstart(backbone: nn.Module, file: Path, history: list[dict[str, Any]]) -> None:
    """Write a backbone in half precision, which keeps the committed files small, with where it comes from."""
    state = {
        name: (value.half() if value.dtype == torch.float32 else value).contiguous().cpu()
        for name, value in _learnt(backbone).items()
    }
    metadata = {HISTORY: json.dumps(history), GRID: json.dumps(getattr(backbone, "grid_shape", None))}
    save_file(state, file, metadata)
