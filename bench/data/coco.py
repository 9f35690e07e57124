"""COCO-format annotations: strict reading, persons, images.

A manifest (`bench.data.subset`) is itself a COCO file, so the same reader serves COCO, drawn people and subsets.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.presence import Labels
from bench.errors import UserError

# A crop is too small for threads of OpenCV's own, and they would fight with the loader's and the pool's processes.
cv2.setNumThreads(0)

CocoDict = dict[str, Any]
PERSON_CATEGORY = 1


class Person(NamedTuple):
    """One annotated person. Arrays are never edited in place.

    `bbox` (x, y, w, h) and `keypoints` (K, 2) in image pixels; `labels` holds COCO's v, kept as is, and the truth of
    drawn people (0 outside the image, 1 hidden, 2 visible).
    """

    annotation_id: int
    image_id: int
    image_file: Path
    bbox: Floats
    bbox_score: float
    keypoints: Floats
    labels: Labels


def read_coco(file: Path) -> CocoDict:
    """A COCO keypoint file as a dict with `images` and `annotations`; annotations are not looked into yet.

    Raises:
        UserError: missing, unreadable or broken JSON, or not COCO's layout; ids that are missing or not unique.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}), wanted a COCO keypoint file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start}), wanted a COCO keypoint file") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{file}: broken JSON ({error}), wanted a COCO keypoint file") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{file}: found a {type(content).__name__} at the top, wanted a mapping with images, annotations"
        )
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            raise UserError(f"{file}: {key}: found {_short(content.get(key))}, wanted a list")
        _check_ids(content[key], f"{file}: {key}")
    return content


def _check_ids(entries: list[Any], where: str) -> None:
    seen = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or type(entry.get("id")) is not int:
            raise UserError(f"{where}[{position}]: found {_short(entry)}, wanted a mapping with a whole-number id")
        if entry["id"] in seen:
            raise UserError(f"{where}[{position}]: id {entry['id']} is used twice, wanted unique ids")
        seen.add(entry["id"])


def check_image(image: CocoDict) -> str | None:
    """What is wrong with an entry of `images`, or None."""
    for key in ("width", "height"):
        if type(image.get(key)) is not int or image[key] < 1:
            return f"{key}: found {_short(image.get(key))}, wanted a whole number of pixels"
    name = image.get("file_name")
    if not isinstance(name, str) or not name or Path(name).is_absolute() or ".." in Path(name).parts:
        return f"file_name: found {_short(name)}, wanted a path inside of the image folder"
    return None


def check_annotation(annotation: CocoDict) -> str | None:
    """What is wrong with an entry of `annotations`, or None: `key: found, wanted`."""
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "image_id": (lambda value: type(value) is int, "a whole number"),
        "category_id": (lambda value: value == PERSON_CATEGORY, f"{PERSON_CATEGORY}, a person"),
        "keypoints": (lambda value: _numbers(value, 3 * NUM_KEYPOINTS), f"{3 * NUM_KEYPOINTS} finite numbers"),
        "bbox": (lambda value: _numbers(value, 4) and min(value[2:]) > 0, "[x, y, w, h] with w, h > 0"),
        "area": (lambda value: _numbers([value], 1) and value >= 0, "a number of pixels"),
        "iscrowd": (lambda value: value in (0, 1), "0 or 1"),
    }
    for key, (accept, wanted) in checks.items():
        if not accept(annotation.get(key)):
            return f"{key}: found {_short(annotation.get(key))}, wanted {wanted}"
    visibility = annotation["keypoints"][2::3]
    if not set(visibility) <= {0, 1, 2}:
        return f"keypoints: found visibility {_short(sorted(set(visibility) - {0, 1, 2}))}, wanted 0, 1 or 2"
    num_labelled = sum(v > 0 for v in visibility)
    if annotation.get("num_keypoints") != num_labelled:
        found = _short(annotation.get("num_keypoints"))
        return f"num_keypoints: found {found}, wanted {num_labelled}, the number of keypoints with v > 0"
    truth = annotation.get("true_keypoints")
    if truth is not None and not _numbers(truth, 3 * NUM_KEYPOINTS):
        return f"true_keypoints: found {_short(truth)}, wanted {3 * NUM_KEYPOINTS} finite numbers"
    return None


def is_scored(annotation: CocoDict) -> bool:
    """Whether COCO's keypoint evaluation scores this person: at least one labelled keypoint and no crowd."""
    return annotation["num_keypoints"] > 0 and not annotation["iscrowd"]


def persons_of(manifest: CocoDict) -> list[Person]:
    """The scored persons of a manifest, in its order."""
    root = Path(manifest["info"]["image_root"])
    image_files = {image["id"]: root / image["file_name"] for image in manifest["images"]}
    return [_person(a, image_files[a["image_id"]]) for a in manifest["annotations"] if is_scored(a)]


def _person(annotation: CocoDict, image_file: Path) -> Person:
    triples = np.array(annotation["keypoints"], dtype=np.float64).reshape(NUM_KEYPOINTS, 3)
    truth = annotation.get("true_keypoints")
    return Person(
        annotation_id=annotation["id"],
        image_id=annotation["image_id"],
        image_file=image_file,
        bbox=np.array(annotation["bbox"], dtype=np.float64),
        bbox_score=1.0,
        keypoints=triples[:, :2],
        labels=Labels(
            visibility=triples[:, 2].astype(np.int64),
            true_visibility=None if truth is None else np.array(truth[2::3], dtype=np.int64),
        ),
    )


def read_image(file: Path) -> NDArray[np.uint8]:
    """An image (H, W, 3), RGB.

    Raises:
        UserError: the file is missing or no image.
    """
    image = cv2.imread(str(file), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError(f"{file}: cannot be read as an image, wanted a JPEG or PNG file")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _numbers(value: Any, length: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x) for x in value)
    )


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
