"""The common shape of all systems: normalisation, backbone, decoder, and a presence head or none.

Letters: B batch, K keypoints, C channels, H W input height and width, h w heatmap, h' w' feature map.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from models.output import PoseOutput
from models.presence_heads import HeadShapes, PresenceHead, build_head

Rgb = tuple[float, float, float]


class Normalisation(NamedTuple):
    """Of pixel values between 0 and 1: minus the mean, over the standard deviation."""

    mean: Rgb
    std: Rgb


NORMALISATIONS: dict[str, Normalisation] = {
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""By name, as the first weights were trained with: ImageNet's statistics, or [0, 1] onto [-1, 1]."""


class Backbone(nn.Module):
    """Normalised image (B, 3, H, W) to features (B, C, h', w'), in layers that can be frozen and slowed one by one."""

    num_channels: int  # C
    num_layers: int  # L
    memory_format = torch.contiguous_format  # of weights (and so of what convolutions make) that measured fastest

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Its modules with most of the weights, called one after the other."""
        raise NotImplementedError

    def layer_of(self, name: str) -> int:
        """Where a name of its state dict belongs: 0 stem or embedding, 1..L layers, L + 1 what follows them."""
        raise NotImplementedError


class PoseModel(nn.Module):
    """Image to `PoseOutput`. `backbone` is what first weights fill; the rest starts fresh.

    Args:
        backbone: normalised image to features.
        decoder: features to heatmaps (B, K, h, w).
        input_size: (w, h) in pixels.
        num_keypoints: K.
        normalisation: of the pixels, a name of `NORMALISATIONS`.
        presence_head: type and sizes of a head (`models.presence_heads.build_head`), or None.

    Attributes:
        heatmap_size: (w, h) of the heatmaps.

    Raises:
        ValueError: no such normalisation, or a head that does not fit.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        decoder: nn.Module,
        *,
        input_size: tuple[int, int],
        num_keypoints: int,
        normalisation: str,
        presence_head: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation: found {normalisation!r}, wanted {' or '.join(NORMALISATIONS)}")
        mean, std = NORMALISATIONS[normalisation]
        self.register_buffer("pixel_mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(std)[:, None, None], persistent=False)
        self.backbone = backbone
        self.decoder = decoder
        self._learnable = {name for name, value in backbone.named_parameters() if value.requires_grad}
        self._frozen: list[nn.Module] = []
        self.heatmap_size = self._measure(input_size)
        self.presence_head: PresenceHead | None = None
        if presence_head is not None:
            shapes = HeadShapes(num_keypoints, self.heatmap_size, backbone.num_channels)
            self.presence_head = build_head(shapes, **presence_head)
        self.to(memory_format=backbone.memory_format)

    @torch.no_grad()
    def _measure(self, input_size: tuple[int, int]) -> tuple[int, int]:
        """Size (w, h) of the heatmaps, from one empty image in evaluation mode (no statistics are touched)."""
        width, height = input_size
        self.eval()
        heatmaps = self.decoder(self.backbone(torch.zeros(1, 3, height, width)))
        self.train()
        return heatmaps.shape[-1], heatmaps.shape[-2]

    def normalise(self, image: Tensor) -> Tensor:
        """RGB (B, 3, H, W), uint8 or float with values of 0 to 255, to what the backbone was trained with."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"image: found shape {tuple(image.shape)}, wanted (B, 3, H, W)")
        return (image - self.pixel_mean) / self.pixel_std

    def forward(self, image: Tensor) -> PoseOutput:
        """RGB (B, 3, H, W), uint8 or float with values of 0 to 255."""
        features = self.backbone(self.normalise(image))
        head = self.presence_head
        if head is None:
            return PoseOutput(self.decoder(features), None)
        features = head.feature_dropout(features)
        heatmaps = self.decoder(features)
        return PoseOutput(heatmaps, *head(heatmaps if head.reads == "heatmaps" else features))

    def freeze(self, trainable_layers: int | Literal["all"]) -> None:
        """Leave the last layers of the backbone, and what follows them, to training; 0 leaves nothing of it.

        What is frozen gets no gradient and stays in evaluation mode: its batch statistics stand still and nothing is
        dropped. Decoder and head are trained always.

        Raises:
            ValueError: the backbone has fewer layers.
        """
        num_layers = self.backbone.num_layers
        if trainable_layers != "all" and not 0 <= trainable_layers <= num_layers:
            raise ValueError(f"found {trainable_layers}, wanted all or 0 to {num_layers} layers, as the backbone has")
        frozen = self._names_to_freeze(trainable_layers)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name in self._learnable and name not in frozen)
        parts = self.backbone.named_modules()
        self._frozen = [part for prefix, part in parts if _is_within(prefix, part, frozen)]
        self.train(self.training)

    def _names_to_freeze(self, trainable_layers: int | Literal["all"]) -> set[str]:
        """Names of the backbone's state dict."""
        names = set(self.backbone.state_dict())
        if trainable_layers == "all":
            return set()
        if trainable_layers == 0:
            return names
        last_frozen = self.backbone.num_layers - trainable_layers
        return {name for name in names if self.backbone.layer_of(name) <= last_frozen}

    def train(self, mode: bool = True) -> Self:
        """As every module's, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def _is_within(prefix: str, module: nn.Module, names: set[str]) -> bool:
    """Whether a module has a state, all of it among `names`; its own parts that have none go with it."""
    own = [f"{prefix}.{name}" if prefix else name for name in module.state_dict()]
    return bool(own) and names.issuperset(own)
