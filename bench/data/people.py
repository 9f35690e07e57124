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
from bench.errors import UserError


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

    def places(self, annotation_ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Places (N,) of the people with these ids (N,).

        Raises:
            UserError: nobody has one of them.
        """
        place = {annotation_id: i for i, annotation_id in enumerate(self.annotation_id.tolist())}
        unknown = next((annotation_id for annotation_id in annotation_ids.tolist() if annotation_id not in place), None)
        if unknown is not None:
            raise UserError(f"annotation {unknown}: found in predictions, wanted one of the manifest: run `dvc repro`")
        return np.array([place[annotation_id] for annotation_id in annotation_ids.tolist()], dtype=np.int64)


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


def people_of(annotations: Sequence[CocoDict], image_ids: NDArray[np.integer]) -> People:
    """Checked annotations as arrays; those of other images are left out."""
    position = image_positions(image_ids, np.array([a["image_id"] for a in annotations], dtype=np.int64))
    order = np.argsort(position, kind="stable")
    order = order[position[order] >= 0]
    chosen = [annotations[i] for i in order]
    triplets = np.array([person["keypoints"] for person in chosen], dtype=np.float64)
    triplets = triplets.reshape(len(chosen), triplets.shape[-1] // 3 if chosen else NUM_KEYPOINTS, 3)
    return People(
        image=position[order],
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

    @classmethod
    def of(cls, coco: CocoDict) -> "Truth":
        """The images of a COCO file whose annotations are checked."""
        image_ids = np.array(sorted(image["id"] for image in coco["images"]), dtype=np.int64)
        return cls(image_ids, people_of(coco["annotations"], image_ids))

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

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
