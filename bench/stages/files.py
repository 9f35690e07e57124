"""Where stages find each other's files, relative to the project's root, and how small ones are read and written."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import UserError
from bench.writing import written_whole

Model = TypeVar("Model", bound=BaseModel)
MANIFESTS = ("train", "calibration", "val")


def plan_dir(profile: str) -> Path:
    """Resolved parameters: `prepare.json`, those of pages, and a run's `<run>/{weights,train,predict,...}.json`."""
    return Path("runs", profile, "plan")


def manifest_file(profile: str, name: str) -> Path:
    return Path("data", profile, f"{name}.json")


def detections_file(profile: str) -> Path:
    """Detected boxes of the val images, beside the manifests: no training depends on them."""
    return Path("data", f"{profile}.detections.json")


NO_DETECTIONS: list[Any] = []


def has_detections(profile: str) -> bool:
    """Whether the profile names detected boxes; else the file says that there are none."""
    return detections_file(profile).read_text(encoding="utf-8") != json_text(NO_DETECTIONS)


def floors_file(profile: str) -> Path:
    """What can be said of presence without a look at the picture."""
    return Path("runs", profile, "floors.parquet")


def crops_dir(profile: str) -> Path:
    """Stores of what trainings show, a cache: beside the data, which a stage writes anew as a whole."""
    return Path("data", f"{profile}.crops")


def unfinished_dir(profile: str) -> Path:
    """States of trainings that were stopped: no output, since DVC deletes these before it runs a stage."""
    return Path("runs", profile, "unfinished")


def drawn_dir(profile: str) -> Path:
    return Path("data", profile, "drawn")


class RunFiles(NamedTuple):
    """The outputs of one run. What reports read lies together, by kind, so that a stage can depend on all of a kind.

    A retest has no training of its own: it is `trained_as` its experiment.
    """

    profile: str
    run: str
    seed: int
    trained_as: str | None = None

    @property
    def name(self) -> str:
        return f"{self.run}-{self.seed}"

    @property
    def folder(self) -> Path:
        return Path("runs", self.profile, f"{self.trained_as or self.run}-{self.seed}")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def unfinished(self) -> Path:
        """Where a training that was stopped goes on."""
        return unfinished_dir(self.profile) / f"{self.name}.pt"

    @property
    def training(self) -> Path:
        return self.folder / "training.json"

    @property
    def live(self) -> Path:
        return self.folder / "dvclive"

    @property
    def curves(self) -> Path:
        return Path("runs", self.profile, "curves", f"{self.name}.csv")

    @property
    def predictions(self) -> Path:
        return Path("runs", self.profile, "predictions", f"{self.name}.parquet")

    @property
    def stress(self) -> Path:
        return Path("runs", self.profile, "stress", f"{self.name}.parquet")

    @property
    def dependency(self) -> Path:
        return Path("runs", self.profile, "dependency", f"{self.name}.npz")

    @property
    def row(self) -> Path:
        return Path("runs", self.profile, "rows", f"{self.name}.json")

    def of_presence(self, kind: str) -> Path:
        """The study of presence: `presence` its numbers, `presence_replicates`, `presence_curves`."""
        return Path("runs", self.profile, kind, f"{self.name}.parquet")

    @property
    def pose_scores(self) -> Path:
        return Path("runs", self.profile, "pose_scores", f"{self.name}.parquet")

    @property
    def card(self) -> Path:
        return Path("runs", self.profile, "cards", f"{self.name}.json")

    @property
    def replicates(self) -> Path:
        return Path("runs", self.profile, "replicates", f"{self.name}.parquet")

    @property
    def matches(self) -> Path:
        return Path("runs", self.profile, "matches", f"{self.name}.npz")


class TrainingInfo(BaseModel):
    """What a training says of itself beside its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    best_epoch: int  # 0 where nothing was trained
    weights_source: str | None  # the format of a published file
    device: str
    num_parameters: int
    num_presence_parameters: int
    num_macs: int  # of one image
    flip_shift: bool  # whether the codec shifts mirrored heatmaps
    seconds: float  # of the whole training


class ResamplingPlan(BaseModel):
    """How often images are drawn anew, or traded in a permutation test, and from which seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num: int
    seed: int


def write_text(file: Path, text: str) -> None:
    """Raises:
    UserError: it cannot be written.
    """
    with written_whole(file) as partial:
        partial.write_text(text, encoding="utf-8")


def copy_file(source: Path, target: Path) -> None:
    """Raises:
    UserError: it cannot be written.
    """
    with written_whole(target) as partial:
        shutil.copyfile(source, partial)


def json_text(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_json(file: Path, content: Any) -> None:
    write_text(file, json_text(content))


def read_model(file: Path, model: type[Model]) -> Model:
    """A validated record.

    Raises:
        UserError: the file is missing, or not such a record.
    """
    try:
        return model.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}), wanted the output of an earlier stage") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}: {key}: {first['msg']}, found {first['input']!r}") from error
