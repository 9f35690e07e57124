"""The predictions file: one row per person and keypoint, from which every number, table and picture is made.

It holds what was predicted and the labels under every policy. Splits: `calibration` and `val` on annotated boxes, and
`val_detected` on detected ones, of which nothing is labelled (annotation_id and visibility are -1, all weights 0).
Letters: N persons, K keypoints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyarrow.parquet import read_schema
from scipy.special import expit

from bench.data.geometry import Floats
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.parquet import UNREADABLE, write_parquet
from bench.errors import UserError

CALIBRATION, VAL, DETECTED = "calibration", "val", "val_detected"
UNLABELLED = -1

STATISTICS = ("blurred_peak", "mass", "entropy", "peak_gap")
"""Of the heatmap whose peak is `score`, see `bench.inference.statistics`: baselines for presence are made of them."""

COLUMNS = (
    "image_id", "annotation_id", "keypoint", "x", "y", "score", "presence_logit", "bbox_score", "view_area",
    *STATISTICS,
)  # fmt: skip


class Split(NamedTuple):
    """Predictions of one split, in the order of the file."""

    image_ids: NDArray[np.int64]  # (N,)
    annotation_ids: NDArray[np.int64]  # (N,)
    bbox_score: Floats  # (N,)
    view_area: Floats  # (N,) of what the model was shown, square image pixels
    keypoints: Floats  # (N, K, 2) image pixels
    score: Floats  # (N, K) heatmap peak
    presence_logits: Floats | None  # (N, K); None without a head
    statistics: dict[str, Floats]  # (N, K) each of `STATISTICS`
    present: NDArray[np.bool_]  # (N, K) under the policy asked for
    present_weight: Floats  # (N, K)

    @property
    def presence(self) -> Floats | None:
        """Probability (N, K) by the head; None without one."""
        return None if self.presence_logits is None else np.asarray(expit(self.presence_logits))


def read_split(file: Path, name: str, policy: str) -> Split:
    """One split with the labels of one policy.

    Raises:
        UserError: the file is missing or broken, a column or the whole split is missing, a person has not all keypoints
            in order, or only some keypoints have a presence logit; the message says which stage writes it.
    """
    again = f"run `dvc repro predict@{file.stem}`"
    columns = [*COLUMNS, f"present_{policy}", f"present_weight_{policy}"]
    try:
        missing = sorted({"split", *columns} - set(read_schema(file).names))
        frame = pd.DataFrame() if missing else pd.read_parquet(file, columns=columns, filters=[("split", "==", name)])
    except UNREADABLE as error:
        raise UserError(f"{file}: no readable predictions ({str(error).splitlines()[0]}): {again}") from error
    if missing:
        raise UserError(f"{file}: column {missing[0]!r} is missing, wanted {', '.join(['split', *columns])}: {again}")
    if fault := _fault(frame, name):
        raise UserError(f"{file}: {fault}: {again}")
    return _split(frame, policy)


def _fault(frame: pd.DataFrame, name: str) -> str | None:
    """What is wrong with the rows of a split, or None."""
    if frame.empty:
        return f"found nobody in split {name!r}, wanted one or more"
    keypoint, unknown = frame["keypoint"].to_numpy(), frame["presence_logit"].isna().to_numpy()
    disordered = np.flatnonzero(keypoint != np.arange(len(frame)) % NUM_KEYPOINTS)
    if len(disordered) or len(frame) % NUM_KEYPOINTS:
        place = disordered[0] if len(disordered) else len(frame) - 1
        found, wanted = f"keypoint {keypoint[place]}", f"{NUM_KEYPOINTS} keypoints of each person in order"
    elif unknown.any() and not unknown.all():
        place = np.flatnonzero(unknown)[0]
        found, wanted = f"no presence_logit of keypoint {keypoint[place]}", "one of every keypoint, or of none"
    else:
        return None
    return f"annotation {frame['annotation_id'].iloc[place]}: found {found} at row {place} of {name}, wanted {wanted}"


def _split(frame: pd.DataFrame, policy: str) -> Split:
    def table(column: str) -> Floats:
        return frame[column].to_numpy(dtype=np.float64).reshape(-1, NUM_KEYPOINTS)

    def per_person(column: str) -> NDArray[np.int64]:
        return frame[column].to_numpy(dtype=np.int64)[::NUM_KEYPOINTS]

    logits = table("presence_logit")
    return Split(
        image_ids=per_person("image_id"),
        annotation_ids=per_person("annotation_id"),
        bbox_score=table("bbox_score")[:, 0],
        view_area=table("view_area")[:, 0],
        keypoints=np.stack([table("x"), table("y")], axis=-1),
        score=table("score"),
        presence_logits=None if np.isnan(logits).all() else logits,
        statistics={name: table(name) for name in STATISTICS},
        present=table(f"present_{policy}") > 0,
        present_weight=table(f"present_weight_{policy}"),
    )


def write_predictions(file: Path, frames: Sequence[pd.DataFrame]) -> None:
    """Write whole or not at all."""
    write_parquet(file, pd.concat(frames, ignore_index=True).astype({"split": "category"}))
