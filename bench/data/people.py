"""People and detections as arrays: what evaluation reads, whatever file it came from.

Letters: I images, P annotated people, D detections, K keypoints. Images are counted by the order of their ids.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import CocoDict
from bench.data.geometry import Floats
from bench.data.keypoints import NUM_KEYPOINTS


class People(NamedTuple):
    """Annotated people, those of an image next to each other, in the order of their file."""

    image: NDArray[np.int64]  # (P,) position of the image, ascending
    keypoints: Floats  # (P, K, 2) image pixels; meaningless where `visibility` is 0
    visibility: NDArray[np.int64]  # (P, K) COCO's v
    area: Floats  # (P,) of the segment, square pixels
    bbox: Floats  # (P, 4) x, y, w, h
    crowd: NDArray[np.bool_]  # (P,) a region of many people: may be matched many times, never counts
    num_keypoints: NDArray[np.int64]  # (P,) as annotated; nobody with 0 counts
    annotation_id: NDArray[np.int64]  # (P,)


class Detections(NamedTuple):
    """Predicted poses, in the order of their file."""

    image: NDArray[np.int64]  # (D,) position of the image
    keypoints: Floats  # (D, K, 2) image pixels
    keypoint_score: Floats  # (D, K) the third value of each keypoint
    score: Floats  # (D,) the person score
    area: Floats  # (D,) square pixels, which decides what an unmatched detection counts for

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "Detections":
        """Some of them, in the order of `index`."""
        return Detections(
            self.image[index], self.keypoints[index], self.keypoint_score[index], self.score[index], self.area[index]
        )


def image_positions(image_ids: NDArray[np.integer], of: NDArray[np.integer]) -> NDArray[np.int64]:
    """Positions of the images `of` among `image_ids` in ascending order; -1 for one that is not there."""
    known = np.sort(image_ids)
    if len(known) == 0:
        return np.full(len(of), -1)
    position = np.minimum(np.searchsorted(known, of), len(known) - 1)
    return np.where(known[position] == of, position, -1).astype(np.int64)


def by_image(annotations: Sequence[CocoDict], image_ids: NDArray[np.integer]) -> list[CocoDict]:
    """Those of these images, in ascending order of the images, those of one in the order given."""
    position = image_positions(image_ids, np.array([a["image_id"] for a in annotations], dtype=np.int64))
    order = np.argsort(position, kind="stable")
    return [annotations[i] for i in order[position[order] >= 0]]


def people_of(annotations: Sequence[CocoDict], image_ids: NDArray[np.integer]) -> People:
    """Checked annotations as arrays; those of other images are left out."""
    chosen = by_image(annotations, image_ids)
    triplets = np.array([person["keypoints"] for person in chosen], dtype=np.float64)
    triplets = triplets.reshape(len(chosen), triplets.shape[-1] // 3 if chosen else NUM_KEYPOINTS, 3)
    return People(
        image=image_positions(image_ids, np.array([person["image_id"] for person in chosen], dtype=np.int64)),
        keypoints=triplets[..., :2],
        visibility=triplets[..., 2].astype(np.int64),
        area=np.array([person["area"] for person in chosen], dtype=np.float64),
        bbox=np.array([person["bbox"] for person in chosen], dtype=np.float64).reshape(-1, 4),
        crowd=np.array([person["iscrowd"] for person in chosen], dtype=bool),
        num_keypoints=np.array([person["num_keypoints"] for person in chosen], dtype=np.int64),
        annotation_id=np.array([person["id"] for person in chosen], dtype=np.int64),
    )


class Truth(NamedTuple):
    """Everybody in a set of images."""

    image_ids: NDArray[np.int64]  # (I,) ascending
    people: People
    annotation_ids: NDArray[np.int64]  # (P,) of the people

    @classmethod
    def of(cls, coco: CocoDict) -> "Truth":
        """The images of a COCO file whose annotations are checked."""
        image_ids = np.array(sorted(image["id"] for image in coco["images"]), dtype=np.int64)
        annotation_ids = np.array([a["id"] for a in by_image(coco["annotations"], image_ids)], dtype=np.int64)
        return cls(image_ids, people_of(coco["annotations"], image_ids), annotation_ids)

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    def persons(self, annotation_ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Places (N,) among the people of those with these ids (N,)."""
        order = np.argsort(self.annotation_ids)
        place = order[np.searchsorted(self.annotation_ids, annotation_ids, sorter=order) % len(order)]
        assert (self.annotation_ids[place] == annotation_ids).all(), "a person who is not annotated"
        return np.asarray(place)

    def detections(
        self, image_ids: NDArray[np.integer], keypoints: Floats, keypoint_score: Floats, score: Floats
    ) -> Detections:
        """Poses in these images: image_ids and score (D,), keypoints (D, K, 2), keypoint_score (D, K)."""
        image = image_positions(self.image_ids, image_ids)
        assert (image >= 0).all(), "a detection in an image that is not evaluated"
        return Detections(image, keypoints, keypoint_score, score, extent_area(keypoints))


def extent_area(keypoints: Floats) -> Floats:
    """Area (D,) of the smallest box around all keypoints (D, K, 2), as the COCO tools take it of a result."""
    w, h = np.moveaxis(keypoints.max(axis=-2) - keypoints.min(axis=-2), -1, 0)
    return np.asarray(w * h)
