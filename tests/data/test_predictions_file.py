"""What stage predict writes is what every later stage reads."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from bench.data.coco import CocoDict, Person, persons_in, persons_of
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.predictions import CALIBRATION, DETECTED, STATISTICS, VAL, Split, read_split, write_predictions
from bench.data.windows import Windows
from bench.errors import UserError
from bench.inference.predict import Predictions
from bench.stages.predict import predictions_frame

Floats = NDArray[np.float64]


def make_manifest(num_persons: int, *, drawn: bool, first_id: int = 1) -> CocoDict:
    """Two persons an image. Of drawn people some keypoints are there in truth and yet not labelled."""
    rng = np.random.default_rng(num_persons)
    annotations: list[CocoDict] = []
    for i in range(num_persons):
        visibility = np.append(rng.integers(0, 3, NUM_KEYPOINTS - 1), 1)
        person: CocoDict = {
            "id": first_id + i, "image_id": 10 * (1 + i // 2), "bbox": [1.0, 2.0, 30.0, 40.0], "iscrowd": 0,
            "keypoints": np.column_stack([rng.uniform(0, 50, (NUM_KEYPOINTS, 2)), visibility]).ravel().tolist(),
            "num_keypoints": int((visibility > 0).sum()),
        }  # fmt: skip
        truth = np.column_stack([np.zeros((NUM_KEYPOINTS, 2)), rng.integers(0, 3, NUM_KEYPOINTS)])
        annotations.append(person | ({"true_keypoints": truth.ravel().tolist()} if drawn else {}))
    image_ids = sorted({person["image_id"] for person in annotations})
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in image_ids]
    return {"info": {"image_root": "images"}, "images": images, "annotations": annotations}


def make_detections(manifest: CocoDict, num_boxes: int) -> list[Person]:
    rng = np.random.default_rng(1)
    image_ids = rng.choice([image["id"] for image in manifest["images"]], num_boxes)
    return persons_in(rng.uniform(1, 50, (num_boxes, 4)), rng.random(num_boxes), image_ids, manifest)


def make_predictions(num_persons: int, *, head: bool) -> Predictions:
    rng = np.random.default_rng(num_persons)
    shape = (num_persons, NUM_KEYPOINTS)
    keypoints, score = rng.uniform(-5, 60, (*shape, 2)), rng.random(shape).astype(np.float32)
    logits = rng.normal(size=shape).astype(np.float32) if head else None
    return Predictions(keypoints, score, logits, {name: rng.random(shape, np.float32) for name in STATISTICS})


def make_windows(persons: list[Person]) -> Windows:
    """Every third keypoint is outside."""
    shows = np.arange(len(persons) * NUM_KEYPOINTS).reshape(-1, NUM_KEYPOINTS) % 3 > 0
    return Windows(np.linspace(100, 999, len(persons)), shows)


def make_frame(split: str, persons: list[Person], *, head: bool) -> pd.DataFrame:
    return predictions_frame(split, persons, make_windows(persons), make_predictions(len(persons), head=head))


def labels_of(persons: list[Person]) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """COCO's v, and of drawn people the true one."""
    truths = [p.labels.true_visibility for p in persons if p.labels.true_visibility is not None]
    return np.stack([p.labels.visibility for p in persons]), np.stack(truths) if truths else None


def check_predictions(found: Split, persons: list[Person], *, head: bool) -> None:
    predictions = make_predictions(len(persons), head=head)
    assert found.image_ids.tolist() == [person.image_id for person in persons]
    assert found.annotation_ids.tolist() == [person.annotation_id for person in persons]
    assert found.bbox_score.tolist() == [person.bbox_score for person in persons]
    np.testing.assert_array_equal(found.view_area, make_windows(persons).area)
    np.testing.assert_array_equal(found.keypoints, predictions.keypoints)
    np.testing.assert_array_equal(found.score, predictions.score.astype(np.float64))
    assert tuple(found.statistics) == STATISTICS
    for name, values in predictions.statistics.items():
        np.testing.assert_array_equal(found.statistics[name], values.astype(np.float64))
    if predictions.presence_logits is None:
        assert found.presence is None
    else:
        np.testing.assert_array_equal(found.presence, expit(predictions.presence_logits.astype(np.float64)))
    for array in (found.score, found.present_weight, found.keypoints, *found.statistics.values()):
        assert array.dtype == np.float64
    assert found.present.dtype == np.bool_


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("drawn", [False, True])
def test_round_trip(tmp_path: Path, drawn: bool, head: bool) -> None:
    """Every split apart, detected boxes too, under every policy that the people carry labels for."""
    file = tmp_path / "deep" / "run-0.parquet"
    splits = {
        CALIBRATION: persons_of(make_manifest(3, drawn=drawn, first_id=100)),
        VAL: persons_of(make_manifest(5, drawn=drawn)),
        DETECTED: make_detections(make_manifest(5, drawn=drawn), 8),
    }
    write_predictions(file, [make_frame(name, persons, head=head) for name, persons in splits.items()])
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    policies: dict[str, Callable[[list[Person]], NDArray[np.bool_]]] = {
        "labelled": lambda persons: labels_of(persons)[0] > 0,
        "visible": lambda persons: labels_of(persons)[0] == 2,
        "in_window": lambda persons: (labels_of(persons)[0] > 0) & make_windows(persons).shows,
    }
    if drawn:
        policies["true"] = lambda persons: np.asarray(labels_of(persons)[1]) > 0
    for name, persons in splits.items():
        found = [read_split(file, name, policy) for policy in policies]
        for split, present in zip(found, policies.values(), strict=True):
            check_predictions(split, persons, head=head)
            if name == DETECTED:
                assert not split.present.any()
                assert not (split.present_weight > 0).any()
                assert set(split.annotation_ids.tolist()) == {-1}
            else:
                np.testing.assert_array_equal(split.present, present(persons))
                np.testing.assert_array_equal(split.present_weight, np.ones((len(persons), NUM_KEYPOINTS)))
        if name != DETECTED:
            assert len({split.present.tobytes() for split in found}) == len(policies)


def test_detected_people_are_marked_as_not_labelled(tmp_path: Path) -> None:
    manifest = make_manifest(5, drawn=False)
    frame = make_frame(DETECTED, make_detections(manifest, 4), head=True)
    for column, value in {"annotation_id": -1, "visibility": -1}.items():
        assert set(frame[column]) == {value}
    weights = frame[["present_weight_labelled", "present_weight_visible"]]
    assert (weights == 0).all(axis=None)
    annotated = make_frame(VAL, persons_of(manifest), head=True)
    assert set(annotated["visibility"]) == {0, 1, 2}
    assert (annotated[list(weights)] == 1).all(axis=None)


def test_every_person_has_a_row_per_keypoint_in_order() -> None:
    frame = make_frame(VAL, persons_of(make_manifest(3, drawn=False)), head=False)
    assert frame["keypoint"].tolist() == list(range(NUM_KEYPOINTS)) * 3
    assert frame["annotation_id"].tolist() == [i for i in (1, 2, 3) for _ in range(NUM_KEYPOINTS)]


def test_statistics_are_written_in_single_precision() -> None:
    frame = make_frame(VAL, persons_of(make_manifest(3, drawn=False)), head=False)
    assert {str(frame[name].dtype) for name in STATISTICS} == {"float32"}


def test_writing_again_replaces_the_file(tmp_path: Path) -> None:
    file, manifest = tmp_path / "run-0.parquet", make_manifest(4, drawn=False)
    for persons in (persons_of(manifest), persons_of(manifest)[:2]):
        write_predictions(file, [make_frame(VAL, persons, head=False)])
        check_predictions(read_split(file, VAL, "labelled"), persons, head=False)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file, persons = tmp_path / "run-0.parquet", persons_of(make_manifest(4, drawn=False))
    write_predictions(file, [make_frame(VAL, persons, head=False)])
    broken = make_frame(VAL, persons, head=False).assign(x=lambda frame: ["a", *range(1, len(frame))])
    with pytest.raises((TypeError, ValueError)):
        write_predictions(file, [broken])
    check_predictions(read_split(file, VAL, "labelled"), persons, head=False)


def written(tmp_path: Path, edit: Callable[[pd.DataFrame], Any]) -> Path:
    """A file with val alone, after an edit."""
    file = tmp_path / "hrnet-3.parquet"
    frame = make_frame(VAL, persons_of(make_manifest(4, drawn=False)), head=True)
    edit(frame).to_parquet(file, index=False)
    return file


def refusal(file: Path, split: str = VAL, policy: str = "labelled") -> str:
    """One line that names the file, and the stage that writes it."""
    with pytest.raises(UserError) as caught:
        read_split(file, split, policy)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    assert message.endswith(f": run `dvc repro predict@{file.stem}`")
    return message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no readable predictions (" in refusal(tmp_path / "vitpose-0.parquet")


@pytest.mark.parametrize(
    "content",
    [
        lambda whole: whole[:0],
        lambda whole: b"keypoint,x,y\n" + whole[:0],
        lambda whole: whole[:-300],
        lambda whole: whole[:300] + bytes(len(whole) - 700) + whole[-400:],
        lambda whole: whole[:200] + bytes(200) + whole[400:],
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: Callable[[bytes], bytes]) -> None:
    file = written(tmp_path, lambda frame: frame)
    file.write_bytes(content(file.read_bytes()))
    assert "no readable predictions (" in refusal(file)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "no readable predictions (" in refusal(tmp_path)


READ = (
    "split", "image_id", "annotation_id", "keypoint", "x", "y", "score", "presence_logit", "bbox_score", "view_area",
    *STATISTICS, "present_labelled", "present_weight_labelled",
)  # fmt: skip


@pytest.mark.parametrize("column", READ)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    file = written(tmp_path, lambda frame: frame.drop(columns=column))
    assert f"column '{column}' is missing, wanted {', '.join(READ)}" in refusal(file)


def test_labels_that_people_do_not_carry_are_missing(tmp_path: Path) -> None:
    file = written(tmp_path, lambda frame: frame)
    assert re.search(r"column 'present_(weight_)?true' is missing", refusal(file, policy="true"))


@pytest.mark.parametrize("split", [CALIBRATION, DETECTED])
def test_a_missing_split_is_refused(tmp_path: Path, split: str) -> None:
    file = written(tmp_path, lambda frame: frame)
    assert f"found nobody in split '{split}', wanted one or more" in refusal(file, split)


def swapped(frame: pd.DataFrame) -> pd.DataFrame:
    order = np.arange(len(frame))
    order[[20, 21]] = [21, 20]
    return frame.iloc[order]


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (swapped, "annotation 2: found keypoint 4 at row 20"),
        (lambda frame: frame.sort_values("keypoint", kind="stable"), "annotation 2: found keypoint 0 at row 1"),
        (lambda frame: frame.iloc[1:], "annotation 1: found keypoint 1 at row 0"),
        (lambda frame: frame.iloc[:-1], "annotation 4: found keypoint 15 at row 66"),
        (lambda frame: frame.drop(index=range(30, 40)), "annotation 3: found keypoint 6 at row 30"),
        (lambda frame: frame.assign(keypoint=frame["keypoint"] + 1), "annotation 1: found keypoint 1 at row 0"),
    ],
)
def test_keypoints_in_another_order_are_refused(
    tmp_path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], found: str
) -> None:
    assert f"{found} of val, wanted 17 keypoints of each person in order" in refusal(written(tmp_path, edit))


def test_presence_of_some_keypoints_only_is_refused(tmp_path: Path) -> None:
    """A model has a head or has none; a number that is lost must not make it headless."""

    def lose(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(presence_logit=frame["presence_logit"].mask(np.arange(len(frame)) == 36))

    message = "annotation 3: found no presence_logit of keypoint 2 at row 36 of val, wanted one of every keypoint"
    assert message in refusal(written(tmp_path, lose))
