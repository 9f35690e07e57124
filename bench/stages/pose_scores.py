"""Stage pose_scores: poses that can say "not there", scored by what is known to be absent, from predictions alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pyarrow.parquet import read_schema
from scipy.special import expit

from bench.config import EvaluateParams, TrainConfig
from bench.data.coco import read_coco
from bench.data.geometry import Floats
from bench.data.people import Detections, People, Truth
from bench.data.predictions import CALIBRATION, VAL, Split, read_split
from bench.data.presence import TRUE
from bench.data.windows import shown_boxes
from bench.inference.poses import choose_detections
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.calibrators import fit_platt
from bench.metrics.oks import Bools, Ints
from bench.metrics.pose_scores import (
    READINGS,
    Similarity,
    area_under,
    average_precisions,
    emit,
    ex_oks,
    gated_oks,
    keypoint_ap,
)
from bench.metrics.presence import Labelled, choose_threshold
from bench.reporting.pose_results import EX_CORNER, EX_EDGE, GATED, KNOWN, PLAIN_AP, at_threshold, key
from bench.reporting.results import write_replicates
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, Source
from bench.stages.command import run_command
from bench.stages.files import RunFiles, manifest_file, plan_dir, read_model

THRESHOLDS = np.arange(11) / 10
"""Of presence. Half as many as the metric's own, as every one costs a matching and its resamples."""

Values = dict[str, Floats]  # key of a number -> (S,), its value in every data set


class Scene(NamedTuple):
    """Who is there, and the poses that are evaluated. Letters as in `bench.metrics.pose_scores`."""

    people: People
    window: Floats  # (P, 4) x0, y0, x1, y1 of what the model is shown of them
    detections: Detections
    kept: Ints  # (D,) their places in the split
    person: Ints  # (D,) in whose box each was found
    counts: Ints  # (S, I)


class Speaker(NamedTuple):
    """A source of presence under one policy, fitted on the calibration split alone."""

    presence: Floats  # (N, K) probabilities on val
    score: Floats  # (N, K) what ranks single keypoints of val
    threshold: float


def main(profile: str, run: str, seed: int) -> None:
    """Write the run's scores in every data set."""
    plan = plan_dir(profile) / run
    train = read_model(plan / "train.json", TrainConfig)
    params = read_model(plan / "evaluate.json", EvaluateParams)
    files = RunFiles(profile, run, seed)
    val = read_split(files.predictions, VAL, params.presence_policy)
    scene = scene_of(Truth.of(read_coco(manifest_file(profile, VAL))), val, train, params)
    everything = np.ones(scene.detections.keypoint_score.shape, dtype=bool)
    nothing = np.zeros(scene.people.visibility.shape, dtype=bool)
    values = {PLAIN_AP: ap_by([gated_oks(scene.people, scene.detections, nothing, everything)], scene)[:, 0]}
    for policy in policies_of(files.predictions, params.presence_policy):
        calibration, val = (read_split(files.predictions, name, policy) for name in (CALIBRATION, VAL))
        if not (labels_of(calibration).has_both_classes and labels_of(val).has_both_classes):
            continue
        absent = known_absent(val, scene.people)
        for source, speaker in speakers(calibration, val, params):
            scores = scores_of(scene, absent, speaker)
            values |= {key(policy, source, score): column for score, column in scores.items()}
    write_replicates(files.pose_scores, list(values), np.stack(list(values.values()), axis=1))


def scene_of(truth: Truth, val: Split, train: TrainConfig, params: EvaluateParams) -> Scene:
    """Of the val split on its annotated boxes, so that it is known whom a pose is about.

    Raises:
        UserError: the predictions are of somebody who is not annotated.
    """
    detections, kept = choose_detections(val, truth, params.score_rule, params.oks_nms)
    rng = np.random.default_rng(params.seed)
    return Scene(
        truth.people,
        shown_boxes(truth.people.bbox, train.input_size, train.bbox_padding, train.fit),
        detections,
        kept,
        truth.people.places(val.annotation_ids)[kept],
        draw_resampling(truth.num_images, params.num_resamples, "percentile", rng).counts.astype(np.int64),
    )


def known_absent(split: Split, people: People) -> Bools:
    """(P, K) that count and are not present; of people who are not in the split nothing is known to be absent."""
    absent = np.zeros(people.visibility.shape, dtype=bool)
    absent[people.places(split.annotation_ids)] = (split.present_weight > 0) & ~split.present
    return absent


def policies_of(predictions: Path, headline: str) -> list[str]:
    """The headline policy, ProbPose's, and the truth where the predictions carry it."""
    carried = set(read_schema(predictions).names)
    return [policy for policy in dict.fromkeys((headline, KNOWN, TRUE)) if f"present_{policy}" in carried]


def labels_of(split: Split) -> Labelled:
    image = np.unique(split.image_ids, return_inverse=True)[1]
    return Labelled(split.present, split.present_weight, image)


def speakers(calibration: Split, val: Split, params: EvaluateParams) -> Iterator[tuple[Source, Speaker]]:
    """The head, where there is one, and the heatmap peak, both as probabilities by Platt scaling."""
    if calibration.presence_logits is not None and val.presence_logits is not None:
        logits = (calibration.presence_logits, val.presence_logits)
        yield PRESENCE_HEAD, speaker_of(logits, expit(val.presence_logits) * val.score, calibration, params)
    yield HEATMAP_PEAK, speaker_of((calibration.score, val.score), val.score, calibration, params)


def speaker_of(raw: tuple[Floats, Floats], score: Floats, calibration: Split, params: EvaluateParams) -> Speaker:
    """From what a source says (N, K) on calibration and val."""
    platt = fit_platt(raw[0], calibration.present, calibration.present_weight)
    return Speaker(platt(raw[1]), score, threshold_of(platt(raw[0]), calibration, params))


def threshold_of(presence: Floats, calibration: Split, params: EvaluateParams) -> float:
    """Of probabilities (N, K) of the calibration split."""
    if params.threshold != "max_f1":
        return params.threshold
    return choose_threshold(presence, labels_of(calibration))


def scores_of(scene: Scene, absent: Bools, speaker: Speaker) -> Values:
    """Every score of what a source says, by its name."""
    people, detections, counts = scene.people, scene.detections, scene.counts
    presence = speaker.presence[scene.kept]
    thresholds = np.append(THRESHOLDS, speaker.threshold)
    said = [emit(presence, t) for t in thresholds]
    gates = [gated_oks(people, detections, absent, emitted) for emitted in said]
    edges, corners = (
        [ex_oks(people, detections, absent, emitted, scene.window, reading) for emitted in said] for reading in READINGS
    )
    found = np.split(ap_by([*gates, *edges, *corners], scene), 3, axis=1)
    curves = dict(zip((GATED, EX_EDGE, EX_CORNER), found, strict=True))
    values: Values = {"threshold": np.full(len(counts), speaker.threshold)}
    for name, curve in curves.items():
        values |= {name: curve[:, -1], f"{name}_area": area_under(curve[:, :-1], THRESHOLDS)}
    values |= {at_threshold(t): column for t, column in zip(THRESHOLDS, curves[GATED].T, strict=False)}
    single = keypoint_ap(people, detections, scene.person, speaker.score[scene.kept], absent, counts)
    return values | {"keypoint_AP": single.pooled, "keypoint_AP_macro": single.macro}


def ap_by(similarities: list[Similarity], scene: Scene) -> Floats:
    """(S, Q)."""
    return average_precisions(scene.people, scene.detections, similarities, scene.counts)[..., 0]


if __name__ == "__main__":
    run_command(main)
