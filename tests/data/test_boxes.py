"""Pictures and boxes of people in them, and how broken ones are named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench.data.boxes import find_pictures, read_boxes, whole_pictures
from bench.errors import UserError

EXIF_TURNED = bytes.fromhex("ffe1002245786966000049492a00080000000100120103000100000006000000000000000000")
"""A segment of JPEG: orientation 6, to be turned by a quarter."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of 40 x 30 and 20 x 50 pixels, named as COCO's are, and what is none."""
    pictures = tmp_path / "pictures"
    (pictures / "within").mkdir(parents=True)
    write_image(pictures / "000000000139.jpg", 40, 30)
    write_image(pictures / "000000000285.PNG", 20, 50)
    (pictures / "notes.txt").write_text("no picture")
    (pictures / ".hidden.png").write_text("no picture")
    return pictures


def write_image(file: Path, width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    assert cv2.imwrite(str(file), pixels)


def turn(file: Path) -> None:
    """Give a JPEG a tag that asks to turn it."""
    content = file.read_bytes()
    file.write_bytes(content[:2] + EXIF_TURNED + content[2:])


def annotations(boxes: list[Any]) -> dict[str, Any]:
    """Of image 139, as image 7 of an annotation file; the last one is a crowd's."""
    people = [
        {"id": 10 + i, "image_id": 7, "category_id": 1, "bbox": bbox, "iscrowd": int(i == len(boxes))}
        for i, bbox in enumerate([*boxes, [0, 0, 40, 30]])
    ]
    image = {"id": 7, "file_name": "pictures/000000000139.jpg", "width": 40, "height": 30}
    return {"images": [image], "annotations": people}


def results(boxes: list[Any]) -> list[dict[str, Any]]:
    scores = [0.9, 0.1, 0.5]
    entry = {"image_id": 139, "category_id": 1}
    return [entry | {"bbox": bbox, "score": score} for bbox, score in zip(boxes, scores, strict=False)]


@pytest.fixture
def boxes_file(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        file = tmp_path / "boxes.json"
        file.write_text(json.dumps(content))
        return file

    return write


def test_a_folder_gives_its_pictures_by_name(folder: Path) -> None:
    found = find_pictures(folder)
    assert [(picture.file.name, picture.image_id, picture.size) for picture in found] == [
        ("000000000139.jpg", 139, (40, 30)),
        ("000000000285.PNG", 285, (20, 50)),
    ]
    assert whole_pictures(found).bbox.tolist() == [[0, 0, 40, 30], [0, 0, 20, 50]]


def test_other_names_are_counted(folder: Path) -> None:
    (folder / "000000000285.PNG").rename(folder / "me.png")
    assert [picture.image_id for picture in find_pictures(folder)] == [1, 2]
    [alone] = find_pictures(folder / "me.png")
    assert alone.image_id == 1


def test_annotations_name_their_pictures(folder: Path, boxes_file: Callable[[Any], Path]) -> None:
    file = boxes_file(annotations([[1, 2, 10, 20], [-5, 0, 10, 5]]))
    known, found = read_boxes(file, find_pictures(folder), min_score=1.0)
    assert [(picture.file.name, picture.image_id) for picture in known] == [("000000000139.jpg", 7)]
    assert found.image_id.tolist() == [7, 7]
    assert found.bbox.tolist() == [[1, 2, 10, 20], [-5, 0, 10, 5]]
    assert found.score.tolist() == [1, 1]


def test_results_know_pictures_by_number(folder: Path, boxes_file: Callable[[Any], Path]) -> None:
    boxes = [[1, 2, 10, 20], [2, 2, 2, 2], [3, 3, 30, 20]]
    known, found = read_boxes(boxes_file(results(boxes)), find_pictures(folder), min_score=0.3)
    assert [picture.image_id for picture in known] == [139, 285]
    assert found.bbox.tolist() == [boxes[0], boxes[2]]
    assert found.score.tolist() == [0.9, 0.5]


@pytest.mark.parametrize("bbox", [[40, 0, 5, 5], [-9, 0, 9, 5], [1, 1, 0, 5], [1, 1, 5], [1, 1, True, 5], "all", None])
def test_a_box_that_shows_nothing_is_named(folder: Path, boxes_file: Callable[[Any], Path], bbox: Any) -> None:
    with pytest.raises(UserError, match=r"annotation 11: bbox: found .*, wanted \[x, y, w, h\] .* of 40 x 30 pixels$"):
        read_boxes(boxes_file(annotations([[1, 2, 10, 20], bbox])), find_pictures(folder), 0.0)
    with pytest.raises(UserError, match=r"entry 1: bbox: found .*, wanted (w, h > 0 and a part inside|\[x, y, w, h\])"):
        read_boxes(boxes_file(results([[1, 2, 10, 20], bbox])), find_pictures(folder), 0.0)


def test_boxes_of_other_pictures_are_refused(folder: Path, boxes_file: Callable[[Any], Path]) -> None:
    content = annotations([[1, 2, 10, 20]])
    content["images"][0]["width"] = 41
    with pytest.raises(UserError, match=r"image 7: found 41 x 30 pixels, wanted 40 x 30 as .*139\.jpg has$"):
        read_boxes(boxes_file(content), find_pictures(folder), 0.0)
    content["images"][0]["file_name"] = "another.jpg"
    with pytest.raises(UserError, match=r"images: found none of 2 pictures, the first is .*000000000139\.jpg$"):
        read_boxes(boxes_file(content), find_pictures(folder), 0.0)
    content = annotations([])
    with pytest.raises(UserError, match=r"annotations: found no person in 1 pictures, wanted one or more$"):
        read_boxes(boxes_file(content), find_pictures(folder), 0.0)
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        read_boxes(folder / "none.json", find_pictures(folder), 0.0)
    with pytest.raises(UserError, match=r"found a str at the top, wanted a mapping with images, annotations$"):
        read_boxes(boxes_file("boxes"), find_pictures(folder), 0.0)


def test_what_is_no_picture_is_named(folder: Path) -> None:
    for name in ("none.jpg", "notes.txt", "broken.png"):
        (folder / "broken.png").write_bytes(b"\x89PNG")
        with pytest.raises(UserError, match=rf"{name}: (no such file or folder|cannot be read as an image), wanted a"):
            find_pictures(folder / name)
    with pytest.raises(UserError, match=r"broken\.png: cannot be read as an image"):
        find_pictures(folder)
    with pytest.raises(UserError, match=r"within: found no picture in this folder, wanted files \.bmp, "):
        find_pictures(folder / "within")


def test_a_tag_of_orientation_is_seen_and_not_followed(folder: Path) -> None:
    [plain] = find_pictures(folder / "000000000139.jpg")
    assert not plain.turned
    turn(plain.file)
    [turned] = find_pictures(plain.file)
    assert turned.turned
    assert turned.size == (40, 30)
