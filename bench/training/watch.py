"""A look at the losses of a training, now and then."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError

LOOK_EVERY = 32
"""Steps. A GPU that is asked at every one stands still meanwhile; so few lose seconds of a lost training."""


class Watch:
    """The numbers of an epoch's steps, left on the device and looked at every few steps and at the end.

    Args:
        epoch: for messages.
        look_every: steps.
        seen: minimised loss, heatmap loss and presence loss of the epoch's steps before.
    """

    def __init__(self, epoch: int, look_every: int, seen: Sequence[list[float]] = ()) -> None:
        self.epoch, self.look_every = epoch, look_every
        self.seen = list(seen)
        self.unseen: list[Tensor] = []

    def add(self, numbers: Tensor) -> None:
        """Minimised loss, heatmap loss, presence loss and norm of the gradients (4,) of the next step.

        Raises:
            UserError: as `look`.
        """
        self.unseen.append(numbers.detach())
        if len(self.unseen) == self.look_every:
            self.look()

    def look(self) -> None:
        """Raises:
        UserError: a loss or a norm that was not finite since the last look.
        """
        numbers = torch.stack(self.unseen).tolist() if self.unseen else []
        self.unseen = []
        for total, heatmap, presence, norm in numbers:
            self.seen.append([total, heatmap, presence])
            where = f"epoch {self.epoch}, step {len(self.seen)}"
            require_finite(total, f"{where}: the loss is {total} (heatmap {heatmap}, presence {presence})")
            require_finite(norm, f"{where}: the norm of the gradients is {norm} at a loss of {total}")

    def means(self) -> dict[str, float]:
        """Of every loss over the epoch.

        Raises:
            UserError: as `look`.
        """
        self.look()
        means = np.mean(self.seen, axis=0).tolist()
        return dict(zip(("train_loss", "train_heatmap_loss", "train_presence_loss"), means, strict=True))


def require_finite(value: float, finding: str) -> None:
    """Stop a training that has diverged."""
    if not math.isfinite(value):
        raise UserError(f"{finding}, wanted a finite number: lower base.optim.lr or the weights of base.loss")
