"""ViTPose: a plain vision transformer and a light decoder (Xu et al., NeurIPS 2022).

Letters: B batch, C channels, H W input height and width, h w grid of patches, N = h*w.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from models.building import require_multiple
from models.decoders import DECODERS, DecoderSizes
from models.pose_model import Backbone, PoseModel
from models.weights import load_init


class PatchTransformer(VisionTransformer):
    """timm's ViT with patches as its only tokens.

    Its position embedding keeps the row of the class token, as in ViTPose: every patch gets that row too.
    """

    def __init__(self, *, num_patches: int, embed_dim: int, patch_padding: int, **sizes: Any) -> None:
        super().__init__(embed_dim=embed_dim, class_token=False, global_pool="", num_classes=0, **sizes)
        self.patch_embed.proj.padding = (patch_padding, patch_padding)
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + num_patches, embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def _pos_embed(self, x: Tensor) -> Tensor:
        assert self.pos_embed is not None
        return x + self.pos_embed[:, 1:] + self.pos_embed[:, :1]  # (B, N, C)


class VitBackbone(Backbone):
    """Image to the tokens after the last norm, as a map (B, C, h, w).

    Args:
        input_size: (w, h) in pixels.
        patch_size: side of a patch.
        patch_padding: zeros around the image before it is cut into patches, fewer than half a patch.
        embed_dim: C.
        depth: number of blocks.
        num_heads: of the attention.
        drop_path: rate of the last block; it grows linearly from 0.

    Raises:
        ValueError: patches do not fill the input, or the padding makes room for more of them.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        *,
        patch_size: int,
        patch_padding: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        require_multiple("vitpose", input_size, patch_size, "patch_size")
        if 2 * patch_padding >= patch_size:
            raise ValueError(
                f"vitpose: found patch_padding {patch_padding}, wanted less than half of patch_size {patch_size}"
            )
        width, height = input_size
        self.num_channels, self.num_layers = embed_dim, depth
        self.grid_shape = (height // patch_size, width // patch_size)
        self.vit = PatchTransformer(
            num_patches=self.grid_shape[0] * self.grid_shape[1],
            embed_dim=embed_dim,
            patch_padding=patch_padding,
            img_size=(height, width),
            patch_size=patch_size,
            depth=depth,
            num_heads=num_heads,
            drop_path_rate=drop_path,
        )

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.vit.forward_features(image)  # (B, N, C)
        return tokens.mT.reshape(len(tokens), self.num_channels, *self.grid_shape)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.vit.blocks)

    def layer_of(self, name: str) -> int:
        """0 patch and position embedding, 1..L blocks, L + 1 the last norm."""
        if block := re.match(r"vit\.blocks\.(\d+)\.", name):
            return int(block[1]) + 1
        return self.num_layers + 1 if name.startswith("vit.norm.") else 0


def build_vitpose(
    *,
    input_size: tuple[int, int],
    num_keypoints: int,
    presence_head: dict[str, Any] | None,
    normalisation: str,
    patch_size: int,
    patch_padding: int,
    embed_dim: int,
    depth: int,
    num_heads: int,
    drop_path: float,
    decoder: str,
    decoder_channels: int | None,
    init: str,
) -> PoseModel:
    """ViTPose; sizes of ViTPose-B: patch 16, patch_padding 2, embed_dim 768, depth 12, num_heads 12, drop_path 0.3."""
    backbone = VitBackbone(
        input_size,
        patch_size=patch_size,
        patch_padding=patch_padding,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        drop_path=drop_path,
    )
    model = PoseModel(
        backbone,
        DECODERS[decoder](DecoderSizes(embed_dim, decoder_channels, num_keypoints, patch_size)),
        input_size=input_size,
        num_keypoints=num_keypoints,
        normalisation=normalisation,
        presence_head=presence_head,
    )
    load_init(backbone, "vitpose", init, normalisation)
    return model
