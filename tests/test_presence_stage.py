"""Stages floors and presence on drawn people with made-up predictions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from bench.data.coco import persons_of, read_coco
from bench.data.geometry import Crop
from bench.data.keypoints import NUM_KEYPOINTS
from bench.data.predictions import CALIBRATION, STATISTICS, VAL, read_split, write_predictions
from bench.data.presence import POLICIES
from bench.data.subset import build_manifests
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams
from bench.data.windows import windows_of
from bench.errors import UserError
from bench.inference.predict import Predictions
from bench.metrics.presence_study import GLOBAL, HALF, PER_KEYPOINT, RANKED, THRESHOLD
from bench.stages import floors, presence
from bench.stages.files import RunFiles, floors_file, manifest_file, plan_dir, write_json
from bench.stages.predict import predictions_frame

FILES = RunFiles("p", "run", 0)
CROP = Crop((64, 96), 1.25, "extend", aligned=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Half of the drawn people are cut by the border, and a fifth of the labels is lost."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        scene = SceneParams(image_size=(96, 96), truncation=0.5, unlabelled_fraction=0.2)
        write_drawn_coco(Path("drawn"), {"train2017": 110, "val2017": 50}, scene, seed=0)
        numbers = {"train": 50, "calibration": 40, "val": 40}
        for name, manifest in build_manifests(Path("drawn"), numbers, 0, skip_broken=False).items():
            write_json(manifest_file("p", name), manifest)
        plan = {"input_size": [64, 96], "bbox_padding": 1.25, "fit": "extend", "seed": 0}
        write_json(plan_dir("p") / "floors.json", plan)
        write_json(plan_dir("p") / "presence.json", {"num": 20, "seed": 0})
        predict()
        floors.main("p")
        presence.main("p", "run", 0)
        yield root


def predict() -> None:
    """A head that knows the truth but for noise, and a peak that knows less of it."""
    frames = []
    for seed, split in enumerate((CALIBRATION, VAL)):
        rng = np.random.default_rng(seed)
        persons = persons_of(read_coco(manifest_file("p", split)))
        there = np.stack([person.labels.true_visibility for person in persons]) > 0
        shape = there.shape
        found = Predictions(
            rng.uniform(0, 96, (*shape, 2)),
            np.clip(0.3 + 0.3 * there + rng.normal(scale=0.3, size=shape), 0, 1).astype(np.float32),
            (3.0 * there - 1 + rng.normal(size=shape)).astype(np.float32),
            {name: rng.random(shape).astype(np.float32) for name in STATISTICS},
        )
        frames.append(predictions_frame(split, persons, windows_of(persons, CROP), found))
    write_predictions(FILES.predictions, frames)


def read(kind: str) -> pd.DataFrame:
    return pd.read_parquet(FILES.of_presence(kind))


def one(table: pd.DataFrame, **where: str) -> float:
    chosen = table
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    assert len(chosen) == 1
    return float(chosen["value"].iloc[0])


def test_every_policy_and_source_is_there(project: Path) -> None:
    table = read("presence")
    assert set(table["policy"]) <= set(POLICIES)
    assert {"labelled", "visible", "in_window", "border_aware", "three_class", "true"} <= set(table["policy"])
    assert set(table["source"]) == {
        "presence_head", "heatmap_peak", "blurred_peak", "mass", "entropy", "peak_gap", "logistic", "prevalence",
        "box_geometry", "always_present",
    }  # fmt: skip


@pytest.mark.parametrize("policy", ["labelled", "visible", "border_aware", "true"])
def test_numbers_are_those_of_scikit_learn(project: Path, policy: str) -> None:
    table, split = read("presence"), read_split(FILES.predictions, VAL, policy)
    counted = split.present_weight > 0
    present = split.present[counted]
    assert split.presence is not None
    for source, score in {"presence_head": split.presence, "heatmap_peak": split.score}.items():
        where = {"policy": policy, "source": source, "view": "all"}
        ranked = where | {"rule": RANKED}
        assert one(table, **ranked, metric="AUROC") == pytest.approx(roc_auc_score(present, score[counted]))
        absent = average_precision_score(~present, -score[counted])
        assert one(table, **ranked, metric="AP_absent") == pytest.approx(absent)
        threshold = one(table, **where, rule=GLOBAL, metric=THRESHOLD)
        f1 = f1_score(present, score[counted] >= threshold)
        assert one(table, **where, rule=GLOBAL, metric="F1") == pytest.approx(f1)


def test_nothing_is_chosen_on_val(project: Path) -> None:
    """Scrambled labels of val change what is measured, not what was chosen."""
    before, frame = read("presence"), pd.read_parquet(FILES.predictions)
    order = np.random.default_rng(3).permutation(int((frame["split"] == VAL).sum()))
    scrambled = frame.copy()
    for column in (name for name in frame if name.startswith("present_")):
        values = frame.loc[frame["split"] == VAL, column].to_numpy()
        scrambled.loc[scrambled["split"] == VAL, column] = values[order]
    try:
        scrambled.to_parquet(FILES.predictions, index=False)
        presence.main("p", "run", 0)
        after = read("presence")
    finally:
        frame.to_parquet(FILES.predictions, index=False)
        presence.main("p", "run", 0)
    chosen = [
        table[table["metric"] == THRESHOLD].reset_index(drop=True)[["policy", "source", "rule", "view", "value"]]
        for table in (before, after)
    ]
    assert {GLOBAL, PER_KEYPOINT, HALF} == set(chosen[0]["rule"])
    pd.testing.assert_frame_equal(*chosen)
    where = {"policy": "true", "source": "presence_head", "rule": RANKED, "view": "all", "metric": "AUROC"}
    assert one(before, **where) > 0.9
    assert one(after, **where) < 0.6


def test_replicates_begin_with_the_numbers(project: Path) -> None:
    table, replicates = read("presence"), read("presence_replicates")
    assert len(replicates) == 21
    for view in ("all", "macro"):
        where = {"policy": "true", "source": "presence_head", "rule": RANKED, "view": view, "metric": "AUROC"}
        key = "/".join(where.values())
        assert replicates[key].iloc[0] == pytest.approx(one(table, **where))


def test_curves_end_where_they_must(project: Path) -> None:
    curves = read("presence_curves")
    for _, curve in curves[curves["curve"] == "roc"].groupby(["policy", "source"]):
        assert curve[["x", "y"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]
    reliability = curves[curves["curve"] == "reliability/none"]
    assert set(reliability["source"]) == {"presence_head"}
    assert (reliability["number"] > 0).all()


def test_floors_know_of_the_border(project: Path) -> None:
    """Nothing of a picture, but where its box is: better than how often each keypoint is there."""
    table = read("presence")
    where = {"policy": "true", "rule": RANKED, "view": "all", "metric": "AUROC"}
    geometry, rates = (one(table, **where, source=source) for source in ("box_geometry", "prevalence"))
    assert geometry > rates
    assert one(table, **where, source="always_present") == 0.5


def test_floors_of_other_persons_are_refused(project: Path) -> None:
    frame = pd.read_parquet(floors_file("p"))
    try:
        frame.iloc[NUM_KEYPOINTS:].to_parquet(floors_file("p"), index=False)
        with pytest.raises(UserError, match="found other persons than were predicted: run `dvc repro floors`"):
            presence.main("p", "run", 0)
    finally:
        frame.to_parquet(floors_file("p"), index=False)
    floors_file("p").rename("aside")
    with pytest.raises(UserError, match="no readable floors"):
        presence.main("p", "run", 0)
    Path("aside").rename(floors_file("p"))


def test_precision_begins_with_that_of_the_first_level_and_not_with_1() -> None:
    """Always present is flat at the share that is present; of two levels there are two steps."""
    present = np.array([True, True, True, False])
    recall, precision = presence.recall_steps(present, np.ones(4))
    assert recall.tolist() == [0, 1]
    assert precision.tolist() == [0.75, 0.75]
    recall, precision = presence.recall_steps(present, np.array([0.9, 0.2, 0.2, 0.9]))
    assert recall.tolist() == pytest.approx([0, 1 / 3, 1])
    assert precision.tolist() == [0.5, 0.5, 0.75]


@pytest.mark.parametrize("levels", [1, 2, 5, 40])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_area_under_the_steps_is_the_average_precision(levels: int, sign: int) -> None:
    rng = np.random.default_rng(levels)
    present = rng.random(120) < 0.7
    score = sign * rng.integers(levels, size=120) / levels
    for target, value in ((present, score), (~present, -score)):
        recall, precision = presence.recall_steps(target, value)
        area = (np.diff(recall) * precision[1:]).sum()
        assert area == pytest.approx(average_precision_score(target, value))


def test_precision_of_the_floors_is_flat_in_every_policy(project: Path) -> None:
    curves = read("presence_curves")
    always = curves[curves["source"] == "always_present"]
    for policy, own in always.groupby("policy"):
        split = read_split(FILES.predictions, VAL, str(policy))
        share = split.present[split.present_weight > 0].mean()
        for curve, wanted in (("pr_present", share), ("pr_absent", 1 - share)):
            points = own[own["curve"] == curve]
            assert points["x"].tolist() == [0, 1]
            assert points["y"].tolist() == pytest.approx([wanted, wanted])
