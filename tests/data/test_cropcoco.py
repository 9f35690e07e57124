"""CropCOCO's format: what its fourth level of visibility means, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench.data.coco import persons_of
from bench.data.cropcoco import CropCoco, read_cropcoco, widening
from bench.data.dataset import PoseDataset
from bench.data.geometry import Crop, bbox_to_view, crop_matrix, inside, warp_points
from bench.errors import UserError

Edit = Callable[[dict[str, Any]], None]

# The box of 30 x 40 about (50, 50) is 3:4 as it is; widened by 1.25 it reaches from 31.25 to 68.75 and 25 to 75.
BBOX = [35.0, 30.0, 30.0, 40.0]
WIDTH, HEIGHT = 60, 100  # the picture ends before the window does
POINTS = {
    0: (50, 50, 2),  # plain to see
    1: (40, 35, 1),  # hidden
    2: (65, 50, 1),  # outside of the picture, in the window
    3: (80, 50, 3),  # beyond the window, to the right
    4: (50, -10, 3),  # and above
    5: (68.7, 74.9, 1),  # in the window's corner
    6: (30, 50, 1),  # in the picture, but not in the window, whatever v says
}


def annotation(annotation_id: int = 7, **changes: Any) -> dict[str, Any]:
    triples = np.zeros((17, 3))
    for keypoint, triple in POINTS.items():
        triples[keypoint] = triple
    return {
        "id": annotation_id, "image_id": 3, "category_id": 1, "bbox": BBOX, "area": 700.0, "iscrowd": 0,
        "keypoints": triples.ravel().tolist(), "num_keypoints": 7,
    } | changes  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*annotations: dict[str, Any], images: list[dict[str, Any]] | None = None) -> Path:
        images = [{"id": 3, "file_name": "3.png", "width": WIDTH, "height": HEIGHT}] if images is None else images
        file = tmp_path / "cropcoco.json"
        file.write_text(json.dumps({"images": images, "annotations": annotations}))
        return file

    return write


def present_of(cropcoco: CropCoco, rule: str) -> list[int]:
    """Indices of the present keypoints of the first person."""
    return np.flatnonzero(cropcoco.label(rule).present[0]).tolist()


def test_the_three_rules_by_hand(write: Callable[..., Path], tmp_path: Path) -> None:
    cropcoco = read_cropcoco(write(annotation()), tmp_path)
    assert present_of(cropcoco, "written") == [0, 1, 2, 5, 6]
    assert present_of(cropcoco, "window") == [0, 1, 2, 5]
    assert present_of(cropcoco, "image") == [0, 1, 6]
    for rule in ("written", "window", "image"):
        label = cropcoco.label(rule)
        assert label.present_weight.tolist() == [[1] * 7 + [0] * 10]
        assert label.present.shape == (1, 17)


def test_persons_have_coco_s_levels_and_all_positions(write: Callable[..., Path], tmp_path: Path) -> None:
    (person,) = read_cropcoco(write(annotation()), tmp_path).persons
    assert (person.annotation_id, person.image_id, person.image_file) == (7, 3, tmp_path / "3.png")
    assert person.labels.visibility.tolist() == [2, 1, 1, 0, 0, 1, 1] + [0] * 10
    assert person.labels.true_visibility is None
    assert person.keypoints[3].tolist() == [80, 50]
    assert person.bbox.tolist() == BBOX


def test_stored_padding_decides_over_levels(write: Callable[..., Path], tmp_path: Path) -> None:
    """As in the evaluation of ProbPose: 3 within 1.25 is in the window, 1 or 2 beyond is not."""
    padding = [1.3, 1.25, 1.0, 1.2, 9.0, 1.0, 1.0] + [-1.0] * 10
    cropcoco = read_cropcoco(write(annotation(pad_to_contain=padding)), tmp_path)
    assert present_of(cropcoco, "window") == [1, 2, 3, 5, 6]
    assert present_of(cropcoco, "written") == [0, 1, 2, 5, 6]
    assert cropcoco.annotated.padding[0].tolist() == padding


def test_padding_of_what_has_no_label_is_not_read(write: Callable[..., Path], tmp_path: Path) -> None:
    cropcoco = read_cropcoco(write(annotation(pad_to_contain=[1.0] * 17)), tmp_path)
    assert present_of(cropcoco, "window") == list(range(7))


def test_a_coordinate_of_three_is_no_level(write: Callable[..., Path], tmp_path: Path) -> None:
    triples = np.zeros((17, 3))
    triples[0] = 3, 3, 3
    (person,) = read_cropcoco(write(annotation(keypoints=triples.ravel().tolist(), num_keypoints=1)), tmp_path).persons
    assert person.keypoints[0].tolist() == [3, 3]
    assert person.labels.visibility[0] == 0


def test_widening_by_hand() -> None:
    points = np.array([[50.0, 50.0], [65.0, 70.0], [68.75, 50.0], [50.0, 25.0], [80.0, 50.0], [50.0, -10.0]])
    np.testing.assert_allclose(widening(points, np.array(BBOX)), [1, 1, 1.25, 1.25, 2, 3])
    lying = np.array([0.0, 40.0, 60.0, 20.0])  # 60 x 80 once it is 3:4
    np.testing.assert_allclose(widening(np.array([[30.0, 90.0], [-6.0, 50.0]]), lying), [1, 1.2])


def test_the_window_is_the_one_of_the_plain_view() -> None:
    """Of a model with an input of 3:4, but for half a pixel of its input at the border."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        bbox = np.concatenate([rng.uniform(0, 100, 2), rng.uniform(5, 100, 2)])
        points = rng.uniform(-50, 300, (500, 2))
        input_points = warp_points(points, crop_matrix(bbox_to_view(bbox, (192, 256), 1.25), (192, 256)))
        border = np.minimum(np.abs(input_points), np.abs(input_points - [191, 255])).min(axis=-1) < 0.6
        found = widening(points, bbox) <= 1.25
        assert (found == inside(input_points, (192, 256)))[~border].all()


def test_everybody_annotated_counts(write: Callable[..., Path], tmp_path: Path) -> None:
    """Also who is beyond the window with all that is annotated; not crowds, nor who has no annotation."""
    beyond = np.zeros((17, 3))
    beyond[4] = 500, 500, 3
    nothing = annotation(2, keypoints=[0] * 51, num_keypoints=0)
    file = write(
        annotation(1),
        nothing,
        annotation(3, iscrowd=1),
        annotation(4, keypoints=beyond.ravel().tolist(), num_keypoints=0),
    )
    cropcoco = read_cropcoco(file, tmp_path)
    assert [person.annotation_id for person in cropcoco.persons] == [1, 4]
    for rule in ("written", "window", "image"):
        assert not cropcoco.label(rule).present[1].any()
    assert cropcoco.label("window").present_weight.sum(axis=1).tolist() == [7, 1]


def test_its_persons_make_samples(write: Callable[..., Path], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "3.png"), np.full((HEIGHT, WIDTH, 3), 200, dtype=np.uint8))
    cropcoco = read_cropcoco(write(annotation()), tmp_path)
    sample = PoseDataset(cropcoco.persons, Crop((192, 256), 1.25, "extend", aligned=True), "labelled", None, 0)[0, 0]
    within = inside(sample.keypoints_input.numpy().astype(np.float64), (192, 256))
    labelled = cropcoco.label("window").present_weight[0] > 0
    assert np.flatnonzero(within & labelled).tolist() == present_of(cropcoco, "window")


@pytest.mark.parametrize("num_keypoints", [5, 7, 8, 17, None])  # 8 and 17: as before the picture was cut
def test_keypoints_beyond_may_be_counted_or_not(
    num_keypoints: int | None, write: Callable[..., Path], tmp_path: Path
) -> None:
    person = annotation(num_keypoints=num_keypoints)
    if num_keypoints is None:
        del person["num_keypoints"]
    assert len(read_cropcoco(write(person), tmp_path).persons) == 1


def test_coco_itself_reads_as_itself(write: Callable[..., Path], tmp_path: Path) -> None:
    triples = np.column_stack([np.arange(17) + 40, np.arange(17) + 40, np.array([0, 1, 2] * 5 + [2, 1])])
    person = annotation(keypoints=triples.ravel().tolist(), num_keypoints=12)
    file = write(person)
    (found,) = read_cropcoco(file, tmp_path).persons
    (wanted,) = persons_of(json.loads(file.read_text()) | {"info": {"image_root": str(tmp_path)}})
    for a, b in zip(found[:3], wanted[:3], strict=True):
        assert a == b
    np.testing.assert_array_equal(found.keypoints, wanted.keypoints)
    np.testing.assert_array_equal(found.labels.visibility, wanted.labels.visibility)


def _set(key: str, value: Any) -> Edit:
    return lambda person: person.update({key: value})


def _drop(key: str) -> Edit:
    return lambda person: person.pop(key)


def _keypoint(place: int, value: Any) -> Edit:
    return lambda person: person["keypoints"].__setitem__(place, value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_keypoint(2, 4), "keypoints: found visibility \\[4\\], wanted 0, 1, 2 or 3"),
        (_keypoint(2, 1.5), "keypoints: found visibility \\[1.5\\], wanted 0, 1, 2 or 3"),
        (_keypoint(2, None), "keypoints: found a list of 51, wanted 51 finite numbers"),
        (_keypoint(2, [3]), "keypoints: found a list of 51, wanted 51 finite numbers"),
        (_keypoint(0, float("nan")), "keypoints: found a list of 51, wanted 51 finite numbers"),
        (_keypoint(0, "x"), "keypoints: found a list of 51, wanted 51 finite numbers"),
        (_keypoint(2, True), "keypoints: found a list of 51, wanted 51 finite numbers"),
        (_set("keypoints", []), r"keypoints: found \[\], wanted 51 finite numbers"),
        (_set("keypoints", {"x": 1}), "keypoints: found {'x': 1}, wanted 51 finite numbers"),
        (_set("num_keypoints", 18), "num_keypoints: found 18, wanted 5, or 7 with those of v = 3, or more as before"),
        (_set("num_keypoints", 6), "num_keypoints: found 6, wanted 5, or 7 with those of v = 3"),
        (_set("num_keypoints", "7"), "num_keypoints: found '7', wanted 5"),
        (_drop("bbox"), r"bbox: found None, wanted \[x, y, w, h\] with w, h > 0"),
        (_set("bbox", [1, 2, 0, 4]), r"bbox: found \[1, 2, 0, 4\], wanted \[x, y, w, h\] with w, h > 0"),
        (_drop("area"), "area: found None, wanted a number of pixels"),
        (_drop("iscrowd"), "iscrowd: found None, wanted 0 or 1"),
        (_set("category_id", 2), "category_id: found 2, wanted 1, a person"),
        (_set("image_id", 9), "image_id: found 9, wanted the id of an image"),
        (_set("image_id", [3]), r"image_id: found \[3\], wanted the id of an image"),
        (_set("pad_to_contain", 1.25), "pad_to_contain: found 1.25, wanted 17 numbers"),
        (_set("pad_to_contain", [1.0] * 16), r"pad_to_contain: found \[.*\], wanted 17 numbers"),
        (_set("pad_to_contain", [-1.0] * 17), "pad_to_contain: found -1.0 for v = 2, wanted a number of at least 1"),
        (_set("pad_to_contain", [0.5] * 17), "pad_to_contain: found 0.5 for v = 2, wanted a number of at least 1"),
        (_set("pad_to_contain", ["1"] * 17), "pad_to_contain: found '1' for v = 2, wanted a number of at least 1"),
        (_set("pad_to_contain", [float("inf")] * 17), "pad_to_contain: found inf for v = 2, wanted a number"),
    ],
)
def test_what_is_refused(edit: Edit, message: str, write: Callable[..., Path], tmp_path: Path) -> None:
    person = annotation()
    edit(person)
    file = write(annotation(6), person)
    with pytest.raises(UserError, match=f"^{file}: annotation 7: {message}") as error:
        read_cropcoco(file, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([{"id": 3, "file_name": "3.png", "width": 0, "height": 9}], [annotation()], "image 3: width: found 0, wanted"),
        ([{"id": 3, "file_name": "../3.png", "width": 9, "height": 9}], [annotation()], "image 3: file_name: found"),
        (None, [annotation(iscrowd=1)], "found nobody with an annotated keypoint, wanted one or more"),
        (None, [], "found nobody with an annotated keypoint"),
        (None, [annotation(), annotation()], "annotations.1.: id 7 is used twice"),
    ],
)
def test_files_that_are_refused(
    images: Any, annotations: Any, message: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    file = write(*annotations, images=images)
    with pytest.raises(UserError, match=f"^{file}: {message}"):
        read_cropcoco(file, tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_cropcoco(tmp_path / "none.json", tmp_path)


def test_an_unknown_rule(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rule: found 'visible', wanted 'written' or 'window' or 'image'"):
        read_cropcoco(write(annotation()), tmp_path).label("visible")
