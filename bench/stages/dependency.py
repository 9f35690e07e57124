"""Stage dependency: what keypoints of one run depend on, and whether the maps that say so are right."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.config import DependencyParams
from bench.data.coco import Person, areas_of, persons_of
from bench.data.codec import decode
from bench.data.dataset import Sample
from bench.data.dependencies import Dependencies, write_dependencies
from bench.data.geometry import Floats
from bench.data.keypoints import OKS_SIGMAS
from bench.data.predictions import VAL
from bench.data.subset import in_some_images
from bench.inference.dependency import Asked, blurred, dependency_maps, spoil
from bench.metrics.faithfulness import keep_masks, whole_curves
from bench.metrics.oks import falloff
from bench.stages.command import run_command
from bench.stages.files import RunFiles, plan_dir, read_model
from bench.stages.predict import EVERY_POLICY
from bench.stages.run_model import TrainedRun, build_samples, open_run, read_manifest


def main(profile: str, run: str, seed: int) -> None:
    """Write runs/<profile>/dependency/<run>-<seed>.npz."""
    params = read_model(plan_dir(profile) / run / "dependency.json", DependencyParams)
    files = RunFiles(profile, run, seed)
    trained = open_run(files)
    trained.model.eval()
    manifest = read_manifest(profile, VAL)
    persons = in_some_images(persons_of(manifest), params.num_persons, params.seed)
    samples = build_samples(trained.config, trained.codec, persons, EVERY_POLICY, None, seed)
    answers = []
    for index, (person, area) in enumerate(zip(persons, areas_of(persons, manifest), strict=True)):
        keypoints = choose_keypoints(person, params, index)
        if len(keypoints):
            answers.append(ask(trained, samples[0, index], keypoints, area, params, index))
    write_dependencies(files.dependency, gather(answers, persons, trained, params))


def choose_keypoints(person: Person, params: DependencyParams, index: int) -> NDArray[np.int64]:
    """At most so many of a person's labelled keypoints, drawn at random, of every run the same."""
    labelled = np.flatnonzero(person.labels.visibility > 0)
    rng = np.random.default_rng((params.seed, index))
    return np.sort(rng.permutation(labelled)[: params.keypoints_per_person])


class Answer(NamedTuple):
    """Of one person: see `Dependencies`."""

    person: int
    asked: Asked
    matrix: Floats  # (2, 3)
    maps: dict[str, Floats]  # (Q, h, w)
    similarity: Floats  # (Q, M, 2, S + 2)
    presence: Floats  # (Q, M, 2, S + 2)


class Said(NamedTuple):
    """Of pictures (B): `points` (B, K, 2) in input pixels and `presence` (B, K)."""

    points: Floats
    presence: Floats

    def of(self, keypoints: NDArray[np.int64]) -> "Said":
        """Of one keypoint (Q,) of each picture, or of each keypoint of the only picture: (Q, 2) and (Q,)."""
        pictures = np.arange(len(keypoints)) % len(self.points)
        return Said(self.points[pictures, keypoints], self.presence[pictures, keypoints])


def ask(
    trained: TrainedRun, sample: Sample, keypoints: NDArray[np.int64], area: float, params: DependencyParams, index: int
) -> Answer:
    """The maps of a person's keypoints, and the curves of each map."""
    image = trained.fabric.to_device(sample.image)
    matrix = sample.matrix.numpy()
    pixels = sample.image.permute(1, 2, 0).numpy()
    spoiled = trained.fabric.to_device(torch.from_numpy(blurred(pixels, params.cell)).permute(2, 0, 1))
    whole, nothing = (listen(trained, picture[None]).of(keypoints) for picture in (image, spoiled))
    asked = Asked(image, keypoints, whole.points)
    rng = np.random.default_rng((params.seed, index))
    with trained.fabric.autocast():
        maps = dependency_maps(trained.network, asked, params.cell, rng)
    kept = keep_masks(np.stack(list(maps.values()), axis=1), params.shares, rng)
    between = listen_to_all(trained, image, spoiled, kept.reshape(-1, *kept.shape[-2:])).of(
        np.repeat(keypoints, np.prod(kept.shape[1:4]))
    )
    area_input = area * abs(float(np.linalg.det(matrix[:, :2])))
    shape = kept.shape[:4]  # (Q, M, 2, S)

    def similarity(points: Floats) -> Floats:
        """With the whole picture's, of points (Q * n, 2): (Q, n)."""
        away = points.reshape(len(keypoints), -1, 2) - asked.points[:, None]
        return falloff((away**2).sum(axis=-1), np.array(area_input), OKS_SIGMAS[keypoints, None])

    ends = [np.ones(len(keypoints)), similarity(nothing.points)[:, 0]]
    return Answer(
        index,
        asked,
        matrix,
        maps,
        whole_curves(similarity(between.points).reshape(shape), *ends),
        whole_curves(between.presence.reshape(shape), whole.presence, nothing.presence),
    )


def listen(trained: TrainedRun, images: Tensor) -> Said:
    """What the model says of pictures (B, 3, H, W), without a flip test, as maps are of one pass."""
    with torch.inference_mode():
        output = trained.model(images)
        decoded = decode(output.heatmaps.float(), trained.codec, trained.test.decoding)
        presence = decoded.score if output.presence_logits is None else output.presence_logits.float().sigmoid()
    return Said(*(values.double().cpu().numpy() for values in (decoded.keypoints_input, presence)))


def listen_to_all(trained: TrainedRun, image: Tensor, spoiled: Tensor, kept: NDArray[np.bool_]) -> Said:
    """Of one picture under masks (B, h, w), a batch at a time."""

    def batches() -> Iterator[Said]:
        for start in range(0, len(kept), trained.test.batch_size):
            masks = torch.from_numpy(kept[start : start + trained.test.batch_size])
            yield listen(trained, spoil(image, spoiled, trained.fabric.to_device(masks)))

    return Said(*(np.concatenate(values) for values in zip(*batches(), strict=True)))


def gather(answers: list[Answer], persons: list[Person], trained: TrainedRun, params: DependencyParams) -> Dependencies:
    """All persons' answers as one."""
    numbers = [len(answer.asked.keypoints) for answer in answers]
    people = [persons[answer.person] for answer in answers]
    return Dependencies(
        image_ids=np.repeat([person.image_id for person in people], numbers),
        annotation_ids=np.repeat([person.annotation_id for person in people], numbers),
        keypoint=np.concatenate([answer.asked.keypoints for answer in answers]),
        matrix=np.repeat(np.stack([answer.matrix for answer in answers]), numbers, axis=0),
        points=np.concatenate([answer.asked.points for answer in answers]),
        input_size=np.array(trained.config.input_size),
        names=np.array(list(answers[0].maps)),
        maps=np.concatenate([np.stack(list(answer.maps.values()), axis=1) for answer in answers]),
        shares=np.array(params.shares),
        similarity=np.concatenate([answer.similarity for answer in answers]),
        presence=np.concatenate([answer.presence for answer in answers]),
    )


if __name__ == "__main__":
    run_command(main)
