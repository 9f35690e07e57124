"""Architectures: plain keyword arguments in, `PoseOutput` out."""

from collections.abc import Callable
from typing import Any

from models.hrnet import build_hrnet
from models.output import PoseOutput
from models.pose_model import PoseModel
from models.transpose import build_transpose
from models.vitpose import build_vitpose

__all__ = ["BUILDERS", "PoseModel", "PoseOutput", "build_model"]

BUILDERS: dict[str, Callable[..., PoseModel]] = {
    "vitpose": build_vitpose,
    "hrnet": build_hrnet,
    "transpose": build_transpose,
}


def build_model(name: str, **arguments: Any) -> PoseModel:
    """The model `name` of `BUILDERS`; the builder's own signature says which arguments it takes."""
    return BUILDERS[name](**arguments)
