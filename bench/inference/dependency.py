"""What a keypoint of one person depends on, as maps over the input, and what is left of it where cells are spoiled.

Letters: Q keypoints that are asked about, K keypoints, H W input height and width, N tokens, h w grid of cells.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench.data.dependencies import GRADIENT, LAST_LAYER, NEARNESS, PRESENCE_GRADIENT, RANDOM, ROLLOUT
from bench.data.geometry import Floats
from models import PoseModel, PoseOutput
from models.attention import Attention, attention_of


class Asked(NamedTuple):
    """Keypoints of one person: the picture (3, H, W) uint8, the keypoints (Q,) and where the model puts them on the
    whole picture (Q, 2), input pixels."""

    image: Tensor
    keypoints: NDArray[np.int64]
    points: Floats


def dependency_maps(model: PoseModel, asked: Asked, cell: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Maps (Q, h, w), higher where more depends on a cell: those of `bench.data.dependencies.MAPS` that a model has."""
    grid_shape = (asked.image.shape[1] // cell, asked.image.shape[2] // cell)
    found: dict[str, Floats] = {}
    attention = attention_of(model, asked.image[None])
    if attention is not None:
        found[LAST_LAYER] = _read_from(attention.last_layer(), attention, asked, grid_shape)
        found[ROLLOUT] = _read_from(attention.rollout(), attention, asked, grid_shape)
    found[GRADIENT] = _gradients(model, asked, cell, of_presence=False)
    if model.presence_head is not None:
        found[PRESENCE_GRADIENT] = _gradients(model, asked, cell, of_presence=True)
    found[NEARNESS] = _nearness(asked.points, grid_shape, cell)
    found[RANDOM] = rng.random(found[NEARNESS].shape)
    return found


def _read_from(matrix: Tensor, attention: Attention, asked: Asked, grid_shape: tuple[int, int]) -> Floats:
    """The rows (Q, h, w) of an attention matrix (1, N, N) at the tokens where the keypoints are."""
    _, height, width = asked.image.shape
    rows, columns = attention.grid_shape
    column = np.clip((asked.points[:, 0] + 0.5) * columns / width, 0, columns - 1).astype(np.int64)
    row = np.clip((asked.points[:, 1] + 0.5) * rows / height, 0, rows - 1).astype(np.int64)
    read = matrix[0, torch.from_numpy(row * columns + column).to(matrix.device)]
    cells = functional.adaptive_avg_pool2d(read.reshape(1, len(read), *attention.grid_shape), grid_shape)[0]
    return cells.double().cpu().numpy()


def _gradients(model: PoseModel, asked: Asked, cell: int, *, of_presence: bool) -> Floats:
    """How much (Q, h, w) a keypoint's peak, or its presence logit, changes with the pixels of each cell.

    Absolute gradients, summed over colours and pixels (Simonyan et al., ICLR workshop 2014).
    """
    images = asked.image.float().expand(len(asked.keypoints), -1, -1, -1).clone().requires_grad_()
    keypoints = torch.from_numpy(asked.keypoints).to(images.device)
    with torch.enable_grad():
        output: PoseOutput = model(images)
        values = output.presence_logits if of_presence else output.heatmaps.flatten(2).max(-1).values
        assert values is not None, "only a model with a head is asked for the gradient of presence"
        total = values.gather(1, keypoints[:, None]).sum()
        (gradient,) = torch.autograd.grad(total, images)
    sums = functional.avg_pool2d(gradient.abs().sum(1), cell) * cell**2
    return sums.double().cpu().numpy()


def _nearness(points: Floats, grid_shape: tuple[int, int], cell: int) -> Floats:
    rows, columns = np.indices(grid_shape) * cell + (cell - 1) / 2  # centres of cells
    away = np.hypot(columns - points[:, 0, None, None], rows - points[:, 1, None, None])
    return -away


def blurred(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """A picture (H, W, 3) as spoiled cells show it: so blurred that places and colours are left, and no shapes."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), dtype=np.uint8)


def spoil(image: Tensor, spoiled: Tensor, kept: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) that show `image` in the cells `kept` (B, h, w) and `spoiled` elsewhere, (3, H, W) each."""
    cell = image.shape[1] // kept.shape[1]
    pixels = kept.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None]
    return torch.where(pixels, image, spoiled)
