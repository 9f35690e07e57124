"""HRNet: high resolution kept throughout (Sun et al., CVPR 2019). The backbone is timm's."""

from typing import Any

from torch import Tensor, nn

from models.decoders import heatmap_conv
from models.pose_model import PoseModel
from models.weights import create_timm, load_warmstart, warmstart_file


class HRNetBackbone(nn.Module):
    """The branch at a quarter of the input's resolution, without timm's classification widening."""

    def __init__(self, backbone: str, init: str) -> None:
        super().__init__()
        self.stages = create_timm(backbone, init, features_only=True, feature_location="", out_indices=(1,))
        self.num_channels: int = self.stages.feature_info.channels()[0]  # type: ignore[operator,union-attr]

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.stages(image)[0]  # (B, C, H/4, W/4)
        return features


def build_hrnet(
    *,
    input_size: tuple[int, int],
    num_keypoints: int,
    presence_head: dict[str, Any] | None,
    backbone: str,
    init: str,
) -> PoseModel:
    """HRNet with a 1x1 convolution to heatmaps; `backbone` is a timm name, as hrnet_w32."""
    stages = HRNetBackbone(backbone, init)
    if init == "warmstart":
        load_warmstart(stages, warmstart_file("hrnet"))
    decoder = heatmap_conv(stages.num_channels, num_keypoints)
    return PoseModel(stages, decoder, input_size, num_keypoints, presence_head)
