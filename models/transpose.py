"""TransPose: a convolutional stem and a transformer encoder (Yang et al., ICCV 2021).

TransPose-R: ResNet down to an eighth of the resolution, one deconvolution after the encoder. TransPose-H: HRNet up to
its third stage at a quarter of the resolution, none.

Letters: B batch, C channels, H W input height and width, h w feature height and width, N = h*w tokens.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.building import create_features, num_channels_of, require_multiple
from models.decoders import heatmap_conv, upsample_block
from models.hrnet import STRIDE_OF_STAGE, create_stages
from models.pose_model import Backbone, PoseModel
from models.weights import load_init

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


class TransPoseBackbone(Backbone):
    """Image to the encoder's tokens as a map (B, C, h, w): stem, 1x1 reduction to C channels, encoder.

    Args:
        input_size: (w, h) in pixels.
        backbone: a timm name: a ResNet for TransPose-R, an HRNet for TransPose-H.
        embed_dim: C.
        depth: number of encoder layers.
        num_heads: of the attention.
        feedforward_dim: width of a layer's hidden units.
        dropout: rate in the encoder.

    Raises:
        ValueError: the stem's strides do not divide the input, or timm has no such stem.
    """

    memory_format = torch.channels_last

    def __init__(
        self,
        input_size: tuple[int, int],
        backbone: str,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_channels, self.num_layers = embed_dim, depth
        stride = 4 if is_hrnet(backbone) else 8
        coarsest = STRIDE_OF_STAGE[3] if is_hrnet(backbone) else stride
        require_multiple("transpose", input_size, coarsest, "stride")
        self.stem = create_stages(backbone, 3) if is_hrnet(backbone) else create_features(backbone, out_index=2)
        self.reduce = nn.Conv2d(num_channels_of(self.stem), embed_dim, 1, bias=False)
        self.layers = nn.ModuleList(EncoderLayer(embed_dim, num_heads, feedforward_dim, dropout) for _ in range(depth))
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        width, height = input_size
        position = sine_position((height // stride, width // stride), embed_dim)
        # Fixed, and yet a parameter: the published files and numbers of parameters have it.
        self.position = nn.Parameter(position, requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        features = self.reduce(self.stem(image)[0])  # (B, C, h, w)
        tokens = features.flatten(2).transpose(1, 2)  # (B, N, C)
        for layer in self.layers:
            tokens = layer(tokens, self.position)
        return tokens.transpose(1, 2).unflatten(2, features.shape[-2:])

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def layer_of(self, name: str) -> int:
        """0 stem, reduction and position, 1..L encoder layers."""
        layer = re.match(r"layers\.(\d+)\.", name)
        return int(layer[1]) + 1 if layer else 0


def is_hrnet(backbone: str) -> bool:
    """Whether the stem is TransPose-H's, else it is TransPose-R's."""
    return backbone.startswith("hrnet_")


def build_decoder(backbone: str, embed_dim: int, decoder_channels: int | None, num_keypoints: int) -> nn.Module:
    """R: one deconvolution block and a 1x1 convolution; H: the convolution alone.

    Raises:
        ValueError: channels of a deconvolution for H, or none for R.
    """
    if is_hrnet(backbone) != (decoder_channels is None):
        wanted = "None, it has no deconvolution" if is_hrnet(backbone) else "a number"
        raise ValueError(f"transpose on {backbone}: found decoder_channels {decoder_channels}, wanted {wanted}")
    if decoder_channels is None:
        return heatmap_conv(embed_dim, num_keypoints)
    upsample = upsample_block(embed_dim, decoder_channels)
    upsample.get_submodule("0").reset_parameters()  # type: ignore[operator]  # published so: only the last starts near 0
    return nn.Sequential(upsample, heatmap_conv(decoder_channels, num_keypoints))


def build_transpose(
    *,
    input_size: tuple[int, int],
    num_keypoints: int,
    presence_head: dict[str, Any] | None,
    normalisation: str,
    backbone: str,
    embed_dim: int,
    depth: int,
    num_heads: int,
    feedforward_dim: int,
    dropout: float,
    decoder_channels: int | None,
    init: str,
) -> PoseModel:
    """TransPose; R-A4 is resnet50, embed_dim 256, depth 4, num_heads 8, feedforward_dim 1024, dropout 0.1."""
    decoder = build_decoder(backbone, embed_dim, decoder_channels, num_keypoints)
    encoder = TransPoseBackbone(
        input_size,
        backbone,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        feedforward_dim=feedforward_dim,
        dropout=dropout,
    )
    model = PoseModel(
        encoder,
        decoder,
        input_size=input_size,
        num_keypoints=num_keypoints,
        normalisation=normalisation,
        presence_head=presence_head,
    )
    load_init(encoder, "transpose", init, normalisation)
    return model
