"""Stage predict: predictions of one run on the calibration and val splits, the one interface to all metrics."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.config import TestParams
from bench.data.coco import Person, persons_in, persons_of
from bench.data.detections import read_detections
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.predictions import CALIBRATION, DETECTED, STATISTICS, UNLABELLED, VAL, write_predictions
from bench.data.windows import Windows, label_persons, windows_of
from bench.inference.predict import Predictions
from bench.stages.command import run_command
from bench.stages.files import RunFiles, copy_file, detections_file, has_detections, plan_dir, read_model
from bench.stages.run_model import build_samples, open_run, read_manifest

EVERY_POLICY = "labelled"  # samples need one, predictions carry the labels of all


def main(profile: str, run: str, seed: int, of: str | None = None) -> None:
    """Write runs/<profile>/predictions/<run>-<seed>.parquet; with --of, by the weights of that experiment."""
    files = RunFiles(profile, run, seed, trained_as=of)
    if of is not None and same_prediction(profile, run, of):
        copy_file(RunFiles(profile, of, seed).predictions, files.predictions)
        return
    trained = open_run(files)
    frames = []
    for split, persons in splits_of(profile):
        samples = build_samples(trained.config, trained.codec, persons, EVERY_POLICY, None, seed)
        predictions = trained.predict(samples)
        frames.append(predictions_frame(split, persons, windows_of(persons, samples.crop), predictions))
    write_predictions(files.predictions, frames)


def same_prediction(profile: str, run: str, of: str) -> bool:
    """Whether a retest changes metrics alone, so that the experiment's predictions are its own."""
    own, parent = (read_model(plan_dir(profile) / name / "predict.json", TestParams) for name in (run, of))
    return own == parent


def splits_of(profile: str) -> Iterator[tuple[str, list[Person]]]:
    """The persons of every split; detected boxes are one of their own."""
    for split in (CALIBRATION, VAL):
        yield split, persons_of(read_manifest(profile, split))
    if has_detections(profile):
        manifest = read_manifest(profile, VAL)
        boxes = read_detections(detections_file(profile), manifest["images"], min_score=0.0)
        yield DETECTED, persons_in(boxes.bbox, boxes.score, boxes.image_id, manifest)


def predictions_frame(
    split: str, persons: Sequence[Person], windows: Windows, predictions: Predictions
) -> pd.DataFrame:
    """One row per person and keypoint: what was predicted, and the labels under every policy that the data carry."""
    num_persons = len(persons)

    def per_person(values: Sequence[int] | Sequence[float] | NDArray[np.float64]) -> NDArray[np.generic]:
        return np.repeat(np.asarray(values), NUM_KEYPOINTS)

    labelled = split != DETECTED
    visibility = np.stack([person.labels.visibility for person in persons])
    logits = predictions.presence_logits
    columns = {
        "split": np.full(num_persons * NUM_KEYPOINTS, split),
        "image_id": per_person([person.image_id for person in persons]),
        "annotation_id": per_person([person.annotation_id for person in persons]),
        "keypoint": np.tile(np.arange(NUM_KEYPOINTS), num_persons),
        "x": predictions.keypoints[..., 0].ravel(),
        "y": predictions.keypoints[..., 1].ravel(),
        "score": predictions.score.ravel(),
        "presence_logit": np.full(visibility.size, np.nan, np.float32) if logits is None else logits.ravel(),
        "visibility": visibility.ravel() if labelled else np.full(visibility.size, UNLABELLED),
        "bbox_score": per_person([person.bbox_score for person in persons]),
        "view_area": per_person(windows.area),
        **{name: predictions.statistics[name].ravel() for name in STATISTICS},
    }
    for name, label in label_persons(persons, windows).items():
        columns[f"present_{name}"] = label.present.ravel()
        columns[f"present_weight_{name}"] = label.present_weight.ravel() * np.float32(labelled)
    return pd.DataFrame(columns)


if __name__ == "__main__":
    run_command(main)
