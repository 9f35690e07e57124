"""Annotations and poses as arrays."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO

from bench.data.people import Detections, Truth, extent_area, image_positions, people_of

ToyCoco = tuple[dict[str, Any], list[dict[str, Any]]]
MakeCoco = Callable[[int, int], ToyCoco]
Floats = NDArray[np.float64]


def make_pose(result: dict[str, Any]) -> Floats:
    return np.array(result["keypoints"], dtype=np.float64).reshape(-1, 3)


def detections_in(truth: Truth, results: list[dict[str, Any]]) -> Detections:
    poses = np.stack([make_pose(result) for result in results])
    image_ids = np.array([result["image_id"] for result in results])
    score = np.array([result["score"] for result in results])
    return truth.detections(image_ids, poses[..., :2], poses[..., 2], score)


def test_positions_are_those_of_the_ascending_ids() -> None:
    found = image_positions(np.array([70, 5, 300]), np.array([300, 5, 70, 70, 5]))
    assert found.tolist() == [2, 0, 1, 1, 0]
    assert found.dtype == np.int64


def test_images_that_are_not_there_have_no_position() -> None:
    assert image_positions(np.array([70, 5, 300]), np.array([1, 6, 299, 301, 70])).tolist() == [-1, -1, -1, -1, 1]
    assert image_positions(np.array([], dtype=np.int64), np.array([1, 2])).tolist() == [-1, -1]
    assert image_positions(np.array([1, 2]), np.array([], dtype=np.int64)).tolist() == []


def test_people_stand_by_image_in_the_order_of_their_file(make_coco: MakeCoco) -> None:
    truth, _ = make_coco(3, 20)
    annotations = [truth["annotations"][i] for i in np.random.default_rng(0).permutation(len(truth["annotations"]))]
    image_ids = np.array([image["id"] for image in truth["images"]])
    people = people_of(annotations, image_ids)
    expected = [a for image_id in np.sort(image_ids) for a in annotations if a["image_id"] == image_id]
    assert len(expected) > 30
    assert np.sort(image_ids)[people.image].tolist() == [a["image_id"] for a in expected]
    triplets = np.array([a["keypoints"] for a in expected]).reshape(-1, 17, 3)
    np.testing.assert_array_equal(people.keypoints, triplets[..., :2])
    np.testing.assert_array_equal(people.visibility, triplets[..., 2])
    for field in ("area", "bbox", "num_keypoints"):
        np.testing.assert_array_equal(getattr(people, field), [a[field] for a in expected])
    assert people.crowd.tolist() == [bool(a["iscrowd"]) for a in expected]
    assert people.crowd.any()
    assert [people.visibility.dtype, people.crowd.dtype] == [np.int64, np.bool_]


def test_people_of_other_images_are_left_out(make_coco: MakeCoco) -> None:
    truth, _ = make_coco(3, 20)
    some = np.array([image["id"] for image in truth["images"]])[:7]
    people = people_of(truth["annotations"], some)
    assert np.sort(some)[people.image].tolist() == sorted(
        a["image_id"] for a in truth["annotations"] if a["image_id"] in some
    )
    assert 0 < len(people.image) < len(truth["annotations"])


@pytest.mark.parametrize("annotated", [False, True])
def test_images_may_be_without_people(make_coco: MakeCoco, annotated: bool) -> None:
    people = people_of(make_coco(3, 20)[0]["annotations"] if annotated else [], np.array([5000, 5001]))
    assert [field.shape for field in people] == [(0,), (0, 17, 2), (0, 17), (0,), (0, 4), (0,), (0,), (0,)]


def test_people_may_have_another_number_of_keypoints(make_coco: MakeCoco) -> None:
    truth, _ = make_coco(3, 10)
    crowdpose = [a | {"keypoints": a["keypoints"][: 3 * 14]} for a in truth["annotations"]]
    image_ids = np.array([image["id"] for image in truth["images"]])
    assert people_of(crowdpose, image_ids).keypoints.shape == (len(crowdpose), 14, 2)


def test_the_truth_is_every_image_of_a_file(make_coco: MakeCoco) -> None:
    content, _ = make_coco(1, 20)
    truth = Truth.of(content)
    assert truth.image_ids.tolist() == sorted(image["id"] for image in content["images"])
    assert truth.image_ids.tolist() != [image["id"] for image in content["images"]]
    assert truth.num_images == 20
    assert len(np.unique(truth.people.image)) < 20  # some images are empty and count nevertheless
    for field, expected in zip(truth.people, people_of(content["annotations"], truth.image_ids), strict=True):
        np.testing.assert_array_equal(field, expected)


def test_detections_keep_their_order_and_know_their_image(make_coco: MakeCoco) -> None:
    content, results = make_coco(1, 20)
    truth = Truth.of(content)
    found = detections_in(truth, results)
    assert truth.image_ids[found.image].tolist() == [result["image_id"] for result in results]
    poses = np.stack([make_pose(result) for result in results])
    np.testing.assert_array_equal(found.keypoints, poses[..., :2])
    np.testing.assert_array_equal(found.keypoint_score, poses[..., 2])
    assert found.score.tolist() == [result["score"] for result in results]


def test_the_area_of_a_detection_is_that_of_pycocotools(make_coco: MakeCoco, tmp_path: Path) -> None:
    content, results = make_coco(1, 20)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(tmp_path / "truth.json")).loadRes(str(tmp_path / "results.json"))
    theirs = [loaded.anns[i + 1]["area"] for i in range(len(results))]
    np.testing.assert_allclose(detections_in(Truth.of(content), results).area, theirs, rtol=1e-12)


def test_extent_by_hand() -> None:
    # From (-1, 2) to (4, 8), and a single point.
    poses = np.array([[[-1.0, 5.0], [4.0, 2.0], [0.0, 8.0]], [[3.0, 3.0]] * 3])
    assert extent_area(poses).tolist() == [5.0 * 6.0, 0.0]
    assert extent_area(np.zeros((0, 17, 2))).tolist() == []


def test_a_detection_in_an_image_that_is_not_evaluated_is_a_fault_of_ours(make_coco: MakeCoco) -> None:
    content, results = make_coco(1, 20)
    with pytest.raises(AssertionError, match="a detection in an image that is not evaluated"):
        detections_in(Truth.of(content), [results[0] | {"image_id": 5000}])


@pytest.mark.parametrize("as_mask", [False, True])
def test_some_detections_are_taken_whole(make_coco: MakeCoco, as_mask: bool) -> None:
    content, results = make_coco(1, 20)
    found = detections_in(Truth.of(content), results)
    places = np.array([2, 5, 7]) if as_mask else np.array([7, 2, 2])
    index = np.isin(np.arange(len(results)), places) if as_mask else places
    taken = found.take(index)
    assert type(taken) is Detections
    for field, whole in zip(taken, found, strict=True):
        np.testing.assert_array_equal(field, whole[places])
