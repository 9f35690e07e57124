"""Where a backbone's first weights come from: random, a committed warm start, or published ImageNet weights."""

import json
import textwrap
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

WARMSTART_DIR = Path(__file__).parent / "warmstart"
HISTORY = "history"  # the metadata key of a warm start's provenance


class WeightsError(ValueError):
    """Weights that cannot be had or do not fit; one line."""


def warmstart_file(name: str) -> Path:
    """Where the warm start of an architecture lies."""
    return WARMSTART_DIR / f"{name}.safetensors"


def published_tag(init: str) -> str | None:
    """The timm tag of `timm:<tag>`, else None."""
    kind, _, tag = init.partition(":")
    return tag if kind == "timm" else None


def create_timm(name: str, init: str, **sizes: Any) -> nn.Module:
    """A timm model: with published weights where `init` is `timm:<tag>`, else random ones.

    Raises:
        WeightsError: the tag is unknown or its weights cannot be had; never a silent random start.
    """
    tag = published_tag(init)
    if tag is None:
        return timm.create_model(name, pretrained=False, **sizes)
    if not timm.is_model(tag) or tag not in timm.list_pretrained():
        raise WeightsError(f"init 'timm:{tag}': timm {timm.__version__} knows no such weights")
    if tag.split(".")[0] != name:
        raise WeightsError(f"init 'timm:{tag}': these are weights of {tag.split('.')[0]}, wanted weights of {name}")
    try:
        return timm.create_model(tag, pretrained=True, **sizes)
    except (OSError, RuntimeError, SafetensorError) as error:
        # The hub's errors are OSErrors; missing, left over and misshapen tensors are RuntimeErrors of many lines.
        reason = textwrap.shorten(str(error), width=300)
        raise WeightsError(
            f"init 'timm:{tag}': cannot load the published weights ({reason}). Fetch them once where there is a "
            f"network, python -c \"import timm; timm.create_model('{tag}', pretrained=True)\", or set HF_HOME to a "
            "folder that holds them"
        ) from error


def load_warmstart(backbone: nn.Module, file: Path) -> None:
    """Put a warm start into a backbone, in the backbone's own precision.

    Raises:
        WeightsError: the file is missing or broken, or its tensors are not exactly the backbone's.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: missing; make it with `python -m bench.stages.warmstart {file.stem}`")
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: cannot be read as safetensors ({error})") from error
    wanted = backbone.state_dict()
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
    backbone.load_state_dict(state)


def read_history(file: Path) -> list[dict[str, Any]]:
    """Where a warm start comes from: one record for each training, the first from random weights."""
    try:
        with safe_open(file, "pt") as content:
            history: list[dict[str, Any]] = json.loads((content.metadata() or {})[HISTORY])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"{file}: its history cannot be read ({error}), wanted a warm start of this project"
        ) from error
    return history


def save_warmstart(backbone: nn.Module, file: Path, history: list[dict[str, Any]]) -> None:
    """Write a backbone in half precision, which keeps the committed files small, with where it comes from."""
    state = {
        name: (value.half() if value.dtype == torch.float32 else value).contiguous().cpu()
        for name, value in backbone.state_dict().items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    save_file(state, partial, {HISTORY: json.dumps(history)})
    partial.replace(file)
