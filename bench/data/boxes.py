"""Pictures of any kind, and the boxes of people in them from either of COCO's layouts.

A mapping with `images` and `annotations` names its pictures by `file_name`, of which the last part counts; a list of
results, as detectors write it, knows them by `image_id` alone, which is the number that COCO's files are named by
(000000000139.jpg). Letters: D boxes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bench.data.coco import PERSON_CATEGORY, CocoDict, check_image, read_coco, read_image
from bench.data.detections import DetectedBoxes, read_detections
from bench.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Of files that are taken for pictures in a folder, in either case."""


class Picture(NamedTuple):
    """`size` (w, h) in pixels as stored."""

    file: Path
    image_id: int
    size: tuple[int, int]


def find_pictures(path: Path) -> list[Picture]:
    """The picture at a path, or those of a folder (not of folders in it) by name.

    `image_id` is the number in the name where every file is named by a number of its own, as COCO's are, else the
    place from 1 on.

    Raises:
        UserError: nothing is there, the folder holds no picture, or a file cannot be read as one.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder, wanted a picture or a folder of pictures")
    files = sorted(file for file in path.iterdir() if _is_picture(file)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: found no picture in this folder, wanted files {', '.join(SUFFIXES)}")
    numbers = [int(file.stem) for file in files if file.stem.isascii() and file.stem.isdigit() and len(file.stem) < 19]
    ids = numbers if len(set(numbers)) == len(files) else list(range(1, len(files) + 1))
    return [Picture(file, image_id, _size(file)) for file, image_id in zip(files, ids, strict=True)]


def _is_picture(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _size(file: Path) -> tuple[int, int]:
    height, width, _ = read_image(file).shape
    return width, height


def is_turned(picture: Picture) -> bool:
    """Whether an EXIF tag asks viewers to turn or mirror what is stored."""
    stored = read_image(picture.file)
    shown = cv2.imread(str(picture.file), cv2.IMREAD_COLOR_RGB)
    return shown is not None and not np.array_equal(shown, stored)


def whole_pictures(pictures: Sequence[Picture]) -> DetectedBoxes:
    """Every picture as one box."""
    return DetectedBoxes(
        image_id=np.array([picture.image_id for picture in pictures]),
        bbox=np.array([[0.0, 0.0, *picture.size] for picture in pictures]),
        score=np.ones(len(pictures)),
    )


def read_boxes(file: Path, pictures: Sequence[Picture], min_score: float) -> tuple[list[Picture], DetectedBoxes]:
    """The pictures that a file knows, with its ids, and the boxes of people in them whose score is at least this.

    Boxes of annotations have score 1; those of crowds are left out.

    Raises:
        UserError: see `bench.data.coco.read_coco` and `bench.data.detections.read_detections`; the file knows none of
            the pictures, or has another size for one; a box without extent or wholly outside of its picture; no box.
    """
    if _starts_as_list(file):
        images = [{"id": image_id, "width": size[0], "height": size[1]} for _, image_id, size in pictures]
        return list(pictures), read_detections(file, images, min_score)
    content = read_coco(file)
    known = _known(file, content["images"], pictures)
    return known, _annotated(file, content["annotations"], known)


def _starts_as_list(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return content.read(64).lstrip().startswith(b"[")
    except OSError:
        return False  # the reader of the other layout says why


def _known(file: Path, images: Sequence[CocoDict], pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures that are among the images of an annotation file, with its ids."""
    for image in images:
        if fault := check_image(image):
            raise UserError(f"{file}: image {image['id']}: {fault}")
    named = {Path(image["file_name"]).name: image for image in images}
    known = []
    for picture in pictures:
        if picture.file.name not in named:
            continue
        image = named[picture.file.name]
        size = image["width"], image["height"]
        if size != picture.size:
            found = f"found {size[0]} x {size[1]} pixels, wanted {picture.size[0]} x {picture.size[1]}"
            raise UserError(f"{file}: image {image['id']}: {found} as {picture.file} has")
        known.append(picture._replace(image_id=image["id"]))
    if not known:
        raise UserError(f"{file}: images: found none of {len(pictures)} pictures, the first is {pictures[0].file.name}")
    return known


def _annotated(file: Path, annotations: Sequence[CocoDict], pictures: Sequence[Picture]) -> DetectedBoxes:
    size_of = {picture.image_id: picture.size for picture in pictures}
    people = [a for a in annotations if a.get("category_id") == PERSON_CATEGORY and not a.get("iscrowd")]
    people = [a for a in people if type(a.get("image_id")) is int and a["image_id"] in size_of]
    for annotation in people:
        width, height = size_of[annotation["image_id"]]
        if not _is_within(annotation.get("bbox"), (width, height)):
            wanted = f"[x, y, w, h] with w, h > 0 and a part inside of its image of {width} x {height} pixels"
            raise UserError(
                f"{file}: annotation {annotation['id']}: bbox: found {annotation.get('bbox')}, wanted {wanted}"
            )
    if not people:
        raise UserError(f"{file}: annotations: found no person in {len(pictures)} pictures, wanted one or more")
    return DetectedBoxes(
        image_id=np.array([annotation["image_id"] for annotation in people]),
        bbox=np.array([annotation["bbox"] for annotation in people], dtype=np.float64),
        score=np.ones(len(people)),
    )


def _is_within(bbox: object, size: tuple[int, int]) -> bool:
    """Whether a value of JSON is a box that shows something of its image."""
    if not isinstance(bbox, list) or len(bbox) != 4 or any(type(x) not in {int, float} for x in bbox):
        return False
    x, y, w, h = bbox
    shown = min(x + w, size[0]) - max(x, 0), min(y + h, size[1]) - max(y, 0)
    return min(w, h, *shown) > 0 and max(map(abs, bbox)) < float("inf")
