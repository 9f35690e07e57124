"""Stage evaluate: every number of one run, from its predictions and the manifests alone; no model, no GPU."""

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from bench.config import EvaluateParams, TestParams, TrainConfig
from bench.data.coco import CocoDict, read_coco
from bench.data.hashing import sha256_of
from bench.data.keypoints import NUM_KEYPOINTS
from bench.inference.scoring import SCORE_RULES, to_coco_results
from bench.metrics.bootstrap import Interval
from bench.metrics.oks import evaluate_oks, oks_intervals
from bench.metrics.presence import choose_threshold, presence_metrics
from bench.reporting.rows import (
    ALWAYS_PRESENT,
    HEATMAP_PEAK,
    PRESENCE_HEAD,
    DataCard,
    Estimate,
    PresenceResult,
    Protocol,
    Provenance,
    Row,
    Source,
    write_row,
)
from bench.stages.command import run_command
from bench.stages.files import (
    MANIFESTS,
    RunFiles,
    TrainingInfo,
    manifest_file,
    plan_dir,
    read_model,
    sha256_of_code,
)

VERSIONS = ("numpy", "pandas", "pycocotools", "scikit-learn", "timm", "torch", "torchvision")


Scores = tuple[NDArray[np.float64], NDArray[np.float64]]  # (N, K) of calibration and of val


class Split(NamedTuple):
    """Predictions of one split as arrays. N persons, K keypoints."""

    image_ids: NDArray[np.int64]  # (N,)
    bbox_score: NDArray[np.float64]  # (N,)
    keypoints: NDArray[np.float64]  # (N, K, 2)
    score: NDArray[np.float64]  # (N, K)
    presence: NDArray[np.float64]  # (N, K), NaN without a head
    present: NDArray[np.bool_]  # (N, K)
    present_weight: NDArray[np.float64]  # (N, K)


def main(profile: str, run: str, seed: int) -> None:
    """Write runs/<profile>/rows/<run>-<seed>.json."""
    plan = plan_dir(profile) / run
    train = read_model(plan / "train.json", TrainConfig)
    test = read_model(plan / "predict.json", TestParams)
    params = read_model(plan / "evaluate.json", EvaluateParams)
    files = RunFiles(profile, run, seed)
    info = read_model(files.training, TrainingInfo)
    frame = pd.read_parquet(files.predictions)
    calibration, val = (read_split(frame, name, params.presence_policy) for name in ("calibration", "val"))
    manifest = read_coco(manifest_file(profile, "val"))
    row = Row(
        profile=profile,
        experiment=run,
        seed=seed,
        data=data_card(profile, manifest, val),
        protocol=protocol(train, info, test, params),
        provenance=provenance(plan, info, train.precision),
        num_parameters=info.num_parameters,
        num_presence_parameters=info.num_presence_parameters,
        num_macs=info.num_macs,
        input_size=train.input_size,
        best_epoch=info.best_epoch,
        oks=oks_estimates(val, manifest, params),
        presence={
            source: presence_result(*scores, calibration, val, params)
            for source, scores in presence_sources(calibration, val).items()
        },
    )
    write_row(row, files.row)


def read_split(frame: pd.DataFrame, name: str, policy: str) -> Split:
    """One split of a predictions file, with the labels of one policy."""
    rows = frame[frame["split"] == name]

    def table(column: str) -> NDArray[np.float64]:
        return rows[column].to_numpy(dtype=np.float64).reshape(-1, NUM_KEYPOINTS)

    return Split(
        image_ids=rows["image_id"].to_numpy(dtype=np.int64)[::NUM_KEYPOINTS],
        bbox_score=table("bbox_score")[:, 0],
        keypoints=np.stack([table("x"), table("y")], axis=-1),
        score=table("score"),
        presence=expit(table("presence_logit")),
        present=table(f"present_{policy}") > 0,
        present_weight=table(f"present_weight_{policy}"),
    )


def presence_sources(calibration: Split, val: Split) -> dict[Source, Scores]:
    """Every statement on presence that a run makes, as scores on calibration and val: its head, and the two floors."""
    sources: dict[Source, Scores] = {
        HEATMAP_PEAK: (calibration.score, val.score),
        ALWAYS_PRESENT: (np.ones_like(calibration.score), np.ones_like(val.score)),
    }
    if np.isnan(val.presence).any():
        return sources
    return {PRESENCE_HEAD: (calibration.presence, val.presence), **sources}


def presence_result(
    calibration_score: NDArray[np.float64],
    val_score: NDArray[np.float64],
    calibration: Split,
    val: Split,
    params: EvaluateParams,
) -> PresenceResult:
    """The threshold is chosen on calibration, the numbers are val's; every source meets the same resamples."""
    threshold = (
        choose_threshold(calibration_score, calibration.present, calibration.present_weight)
        if params.threshold == "max_f1"
        else params.threshold
    )
    metrics = presence_metrics(
        val_score,
        val.present,
        val.present_weight,
        threshold,
        val.image_ids,
        params.num_resamples,
        np.random.default_rng(params.seed),
    )
    return PresenceResult(
        threshold=threshold,
        micro=estimates(metrics.micro),
        per_keypoint={
            name: [Estimate(**interval._asdict()) for interval in values]
            for name, values in metrics.per_keypoint.items()
        },
    )


def oks_estimates(val: Split, manifest: CocoDict, params: EvaluateParams) -> dict[str, Estimate]:
    """AP and AR with intervals, by COCO's evaluation of the person scores under the score rule."""
    person_scores = SCORE_RULES[params.score_rule](val.bbox_score, val.score)
    results = to_coco_results(val.image_ids, val.keypoints, val.score, person_scores)
    evaluation = evaluate_oks(manifest, results)
    return estimates(oks_intervals(evaluation, params.num_resamples, np.random.default_rng(params.seed)))


def estimates(intervals: dict[str, Interval]) -> dict[str, Estimate]:
    return {name: Estimate(**interval._asdict()) for name, interval in intervals.items()}


def data_card(profile: str, manifest: CocoDict, val: Split) -> DataCard:
    """What the val split is."""
    info = manifest["info"]
    counted = val.present_weight > 0
    present = val.present & counted
    drawn = all("true_keypoints" in annotation for annotation in manifest["annotations"])
    return DataCard(
        source="drawn" if drawn else "coco",
        name=info["source_description"] or Path(info["image_root"]).name,
        num_images=info["num_images"],
        num_persons=info["num_persons"],
        num_present=int(present.sum()),
        num_absent=int((counted & ~present).sum()),
        prevalence=[float(x) for x in present.sum(0) / np.maximum(counted.sum(0), 1)],
        sha256=sha256_of(manifest_file(profile, name) for name in MANIFESTS),
    )


def protocol(train: TrainConfig, info: TrainingInfo, test: TestParams, params: EvaluateParams) -> Protocol:
    """What must be equal before two rows are compared."""
    return Protocol(
        boxes="ground truth",
        score_rule=params.score_rule,
        flip_test=test.flip_test,
        codec=f"{train.codec}, sigma {train.sigma:g} input px"
        + (f", {test.decoding} decoding" if test.decoding != "codec" else ""),
        crop=f"{train.input_size[0]} x {train.input_size[1]}, {train.fit}, padding {train.bbox_padding:g}",
        policy=params.presence_policy,
        threshold_rule="max F1 on calibration" if params.threshold == "max_f1" else f"fixed at {params.threshold:g}",
        checkpoint_rule="highest AP on calibration" if train.fitting else "as published",
        evaluator=f"pycocotools {version('pycocotools')}",
        init=f"{train.weights} ({info.weights_source})" if train.weights else train.architecture.init,
    )


def provenance(plan: Path, info: TrainingInfo, precision: str) -> Provenance:
    """Where the numbers come from: code, parameters, versions, device."""
    return Provenance(
        code_sha256=sha256_of_code(),
        params_sha256=sha256_of(plan / f"{stage}.json" for stage in ("weights", "train", "predict", "evaluate")),
        versions={name: version(name) for name in VERSIONS},
        device=info.device,
        precision=precision,
    )


if __name__ == "__main__":
    run_command(main)
