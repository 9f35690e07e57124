"""The record of one run, and its way to disk and back. Letters: K keypoints."""

import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from bench.data.keypoints import NUM_KEYPOINTS
from bench.errors import UserError

ALWAYS_PRESENT: Final = "always_present"
HEATMAP_PEAK: Final = "heatmap_peak"
PRESENCE_HEAD: Final = "presence_head"
Source = Literal["presence_head", "heatmap_peak", "always_present"]
SOURCES: dict[Source, str] = {
    PRESENCE_HEAD: "presence head",
    HEATMAP_PEAK: "heatmap peak",
    ALWAYS_PRESENT: "always present",
}
"""Where a statement on presence can come from, as reports name it; the last two are floors that every system has."""


def _undefined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[FiniteFloat | None, BeforeValidator(_undefined)]
"""A number, or None where it is undefined (NaN is read as None: JSON has no NaN)."""


OKS_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR")
PRESENCE_METRICS = ("precision", "recall", "F1", "AUROC")


def _holds(*keys: str) -> AfterValidator:
    def check(value: dict[str, Any]) -> dict[str, Any]:
        missing = [key for key in keys if key not in value]
        if missing:
            raise ValueError(f"{missing[0]!r} is missing, wanted {', '.join(keys)}")
        return value

    return AfterValidator(check)


class Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Estimate(Record):
    """A number with its 95 % image-level bootstrap bounds."""

    value: Number
    low: Number
    high: Number


PerKeypoint = Annotated[list[Estimate], Field(min_length=NUM_KEYPOINTS, max_length=NUM_KEYPOINTS)]


class PresenceResult(Record):
    """How well one source tells present from absent: by name precision, recall, F1 and AUROC."""

    threshold: float  # present where the score is at least this
    micro: Annotated[dict[str, Estimate], _holds(*PRESENCE_METRICS)]
    per_keypoint: Annotated[dict[str, PerKeypoint], _holds(*PRESENCE_METRICS)]


class DataCard(Record):
    """The val split that the numbers were taken on."""

    source: Literal["drawn", "coco"]
    name: str
    num_images: int
    num_persons: int
    num_present: int
    num_absent: int
    prevalence: Annotated[list[Number], Field(min_length=NUM_KEYPOINTS, max_length=NUM_KEYPOINTS)]  # share present
    sha256: str


class Protocol(Record):
    """What must be equal before two rows may be compared."""

    boxes: str
    score_rule: str
    flip_test: bool
    codec: str
    crop: str
    policy: str
    threshold_rule: str
    checkpoint_rule: str
    evaluator: str
    init: str


class Provenance(Record):
    code_sha256: str
    params_sha256: str
    versions: dict[str, str]
    device: str
    precision: str


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
    oks: Annotated[dict[str, Estimate], _holds(*OKS_METRICS)]
    presence: Annotated[dict[Source, PresenceResult], _holds(HEATMAP_PEAK, ALWAYS_PRESENT)]


SUFFIXES = {"rows": ".json", "curves": ".csv", "predictions": ".parquet"}


def run_file(runs_dir: Path, kind: str, name: str, seed: int) -> Path:
    """Where a run leaves its row, curves or predictions: files of a kind lie together."""
    return runs_dir / kind / f"{name}-{seed}{SUFFIXES[kind]}"


def write_row(row: Row, file: Path) -> None:
    """Write whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(row.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(partial, file)


def read_row(file: Path) -> Row:
    """Raises:
    OSError: the file cannot be read.
    UserError: it is no row; the message names the key.
    """
    try:
        return Row.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "top level"
        raise UserError(f"{file}: {key}: found {_short(first['input'])}: {first['msg']}") from error


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
        reason = error.strerror
        raise UserError(f"{file}: missing ({reason}), wanted a row: {again}") from error
    for key, found, wanted in (
        ("profile", row.profile, runs_dir.name),
        ("experiment", row.experiment, name),
        ("seed", row.seed, seed),
    ):
        if found != wanted:
            raise UserError(
                f"{file}: {key}: found {found!r}, wanted {wanted!r}: run `dvc repro evaluate@{name}-{seed}`"
            )
    return row


class Summary(NamedTuple):
    """One number over seeds. With one seed `low` and `high` are its 95 % image-level interval and `sd` is None; with
    several `value` is the mean, `sd` the sample standard deviation (n - 1), and there is no interval."""

    value: float | None
    low: float | None
    high: float | None
    sd: float | None
    num_seeds: int


def trainings(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of one experiment, but for the repetitions of a published model: no seed enters that."""
    return rows[:1] if all(row.best_epoch == 0 for row in rows) else rows


def summarise(rows: Sequence[Row], pick: Callable[[Row], Estimate | None]) -> Summary:
    """One number of the rows of one experiment. It is undefined (None) as soon as it is so for one seed."""
    rows = trainings(rows)
    estimates = [pick(row) for row in rows]
    values = [estimate.value for estimate in estimates if estimate is not None and estimate.value is not None]
    if not values or len(values) < len(rows):
        return Summary(None, None, None, None, len(rows))
    if len(rows) == 1:
        only = estimates[0]
        assert only is not None
        return Summary(only.value, only.low, only.high, None, 1)
    return Summary(statistics.fmean(values), None, None, statistics.stdev(values), len(rows))


def by_experiment(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows in their order, grouped by name."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.experiment, []).append(row)
    return groups


def oks(metric: str) -> Callable[[Row], Estimate | None]:
    """Picks an OKS number."""
    return lambda row: row.oks[metric]


def presence(source: Source, metric: str) -> Callable[[Row], Estimate | None]:
    """Picks a pooled presence number; None where the system has no such source."""
    return lambda row: row.presence[source].micro[metric] if source in row.presence else None


def keypoint_presence(source: Source, metric: str, keypoint: int) -> Callable[[Row], Estimate | None]:
    """Picks the presence number of one keypoint."""
    return lambda row: row.presence[source].per_keypoint[metric][keypoint] if source in row.presence else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
