"""HRNet: high resolution kept throughout (Sun et al., CVPR 2019). The stages are timm's."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.building import create_features, num_channels_of, require_multiple
from models.decoders import heatmap_conv
from models.pose_model import Backbone, PoseModel
from models.weights import load_init

NUM_STAGES = 4
STRIDE_OF_STAGE = {3: 16, 4: 32}
"""Input pixels per pixel of a stage's coarsest branch."""


def create_stages(backbone: str, last_stage: int) -> nn.Module:
    """timm's HRNet up to a stage, image to a list with the branch (B, C, H/4, W/4) of the highest resolution.

    Only what that branch reads is left: of the last stage's last fusions the first, as published for pose.
    """
    stages = create_features(backbone, out_index=1, feature_location="")
    for stage in range(last_stage + 1, NUM_STAGES + 1):
        setattr(stages, f"transition{stage - 1}", nn.ModuleList([nn.Identity()]))
        setattr(stages, f"stage{stage}", nn.Identity())
    last_module = getattr(stages, f"stage{last_stage}")[-1]
    last_module.fuse_layers = last_module.fuse_layers[:1]
    return stages


class HRNetBackbone(Backbone):
    """Image to the branch (B, C, H/4, W/4) of the highest resolution after stage 4."""

    num_layers = NUM_STAGES - 1
    memory_format = torch.channels_last

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.stages = create_stages(backbone, NUM_STAGES)
        self.num_channels = num_channels_of(self.stages)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.stages(image)[0]
        return features

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [self.stages.get_submodule(name) for name in ("layer1", "stage2", "stage3", "stage4")]

    def layer_of(self, name: str) -> int:
        """0 stem and the first stage (`layer1`), 1..3 the stages 2 to 4, each with the transition to it."""
        if part := re.match(r"stages\.(transition|stage)(\d)\.", name):
            return int(part[2]) - (part[1] == "stage")
        return 0


def build_hrnet(
    *,
    input_size: tuple[int, int],
    num_keypoints: int,
    presence_head: dict[str, Any] | None,
    normalisation: str,
    backbone: str,
    init: str,
) -> PoseModel:
    """HRNet with a 1x1 convolution to heatmaps; `backbone` is a timm name, as hrnet_w32."""
    require_multiple("hrnet", input_size, STRIDE_OF_STAGE[NUM_STAGES], "stride")
    stages = HRNetBackbone(backbone)
    model = PoseModel(
        stages,
        heatmap_conv(stages.num_channels, num_keypoints),
        input_size=input_size,
        num_keypoints=num_keypoints,
        normalisation=normalisation,
        presence_head=presence_head,
    )
    load_init(stages, "hrnet", init, normalisation)
    return model
