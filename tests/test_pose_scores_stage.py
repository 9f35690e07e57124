"""Stages pose_scores and pose_scores_report on drawn people with made-up predictions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.config import EvaluateParams
from bench.data.coco import Person, persons_of, read_coco
from bench.data.geometry import Crop, bbox_to_view, in_shown
from bench.data.people import Truth
from bench.data.predictions import CALIBRATION, STATISTICS, VAL, read_split, write_predictions
from bench.data.subset import build_manifests
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams
from bench.data.windows import shown_boxes, windows_of
from bench.errors import UserError
from bench.inference.predict import Predictions
from bench.metrics.pose_scores import area_under
from bench.reporting.pose_results import EMIT_ALL, GATED, PLAIN_AP, SCORES, at_threshold, key
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, run_file, write_row
from bench.resolve import load_grid
from bench.stages import pose_scores, pose_scores_report
from bench.stages.files import RunFiles, manifest_file, plan_dir, write_json
from bench.stages.predict import predictions_frame
from tests.reporting.fake_runs import make_row

REPO = Path(__file__).parents[1]
SEEDS = (0, 1)
CROP = Crop((64, 96), 1.25, "extend", aligned=True)
PARAMS = EvaluateParams(
    score_rule="box_keypoint", oks_nms=None, presence_policy="labelled", threshold="max_f1", interval="percentile",
    num_resamples=40, seed=0,
)  # fmt: skip
PLAN = {"profile": "p", "seeds": [*SEEDS], "systems": ["head", "plain"], "policy": "labelled"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two systems, one with a head; half of the drawn people are cut by the border, a fifth of the labels is lost."""
    root = tmp_path_factory.mktemp("project")
    train = load_grid(REPO / "params.yaml").experiments["vitpose"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        scene = SceneParams(image_size=(96, 96), truncation=0.5, unlabelled_fraction=0.2)
        write_drawn_coco(Path("drawn"), {"train2017": 90, "val2017": 50}, scene, seed=0)
        numbers = {"train": 30, "calibration": 40, "val": 40}
        for name, manifest in build_manifests(Path("drawn"), numbers, 0, skip_broken=False).items():
            write_json(manifest_file("p", name), manifest)
        write_json(plan_dir("p") / "pose_scores_report.json", PLAN | {"resampling": {"num": 20, "seed": 0}})
        for name in ("head", "plain"):
            write_json(plan_dir("p") / name / "train.json", train.model_dump(mode="json"))
            write_json(plan_dir("p") / name / "evaluate.json", PARAMS.model_dump())
            for seed in SEEDS:
                predict(name, seed)
                pose_scores.main("p", name, seed)
                write_row(make_row(name, seed, head=name == "head", profile="p"), run_file(runs(), "rows", name, seed))
        pose_scores_report.main("p")
        yield root


def runs() -> Path:
    return Path("runs/p")


def predict(name: str, seed: int) -> None:
    """Near the truth; a head that knows what is labelled, without an error in seed 1, and a peak that knows less."""
    frames = []
    for place, split in enumerate((CALIBRATION, VAL)):
        rng = np.random.default_rng([place, seed])
        persons = persons_of(read_coco(manifest_file("p", split)))
        there = np.stack([person.labels.visibility for person in persons]) > 0
        logits = np.where(there, 4.0, -4.0) + rng.normal(scale=0.0 if seed else 3.0, size=there.shape)
        found = Predictions(
            np.stack([person.keypoints for person in persons]) + rng.normal(scale=1.5, size=(*there.shape, 2)),
            np.clip(0.4 + 0.2 * there + rng.normal(scale=0.2, size=there.shape), 0, 1).astype(np.float32),
            logits.astype(np.float32) if name == "head" else None,
            {statistic: rng.random(there.shape).astype(np.float32) for statistic in STATISTICS},
        )
        frames.append(predictions_frame(split, persons, windows_of(persons, CROP), found))
    write_predictions(RunFiles("p", name, seed).predictions, frames)


def scores(name: str = "head", seed: int = 0) -> pd.DataFrame:
    return pd.read_parquet(RunFiles("p", name, seed).pose_scores)


def test_every_policy_and_source_has_every_score(project: Path) -> None:
    table = scores()
    assert len(table) == 1 + PARAMS.num_resamples
    names = {tuple(name.split("/")[:2]) for name in table if name != PLAIN_AP}
    assert {(p, s) for p in ("labelled", "true") for s in (PRESENCE_HEAD, HEATMAP_PEAK)} <= names
    for policy, source in names:
        assert {key(policy, source, score) for score in (*SCORES, EMIT_ALL, "threshold")} <= set(table)
        curve = np.stack([table[key(policy, source, at_threshold(t))] for t in pose_scores.THRESHOLDS], axis=1)
        area = table[key(policy, source, f"{GATED}_area")]
        np.testing.assert_allclose(area, area_under(curve, pose_scores.THRESHOLDS))
    assert not [name for name in scores("plain") if PRESENCE_HEAD in name]


def test_knowing_what_is_absent_is_seen_by_gated_oks_alone(project: Path) -> None:
    """A head without an error scores as if only labelled keypoints were asked for, or better; OKS hears nothing."""
    table = scores(seed=1)
    gated, everything = (table[key("labelled", PRESENCE_HEAD, score)] for score in (GATED, EMIT_ALL))
    assert (gated >= table[PLAIN_AP]).all()
    assert everything[0] < table[PLAIN_AP][0] - 0.1
    np.testing.assert_array_equal(table[PLAIN_AP], scores("plain", seed=1)[PLAIN_AP])


def test_suppressing_just_the_absent_scores_one(project: Path) -> None:
    files = RunFiles("p", "head", 1)
    before = pd.read_parquet(files.predictions)
    truth = Truth.of(read_coco(manifest_file("p", VAL))).people
    place = {annotation_id: i for i, annotation_id in enumerate(truth.annotation_id.tolist())}
    val = before["split"] == VAL
    owner = before.loc[val, "annotation_id"].map(place)
    exact, labelled = before.copy(), before.loc[val, "visibility"].to_numpy() > 0
    points = truth.keypoints[owner, before.loc[val, "keypoint"]]
    for column, values in zip("xy", points.T, strict=True):
        exact.loc[val, column] = np.where(labelled, values, before.loc[val, column])
    try:
        exact.to_parquet(files.predictions, index=False)
        pose_scores.main("p", "head", 1)
        first = scores(seed=1).iloc[0]
    finally:
        before.to_parquet(files.predictions, index=False)
        pose_scores.main("p", "head", 1)
    at = {score: first[key("labelled", PRESENCE_HEAD, score)] for score in (GATED, EMIT_ALL)}
    assert first[PLAIN_AP] == pytest.approx(1)
    assert at[GATED] == pytest.approx(1)
    assert at[EMIT_ALL] < 0.9


def test_nothing_is_chosen_on_val(project: Path) -> None:
    """Scrambled labels of val change what is measured, not the threshold or what Platt scaling makes of a peak."""
    files = RunFiles("p", "head", 0)
    splits = [read_split(files.predictions, name, "true") for name in (CALIBRATION, VAL)]
    rng = np.random.default_rng(0)
    scrambled = splits[1]._replace(present=rng.permuted(splits[1].present, axis=1))
    fitted, again = (dict(pose_scores.speakers(splits[0], val, PARAMS)) for val in (splits[1], scrambled))
    assert set(fitted) == {PRESENCE_HEAD, HEATMAP_PEAK}
    for source, speaker in fitted.items():
        assert speaker.threshold == again[source].threshold
        np.testing.assert_array_equal(speaker.presence, again[source].presence)
    people = Truth.of(read_coco(manifest_file("p", VAL))).people
    assert (pose_scores.known_absent(splits[1], people) != pose_scores.known_absent(scrambled, people)).any()


def test_absence_finds_its_person_whatever_the_order(project: Path) -> None:
    split = read_split(RunFiles("p", "head", 0).predictions, VAL, "labelled")
    manifest = read_coco(manifest_file("p", VAL))
    visibility = {a["id"]: np.array(a["keypoints"][2::3]) for a in manifest["annotations"]}
    people = Truth.of(manifest).people
    turned = split._replace(
        annotation_ids=split.annotation_ids[::-1],
        present=split.present[::-1],
        present_weight=split.present_weight[::-1],
    )
    for shuffled in (split, turned):
        absent = pose_scores.known_absent(shuffled, people)
        for annotation_id, row in zip(people.annotation_id.tolist(), absent, strict=True):
            known = annotation_id in set(split.annotation_ids.tolist())
            np.testing.assert_array_equal(row, (visibility[annotation_id] == 0) & known)


@pytest.mark.parametrize("fit", ["extend", "letterbox", "stretch"])
def test_what_is_shown_is_the_padded_box(project: Path, fit: str) -> None:
    persons: list[Person] = persons_of(read_coco(manifest_file("p", VAL)))
    windows = shown_boxes(np.stack([person.bbox for person in persons]), (64, 96), 1.25, fit)
    for person, (x0, y0, x1, y1) in zip(persons, windows, strict=True):
        view = bbox_to_view(person.bbox, (64, 96), 1.25, fit)
        inner, outer = (np.array([[x0 + e, y0 + e], [x1 - e, y1 - e]]) for e in (1e-6, -1e-6))
        size = view.scale if view.shown is None else view.shown
        np.testing.assert_allclose([x1 - x0, y1 - y0], size)
        assert in_shown(inner, view).all()
        assert view.shown is None or not in_shown(outer, view).any()
    aspect = (windows[:, 2] - windows[:, 0]) / (windows[:, 3] - windows[:, 1])
    assert np.allclose(aspect, 64 / 96) == (fit == "extend")


def test_the_page_has_the_numbers_of_the_stage(project: Path) -> None:
    folder = Path("reports/p/pose_scores")
    table = pd.read_csv(folder / "pose_scores.csv")
    line = table.query("system == 'head' and policy == 'labelled' and source == 'presence head'").iloc[0]
    name = key("labelled", PRESENCE_HEAD, GATED)
    mean = np.mean([scores(seed=seed)[name][0] for seed in SEEDS])
    assert line[GATED] == pytest.approx(100 * mean, abs=0.051)
    assert line[f"{GATED}_low"] <= line[GATED] <= line[f"{GATED}_high"]
    differences = pd.read_csv(folder / "differences.csv").set_index(["second", "first", "metric"])
    label = f"{SCORES[GATED]}, labelled"
    found = differences.loc[("head, presence head", "head, heatmap peak", label), "difference"]
    peak = np.mean([scores(seed=seed)[key("labelled", HEATMAP_PEAK, GATED)][0] for seed in SEEDS])
    assert found == pytest.approx(100 * (mean - peak), abs=0.051)
    page = (folder / "README.md").read_text()
    assert (folder / "gated_ap.png").stat().st_size > 10_000
    assert "head, policy `labelled`: the head, minus the peak of the same system: gated AP" in page


def test_files_that_are_missing_or_broken_are_named(project: Path) -> None:
    file, aside = RunFiles("p", "head", 1).pose_scores, Path("aside")
    file.rename(aside)
    try:
        with pytest.raises(
            UserError, match=r"head-1.parquet: no readable replicates .*: run `dvc repro pose_scores@hea"
        ):
            pose_scores_report.main("p")
        file.write_text("no table")
        with pytest.raises(UserError, match="no readable replicates"):
            pose_scores_report.main("p")
        pd.read_parquet(aside).drop(columns=key("true", HEATMAP_PEAK, GATED)).to_parquet(file)
        with pytest.raises(UserError, match=rf"column '{key('true', HEATMAP_PEAK, GATED)}' is missing"):
            pose_scores_report.main("p")
    finally:
        aside.rename(file)
    with pytest.raises(UserError, match="no readable predictions"):
        pose_scores.main("p", "head", 7)
