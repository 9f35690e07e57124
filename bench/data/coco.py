"""COCO-format annotations: strict reading, persons, images.

A manifest (`bench.data.subset`) is itself a COCO file, so the same reader serves COCO, drawn people and subsets.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.presence import BORDER, Labels
from bench.errors import UserError

# A crop is too small for threads of OpenCV's own, and they would fight with the loader's and the pool's processes.
cv2.setNumThreads(0)

CocoDict = dict[str, Any]
PERSON_CATEGORY = 1


class Person(NamedTuple):
    """One annotated person. Arrays are never edited in place.

    `bbox` (x, y, w, h) and `keypoints` (K, 2) in image pixels; `labels` holds COCO's v, kept as is, and the truth of
    drawn people (0 outside the image, 1 hidden, 2 visible), whose `true_keypoints` (K, 2) are all known.
    """

    annotation_id: int
    image_id: int
    image_file: Path
    bbox: Floats
    bbox_score: float
    keypoints: Floats
    labels: Labels
    true_keypoints: Floats | None = None


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
    except (ValueError, RecursionError) as error:  # also a number of too many digits
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
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
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


class Layout(NamedTuple):
    """What data sets annotate differently in COCO's format."""

    num_keypoints: int = NUM_KEYPOINTS
    num_counted: int = NUM_KEYPOINTS  # num_keypoints counts labelled keypoints among so many of the first, or all
    has_area: bool = True  # of the person's segment
    cut: bool = False  # v may be `OUTSIDE`, and num_keypoints may count what there was before the picture was cut

    def count(self, visibility: Sequence[float]) -> int:
        """What num_keypoints says of a person whose keypoints have these v."""
        return sum(v > 0 for v in visibility[: self.num_counted])


OUTSIDE = 3
"""CropCOCO's level of visibility, which COCO does not have."""

COCO_LAYOUT = Layout()
CROPCOCO_LAYOUT = Layout(cut=True)
CROWDPOSE_LAYOUT = Layout(num_keypoints=14, num_counted=12, has_area=False)  # head and neck, the last, are not counted


def check_annotation(annotation: CocoDict, layout: Layout = COCO_LAYOUT) -> str | None:
    """What is wrong with an entry of `annotations`, or None: `key: found, wanted`."""
    num_values = 3 * layout.num_keypoints
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "image_id": (_is_id, "a whole number"),
        "category_id": (lambda value: value == PERSON_CATEGORY, f"{PERSON_CATEGORY}, a person"),
        "keypoints": (lambda value: _numbers(value, num_values), f"{num_values} finite numbers"),
        "bbox": (lambda value: _numbers(value, 4) and min(value[2:]) > 0, "[x, y, w, h] with w, h > 0"),
        "area": (lambda value: _numbers([value], 1) and value >= 0, "a number of pixels"),
        "iscrowd": (lambda value: value in (0, 1), "0 or 1"),
    }
    for key, (accept, wanted) in checks.items():
        if (key != "area" or layout.has_area) and not accept(annotation.get(key)):
            return f"{key}: found {_short(annotation.get(key))}, wanted {wanted}"
    visibility = annotation["keypoints"][2::3]
    levels, wanted = ({0, 1, 2, OUTSIDE}, f"0, 1, 2 or {OUTSIDE}") if layout.cut else ({0, 1, 2}, "0, 1 or 2")
    if not set(visibility) <= levels:
        return f"keypoints: found visibility {_short(sorted(set(visibility) - levels))}, wanted {wanted}"
    if fault := _count_fault(annotation.get("num_keypoints"), visibility, layout):
        return f"num_keypoints: found {_short(annotation.get('num_keypoints'))}, wanted {fault}"
    truth = annotation.get("true_keypoints")
    if truth is not None and not _numbers(truth, num_values):
        return f"true_keypoints: found {_short(truth)}, wanted {num_values} finite numbers"
    return None


def _count_fault(found: Any, visibility: Sequence[float], layout: Layout) -> str | None:
    """The right numbers in words, or None where `found` is one."""
    labelled, num_counted = sum(v > 0 for v in visibility), layout.count(visibility)
    if layout.cut:
        near = sum(v in (1, 2) for v in visibility)
        right = type(found) is int and (found == near or labelled <= found <= layout.num_keypoints)
        wanted = f"{near}, or {labelled} with those of v = {OUTSIDE}, or more as before the picture was cut"
    elif num_counted == labelled:
        right, wanted = found == labelled, f"{labelled}, the number of keypoints with v = 1 or 2"
    else:
        right = found in (num_counted, labelled)
        wanted = f"{num_counted}, the number of keypoints with v = 1 or 2 among the first {layout.num_counted}"
    return None if right else wanted


def is_scored(annotation: CocoDict) -> bool:
    """Whether COCO's keypoint evaluation scores this person: at least one labelled keypoint and no crowd."""
    return annotation["num_keypoints"] > 0 and not annotation["iscrowd"]


def persons_of(manifest: CocoDict) -> list[Person]:
    """The scored persons of a manifest, in its order."""
    image_files, sizes = _image_files(manifest), image_sizes(manifest)
    return [
        _person(a, image_files[a["image_id"]], sizes[a["image_id"]]) for a in manifest["annotations"] if is_scored(a)
    ]


def areas_of(persons: Sequence[Person], manifest: CocoDict) -> Floats:
    """Areas (N,) of the persons' segments in square pixels."""
    areas = {annotation["id"]: float(annotation["area"]) for annotation in manifest["annotations"]}
    return np.array([areas[person.annotation_id] for person in persons])


def _image_files(manifest: CocoDict) -> dict[int, Path]:
    """By image id."""
    root = Path(manifest["info"]["image_root"])
    return {image["id"]: root / image["file_name"] for image in manifest["images"]}


def image_sizes(manifest: CocoDict) -> dict[int, tuple[int, int]]:
    """(w, h) by image id."""
    return {image["id"]: (image["width"], image["height"]) for image in manifest["images"]}


def _person(annotation: CocoDict, image_file: Path, image_size: tuple[int, int]) -> Person:
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
            at_border=reaches_border(np.array(annotation["bbox"], dtype=np.float64), np.array(image_size)),
        ),
        true_keypoints=None if truth is None else np.array(truth, dtype=np.float64).reshape(NUM_KEYPOINTS, 3)[:, :2],
    )


def reaches_border(bbox: Floats, image_size: NDArray[np.number]) -> NDArray[np.bool_]:
    """Whether boxes (..., 4) reach the border of their images (..., 2), (w, h), within `BORDER` pixels."""
    corner = bbox[..., :2]
    reaches: NDArray[np.bool_] = (corner <= BORDER) | (corner + bbox[..., 2:] >= image_size - BORDER)
    return np.asarray(reaches.any(axis=-1))


def persons_in(bboxes: Floats, bbox_scores: Floats, image_ids: NDArray[np.int64], manifest: CocoDict) -> list[Person]:
    """Detected boxes (D, 4) as persons of whom nothing is labelled, and whose annotation_id is -1."""
    image_files = _image_files(manifest)
    keypoints, visibility = np.zeros((NUM_KEYPOINTS, 2)), np.zeros(NUM_KEYPOINTS, dtype=np.int64)
    return [
        Person(-1, image_id, image_files[image_id], bbox, score, keypoints, Labels(visibility, None))
        for image_id, bbox, score in zip(image_ids.tolist(), bboxes, bbox_scores.tolist(), strict=True)
    ]


class StoredImage(NamedTuple):
    """What the file of a picture holds: sizes (w, h), as stored and as an EXIF tag asks to show it."""

    size: tuple[int, int]
    shown_size: tuple[int, int]
    turned: bool  # whether the tag asks to turn or mirror what is stored

    def size_fault(self, annotated: tuple[int, int]) -> str | None:
        """What is wrong with the size (w, h) that a file of annotations gives."""
        if self.size == annotated:
            return None
        turned = self.shown_size == annotated
        why = " once its EXIF tag is followed: store the pixels turned, without the tag" if turned else ""
        (width, height), (wanted_width, wanted_height) = self.size, annotated
        return f"found {width} x {height} pixels, wanted {wanted_width} x {wanted_height} as annotated{why}"


def read_image(file: Path) -> NDArray[np.uint8]:
    """An image (H, W, 3), RGB, as stored: a tag that asks viewers to turn it is not followed.

    Raises:
        UserError: the file is missing, no image or cut, or has more than 8 bits for each channel.
    """
    return _decode(file, _content(file), cv2.IMREAD_IGNORE_ORIENTATION)


def inspect_image(file: Path) -> StoredImage:
    """Decodes the whole image, as `read_image` does.

    Raises:
        UserError: as `read_image`.
    """
    content = _content(file)
    stored = _decode(file, content, cv2.IMREAD_IGNORE_ORIENTATION)
    shown = _decode(file, content, 0) if any(mark in content for mark in EXIF_MARKS) else stored
    (height, width), (shown_height, shown_width) = stored.shape[:2], shown.shape[:2]
    return StoredImage((width, height), (shown_width, shown_height), turned=not np.array_equal(stored, shown))


def turned_sentence(names: Sequence[str], num_images: int) -> str:
    """What to know where an EXIF tag asks viewers to turn some of the pictures of annotations."""
    first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"{len(names)} of {num_images} pictures have an EXIF tag that asks viewers to turn them ({first}). They are "
        "taken as stored, as COCO's labels count pixels. If yours were drawn on the turned pictures, store the pixels "
        "turned, without the tag"
    )


EXIF_MARKS = (b"Exif", b"eXIf", b"EXIF", b"II*\0", b"MM\0*")
"""In JPEG, PNG and WebP, and the start of a TIFF file, which has such tags without a mark."""


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read as an image, wanted a JPEG or PNG file ({error.strerror})") from error


def _decode(file: Path, content: bytes, flag: int) -> NDArray[np.uint8]:
    """From memory, where OpenCV refuses a cut JPEG; from a file it would fill the lost part without a word."""
    if _is_jpeg_without_end(content):
        raise UserError(f"{file}: cannot be read as an image, wanted a whole JPEG file: its end is missing")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | flag)
    except cv2.error:  # an empty file, or more than 2^30 pixels
        image = None
    if image is None:
        raise UserError(f"{file}: cannot be read as an image, wanted a whole JPEG or PNG file (it is none, or cut)")
    if image.dtype != np.uint8:
        raise UserError(
            f"{file}: found {8 * image.itemsize} bits for each channel, wanted 8: scale its values to 0 to 255 and "
            "save it anew (the upper 8 bits alone may be black)"
        )
    return np.asarray(image, dtype=np.uint8)


def _is_jpeg_without_end(content: bytes) -> bool:
    """Whether no end follows the pixels, as where a download left zeros; a preview in the head has its own end."""
    if not content.startswith(b"\xff\xd8\xff"):
        return False
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] != b"\xda":  # segments of the head
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return b"\xff\xd9" not in content[place:]


def _is_id(value: Any) -> bool:
    return type(value) is int and value.bit_length() < 64  # as arrays hold it


def _numbers(value: Any, length: int) -> bool:
    largest = sys.float_info.max  # JSON's whole numbers may be larger
    return (
        isinstance(value, list)
        and len(value) == length
        and all(type(x) in {int, float} and -largest <= x <= largest for x in value)
    )


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
