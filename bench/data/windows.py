"""What crops show of persons, and what is present in them under every policy. Letters: N persons, K keypoints."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import Person
from bench.data.geometry import Crop, Floats, bbox_to_view, crop_matrix, in_shown, inside, warp_points
from bench.data.presence import POLICIES, Labels, PresenceLabel


class Windows(NamedTuple):
    """What the model is shown of each person: `area` (N,) in square image pixels, what OKS-NMS takes for the person's
    size; `shows` (N, K) which labelled keypoints lie in it."""

    area: NDArray[np.float64]
    shows: NDArray[np.bool_]


def windows_of(persons: Sequence[Person], crop: Crop) -> Windows:
    views = [bbox_to_view(person.bbox, crop.input_size, crop.bbox_padding, crop.fit) for person in persons]
    shows = [
        inside(warp_points(person.keypoints, crop_matrix(view, crop.input_size, crop.aligned)), crop.input_size)
        & in_shown(person.keypoints, view)
        for person, view in zip(persons, views, strict=True)
    ]
    return Windows(np.array([view.scale.prod() for view in views]), np.stack(shows))


def shown_boxes(bboxes: Floats, input_size: tuple[int, int], padding: float, fit: str) -> Floats:
    """What crops show of boxes (N, 4), as x0, y0, x1, y1 (N, 4) in image pixels; black around a box is not shown."""
    views = [bbox_to_view(bbox, input_size, padding, fit) for bbox in bboxes]
    center = np.array([view.center for view in views]).reshape(-1, 2)
    size = np.array([view.scale if view.shown is None else view.shown for view in views]).reshape(-1, 2)
    return np.concatenate([center - size / 2, center + size / 2], axis=1)


def labels_of(persons: Sequence[Person]) -> Labels:
    """Of many persons as one; with the truth where all carry it."""
    truths = [person.labels.true_visibility for person in persons if person.labels.true_visibility is not None]
    return Labels(
        visibility=np.stack([person.labels.visibility for person in persons]),
        true_visibility=np.stack(truths) if len(truths) == len(persons) else None,
        at_border=np.array([person.labels.at_border for person in persons]),
    )


def label_persons(persons: Sequence[Person], windows: Windows) -> dict[str, PresenceLabel]:
    """(N, K) under every policy that the persons carry labels for."""
    labels = labels_of(persons)
    return {
        name: policy.label(labels, windows.shows)
        for name, policy in POLICIES.items()
        if labels.true_visibility is not None or not policy.needs_truth
    }
