"""Boxes that a person detector found, as a file in COCO's result format.

The layout is that of COCO_val2017_detections_AP_H_56_person.json, on which the published numbers of HRNet, TransPose,
ViTPose and mmpose stand: a list of {"image_id", "category_id", "bbox", "score"}. Letter: D boxes.
"""

import json
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import PERSON_CATEGORY, CocoDict
from bench.data.geometry import Floats
from bench.data.plausible import FEW, fault_of_boxes
from bench.data.readings import labels_of_boxes, looks_like
from bench.errors import UserError


class DetectedBoxes(NamedTuple):
    """Boxes of persons in the order of their file."""

    image_id: NDArray[np.int64]  # (D,)
    bbox: Floats  # (D, 4) x, y, w, h in image pixels
    score: Floats  # (D,)


def read_detections(
    file: Path, images: Sequence[CocoDict], min_score: float, tell: Callable[[str], None] | None = None
) -> DetectedBoxes:
    """The boxes of persons in these images (`id`, `width`, `height`) whose score is at least `min_score`.

    Other categories and images are left out. Boxes stay as the detector gave them, also over the border of the image,
    for their centre and size decide the crop: so do the loaders of HRNet (lib/dataset/coco.py) and mmpose
    (base_coco_style_dataset.py), which clip annotated boxes only. They also take a box that shows nothing of its image;
    here it is an error, whatever its score. `tell` is given a sentence on boxes of other images, if there are any.

    Raises:
        UserError: missing, unreadable or broken JSON; an entry not of the layout, whatever its image; a box in these
            images without width or height, or wholly outside; boxes that are no [x, y, w, h] in pixels of these images
            (`bench.data.plausible`); no box left.
    """
    entries = _read_list(file)
    _check_layout(file, entries)
    size_of = {image["id"]: (image["width"], image["height"]) for image in images}
    places = [i for i, e in enumerate(entries) if e["category_id"] == PERSON_CATEGORY and e["image_id"] in size_of]
    num_others = sum(entry["category_id"] == PERSON_CATEGORY for entry in entries) - len(places)
    if num_others and tell is not None:
        tell(f"{file}: {num_others} of {num_others + len(places)} boxes are of other pictures than these")
    boxes = _as_arrays([entries[i] for i in places])
    _check_plausible(file, boxes, [size_of[image_id] for image_id in boxes.image_id.tolist()], places)
    kept = boxes.score >= min_score
    if not kept.any():
        raise UserError(
            f"{file}: found no person with a score of at least {min_score:g} in {len(images)} images "
            f"({len(entries)} entries, {len(places)} persons in these images), wanted one or more"
        )
    return DetectedBoxes(boxes.image_id[kept], boxes.bbox[kept], boxes.score[kept])


def _read_list(file: Path) -> list[Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}), wanted a file of detected boxes") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start}), wanted a file of detected boxes") from error
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise UserError(f"{file}: broken JSON ({error}), wanted a file of detected boxes") from error
    if not isinstance(content, list):
        raise UserError(f"{file}: found a {type(content).__name__} at the top, wanted a list of detected boxes")
    return content


def _are(values: Sequence[Any], *types: type) -> bool:
    return set(map(type, values)) <= set(types)


def _are_finite(values: Sequence[Any]) -> bool:
    largest = sys.float_info.max  # JSON's whole numbers may be larger
    return _are(values, int, float) and all(-largest <= value <= largest for value in values)


def _are_bboxes(values: Sequence[Any]) -> bool:
    return _are(values, list) and set(map(len, values)) <= {4} and _are_finite(list(chain.from_iterable(values)))


CHECKS: dict[str, tuple[Callable[[Sequence[Any]], bool], str]] = {
    "image_id": (lambda values: _are(values, int), "a whole number"),
    "category_id": (lambda values: _are(values, int), "a whole number"),
    "bbox": (_are_bboxes, "[x, y, w, h], finite numbers"),
    "score": (lambda values: _are_finite(values) and all(0 <= value <= 1 for value in values), "a number from 0 to 1"),
}
"""For each key whether all of its values are right, and what is wanted. Other keys may stand beside them."""


def _check_layout(file: Path, entries: list[Any]) -> None:
    """All values of a key at once, for speed; entry by entry only to find the first culprit."""
    if _are(entries, dict) and all(accept([e.get(key) for e in entries]) for key, (accept, _) in CHECKS.items()):
        return
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{file}: entry {position}: found {short(entry)}, wanted a mapping")
        for key, (accept, wanted) in CHECKS.items():
            if not accept([entry.get(key)]):
                found = short(entry[key]) if key in entry else "nothing"
                raise UserError(f"{file}: entry {position}: {key}: found {found}, wanted {wanted}")


def _as_arrays(entries: list[dict[str, Any]]) -> DetectedBoxes:
    return DetectedBoxes(
        image_id=np.array([entry["image_id"] for entry in entries], dtype=np.int64),
        bbox=np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4),
        score=np.array([entry["score"] for entry in entries], dtype=np.float64),
    )


def _check_plausible(file: Path, boxes: DetectedBoxes, sizes: list[tuple[int, int]], places: list[int]) -> None:
    """Refuse the first box that shows nothing of its image, with w or h not positive, or all where they prove it."""
    start, extent = boxes.bbox[:, :2], boxes.bbox[:, 2:]
    image_size = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    shown = np.minimum(start + extent, image_size) - np.maximum(start, 0)
    wrong = np.flatnonzero((shown <= 0).any(axis=1) | (extent <= 0).any(axis=1))
    labels = labels_of_boxes(np.array(places, dtype=np.int64), boxes.image_id, boxes.bbox, image_size)
    if len(wrong):
        i, (width, height) = wrong[0], sizes[wrong[0]]
        likely = looks_like(labels.take(wrong)) if len(wrong) >= FEW else ""
        raise UserError(
            f"{file}: entry {places[i]}: bbox: found {boxes.bbox[i].tolist()}, "
            f"wanted w, h > 0 and a part inside of its image of {width} x {height} pixels"
            f"{f' ({len(wrong)} of {len(places)} boxes are so); {likely}' if likely else ''}"
        )
    if fault := fault_of_boxes(labels):
        raise UserError(f"{file}: {fault.text('entry')}")


def as_entries(boxes: DetectedBoxes) -> list[dict[str, Any]]:
    """The layout of the file again, of persons alone."""
    return [
        {"image_id": image_id, "category_id": PERSON_CATEGORY, "bbox": bbox, "score": score}
        for image_id, bbox, score in zip(*(values.tolist() for values in boxes), strict=True)
    ]
