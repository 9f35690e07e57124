"""Stage evaluate on a few drawn people with made predictions: its numbers are those of independent evaluators."""

import contextlib
import hashlib
import io
import itertools
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ruamel.yaml import YAML
from scipy import stats
from scipy.special import expit
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score, roc_auc_score

from bench import export
from bench.config import EvaluateParams
from bench.data.coco import COCO_LAYOUT, Person
from bench.data.geometry import Crop
from bench.data.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS, OKS_SIGMAS
from bench.data.people import Truth
from bench.data.predictions import STATISTICS, write_predictions
from bench.data.results import read_results
from bench.data.windows import windows_of
from bench.errors import UserError
from bench.inference.predict import Predictions
from bench.inference.scoring import SCORE_RULES
from bench.metrics import presence
from bench.metrics.average_precision import STATS, OKSEvaluation
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.oks import RULES
from bench.reporting.results import read_matches
from bench.reporting.rows import PROTOCOL_VERSION, Row, Source, presence_keys, read_row
from bench.resolve import load_grid
from bench.score import read_annotations, score_results
from bench.stages import evaluate, predict, prepare, resolve
from bench.stages.files import (
    RunFiles,
    TrainingInfo,
    detections_file,
    drawn_dir,
    has_detections,
    manifest_file,
    plan_dir,
    write_json,
)
from bench.stages.provenance import NUMBER_MAKING, VERSIONS, code_revision
from tests.test_parameters import deep_update, small_tree

Floats = NDArray[np.float64]
Tree = dict[str, Any]

NUM_RESAMPLES = 25
EVALUATE = {
    "score_rule": "box_keypoint", "oks_nms": 0.9, "presence_policy": "labelled", "threshold": "max_f1",
    "interval": "percentile", "num_resamples": NUM_RESAMPLES, "seed": 0,
}  # fmt: skip
PEOPLE = {
    "num_persons": {"train": 2, "calibration": 15, "val": 30},
    "drawn": {"image_size": [320, 240], "unlabelled_fraction": 0.15},
}
SOURCES: tuple[Source, ...] = ("presence_head", "heatmap_peak", "always_present")
CROP = Crop((32, 32), 1.25, "extend", aligned=True)


def write_plan(profile: str, data: Tree, experiments: Tree) -> None:
    tree = small_tree(profile) | {"experiments": experiments}
    deep_update(tree, {"data": PEOPLE})
    tree["data"] |= data
    YAML(typ="safe").dump(tree, Path("params.yaml"))
    resolve.write_plan(load_grid(Path("params.yaml")))


def read_manifest(profile: str, split: str) -> Tree:
    manifest: Tree = json.loads(manifest_file(profile, split).read_text())
    return manifest


def roughen(profile: str) -> None:
    """A crowd, a person of whom nothing is labelled, and images in no order: all that COCO's val has too."""
    manifest = read_manifest(profile, "val")
    crowd, unlabelled = manifest["annotations"][3], manifest["annotations"][17]
    crowd["iscrowd"] = 1
    unlabelled |= {"keypoints": [0.0] * 51, "num_keypoints": 0}
    manifest["images"].reverse()
    manifest["info"]["num_persons"] -= 2
    write_json(manifest_file(profile, "val"), manifest)


def make_poses(persons: Sequence[Person], manifest: Tree, seed: int) -> Predictions:
    """The nearest truth with noise, a lot for some; scores and logits that know a little of what is labelled."""
    rng = np.random.default_rng(seed)
    people = manifest["annotations"]
    boxes = np.array([person["bbox"] for person in people])
    images = np.array([person["image_id"] for person in people])
    poses, labelled = [], []
    for person in persons:
        away = np.abs(boxes - person.bbox).sum(axis=1) + 1e9 * (images != person.image_id)
        owner = people[int(away.argmin())]
        noise = rng.uniform(0, 0.12) * np.sqrt(owner["area"]) * rng.normal(size=(NUM_KEYPOINTS, 2))
        poses.append(np.reshape(owner["true_keypoints"], (-1, 3))[:, :2] + noise)
        labelled.append(np.reshape(owner["keypoints"], (-1, 3))[:, 2] > 0)
    known = np.array(labelled)
    score = np.clip(0.3 + 0.25 * known + rng.normal(scale=0.25, size=known.shape), 0.01, 1.0)
    logits = rng.normal(loc=2.0 * known - 0.5, scale=1.5)
    statistics = {name: rng.random(score.shape, np.float32) for name in STATISTICS}
    return Predictions(np.array(poses), score.astype(np.float32), logits.astype(np.float32), statistics)


def write_run(profile: str, run: str, seed: int = 0, *, head: bool = True) -> RunFiles:
    """What stages train and predict leave."""
    files = RunFiles(profile, run, seed)
    frames = []
    for number, (split, persons) in enumerate(predict.splits_of(profile)):
        poses = make_poses(persons, read_manifest(profile, split.removesuffix("_detected")), number)
        poses = poses if head else poses._replace(presence_logits=None)
        frames.append(predict.predictions_frame(split, persons, windows_of(persons, CROP), poses))
    write_predictions(files.predictions, frames)
    info = TrainingInfo(
        best_epoch=2, weights_source=None, device="cpu", num_parameters=99, num_presence_parameters=9 * head,
        num_macs=999, flip_shift=True, seconds=1.5,
    )  # fmt: skip
    write_json(files.training, info.model_dump())
    return files


def evaluate_run(files: RunFiles, **changes: Any) -> Row:
    params = EvaluateParams.model_validate(EVALUATE | changes)
    write_json(plan_dir(files.profile) / files.run / "evaluate.json", params.model_dump(mode="json"))
    evaluate.main(*files)
    return read_row(files.row)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Profile p: drawn people, a run with a head and one without."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("workspace")
        patch.chdir(folder)
        patch.setattr(resolve, "STAGE_MODULES", {})  # digests of code take their time
        patch.setattr(presence, "NUM_LEVELS", 10_000)  # nothing is rounded: what rounding does has a test of its own
        write_plan("p", {}, {"run": {}, "plain": {"presence_head": {"type": "none"}}})
        prepare.main("p")
        roughen("p")
        yield folder


@pytest.fixture(scope="module")
def run(workspace: Path) -> RunFiles:
    return write_run("p", "run")


@pytest.fixture(scope="module")
def row(run: RunFiles) -> Row:
    return evaluate_run(run)


def values(row: Row) -> dict[str, float]:
    return {key: np.nan if number.value is None else number.value for key, number in row.numbers.items()}


def oks_of(row: Row, prefix: str = "oks") -> dict[str, float]:
    return {stat: values(row)[f"{prefix}/{stat}"] for stat in STATS}


class Pose(NamedTuple):
    """One person of a predictions file."""

    image_id: int
    keypoints: Floats
    score: Floats
    presence: Floats
    present: NDArray[np.bool_]
    bbox_score: float
    view_area: float


def read_poses(files: RunFiles, split: str = "val") -> list[Pose]:
    frame = pd.read_parquet(files.predictions)
    frame = frame[frame["split"] == split]
    return [
        Pose(
            image_id=int(person["image_id"].iloc[0]),
            keypoints=person[["x", "y"]].to_numpy(),
            score=person["score"].to_numpy(dtype=np.float64),
            presence=np.asarray(expit(person["presence_logit"].to_numpy(dtype=np.float64))),
            present=person["present_labelled"].to_numpy(dtype=bool),
            bbox_score=float(person["bbox_score"].iloc[0]),
            view_area=float(person["view_area"].iloc[0]),
        )
        for _, person in frame.groupby(np.arange(len(frame)) // NUM_KEYPOINTS)
    ]


def box_keypoint(pose: Pose) -> float:
    high = [score for score in pose.score if score > 0.2]
    return pose.bbox_score * sum(high) / max(len(high), 1)


BY_HAND: dict[str, Callable[[Pose], float]] = {
    "box": lambda pose: pose.bbox_score,
    "box_keypoint": box_keypoint,
    "box_presence": lambda pose: pose.bbox_score * pose.presence.mean(),
    "presence_weighted": lambda pose: pose.bbox_score * (pose.presence * pose.score).sum() / pose.presence.sum(),
}


def entries_of(poses: Sequence[Pose], rule: str) -> list[Tree]:
    """As a COCO result list."""
    return [
        {
            "image_id": pose.image_id,
            "category_id": 1,
            "keypoints": np.column_stack([pose.keypoints, pose.score]).ravel().tolist(),
            "score": float(BY_HAND[rule](pose)),
        }
        for pose in poses
    ]


def suppress(poses: Sequence[Pose], rule: str, threshold: float) -> list[Pose]:
    """OKS-NMS one by one."""

    def similarity(a: Pose, b: Pose) -> float:
        squares = ((a.keypoints - b.keypoints) ** 2).sum(axis=1)
        area = (a.view_area + b.view_area) / 2
        return float(np.exp(-squares / (2 * area * (2 * OKS_SIGMAS) ** 2)).mean())

    kept: list[Pose] = []
    for pose in sorted(poses, key=BY_HAND[rule], reverse=True):
        if all(pose.image_id != best.image_id or similarity(best, pose) <= threshold for best in kept):
            kept.append(pose)
    return kept


def pycoco(manifest: Tree, entries: Sequence[Tree], counts: NDArray[np.integer] | None = None) -> dict[str, float]:
    """pycocotools' numbers; images, in ascending order of their ids, are repeated as often as `counts` says."""
    image_ids = sorted(image["id"] for image in manifest["images"])
    counts = np.ones(len(image_ids), dtype=int) if counts is None else counts
    images, annotations, results = [], [], []
    for new_id, old_id in enumerate(np.repeat(image_ids, counts).tolist(), start=1):
        images.append({"id": new_id})
        annotations += [a | {"image_id": new_id} for a in manifest["annotations"] if a["image_id"] == old_id]
        results += [entry | {"image_id": new_id} for entry in entries if entry["image_id"] == old_id]
    annotations = [annotation | {"id": number} for number, annotation in enumerate(annotations, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return dict(zip(STATS, np.where(evaluator.stats == -1, np.nan, evaluator.stats).tolist(), strict=True))


def same(found: dict[str, float], wanted: dict[str, float]) -> None:
    assert found == pytest.approx(wanted, rel=0, abs=1e-9, nan_ok=True)


class Statement(NamedTuple):
    """What is said of presence: (N, K) or a part of it."""

    score: Floats
    present: NDArray[np.bool_]


def statement(poses: Sequence[Pose], source: str) -> Statement:
    by_source: dict[str, Callable[[Pose], Floats]] = {
        "presence_head": lambda pose: pose.presence,
        "heatmap_peak": lambda pose: pose.score,
        "always_present": lambda pose: np.ones_like(pose.score),
    }
    return Statement(np.array([by_source[source](pose) for pose in poses]), np.array([p.present for p in poses]))


def best_threshold(calibration: Statement) -> float:
    """The highest of those with the best F1."""
    present, score = calibration.present.ravel(), calibration.score.ravel()
    precision, recall, thresholds = precision_recall_curve(present, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[f1[:-1] >= f1[:-1].max() - 1e-12].max())


def sklearn_metrics(said: Statement, threshold: float) -> dict[str, float]:
    score, present = said.score.ravel(), said.present.ravel()
    claimed = score >= threshold
    return {
        "precision": precision_score(present, claimed) if claimed.any() else np.nan,
        "recall": recall_score(present, claimed) if present.any() else np.nan,
        "F1": f1_score(present, claimed) if present.any() else np.nan,
        "AUROC": roc_auc_score(present, score) if 0 < present.mean() < 1 else np.nan,
    }


def presence_numbers(poses: Sequence[Pose], thresholds: dict[Source, float]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for source, threshold in thresholds.items():
        said = statement(poses, source)
        parts = {"all": said} | {
            name: Statement(said.score[:, k], said.present[:, k]) for k, name in enumerate(KEYPOINT_NAMES)
        }
        for part, some in parts.items():
            metrics = sklearn_metrics(some, threshold)
            numbers |= {f"presence/{source}/{part}/{metric}": number for metric, number in metrics.items()}
    return numbers


# One row.


def test_the_people_are_as_hard_as_coco(row: Row) -> None:
    """Or the tests below show little."""
    manifest = read_manifest("p", "val")
    assert sum(person["iscrowd"] for person in manifest["annotations"]) == 1
    assert sum(person["num_keypoints"] == 0 for person in manifest["annotations"]) == 1
    assert len(manifest["images"]) < len(manifest["annotations"])
    assert 0.2 < values(row)["oks/AP"] < 0.9
    assert len(set(oks_of(row).values())) > 7
    assert not any(np.isnan(number) for number in oks_of(row).values())
    assert 0.6 < values(row)["presence/heatmap_peak/all/AUROC"] < 0.95


@pytest.mark.parametrize("rule", SCORE_RULES)
def test_oks_numbers_are_those_of_pycocotools(run: RunFiles, row: Row, rule: str) -> None:
    poses = suppress(read_poses(run), rule, 0.9)
    found = evaluate_run(run, score_rule=rule)
    wanted = pycoco(read_manifest("p", "val"), entries_of(poses, rule))
    same(oks_of(found), wanted)
    for stat in ("AP", "AR"):
        assert found.numbers[f"score_rule/{rule}/{stat}"] == found.numbers[f"oks/{stat}"]
        assert found.numbers[f"score_rule/{rule}/{stat}"] == row.numbers[f"score_rule/{rule}/{stat}"]
    assert found.protocol.score_rule == rule


def test_score_rules_rank_differently(row: Row) -> None:
    """So that one cannot pass for another."""
    assert len({values(row)[f"score_rule/{rule}/AP"] for rule in SCORE_RULES}) == len(SCORE_RULES)


def test_presence_is_that_of_sklearn_at_thresholds_of_calibration(run: RunFiles, row: Row) -> None:
    calibration = read_poses(run, "calibration")
    thresholds = {source: best_threshold(statement(calibration, source)) for source in SOURCES}
    assert dict(row.thresholds) == thresholds
    wanted = presence_numbers(read_poses(run), thresholds)
    found = {key: number for key, number in values(row).items() if key.startswith("presence/")}
    assert list(found) == list(wanted) == [key for source in SOURCES for key in presence_keys(source)]
    same(found, wanted)


def test_a_fixed_threshold_is_taken_as_it_is(run: RunFiles) -> None:
    found = evaluate_run(run, threshold=0.4)
    assert dict(found.thresholds) == dict.fromkeys(SOURCES, 0.4)
    assert found.protocol.threshold_rule == "fixed at 0.4"
    same(
        {key: number for key, number in values(found).items() if key.startswith("presence/")},
        presence_numbers(read_poses(run), dict.fromkeys(SOURCES, 0.4)),
    )


def test_the_policy_decides_what_is_present(run: RunFiles, row: Row) -> None:
    """Of drawn people more is there in truth than is labelled, and less is seen."""
    by_policy = {policy: evaluate_run(run, presence_policy=policy) for policy in ("visible", "labelled", "true")}
    frame = pd.read_parquet(run.predictions)
    frame = frame[frame["split"] == "val"]
    for policy, found in by_policy.items():
        present = frame[f"present_{policy}"].to_numpy(dtype=bool).reshape(-1, NUM_KEYPOINTS)
        assert (found.data.num_present, found.data.num_absent) == (present.sum(), (~present).sum())
        np.testing.assert_allclose(np.array(found.data.prevalence, dtype=float), present.mean(axis=0))
        assert values(found)["presence/always_present/all/precision"] == pytest.approx(present.mean())
        same(oks_of(found), oks_of(row))
    num_present = [found.data.num_present for found in by_policy.values()]
    assert num_present[0] < num_present[1] < num_present[2]


def scrambled(files: RunFiles, split: str, seed: int) -> RunFiles:
    """The same run with labels, scores, logits and poses of one split dealt anew."""
    frame = pd.read_parquet(files.predictions).astype({"split": str})
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(frame["split"] == split)
    for column in ("x", "y", "score", "presence_logit", "present_labelled"):
        frame.loc[rows, column] = frame[column].to_numpy()[rng.permutation(rows)]
    other = files._replace(seed=seed)
    write_predictions(other.predictions, [frame])
    other.folder.mkdir(parents=True, exist_ok=True)
    other.training.write_bytes(files.training.read_bytes())
    return other


def test_nothing_in_val_moves_a_threshold(run: RunFiles, row: Row) -> None:
    for seed in (1, 2, 3):
        found = evaluate_run(scrambled(run, "val", seed))
        assert found.thresholds == row.thresholds
        assert abs(values(found)["presence/presence_head/all/AUROC"] - 0.5) < 0.1
        assert values(found)["oks/AP"] < 0.1
    found = evaluate_run(scrambled(run, "calibration", 4))
    assert all(found.thresholds[source] != row.thresholds[source] for source in ("presence_head", "heatmap_peak"))
    for part in ("oks", "score_rule"):
        same(*({k: v for k, v in values(r).items() if k.startswith(part)} for r in (found, row)))
    assert values(found)["presence/heatmap_peak/all/AUROC"] == values(row)["presence/heatmap_peak/all/AUROC"]


def test_the_order_of_people_changes_nothing(run: RunFiles, row: Row) -> None:
    frame = pd.read_parquet(run.predictions)
    people = np.random.default_rng(0).permutation(len(frame) // NUM_KEYPOINTS)
    order = (people[:, None] * NUM_KEYPOINTS + np.arange(NUM_KEYPOINTS)).ravel()
    other = scrambled(run, "none", 5)
    write_predictions(other.predictions, [frame.iloc[order]])
    found = evaluate_run(other)
    assert found.thresholds == row.thresholds
    ties = "score_rule/box/"  # on annotated boxes; among equals the first of the file counts first, as in pycocotools
    same(*({key: number for key, number in values(r).items() if not key.startswith(ties)} for r in (found, row)))


def test_a_run_without_head_has_the_two_floors_only(run: RunFiles, row: Row) -> None:
    plain = write_run("p", "plain", head=False)
    found = evaluate_run(plain)
    assert list(found.thresholds) == ["heatmap_peak", "always_present"]
    without = [key for key in row.numbers if not re.match(r"presence/presence_head|score_rule/.*presence", key)]
    assert list(found.numbers) == without
    assert {key: found.numbers[key] for key in without} == {key: row.numbers[key] for key in without}
    with pytest.raises(UserError, match="score rule box_presence: found a model without presence"):
        evaluate_run(plain, score_rule="box_presence")


# Replicates, matches and intervals.


def replicates_of(files: RunFiles) -> pd.DataFrame:
    return pd.read_parquet(files.replicates)


def drawn_counts(manifest: Tree) -> NDArray[np.int32]:
    rng = np.random.default_rng(0)
    return draw_resampling(len(manifest["images"]), NUM_RESAMPLES, "percentile", rng).counts


def test_replicates_begin_with_the_row(run: RunFiles) -> None:
    row = evaluate_run(run)
    replicates = replicates_of(run)
    assert list(replicates.columns) == list(row.numbers)
    assert len(replicates) == 1 + NUM_RESAMPLES
    np.testing.assert_array_equal(replicates.iloc[0].to_numpy(), list(values(row).values()))


def test_every_replicate_is_that_of_repeated_images(run: RunFiles) -> None:
    row, manifest, poses = evaluate_run(run), read_manifest("p", "val"), read_poses(run)
    replicates, counts = replicates_of(run), drawn_counts(manifest)
    positions = {image_id: i for i, image_id in enumerate(sorted(image["id"] for image in manifest["images"]))}
    entries = entries_of(suppress(poses, "box_keypoint", 0.9), "box_keypoint")
    for s in (1, 7, NUM_RESAMPLES):
        found = {str(key): float(number) for key, number in replicates.iloc[s].items()}
        same({stat: found[f"oks/{stat}"] for stat in STATS}, pycoco(manifest, entries, counts[s]))
        people = [pose for pose in poses for _ in range(counts[s][positions[pose.image_id]])]
        wanted = presence_numbers(people, row.thresholds)
        same({key: found[key] for key in wanted}, wanted)


def test_bounds_are_quantiles_of_the_replicates(run: RunFiles) -> None:
    """But where more than a tenth of the replicates are undefined."""
    row = evaluate_run(run)
    replicates = replicates_of(run).iloc[1:]
    num_undefined = 0
    for key, number in row.numbers.items():
        column = replicates[key].dropna()
        if number.value is None or len(column) < 0.9 * len(replicates):
            assert (number.low, number.high) == (None, None)
            num_undefined += 1
        else:
            wanted = np.quantile(column, [0.025, 0.975])
            assert (number.low, number.high) == pytest.approx(tuple(wanted), rel=0, abs=1e-12)
    assert num_undefined < len(row.numbers) / 3


def test_the_seed_and_number_of_resamples_are_those_of_the_plan(run: RunFiles, row: Row) -> None:
    evaluate_run(run)
    before = replicates_of(run)
    other, more = evaluate_run(run, seed=1), evaluate_run(run, num_resamples=40)
    assert len(replicates_of(run)) == 41
    assert values(other) == values(more) == pytest.approx(values(row), nan_ok=True)
    bounds = [(r.numbers["oks/AP"].low, r.numbers["oks/AP"].high) for r in (row, other, more)]
    assert len(set(bounds)) == 3
    assert more.protocol.intervals == "percentile, 40 resamples of the images, seed 0"
    evaluate_run(run, seed=1)
    assert (replicates_of(run)["oks/AP"].iloc[1:] != before["oks/AP"].iloc[1:]).any()


def test_all_runs_see_the_same_resamples(run: RunFiles) -> None:
    """What depends on the labels alone is equal draw by draw."""
    evaluate_run(run)
    evaluate_run(write_run("p", "plain", head=False))
    key = "presence/always_present/all/precision"
    ours, theirs = replicates_of(run)[key], replicates_of(RunFiles("p", "plain", 0))[key]
    assert ours.nunique() > 10
    np.testing.assert_array_equal(ours, theirs)


def test_matches_give_the_numbers_again(run: RunFiles) -> None:
    row = evaluate_run(run)
    matches = read_matches(run.matches)
    evaluation = OKSEvaluation(matches)
    assert evaluation.stats == oks_of(row)
    assert matches.num_counted[0].sum() == row.data.num_persons
    counts = drawn_counts(read_manifest("p", "val"))
    found = np.array([evaluation.stats_of(row_counts) for row_counts in counts])
    np.testing.assert_array_equal(found, replicates_of(run)[[f"oks/{stat}" for stat in STATS]].to_numpy())


def test_bca_bounds_are_those_of_scipy(run: RunFiles) -> None:
    """From the same resamples, and numbers without each image by pycocotools and scikit-learn."""
    plain = evaluate_run(run)
    resampled = replicates_of(run)
    row = evaluate_run(run, interval="bca")
    pd.testing.assert_frame_equal(replicates_of(run), resampled)
    assert values(row) == pytest.approx(values(plain), nan_ok=True)
    assert row.protocol.intervals == f"bca, {NUM_RESAMPLES} resamples of the images, seed 0"
    manifest, poses = read_manifest("p", "val"), read_poses(run)
    entries = entries_of(suppress(poses, "box_keypoint", 0.9), "box_keypoint")
    image_ids = np.array(sorted(image["id"] for image in manifest["images"]))
    said, threshold = statement(poses, "heatmap_peak"), row.thresholds["heatmap_peak"]

    def auroc(ids: Floats) -> float:
        some = np.isin([pose.image_id for pose in poses], ids)
        return sklearn_metrics(Statement(said.score[some], said.present[some]), threshold)["AUROC"]

    def ap(ids: Floats) -> float:
        return pycoco(manifest, entries, np.isin(image_ids, ids).astype(int))["AP"]

    for key, statistic in {"oks/AP": ap, "presence/heatmap_peak/all/AUROC": auroc}.items():
        drawn: Any = SimpleNamespace(bootstrap_distribution=resampled[key].to_numpy()[1:])
        theirs = stats.bootstrap(
            (image_ids,), statistic, n_resamples=0, bootstrap_result=drawn, method="BCa", vectorized=False
        )
        number = row.numbers[key]
        assert (number.low, number.high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-9)
        assert (number.low, number.high) != (plain.numbers[key].low, plain.numbers[key].high)


# What the row says of itself.


def test_two_rows_of_the_same_inputs_differ_in_their_time_only(run: RunFiles) -> None:
    first = evaluate_run(run).model_dump()
    content = [file.read_bytes() for file in (run.replicates, run.matches)]
    second = evaluate_run(run).model_dump()
    assert [file.read_bytes() for file in (run.replicates, run.matches)] == content
    for row in (first, second):
        row["provenance"].pop("evaluated_at")
    assert first == second


def test_provenance(run: RunFiles) -> None:
    row = evaluate_run(run)
    provenance = row.provenance
    plans = [plan_dir("p") / "run" / f"{stage}.json" for stage in ("weights", "train", "predict", "evaluate")]
    assert provenance.params_sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in plans)).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", provenance.code_sha256)
    assert provenance.code_revision is None or re.fullmatch(r"[0-9a-f]{40}\+?", provenance.code_revision)
    assert list(provenance.versions) == list(VERSIONS)
    assert provenance.versions["numpy"] == np.__version__
    assert (provenance.device, provenance.precision, provenance.trained_seconds) == ("cpu", "32-true", 1.5)
    age = datetime.now(UTC) - datetime.fromisoformat(provenance.evaluated_at)
    assert timedelta(seconds=-1) < age < timedelta(minutes=1)
    assert evaluate_run(run, seed=1).provenance.params_sha256 != provenance.params_sha256


def test_the_row_names_its_run_and_its_sizes(row: Row) -> None:
    assert (row.profile, row.experiment, row.seed, row.best_epoch) == ("p", "run", 0, 2)
    assert (row.num_parameters, row.num_presence_parameters, row.num_macs) == (99, 9, 999)
    assert row.input_size == (32, 32)


def test_the_data_card(row: Row) -> None:
    manifest = read_manifest("p", "val")
    files = [*(manifest_file("p", name) for name in ("train", "calibration", "val")), detections_file("p")]
    assert row.data.source == "drawn"
    assert (row.data.num_images, row.data.num_persons) == (len(manifest["images"]), 30 - 2)
    assert row.data.num_present + row.data.num_absent == 28 * NUM_KEYPOINTS
    assert row.data.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    source = drawn_dir("p") / "annotations/person_keypoints_val2017.json"
    assert row.data.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


def test_the_protocol(run: RunFiles, row: Row) -> None:
    assert row.protocol.model_dump() == {
        "version": PROTOCOL_VERSION,
        "boxes": "ground truth",
        "score_rule": "box_keypoint",
        "oks_nms": "above 0.9",
        "flip_test": "mirrored, shifted by a heatmap pixel",
        "codec": "udp, sigma 4 input px",
        "crop": "32 x 32, extend, padding 1.25",
        "policy": "labelled",
        "threshold_rule": "max F1 on calibration",
        "checkpoint_rule": "highest AP on calibration",
        "evaluator": "bench.metrics.oks, rules of pycocotools, 20 detections an image",
        "intervals": f"percentile, {NUM_RESAMPLES} resamples of the images, seed 0",
        "init": "random",
    }
    assert evaluate_run(run, oks_nms=None).protocol.oks_nms == "none"


def test_the_revision_is_the_last_that_touched_what_makes_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_revision(tmp_path) is None
    makers = [tmp_path / package / "a.py" for package in NUMBER_MAKING]
    other = tmp_path / "README.md"

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(("git", *who, *arguments), cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(file: Path) -> str:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + "a = 1\n")
        git("add", ".")
        git("commit", "-m", "edit")
        return git("rev-parse", "HEAD")

    git("init")
    assert code_revision(tmp_path) is None
    commit(other)
    assert code_revision(tmp_path) is None
    for file in makers:
        assert code_revision(tmp_path) != commit(file) == code_revision(tmp_path)
    made = git("rev-parse", "HEAD")
    commit(other)
    assert code_revision(tmp_path) == made
    other.write_text("changed")
    assert code_revision(tmp_path) == made
    makers[0].write_text("a = 2\n")
    assert code_revision(tmp_path) == f"{made}+"
    git("checkout", "models")
    makers[0].with_name("new.py").write_text("")
    assert code_revision(tmp_path) == f"{made}+"


def test_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_revision(tmp_path) is None


# Detected boxes.


Box = dict[str, Any]


def annotated(manifest: Tree) -> list[Box]:
    """The boxes of the scored persons, as a detector that knows all would give them."""
    return [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": 1.0}
        for person in manifest["annotations"]
        if person["num_keypoints"] and not person["iscrowd"]
    ]


def detected_run(profile: str, boxes: Sequence[Box], **data: Any) -> RunFiles:
    """The drawn people of p as a COCO folder, with these detected boxes; the run is as that of p."""
    boxes_file = Path(f"{profile}_boxes.json")
    boxes_file.write_text(json.dumps(boxes))
    coco = {"source": "coco", "root": str(drawn_dir("p")), "detections": str(boxes_file), "min_detection_score": 0.0}
    write_plan(profile, coco | data, {"run": {}})
    prepare.main(profile)
    roughen(profile)
    return write_run(profile, "run")


@pytest.fixture(scope="module")
def manifest(workspace: Path) -> Tree:
    return read_manifest("p", "val")


def test_without_detections_nothing_is_said_of_annotated_boxes(row: Row) -> None:
    assert row.protocol.boxes == "ground truth"
    assert not [key for key in row.numbers if key.startswith("annotated_boxes")]


def pose_again(files: RunFiles, repeats: int) -> None:
    """Poses on detected boxes are those on the annotated ones, each so often."""
    frame = pd.read_parquet(files.predictions).astype({"split": str})
    val, detected = (frame["split"].to_numpy() == name for name in ("val", "val_detected"))
    person = np.repeat(np.arange(val.sum() // NUM_KEYPOINTS), repeats)
    rows = (person[:, None] * NUM_KEYPOINTS + np.arange(NUM_KEYPOINTS)).ravel()
    for column in ("x", "y", "score", "presence_logit"):
        frame.loc[detected, column] = frame.loc[val, column].to_numpy()[rows]
    write_predictions(files.predictions, [frame])


@pytest.fixture(scope="module")
def perfect(manifest: Tree) -> RunFiles:
    """The annotated boxes, found."""
    files = detected_run("perfect", annotated(manifest))
    pose_again(files, 1)
    return files


@pytest.mark.parametrize("rule", SCORE_RULES)
def test_perfect_detections_are_as_annotated_boxes(perfect: RunFiles, row: Row, rule: str) -> None:
    found = evaluate_run(perfect, score_rule=rule)
    assert found.protocol.boxes == "detected"
    for stat in STATS:
        assert found.numbers[f"annotated_boxes/{stat}"] == found.numbers[f"oks/{stat}"]
    for key in found.numbers.keys() & row.numbers.keys():
        if not key.startswith("oks/"):
            assert found.numbers[key] == row.numbers[key]
    assert found.data.source == "drawn"  # whatever folder they come from


def test_detected_boxes_are_part_of_the_data(perfect: RunFiles, row: Row) -> None:
    files = [manifest_file("perfect", name) for name in ("train", "calibration", "val")]
    content = b"".join(file.read_bytes() for file in [*files, detections_file("perfect")])
    found = evaluate_run(perfect)
    assert found.data.sha256 == hashlib.sha256(content).hexdigest()
    assert found.data.sha256 != row.data.sha256
    assert found.data.source_sha256 == row.data.source_sha256


def poor_boxes(manifest: Tree) -> list[Box]:
    """Shifted, some missing, some twice, some of nobody, all with scores; of another category, in another image."""
    rng = np.random.default_rng(0)
    boxes = []
    for i, box in enumerate(annotated(manifest)):
        for _ in range((1, 1, 1, 2, 0)[i % 5]):
            shift = rng.normal(scale=3, size=4) * (1, 1, 0.5, 0.5)
            boxes.append(box | {"bbox": (np.array(box["bbox"]) + shift).tolist(), "score": float(rng.uniform(0.2, 1))})
    boxes += [
        {
            "image_id": i["id"],
            "category_id": 1,
            "bbox": [20.0, 20.0, 60.0, 90.0],
            "score": float(rng.uniform(0.05, 0.6)),
        }
        for i in manifest["images"][::3]
    ]
    return [*boxes, boxes[0] | {"category_id": 2}, boxes[0] | {"image_id": 10**6}]


@pytest.fixture(scope="module")
def poor(manifest: Tree) -> RunFiles:
    return detected_run("poor", poor_boxes(manifest))


def test_poor_detections_are_scored_as_by_pycocotools(poor: RunFiles, manifest: Tree, row: Row) -> None:
    found = evaluate_run(poor)
    poses = read_poses(poor, "val_detected")
    assert len(poses) == len(poor_boxes(manifest)) - 2
    kept = suppress(poses, "box_keypoint", 0.9)
    assert len(kept) < len(poses)
    same(oks_of(found), pycoco(manifest, entries_of(kept, "box_keypoint")))
    for rule in SCORE_RULES:
        wanted = pycoco(manifest, entries_of(suppress(poses, rule, 0.9), rule))
        same(
            {stat: values(found)[f"score_rule/{rule}/{stat}"] for stat in ("AP", "AR")},
            {stat: wanted[stat] for stat in ("AP", "AR")},
        )
    same(oks_of(found, "annotated_boxes"), oks_of(row))
    assert abs(values(found)["oks/AP"] - values(row)["oks/AP"]) > 0.01


@pytest.mark.parametrize("boxes", ["run", "poor"])
def test_an_exported_run_scores_as_its_row(boxes: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """On annotated and on detected boxes."""
    files = request.getfixturevalue(boxes)
    row, file = evaluate_run(files), tmp_path / "results.json"
    export.main(files.profile, files.run, files.seed, file)
    truth = Truth.of(read_annotations(manifest_file(files.profile, "val"), COCO_LAYOUT))
    found = read_results(file, truth.image_ids, NUM_KEYPOINTS)
    once = draw_resampling(truth.num_images, 1, "percentile", np.random.default_rng(0))
    scored = score_results(truth, found, RULES["coco"], once)
    assert 0.1 < oks_of(row)["AP"] < 0.9
    assert scored.as_evaluators_read_it == pytest.approx(list(oks_of(row).values()), abs=1e-6, nan_ok=True)


def test_presence_is_taken_on_annotated_boxes(poor: RunFiles, row: Row) -> None:
    """Nothing is labelled in a detected one."""
    found = evaluate_run(poor)
    assert found.thresholds == row.thresholds
    for key in (key for source in SOURCES for key in presence_keys(source)):
        assert found.numbers[key] == row.numbers[key]
    for field in ("num_present", "num_absent", "prevalence", "num_persons"):
        assert getattr(found.data, field) == getattr(row.data, field)


def test_numbers_on_detected_boxes_are_in_replicates_and_matches(poor: RunFiles, manifest: Tree) -> None:
    found = evaluate_run(poor)
    replicates = replicates_of(poor)
    assert list(replicates.columns) == list(found.numbers)
    for prefix in ("oks", "annotated_boxes"):
        first = replicates.iloc[0][[f"{prefix}/{stat}" for stat in STATS]]
        assert first.tolist() == list(oks_of(found, prefix).values())
    assert OKSEvaluation(read_matches(poor.matches)).stats == oks_of(found)
    entries = entries_of(suppress(read_poses(poor, "val_detected"), "box_keypoint", 0.9), "box_keypoint")
    wanted = pycoco(manifest, entries, drawn_counts(manifest)[3])
    same({stat: float(replicates[f"oks/{stat}"].iloc[3]) for stat in STATS}, wanted)


def test_boxes_below_the_least_score_are_left_out(manifest: Tree) -> None:
    boxes = poor_boxes(manifest)
    files = detected_run("confident", boxes, min_detection_score=0.5)
    known = {image["id"] for image in manifest["images"]}
    wanted = [b for b in boxes if b["score"] >= 0.5 and b["category_id"] == 1 and b["image_id"] in known]
    assert json.loads(detections_file("confident").read_text()) == wanted
    poses = read_poses(files, "val_detected")
    assert [pose.bbox_score for pose in poses] == [box["score"] for box in wanted]
    entries = entries_of(suppress(poses, "box_keypoint", 0.9), "box_keypoint")
    same(oks_of(evaluate_run(files)), pycoco(manifest, entries))


def test_oks_nms_removes_who_is_found_twice(manifest: Tree) -> None:
    """A person found again a little worse is a false one, unless it is taken for what it is."""
    once = annotated(manifest)
    again = [box | {"score": 0.98, "bbox": [x + 0.01 for x in box["bbox"]]} for box in once]
    files = detected_run("twice", list(itertools.chain.from_iterable(zip(once, again, strict=True))))
    pose_again(files, 2)
    removed, kept = evaluate_run(files), evaluate_run(files, oks_nms=None)
    same(oks_of(removed), oks_of(removed, "annotated_boxes"))
    same(oks_of(kept), pycoco(manifest, entries_of(read_poses(files, "val_detected"), "box_keypoint")))
    assert values(kept)["oks/AP"] < values(removed)["oks/AP"] - 0.05
    for rule in SCORE_RULES.keys() - {"box"}:  # which here has everybody once before anybody twice
        key = f"score_rule/{rule}/AP"
        assert values(kept)[key] < values(removed)[key] - 0.05
    same(oks_of(kept, "annotated_boxes"), oks_of(removed, "annotated_boxes"))


def test_a_strict_nms_removes_neighbours_too(poor: RunFiles, manifest: Tree) -> None:
    poses = read_poses(poor, "val_detected")
    sizes = [len(suppress(poses, "box_keypoint", threshold)) for threshold in (1.0, 0.5, 0.1)]
    assert sizes[0] > sizes[1] > sizes[2]
    for threshold in (0.5, 0.1):
        entries = entries_of(suppress(poses, "box_keypoint", threshold), "box_keypoint")
        same(oks_of(evaluate_run(poor, oks_nms=threshold)), pycoco(manifest, entries))


# Mistakes.


def test_predictions_that_are_missing_are_named(run: RunFiles) -> None:
    other = scrambled(run, "none", 6)
    other.predictions.unlink()
    with pytest.raises(UserError, match=rf"^{other.predictions}: no readable predictions .*predict@run-6`$"):
        evaluate_run(other)
    assert not other.row.exists()


def test_a_training_that_is_missing_is_named(run: RunFiles) -> None:
    other = scrambled(run, "none", 7)
    other.training.unlink()
    with pytest.raises(UserError, match=rf"^{other.training}: cannot be read"):
        evaluate_run(other)


def test_predictions_from_before_there_were_detections_are_refused(manifest: Tree) -> None:
    files = detected_run("before", annotated(manifest))
    frame = pd.read_parquet(files.predictions).astype({"split": str})
    write_predictions(files.predictions, [frame[frame["split"] != "val_detected"]])
    with pytest.raises(UserError, match=r"found nobody in split 'val_detected', .*predict@run-0`$"):
        evaluate_run(files)


def test_prepare_takes_detections_away_that_are_no_longer_asked_for(manifest: Tree) -> None:
    detected_run("before", annotated(manifest))
    assert has_detections("before")
    files = detected_run("before", annotated(manifest), detections=None)
    assert not has_detections("before")
    assert json.loads(detections_file("before").read_text()) == []
    found = evaluate_run(files)
    assert found.protocol.boxes == "ground truth"
    assert set(pd.read_parquet(files.predictions)["split"]) == {"calibration", "val"}


def test_detections_that_cannot_be_read_leave_the_manifests_as_they_were(manifest: Tree) -> None:
    files = detected_run("before", annotated(manifest))
    before = {file: file.read_bytes() for file in Path("data/before").iterdir()}
    Path("before_boxes.json").write_text("[]")
    write_plan(
        "before",
        {"source": "coco", "root": str(drawn_dir("p")), "detections": "before_boxes.json"}
        | {"min_detection_score": 0.0, "seed": 7},
        {files.run: {}},
    )
    with pytest.raises(UserError, match=r"^before_boxes\.json: found no person with a score of at least 0"):
        prepare.main("before")
    assert {file: file.read_bytes() for file in Path("data/before").iterdir()} == before
