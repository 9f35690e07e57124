"""What the builders share: checks of what they are given, one line each."""

from typing import Any

import timm
from torch import nn


def require_multiple(model: str, input_size: tuple[int, int], multiple: int, name: str) -> None:
    """Refuse an input (w, h) that is not a multiple in both directions; `name` says of what.

    Raises:
        ValueError: it is not.
    """
    width, height = input_size
    if width % multiple or height % multiple:
        raise ValueError(f"{model}: input of {width} x {height} is not a multiple of {name} {multiple}")


def create_features(backbone: str, out_index: int, **options: Any) -> nn.Module:
    """A timm network with random weights that returns a list with the one feature map `out_index`.

    Raises:
        ValueError: timm has no such network.
    """
    if not timm.is_model(backbone):
        raise ValueError(f"backbone: found {backbone!r}, wanted a model of timm {timm.__version__}")
    return timm.create_model(backbone, pretrained=False, features_only=True, out_indices=(out_index,), **options)


def num_channels_of(features: nn.Module) -> int:
    """C of the one feature map of `create_features`."""
    num_channels: int = features.feature_info.channels()[0]  # type: ignore[operator,union-attr]
    return num_channels
