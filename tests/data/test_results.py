import bz2
import gzip
import io
import json
import lzma
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO

from bench.data.results import LARGEST, Results, read_results, result_entries, write_results
from bench.errors import UserError
from tests.metrics.evaluators import draw_case

IMAGE_IDS = np.array([7, 3, 900])
NUMBERS = f"51 numbers x, y, score, ... of at most {LARGEST:g}"

Entry = dict[str, Any]
Write = Callable[[Any], Path]


def entry(image_id: int = 7, **change: Any) -> Entry:
    """All keypoints on a diagonal of 16 x 32 pixels."""
    keypoints = [value for k in range(17) for value in (k, 10.5 + 2 * k, 0.9)]
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": 0.5} | change


def changed(place: int, value: Any) -> list[Any]:
    keypoints = entry()["keypoints"]
    keypoints[place] = value
    return keypoints


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_json(content: Any) -> Path:
        file = tmp_path / "results.json"
        file.write_text(json.dumps(content))
        return file

    return write_json


def read(file: Path) -> Results:
    return read_results(file, IMAGE_IDS, 17)


def error_of(file: Path) -> str:
    """The message, which is one line and begins with the file."""
    with pytest.raises(UserError) as refused:
        read(file)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 300 + len(str(file))
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


# What is read


def test_poses_come_in_the_order_of_the_file(write: Write) -> None:
    found, bbox_area = read(write([entry(900, score=2), entry(3, score=-0.25), entry(7)]))
    assert found.image.tolist() == [2, 0, 1]  # by ascending id
    assert found.score.tolist() == [2.0, -0.25, 0.5]
    assert found.keypoints[0, [0, 16]].tolist() == [[0, 10.5], [16, 42.5]]
    assert found.keypoint_score.tolist() == [[0.9] * 17] * 3
    assert found.area.tolist() == [16 * 32.0] * 3
    assert bbox_area is None
    assert [values.dtype for values in found] == [np.int64, *[np.float64] * 4]


def test_no_pose_is_a_result(write: Write) -> None:
    found, bbox_area = read(write([]))
    assert [values.shape for values in found] == [(0,), (0, 17, 2), (0, 17), (0,), (0,)]
    assert bbox_area is None


def test_the_area_is_pycocotools_own(tmp_path: Path) -> None:
    for seed in range(30):
        case = draw_case(seed)
        file = tmp_path / "results.json"
        file.write_text(json.dumps(case.entries))
        truth = COCO()
        truth.dataset = {**case.coco, "categories": []}
        truth.createIndex()
        expected = [annotation["area"] for annotation in truth.loadRes(str(file)).dataset["annotations"]]
        found = read_results(file, np.array([image["id"] for image in case.coco["images"]]), 17)
        assert found.with_bbox_area.area.tolist() == expected


def test_other_keys_are_not_read(write: Write) -> None:
    """As mmpose and detectron2 write them, and worse."""
    extra = {
        "id": 5,
        "area": "?",
        "center": [1, 2],
        "scale": None,
        "num_keypoints": 3,
        "caption": {},
        "segmentation": [],
    }
    found, bbox_area = read(write([entry(**extra), entry(), entry(area=float("nan"), bbox=None)]))
    assert found.area.tolist() == [16 * 32.0] * 3
    assert bbox_area is None


def test_boxes_are_read_where_the_first_entry_has_one(write: Write) -> None:
    boxes = [{"bbox": [1, 2, 30, 40.5]}, {"bbox": [-5.0, 0, 0, 7]}]
    found = read(write([entry(**change) for change in boxes]))
    assert found.bbox_area is not None
    assert found.bbox_area.tolist() == [1215.0, 0.0]
    assert found.with_bbox_area.area.tolist() == [1215.0, 0.0]
    assert found.detections.area.tolist() == [512.0, 512.0]
    for first in ({"bbox": []}, {}):
        assert read(write([entry(**first), *(entry(**change) for change in boxes)])).bbox_area is None


def test_poses_of_other_data_sets(write: Write) -> None:
    short = entry(keypoints=entry()["keypoints"][:42])
    assert read_results(write([short]), IMAGE_IDS, 14).detections.keypoints.shape == (1, 14, 2)


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "7"}, "image_id: found '7', wanted the id of one of the 3 images"),
        ({"image_id": 7.0}, "image_id: found 7.0, wanted the id of one of the 3 images"),
        ({"image_id": True}, "image_id: found True, wanted the id of one of the 3 images"),
        ({"image_id": None}, "image_id: found None, wanted the id of one of the 3 images"),
        ({"image_id": [7]}, "image_id: found [7], wanted the id of one of the 3 images"),
        ({"image_id": 8}, "image_id: found 8, wanted the id of one of the 3 images"),
        ({"image_id": 7 + 2**64}, "image_id: found 18446744073709551623, wanted the id of one of the 3 images"),
        ({"image_id": 10**400}, "wanted the id of one of the 3 images"),
        ({"category_id": 2}, "category_id: found 2, wanted 1, a person"),
        ({"category_id": True}, "category_id: found True, wanted 1, a person"),
        ({"category_id": "person"}, "category_id: found 'person', wanted 1, a person"),
        ({"keypoints": None}, f"keypoints: found None, wanted {NUMBERS}"),
        ({"keypoints": "1 2 3"}, f"keypoints: found '1 2 3', wanted {NUMBERS}"),
        ({"keypoints": {"nose": [1, 2]}}, f"keypoints: found {{'nose': [1, 2]}}, wanted {NUMBERS}"),
        ({"keypoints": []}, f"keypoints: found [], wanted {NUMBERS}"),
        ({"keypoints": [1.0] * 50}, f"keypoints: found a list of 50, wanted {NUMBERS}"),
        ({"keypoints": [1.0] * 34}, f"keypoints: found a list of 34, wanted {NUMBERS}"),
        ({"keypoints": [[1.0, 2.0, 0.5]] * 17}, f"keypoints: found [1.0, 2.0, 0.5] at place 0, wanted {NUMBERS}"),
        ({"keypoints": [[1.0] * 51]}, f"keypoints: found [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, ...]], wanted {NUMBERS}"),
        ({"keypoints": changed(4, "5.5")}, f"keypoints: found '5.5' at place 4, wanted {NUMBERS}"),
        ({"keypoints": changed(5, None)}, f"keypoints: found None at place 5, wanted {NUMBERS}"),
        ({"keypoints": changed(50, True)}, f"keypoints: found True at place 50, wanted {NUMBERS}"),
        ({"keypoints": changed(0, [1])}, f"keypoints: found [1] at place 0, wanted {NUMBERS}"),
        ({"keypoints": changed(3, float("nan"))}, f"keypoints: found nan at place 3, wanted {NUMBERS}"),
        ({"keypoints": changed(2, float("inf"))}, f"keypoints: found inf at place 2, wanted {NUMBERS}"),
        ({"keypoints": changed(1, 1e300)}, f"keypoints: found 1e+300 at place 1, wanted {NUMBERS}"),
        ({"keypoints": changed(1, -1.5e9)}, f"keypoints: found -1500000000.0 at place 1, wanted {NUMBERS}"),
        ({"keypoints": changed(1, 10**400)}, f"at place 1, wanted {NUMBERS}"),
        ({"score": None}, "score: found None, wanted a finite number"),
        ({"score": "0.5"}, "score: found '0.5', wanted a finite number"),
        ({"score": False}, "score: found False, wanted a finite number"),
        ({"score": [0.5]}, "score: found [0.5], wanted a finite number"),
        ({"score": float("nan")}, "score: found nan, wanted a finite number"),
        ({"score": float("-inf")}, "score: found -inf, wanted a finite number"),
        ({"score": 10**400}, "wanted a finite number"),
        ({"score": "two\nlines"}, r"score: found 'two\nlines', wanted a finite number"),
    ],
)
def test_the_first_wrong_entry_is_named(write: Write, change: Entry, message: str) -> None:
    found = error_of(write([entry(), entry(3), entry() | change, entry(score="?"), entry() | change]))
    assert found.startswith("[2]: ")
    assert found.endswith(message)


@pytest.mark.parametrize("key", ["image_id", "category_id", "keypoints", "score"])
def test_a_missing_key_is_named(write: Write, key: str) -> None:
    short = {name: value for name, value in entry().items() if name != key}
    assert error_of(write([entry(), short])).startswith(f"[1]: {key}: found nothing, wanted ")


@pytest.mark.parametrize("bbox", [None, [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, -3, 4], [1, 2, 3, "4"], "box", 5])
def test_each_box_must_be_right_where_the_first_entry_has_one(write: Write, bbox: Any) -> None:
    wanted = "wanted [x, y, w, h] with w, h >= 0, as in the first entry"
    right = entry(bbox=[1, 2, 3, 4])
    assert error_of(write([right, entry(bbox=bbox)])) == f"[1]: bbox: found {bbox!r}, {wanted}"
    assert error_of(write([right, right, entry()])) == f"[2]: bbox: found nothing, {wanted}"
    if bbox != []:
        assert error_of(write([entry(bbox=bbox), right])) == f"[0]: bbox: found {bbox!r}, {wanted}"


@pytest.mark.parametrize("other", [5, None, "pose", [7, 1, 0.5], True, float("nan")])
def test_an_entry_must_be_a_mapping(write: Write, other: Any) -> None:
    assert error_of(write([entry(), other])) == f"[1]: found {other!r}, wanted a mapping"


@pytest.mark.parametrize("content", [{}, {"results": [entry()]}, 5, "poses", None, float("inf")])
def test_the_file_must_hold_a_list(write: Write, content: Any) -> None:
    assert error_of(write(content)) == f"found a {type(content).__name__} at the top, wanted a list of results"


def test_ground_truth_is_no_result(write: Write) -> None:
    found = error_of(write({"images": [], "annotations": [], "categories": []}))
    assert found == "found a mapping with annotations, as ground truth is, wanted a list of results"


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    """Readers of JSON take one of the two at will."""
    file = tmp_path / "results.json"
    twice = json.dumps(entry()).replace('"score"', '"score": 0.1, "score"')
    file.write_text(f"[{json.dumps(entry())}, {twice}]")
    assert error_of(file) == "[1]: score: found twice, wanted once"
    file.write_text(f"[{json.dumps(entry(image={}))}]".replace("{}", '{"a": 1, "a": 2}'))
    assert len(read(file).detections.image) == 1


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("results.json", content)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file, wanted a COCO result file"),
        (b" \n", "broken JSON (Expecting value: "),
        (b'[{"image_id": 7', "broken JSON (Expecting "),
        (json.dumps([entry()]).encode() + b"]", "broken JSON (Extra data: "),
        (b"[{'image_id': 7}]", "broken JSON (Expecting property name "),
        (b'[{"image_id": 7,}]', "broken JSON ("),
        (b"\n".join([json.dumps(entry()).encode()] * 2), "broken JSON (Extra data: "),
        (b"[" * 100_000, "broken JSON ("),
        (b"[" + b"9" * 5000 + b"]", "broken JSON (Exceeds the limit "),
        (b"[\xff]", "not UTF-8 text (byte 1), "),
        (b"\xef\xbb\xbf[]", "broken JSON (Unexpected UTF-8 BOM "),
        ("[]".encode("utf-16"), "not UTF-8 text (byte 0), "),
        (gzip.compress(b"[]", mtime=0), "found a file packed by gzip, wanted JSON text: unpack it first"),
        (zipped(b"[]"), "found a file packed by zip, wanted JSON text: unpack it first"),
        (bz2.compress(b"[]"), "found a file packed by bzip2, wanted JSON text: unpack it first"),
        (lzma.compress(b"[]"), "found a file packed by xz, wanted JSON text: unpack it first"),
        (b"image_id,score\n7,0.5\n", "broken JSON (Expecting value: "),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content)
    assert error_of(file).startswith(message)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    assert error_of(tmp_path) == "cannot be read (Is a directory), wanted a COCO result file"
    missing = tmp_path / "none.json"
    assert error_of(missing) == "cannot be read (No such file or directory), wanted a COCO result file"


# Speed


def many(num: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    keypoints, score = rng.uniform(-20, 660, (num, 17, 2)), rng.random((num, 17), dtype=np.float32)
    return rng.choice(IMAGE_IDS, num), keypoints, score, rng.random(num)


def test_a_hundred_thousand_entries_are_quick(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_results(file, *many(100_000))
    start = time.process_time()
    json.loads(file.read_text())
    between = time.process_time()
    assert len(read(file).detections.score) == 100_000
    assert time.process_time() - between < between - start + 1.5  # .7 s more on an idle core


# What is written


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    image_ids, keypoints, score, person_scores = many(200)
    file = tmp_path / "new" / "folder" / "results.json"
    write_results(file, image_ids, keypoints, score, person_scores)
    found = read(file).detections
    np.testing.assert_array_equal(found.keypoints, keypoints)
    np.testing.assert_array_equal(np.sort(IMAGE_IDS)[found.image], image_ids)
    np.testing.assert_array_equal(found.keypoint_score, score)
    np.testing.assert_array_equal(found.score, person_scores)
    assert [path.name for path in file.parent.iterdir()] == ["results.json"]


def test_the_layout_of_a_written_file(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_results(file, np.array([7]), np.array([[[1.25, -3.0], [123.456, 0.04]]]), np.array([[0.5, 0.0]]), np.ones(1))
    keypoints = [1.25, -3.0, 0.5, 123.456, 0.04, 0.0]
    assert json.loads(file.read_text()) == [{"image_id": 7, "category_id": 1, "keypoints": keypoints, "score": 1.0}]


def test_pycocotools_reads_a_written_file(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_results(file, *many(20))
    truth = COCO()
    truth.dataset = {"images": [{"id": int(i)} for i in IMAGE_IDS], "annotations": [], "categories": []}
    truth.createIndex()
    areas = [annotation["area"] for annotation in truth.loadRes(str(file)).dataset["annotations"]]
    assert areas == read(file).detections.area.tolist()


def test_no_pose_is_written_as_an_empty_list(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_results(file, np.zeros(0, int), np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros(0))
    assert file.read_text() == "[]"


@pytest.mark.parametrize("place", range(4))
def test_shapes_must_agree(place: int) -> None:
    arrays = list(many(3))
    arrays[place] = arrays[place][:2]
    with pytest.raises(UserError, match=r"results: found image_ids, keypoints, person_scores of shapes .*, wanted "):
        result_entries(*arrays)


@pytest.mark.parametrize(("place", "value"), [(1, np.nan), (2, np.inf), (3, -np.inf)])
def test_only_numbers_are_written_and_the_old_file_stays(tmp_path: Path, place: int, value: float) -> None:
    file = tmp_path / "results.json"
    file.write_text("old")
    arrays = many(3)
    arrays[place][1] = value
    with pytest.raises(UserError, match=re.escape("results: [1]: found a value that is not finite, wanted numbers")):
        write_results(file, *arrays)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match=r"taken: cannot be written \(Is a directory\)"):
        write_results(tmp_path / "taken", *many(2))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
