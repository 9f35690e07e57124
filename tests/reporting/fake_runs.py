"""A made-up project folder: four systems, four ablations, a few drawn people. Run it to look at the pages it gives:

python -m tests.reporting.fake_runs /tmp/report_try      (with a number behind it: so many training seeds)

Letters: S data sets (all images, then resamples of them), E training seeds.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS, SKELETON
from bench.data.people import Truth, image_positions
from bench.data.predictions import CALIBRATION, STATISTICS, VAL, Split, read_split, write_predictions
from bench.data.presence import POLICIES, Labels
from bench.inference.poses import scored_detections
from bench.inference.scoring import SCORE_RULES
from bench.metrics.average_precision import STATS, OKSEvaluation
from bench.metrics.bootstrap import draw_resampling, percentile_interval
from bench.metrics.oks import Matches, match
from bench.metrics.presence import MACRO, POOLED, VIEWS, Labelled, metrics_at, ranking
from bench.metrics.presence_study import LOCALISED, Located, Splits, study, study_calibration, study_localisation
from bench.metrics.presence_study import Source as ScoreSource
from bench.reporting.model_card import Card, TrainedOn
from bench.reporting.results import Result, write_matches, write_replicates
from bench.reporting.rows import (
    ALWAYS_PRESENT,
    HEATMAP_PEAK,
    METRICS,
    PRESENCE_HEAD,
    PROTOCOL_VERSION,
    SOURCES,
    DataCard,
    Estimate,
    Protocol,
    Provenance,
    Row,
    Source,
    annotated_boxes,
    oks,
    presence,
    run_file,
    score_rule,
    write_row,
)

Floats = NDArray[np.float64]
Values = dict[str, Floats]  # key of a number -> (S,)

SYSTEMS = ("vitpose", "vitpose_presence", "hrnet", "transpose")
PARENT = "vitpose_presence"
ABLATIONS = (
    ("presence_weight_1e_4", "loss.presence_weight", 1e-4, 0.01),
    ("presence_weight_1", "loss.presence_weight", 1.0, 0.01),
    ("dropout_0", "presence_head.dropout", 0.0, 0.4),
    ("dropout_2", "presence_head.dropout", 0.2, 0.4),
)
NUM_RESAMPLES = 60
RESAMPLING = {"num": 40, "seed": 0}  # of permutation tests
SCORE_RULE = "box_keypoint"
THRESHOLDS: dict[Source, float] = {PRESENCE_HEAD: 0.43, HEATMAP_PEAK: 0.21, ALWAYS_PRESENT: 1.0}
STANDING = np.array(
    [
        (0.50, 0.08), (0.54, 0.06), (0.46, 0.06), (0.58, 0.08), (0.42, 0.08), (0.66, 0.20), (0.34, 0.20), (0.74, 0.36),
        (0.26, 0.36), (0.78, 0.50), (0.22, 0.50), (0.60, 0.54), (0.40, 0.54), (0.62, 0.75), (0.38, 0.75), (0.63, 0.95),
        (0.37, 0.95),
    ]
)  # fmt: skip


def make_values(
    name: str, seed: int = 0, *, head: bool = False, detected: bool = False, num_resamples: int = NUM_RESAMPLES
) -> Values:
    """Every number of a run in every data set: levels and noise of the name and seed, and noise of the images, which
    all runs share. Always present is the same for all runs, as it should be."""
    own, everybody = np.random.default_rng([seed, *name.encode()]), np.random.default_rng(0)

    def replicate(key: str, level: float) -> Floats:
        rng = everybody if f"/{ALWAYS_PRESENT}/" in key else own
        noise = rng.normal(scale=0.004, size=num_resamples)
        noise += np.random.default_rng(list(key.encode())).normal(scale=0.01, size=num_resamples)
        return np.clip(level + np.concatenate([[0.0], noise]), 0.0, 1.0)

    levels = oks_levels(float(own.uniform(0.3, 0.6)))
    numbers = {oks(stat): level for stat, level in levels.items()}
    if detected:
        numbers |= {annotated_boxes(stat): level + 0.02 for stat, level in levels.items()}
    for source in THRESHOLDS:
        if head or source != PRESENCE_HEAD:
            rng = everybody if source == ALWAYS_PRESENT else own
            f1 = {PRESENCE_HEAD: rng.uniform(0.88, 0.93), HEATMAP_PEAK: 0.86, ALWAYS_PRESENT: 0.82}[source]
            numbers |= presence_levels(source, f1, rng)
    values = {key: replicate(key, level) for key, level in numbers.items()}
    for i, rule in enumerate(SCORE_RULES):
        if head or not SCORE_RULES[rule].needs_presence:
            shift = 0.0 if rule == SCORE_RULE else 0.01 * (i - 1.5)
            values |= {score_rule(rule, stat): np.clip(values[oks(stat)] + shift, 0, 1) for stat in ("AP", "AR")}
    return values


def oks_levels(ap: float) -> dict[str, float]:
    recall = {"AR": ap + 0.06, "AR50": ap + 0.33, "AR75": ap + 0.01, "ARM": ap - 0.04, "ARL": ap + 0.16}
    return {"AP": ap, "AP50": ap + 0.3, "AP75": ap - 0.05, "APM": ap - 0.1, "APL": ap + 0.1, **recall}


def presence_levels(source: Source, f1: float, rng: np.random.Generator) -> dict[str, float]:
    """Of all keypoints, and of each with some luck."""
    pooled = {"precision": f1 - 0.02, "recall": f1 + 0.02, "F1": f1, "AUROC": f1 - 0.05}
    if source == ALWAYS_PRESENT:
        pooled |= {"recall": 1.0, "AUROC": 0.5}
    levels = {presence(source, metric): level for metric, level in pooled.items()}
    for keypoint, luck in zip(KEYPOINT_NAMES, rng.normal(scale=0.04, size=(NUM_KEYPOINTS, 4)), strict=True):
        found = zip(pooled.items(), luck, strict=True)
        levels |= {presence(source, metric, keypoint): level + float(shift) for (metric, level), shift in found}
    return levels


def estimates(values: Mapping[str, Floats]) -> dict[str, Estimate]:
    """A row's numbers, from all data sets."""
    intervals = {key: percentile_interval(float(column[0]), column[1:], 100) for key, column in values.items()}
    return {key: Estimate(**interval._asdict()) for key, interval in intervals.items()}


def make_row(
    name: str, seed: int = 0, *, head: bool = False, values: Mapping[str, Floats] | None = None, **changes: Any
) -> Row:
    """A row of the numbers given, else of those that follow from its name and seed; `changes` replace whole fields."""
    detected = values is not None and annotated_boxes("AP") in values
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "profile": "demo",
        "experiment": name,
        "seed": seed,
        "data": DataCard(
            source="drawn", name="drawn people", num_images=29, num_persons=12, num_present=170, num_absent=34,
            prevalence=[float(x) for x in rng.uniform(0.5, 1, NUM_KEYPOINTS)], sha256="d" * 64, source_sha256="a" * 64,
        ),
        "protocol": Protocol(
            version=PROTOCOL_VERSION, boxes="detected" if detected else "ground truth", score_rule=SCORE_RULE,
            oks_nms="none", flip_test="mirrored", codec="udp, sigma 4 input px", crop="64 x 96, extend, padding 1.25",
            policy="labelled", threshold_rule="max F1 on calibration", checkpoint_rule="highest AP on calibration",
            evaluator="bench.metrics.oks, rules of pycocotools, 20 detections an image",
            intervals=f"percentile, {NUM_RESAMPLES} resamples of the images, seed 0", init="warmstart",
        ),
        "provenance": Provenance(
            code_sha256="c" * 64, code_revision="f" * 40, params_sha256="p" * 64,
            versions={"torch": "2.14.1", "numpy": "2.4.6"}, device="cpu", precision="32-true", trained_seconds=61.5,
            evaluated_at="2026-01-31T12:00:00+00:00",
        ),
        "num_parameters": 1_234_567,
        "num_presence_parameters": 34_000 if head else 0,
        "num_macs": 2_345_678_901,
        "input_size": (64, 96),
        "best_epoch": 3,
        "thresholds": {source: x for source, x in THRESHOLDS.items() if head or source != PRESENCE_HEAD},
        "numbers": estimates(make_values(name, seed, head=head) if values is None else values),
    }  # fmt: skip
    return Row(**{**fields, **changes})


def make_result(
    name: str,
    seeds: Sequence[int] = (0,),
    *,
    head: bool = False,
    detected: bool = False,
    num_resamples: int = NUM_RESAMPLES,
    columns: Mapping[str, Floats] | None = None,
    matches: Sequence[Path] = (),
    **changes: Any,
) -> Result:
    """A result as `load_results` gives it, from its name and seeds; `columns` (E, S) replace numbers, `changes` fields
    of its rows. Without `matches`, OKS numbers cannot be tested."""
    rows, tables = [], []
    for i, seed in enumerate(seeds):
        values = make_values(name, seed, head=head, detected=detected, num_resamples=num_resamples)
        values |= {key: column[i] for key, column in (columns or {}).items()}
        rows.append(make_row(name, seed, head=head, values=values, **changes))
        tables.append(np.stack(list(values.values()), axis=1))
    return Result(name, rows, list(values), np.stack(tables), list(matches))


def make_project(
    root: Path,
    *,
    systems: Sequence[str] = SYSTEMS,
    seeds: Sequence[int] = (0,),
    num_persons: int = 12,
    pictured: int = 3,
    published: Mapping[str, str] | None = None,
    with_presence: bool = False,
) -> None:
    """Manifests, images, plans and every run of the grid, below `root`."""
    manifest = make_people(root, num_persons, np.random.default_rng(0))
    entries = [
        {
            "name": name,
            "parent": PARENT,
            "factor": factor,
            "value": value,
            "parent_value": parent_value,
            "retest": False,
        }
        for name, factor, value, parent_value in ABLATIONS
    ]
    shared = {"profile": "demo", "seeds": list(seeds), "resampling": RESAMPLING}
    report = {
        **shared, "profiles": ["demo", "laptop"], "systems": list(systems), "published": dict(published or {}),
        "pictures": {"num_persons": pictured, "seed": 0},
    }  # fmt: skip
    write_json(root / "runs/demo/plan/report.json", report)
    write_json(root / "runs/demo/plan/presence_report.json", {**shared, "systems": list(systems), "policy": "labelled"})
    write_json(root / "runs/demo/plan/ablations.json", {**shared, "ablations": entries})
    named = {"profile": "demo", "seeds": list(seeds), "systems": list(systems)}
    runs = [*systems, *(entry["name"] for entry in entries)]
    site = {**named, "profiles": ["demo", "laptop"], "runs": runs, "policy": "labelled"}
    write_json(root / "runs/demo/plan/site.json", site)
    write_json(root / "runs/demo/plan/cards.json", named)
    parents = {entry["name"]: entry["parent"] for entry in entries}
    parameters = {run: {"train": {"optim": {"lr": 5e-4}, "codec": "udp"}} for run in runs}
    write_json(root / "runs/demo/plan/runs_report.json", {**named, "ablations": parents, "parameters": parameters})
    for split in ("train", "calibration"):
        write_json(root / f"data/demo/{split}.json", manifest)
    for name in runs:
        for seed in seeds:
            row = make_run(root / "runs/demo", manifest, name, seed, head=name not in SYSTEMS or name == PARENT)
            if name in systems:
                write_json(root / f"runs/demo/cards/{name}-{seed}.json", make_card(row).model_dump())
            if name in systems and with_presence:
                make_presence(root / "runs/demo", manifest, name, seed)


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def make_run(
    runs_dir: Path, manifest: dict[str, Any], name: str, seed: int = 0, *, head: bool = False, **changes: Any
) -> Row:
    """Predictions that are off by some pixels, more or less by name, and what follows from them: row, replicates,
    matches. Curves are free invention."""
    rng = np.random.default_rng([seed, *name.encode()])
    error = float(np.random.default_rng(list(name.encode())).uniform(2, 6) * rng.uniform(0.9, 1.1))
    write_predictions(run_file(runs_dir, "predictions", name, seed), [predict(manifest, error, rng, head=head)])
    split = read_split(run_file(runs_dir, "predictions", name, seed), VAL, "labelled")
    values, matches = measure(split, Truth.of(manifest))
    row = make_row(name, seed, head=head, values=values, data=data_card(manifest, split), **changes)
    write_row(row, run_file(runs_dir, "rows", name, seed))
    write_replicates(run_file(runs_dir, "replicates", name, seed), list(values), np.stack(list(values.values()), 1))
    write_matches(run_file(runs_dir, "matches", name, seed), matches)
    epochs = np.arange(1, 5)
    curves = pd.DataFrame(
        {
            "epoch": epochs,
            "train_loss": 1 / epochs,
            "train_heatmap_loss": rng.uniform(0.9, 1.1) * 0.002 / epochs,
            "train_presence_loss": 0.6 / epochs**0.3 if head else 0.0,
            "calibration_heatmap_loss": rng.uniform(0.9, 1.1) * 0.0025 / epochs,
            "calibration_presence_loss": 0.7 / epochs**0.3 if head else 0.0,
            "calibration_AP": values[oks("AP")][0] * (1 - 0.8 / epochs**2),
            "calibration_loss": rng.uniform(0.9, 1.1) * 0.0025 / epochs,
        }
    )
    run_file(runs_dir, "curves", name, seed).parent.mkdir(parents=True, exist_ok=True)
    curves.to_csv(run_file(runs_dir, "curves", name, seed), index=False)
    return row


def make_card(row: Row, **changes: Any) -> Card:
    """What stage card says of a row, calibrated by free invention; `changes` replace whole fields."""
    source = PRESENCE_HEAD if PRESENCE_HEAD in row.thresholds else HEATMAP_PEAK
    calibrator, slope, intercept = ("temperature", 1.25, 0.0) if source == PRESENCE_HEAD else ("platt", 5.0, -1.5)
    presence = {
        "source": SOURCES[source], "calibrator": calibrator, "slope": slope, "intercept": intercept,
        "fitted_on": "calibration split", "policy": row.protocol.policy, "threshold": 0.5625,
        "threshold_rule": row.protocol.threshold_rule,
    }  # fmt: skip
    origin = {
        "run": f"{row.profile}/{row.experiment}-{row.seed}", "checkpoint_sha256": "e" * 64,
        "code_revision": row.provenance.code_revision, "crop": row.protocol.crop, "flip_test": row.protocol.flip_test,
    }  # fmt: skip
    trained_on = TrainedOn(train=1500, calibration=300)
    fields = {"source": source, "trained_on": trained_on, "licence": "Apache-2.0"}
    return Card(**fields | {"presence": presence, "origin": origin} | changes)


def make_presence(runs_dir: Path, manifest: dict[str, Any], name: str, seed: int = 0) -> None:
    """What stage presence leaves of a run of `make_run`, calibrated on the very people it is tested on. All sources but
    head and peak are free invention, and so are the curves."""
    predictions = run_file(runs_dir, "predictions", name, seed)
    frame = pd.read_parquet(predictions)
    write_predictions(predictions, [frame.assign(split=CALIBRATION), frame])
    truth = Truth.of(manifest)
    counts = draw_resampling(truth.num_images, NUM_RESAMPLES, "percentile", np.random.default_rng(0)).counts
    records, curves, columns = [], [], {}
    for policy in POLICIES:
        split = read_split(run_file(runs_dir, "predictions", name, seed), VAL, policy)
        labels = Labelled(split.present, split.present_weight, image_positions(truth.image_ids, split.image_ids))
        counted = labels.present[labels.weight > 0]
        if counted.all() or not counted.any():
            continue
        sources = presence_sources(split, np.random.default_rng([seed, *name.encode()]))
        probabilities = {key: sources[key] for key in ("presence_head", "heatmap_peak", "logistic") if key in sources}
        splits = Splits(labels, labels)
        numbers = study(sources, splits, counts) | study_calibration(probabilities, splits, counts)
        if policy == LOCALISED:
            said = {key: np.clip(sources[key].val, 0, 1) for key in ("heatmap_peak", "presence_head") if key in sources}
            numbers |= study_localisation({key: Located(x, x**2, *labels[1:]) for key, x in said.items()}, counts)
        for (source, rule, metric), values in numbers.items():
            for v, view in enumerate(VIEWS):
                interval = percentile_interval(float(values[0, v]), values[1:, v], 100)
                records.append((policy, source, rule, view, metric, *interval))
                if view in (POOLED, MACRO):
                    columns[f"{policy}/{source}/{rule}/{view}/{metric}"] = values[:, v]
        for source in sources:
            kinds = ["roc", "pr_present", "pr_absent"]
            kinds += ["localisation"] * (policy == LOCALISED and source in ("heatmap_peak", "presence_head"))
            kinds += [f"reliability/{c}" for c in ("none", "platt", "isotonic")] * (source in probabilities)
            bend = 0.5 + len(name) / 10 + len(curves) % 3 / 10
            curves += [(policy, source, *point) for kind in kinds for point in presence_curve(kind, bend)]
    keys = ["policy", "source", "rule", "view", "metric", "value", "low", "high"]
    curve_keys = ["policy", "source", "curve", "x", "y", "low", "high", "number"]
    for kind, frame in (
        ("presence", pd.DataFrame(records, columns=keys)),
        ("presence_curves", pd.DataFrame(curves, columns=curve_keys)),
        ("presence_replicates", pd.DataFrame(columns)),
    ):
        file = run_file(runs_dir, kind, name, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(file, index=False)


def presence_sources(split: Split, rng: np.random.Generator) -> dict[str, ScoreSource]:
    """Scores of every source: the later, the noisier."""
    shape = split.score.shape
    floors = np.random.default_rng(0)  # the same for all runs
    sources: dict[str, ScoreSource] = {}
    if split.presence is not None:
        logits = np.log(split.presence / (1 - split.presence))
        sources["presence_head"] = ScoreSource(split.presence, split.presence, True, (logits, logits))
    for i, name in enumerate(("heatmap_peak", "blurred_peak", "mass", "entropy", "peak_gap")):
        score = split.score + rng.normal(scale=0.1 * i, size=shape)
        sources[name] = ScoreSource(score, score)
    logistic = 1 / (1 + np.exp(-6 * (split.score - 0.3)))
    sources["logistic"] = ScoreSource(logistic, logistic, True)
    prevalence = np.broadcast_to(split.present.mean(axis=0), shape)
    geometry = np.clip(prevalence + floors.normal(scale=0.1, size=shape), 0, 1)
    sources["prevalence"] = ScoreSource(prevalence, prevalence, True)
    sources["box_geometry"] = ScoreSource(geometry, geometry, True)
    sources["always_present"] = ScoreSource(np.ones(shape), np.ones(shape), True)
    return sources


def presence_curve(kind: str, bend: float) -> list[tuple[str, float, float, float, float, int]]:
    """A few points that look like the curve."""
    x = np.linspace(0, 1, 11)
    y = {"roc": x ** (0.3 * bend), "pr_present": 1 - 0.3 * x**3 * bend, "pr_absent": 1 - 0.6 * x**bend}.get(
        kind, x**bend
    )
    low, high = np.clip([y - 0.05, y + 0.05], 0, 1)
    return [(kind, *map(float, point), 5 + 10 * i) for i, point in enumerate(zip(x, y, low, high, strict=True))]


def predict(manifest: dict[str, Any], error: float, rng: np.random.Generator, *, head: bool) -> pd.DataFrame:
    """The val split of a predictions file; keypoints are off by about `error` pixels."""
    shape = len(manifest["annotations"]), NUM_KEYPOINTS
    truth = np.array([annotation["true_keypoints"] for annotation in manifest["annotations"]]).reshape(*shape, 3)
    labelled = np.array([annotation["keypoints"] for annotation in manifest["annotations"]]).reshape(*shape, 3)
    there = truth[..., 2] > 0
    off = rng.normal(scale=error, size=(*shape, 2))
    logits = np.where(there, 2.0, -2.0) + rng.normal(scale=1.5, size=shape) if head else np.full(shape, np.nan)

    def per_person(values: Sequence[float]) -> NDArray[np.generic]:
        return np.repeat(np.array(values), NUM_KEYPOINTS)

    columns = {
        "split": VAL,
        "image_id": per_person([annotation["image_id"] for annotation in manifest["annotations"]]),
        "annotation_id": per_person([annotation["id"] for annotation in manifest["annotations"]]),
        "keypoint": np.tile(np.arange(NUM_KEYPOINTS), shape[0]),
        "x": (truth[..., 0] + off[..., 0]).ravel(),
        "y": (truth[..., 1] + off[..., 1]).ravel(),
        "score": (np.where(there, 0.5, 0.1) + rng.normal(scale=0.2, size=shape)).ravel(),
        "presence_logit": logits.ravel(),
        "visibility": labelled[..., 2].astype(np.int64).ravel(),
        "bbox_score": 1.0,
        "view_area": per_person([annotation["area"] * 2 for annotation in manifest["annotations"]]),
        **dict.fromkeys(STATISTICS, 0.1),
    }
    for name, policy in POLICIES.items():
        known = Labels(labelled[..., 2].astype(np.int64), truth[..., 2].astype(np.int64))
        label = policy.label(known, np.ones(shape, dtype=bool))
        columns |= {
            f"present_{name}": label.present.ravel(),
            f"present_weight_{name}": label.present_weight.ravel(),
        }
    return pd.DataFrame(columns)


def measure(split: Split, truth: Truth) -> tuple[Values, Matches]:
    """Every number of a run in every data set, and the matches behind its OKS numbers."""
    counts = draw_resampling(truth.num_images, NUM_RESAMPLES, "percentile", np.random.default_rng(0)).counts
    by_rule = {
        rule: match(truth.people, scored_detections(split, truth, rule, None), truth.num_images)
        for rule in SCORE_RULES
        if split.presence is not None or not SCORE_RULES[rule].needs_presence
    }
    stats = {rule: oks_stats(matches, counts) for rule, matches in by_rule.items()}
    values = {oks(stat): column for stat, column in stats[SCORE_RULE].items()}
    values |= {score_rule(rule, stat): stats[rule][stat] for rule in stats for stat in ("AP", "AR")}
    labels = Labelled(split.present, split.present_weight, image_positions(truth.image_ids, split.image_ids))
    scores = {PRESENCE_HEAD: split.presence, HEATMAP_PEAK: split.score, ALWAYS_PRESENT: np.ones_like(split.score)}
    for source, score in scores.items():
        if score is not None:
            views = metrics_at(score, labels, THRESHOLDS[source], counts) | ranking(score, labels, counts)
            values |= {
                presence(source, metric, name): views[metric][:, VIEWS.index(name)]
                for name in (POOLED, *KEYPOINT_NAMES)
                for metric in METRICS
            }
    return values, by_rule[SCORE_RULE]


def oks_stats(matches: Matches, counts: NDArray[np.integer]) -> Values:
    """COCO's ten, (S,) each."""
    evaluation = OKSEvaluation(matches)
    return dict(zip(STATS, np.stack([evaluation.stats_of(row) for row in counts], axis=1), strict=True))


def data_card(manifest: dict[str, Any], split: Split) -> DataCard:
    return DataCard(
        source="drawn", name="drawn people", num_images=len(manifest["images"]), num_persons=len(split.image_ids),
        num_present=int(split.present.sum()), num_absent=int((~split.present).sum()),
        prevalence=[float(share) for share in split.present.mean(axis=0)], sha256="d" * 64, source_sha256="a" * 64,
    )  # fmt: skip


def make_people(root: Path, num_persons: int, rng: np.random.Generator) -> dict[str, Any]:
    """`data/demo/val.json` and its images: stick people on noise, a third of them cut by the border."""
    w, h = 320, 240
    images, annotations = [], []
    folder = root / "data/demo/drawn/val2017"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(1, num_persons + 1):
        height = rng.uniform(110, 200)
        left, top = rng.uniform(0, w - height / 2), rng.uniform(0, h - height)
        top = h - rng.uniform(0.5, 0.9) * height if i % 3 == 0 else top
        points = STANDING * (height / 2, height) + (left, top) + rng.normal(scale=3, size=STANDING.shape)
        visibility = np.where((points >= 0).all(1) & (points < (w, h)).all(1), rng.choice([1, 2, 2, 2], 17), 0)
        image = cv2.resize(rng.integers(60, 200, (12, 16, 3), dtype=np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)
        for start, end in SKELETON:
            ends = [tuple(int(x) for x in points[k]) for k in (start, end)]
            cv2.line(image, ends[0], ends[1], (50, 60, 90), max(int(height / 14), 2), cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{i:012}.jpg"), image)
        low, high = np.clip(points.min(0) - 5, 0, (w, h)), np.clip(points.max(0) + 5, 0, (w, h))
        images.append({"id": i, "file_name": f"val2017/{i:012}.jpg", "width": w, "height": h, "sha256": f"{i:064}"})
        labelled = np.where(visibility[:, None] > 0, np.column_stack([points, visibility]), 0)
        annotations.append(
            {
                "id": 100 + i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": float(np.prod(high - low)),
                "bbox": [*low.tolist(), *(high - low).tolist()], "num_keypoints": int((visibility > 0).sum()),
                "keypoints": labelled.ravel().tolist(),
                "true_keypoints": np.column_stack([points, visibility]).ravel().tolist(),
            }
        )  # fmt: skip
    info = {"image_root": "data/demo/drawn", "source_description": "drawn people", "num_images": len(images)}
    info["turned"] = []
    categories = [{"id": 1, "name": "person", "keypoints": list(KEYPOINT_NAMES)}]
    manifest = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    write_json(root / "data/demo/val.json", manifest)
    return manifest


if __name__ == "__main__":
    from ablations.report import main as ablations_report
    from bench.stages.presence_report import main as presence_report
    from bench.stages.report import main as report

    root = Path(sys.argv[1])
    seeds = range(int(sys.argv[2])) if len(sys.argv) > 2 else (0,)
    make_project(root, seeds=seeds, num_persons=40, pictured=6, published={"hrnet": "hrnet_w32"}, with_presence=True)
    os.chdir(root)
    report("demo")
    ablations_report("demo")
    presence_report("demo")
