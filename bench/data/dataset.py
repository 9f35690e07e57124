"""Persons as samples: the crop that a model sees and what is known of its keypoints.

Targets are left to the device, in one batched step (`bench.training.losses`); models normalise pixels themselves.
Letters: K keypoints, H W input height and width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.data.augment import Augmentation, Body, random_view
from bench.data.coco import Person, read_image
from bench.data.geometry import Crop, bbox_to_view, crop_matrix, in_shown, inside, warp_points, warp_view
from bench.data.keypoints import flip_order
from bench.data.presence import POLICIES


class Sample(NamedTuple):
    """One person; collated, every field gets a leading batch axis B."""

    image: Tensor  # (3, H, W) uint8 RGB
    keypoints_input: Tensor  # (K, 2) input pixels; meaningless where `visibility` is 0
    visibility: Tensor  # (K,) int64, COCO's v: 0 not labelled or not in what the view shows, 1 hidden, 2 visible
    present: Tensor  # (K,) 1 where present under the label policy
    present_weight: Tensor  # (K,) 1 where that label counts
    matrix: Tensor  # (2, 3) float64, image pixels to input pixels
    person_index: Tensor  # () place in the list of persons


class PoseDataset(Dataset[Sample]):
    """Samples of persons, by (epoch, index); the epoch only varies the random view.

    Without `augmentation` the view is the padded box and the epoch has no effect.
    """

    def __init__(
        self, persons: Sequence[Person], crop: Crop, policy: str, augmentation: Augmentation | None, seed: int
    ) -> None:
        self.persons = persons
        self.crop = crop
        self.policy = POLICIES[policy]
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        person = self.persons[index]
        input_size, visibility = self.crop.input_size, person.labels.visibility
        view = bbox_to_view(person.bbox, input_size, self.crop.bbox_padding, self.crop.fit)
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, epoch, index))
            body = Body(person.keypoints, visibility > 0)
            view = random_view(view, body, self.augmentation, input_size, self.crop.fit, rng)
        matrix = crop_matrix(view, input_size, self.crop.aligned)
        image = warp_view(read_image(person.image_file), view, matrix, input_size)
        keypoints_input = warp_points(person.keypoints, matrix)
        shown = in_shown(person.keypoints, view)
        in_window = inside(keypoints_input, input_size) & shown
        label = self.policy.label(person.labels, in_window)
        # A random view may cut labelled keypoints away: the model cannot know them, so they do not count.
        seen = (visibility == 0) | in_window | self.policy.reads_window
        order = flip_order() if view.flip else slice(None)
        return Sample(
            image=torch.from_numpy(image).permute(2, 0, 1).contiguous(),
            keypoints_input=torch.from_numpy(keypoints_input[order]).float(),
            visibility=torch.tensor((visibility * shown)[order]),
            present=torch.from_numpy(label.present[order]).float(),
            present_weight=torch.from_numpy((label.present_weight * seen)[order]),
            matrix=torch.from_numpy(matrix),
            person_index=torch.tensor(index),
        )


def shuffled_loader(dataset: PoseDataset, batch_size: int, num_workers: int, epoch: int) -> DataLoader[Sample]:
    """One epoch in seeded random order; the last, incomplete batch is left out."""
    order = np.random.default_rng((dataset.seed, epoch)).permutation(len(dataset.persons))
    sampler = [(epoch, int(index)) for index in order]
    return DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers, drop_last=True)


def ordered_loader(dataset: PoseDataset, batch_size: int, num_workers: int) -> DataLoader[Sample]:
    """Every person once, in order, in the plain view."""
    sampler = [(0, index) for index in range(len(dataset.persons))]
    return DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers)
