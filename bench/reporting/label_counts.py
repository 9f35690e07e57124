"""How many keypoints of a split are present and absent: what numbers of presence stand on.

Letters: K keypoints.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyarrow.parquet import read_schema

from bench.data.parquet import UNREADABLE
from bench.data.predictions import read_split
from bench.data.presence import POLICIES
from bench.errors import UserError
from bench.metrics.bootstrap import MIN_KEYPOINTS


class LabelCount(NamedTuple):
    """How many keypoints of a split are what under a policy, by keypoint (K,)."""

    present: NDArray[np.int64]
    absent: NDArray[np.int64]
    ignored: NDArray[np.int64]

    @property
    def num_rarer(self) -> int:
        return int(min(self.present.sum(), self.absent.sum()))

    @property
    def is_scarce(self) -> bool:
        """Whether one class is too small to judge by."""
        return self.num_rarer < MIN_KEYPOINTS

    def cells(self) -> dict[str, int]:
        """Of a line of a table."""
        return {"absent": int(self.absent.sum()), "present": int(self.present.sum())}


def count_labels(predictions: Path, name: str) -> dict[str, LabelCount]:
    """Of a split, under every policy that predictions carry.

    Raises:
        UserError: see `bench.data.predictions.read_split`.
    """
    counts = {}
    for policy in policies_in(predictions):
        split = read_split(predictions, name, policy)
        counted = split.present_weight > 0
        classes = (counted & split.present, counted & ~split.present, ~counted)
        counts[policy] = LabelCount(*(found.sum(axis=0) for found in classes))
    return counts


def policies_in(predictions: Path) -> list[str]:
    """Raises:
    UserError: no readable predictions.
    """
    try:
        columns = set(read_schema(predictions).names)
    except UNREADABLE as error:
        again = f"run `dvc repro predict@{predictions.stem}`"
        raise UserError(f"{predictions}: no readable predictions ({str(error).splitlines()[0]}): {again}") from error
    return [policy for policy in POLICIES if f"present_{policy}" in columns]
