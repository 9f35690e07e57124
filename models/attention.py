"""What tokens of a transformer read from each other. Letters: B batch, N tokens, h w their grid."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from timm.layers.attention import Attention as TimmAttention
from torch import Tensor, nn

from models.pose_model import Backbone, PoseModel
from models.transpose import TransPoseBackbone
from models.vitpose import VitBackbone


class Attention(NamedTuple):
    """Of every layer, from the first: how much each token (a row) reads from each (B, N, N), the mean of all heads."""

    layers: Sequence[Tensor]
    grid_shape: tuple[int, int]  # (h, w); tokens run along its rows

    def last_layer(self) -> Tensor:
        """(B, N, N), as TransPose shows it (Yang et al., ICCV 2021, section 3.4)."""
        return self.layers[-1]

    def rollout(self) -> Tensor:
        """(B, N, N): attention of all layers multiplied, half of each layer's input passing it by unchanged (Abnar and
        Zuidema, ACL 2020)."""
        total = torch.eye(self.layers[0].shape[-1], device=self.layers[0].device)
        for layer in self.layers:
            mixed = (layer + torch.eye(layer.shape[-1], device=layer.device)) / 2
            total = mixed @ total
        return total


def attention_of(model: PoseModel, image: Tensor) -> Attention | None:
    """What the model's backbone attends to in images (B, 3, H, W); None for one without attention."""
    record = RECORDERS.get(type(model.backbone))
    if record is None:
        return None
    with torch.no_grad(), record(model.backbone) as layers:
        features = model.backbone(model.normalise(image))
    return Attention([layer.float() for layer in layers], (features.shape[-2], features.shape[-1]))


@contextmanager
def record_vit(backbone: VitBackbone) -> Iterator[list[Tensor]]:
    """The attention of every block while the context is open; fused attention, which never forms it, is off."""
    found: list[Tensor] = []
    with ExitStack() as undo:
        attentions: list[Any] = [part for part in backbone.modules() if isinstance(part, TimmAttention)]
        for attention in attentions:
            undo.callback(setattr, attention, "fused_attn", attention.fused_attn)
            attention.fused_attn = False
            handle = attention.attn_drop.register_forward_hook(lambda *call: found.append(call[-1].mean(dim=1)))
            undo.callback(handle.remove)
        yield found


@contextmanager
def record_transpose(backbone: TransPoseBackbone) -> Iterator[list[Tensor]]:
    """The same of every encoder layer."""
    found: list[Tensor] = []
    with ExitStack() as undo:
        for layer in backbone.layers:
            attention = layer.get_submodule("attention")
            undo.callback(attention.register_forward_pre_hook(_want_weights, with_kwargs=True).remove)
            undo.callback(attention.register_forward_hook(lambda *call: found.append(call[-1][1])).remove)
        yield found


def _want_weights(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG001
    return args, kwargs | {"need_weights": True}


RECORDERS: dict[type[Backbone], Callable[..., Any]] = {
    VitBackbone: record_vit,
    TransPoseBackbone: record_transpose,
}
