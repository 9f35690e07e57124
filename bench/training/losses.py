"""The two losses and their weighted sum. Letters: B batch, K keypoints, h w heatmap height and width."""

from typing import NamedTuple, Protocol

from torch import Tensor
from torch.nn import functional

from bench.data.codec import Codec, encode
from bench.data.dataset import Sample
from models import PoseOutput


class LossWeights(Protocol):
    """`bench.config.LossParams` has just these."""

    @property
    def heatmap_weight(self) -> float: ...
    @property
    def presence_weight(self) -> float: ...
    @property
    def absent_heatmaps(self) -> str: ...


class Losses(NamedTuple):
    total: Tensor
    heatmap: Tensor
    presence: Tensor  # 0 without a presence head


def heatmap_mse(heatmaps: Tensor, target: Tensor, target_weight: Tensor) -> Tensor:
    """Squared error, mean over pixels, then over keypoints by `target_weight` (B, K), each weight used once.

    HRNet's published loss multiplies prediction and target by the weight, which squares it, and halves the sum.
    """
    per_keypoint = (heatmaps - target).square().mean((-2, -1))  # (B, K)
    return (per_keypoint * target_weight).sum() / target_weight.sum().clamp_min(1)


def presence_bce(logits: Tensor, present: Tensor, present_weight: Tensor) -> Tensor:
    """Binary cross-entropy on logits (B, K), mean over the keypoints whose label counts."""
    per_keypoint = functional.binary_cross_entropy_with_logits(logits, present, reduction="none")
    return (per_keypoint * present_weight).sum() / present_weight.sum().clamp_min(1)


def pose_loss(output: PoseOutput, batch: Sample, codec: Codec, weights: LossWeights) -> Losses:
    """Weighted sum of heatmap MSE and presence BCE (the source paper's loss, on logits)."""
    target, target_weight = encode(batch.keypoints_input, batch.labelled, codec)
    if weights.absent_heatmaps == "zero":
        # The target of a keypoint that is not there is an empty heatmap; "mask" leaves such heatmaps untrained.
        absent = (1 - batch.present) * batch.present_weight * (1 - batch.labelled)
        target_weight = target_weight + absent
    heatmap = heatmap_mse(output.heatmaps.float(), target, target_weight)
    presence = heatmap.new_zeros(())
    if output.presence_logits is not None:
        presence = presence_bce(output.presence_logits.float(), batch.present, batch.present_weight)
    return Losses(weights.heatmap_weight * heatmap + weights.presence_weight * presence, heatmap, presence)
