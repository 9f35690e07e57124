"""The architectures in sizes that a test can afford, and in the published ones."""

from typing import Any

import torch

from bench.config import HRNetParams, TransPoseParams, VitPoseParams
from models import PoseModel, build_model

INPUT_SIZE = (64, 96)  # (w, h)
NUM_KEYPOINTS = 17
HEAD = {"type": "mlp", "pool": 4, "hidden": 6, "dropout": 0.0}

VITPOSE = {
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "drop_path": 0.0,
    "decoder": "classic",
    "decoder_channels": 8,
    "init": "random",
}
HRNET = {"backbone": "hrnet_w18_small", "init": "random"}
TRANSPOSE = {
    "backbone": "resnet18",
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "feedforward_dim": 16,
    "dropout": 0.0,
    "decoder_channels": 8,
    "init": "random",
}

# Every architecture, and ViTPose with every decoder: name -> (model, its sizes).
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "vitpose-classic": ("vitpose", VITPOSE),
    "vitpose-simple": ("vitpose", VITPOSE | {"decoder": "simple"}),
    "vitpose-bilinear16": ("vitpose", VITPOSE | {"decoder": "bilinear16"}),
    "hrnet": ("hrnet", HRNET),
    "transpose": ("transpose", TRANSPOSE),
}

PARAMS = {"vitpose": VitPoseParams, "hrnet": HRNetParams, "transpose": TransPoseParams}

VITPOSE_B = VITPOSE | {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12, "decoder_channels": 256}
TRANSPOSE_R_A4 = {
    "backbone": "resnet50",
    "embed_dim": 256,
    "depth": 4,
    "num_heads": 8,
    "feedforward_dim": 1024,
    "dropout": 0.1,
    "decoder_channels": 256,
    "init": "random",
}


def build_small(name: str, head: dict[str, Any] | None = HEAD, seed: int = 0, **changes: Any) -> PoseModel:
    """A seeded model of `SMALL`; `changes` go to its sizes."""
    model, sizes = SMALL[name]
    torch.manual_seed(seed)
    return build_model(
        model, input_size=INPUT_SIZE, num_keypoints=NUM_KEYPOINTS, presence_head=head, **(sizes | changes)
    )


def build_meta(model: str, **sizes: Any) -> PoseModel:
    """A model of published size for inputs of 192 x 256, without memory behind it."""
    with torch.device("meta"):
        return build_model(model, input_size=(192, 256), num_keypoints=NUM_KEYPOINTS, presence_head=None, **sizes)
