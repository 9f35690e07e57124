"""The architectures in sizes that a test can afford, and in the published ones."""

from typing import Any

import torch

from bench.config import HRNetParams, TransPoseParams, VitPoseParams
from models import PoseModel, build_model

INPUT_SIZE = (64, 96)  # (w, h)
NUM_KEYPOINTS = 17
HEAD = {"type": "mlp", "pool": 4, "hidden": 6, "dropout": 0.0, "dropout_at": "hidden", "detach": False}

VITPOSE = {
    "patch_size": 8,
    "patch_padding": 1,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "drop_path": 0.0,
    "decoder": "classic",
    "decoder_channels": 8,
    "normalisation": "imagenet",
    "init": "random",
}
HRNET = {"backbone": "hrnet_w18_small", "normalisation": "imagenet", "init": "random"}
TRANSPOSE = {
    "backbone": "resnet18",
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "feedforward_dim": 16,
    "dropout": 0.0,
    "decoder_channels": 8,
    "normalisation": "imagenet",
    "init": "random",
}

# Every architecture, and ViTPose with every decoder: name -> (model, its sizes).
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "vitpose-classic": ("vitpose", VITPOSE),
    "vitpose-simple": ("vitpose", VITPOSE | {"decoder": "simple"}),
    "vitpose-bilinear16": ("vitpose", VITPOSE | {"decoder": "bilinear16"}),
    "vitpose-bilinear16_relu_first": ("vitpose", VITPOSE | {"decoder": "bilinear16_relu_first"}),
    "hrnet": ("hrnet", HRNET),
    "transpose": ("transpose", TRANSPOSE),
    "transpose-h": ("transpose", TRANSPOSE | {"backbone": "hrnet_w18_small", "decoder_channels": None}),
}

PARAMS = {"vitpose": VitPoseParams, "hrnet": HRNetParams, "transpose": TransPoseParams}


def make_images(num: int, size: tuple[int, int] = INPUT_SIZE) -> torch.Tensor:
    """Seeded noise (num, 3, h, w) in uint8."""
    width, height = size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, 3, height, width), generator=generator, dtype=torch.uint8)


def build_small(
    name: str,
    head: dict[str, Any] | None = HEAD,
    seed: int = 0,
    input_size: tuple[int, int] = INPUT_SIZE,
    **changes: Any,
) -> PoseModel:
    """A seeded model of `SMALL`; `changes` go to its sizes."""
    model, sizes = SMALL[name]
    torch.manual_seed(seed)
    return build_model(
        model, input_size=input_size, num_keypoints=NUM_KEYPOINTS, presence_head=head, **(sizes | changes)
    )
