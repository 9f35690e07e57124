"""What the commands share that ask a run about new pictures or hand it on: the run, its model opened."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.coco import Person
from bench.errors import UserError
from bench.inference.predict import Predictions
from bench.stages.files import RunFiles
from bench.stages.predict import EVERY_POLICY
from bench.stages.run_model import TrainedRun, build_samples, open_run
from bench.stages.run_record import RunRecord, open_record

UNSEEDED = 0  # nothing is drawn at random where nothing is augmented


@dataclass(frozen=True)
class EvaluatedRun(RunRecord):
    """A run with its record and its checkpoint."""

    trained: TrainedRun

    def ask(self, persons: Sequence[Person]) -> Predictions:
        """Predictions for persons, in their order, as stage predict makes them."""
        config, codec = self.trained.config, self.trained.codec
        return self.trained.predict(build_samples(config, codec, persons, EVERY_POLICY, None, UNSEEDED))


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
    return EvaluatedRun(**vars(open_record(files)), trained=open_run(files))


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
