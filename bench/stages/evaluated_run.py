"""What the commands share that ask a run about new pictures or hand it on: the run, and what is known of it."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.data.coco import Person
from bench.data.hashing import sha256_of
from bench.data.predictions import CALIBRATION, Split, read_split
from bench.errors import UserError
from bench.inference.predict import Predictions
from bench.inference.presence import PresenceReading, read_presence
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, SOURCES, Row, Source, load_rows
from bench.stages.files import RunFiles
from bench.stages.predict import EVERY_POLICY
from bench.stages.run_model import TrainedRun, build_samples, open_run

LICENCE, OTHER_LICENCE = "Apache-2.0", "other"
UNSEEDED = 0  # nothing is drawn at random where nothing is augmented


class EvaluatedRun(NamedTuple):
    """A run with its checkpoint, its row, and its predictions of the calibration split under the row's policy."""

    files: RunFiles
    row: Row
    trained: TrainedRun
    calibration: Split

    def ask(self, persons: Sequence[Person]) -> Predictions:
        """Predictions for persons, in their order, as stage predict makes them."""
        config, codec = self.trained.config, self.trained.codec
        return self.trained.predict(build_samples(config, codec, persons, EVERY_POLICY, None, UNSEEDED))

    @property
    def source(self) -> Source:
        """What presence is read from: the head where there is one."""
        return HEATMAP_PEAK if self.calibration.presence_logits is None else PRESENCE_HEAD

    def read_presence(self) -> PresenceReading:
        """Raises:
        UserError: see `bench.inference.presence.read_presence`; the message names the run.
        """
        try:
            return read_presence(self.calibration, self.row.thresholds[self.source])
        except UserError as error:
            raise UserError(f"{self.files.predictions}: {error}") from error


def find_run(profile: str, name: str) -> RunFiles:
    """The run `<experiment>-<seed>` of a profile.

    Raises:
        UserError: it has no row; the message lists those that have one.
    """
    rows = Path("runs", profile, "rows")
    names = sorted(file.stem for file in rows.glob("*.json"))
    found = re.fullmatch(r"(.+)-(\d+)", name)
    if name not in names or found is None:
        wanted = f"wanted one of {', '.join(names)}" if names else "no run is evaluated there yet: run `make repro`"
        raise UserError(f"{rows}: found no run {name!r}, {wanted}")
    return RunFiles(profile, found[1], int(found[2]))


def open_evaluated(files: RunFiles) -> EvaluatedRun:
    """Raises:
    UserError: the row, the checkpoint or the predictions are missing, broken or another run's.
    """
    [row] = load_rows(files.row.parents[1], [files.run], [files.seed])
    calibration = read_split(files.predictions, CALIBRATION, row.protocol.policy)
    return EvaluatedRun(files, row, open_run(files), calibration)


def presence_facts(run: EvaluatedRun, reading: PresenceReading) -> dict[str, Any]:
    """What a reader of calibrated presence must know."""
    return {
        "source": SOURCES[run.source],
        "calibrator": reading.calibrator,
        "slope": reading.slope,
        "intercept": reading.intercept,
        "fitted_on": "calibration split",
        "policy": run.row.protocol.policy,
        "threshold": reading.threshold,
        "threshold_rule": run.row.protocol.threshold_rule,
    }


def origin(run: EvaluatedRun) -> dict[str, Any]:
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


def preprocessing(trained: TrainedRun) -> dict[str, Any]:
    """How a person's box becomes the input. `mean` and `std` are of pixels of 0 to 255; the model itself normalises, an
    exported graph wants it done."""
    config, network = trained.config, trained.network
    return {
        "input_size": {"width": config.input_size[0], "height": config.input_size[1]},
        "bbox_padding": config.bbox_padding,
        "fit": config.fit,
        "lengths_between_pixel_centres": trained.codec.aligned,
        "interpolation": "bilinear, black outside of the image",
        "channels": "RGB",
        "mean": network.pixel_mean.flatten().tolist(),
        "std": network.pixel_std.flatten().tolist(),
    }


def licence_of(run: EvaluatedRun) -> str:
    """Of the weights, as an identifier of SPDX: the project's, or `other` where a published file is taken as it is."""
    return OTHER_LICENCE if run.trained.config.weights else LICENCE


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path beside `target` to write a file or folder to, which takes its place at the end, or is gone.

    Raises:
        UserError: it cannot be written there.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        try:
            yield partial
            os.replace(partial, target)
        finally:
            _remove(partial)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
