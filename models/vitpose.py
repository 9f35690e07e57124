"""ViTPose: a plain vision transformer and a light decoder (Xu et al., NeurIPS 2022). Letters: C channels, h w grid."""

from typing import Any

from torch import Tensor, nn

from models.decoders import DECODERS, DecoderSizes
from models.pose_model import PoseModel
from models.weights import create_timm, load_warmstart, published_tag, warmstart_file


class VitBackbone(nn.Module):
    """timm's ViT as a feature map: tokens after the last norm, without the class token."""

    def __init__(self, input_size: tuple[int, int], init: str, **sizes: Any) -> None:
        super().__init__()
        width, height = input_size
        patch_size = sizes["patch_size"]
        if width % patch_size or height % patch_size:
            raise ValueError(f"vitpose: input of {width} x {height} is not a multiple of patch_size {patch_size}")
        self.grid_shape = (height // patch_size, width // patch_size)
        # timm checks that a file fills the whole model only where the classifier stays; it goes right after.
        classes = {} if published_tag(init) else {"num_classes": 0}
        self.vit = create_timm("vit_base_patch16_224", init, img_size=(height, width), **classes, **sizes)
        self.vit.reset_classifier(0, global_pool="")  # type: ignore[operator]

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.vit.forward_features(image)  # type: ignore[operator]
        patches = tokens[:, self.vit.num_prefix_tokens :].mT  # (B, C, h*w)
        return patches.reshape(*patches.shape[:2], *self.grid_shape)  # (B, C, h, w)


def build_vitpose(
    *,
    input_size: tuple[int, int],
    num_keypoints: int,
    presence_head: dict[str, Any] | None,
    patch_size: int,
    embed_dim: int,
    depth: int,
    num_heads: int,
    drop_path: float,
    decoder: str,
    decoder_channels: int,
    init: str,
) -> PoseModel:
    """ViTPose-style model; sizes of ViTPose-B: patch 16, embed_dim 768, depth 12, num_heads 12."""
    backbone = VitBackbone(
        input_size,
        init,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        drop_path_rate=drop_path,
    )
    if init == "warmstart":
        load_warmstart(backbone, warmstart_file("vitpose"))
    sizes = DecoderSizes(embed_dim, decoder_channels, num_keypoints, patch_size)
    return PoseModel(backbone, DECODERS[decoder](sizes), input_size, num_keypoints, presence_head)
