"""Is a keypoint there? Heads that answer with one logit per keypoint.

Letters: B batch, K keypoints, h w heatmap height and width, F values of one pooled heatmap.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class KeypointLinear(nn.Module):
    """A linear layer of its own for every keypoint, all at once: (B, K, in) to (B, K, out)."""

    def __init__(self, num_keypoints: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # nn.Linear's
        self.weight = nn.Parameter(torch.empty(num_keypoints, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_keypoints, 1, out_features).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        per_keypoint = features.transpose(0, 1)  # (K, B, in)
        return torch.baddbmm(self.bias, per_keypoint, self.weight).transpose(0, 1)


class MlpPresenceHead(nn.Module):
    """The source paper's head: max-pool, flatten each heatmap, its own small fully connected network, one logit.

    Args:
        num_keypoints: K.
        heatmap_size: (w, h).
        pool: side of the max-pooling window.
        hidden: width of the hidden layer.
        dropout: rate on the hidden layer.

    Raises:
        ValueError: the window does not divide the heatmap.
    """

    def __init__(
        self, num_keypoints: int, heatmap_size: tuple[int, int], pool: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        width, height = heatmap_size
        if width % pool or height % pool:
            raise ValueError(f"presence head: pool {pool} does not divide heatmaps of {width} x {height}")
        self.pool = pool
        self.layers = nn.Sequential(
            KeypointLinear(num_keypoints, (width // pool) * (height // pool), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            KeypointLinear(num_keypoints, hidden, 1),
        )

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Heatmaps (B, K, h, w) to logits (B, K)."""
        pooled = functional.max_pool2d(heatmaps, self.pool).flatten(2)  # (B, K, F)
        logits: Tensor = self.layers(pooled)
        return logits[..., 0]
