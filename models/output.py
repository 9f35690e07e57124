"""What every model returns. Letters: B batch, K keypoints, h w heatmap height and width."""

from typing import NamedTuple

from torch import Tensor


class PoseOutput(NamedTuple):
    heatmaps: Tensor  # (B, K, h, w)
    presence_logits: Tensor | None  # (B, K); None without a presence head
    visibility_logits: Tensor | None = None  # (B, K, 3): not labelled, occluded, visible; of a three-class head alone
