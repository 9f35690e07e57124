"""Stage stress: what one run says of people of whom a known part is cut away, left out of the window, or covered."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from bench.config import StressParams, TestParams
from bench.data.coco import CocoDict, Person, areas_of, persons_of
from bench.data.codec import Codec
from bench.data.dataset import Sample
from bench.data.geometry import Crop, Floats
from bench.data.keypoints import NUM_KEYPOINTS, OKS_SIGMAS
from bench.data.predictions import VAL
from bench.data.stressed import write_stressed
from bench.data.subset import in_some_images
from bench.data.truncated import TruncatedDataset, truncated_loader
from bench.data.truncation import Condition, conditions, known_positions
from bench.inference.predict import decode_batch, on_device, run_model
from bench.metrics.oks import falloff
from bench.stages.command import run_command
from bench.stages.files import RunFiles, plan_dir, read_model
from bench.stages.run_model import open_run, read_manifest


def main(profile: str, run: str, seed: int) -> None:
    """Write runs/<profile>/stress/<run>-<seed>.parquet."""
    params = read_model(plan_dir(profile) / run / "stress.json", StressParams)
    files = RunFiles(profile, run, seed)
    trained = open_run(files)
    config, test, codec, fabric, model = trained
    people = choose_people(read_manifest(profile, VAL), params.num_persons, params.seed)
    crop = Crop(config.input_size, config.bbox_padding, config.fit, codec.aligned)
    grid = conditions(sides=params.sides, kept=params.kept, paddings=params.paddings)
    samples = TruncatedDataset(people.persons, crop, sorted(set(map(asked, grid))), params.seed)
    loader = on_device(fabric, truncated_loader(samples, test.batch_size, trained.num_workers))
    frame = predict_frame(model, loader, codec, test, samples, people)
    write_stressed(files.stress, under_every_condition(frame, grid))


class People(NamedTuple):
    """Who is truncated: truth (N, K, 2) in image pixels, NaN where not in the image or not known; area (N,)."""

    persons: list[Person]
    truth: Floats
    area: Floats


def choose_people(manifest: CocoDict, num_persons: int, seed: int) -> People:
    """By image, so that those who stand next to each other are known together."""
    chosen = in_some_images(persons_of(manifest), num_persons, seed)
    return People(chosen, np.stack([true_positions(person) for person in chosen]), areas_of(chosen, manifest))


def true_positions(person: Person) -> Floats:
    """(K, 2), NaN where a keypoint is not known to be in the image."""
    points, in_image, _ = known_positions(person)
    return np.where(in_image[:, None], points, np.nan)


def asked(condition: Condition) -> Condition:
    """The condition that a model is asked in its place: where all is kept, modes and sides do not differ."""
    return Condition("cut", "left", 1.0, condition.padding) if condition.kept == 1 else condition


def under_every_condition(frame: pd.DataFrame, grid: Sequence[Condition]) -> pd.DataFrame:
    """The rows of what was asked, once for each condition that it stands for; in the order of the grid."""
    by_condition = dict(list(frame.groupby(list(Condition._fields), sort=False)))
    frames = [by_condition[asked(c)].assign(**c._asdict()) for c in grid if asked(c) in by_condition]
    return pd.concat(frames, ignore_index=True)


def predict_frame(
    model: nn.Module,
    loader: Iterable[Sample],
    codec: Codec,
    test: TestParams,
    samples: TruncatedDataset,
    people: People,
) -> pd.DataFrame:
    """One row per sample and keypoint; of images only one batch is held."""
    frames, done = [], 0
    for batch, output in run_model(model, loader, flip_test=test.flip_test, shift=codec.shift):
        found = decode_batch(batch, output, codec, test.decoding)
        num = len(found.score)
        logits = (
            np.full(found.score.shape, np.nan, np.float32) if found.presence_logits is None else found.presence_logits
        )
        condition, person = np.array(samples.keys[done : done + num]).T
        done += num
        present = batch.present.cpu().numpy() > 0
        frames.append(
            pd.DataFrame(
                {
                    **per_sample(samples, people, condition, person),
                    "keypoint": np.tile(np.arange(NUM_KEYPOINTS), num),
                    "x": found.keypoints[..., 0].ravel(),
                    "y": found.keypoints[..., 1].ravel(),
                    "score": found.score.ravel(),
                    "presence_logit": logits.ravel(),
                    "present": present.ravel(),
                    "present_weight": batch.present_weight.cpu().numpy().ravel(),
                    "visibility": batch.visibility.cpu().numpy().ravel(),
                    "similarity": similarity(
                        found.keypoints, people.truth[person], people.area[person], present
                    ).ravel(),
                    "true_x": people.truth[person, :, 0].ravel(),
                    "true_y": people.truth[person, :, 1].ravel(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def per_sample(
    samples: TruncatedDataset, people: People, condition: NDArray[np.int64], person: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """What all keypoints of a sample share."""
    grid, persons = [samples.conditions[c] for c in condition], [samples.persons[p] for p in person]
    values: dict[str, Sequence[object]] = {
        "mode": [c.mode for c in grid],
        "side": [c.side for c in grid],
        "kept": [c.kept for c in grid],
        "padding": [c.padding for c in grid],
        "image_id": [p.image_id for p in persons],
        "annotation_id": [p.annotation_id for p in persons],
        "area": people.area[person].tolist(),
    }
    return {name: np.repeat(np.array(column), NUM_KEYPOINTS) for name, column in values.items()}


def similarity(keypoints: Floats, truth: Floats, area: Floats, present: NDArray[np.bool_]) -> Floats:
    """The term of OKS of every keypoint (N, K), on the scale of the whole person; NaN where it is not present."""
    terms = falloff(((keypoints - truth) ** 2).sum(axis=-1), area[:, None], OKS_SIGMAS)
    return np.where(present, terms, np.nan)


if __name__ == "__main__":
    run_command(main)
