"""Stage evaluate: every number of one run, from its predictions and the manifests alone; no model, no GPU."""

import numpy as np
from numpy.typing import NDArray

from bench.config import EvaluateParams, TestParams, TrainConfig
from bench.data.coco import read_coco
from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.people import Truth, image_positions
from bench.data.predictions import CALIBRATION, DETECTED, VAL, Split, read_split
from bench.inference.poses import scored_detections
from bench.inference.scoring import SCORE_RULES
from bench.metrics.average_precision import STATS, Evaluation, OKSEvaluation
from bench.metrics.bootstrap import Resampling, draw_resampling
from bench.metrics.oks import Matches, everyone, match
from bench.metrics.presence import POOLED, VIEWS, Labelled, choose_threshold, metrics_at, ranking
from bench.reporting.results import write_matches, write_replicates
from bench.reporting.rows import (
    ALWAYS_PRESENT,
    HEATMAP_PEAK,
    METRICS,
    PRESENCE_HEAD,
    Estimate,
    Row,
    Source,
    annotated_boxes,
    oks,
    presence,
    score_rule,
    write_row,
)
from bench.stages.command import run_command
from bench.stages.files import RunFiles, TrainingInfo, has_detections, manifest_file, plan_dir, read_model
from bench.stages.provenance import data_card, protocol, provenance

Floats = NDArray[np.float64]
Values = dict[str, Floats]  # key of a number -> (S,), its value in every data set
Scores = tuple[Floats, Floats]  # (N, K) of calibration and of val


def main(profile: str, run: str, seed: int, of: str | None = None) -> None:
    """Write the run's row, and its replicates and matches, by which runs are compared; --of names whose training."""
    plan = plan_dir(profile) / run
    train = read_model(plan / "train.json", TrainConfig)
    test = read_model(plan / "predict.json", TestParams)
    params = read_model(plan / "evaluate.json", EvaluateParams)
    files = RunFiles(profile, run, seed, trained_as=of)
    info = read_model(files.training, TrainingInfo)
    calibration, val = (read_split(files.predictions, name, params.presence_policy) for name in (CALIBRATION, VAL))
    manifest = read_coco(manifest_file(profile, VAL))
    truth = Truth.of(manifest)
    resampling = draw_resampling(
        truth.num_images, params.num_resamples, params.interval, np.random.default_rng(params.seed)
    )
    detected = has_detections(profile)
    boxes = read_split(files.predictions, DETECTED, params.presence_policy) if detected else val
    matches = match_boxes(boxes, truth, params)
    sources = presence_sources(calibration, val)
    thresholds = {source: threshold_of(scores[0], calibration, params) for source, scores in sources.items()}
    values = oks_values(matches, resampling)
    if detected:
        on_annotated = oks_values(match_boxes(val, truth, params), resampling)
        values |= {annotated_boxes(stat): on_annotated[oks(stat)] for stat in STATS}
    values |= score_rule_values(boxes, truth, params, resampling)
    for source, (_, score) in sources.items():
        values |= presence_values(source, score, val, truth, thresholds[source], resampling)
    row = Row(
        profile=profile,
        experiment=run,
        seed=seed,
        data=data_card(profile, manifest, val),
        protocol=protocol(train, info, test, params, detected=detected),
        provenance=provenance(plan, info, train.precision),
        num_parameters=info.num_parameters,
        num_presence_parameters=info.num_presence_parameters,
        num_macs=info.num_macs,
        input_size=train.input_size,
        best_epoch=info.best_epoch,
        thresholds=thresholds,
        numbers=estimates(values, resampling),
    )
    write_replicates(files.replicates, list(values), table(values)[: 1 + params.num_resamples])
    write_matches(files.matches, matches)
    write_row(row, files.row)


def match_boxes(split: Split, truth: Truth, params: EvaluateParams) -> Matches:
    detections = scored_detections(split, truth, params.score_rule, params.oks_nms)
    return match(truth.people, detections, truth.num_images)


def oks_values(matches: Matches, resampling: Resampling) -> Values:
    """COCO's ten numbers."""
    evaluation = OKSEvaluation(matches)
    stats = np.stack([evaluation.stats_of(counts) for counts in resampling.counts])
    return {oks(stat): column for stat, column in zip(STATS, stats.T, strict=True)}


def score_rule_values(split: Split, truth: Truth, params: EvaluateParams, resampling: Resampling) -> Values:
    """AP and AR under every rule that the run can answer."""
    values: Values = {}
    for rule in SCORE_RULES:
        if SCORE_RULES[rule].needs_presence and split.presence is None:
            continue
        detections = scored_detections(split, truth, rule, params.oks_nms)
        groups = everyone(truth.people, detections)
        evaluation = Evaluation(match(truth.people, detections, truth.num_images, groups=groups))
        numbers = np.stack([evaluation.group_stats(counts)[0] for counts in resampling.counts])
        values |= {score_rule(rule, stat): column for stat, column in zip(("AP", "AR"), numbers.T, strict=True)}
    return values


def presence_sources(calibration: Split, val: Split) -> dict[Source, Scores]:
    """Every statement on presence that a run makes, as scores on calibration and val: its head, and the two floors."""
    sources: dict[Source, Scores] = {
        HEATMAP_PEAK: (calibration.score, val.score),
        ALWAYS_PRESENT: (np.ones_like(calibration.score), np.ones_like(val.score)),
    }
    if calibration.presence is None or val.presence is None:
        return sources
    return {PRESENCE_HEAD: (calibration.presence, val.presence), **sources}


def threshold_of(score: Floats, calibration: Split, params: EvaluateParams) -> float:
    """Chosen on calibration, never on val."""
    if params.threshold != "max_f1":
        return params.threshold
    image = np.unique(calibration.image_ids, return_inverse=True)[1]
    return choose_threshold(score, Labelled(calibration.present, calibration.present_weight, image))


def presence_values(
    source: Source, score: Floats, val: Split, truth: Truth, threshold: float, resampling: Resampling
) -> Values:
    """All metrics of a source, pooled and per keypoint."""
    labels = Labelled(val.present, val.present_weight, image_positions(truth.image_ids, val.image_ids))
    views = metrics_at(score, labels, threshold, resampling.counts) | ranking(score, labels, resampling.counts)
    return {
        presence(source, metric, keypoint): views[metric][:, VIEWS.index(keypoint)]
        for keypoint in (POOLED, *KEYPOINT_NAMES)
        for metric in METRICS
    }


def table(values: Values) -> Floats:
    """(S, M)."""
    return np.stack(list(values.values()), axis=1)


def estimates(values: Values, resampling: Resampling) -> dict[str, Estimate]:
    intervals = resampling.intervals(table(values))
    return {key: Estimate(**interval._asdict()) for key, interval in zip(values, intervals, strict=True)}


if __name__ == "__main__":
    run_command(main)
