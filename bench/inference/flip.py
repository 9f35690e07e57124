"""Mirrored outputs: pure functions, each its own inverse. Letters: B batch, K keypoints, h w heatmap size."""

from torch import Tensor

from bench.data.keypoints import flip_order
from models import PoseOutput


def flip_output(output: PoseOutput) -> PoseOutput:
    """What a model says of a mirrored image, as of the image itself: heatmaps mirrored, left and right swapped."""
    order = flip_order()
    logits = output.presence_logits
    return PoseOutput(output.heatmaps.flip(-1)[:, order], None if logits is None else logits[:, order])


def mean_output(first: PoseOutput, second: PoseOutput) -> PoseOutput:
    """Average of two outputs: heatmaps, and presence as logits."""
    logits: Tensor | None = None
    if first.presence_logits is not None and second.presence_logits is not None:
        logits = (first.presence_logits + second.presence_logits) / 2
    return PoseOutput((first.heatmaps + second.heatmaps) / 2, logits)
