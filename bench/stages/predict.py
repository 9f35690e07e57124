"""Stage predict: predictions of one run on the calibration and val splits, the one interface to all metrics."""

import numpy as np
import pandas as pd

from bench.config import TestParams, TrainConfig
from bench.data.coco import Person, persons_of
from bench.data.dataset import ordered_loader
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.presence import POLICIES, Labels
from bench.inference.predict import Predictions, on_device, predict
from bench.stages.command import run_command
from bench.stages.files import RunFiles, plan_dir, read_model
from bench.stages.run_model import build, build_codec, build_fabric, build_samples, read_manifest
from bench.training.checkpoint import load_checkpoint

SPLITS = ("calibration", "val")
EVERY_POLICY = "labelled"  # samples need one, predictions carry the labels of all


def main(profile: str, run: str, seed: int) -> None:
    """Write runs/<profile>/predictions/<run>-<seed>.parquet."""
    plan = plan_dir(profile) / run
    config = read_model(plan / "train.json", TrainConfig)
    test = read_model(plan / "predict.json", TestParams)
    files = RunFiles(profile, run, seed)
    model = build(config, pretrained=False)
    load_checkpoint(files.checkpoint, model)
    fabric = build_fabric(config.precision)
    codec = build_codec(config, model)
    wrapped = fabric.setup(model)
    frames = []
    for split in SPLITS:
        manifest = read_manifest(profile, split)
        samples = build_samples(config, codec, manifest, EVERY_POLICY, None, seed)
        loader = on_device(fabric, ordered_loader(samples, test.batch_size, config.num_workers))
        predictions = predict(wrapped, loader, codec, decoding=test.decoding, flip_test=test.flip_test)
        frames.append(predictions_frame(split, persons_of(manifest), predictions))
    files.predictions.parent.mkdir(parents=True, exist_ok=True)
    partial = files.predictions.with_suffix(".partial")
    pd.concat(frames, ignore_index=True).to_parquet(partial, index=False)
    partial.replace(files.predictions)


def predictions_frame(split: str, persons: list[Person], predictions: Predictions) -> pd.DataFrame:
    """One row per person and keypoint: what was predicted, and the labels under every policy that the data carry."""
    num_persons = len(persons)

    def per_person(values: list[int] | list[float]) -> "np.ndarray[tuple[int], np.dtype[np.generic]]":
        return np.repeat(np.array(values), NUM_KEYPOINTS)

    visibility = np.stack([person.labels.visibility for person in persons])
    truths = [person.labels.true_visibility for person in persons if person.labels.true_visibility is not None]
    labels = Labels(visibility, np.stack(truths) if len(truths) == num_persons else None)
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
        "visibility": visibility.ravel(),
        "bbox_score": per_person([person.bbox_score for person in persons]),
    }
    for name, policy in POLICIES.items():
        if name == "true" and labels.true_visibility is None:
            continue
        label = policy(labels)
        columns[f"present_{name}"] = label.present.ravel()
        columns[f"present_weight_{name}"] = label.present_weight.ravel()
    return pd.DataFrame(columns)


if __name__ == "__main__":
    run_command(main)
