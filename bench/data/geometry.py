"""The top-down crop: from a person's box to input pixels and back.

Two geometries. Aligned (UDP, Huang et al., CVPR 2020): lengths are counted between pixel centres, so an input of w
pixels spans w - 1 units and mirroring is exact. Else HRNet's: it spans w, and a mirrored crop is off by one pixel.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class View(NamedTuple):
    """What of the image a crop shows.

    `center` and `scale` (w, h) in image pixels, `rotation` in degrees, clockwise. `shown` (w, h) in image pixels is the
    part around the centre, before rotation, outside of which all is black; None for no such bounds.
    """

    center: Floats
    scale: Floats
    rotation: float = 0.0
    flip: bool = False
    shown: Floats | None = None


class Crop(NamedTuple):
    """How persons are cropped.

    `input_size` (w, h) in pixels; `bbox_padding` widens the box on all sides; `fit` gives it the input's shape
    (`FITS`); `aligned` counts lengths between pixel centres, as the codec does.
    """

    input_size: tuple[int, int]
    bbox_padding: float
    fit: str
    aligned: bool


def bbox_to_view(bbox: Floats, input_size: tuple[int, int], padding: float, fit: str = "extend") -> View:
    """The box (x, y, w, h), padded on all sides and fitted to the aspect ratio of the input (`FITS`)."""
    x, y, width, height = bbox
    view = View(np.array([x + width / 2, y + height / 2]), np.array([width, height]) * padding)
    return FITS[fit](view, input_size[0] / input_size[1])


def _extend(view: View, aspect: float) -> View:
    width, height = view.scale
    return view._replace(scale=np.array([max(width, height * aspect), max(height, width / aspect)]))


def _letterbox(view: View, aspect: float) -> View:
    return _extend(view, aspect)._replace(shown=view.scale)


def _stretch(view: View, aspect: float) -> View:  # noqa: ARG001  # one signature for all fits
    return view


FITS: dict[str, Callable[[View, float], View]] = {"extend": _extend, "letterbox": _letterbox, "stretch": _stretch}
"""How a box gets the input's shape: more of the image around it, black around it, or its own aspect given up."""


def crop_matrix(view: View, input_size: tuple[int, int], aligned: bool = True) -> Floats:
    """Affine map (2, 3) from image pixels to input pixels."""
    less = 1.0 if aligned else 0.0
    width, height = input_size[0] - less, input_size[1] - less
    zoom_x, zoom_y = width / view.scale[0], height / view.scale[1]
    mirrored = -zoom_x if view.flip else zoom_x
    angle = np.deg2rad(view.rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[mirrored * cos, -mirrored * sin, width / 2], [zoom_y * sin, zoom_y * cos, height / 2]])
    matrix[:, 2] -= matrix[:, :2] @ view.center
    return matrix


def bounds(view: View) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 in image pixels of what a view shows, turned as it is."""
    angle = np.deg2rad(view.rotation)
    cos, sin = abs(np.cos(angle)), abs(np.sin(angle))
    (x, y), (width, height) = view.center.tolist(), view.scale.tolist()
    across, down = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return x - across, y - down, x + across, y + down


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


def warp_view(image: NDArray[np.uint8], view: View, matrix: Floats, input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """The crop (H, W, 3) of a view under its `crop_matrix`; what the view does not show is black too."""
    if view.shown is None:
        return warp_image(image, matrix, input_size)
    height, width = image.shape[:2]
    left, top = np.ceil(np.maximum(view.center - view.shown / 2, 0)).astype(int)
    right, bottom = np.floor(np.minimum(view.center + view.shown / 2, [width - 1, height - 1])).astype(int)
    if right < left or bottom < top:
        return np.zeros((input_size[1], input_size[0], 3), dtype=np.uint8)
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.array([left, top])
    return warp_image(image[top : bottom + 1, left : right + 1], moved, input_size)


def inside(points: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points (..., 2) lie on a picture of `size` (w, h), pixel centres counted from 0."""
    within: NDArray[np.bool_] = np.all((points > -0.5) & (points < np.array(size) - 0.5), axis=-1)
    return within


def in_shown(points: Floats, view: View) -> NDArray[np.bool_]:
    """Which points (..., 2) of the image lie in the part that a view shows."""
    if view.shown is None:
        return np.ones(points.shape[:-1], dtype=bool)
    within: NDArray[np.bool_] = np.all(np.abs(points - view.center) <= view.shown / 2, axis=-1)
    return within
