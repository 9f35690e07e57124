"""Stage presence: every number on presence of one system, under every label policy, from its predictions alone."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import precision_recall_curve, roc_curve

from bench.data.coco import read_coco
from bench.data.parquet import write_parquet
from bench.data.people import Truth, image_positions
from bench.data.predictions import CALIBRATION, VAL, Split, read_split
from bench.metrics.baselines import fit_logistic, heatmap_features
from bench.metrics.bootstrap import Resampling, draw_resampling
from bench.metrics.calibration import Reliability, reliability
from bench.metrics.oks import RULES, keypoint_similarity
from bench.metrics.presence import MACRO, POOLED, VIEWS, Labelled
from bench.metrics.presence_study import (
    LOCALISATION,
    LOCALISED,
    Located,
    Number,
    Source,
    Splits,
    calibrated,
    study,
    study_calibration,
    study_localisation,
)
from bench.reporting.results import write_replicates
from bench.stages.command import run_command
from bench.stages.files import ResamplingPlan, RunFiles, floors_file, manifest_file, plan_dir, read_model
from bench.stages.floors import Floor, read_floors

Floats = NDArray[np.float64]

CALIBRATED = ("presence_head", "heatmap_peak", "logistic")
"""Sources whose calibration is looked at."""
CURVE_POINTS = 200


class Study(NamedTuple):
    """What one policy makes of a run."""

    policy: str
    sources: Mapping[str, Source]
    splits: Splits
    resampling: Resampling


def main(profile: str, run: str, seed: int) -> None:
    """Write the run's numbers, replicates and curves of presence."""
    plan = read_model(plan_dir(profile) / "presence.json", ResamplingPlan)
    files = RunFiles(profile, run, seed)
    truths = {name: Truth.of(read_coco(manifest_file(profile, name))) for name in (CALIBRATION, VAL)}
    rng = np.random.default_rng(plan.seed)
    resampling = draw_resampling(truths[VAL].num_images, plan.num, "percentile", rng)
    located = located_by(read_split(files.predictions, VAL, LOCALISED), truths[VAL])
    tables, curves = [], []
    replicates: dict[str, Floats] = {}
    for case in studies(profile, files, truths, resampling):
        numbers = study(case.sources, case.splits, resampling.counts)
        looked_at = {name: source for name, source in case.sources.items() if name in CALIBRATED}
        numbers |= study_calibration(looked_at, case.splits, resampling.counts)
        tables.append(table_of(case.policy, numbers, resampling))
        curves += list(curves_of(case))
        replicates |= replicates_of(case.policy, numbers)
    numbers = study_localisation(located, resampling.counts)
    tables.append(table_of(LOCALISED, numbers, resampling))
    replicates |= replicates_of(LOCALISED, numbers)
    curves += [localisation_curve(name, found, resampling) for name, found in located.items()]
    write_parquet(files.of_presence("presence"), pd.concat(tables, ignore_index=True))
    write_parquet(files.of_presence("presence_curves"), pd.concat(curves, ignore_index=True))
    write_replicates(
        files.of_presence("presence_replicates"), list(replicates), np.stack(list(replicates.values()), axis=1)
    )


def studies(profile: str, files: RunFiles, truths: Mapping[str, Truth], resampling: Resampling) -> Iterator[Study]:
    """One for every policy that the data carry."""
    first = {name: read_split(files.predictions, name, LOCALISED) for name in (CALIBRATION, VAL)}
    people = {name: split.annotation_ids for name, split in first.items()}
    for policy, floor in read_floors(floors_file(profile), people):
        calibration, val = (read_split(files.predictions, name, policy) for name in (CALIBRATION, VAL))
        splits = Splits(labels_of(calibration, truths[CALIBRATION]), labels_of(val, truths[VAL]))
        yield Study(policy, sources_of(calibration, val, splits.calibration, floor), splits, resampling)


def labels_of(split: Split, truth: Truth) -> Labelled:
    return Labelled(split.present, split.present_weight, image_positions(truth.image_ids, split.image_ids))


def located_by(val: Split, truth: Truth) -> dict[str, Located]:
    """How sure the heatmap's peak, and a presence head, are of each keypoint, and how near it is to its label."""
    persons = truth.people.places(val.annotation_ids)
    similarity = keypoint_similarity(val.keypoints, truth.people, persons, RULES["coco"])
    confidences = {"heatmap_peak": np.clip(val.score, 0, 1)}  # a peak can leave [0, 1]
    if val.presence is not None:
        confidences["presence_head"] = val.presence
    image = truth.people.image[persons]
    weight = val.present_weight * val.present
    return {name: Located(confidence, similarity, weight, image) for name, confidence in confidences.items()}


def sources_of(calibration: Split, val: Split, labels: Labelled, floor: Floor) -> dict[str, Source]:
    """Every statement on presence that a run makes, and the floors that it has to beat; `labels` are of calibration,
    and where they have one class only, no regression is fitted on them."""
    sources: dict[str, Source] = {}
    if calibration.presence_logits is not None and val.presence_logits is not None:
        logits = (calibration.presence_logits, val.presence_logits)
        sources["presence_head"] = Source(expit(logits[0]), expit(logits[1]), is_probability=True, logits=logits)
    sources["heatmap_peak"] = Source(calibration.score, val.score)
    for name, sign in (("blurred_peak", 1.0), ("mass", 1.0), ("entropy", -1.0), ("peak_gap", 1.0)):
        sources[name] = Source(sign * calibration.statistics[name], sign * val.statistics[name])
    if labels.has_both_classes:
        features = [heatmap_features(split.score, split.statistics) for split in (calibration, val)]
        logistic = fit_logistic(features[0], labels.present, labels.weight)
        sources["logistic"] = Source(logistic(features[0]), logistic(features[1]), is_probability=True)
    for name in floor.val:
        sources[name] = Source(floor.calibration[name], floor.val[name], is_probability=True)
    ones = (np.ones_like(calibration.score), np.ones_like(val.score))
    return sources | {"always_present": Source(*ones, is_probability=True)}


def table_of(policy: str, numbers: Mapping[Number, Floats], resampling: Resampling) -> pd.DataFrame:
    """A line for every number and view, with its interval."""
    records: list[dict[str, Any]] = []
    for number, values in numbers.items():
        for view, interval in zip(VIEWS, resampling.intervals(values), strict=True):
            records.append({"policy": policy, **number._asdict(), "view": view, **interval._asdict()})
    return pd.DataFrame(records)


def replicates_of(policy: str, numbers: Mapping[Number, Floats]) -> dict[str, Floats]:
    """Of all keypoints pooled and of the mean over them, as systems and sources are compared by these."""
    return {
        f"{policy}/{number.source}/{number.rule}/{view}/{number.metric}": values[:, VIEWS.index(view)]
        for number, values in numbers.items()
        for view in (POOLED, MACRO)
    }


def curves_of(case: Study) -> Iterator[pd.DataFrame]:
    """ROC and precision-recall of every source where val has both classes, reliability of those whose calibration is
    looked at."""
    labels = case.splits.val
    for name, source in case.sources.items():
        for curve, (x, y) in ranking_curves(source.val, labels).items() if labels.has_both_classes else ():
            kept = np.unique(np.linspace(0, len(x) - 1, CURVE_POINTS).astype(int))
            yield _curve(case.policy, name, curve, x[kept], y[kept])
        if name in CALIBRATED:
            for calibrator, probability in calibrated(source, case.splits.calibration):
                found = reliability(probability, labels.present, labels.weight, labels.image, case.resampling)
                yield _binned(case.policy, name, f"reliability/{calibrator}", found)


def ranking_curves(score: Floats, labels: Labelled) -> dict[str, tuple[Floats, Floats]]:
    """ROC and both precision-recall curves of scores (N, K), as x and y."""
    counted = labels.weight > 0
    present, score = labels.present[counted], score[counted]
    fpr, tpr, _ = roc_curve(present, score)
    steps = {"pr_present": recall_steps(present, score), "pr_absent": recall_steps(~present, -score)}
    return {"roc": (fpr, tpr), **steps}


def recall_steps(target: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at each level of the score, from the highest: steps, whose area is the average precision.

    They begin at recall 0 with the precision of the first level. scikit-learn begins with precision 1, which belongs to
    no threshold: a line from there shows precision that no score of few levels has.
    """
    precision, recall, _ = precision_recall_curve(target, score)
    recall, precision = recall[::-1], precision[::-1].copy()
    precision[0] = precision[1]
    return recall, precision


def localisation_curve(source: str, located: Located, resampling: Resampling) -> pd.DataFrame:
    """Mean similarity with the label against confidence."""
    return _binned(LOCALISED, source, LOCALISATION, reliability(*located, resampling))


def _binned(policy: str, source: str, curve: str, found: Reliability) -> pd.DataFrame:
    """The bins that hold something."""
    filled = found.number > 0
    low, high, number = found.low[filled], found.high[filled], found.number[filled]
    return _curve(policy, source, curve, found.mean_probability[filled], found.observed[filled], low, high, number)


def _curve(policy: str, source: str, curve: str, x: Floats, y: Floats, *rest: Any) -> pd.DataFrame:
    low, high, number = rest or (np.nan, np.nan, 0)
    return pd.DataFrame(
        {"policy": policy, "source": source, "curve": curve, "x": x, "y": y, "low": low, "high": high, "number": number}
    )


if __name__ == "__main__":
    run_command(main)
