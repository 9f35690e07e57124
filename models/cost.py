"""What a model costs: parameters, and multiply-accumulates of one image."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.pose_model import PoseModel


def count_parameters(module: nn.Module | None) -> int:
    """All of them, also those that are never trained; 0 without a module."""
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def count_macs(build: Callable[[], PoseModel], input_size: tuple[int, int]) -> int:
    """Multiply-accumulates of one forward pass of one image, of convolutions and matrix products with attention's.

    Biases, norms, activations, softmax and resizing are not counted, nor are the additions of residuals and positions;
    the decoder `bilinear16` resizes by matrix products, which are.

    Args:
        build: builds the model; here without memory behind it, so that it must not read weights.
        input_size: (w, h) in pixels.
    """
    width, height = input_size
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build().eval()
        before = counter.get_total_flops()  # a model measures its heatmaps when it is built
        model(torch.zeros(1, 3, height, width))
    return (counter.get_total_flops() - before) // 2
