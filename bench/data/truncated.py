"""Samples of truncated persons: every person of a list under every condition of a grid (`bench.data.truncation`).

Letters: K keypoints, H W input height and width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from bench.data.coco import Person, read_image
from bench.data.dataset import Sample
from bench.data.geometry import Crop, Floats, View, crop_matrix, warp_points, warp_view
from bench.data.presence import PresenceLabel
from bench.data.truncation import (
    Condition,
    Truncated,
    check_condition,
    exists,
    geometric_label,
    is_covered,
    kept_bbox,
    truncate,
)

Image = NDArray[np.uint8]

FILLS = {"zeros": (0, 0, 0), "mean": (124, 116, 104)}
"""RGB; the mean colour of ImageNet is 255 * (.485, .456, .406), which is 0 once a model has normalised it."""

Key = tuple[int, int]
"""Which condition and which person, by their places."""


def render(image: Image, truncated: Truncated, crop: Crop, padding: str) -> Image:
    """The crop (H, W, 3) that a model is shown of an image (h, w, 3); `padding` of `PADDINGS`.

    What a letterbox leaves free stays black under every padding.
    """
    matrix = crop_matrix(truncated.view, crop.input_size, crop.aligned)
    part, corner = _remaining(_cover(image, truncated.patches, padding), truncated.remains)
    if part.size == 0:
        return np.full((*crop.input_size[::-1], 3), FILLS.get(padding, 0), dtype=np.uint8)
    view = truncated.view._replace(center=truncated.view.center - corner)
    matrix[:, 2] += matrix[:, :2] @ corner
    if padding == "zeros":
        return warp_view(part, view, matrix, crop.input_size)
    return _darken(_warp(part, matrix, crop.input_size, padding), view, matrix)


def _cover(image: Image, patches: Floats, padding: str) -> Image:
    """The image with every pixel painted over whose centre lies under a patch (P, 4)."""
    if len(patches) == 0:
        return image
    image = image.copy()
    for x0, y0, x1, y1 in np.maximum(np.floor(patches).astype(int) + 1, 0).tolist():
        image[y0:y1, x0:x1] = FILLS[padding]
    return image


def _remaining(image: Image, remains: Floats) -> tuple[Image, Floats]:
    """What is left of an image, and its upper left corner (x, y) in it."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.ceil(np.clip(remains, 0, [width, height] * 2)).astype(int).tolist()
    return image[y0:y1, x0:x1], np.array([x0, y0], dtype=np.float64)


def _warp(image: Image, matrix: Floats, input_size: tuple[int, int], padding: str) -> Image:
    """`warp_image`, with other things than black outside of the image."""
    mode = cv2.BORDER_REFLECT if padding == "reflect" else cv2.BORDER_CONSTANT
    fill = FILLS.get(padding, (0, 0, 0))
    warped = cv2.warpAffine(image, matrix, input_size, flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=fill)
    return np.asarray(warped, dtype=np.uint8)


def _darken(image: Image, view: View, matrix: Floats) -> Image:
    """Black where an unrotated view shows nothing."""
    if view.shown is None:
        return image
    low, high = (warp_points((view.center + sign * view.shown / 2)[None], matrix)[0] for sign in (-1, 1))
    (x0, y0), (x1, y1) = np.ceil(low).astype(int).tolist(), (np.floor(high).astype(int) + 1).tolist()
    dark = np.zeros_like(image)
    dark[max(y0, 0) : y1, max(x0, 0) : x1] = image[max(y0, 0) : y1, max(x0, 0) : x1]
    return dark


class Tally(NamedTuple):
    """What a condition asks of a list of persons: how many, and of how many keypoints what is known."""

    num_persons: int
    num_excluded: int  # nothing of them is kept
    num_empty: int  # of those not excluded: no keypoint is left that is known to be present
    num_present: int
    num_absent: int
    num_unknown: int  # neither labelled nor drawn


class TruncatedDataset(Dataset[Sample]):
    """Samples by (place of the condition, place of the person); `keys` has all that there are.

    A person under a condition that keeps nothing of it has no sample; it is in `excluded`. One with no known keypoint
    left does have one (`Tally.num_empty`). The order of keys is person by person, for then an image is read once.

    Images, keypoints and visibility are those of `PoseDataset` where all is kept, but for what padding shows outside
    of the image. `present` is the truth by geometry (`geometric_label`), under no label policy. A keypoint that is cut
    away has visibility 0, a covered one at most 1; one that the window leaves out keeps its own, as in `PoseDataset`.

    Raises:
        UserError: a condition that does not exist.
    """

    def __init__(self, persons: Sequence[Person], crop: Crop, conditions: Sequence[Condition], seed: int) -> None:
        for condition in conditions:
            check_condition(condition)
        self.persons = persons
        self.crop = crop
        self.conditions = conditions
        self.seed = seed
        everything = [(c, p) for p in range(len(persons)) for c in range(len(conditions))]
        self.keys: list[Key] = [key for key in everything if self._is_kept(key)]
        self.excluded: list[Key] = [key for key in everything if not self._is_kept(key)]
        self._last_image: tuple[Path, Image] | None = None

    def _is_kept(self, key: Key) -> bool:
        return kept_bbox(self.persons[key[1]].bbox, self.conditions[key[0]]) is not None

    def truncated(self, key: Key) -> Truncated:
        """The geometry of one of `keys`. The draws of a person are the same under all conditions."""
        condition, index = key
        rng = np.random.default_rng((self.seed, index))
        truncated = truncate(self.persons[index], self.conditions[condition], self.crop, rng)
        assert truncated is not None, f"{key} is excluded"
        return truncated

    def label(self, key: Key) -> PresenceLabel:
        """What is present (K,) of one of `keys`, and of what that is known (K,), without a look at the image."""
        return geometric_label(self.persons[key[1]], self.truncated(key), self.crop)

    def __getitem__(self, key: Key) -> Sample:
        person, truncated = self.persons[key[1]], self.truncated(key)
        matrix = crop_matrix(truncated.view, self.crop.input_size, self.crop.aligned)
        image = render(self._read(person.image_file), truncated, self.crop, self.conditions[key[0]].padding)
        label = geometric_label(person, truncated, self.crop)
        visibility = person.labels.visibility * exists(person.keypoints, truncated)
        hidden = is_covered(person.keypoints, truncated.patches)
        return Sample(
            image=torch.from_numpy(image).permute(2, 0, 1).contiguous(),
            keypoints_input=torch.from_numpy(warp_points(person.keypoints, matrix)).float(),
            visibility=torch.from_numpy(np.where(hidden, np.minimum(visibility, 1), visibility)),
            present=torch.from_numpy(label.present).float(),
            present_weight=torch.from_numpy(label.present_weight),
            matrix=torch.from_numpy(matrix),
            person_index=torch.tensor(key[1]),
        )

    def _read(self, file: Path) -> Image:
        """The image that was read last is kept: the next sample is mostly of it."""
        if self._last_image is None or self._last_image[0] != file:
            self._last_image = file, read_image(file)
        return self._last_image[1]

    def tally(self) -> list[Tally]:
        """For every condition."""
        num_conditions = len(self.conditions)
        excluded = np.bincount([c for c, _ in self.excluded], minlength=num_conditions)
        counts = np.zeros((num_conditions, 4), dtype=int)
        for key in self.keys:
            label = self.label(key)
            known = label.present_weight > 0
            counts[key[0]] += [
                not label.present.any(), label.present.sum(), (known & ~label.present).sum(), (~known).sum(),
            ]  # fmt: skip
        return [Tally(len(self.persons), *map(int, (e, *row))) for e, row in zip(excluded, counts, strict=True)]


def truncated_loader(dataset: TruncatedDataset, batch_size: int, num_workers: int) -> DataLoader[Sample]:
    """Every key once, in the order of `dataset.keys`."""
    return DataLoader(dataset, batch_size, sampler=dataset.keys, num_workers=num_workers)
