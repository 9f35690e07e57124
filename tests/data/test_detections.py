import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.detections import read_detections
from bench.errors import UserError

IMAGES = [
    {"id": 7, "file_name": "7.jpg", "width": 640, "height": 480},
    {"id": 3, "file_name": "3.jpg", "width": 100, "height": 200},
]

Entry = dict[str, Any]
Write = Callable[[Any], Path]


def entry(image_id: int = 7, score: float = 0.5, bbox: list[float] | None = None, category_id: int = 1) -> Entry:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox or [10.0, 20.5, 30.0, 40.0], "score": score}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_json(content: Any) -> Path:
        file = tmp_path / "boxes.json"
        file.write_text(json.dumps(content))
        return file

    return write_json


def test_boxes_come_in_the_order_of_the_file(write: Write) -> None:
    file = write([entry(7, 0.25), entry(3, 1, [1, 2, 3, 4]), entry(7, 0.0)])
    boxes = read_detections(file, IMAGES, 0.0)
    assert boxes.image_id.tolist() == [7, 3, 7]
    assert boxes.bbox.tolist() == [[10, 20.5, 30, 40], [1, 2, 3, 4], [10, 20.5, 30, 40]]
    assert boxes.score.tolist() == [0.25, 1.0, 0.0]
    assert [values.dtype for values in boxes] == [np.int64, np.float64, np.float64]


def test_a_box_at_the_smallest_score_is_kept(write: Write) -> None:
    file = write([entry(score=score) for score in (0.1, 0.3, 0.29, 0.9)])
    assert read_detections(file, IMAGES, 0.3).score.tolist() == [0.3, 0.9]


def test_other_images_and_categories_are_left_out(write: Write) -> None:
    outside = [-50.0, 0.0, 10.0, 10.0]
    file = write(
        [entry(8), entry(category_id=18), entry(3), entry(8, bbox=outside), entry(bbox=outside, category_id=2)]
    )
    assert read_detections(file, IMAGES, 0.0).image_id.tolist() == [3]


def test_more_keys_may_stand_beside(write: Write) -> None:
    extra = {"segmentation": {"size": [480, 640], "counts": "x"}, "area": float("nan"), "id": "a"}
    assert len(read_detections(write([entry() | extra, entry()]), IMAGES, 0.0).score) == 2


@pytest.mark.parametrize("bbox", [[-5.5, -5.5, 6.0, 6.0], [639.0, 479.0, 100.0, 100.0], [-10.0, -10.0, 999.0, 999.0]])
def test_boxes_over_the_border_stay_as_they_are(write: Write, bbox: list[float]) -> None:
    assert read_detections(write([entry(bbox=bbox)]), IMAGES, 0.0).bbox.tolist() == [bbox]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "7"}, "image_id: found '7', wanted a whole number"),
        ({"image_id": 7.0}, "image_id: found 7.0, wanted a whole number"),
        ({"image_id": None}, "image_id: found None, wanted a whole number"),
        ({"category_id": True}, "category_id: found True, wanted a whole number"),
        ({"bbox": [1, 2, 3]}, "bbox: found [1, 2, 3], wanted [x, y, w, h], finite numbers"),
        ({"bbox": [1, 2, 3, 4, 0.9]}, "bbox: found [1, 2, 3, 4, 0.9], wanted [x, y, w, h], finite numbers"),
        ({"bbox": {"x": 1}}, "bbox: found {'x': 1}, wanted [x, y, w, h], finite numbers"),
        ({"bbox": "1234"}, "bbox: found '1234', wanted [x, y, w, h], finite numbers"),
        ({"bbox": [1, 2, "3", 4]}, "bbox: found [1, 2, '3', 4], wanted [x, y, w, h], finite numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox: found [1, 2, nan, 4], wanted [x, y, w, h], finite numbers"),
        ({"bbox": [float("-inf"), 2, 3, 4]}, "bbox: found [-inf, 2, 3, 4], wanted [x, y, w, h], finite numbers"),
        ({"bbox": [10**400, 2, 3, 4]}, "wanted [x, y, w, h], finite numbers"),
        ({"score": float("nan")}, "score: found nan, wanted a number from 0 to 1"),
        ({"score": float("inf")}, "score: found inf, wanted a number from 0 to 1"),
        ({"score": 1.5}, "score: found 1.5, wanted a number from 0 to 1"),
        ({"score": -0.1}, "score: found -0.1, wanted a number from 0 to 1"),
        ({"score": False}, "score: found False, wanted a number from 0 to 1"),
        ({"score": [0.5]}, "score: found [0.5], wanted a number from 0 to 1"),
    ],
)
def test_the_first_wrong_entry_is_named(write: Write, change: Entry, message: str) -> None:
    # Everywhere, also where the box would not be used: a file that is broken in one place cannot be trusted in another.
    for image_id in (7, 999):
        file = write([entry(), entry(image_id), entry(image_id) | change, entry() | change])
        with pytest.raises(UserError, match=re.escape(message)) as refused:
            read_detections(file, IMAGES, 0.0)
        assert str(refused.value).startswith(f"{file}: entry 2: ")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_a_missing_key_is_named(write: Write, key: str) -> None:
    short = {name: value for name, value in entry().items() if name != key}
    file = write([entry(), short])
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: entry 1: {key}: found nothing, wanted "):
        read_detections(file, IMAGES, 0.0)


@pytest.mark.parametrize("other", [5, None, "box", [7, 1, [0, 0, 1, 1], 0.5]])
def test_an_entry_must_be_a_mapping(write: Write, other: Any) -> None:
    with pytest.raises(UserError, match=r": entry 1: found .*, wanted a mapping"):
        read_detections(write([entry(), other]), IMAGES, 0.0)


@pytest.mark.parametrize(
    ("image_id", "bbox"),
    [
        (7, [10.0, 10.0, 0.0, 5.0]),
        (7, [10.0, 10.0, 5.0, -5.0]),
        (7, [640.0, 10.0, 5.0, 5.0]),
        (7, [-5.0, 10.0, 5.0, 5.0]),
        (7, [10.0, 480.5, 5.0, 5.0]),
        (3, [101.0, 10.0, 5.0, 5.0]),
    ],
)
def test_a_box_that_shows_nothing_is_refused(write: Write, image_id: int, bbox: list[float]) -> None:
    # Entries 0 and 1 are left out, but the index is that of the file.
    file = write([entry(999), entry(category_id=2), entry(3), entry(image_id, 0.01, bbox)])
    size = "640 x 480" if image_id == 7 else "100 x 200"
    message = f"entry 3: bbox: found {bbox}, wanted w, h > 0 and a part inside of its image of {size} pixels"
    with pytest.raises(UserError, match=re.escape(message)):
        read_detections(file, IMAGES, 0.5)


@pytest.mark.parametrize("content", [{}, {"annotations": [entry()]}, 5, "boxes", None])
def test_the_file_must_hold_a_list(write: Write, content: Any) -> None:
    file = write(content)
    with pytest.raises(UserError, match=f"found a {type(content).__name__} at the top, wanted a list of detected"):
        read_detections(file, IMAGES, 0.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken JSON (Expecting value"),
        (b'[{"image_id": 7', "broken JSON (Expecting"),
        (b"[" * 100_000, "broken JSON"),
        (b"[" + b"9" * 5000 + b"]", "broken JSON"),
        (b"[\xff]", "not UTF-8 text (byte 1)"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "boxes.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{file}: {message}")):
        read_detections(file, IMAGES, 0.0)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for file in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match=f"^{re.escape(str(file))}: cannot be read"):
            read_detections(file, IMAGES, 0.0)


@pytest.mark.parametrize(
    ("content", "counts"),
    [
        ([], "(0 entries, 0 persons in these images)"),
        ([entry(999), entry(category_id=2)], "(2 entries, 0 persons in these images)"),
        ([entry(score=0.69), entry(999)], "(2 entries, 1 persons in these images)"),
    ],
)
def test_no_box_left_is_refused(write: Write, content: list[Entry], counts: str) -> None:
    message = f"found no person with a score of at least 0.7 in 2 images {counts}, wanted one or more"
    with pytest.raises(UserError, match=re.escape(message)):
        read_detections(write(content), IMAGES, 0.7)


def test_a_hundred_thousand_entries_are_quick(write: Write) -> None:
    rng = np.random.default_rng(0)
    bbox, score = rng.uniform(0, 99, (100_000, 4)).tolist(), rng.random(100_000).tolist()
    file = write([entry(7, *values) for values in zip(score, bbox, strict=True)])
    start = time.process_time()
    assert len(read_detections(file, IMAGES, 0.0).score) == 100_000
    assert time.process_time() - start < 2  # half a second on an idle core


def many_boxes(edit: Callable[[np.ndarray], np.ndarray] = lambda bbox: bbox) -> list[Entry]:
    """Of 40 people all over eight pictures of 640 x 480 pixels."""
    rng = np.random.default_rng(0)
    size = np.array([640, 480])
    extent = rng.uniform(0.15, 0.5, (40, 2)) * size
    start = rng.uniform(-0.1, 1.1, (40, 2)).clip(0, 1) * (size - extent)
    boxes = edit(np.hstack([start, extent]))
    return [entry(i % 8, bbox=bbox) for i, bbox in enumerate(boxes.tolist())]


EIGHT = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(8)]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: np.hstack([b[:, :2], b[:, :2] + b[:, 2:]]), r"the boxes look like \[x1, y1, x2, y2\]$"),
        (lambda b: b / (640, 480, 640, 480), "found 40 of 40 boxes smaller than 1.5 pixels, .*values from 0 to 1$"),
        (lambda b: b * 100 / (640, 480, 640, 480), "are they per cent, or labels of a smaller copy of the picture.$"),
        (lambda b: b / 2, "no boxes of 40 people beyond 50% of the width and 50% of the height"),
        (lambda b: b * 1.5, "in another size, 1.5 times this one$"),
    ],
)
def test_boxes_that_are_no_pixels_of_these_images_are_refused(
    write: Write, edit: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    assert len(read_detections(write(many_boxes()), EIGHT, 0.0).score) == 40
    with pytest.raises(UserError, match=rf"boxes\.json: entry \d+.*{message}"):
        read_detections(write(many_boxes(edit)), EIGHT, 0.0)


def test_boxes_of_other_images_are_told(write: Write) -> None:
    told: list[str] = []
    read_detections(write([entry(), entry(8), entry(9), entry(category_id=2)]), IMAGES, 0.0, told.append)
    assert [sentence.partition(": ")[2] for sentence in told] == ["2 of 3 boxes are of other pictures than these"]
