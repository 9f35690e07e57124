"""Stage floors: what can be said of presence without a look at the picture, the same for all systems of a profile.

How often each keypoint is there, and where the person's box lies in the image: both learned from the train split, under
every label policy. A presence head that does not beat them has seen nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bench.data.coco import CocoDict, persons_of, read_coco
from bench.data.geometry import Crop
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.parquet import UNREADABLE, write_parquet
from bench.data.predictions import CALIBRATION, VAL
from bench.data.windows import label_persons, windows_of
from bench.errors import UserError
from bench.metrics.baselines import box_features, fit_box_geometry, prevalence
from bench.stages.command import run_command
from bench.stages.files import floors_file, manifest_file, plan_dir, read_model

Floats = NDArray[np.float64]
PREVALENCE, BOX_GEOMETRY = "prevalence", "box_geometry"


class FloorsPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_size: tuple[int, int]  # of the first system, as the two below: for policies that read the window
    bbox_padding: float
    fit: str
    seed: int


class Boxes(NamedTuple):
    """Persons of a split: their annotations and what is known of their boxes (N, F)."""

    annotation_ids: NDArray[np.int64]
    features: Floats


def main(profile: str) -> None:
    """Write runs/<profile>/floors.parquet: by split, policy, annotation and keypoint."""
    plan = read_model(plan_dir(profile) / "floors.json", FloorsPlan)
    manifests = {name: read_coco(manifest_file(profile, name)) for name in ("train", CALIBRATION, VAL)}
    boxes = {name: boxes_of(manifest) for name, manifest in manifests.items()}
    persons = persons_of(manifests["train"])
    crop = Crop(plan.input_size, plan.bbox_padding, plan.fit, aligned=True)  # to a pixel, that of any codec
    labels = label_persons(persons, windows_of(persons, crop))
    frames = []
    for policy, (present, weight) in labels.items():
        if policy == "true" and any("true_keypoints" not in a for m in manifests.values() for a in m["annotations"]):
            continue
        rates = prevalence(present, weight)
        model = fit_box_geometry(boxes["train"].features, present, weight, plan.seed)
        for split in (CALIBRATION, VAL):
            scores = {
                PREVALENCE: np.tile(rates, (len(boxes[split].annotation_ids), 1)),
                BOX_GEOMETRY: model(boxes[split].features),
            }
            frames.append(frame_of(split, policy, boxes[split].annotation_ids, scores))
    write_parquet(floors_file(profile), pd.concat(frames, ignore_index=True))


def boxes_of(manifest: CocoDict) -> Boxes:
    sizes = {image["id"]: (image["width"], image["height"]) for image in manifest["images"]}
    persons = persons_of(manifest)
    return Boxes(
        np.array([person.annotation_id for person in persons]),
        box_features(
            np.array([person.bbox for person in persons]), np.array([sizes[person.image_id] for person in persons])
        ),
    )


def frame_of(split: str, policy: str, annotation_ids: NDArray[np.int64], scores: dict[str, Floats]) -> pd.DataFrame:
    columns = {name: score.ravel() for name, score in scores.items()}
    keypoint = np.tile(np.arange(NUM_KEYPOINTS), len(annotation_ids))
    return pd.DataFrame(
        {
            "split": split,
            "policy": policy,
            "annotation_id": np.repeat(annotation_ids, NUM_KEYPOINTS),
            "keypoint": keypoint,
            **columns,
        }
    )


class Floor(NamedTuple):
    """Scores (N, K) of one policy on both splits."""

    calibration: dict[str, Floats]
    val: dict[str, Floats]


def read_floors(file: Path, annotation_ids: dict[str, NDArray[np.int64]]) -> Iterator[tuple[str, Floor]]:
    """By policy, for these persons of the calibration and val splits.

    Raises:
        UserError: the file is missing or broken, or is of other persons.
    """
    try:
        frame = pd.read_parquet(file)
    except UNREADABLE as error:
        raise UserError(f"{file}: no readable floors ({str(error).splitlines()[0]}): run `dvc repro floors`") from error
    for policy, rows in frame.groupby("policy", sort=False):
        yield str(policy), Floor(*(_scores(file, rows, name, annotation_ids[name]) for name in (CALIBRATION, VAL)))


def _scores(file: Path, rows: pd.DataFrame, split: str, annotation_ids: NDArray[np.int64]) -> dict[str, Floats]:
    rows = rows[rows["split"] == split]
    found = rows["annotation_id"].to_numpy()[::NUM_KEYPOINTS]
    if not np.array_equal(found, annotation_ids):
        raise UserError(f"{file}: {split}: found other persons than were predicted: run `dvc repro floors`")
    return {
        name: rows[name].to_numpy(dtype=np.float64).reshape(-1, NUM_KEYPOINTS) for name in (PREVALENCE, BOX_GEOMETRY)
    }


if __name__ == "__main__":
    run_command(main)
