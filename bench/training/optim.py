"""Optimiser and learning-rate schedule."""

import math
from collections.abc import Sequence
from typing import Protocol

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from models import PoseModel

# SimpleBaselines, HRNet and ViTPose: a tenth from epoch 170 of 210 on, a hundredth from 200 on.
STEP_EPOCHS, STEP_LENGTH, STEP_FACTOR = (170, 200), 210, 0.1
LOSS_LR_FACTOR = 10.0  # logarithms of variances have units to go while weights have hundredths


class Recipe(Protocol):
    """`bench.config.OptimParams` has these; the loop clips, the stage freezes."""

    @property
    def lr(self) -> float: ...
    @property
    def backbone_lr_factor(self) -> float: ...
    @property
    def layer_decay(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def final_lr_factor(self) -> float: ...
    @property
    def clip_norm(self) -> float | None: ...


def build_optimizer(model: PoseModel, recipe: Recipe, of_loss: Sequence[nn.Parameter] = ()) -> AdamW:
    """AdamW over what is trained, a group for each learning rate, with and without weight decay.

    With `weight_decay` 0 this is Adam, as HRNet and TransPose are trained. Decoder and head have `lr` itself; the
    backbone's layers slow down towards its input, see `lr_scale`. What the loss learns has `LOSS_LR_FACTOR` times it,
    and no decay.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((lr_scale(model, name, recipe), decays(name, parameter)), []).append(parameter)
    if of_loss:
        groups[LOSS_LR_FACTOR, False] = list(of_loss)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": recipe.lr * scale,
                "weight_decay": recipe.weight_decay if decaying else 0.0,
            }
            for (scale, decaying), parameters in groups.items()
        ],
        fused=True,  # one pass over all weights instead of one for each operation
    )


def lr_scale(model: PoseModel, name: str, recipe: Recipe) -> float:
    """Share of the learning rate that a parameter of `model.named_parameters()` has.

    backbone_lr_factor * layer_decay ** (L + 1 - layer): the last norm is not slowed, the last of L layers once, stem or
    embedding L + 1 times. Source: ViTPose (Xu et al., NeurIPS 2022), after BEiT (Bao et al., ICLR 2022).
    """
    part, _, own_name = name.partition(".")
    if part != "backbone":
        return 1.0
    backbone = model.backbone
    return recipe.backbone_lr_factor * recipe.layer_decay ** (backbone.num_layers + 1 - backbone.layer_of(own_name))


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay pulls a parameter: not norms, biases and learned positions."""
    # Norms have one axis; so do biases, but for those of a layer that holds one per keypoint.
    return parameter.ndim > 1 and not name.endswith(("bias", "pos_embed"))


def build_schedule(optimizer: AdamW, recipe: Recipe, num_steps: int) -> LambdaLR:
    """Linear warm-up over the fraction `warmup` of all steps, then one of three ways.

    constant; cosine: half a cosine down to `final_lr_factor` after the last step; step: `STEP_EPOCHS`, as shares of all
    steps.
    """
    num_warmup = round(recipe.warmup * num_steps)

    def factor(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / num_warmup
        if recipe.schedule == "constant":
            return 1.0
        if recipe.schedule == "step":
            return STEP_FACTOR ** sum(step * STEP_LENGTH >= epoch * num_steps for epoch in STEP_EPOCHS)
        done = (step - num_warmup) / max(1, num_steps - num_warmup)
        return recipe.final_lr_factor + (1 - recipe.final_lr_factor) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)
