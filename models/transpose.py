"""TransPose-R: a ResNet stem, a transformer encoder, one deconvolution (Yang et al., ICCV 2021).

Letters: B batch, C channels, h w feature height and width, N = h*w tokens.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.decoders import heatmap_conv, upsample_block
from models.pose_model import PoseModel
from models.weights import create_timm, load_warmstart, warmstart_file

TEMPERATURE = 10_000.0


def sine_position(grid_shape: tuple[int, int], embed_dim: int) -> Tensor:
    """2D sine position embedding (N, C): the first half of C for y, the second for x (DETR, ECCV 2020, appendix).

    Positions run from just above 0 to 2 pi over the grid; sines and cosines alternate.
    """
    num_frequencies = embed_dim // 4
    period = TEMPERATURE ** (torch.arange(num_frequencies) / num_frequencies)

    def encode(length: int) -> Tensor:
        position = torch.arange(1, length + 1) / length * 2 * math.pi
        angle = position[:, None] / period
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (length, C / 2)

    rows, columns = grid_shape
    down = encode(rows)[:, None].expand(-1, columns, -1)
    across = encode(columns)[None].expand(rows, -1, -1)
    return torch.cat([down, across], dim=-1).flatten(0, 1)


class EncoderLayer(nn.Module):
    """A post-norm transformer layer that adds the position to queries and keys, not to values."""

    def __init__(self, embed_dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, dropout=dropout, batch_first=True)
        self.feedforward = nn.Sequential(
            nn.Linear(embed_dim, feedforward_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward_dim, embed_dim),
        )
        self.norm1 = nn.LayerNorm(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        query = tokens + position
        attended, _ = self.attention(query, query, tokens, need_weights=False)
        tokens = self.norm1(tokens + self.dropout(attended))
        return self.norm2(tokens + self.dropout(self.feedforward(tokens)))


class TransPoseBackbone(nn.Module):
    """ResNet down to an eighth of the resolution (stem, layer1, layer2), 1x1 reduction, encoder."""

    position: Tensor

    def __init__(
        self,
        input_size: tuple[int, int],
        backbone: str,
        init: str,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        width, height = input_size
        self.stem = create_timm(backbone, init, features_only=True, out_indices=(2,))
        num_channels: int = self.stem.feature_info.channels()[0]  # type: ignore[operator,union-attr]
        self.reduce = nn.Conv2d(num_channels, embed_dim, 1, bias=False)
        self.layers = nn.ModuleList(EncoderLayer(embed_dim, num_heads, feedforward_dim, dropout) for _ in range(depth))
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.register_buffer("position", sine_position((height // 8, width // 8), embed_dim), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        features = self.reduce(self.stem(image)[0])  # (B, C, h, w)
        tokens = features.flatten(2).transpose(1, 2)  # (B, N, C)
        for layer in self.layers:
            tokens = layer(tokens, self.position)
        return tokens.transpose(1, 2).unflatten(2, features.shape[-2:])


def build_transpose(
    *,
    input_size: tuple[int, int],
    num_keypoints: int,
    presence_head: dict[str, Any] | None,
    backbone: str,
    embed_dim: int,
    depth: int,
    num_heads: int,
    feedforward_dim: int,
    dropout: float,
    decoder_channels: int,
    init: str,
) -> PoseModel:
    """TransPose-R; R-A4 is resnet50, embed_dim 256, depth 4, num_heads 8, feedforward_dim 1024, dropout 0.1."""
    encoder = TransPoseBackbone(
        input_size,
        backbone,
        init,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        feedforward_dim=feedforward_dim,
        dropout=dropout,
    )
    if init == "warmstart":
        load_warmstart(encoder, warmstart_file("transpose"))
    decoder = nn.Sequential(upsample_block(embed_dim, decoder_channels), heatmap_conv(decoder_channels, num_keypoints))
    return PoseModel(encoder, decoder, input_size, num_keypoints, presence_head)
