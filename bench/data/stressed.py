"""The stress file: what a run says of truncated persons (`bench.data.truncation`), and the truth of what is left.

One row per condition, person and keypoint; a person under a condition that keeps nothing of it has none. It holds all
that the report needs, so that no manifest, image or model is read again. Letters: N samples (a person under a
condition), K keypoints.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyarrow.parquet import read_schema

from bench.data.geometry import Floats
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.parquet import UNREADABLE, write_parquet
from bench.errors import UserError

CONDITION = ("mode", "side", "kept", "padding")
PER_SAMPLE = (*CONDITION, "image_id", "annotation_id", "area")
COLUMNS = (
    *PER_SAMPLE, "keypoint", "x", "y", "score", "presence_logit", "present", "present_weight", "visibility",
    "similarity", "true_x", "true_y",
)  # fmt: skip


class Stressed(NamedTuple):
    """Samples in the order of the file."""

    mode: NDArray[np.object_]  # (N,)
    side: NDArray[np.object_]  # (N,)
    kept: Floats  # (N,)
    padding: NDArray[np.object_]  # (N,)
    image_ids: NDArray[np.int64]  # (N,)
    annotation_ids: NDArray[np.int64]  # (N,)
    area: Floats  # (N,) of the person's segment before anything was cut, square pixels
    keypoints: Floats  # (N, K, 2) predicted, image pixels
    score: Floats  # (N, K) heatmap peak
    logits: Floats | None  # (N, K) of presence; None without a head
    present: NDArray[np.bool_]  # (N, K) in the image, and in what the condition leaves of it
    weight: Floats  # (N, K) 1 where that is known
    visibility: NDArray[np.int64]  # (N, K) as in `bench.data.truncated.TruncatedDataset`
    similarity: Floats  # (N, K) with the true position, its term of OKS; NaN where not present
    truth: Floats  # (N, K, 2) true position in the whole image; NaN where it is not in it, or not known to be

    def take(self, index: NDArray[np.bool_] | NDArray[np.integer]) -> "Stressed":
        """Some of the samples."""
        return Stressed(*(None if array is None else array[index] for array in self))  # type: ignore[arg-type]


def read_stressed(file: Path) -> Stressed:
    """Raises:
    UserError: the file is missing or broken, a column is missing, or a person has not all keypoints in order.
    """
    again = f"run `dvc repro stress@{file.stem}`"
    try:
        missing = sorted(set(COLUMNS) - set(read_schema(file).names))
        frame = pd.DataFrame() if missing else pd.read_parquet(file, columns=list(COLUMNS))
    except UNREADABLE as error:
        raise UserError(f"{file}: no readable stress test ({str(error).splitlines()[0]}): {again}") from error
    if missing:
        raise UserError(f"{file}: column {missing[0]!r} is missing, wanted {', '.join(COLUMNS)}: {again}")
    keypoint = frame["keypoint"].to_numpy()
    if len(frame) == 0 or len(frame) % NUM_KEYPOINTS or (keypoint != np.arange(len(frame)) % NUM_KEYPOINTS).any():
        raise UserError(f"{file}: found {len(frame)} rows, wanted {NUM_KEYPOINTS} keypoints a person in order: {again}")
    return _stressed(frame)


def _stressed(frame: pd.DataFrame) -> Stressed:
    def table(column: str) -> Floats:
        return frame[column].to_numpy(dtype=np.float64).reshape(-1, NUM_KEYPOINTS)

    def points(x: str, y: str) -> Floats:
        return np.stack([table(x), table(y)], axis=-1)

    per_sample = frame.iloc[::NUM_KEYPOINTS]
    names = {name: per_sample[name].to_numpy(dtype=object) for name in ("mode", "side", "padding")}
    logits = table("presence_logit")
    return Stressed(
        **names,
        kept=per_sample["kept"].to_numpy(dtype=np.float64),
        image_ids=per_sample["image_id"].to_numpy(dtype=np.int64),
        annotation_ids=per_sample["annotation_id"].to_numpy(dtype=np.int64),
        area=per_sample["area"].to_numpy(dtype=np.float64),
        keypoints=points("x", "y"),
        score=table("score"),
        logits=None if np.isnan(logits).all() else logits,
        present=table("present") > 0,
        weight=table("present_weight"),
        visibility=frame["visibility"].to_numpy(dtype=np.int64).reshape(-1, NUM_KEYPOINTS),
        similarity=table("similarity"),
        truth=points("true_x", "true_y"),
    )


def write_stressed(file: Path, frame: pd.DataFrame) -> None:
    """Raises:
    UserError: it cannot be written.
    """
    write_parquet(file, frame[list(COLUMNS)].astype(dict.fromkeys(("mode", "side", "padding"), "category")))
