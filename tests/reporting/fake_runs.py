"""A made-up project folder: four systems, four ablations, a few drawn people. Run it to look at the pages it gives:

python tests/reporting/fake_runs.py /tmp/report_try
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from bench.data.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS, SKELETON
from bench.reporting.rows import (
    DataCard,
    Estimate,
    PresenceResult,
    Protocol,
    Provenance,
    Row,
    run_file,
    write_row,
)

SYSTEMS = ("vitpose", "vitpose_presence", "hrnet", "transpose")
ABLATIONS = (
    ("presence_weight_1e_4", "loss.presence_weight", 1e-4, 0.01),
    ("presence_weight_1", "loss.presence_weight", 1.0, 0.01),
    ("dropout_0", "presence_head.dropout", 0.0, 0.4),
    ("dropout_2", "presence_head.dropout", 0.2, 0.4),
)
STANDING = np.array(
    [
        (0.50, 0.08), (0.54, 0.06), (0.46, 0.06), (0.58, 0.08), (0.42, 0.08), (0.66, 0.20), (0.34, 0.20), (0.74, 0.36),
        (0.26, 0.36), (0.78, 0.50), (0.22, 0.50), (0.60, 0.54), (0.40, 0.54), (0.62, 0.75), (0.38, 0.75), (0.63, 0.95),
        (0.37, 0.95),
    ]
)  # fmt: skip


def estimate(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=max(value - half, 0.0), high=min(value + half, 1.0))


def presence_result(value: float, threshold: float, rng: np.random.Generator) -> PresenceResult:
    micro = {"precision": value - 0.02, "recall": value + 0.02, "F1": value, "AUROC": value - 0.05}
    spread = rng.normal(scale=0.05, size=(len(micro), NUM_KEYPOINTS))
    return PresenceResult(
        threshold=threshold,
        micro={name: estimate(number) for name, number in micro.items()},
        per_keypoint={
            name: [estimate(float(np.clip(number + shift, 0, 1)), 0.04) for shift in spread[i]]
            for i, (name, number) in enumerate(micro.items())
        },
    )


def make_row(name: str, seed: int = 0, *, head: bool = False, profile: str = "demo", **changes: Any) -> Row:
    """A row whose numbers come from its name and seed; `changes` replace whole fields."""
    rng = np.random.default_rng([seed, *name.encode()])
    ap = float(rng.uniform(0.3, 0.6))
    oks = {"AP": ap, "AP50": ap + 0.3, "AP75": ap - 0.05, "APM": ap - 0.1, "APL": ap + 0.1, "AR": ap + 0.06}
    presence = {"heatmap_peak": presence_result(0.86, 0.21, rng), "always_present": presence_result(0.82, 1.0, rng)}
    if head:
        presence = {"presence_head": presence_result(float(rng.uniform(0.86, 0.93)), 0.43, rng), **presence}
    fields: dict[str, Any] = {
        "profile": profile,
        "experiment": name,
        "seed": seed,
        "data": DataCard(
            source="drawn", name="drawn people", num_images=9, num_persons=12, num_present=170, num_absent=34,
            prevalence=[float(x) for x in rng.uniform(0.5, 1, NUM_KEYPOINTS)], sha256="d" * 64,
        ),
        "protocol": Protocol(
            boxes="ground truth", score_rule="box_keypoint", flip_test=True, codec="udp, sigma 4 input px",
            crop="64 x 96, extend, padding 1.25",
            policy="labelled", threshold_rule="max F1 on calibration", checkpoint_rule="highest AP on calibration",
            evaluator="pycocotools 2.0.11", init="warmstart",
        ),
        "provenance": Provenance(
            code_sha256="c" * 64, params_sha256="p" * 64, versions={"torch": "2.14.1", "numpy": "2.4.6"}, device="cpu",
            precision="32-true",
        ),
        "num_parameters": 1_234_567,
        "num_presence_parameters": 34_000 if head else 0,
        "num_macs": 2_345_678_901,
        "input_size": (64, 96),
        "best_epoch": 3,
        "oks": {metric: estimate(value) for metric, value in oks.items()},
        "presence": presence,
    }  # fmt: skip
    return Row(**{**fields, **changes})


def make_project(
    root: Path,
    *,
    systems: Sequence[str] = SYSTEMS,
    seeds: Sequence[int] = (0,),
    num_persons: int = 12,
    pictured: int = 3,
) -> None:
    """Manifests, images, plans and every run of the grid, below `root`."""
    rng = np.random.default_rng(0)
    manifest = make_people(root, num_persons, rng)
    parent = "vitpose_presence"
    entries = [
        {"name": name, "parent": parent, "factor": factor, "value": value, "parent_value": parent_value}
        for name, factor, value, parent_value in ABLATIONS
    ]
    shared = {"profile": "demo", "seeds": list(seeds)}
    pictures = {"num_persons": pictured, "seed": 0}
    report = {**shared, "profiles": ["demo", "laptop"], "systems": list(systems), "published": {}, "pictures": pictures}
    write_json(root / "runs/demo/plan/report.json", report)
    write_json(root / "runs/demo/plan/ablations.json", {**shared, "ablations": entries})
    for name in (*systems, *(entry["name"] for entry in entries)):
        for seed in seeds:
            make_run(
                root / "runs/demo", make_row(name, seed, head=name not in SYSTEMS or name == parent), manifest, rng
            )


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def make_run(runs_dir: Path, row: Row, manifest: dict[str, Any], rng: np.random.Generator) -> None:
    """Row, curves and predictions."""
    head = "presence_head" in row.presence
    key = (row.experiment, row.seed)
    write_row(row, run_file(runs_dir, "rows", *key))
    epochs = np.arange(1, 5)
    curves = pd.DataFrame(
        {
            "epoch": epochs,
            "train_loss": 1 / epochs,
            "train_heatmap_loss": rng.uniform(0.9, 1.1) * 0.002 / epochs,
            "train_presence_loss": 0.6 / epochs**0.3 if head else 0.0,
            "calibration_AP": row.oks["AP"].value * (1 - 0.8 / epochs**2),
            "calibration_loss": rng.uniform(0.9, 1.1) * 0.0025 / epochs,
        }
    )
    predictions = predict(manifest, head, rng)
    for kind in ("curves", "predictions"):
        run_file(runs_dir, kind, *key).parent.mkdir(parents=True, exist_ok=True)
    curves.to_csv(run_file(runs_dir, "curves", *key), index=False)
    predictions.to_parquet(run_file(runs_dir, "predictions", *key), index=False)


def predict(manifest: dict[str, Any], head: bool, rng: np.random.Generator) -> pd.DataFrame:
    frames = []
    for annotation in manifest["annotations"]:
        truth = np.array(annotation["true_keypoints"]).reshape(-1, 3)
        frames.append(
            pd.DataFrame(
                {
                    "split": "val",
                    "image_id": annotation["image_id"],
                    "annotation_id": annotation["id"],
                    "keypoint": np.arange(NUM_KEYPOINTS),
                    "x": truth[:, 0] + rng.normal(scale=2.5, size=NUM_KEYPOINTS),
                    "y": truth[:, 1] + rng.normal(scale=2.5, size=NUM_KEYPOINTS),
                    "score": np.where(truth[:, 2] > 0, 0.5, 0.1) + rng.normal(scale=0.15, size=NUM_KEYPOINTS),
                    "presence_logit": np.where(truth[:, 2] > 0, 2.0, -2.0) + rng.normal(size=17) if head else np.nan,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def make_people(root: Path, num_persons: int, rng: np.random.Generator) -> dict[str, Any]:
    """`data/demo/val.json` and its images: stick people on noise, a third of them cut by the border."""
    w, h = 320, 240
    images, annotations = [], []
    folder = root / "data/demo/drawn/val2017"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(1, num_persons + 1):
        height = rng.uniform(110, 200)
        left, top = rng.uniform(0, w - height / 2), rng.uniform(0, h - height)
        top += 0.4 * height if i % 3 == 0 else 0
        points = STANDING * (height / 2, height) + (left, top) + rng.normal(scale=3, size=STANDING.shape)
        visibility = np.where((points >= 0).all(1) & (points < (w, h)).all(1), rng.choice([1, 2, 2, 2], 17), 0)
        image = cv2.resize(rng.integers(60, 200, (12, 16, 3), dtype=np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)
        for start, end in SKELETON:
            ends = [tuple(int(x) for x in points[k]) for k in (start, end)]
            cv2.line(image, ends[0], ends[1], (50, 60, 90), max(int(height / 14), 2), cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{i:012}.jpg"), image)
        low, high = np.clip(points.min(0) - 5, 0, (w, h)), np.clip(points.max(0) + 5, 0, (w, h))
        images.append({"id": i, "file_name": f"val2017/{i:012}.jpg", "width": w, "height": h})
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
    categories = [{"id": 1, "name": "person", "keypoints": list(KEYPOINT_NAMES)}]
    manifest = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    write_json(root / "data/demo/val.json", manifest)
    return manifest


if __name__ == "__main__":
    from ablations.report import main as ablations_report
    from bench.stages.report import main as report

    root = Path(sys.argv[1])
    seeds = range(int(sys.argv[2])) if len(sys.argv) > 2 else (0,)
    make_project(root, seeds=seeds, pictured=6)
    os.chdir(root)
    report("demo")
    ablations_report("demo")
