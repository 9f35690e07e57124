"""The common shape of all systems: backbone, decoder, and a presence head or none."""

from typing import Any

import torch
from torch import Tensor, nn

from models.output import PoseOutput
from models.presence_heads import MlpPresenceHead

HEADS = {"mlp": MlpPresenceHead}


class PoseModel(nn.Module):
    """Image (B, 3, H, W) to `PoseOutput`. `backbone` is what a warm start keeps; the rest starts fresh.

    Args:
        backbone: image to features (B, C, h', w').
        decoder: features to heatmaps (B, K, h, w).
        input_size: (w, h) in pixels.
        num_keypoints: K.
        presence_head: type and sizes of a head on the heatmaps, or None.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        input_size: tuple[int, int],
        num_keypoints: int,
        presence_head: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.heatmap_size = self._measure(input_size)
        self.presence_head: nn.Module | None = None
        if presence_head is not None:
            sizes = {key: value for key, value in presence_head.items() if key != "type"}
            self.presence_head = HEADS[presence_head["type"]](num_keypoints, self.heatmap_size, **sizes)

    @torch.no_grad()
    def _measure(self, input_size: tuple[int, int]) -> tuple[int, int]:
        """Size (w, h) of the heatmaps, from one empty image in evaluation mode (no statistics are touched)."""
        width, height = input_size
        self.eval()
        heatmaps = self.decoder(self.backbone(torch.zeros(1, 3, height, width)))
        self.train()
        return heatmaps.shape[-1], heatmaps.shape[-2]

    def forward(self, image: Tensor) -> PoseOutput:
        heatmaps = self.decoder(self.backbone(image))
        logits = None if self.presence_head is None else self.presence_head(heatmaps)
        return PoseOutput(heatmaps, logits)
