"""The dependency file: maps of what keypoints depend on, and what was left of each keypoint as cells were spoiled.

Letters: Q questions (a labelled keypoint of a person), M maps, S shares between 0 and 1, h w grid of cells.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.arrays import read_arrays, write_arrays
from bench.data.geometry import Floats

LAST_LAYER, ROLLOUT = "last_layer", "rollout"
GRADIENT, PRESENCE_GRADIENT = "gradient", "presence_gradient"
NEARNESS, RANDOM = "nearness", "random"
MAPS = {
    LAST_LAYER: "attention of the last layer",
    ROLLOUT: "attention rollout",
    GRADIENT: "gradient of the peak",
    PRESENCE_GRADIENT: "gradient of presence",
    NEARNESS: "nearness (floor)",
    RANDOM: "random (floor)",
}
"""Every map, as pages name it."""
FLOORS = (NEARNESS, RANDOM)
"""They look at no picture: how near a cell is to the keypoint, and nothing at all."""


class Dependencies(NamedTuple):
    """What one run was asked. Curves run over the shares 0, `shares`, 1; deletion, then insertion."""

    image_ids: NDArray[np.int64]  # (Q,)
    annotation_ids: NDArray[np.int64]  # (Q,)
    keypoint: NDArray[np.int64]  # (Q,)
    matrix: Floats  # (Q, 2, 3) image pixels to input pixels
    points: Floats  # (Q, 2) where the keypoint is put on the whole picture, input pixels
    input_size: NDArray[np.int64]  # (2,) (w, h)
    names: NDArray[np.str_]  # (M,) of the maps, see `MAPS`
    maps: Floats  # (Q, M, h, w)
    shares: Floats  # (S,)
    similarity: Floats  # (Q, M, 2, S + 2) with `points`, the term of OKS
    presence: Floats  # (Q, M, 2, S + 2) of the head, a probability, else the heatmap peak


def write_dependencies(file: Path, dependencies: Dependencies) -> None:
    """Write whole or not at all."""
    write_arrays(file, dependencies._asdict())


def read_dependencies(file: Path) -> Dependencies:
    """Raises:
    UserError: the file is missing or broken, or is not such a file.
    """
    return Dependencies(**read_arrays(file, Dependencies._fields, "dependency maps", "dependency"))
