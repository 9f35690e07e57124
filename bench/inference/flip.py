"""Mirrored outputs, as pure functions. Letters: B batch, K keypoints, h w heatmap size."""

import torch
from torch import Tensor

from bench.data.keypoints import flip_order
from models import PoseOutput


def flip_output(output: PoseOutput, *, shift: bool) -> PoseOutput:
    """What a model says of a mirrored image, as of the image itself: heatmaps mirrored, left and right swapped.

    `shift` then moves the heatmaps to the right by one pixel and repeats their first column (HRNet's SHIFT_HEATMAP):
    where lengths are not counted between pixel centres, a mirrored heatmap lies too far left by most of a pixel.
    """
    order = flip_order()
    heatmaps = output.heatmaps.flip(-1)[:, order]
    if shift:
        heatmaps = torch.cat([heatmaps[..., :1], heatmaps[..., :-1]], dim=-1)
    presence, visibility = output.presence_logits, output.visibility_logits
    return PoseOutput(
        heatmaps, None if presence is None else presence[:, order], None if visibility is None else visibility[:, order]
    )


def mean_output(first: PoseOutput, second: PoseOutput) -> PoseOutput:
    """Average of two outputs: heatmaps, and presence and visibility as logits."""
    return PoseOutput(
        (first.heatmaps + second.heatmaps) / 2,
        _mean(first.presence_logits, second.presence_logits),
        _mean(first.visibility_logits, second.visibility_logits),
    )


def _mean(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else (first + second) / 2
