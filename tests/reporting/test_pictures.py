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
    shown_policy,
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
    for subject, statement in zip(subjects, read_statements(tmp_path / "runs", row, subjects, "labelled"), strict=True):
        np.testing.assert_array_equal(statement.present, np.arange(NUM_KEYPOINTS) < 5)
        np.testing.assert_array_equal(statement.keypoints[:, 0], x[subject.annotation_id])


def test_a_score_at_the_threshold_is_present(people: dict[str, Any], tmp_path: Path) -> None:
    row = make_run(tmp_path / "runs", people, "a")
    file = run_file(tmp_path / "runs", "predictions", "a", 0)
    write_predictions(file, [pd.read_parquet(file).assign(score=row.thresholds[HEATMAP_PEAK])])
    (statement,) = read_statements(tmp_path / "runs", row, choose_subjects(people, 1, 0, "labelled"), "labelled")
    assert statement.present.all()


def test_other_splits_are_not_shown(people: dict[str, Any], tmp_path: Path) -> None:
    row = make_run(tmp_path / "runs", people, "a")
    file = run_file(tmp_path / "runs", "predictions", "a", 0)
    val = pd.read_parquet(file)
    subjects = choose_subjects(people, 6, 0, "labelled")
    wanted = read_statements(tmp_path / "runs", row, subjects, "labelled")
    write_predictions(file, [val.assign(split="calibration", x=-1.0), val, val.assign(split="val_detected", x=-2.0)])
    for before, after in zip(wanted, read_statements(tmp_path / "runs", row, subjects, "labelled"), strict=True):
        np.testing.assert_array_equal(before.keypoints, after.keypoints)


def test_missing_predictions_name_file_and_person(people: dict[str, Any], tmp_path: Path) -> None:
    row, subjects = make_row("a"), choose_subjects(people, 6, 0, "labelled")
    with pytest.raises(UserError, match=r"predictions/a-0\.parquet.*`dvc repro predict@a-0`") as found:
        read_statements(tmp_path / "runs", row, subjects, "labelled")
    assert "\n" not in str(found.value)
    fewer = {**people, "annotations": people["annotations"][:-1]}
    make_run(tmp_path / "runs", fewer, "a")
    message = (
        r"predictions/a-0\.parquet: annotation 106: missing, wanted every val person: run `dvc repro predict@a-0`$"
    )
    with pytest.raises(UserError, match=message):
        read_statements(tmp_path / "runs", row, subjects, "labelled")


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
            read_statements(tmp_path / "runs", row, subjects, "labelled")
        assert "\n" not in str(found.value)


def test_pictures_are_numbered_and_hold_few_persons_each(people: dict[str, Any], tmp_path: Path) -> None:
    row = make_run(tmp_path / "runs", people, "a")
    manifest = tmp_path / "data/demo/val.json"
    folder = tmp_path / "page"
    folder.mkdir()
    names, policy = write_pictures(folder, manifest, tmp_path / "runs", [row], num_persons=6, seed=0)
    assert policy == "true"
    assert names == [file.name for file in folder.iterdir()] == ["pictures_1.png"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "PERSONS_PER_PICTURE", 2)
        names, _ = write_pictures(folder, manifest, tmp_path / "runs", [row], num_persons=3, seed=0)
    assert names == sorted(file.name for file in folder.iterdir()) == ["pictures_1.png", "pictures_2.png"]


def test_limbs_join_present_keypoints_only_and_the_outside_is_grey(people: dict[str, Any]) -> None:
    subject = next(s for s in choose_subjects(people, 6, 0, "labelled") if not s.present.all())
    nothing = Statement(subject.keypoints, np.zeros(NUM_KEYPOINTS, dtype=bool), 3, NUM_KEYPOINTS)
    figure = draw_grid([subject], {"silent": [nothing]}, "true")
    truth, silent = figure.axes
    markers = [line.get_marker() for line in silent.lines]
    assert set(markers) == {"X"}  # crosses, no dots, no limbs
    assert sum(line.get_marker() == "o" for line in truth.lines) == subject.present.sum()
    assert silent.texts[0].get_text() == "presence right: 3 of 17"
    assert truth.get_title() == "truth"
    crop = np.asarray(truth.images[0].get_array())
    assert crop.shape == (CELL_SIZE[1], CELL_SIZE[0], 3)
    assert (crop == OUTSIDE).all(-1).any()
    assert "Drawn people" in figure.get_suptitle()


def without_label(people: dict[str, Any], keypoint: int) -> dict[str, Any]:
    """The annotator passed one keypoint over that is in the image in truth; person 103 is cut by the border."""
    for annotation in people["annotations"]:
        annotation["keypoints"][3 * keypoint : 3 * keypoint + 3] = [0, 0, 0]
        annotation["true_keypoints"][3 * keypoint + 2] = 2
    return people


def test_drawn_people_show_the_truth_whatever_the_headline_policy(people: dict[str, Any], tmp_path: Path) -> None:
    """A nose that has no label and is in the image has no cross, and calling it present is right."""
    without_label(people, 0)
    row = make_run(tmp_path / "runs", people, "a")
    assert row.protocol.policy == "labelled"
    assert shown_policy(people, "labelled") == "true"
    file = run_file(tmp_path / "runs", "predictions", "a", 0)
    write_predictions(file, [pd.read_parquet(file).assign(score=1.0)])  # everything is called present
    subject = next(s for s in choose_subjects(people, 6, 0, "true") if s.annotation_id == 101)
    assert subject.present.all()
    for policy, right in (("true", 17), ("labelled", 16)):
        (said,) = read_statements(tmp_path / "runs", row, [subject], policy)
        assert (said.right, said.counted) == (right, 17)
    first, second = draw_grid([subject], {"a": [said._replace(right=17)]}, "true").axes
    assert first.get_title() == "truth"
    assert "X" not in [line.get_marker() for line in first.lines]
    assert first.texts[0].get_text() == "person 101: 17 in image, 0 outside"
    assert second.texts[0].get_text() == "presence right: 17 of 17"


def test_without_truth_the_column_is_named_by_the_policy(people: dict[str, Any]) -> None:
    without_label(people, 0)
    for annotation in people["annotations"]:
        del annotation["true_keypoints"]
    assert shown_policy(people, "labelled") == "labelled"
    subject = next(s for s in choose_subjects(people, 6, 0, "labelled") if s.annotation_id == 101)
    said = Statement(subject.keypoints, subject.present, 17, 17)
    figure = draw_grid([subject], {"a": [said]}, "labelled")
    first, second = figure.axes
    assert first.get_title() == "policy labelled"
    assert first.texts[0].get_text() == "person 101: 16 present, 1 absent;\nwithout a cross: nose"
    assert second.texts[0].get_text() == "as policy labelled: 17 of 17"
    words = [text.get_text() for text in figure.legends[0].get_texts()] + [figure.get_suptitle(), first.get_title()]
    assert not [word for word in words if "true" in word or "truth" in word or "Drawn" in word]


def test_what_a_policy_ignores_is_neither_drawn_nor_counted(people: dict[str, Any], tmp_path: Path) -> None:
    """Hidden keypoints are ignored by `three_class`: no cross on them, no right and no wrong answer."""
    row = make_run(tmp_path / "runs", people, "a")
    subject = next(s for s in choose_subjects(people, 6, 0, "three_class") if s.hidden.any() and s.present.any())
    ignored = int(subject.hidden.sum())
    (said,) = read_statements(tmp_path / "runs", row, [subject], "three_class")
    assert said.counted == NUM_KEYPOINTS - ignored == subject.counted.sum()
    first, _ = draw_grid([subject], {"a": [said]}, "three_class").axes
    assert f"{ignored} ignored" in first.texts[0].get_text().replace("\n", " ")
    crosses = [line for line in first.lines if line.get_marker() == "X"]
    assert len(crosses) <= subject.absent.sum()
    assert not (subject.absent & subject.hidden).any()


def test_words_for_keypoints() -> None:
    index = KEYPOINT_NAMES.index
    names = ["nose", "left_ankle", "right_ankle", "left_knee"]
    assert list_keypoints(sorted(map(index, names))) == "nose, left knee, ankles"
    assert side_of(index("left_hip"), index("left_knee")) == "left"
    assert side_of(index("nose"), index("right_eye")) == "right"
    assert side_of(index("left_hip"), index("right_hip")) == "mid"
