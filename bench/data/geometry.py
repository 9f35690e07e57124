"""The top-down crop: from a person's box to input pixels and back.

Unbiased geometry (UDP, Huang et al., CVPR 2020): lengths are counted between pixel centres, so an input of w pixels
spans w - 1 units and mirroring is exact.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class View(NamedTuple):
    """What of the image a crop shows. `center` and `scale` (w, h) in image pixels, `rotation` in degrees, clockwise."""

    center: Floats
    scale: Floats
    rotation: float = 0.0
    flip: bool = False


def bbox_to_view(bbox: Floats, input_size: tuple[int, int], padding: float) -> View:
    """The box (x, y, w, h), widened to the aspect ratio of the input and padded on all sides."""
    x, y, width, height = bbox
    aspect = input_size[0] / input_size[1]
    scale = np.array([max(width, height * aspect), max(height, width / aspect)]) * padding
    return View(np.array([x + width / 2, y + height / 2]), scale)


def crop_matrix(view: View, input_size: tuple[int, int]) -> Floats:
    """Affine map (2, 3) from image pixels to input pixels."""
    extent = np.array(input_size) - 1.0
    zoom = extent / view.scale
    angle = np.deg2rad(view.rotation)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.diag([-1.0, 1.0]) if view.flip else np.eye(2)
    linear = np.diag(zoom) @ mirror @ rotate
    shift = extent / 2 - linear @ view.center
    return np.column_stack([linear, shift])


def invert(matrix: Floats) -> Floats:
    """Inverse of an affine map (..., 2, 3)."""
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def warp_points(points: Floats, matrix: Floats) -> Floats:
    """Points (..., K, 2) under an affine map (..., 2, 3)."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def warp_image(image: NDArray[np.uint8], matrix: Floats, input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """The crop (H, W, 3) of an image, bilinear; what lies outside the image is black."""
    return np.asarray(cv2.warpAffine(image, matrix, input_size, flags=cv2.INTER_LINEAR), dtype=np.uint8)


def inside(points: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points (..., 2) lie on a picture of `size` (w, h), pixel centres counted from 0."""
    within: NDArray[np.bool_] = np.all((points > -0.5) & (points < np.array(size) - 0.5), axis=-1)
    return within
