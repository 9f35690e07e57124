"""What is on record of an evaluated run: all that is said of it where it is handed on. No model is opened."""

from dataclasses import dataclass
from typing import Any

from bench.config import TrainConfig
from bench.data.coco import read_coco
from bench.data.hashing import sha256_of
from bench.data.predictions import CALIBRATION, Split, read_split
from bench.errors import UserError
from bench.inference.presence import NothingToReadError, PresenceReading, read_presence
from bench.reporting.model_card import Card, TrainedOn
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, SOURCES, Row, Source, load_rows
from bench.stages.files import RunFiles, manifest_file, plan_dir, read_model

LICENCE, OTHER_LICENCE = "Apache-2.0", "other"


@dataclass(frozen=True)
class RunRecord:
    """A run's parameters, its row, and its predictions of the calibration split under the row's policy."""

    files: RunFiles
    config: TrainConfig
    row: Row
    calibration: Split

    @property
    def source(self) -> Source:
        """What presence is read from: the head where there is one."""
        return HEATMAP_PEAK if self.calibration.presence_logits is None else PRESENCE_HEAD

    def read_presence(self) -> PresenceReading:
        """Raises:
        UserError: see `bench.inference.presence.read_presence`; the message names the run.
        """
        try:
            return read_presence(self.calibration, self.row.threshold(self.source))
        except UserError as error:
            raise type(error)(f"{self.files.predictions}: {error}") from error


def open_record(files: RunFiles) -> RunRecord:
    """Raises:
    UserError: the plan, the row or the predictions are missing, broken or another run's.
    """
    [row] = load_rows(files.row.parents[1], [files.run], [files.seed])
    config = read_model(plan_dir(files.profile) / files.run / "train.json", TrainConfig)
    return RunRecord(files, config, row, read_split(files.predictions, CALIBRATION, row.protocol.policy))


def presence_facts(run: RunRecord, reading: PresenceReading) -> dict[str, Any]:
    """What a reader of calibrated presence must know."""
    return {
        "source": SOURCES[run.source],
        "calibrator": reading.calibrator,
        "slope": reading.slope,
        "intercept": reading.intercept,
        "fitted_on": "calibration split" if reading.is_fitted else "nothing",
        "policy": run.row.protocol.policy,
        "threshold": reading.threshold,
        "threshold_rule": run.row.protocol.threshold_rule,
    }


def origin(run: RunRecord) -> dict[str, Any]:
    """Where a run comes from."""
    row = run.row
    return {
        "run": f"{row.profile}/{run.files.name}",
        "checkpoint_sha256": sha256_of([run.files.checkpoint]),
        "data": row.data.name,
        "data_sha256": row.data.sha256,
        "code_sha256": row.provenance.code_sha256,
        "code_revision": row.provenance.code_revision,
        "params_sha256": row.provenance.params_sha256,
        "codec": row.protocol.codec,
        "crop": row.protocol.crop,
        "flip_test": row.protocol.flip_test,
    }


def licence_of(run: RunRecord) -> str:
    """Of the weights, as an identifier of SPDX: the project's, or `other` where a published file is taken as it is."""
    return OTHER_LICENCE if run.config.weights else LICENCE


def card_of(run: RunRecord) -> Card:
    """What a model card says beside the row.

    Raises:
        UserError: a manifest or the checkpoint is missing.
    """
    facts, reason = None, ""
    try:
        facts = presence_facts(run, run.read_presence())
    except NothingToReadError as error:
        reason = str(error.__cause__)  # without the file
    return Card(
        source=run.source,
        nothing_to_read=reason,
        trained_on=trained_on(run),
        licence=licence_of(run),
        presence=facts,
        origin=origin(run),
    )


def trained_on(run: RunRecord) -> TrainedOn:
    """Persons behind a run's weights, and behind what was chosen and fitted after them."""

    def size_of(split: str) -> int:
        return int(read_coco(manifest_file(run.files.profile, split))["info"]["num_persons"])

    wanted = run.config.fitting.num_persons if run.config.fitting else 0
    return TrainedOn(train=size_of("train") if wanted == "all" else wanted, calibration=size_of(CALIBRATION))
