"""Persons as samples: the crop that a model sees and what is known of its keypoints.

Targets are left to the device, in one batched step (`bench.training.losses`); models normalise pixels themselves.
Letters: B batch, K keypoints, H W input height and width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.data.augment import Augmentation, Body, random_view
from bench.data.coco import Person, read_image
from bench.data.crop_store import CropStore
from bench.data.geometry import Crop, View, bbox_to_view, crop_matrix, in_shown, inside, warp_points, warp_view
from bench.data.keypoints import NUM_KEYPOINTS, flip_order
from bench.data.presence import POLICIES, Labels


class Sample(NamedTuple):
    """One person; collated, every field gets a leading batch axis B."""

    image: Tensor  # (3, H, W) uint8 RGB
    keypoints_input: Tensor  # (K, 2) input pixels; meaningless where `visibility` is 0
    visibility: Tensor  # (K,) int64, COCO's v: 0 not labelled or not in what the view shows, 1 hidden, 2 visible
    present: Tensor  # (K,) 1 where present under the label policy
    present_weight: Tensor  # (K,) 1 where that label counts
    matrix: Tensor  # (2, 3) float64, image pixels to input pixels
    person_index: Tensor  # () place in the list of persons


Key = tuple[int, int]  # (epoch, index)


class PoseDataset(Dataset[Sample]):
    """Samples of persons, by (epoch, index); the epoch only varies the random view.

    Without `augmentation` the view is the padded box and the epoch has no effect. With a `store` of these persons under
    this crop and augmentation, pixels come from there instead of from the image files.
    """

    def __init__(
        self,
        persons: Sequence[Person],
        crop: Crop,
        policy: str,
        augmentation: Augmentation | None,
        seed: int,
        store: CropStore | None = None,
    ) -> None:
        self.persons = persons
        self.crop = crop
        self.policy = POLICIES[policy]
        self.augmentation = augmentation
        self.seed = seed
        self.store = store
        self._keypoints = np.reshape([person.keypoints for person in persons], (-1, NUM_KEYPOINTS, 2))
        self._labels = _stack([person.labels for person in persons])

    def __getitem__(self, key: Key) -> Sample:
        return Sample(*(field[0] for field in self.__getitems__([key])))

    def __getitems__(self, keys: Sequence[Key]) -> Sample:
        """The collated samples of a batch: what is the same step for every person is taken for all at once."""
        input_size, indices = self.crop.input_size, np.array([index for _, index in keys])
        views = [self._view(epoch, index) for epoch, index in keys]
        matrix = np.array([crop_matrix(view, input_size, self.crop.aligned) for view in views])  # (B, 2, 3)
        image = torch.empty((len(keys), 3, *input_size[::-1]), dtype=torch.uint8)
        for planes, view, own, index in zip(image.numpy(), views, matrix, indices.tolist(), strict=True):
            _split(warp_view(self._image(index, view), view, own, input_size), planes)
        keypoints, labels = self._keypoints[indices], _take(self._labels, indices)
        keypoints_input = warp_points(keypoints, matrix)
        shown = np.array([in_shown(points, view) for points, view in zip(keypoints, views, strict=True)])
        in_window = inside(keypoints_input, input_size) & shown
        label = self.policy.label(labels, in_window)
        # A random view may cut labelled keypoints away: the model cannot know them, so they do not count.
        seen = (labels.visibility == 0) | in_window | self.policy.reads_window
        flipped = np.array([view.flip for view in views])
        order = np.where(flipped[:, None], flip_order(), np.arange(NUM_KEYPOINTS))  # (B, K)
        person = np.arange(len(keys))[:, None]
        return Sample(
            image=image,
            keypoints_input=torch.from_numpy(keypoints_input[person, order]).float(),
            visibility=torch.from_numpy((labels.visibility * shown)[person, order]),
            present=torch.from_numpy(label.present[person, order]).float(),
            present_weight=torch.from_numpy((label.present_weight * seen)[person, order]),
            matrix=torch.from_numpy(matrix),
            person_index=torch.from_numpy(indices),
        )

    def _view(self, epoch: int, index: int) -> View:
        person, input_size = self.persons[index], self.crop.input_size
        view = bbox_to_view(person.bbox, input_size, self.crop.bbox_padding, self.crop.fit)
        if self.augmentation is None:
            return view
        rng = np.random.default_rng((self.seed, epoch, index))
        body = Body(person.keypoints, person.labels.visibility > 0)
        return random_view(view, body, self.augmentation, input_size, self.crop.fit, rng)

    def _image(self, index: int, view: View) -> NDArray[np.uint8]:
        if self.store is None:
            return read_image(self.persons[index].image_file)
        return self.store.image_for(index, view)


def _split(image: NDArray[np.uint8], planes: NDArray[np.uint8]) -> None:
    """Write the channels of (H, W, 3) into (3, H, W)."""
    for channel, plane in enumerate(planes):
        cv2.extractChannel(image, channel, dst=plane)


def _stack(labels: Sequence[Labels]) -> Labels:
    """Of all persons (N, K); the truth only where it is known of everybody."""
    truths = [truth for one in labels if (truth := one.true_visibility) is not None]
    return Labels(
        visibility=np.reshape([one.visibility for one in labels], (-1, NUM_KEYPOINTS)).astype(np.int64),
        true_visibility=np.reshape(truths, (-1, NUM_KEYPOINTS)) if len(truths) == len(labels) else None,
        at_border=np.array([bool(one.at_border) for one in labels]),
    )


def _take(labels: Labels, indices: NDArray[np.int64]) -> Labels:
    truth = labels.true_visibility
    return Labels(labels.visibility[indices], None if truth is None else truth[indices], labels.at_border[indices])


class Part(NamedTuple):
    """Which of several processes' parts of the same work."""

    number: int = 0
    of: int = 1

    def take(self, keys: list[Key]) -> list[Key]:
        """A run of them; parts differ by one at most."""
        return keys[len(keys) * self.number // self.of : len(keys) * (self.number + 1) // self.of]


WHOLE = Part()


def shuffled_loader(
    dataset: PoseDataset, batch_size: int, num_workers: int, epoch: int, start: int = 0, part: Part = WHOLE
) -> DataLoader[Sample]:
    """One epoch in seeded random order, from a batch on, of each a part; the last, incomplete batch is left out."""
    order = np.random.default_rng((dataset.seed, epoch)).permutation(len(dataset.persons))
    keys = [(epoch, int(index)) for index in order]
    whole = _batches(keys, batch_size)[start : len(keys) // batch_size]
    return _loader(dataset, [part.take(batch) for batch in whole], num_workers)


def ordered_loader(dataset: PoseDataset, batch_size: int, num_workers: int, part: Part = WHOLE) -> DataLoader[Sample]:
    """Every person of a part once, in order, in the plain view."""
    keys = [(0, index) for index in range(len(dataset.persons))]
    return _loader(dataset, _batches(part.take(keys), batch_size), num_workers)


def _batches(keys: list[Key], batch_size: int) -> list[list[Key]]:
    return [keys[first : first + batch_size] for first in range(0, len(keys), batch_size)]


def _loader(dataset: PoseDataset, batches: list[list[Key]], num_workers: int) -> DataLoader[Sample]:
    """A GPU copies from pinned memory while it computes.

    With a generator of its own: to start workers the library draws a random number, and dropout would depend on who
    reads the images.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    """Collated by `PoseDataset.__getitems__` already, whatever the library's types say."""
    return batch
