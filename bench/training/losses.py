"""The two losses and their weighted sum. Letters: B batch, K keypoints, h w heatmap height and width."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.codec import Codec, encode
from bench.data.dataset import Sample
from models import PoseOutput


class LossWeights(Protocol):
    """`bench.config.LossParams` has just these."""

    @property
    def heatmap_weight(self) -> float: ...
    @property
    def heatmap_mean(self) -> str: ...
    @property
    def presence_weight(self) -> float: ...
    @property
    def absent_heatmaps(self) -> str: ...
    @property
    def weighting(self) -> str: ...


class Losses(NamedTuple):
    total: Tensor
    heatmap: Tensor
    presence: Tensor  # 0 without a presence head


def sum_of_weights(weight: Tensor) -> Tensor:
    """Of a mean over what counts."""
    return weight.sum()


def number_of_weights(weight: Tensor) -> Tensor:
    """Of a mean over everything: the published losses', where a person with few labelled keypoints counts less."""
    return weight.new_tensor(weight.numel())


HEATMAP_MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "labelled": sum_of_weights,
    "all": number_of_weights,
}
"""By what the weighted sum over keypoints is divided, given `target_weight` (B, K)."""


def heatmap_mse(heatmaps: Tensor, target: Tensor, target_weight: Tensor, divisor: Tensor) -> Tensor:
    """Squared error, mean over pixels, then weighted sum over keypoints (B, K) by a divisor of `HEATMAP_MEANS`.

    Each weight is used once: HRNet and ViTPose multiply prediction and target by it, which is the same for 0 and 1.
    With mean "all" this is ViTPose's loss, and twice that of HRNet, TransPose and SimpleBaselines.
    """
    per_keypoint = (heatmaps - target).square().mean((-2, -1))  # (B, K)
    return (per_keypoint * target_weight).sum() / divisor


def presence_bce(logits: Tensor, present: Tensor, present_weight: Tensor, divisor: Tensor) -> Tensor:
    """Binary cross-entropy on logits (B, K), weighted sum by the divisor."""
    per_keypoint = functional.binary_cross_entropy_with_logits(logits, present, reduction="none")
    return (per_keypoint * present_weight).sum() / divisor


def visibility_cross_entropy(logits: Tensor, visibility: Tensor, present_weight: Tensor, divisor: Tensor) -> Tensor:
    """Cross-entropy of COCO's three visibilities, logits (B, K, 3), weighted sum by the divisor.

    Source: Guesdon et al., VISAPP 2022. The label policy does not enter, but for which keypoints count.
    """
    # As a plain list of classifications: of more axes, the sum on a GPU depends on the order of its threads.
    per_keypoint = functional.cross_entropy(logits.flatten(0, 1), visibility.flatten(), reduction="none")
    return (per_keypoint * present_weight.flatten()).sum() / divisor


Mean = Callable[[Tensor], Tensor]
"""Of what processes have that share a batch."""


def itself(value: Tensor) -> Tensor:
    """The mean of one."""
    return value


class Targets(NamedTuple):
    """What the outputs of a batch, or of a part of one, are held against."""

    heatmaps: Tensor  # (B, K, h, w)
    weight: Tensor  # (B, K) of the heatmaps
    visibility: Tensor  # (B, K)
    present: Tensor  # (B, K)
    present_weight: Tensor  # (B, K)
    divisors: Tensor  # (2,) of the sums over heatmaps and presence, those of the whole batch; 1 where nothing counts

    @classmethod
    def of(cls, batch: Sample, codec: Codec, weights: LossWeights, mean: Mean = itself) -> Self:
        """Of a whole batch, or of one process's part of it, where `mean` is that over processes."""
        labelled = (batch.visibility > 0).float()
        heatmaps, weight = encode(batch.keypoints_input, labelled, codec)
        if weights.absent_heatmaps == "zero":
            # The target of a keypoint that is not there is an empty heatmap; "mask" leaves such heatmaps untrained.
            weight = weight + (1 - batch.present) * batch.present_weight * (1 - labelled)
        divisors = torch.stack([HEATMAP_MEANS[weights.heatmap_mean](weight), sum_of_weights(batch.present_weight)])
        divisors = mean(divisors).clamp_min(1)
        return cls(heatmaps, weight, batch.visibility, batch.present, batch.present_weight, divisors)

    def split(self, num_parts: int) -> list[Self]:
        """In parts of almost equal size, whose losses add up to that of the batch."""
        split = {name: getattr(self, name).tensor_split(num_parts) for name in self._fields if name != "divisors"}
        return [self._replace(**{name: parts[i] for name, parts in split.items()}) for i in range(num_parts)]


def pose_loss(output: PoseOutput, targets: Targets, weights: LossWeights) -> Losses:
    """Weighted sum of heatmap MSE and what a presence head is trained on."""
    of_heatmaps, of_presence = targets.divisors
    heatmap = heatmap_mse(output.heatmaps.float(), targets.heatmaps, targets.weight, of_heatmaps)
    presence = presence_loss(output, targets, of_presence)
    return Losses(weights.heatmap_weight * heatmap + weights.presence_weight * presence, heatmap, presence)


def presence_loss(output: PoseOutput, targets: Targets, divisor: Tensor) -> Tensor:
    """Cross-entropy of a three-class head, BCE of any other (the source paper's loss, on logits), 0 without a head."""
    weight = targets.present_weight
    if output.visibility_logits is not None:
        return visibility_cross_entropy(output.visibility_logits.float(), targets.visibility, weight, divisor)
    if output.presence_logits is not None:
        return presence_bce(output.presence_logits.float(), targets.present, weight, divisor)
    return weight.new_zeros(())


class FixedSum(nn.Module):
    """The sum by the weights of the parameters."""

    def forward(self, losses: Losses, share: float) -> Tensor:  # noqa: ARG002  # one signature for all
        return losses.total


class UncertaintySum(nn.Module):
    """A sum that learns its weights: heatmap / (2 v) + log(v) / 2 of a regression, presence / v + log(v) / 2 of a
    classification, each with a variance v of its own (Kendall, Gal and Cipolla, CVPR 2018, equations 7 and 10).

    Variances are those that minimise the sum on what is seen first, then they are trained: from 1, thousands of steps
    would pass before a heatmap loss of a thousandth counts.

    Args:
        mean: over the processes that share a batch, which start alike.
    """

    def __init__(self, mean: Mean = itself) -> None:
        super().__init__()
        self.mean = mean
        self.log_variances = nn.Parameter(torch.zeros(2))  # of heatmap and presence
        self.is_set = False  # no tensor: to read one at every step, a GPU would have to be waited for

    def forward(self, losses: Losses, share: float) -> Tensor:
        """Of a batch, or of a part of one that is this share of it."""
        terms = torch.stack([losses.heatmap / 2, losses.presence])
        if not self.is_set:
            with torch.no_grad():
                first = self.mean(2 * terms / share)
                self.log_variances.copy_(first.clamp_min(torch.finfo(terms.dtype).tiny).log())
            self.is_set = True
        return ((-self.log_variances).exp() * terms + share * self.log_variances / 2).sum()

    def get_extra_state(self) -> dict[str, bool]:
        return {"is_set": self.is_set}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        self.is_set = state["is_set"]


WEIGHTINGS: dict[str, Callable[[Mean], nn.Module]] = {"fixed": lambda _: FixedSum(), "uncertainty": UncertaintySum}
"""How the two losses become the one that is minimised."""
