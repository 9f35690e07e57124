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


# Which picture is meant


@pytest.fixture
def cameras(tmp_path: Path) -> Path:
    """The same name in two folders."""
    for camera in ("cam1", "cam2"):
        (tmp_path / camera).mkdir()
        write_image(tmp_path / camera / "0001.png", 40, 30)
    return tmp_path


def of_cameras(*names: str) -> dict[str, Any]:
    """An image for each name, with ids from 1, and one person in it, whose box begins at its id."""
    images = [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names, start=1)]
    people = [
        {"id": 10 + image["id"], "image_id": image["id"], "category_id": 1, "bbox": [image["id"], 2, 10, 20]}
        for image in images
    ]
    return {"images": images, "annotations": people}


@pytest.mark.parametrize(
    "names",
    [
        ("cam1/0001.png", "cam2/0001.png"),
        ("images\\cam1\\0001.png", "images\\cam2\\0001.png"),
        ("C:\\data\\cam1\\0001.png", "C:\\data\\cam2\\0001.png"),
        ("./cam1/0001.png", "./cam2/0001.png"),
        ("cam1/0001.png", "0001.png"),
    ],
)
def test_a_picture_is_the_entry_of_its_folder(
    names: tuple[str, str], cameras: Path, boxes_file: Callable[[Any], Path]
) -> None:
    for image_id, camera in ((1, "cam1"), (2, "cam2")):
        pictures = find_pictures(cameras / camera)
        [known], found = read_boxes(boxes_file(of_cameras(*names)), pictures, 0.0)
        assert (known.file, known.image_id) == (cameras / camera / "0001.png", image_id)
        assert found.bbox.tolist() == [[image_id, 2, 10, 20]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("0001.png", "0001.png"),
            r"image 1 \(0001.png\) and image 2 \(0001.png\) may both mean .*0001.png, wanted one",
        ),
        (("a/cam1/0001.png", "b\\cam1\\0001.png"), r"image 1 \(a/cam1/0001.png\) and image 2 .* may both mean"),
        (("cam2/0001.png",), "found none of 1 pictures, .*, and the file has cam2/0001.png, in another folder$"),
        (("0001.jpg",), r"found none of 1 pictures, the first is .*0001\.png$"),
    ],
)
def test_a_picture_that_no_single_entry_means_is_refused(
    names: tuple[str, ...], message: str, cameras: Path, boxes_file: Callable[[Any], Path]
) -> None:
    with pytest.raises(UserError, match=message):
        read_boxes(boxes_file(of_cameras(*names)), find_pictures(cameras / "cam1"), 0.0)


def test_what_is_left_out_is_told(folder: Path, boxes_file: Callable[[Any], Path]) -> None:
    told: list[str] = []
    content = of_cameras("pictures/000000000139.jpg", "other/000000000285.PNG")
    read_boxes(boxes_file(content), find_pictures(folder), 0.0, tell=told.append)
    assert [sentence.partition(": ")[2].partition(", the first")[0] for sentence in told] == [
        "1 of 2 pictures are not in it",
        "1 of its 2 images are not among the pictures",
    ]
    told.clear()
    others = [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 1}]
    read_boxes(boxes_file(results([[1, 2, 10, 20]]) + others), find_pictures(folder), 0.0, tell=told.append)
    assert [sentence.partition(": ")[2] for sentence in told] == ["1 of 2 boxes are of other pictures than these"]


def test_results_know_no_names(folder: Path, boxes_file: Callable[[Any], Path], tmp_path: Path) -> None:
    """Neither places nor numbers in a part of the name are taken for ids; an annotation file gives them."""
    entries = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20], "score": 0.9}]
    for name in ("zoo.jpg", "frame_1.jpg", "1.5.jpg"):
        next(file for file in folder.iterdir() if file.suffix == ".jpg").rename(folder / name)
        with pytest.raises(
            UserError, match=r"boxes\.json: a list of results .* by --images, or name each picture by its"
        ):
            read_boxes(boxes_file(entries), find_pictures(folder), 0.0)
    (tmp_path / "images.json").write_text(json.dumps(of_cameras("1.5.jpg")))
    known, found = read_boxes(boxes_file(entries), find_pictures(folder), 0.0, tmp_path / "images.json")
    assert [(picture.file.name, picture.image_id) for picture in known] == [("1.5.jpg", 1)]
    assert found.bbox.tolist() == [[1, 2, 10, 20]]


def test_one_number_in_two_ways_is_no_number_of_its_own(tmp_path: Path, boxes_file: Callable[[Any], Path]) -> None:
    for name in ("1.png", "0001.png"):
        write_image(tmp_path / name, 40, 30)
    with pytest.raises(UserError, match="is not named by a number of its own"):
        read_boxes(boxes_file(results([[1, 2, 10, 20]])), find_pictures(tmp_path), 0.0)


def test_names_are_given_to_results_alone(folder: Path, boxes_file: Callable[[Any], Path]) -> None:
    file = boxes_file(annotations([[1, 2, 10, 20]]))
    with pytest.raises(UserError, match=r"found beside the annotations .*, wanted beside a list of results$"):
        read_boxes(file, find_pictures(folder), 0.0, images_file=file)


def test_boxes_of_another_category_or_of_no_image_are_refused(folder: Path, boxes_file: Callable[[Any], Path]) -> None:
    content = annotations([[1, 2, 10, 20]])
    for change, message in (
        ({"categories": [{"id": 1, "name": "horse"}]}, "category 1: name: found 'horse', wanted 'person'"),
        (
            {"annotations": [content["annotations"][0] | {"image_id": 8}]},
            "annotation 10: image_id: found 8, wanted the",
        ),
        (
            {"annotations": [content["annotations"][0] | {"bbox": [1, 2, 50, 29]}]},
            "annotation 10: bbox: .*a box in the",
        ),
    ):
        with pytest.raises(UserError, match=message):
            read_boxes(boxes_file(content | change), find_pictures(folder), 0.0)


CASES = Path(__file__).parents[3] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases here")


@needs_cases
@pytest.mark.parametrize(("folder_name", "file"), [("pics", "det.json"), ("frames", "frames_det.json")])
def test_the_shared_results_know_no_names(folder_name: str, file: str) -> None:
    pictures = find_pictures(CASES / "show_ids" / folder_name)
    with pytest.raises(UserError, match=f"{file}: a list of results knows its pictures by a number"):
        read_boxes(CASES / "show_ids" / file, pictures, 0.3)


@needs_cases
def test_the_shared_results_with_their_names() -> None:
    folder = CASES / "show_ids"
    known, found = read_boxes(folder / "det.json", find_pictures(folder / "pics"), 0.3, folder / "gt.json")
    assert {picture.image_id: picture.file.name for picture in known} == {1: "zoo.jpg", 2: "market.jpg", 3: "beach.jpg"}
    assert found.bbox[found.image_id == 1].tolist() == [[46.8, 31.5, 94.1, 142.9]]


@needs_cases
@pytest.mark.parametrize("file", ["gt.json", "gt_win.json"])
def test_the_shared_cameras(file: str) -> None:
    folder = CASES / "show_cams"
    for image_id, camera in ((1, "cam1"), (2, "cam2")):
        [known], found = read_boxes(folder / file, find_pictures(folder / camera), 0.3)
        assert known.image_id == image_id
        assert found.image_id.tolist() == [image_id]
