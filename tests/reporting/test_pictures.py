"""Pictures of persons: who is shown, what is called absent, what the grid looks like."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.data.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS
from bench.data.predictions import write_predictions
from bench.errors import UserError
from bench.reporting import pictures
from bench.reporting.pictures import (
    CELL_SIZE,
    OUTSIDE,
    Statement,
    choose_subjects,
    draw_grid,
    list_keypoints,
    read_statements,
    side_of,
    write_pictures,
)
from bench.reporting.rows import HEATMAP_PEAK, run_file
from tests.reporting.fake_runs import make_people, make_row, make_run


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return make_people(tmp_path, 6, np.random.default_rng(0))


def test_the_seed_alone_chooses(people: dict[str, Any]) -> None:
    def chosen(seed: int, num_persons: int = 4) -> list[int]:
        return [subject.annotation_id for subject in choose_subjects(people, num_persons, seed, "labelled")]

    backwards = {**people, "annotations": people["annotations"][::-1]}
    assert chosen(0) == chosen(0) == [s.annotation_id for s in choose_subjects(backwards, 4, 0, "labelled")]
    assert any(chosen(0) != chosen(seed) for seed in range(1, 5))
    assert len(set(chosen(0, 100))) == 6


def test_drawn_people_keep_the_true_place_of_what_is_absent(people: dict[str, Any]) -> None:
    by_id = {annotation["id"]: annotation for annotation in people["annotations"]}
    for subject in choose_subjects(people, 6, 0, "labelled"):
        truth = np.array(by_id[subject.annotation_id]["true_keypoints"]).reshape(-1, 3)
        np.testing.assert_array_equal(subject.keypoints, truth[:, :2])
        np.testing.assert_array_equal(subject.present, truth[:, 2] > 0)


def test_annotated_people_have_no_place_for_what_is_absent(people: dict[str, Any]) -> None:
    for annotation in people["annotations"]:
        del annotation["true_keypoints"]
    subjects = choose_subjects(people, 6, 0, "visible")
    unlabelled = np.stack([np.isnan(subject.keypoints).all(1) for subject in subjects])
    assert unlabelled.any()
    assert all((subject.present <= ~subject.hidden).all() for subject in subjects)  # hidden is absent when not visible


@pytest.mark.parametrize("head", [False, True])
def test_absent_is_below_the_systems_own_threshold(people: dict[str, Any], tmp_path: Path, head: bool) -> None:
    row = make_run(tmp_path / "runs", people, "a", head=head)
    file = run_file(tmp_path / "runs", "predictions", "a", 0)
    frame = pd.read_parquet(file)
    # The order of persons on disk must not matter.
    frame = pd.concat([person for _, person in frame.groupby("annotation_id")][::-1], ignore_index=True)
    value = np.where(frame["keypoint"] < 5, 0.5, 0.1)  # thresholds: head 0.43, peak 0.21
    frame["presence_logit"] = np.log(value / (1 - value)) if head else np.nan
    frame["score"] = 0.9 if head else value
    write_predictions(file, [frame])
    subjects = choose_subjects(people, 3, 0, "labelled")
    x = frame.set_index(["annotation_id", "keypoint"])["x"]
    for subject, statement in zip(subjects, read_statements(tmp_path / "runs", row, subjects), strict=True):
        np.testing.assert_array_equal(statement.present, np.arange(NUM_KEYPOINTS) < 5)
        np.testing.assert_array_equal(statement.keypoints[:, 0], x[subject.annotation_id])


def test_a_score_at_the_threshold_is_present(people: dict[str, Any], tmp_path: Path) -> None:
    row = make_run(tmp_path / "runs", people, "a")
    file = run_file(tmp_path / "runs", "predictions", "a", 0)
    write_predictions(file, [pd.read_parquet(file).assign(score=row.thresholds[HEATMAP_PEAK])])
    (statement,) = read_statements(tmp_path / "runs", row, choose_subjects(people, 1, 0, "labelled"))
    assert statement.present.all()


def test_other_splits_are_not_shown(people: dict[str, Any], tmp_path: Path) -> None:
    row = make_run(tmp_path / "runs", people, "a")
    file = run_file(tmp_path / "runs", "predictions", "a", 0)
    val = pd.read_parquet(file)
    subjects = choose_subjects(people, 6, 0, "labelled")
    wanted = read_statements(tmp_path / "runs", row, subjects)
    write_predictions(file, [val.assign(split="calibration", x=-1.0), val, val.assign(split="val_detected", x=-2.0)])
    for before, after in zip(wanted, read_statements(tmp_path / "runs", row, subjects), strict=True):
        np.testing.assert_array_equal(before.keypoints, after.keypoints)


def test_missing_predictions_name_file_and_person(people: dict[str, Any], tmp_path: Path) -> None:
    row, subjects = make_row("a"), choose_subjects(people, 6, 0, "labelled")
    with pytest.raises(UserError, match=r"predictions/a-0\.parquet.*`dvc repro predict@a-0`") as found:
        read_statements(tmp_path / "runs", row, subjects)
    assert "\n" not in str(found.value)
    fewer = {**people, "annotations": people["annotations"][:-1]}
    make_run(tmp_path / "runs", fewer, "a")
    message = (
        r"predictions/a-0\.parquet: annotation 106: missing, wanted every val person: run `dvc repro predict@a-0`$"
    )
    with pytest.raises(UserError, match=message):
        read_statements(tmp_path / "runs", row, subjects)


def test_broken_predictions_name_file_and_person(people: dict[str, Any], tmp_path: Path) -> None:
    row, subjects = make_run(tmp_path / "runs", people, "a"), choose_subjects(people, 6, 0, "labelled")
    file = run_file(tmp_path / "runs", "predictions", "a", 0)
    frame = pd.read_parquet(file)
    for broken, message in (
        (frame.drop(index=20), "annotation 102: found keypoint 4 at row 20 of val, wanted 17 keypoints"),
        (frame.drop(columns="view_area"), "column 'view_area' is missing"),
    ):
        write_predictions(file, [broken])
        where = rf"predictions/a-0\.parquet: {message}.*run `dvc repro predict@a-0`$"
        with pytest.raises(UserError, match=where) as found:
            read_statements(tmp_path / "runs", row, subjects)
        assert "\n" not in str(found.value)


def test_pictures_are_numbered_and_hold_few_persons_each(people: dict[str, Any], tmp_path: Path) -> None:
    row = make_run(tmp_path / "runs", people, "a")
    manifest = tmp_path / "data/demo/val.json"
    folder = tmp_path / "page"
    folder.mkdir()
    names = write_pictures(folder, manifest, tmp_path / "runs", [row], num_persons=6, seed=0)
    assert names == [file.name for file in folder.iterdir()] == ["pictures_1.png"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "PERSONS_PER_PICTURE", 2)
        names = write_pictures(folder, manifest, tmp_path / "runs", [row], num_persons=3, seed=0)
    assert names == sorted(file.name for file in folder.iterdir()) == ["pictures_1.png", "pictures_2.png"]


def test_limbs_join_present_keypoints_only_and_the_outside_is_grey(people: dict[str, Any]) -> None:
    subject = next(s for s in choose_subjects(people, 6, 0, "labelled") if not s.present.all())
    nothing = Statement(subject.keypoints, np.zeros(NUM_KEYPOINTS, dtype=bool))
    figure = draw_grid([subject], {"silent": [nothing]}, drawn=True)
    truth, silent = figure.axes
    markers = [line.get_marker() for line in silent.lines]
    assert set(markers) == {"X"}  # crosses, no dots, no limbs
    assert sum(line.get_marker() == "o" for line in truth.lines) == subject.present.sum()
    assert "presence right" in silent.texts[0].get_text()
    crop = np.asarray(truth.images[0].get_array())
    assert crop.shape == (CELL_SIZE[1], CELL_SIZE[0], 3)
    assert (crop == OUTSIDE).all(-1).any()
    assert "Drawn people" in figure.get_suptitle()


def test_words_for_keypoints() -> None:
    index = KEYPOINT_NAMES.index
    names = ["nose", "left_ankle", "right_ankle", "left_knee"]
    assert list_keypoints(sorted(map(index, names))) == "nose, left knee, ankles"
    assert side_of(index("left_hip"), index("left_knee")) == "left"
    assert side_of(index("nose"), index("right_eye")) == "right"
    assert side_of(index("left_hip"), index("right_hip")) == "mid"
