"""Optimiser and learning-rate schedule."""

import math
from typing import Protocol

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


class Recipe(Protocol):
    """`bench.config.OptimParams` has just these, and the clip that the loop applies."""

    @property
    def lr(self) -> float: ...
    @property
    def backbone_lr_factor(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def clip_norm(self) -> float: ...


def build_optimizer(model: nn.Module, backbone: nn.Module, recipe: Recipe) -> AdamW:
    """AdamW in four groups: backbone or fresh layers, with weight decay or (biases, norms) without."""
    in_backbone = {id(parameter) for parameter in backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        # Norms have one axis; so do biases, but for those of a layer that holds one per keypoint.
        decays = parameter.ndim > 1 and not name.endswith("bias")
        groups.setdefault((id(parameter) in in_backbone, decays), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": recipe.lr * (recipe.backbone_lr_factor if pretrained else 1.0),
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
            for (pretrained, decays), parameters in groups.items()
        ]
    )


def build_schedule(optimizer: AdamW, recipe: Recipe, num_steps: int) -> LambdaLR:
    """Linear warm-up over the fraction `warmup` of all steps, then constant or a half cosine to zero."""
    num_warmup = max(1, round(recipe.warmup * num_steps))

    def factor(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / num_warmup
        if recipe.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup))) / 2

    return LambdaLR(optimizer, factor)
