"""Files of predicted poses in COCO's result format, as pose estimators write them (cocodataset.org/#format-results).

A list of {"image_id", "category_id", "keypoints": [x, y, score, ...], "score"}. Letters: D detections, K keypoints.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from bench.data.coco import PERSON_CATEGORY
from bench.data.geometry import Floats
from bench.data.people import Detections, extent_area, image_positions
from bench.errors import UserError
from bench.writing import written_whole

LARGEST = 1e9
"""Pixels. What lies farther away is no coordinate, and its square would drown all others long before it overflows."""

PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""Packed files by how they begin."""


class Results(NamedTuple):
    """What a file says, in its order."""

    detections: Detections  # their area is the extent of their keypoints
    bbox_area: Floats | None  # (D,) w * h of the boxes that stand beside the keypoints, if any do

    @property
    def with_bbox_area(self) -> Detections:
        """As pycocotools and xtcocotools read the file: boxes, where there are any, decide the area."""
        return self.detections if self.bbox_area is None else self.detections._replace(area=self.bbox_area)


def read_results(file: Path, image_ids: NDArray[np.integer], num_keypoints: int) -> Results:
    """The poses of a file, in images with these ids.

    More keys may stand beside the four of the format, and nobody reads them, but for `bbox`: where the first entry has
    one that is not empty, every entry needs one, as the COCO tools look at the first alone. No pose at all (an empty
    list) is a result too.

    Raises:
        UserError: missing, packed, unreadable or broken JSON; not a list; an entry with a key missing or twice, or with
            a value that is not of the format, in another image, of another category, or no finite number.
    """
    entries = _read_list(file)
    columns = _columns(set(image_ids.tolist()), num_keypoints)
    if entries and isinstance(entries[0], dict) and entries[0].get("bbox", []) != []:
        columns["bbox"] = _Column(_boxes, "[x, y, w, h] with w, h >= 0, as in the first entry")
    arrays = _read_columns(entries, columns)
    if arrays is None:
        _refuse_entry(file, entries, columns)
    triplets = arrays["keypoints"].reshape(len(entries), num_keypoints, 3)
    detections = Detections(
        image=image_positions(image_ids, arrays["image_id"]),
        keypoints=triplets[..., :2],
        keypoint_score=triplets[..., 2],
        score=arrays["score"],
        area=extent_area(triplets[..., :2]),
    )
    return Results(detections, arrays["bbox"][:, 2] * arrays["bbox"][:, 3] if "bbox" in arrays else None)


def _read_list(file: Path) -> list[Any]:
    content = _read_bytes(file)
    try:
        entries = json.loads(content.decode(), object_pairs_hook=_mapping)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start}), wanted a COCO result file") from error
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise UserError(f"{file}: broken JSON ({error}), wanted a COCO result file") from error
    if isinstance(entries, dict) and "annotations" in entries:
        raise UserError(f"{file}: found a mapping with annotations, as ground truth is, wanted a list of results")
    if not isinstance(entries, list):
        raise UserError(f"{file}: found a {type(entries).__name__} at the top, wanted a list of results")
    return entries


def _read_bytes(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}), wanted a COCO result file") from error
    if not content:
        raise UserError(f"{file}: found an empty file, wanted a COCO result file")
    for start, name in PACKED.items():
        if content.startswith(start):
            raise UserError(f"{file}: found a file packed by {name}, wanted JSON text: unpack it first")
    return content


class _Repeated(NamedTuple):
    """Stands for a mapping that has this key twice, of which JSON readers take one at will."""

    key: str


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Repeated:
    entry = dict(pairs)
    if len(entry) == len(pairs):
        return entry
    keys = [key for key, _ in pairs]
    return _Repeated(next(key for key in keys if keys.count(key) > 1))


class _Column(NamedTuple):
    """How the values of one key become an array, one line each; None where any is wrong."""

    read: Callable[[Sequence[Any]], NDArray[Any] | None]
    wanted: str


def _columns(known: set[int], num_keypoints: int) -> dict[str, _Column]:
    num_values = 3 * num_keypoints
    keypoints = f"{num_values} numbers x, y, score, ... of at most {LARGEST:g}"
    return {
        "image_id": _Column(partial(_members, of=known), f"the id of one of the {len(known)} images"),
        "category_id": _Column(partial(_members, of={PERSON_CATEGORY}), f"{PERSON_CATEGORY}, a person"),
        "keypoints": _Column(partial(_rows, length=num_values), keypoints),
        "score": _Column(partial(_numbers, largest=sys.float_info.max), "a finite number"),
    }


def _read_columns(entries: list[Any], columns: dict[str, _Column]) -> dict[str, NDArray[Any]] | None:
    """An array for each key, or None where anything is wrong: all entries at once, for speed."""
    if not _are(entries, dict):
        return None
    arrays = {}
    for key, column in columns.items():
        array = column.read([entry.get(key) for entry in entries])
        if array is None:
            return None
        arrays[key] = array
    return arrays


def _refuse_entry(file: Path, entries: list[Any], columns: dict[str, _Column]) -> NoReturn:
    """Name the first entry that is wrong, and its first wrong key."""
    for position, entry in enumerate(entries):
        where = f"{file}: [{position}]"
        if isinstance(entry, _Repeated):
            raise UserError(f"{where}: {entry.key}: found twice, wanted once")
        if not isinstance(entry, dict):
            raise UserError(f"{where}: found {short(entry)}, wanted a mapping")
        for key, column in columns.items():
            if column.read([entry.get(key)]) is None:
                found = _found(entry[key]) if key in entry else "nothing"
                raise UserError(f"{where}: {key}: found {found}, wanted {column.wanted}")
    raise AssertionError("every entry alone is right, but not all together")


def _found(value: Any) -> str:
    """A wrong value in few words: of a long list its first element that is no number, or its length."""
    if not isinstance(value, list) or len(value) <= 6:
        return short(value)
    wrong = next((i for i, element in enumerate(value) if _numbers([element]) is None), None)
    return f"a list of {len(value)}" if wrong is None else f"{short(value[wrong])} at place {wrong}"


def _are(values: Sequence[Any], *types: type) -> bool:
    return set(map(type, values)) <= set(types)


def _members(values: Sequence[Any], of: set[int]) -> NDArray[np.int64] | None:
    if not _are(values, int) or not set(values) <= of:
        return None
    return np.array(values, dtype=np.int64)


def _numbers(values: Sequence[Any], largest: float = LARGEST) -> Floats | None:
    if not _are(values, int, float):
        return None
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return array if (np.abs(array) <= largest).all() else None  # NaN is not


def _rows(values: Sequence[Any], length: int) -> Floats | None:
    if not _are(values, list) or not set(map(len, values)) <= {length}:
        return None
    numbers = _numbers(list(chain.from_iterable(values)))
    return None if numbers is None else numbers.reshape(-1, length)


def _boxes(values: Sequence[Any]) -> Floats | None:
    boxes = _rows(values, 4)
    return None if boxes is None or (boxes[:, 2:] < 0).any() else boxes


def result_entries(
    image_ids: NDArray[np.integer],
    keypoints: NDArray[np.floating],
    score: NDArray[np.floating],
    person_scores: NDArray[np.floating],
) -> list[dict[str, Any]]:
    """One entry of the format for each pose: image_ids (D,), keypoints (D, K, 2), score (D, K), person_scores (D,).

    There is no bbox on purpose: the COCO tools would then take its area instead of the keypoints' extent, and APM and
    APL would no longer compare with those of HRNet or TransPose.

    Raises:
        UserError: the shapes do not agree, or a value is not finite.
    """
    num_detections, num_keypoints = score.shape
    found = [image_ids.shape, keypoints.shape, person_scores.shape]
    wanted = [(num_detections,), (num_detections, num_keypoints, 2), (num_detections,)]
    if found != wanted:
        raise UserError(f"results: found image_ids, keypoints, person_scores of shapes {found}, wanted {wanted}")
    triplets = np.concatenate([keypoints, score[..., None]], axis=2, dtype=np.float64)
    rows = triplets.reshape(num_detections, 3 * num_keypoints)
    wrong = np.flatnonzero(~np.isfinite(np.column_stack([rows, person_scores])).all(axis=1))
    if len(wrong):
        raise UserError(f"results: [{wrong[0]}]: found a value that is not finite, wanted numbers")
    columns = (image_ids.tolist(), rows.tolist(), person_scores.tolist())
    return [
        {"image_id": image_id, "category_id": PERSON_CATEGORY, "keypoints": row, "score": person_score}
        for image_id, row, person_score in zip(*columns, strict=True)
    ]


def write_results(
    file: Path,
    image_ids: NDArray[np.integer],
    keypoints: NDArray[np.floating],
    score: NDArray[np.floating],
    person_scores: NDArray[np.floating],
) -> None:
    """Write poses (`result_entries`) as COCO's server takes them, in full precision.

    Who scores the file gets the numbers of these poses. Tenths of a pixel, as some tools write, can move APM and APL by
    .2 points: a person's OKS passes a threshold, or an unmatched pose another area.

    Raises:
        UserError: see `result_entries`, or the file cannot be written.
    """
    text = json.dumps(result_entries(image_ids, keypoints, score, person_scores), allow_nan=False)
    with written_whole(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
