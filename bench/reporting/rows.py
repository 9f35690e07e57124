"""The record of one run: its numbers with their intervals, the protocol behind them, and where they come from.

Numbers are named by keys: `oks/AP`, `score_rule/box/AP`, `presence/heatmap_peak/all/F1`. The same keys name the columns
of a run's replicates, its numbers in every resample of the images.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from bench.data.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS
from bench.errors import UserError
from bench.metrics.average_precision import STATS
from bench.metrics.presence import POOLED
from bench.writing import written_whole

PROTOCOLS = {
    1: "OKS by pycocotools; 200 resamples",
    2: "OKS by bench.metrics.oks; OKS-NMS; 2,000 resamples that every run of a profile shares",
}
"""What each version of the protocol changed: it is raised when the same predictions can give other numbers."""
PROTOCOL_VERSION: Final = 2

ALWAYS_PRESENT: Final = "always_present"
HEATMAP_PEAK: Final = "heatmap_peak"
PRESENCE_HEAD: Final = "presence_head"
METRICS = ("precision", "recall", "F1", "AUROC")
"""Of presence, in rows; stage presence takes many more."""

Source = Literal["presence_head", "heatmap_peak", "always_present"]
SOURCES: dict[Source, str] = {
    PRESENCE_HEAD: "presence head",
    HEATMAP_PEAK: "heatmap peak",
    ALWAYS_PRESENT: "always present",
}
"""Where a statement on presence can come from, as reports name it; the last two are floors that every system has."""


def oks(stat: str) -> str:
    """Key of one of COCO's ten numbers under the row's protocol."""
    return f"oks/{stat}"


def annotated_boxes(stat: str) -> str:
    """Key of the same on annotated boxes; only rows whose protocol has detected ones carry it."""
    return f"annotated_boxes/{stat}"


def score_rule(rule: str, stat: str) -> str:
    """Key of AP or AR had the persons been scored by another rule."""
    return f"score_rule/{rule}/{stat}"


PRESENCE_KEYS: Final = "presence/"
"""How all keys of presence begin."""


def presence(source: Source, metric: str, keypoint: str = POOLED) -> str:
    """Key of a presence number, of all keypoints pooled or of one by its name."""
    return f"{PRESENCE_KEYS}{source}/{keypoint}/{metric}"


def presence_keys(source: Source) -> list[str]:
    """All keys of a source."""
    return [presence(source, metric, keypoint) for keypoint in (POOLED, *KEYPOINT_NAMES) for metric in METRICS]


def _undefined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[FiniteFloat | None, BeforeValidator(_undefined)]
"""A number, or None where it is undefined (NaN is read as None: JSON has no NaN)."""


class Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Estimate(Record):
    """A number with its 95 % image-level bootstrap bounds."""

    value: Number
    low: Number
    high: Number


class DataCard(Record):
    """The val split that the numbers were taken on."""

    source: Literal["drawn", "coco"]
    name: str
    num_images: int
    num_persons: int
    num_present: int
    num_absent: int
    prevalence: Annotated[list[Number], Field(min_length=NUM_KEYPOINTS, max_length=NUM_KEYPOINTS)]  # share present
    sha256: str  # of the manifests of all splits, and of the detected boxes
    source_sha256: str  # of the annotation file that the val split was chosen from


class Protocol(Record):
    """What must be equal before two rows may be compared."""

    version: int
    boxes: str
    score_rule: str
    oks_nms: str
    flip_test: str
    codec: str
    crop: str
    policy: str
    threshold_rule: str
    checkpoint_rule: str
    evaluator: str
    intervals: str
    init: str


class Provenance(Record):
    """Where the numbers come from. Times and the revision say when; they are left out of the pages, which must come
    out the same whenever they are made."""

    code_sha256: str
    code_revision: str | None  # of the last commit that touched code behind the numbers; None without git
    params_sha256: str
    versions: dict[str, str]
    device: str
    precision: str
    trained_seconds: float
    evaluated_at: str  # UTC


class Row(Record):
    """The result of one run."""

    profile: str
    experiment: str
    seed: int
    data: DataCard
    protocol: Protocol
    provenance: Provenance
    num_parameters: int
    num_presence_parameters: int
    num_macs: int  # of one image of `input_size`
    input_size: Annotated[tuple[int, int], Field(strict=False)]  # (w, h)
    best_epoch: int  # 0 where nothing was trained
    thresholds: Mapping[Source, Number]  # of every source: present where its score is at least this
    numbers: dict[str, Estimate]

    def threshold(self, source: Source) -> float:
        """NaN where it is undefined: no score reaches it, and no number can be taken at it."""
        value = self.thresholds[source]
        return math.nan if value is None else value

    @model_validator(mode="after")
    def _numbers_are_complete(self) -> "Row":
        for floor in (HEATMAP_PEAK, ALWAYS_PRESENT):
            if floor not in self.thresholds:
                raise ValueError(f"thresholds: {floor!r} is missing")
        wanted = [oks(stat) for stat in STATS]
        wanted += [key for source in self.thresholds for key in presence_keys(source)]
        missing = [key for key in wanted if key not in self.numbers]
        if missing:
            raise ValueError(f"numbers: {missing[0]!r} is missing")
        return self


SUFFIXES = {
    "rows": ".json", "curves": ".csv", "predictions": ".parquet", "replicates": ".parquet", "matches": ".npz",
    "presence": ".parquet", "presence_replicates": ".parquet", "presence_curves": ".parquet",
    "pose_scores": ".parquet", "dependency": ".npz",
}  # fmt: skip


def run_file(runs_dir: Path, kind: str, name: str, seed: int) -> Path:
    """Where a run leaves its row, curves, predictions, ...: files of a kind lie together."""
    return runs_dir / kind / f"{name}-{seed}{SUFFIXES[kind]}"


def write_row(row: Row, file: Path) -> None:
    """Raises:
    UserError: it cannot be written.
    """
    with written_whole(file) as partial:
        partial.write_text(row.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_row(file: Path) -> Row:
    """Raises:
    OSError: the file cannot be read.
    UserError: it is no row, or one of another protocol; the message names the key.
    """
    try:
        row = Row.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "top level"
        raise UserError(f"{file}: {key}: found {_short(first['input'])}: {first['msg']}") from error
    if row.protocol.version != PROTOCOL_VERSION:
        raise UserError(f"{file}: protocol.version: found {row.protocol.version}, wanted {PROTOCOL_VERSION}")
    return row


def load_rows(runs_dir: Path, names: Sequence[str], seeds: Sequence[int], stage: str = "evaluate") -> list[Row]:
    """The rows `<runs_dir>/rows/<name>-<seed>.json` of the declared grid, in its order; other files are not looked at.

    `stage` is the one that writes them.

    Raises:
        UserError: a row is missing (names the stage to run), malformed, or another run's.
    """
    return [_load_row(runs_dir, name, seed, stage) for name in names for seed in seeds]


def _load_row(runs_dir: Path, name: str, seed: int, stage: str) -> Row:
    again = f"run `dvc repro {stage}@{name}-{seed}`"
    file = run_file(runs_dir, "rows", name, seed)
    try:
        row = read_row(file)
    except OSError as error:
        raise UserError(f"{file}: missing ({error.strerror}), wanted a row: {again}") from error
    for key, found, wanted in (
        ("profile", row.profile, runs_dir.name),
        ("experiment", row.experiment, name),
        ("seed", row.seed, seed),
    ):
        if found != wanted:
            raise UserError(f"{file}: {key}: found {found!r}, wanted {wanted!r}: {again}")
    return row


def by_experiment(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows in their order, grouped by name."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.experiment, []).append(row)
    return groups


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
