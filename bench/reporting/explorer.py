"""The threshold explorer: how many keypoints are rightly and wrongly called present at every sampled threshold.

Letters: N persons, K keypoints, T thresholds, L levels between them (T + 1).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.predictions import Split
from bench.metrics.presence import Labelled, check, choose_threshold
from bench.reporting.figures import house_style, system_styles
from bench.reporting.presence_results import HEAD, PEAK

STEPS = 100
GRID = np.arange(STEPS + 1) / STEPS
SOURCES = (HEAD, PEAK)
METRICS = {
    "precision": "precision",
    "recall": "recall",
    "F1": "F1",
    "hallucinated": "hallucinated per person",
    "missed": "missed per person",
}
MIN_CALLED = 30
"""Keypoints called present behind a precision that is drawn: of fewer it jumps to 0 or 1 by chance."""
SHARES = ("precision", "recall", "F1")
Counts = NDArray[np.int64]


class Levels(NamedTuple):
    """One source under one policy. Keypoints are counted by how many of the thresholds they reach."""

    chosen: float  # threshold of highest F1 on the calibration split
    present: Counts  # (K, L)
    absent: Counts  # (K, L)

    @property
    def thresholds(self) -> Floats:
        """The sampled ones (T,), the chosen one among them."""
        return np.sort(np.append(GRID, self.chosen))

    def at_thresholds(self) -> dict[str, Counts]:
        """TP, FP and FN (K, T) at every threshold."""
        reached = [np.cumsum(count[:, ::-1], axis=1)[:, ::-1][:, 1:] for count in (self.present, self.absent)]
        return {"TP": reached[0], "FP": reached[1], "FN": self.present.sum(axis=1, keepdims=True) - reached[0]}


class Explored(NamedTuple):
    """One source of one system under every policy."""

    system: str
    source: str
    policies: dict[str, Levels]


def score_of(split: Split, source: str) -> Floats | None:
    """What a source says of every keypoint (N, K); None where the system does not have it."""
    return split.presence if source == HEAD else split.score


def levels_of(score: Floats, labels: Labelled, chosen: float) -> Levels:
    """Count the keypoints of a split, (N, K) each, between the sampled thresholds and the chosen one.

    Raises:
        UserError: see `bench.metrics.presence.check`.
    """
    check(score, labels)
    empty = Levels(chosen, *(np.zeros((score.shape[1], STEPS + 3), dtype=np.int64) for _ in range(2)))
    level = np.searchsorted(empty.thresholds, score, side="right")
    counted = labels.weight > 0
    for count, one_class in zip(empty[1:], labels.classes, strict=True):
        n, k = np.nonzero(one_class & counted)
        np.add.at(count, (k, level[n, k]), 1)
    return empty


def explore(calibration: Split, val: Split, source: str) -> Levels | None:
    """One source of a run under the policy that both splits were read with; None where it is not there, or where the
    calibration split has no present keypoint to choose a threshold by."""
    scores = [score_of(split, source) for split in (calibration, val)]
    labels = [Labelled(split.present, split.present_weight, split.image_ids) for split in (calibration, val)]
    if scores[0] is None or scores[1] is None:
        return None
    chosen = choose_threshold(scores[0], labels[0])
    return None if math.isnan(chosen) else levels_of(scores[1], labels[1], chosen)


def as_json(explored: Sequence[Explored], labels: Mapping[str, str], num_persons: int) -> dict[str, Any]:
    """What the page's script reads; `labels` names sources."""
    return {
        "steps": STEPS,
        "num_persons": num_persons,
        "sources": [
            {
                "label": f"{entry.system}, {labels[entry.source]}",
                "policies": {
                    policy: {
                        "chosen": levels.chosen,
                        "present": levels.present.tolist(),
                        "absent": levels.absent.tolist(),
                    }
                    for policy, levels in entry.policies.items()
                },
            }
            for entry in explored
        ],
    }


def pooled_metrics(levels: Levels, num_persons: int) -> dict[str, Floats]:
    """`METRICS` (T,) of all keypoints pooled; NaN where undefined, precision also where fewer than `MIN_CALLED`
    keypoints are called present."""
    tp, fp, fn = (count.sum(axis=0) for count in levels.at_thresholds().values())
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: undefined
        return {
            "precision": np.where(tp + fp >= MIN_CALLED, tp / (tp + fp), np.nan),
            "recall": tp / (tp + fn),
            "F1": 2 * tp / (2 * tp + fp + fn),
            "hallucinated": fp / num_persons,
            "missed": fn / num_persons,
        }


def draw_thresholds(
    explored: Sequence[Explored], systems: Sequence[str], policy: str, num_persons: int, title: str
) -> Figure:
    """All but the missed against the threshold, all keypoints pooled: a panel per metric, a line per system and source
    (dashed: the heatmap peak), a dot at the chosen threshold."""
    shown = [entry for entry in explored if policy in entry.policies]
    styles = system_styles(systems)
    with house_style():
        figure = Figure(figsize=(9, 6.4), layout="constrained")
        panels = dict(zip(METRICS, figure.subplots(2, 2).flat, strict=False))
        for entry in shown:
            levels = entry.policies[policy]
            metrics = pooled_metrics(levels, num_persons)
            colour, marker = styles[entry.system]
            at = np.searchsorted(levels.thresholds, levels.chosen)
            for metric, ax in panels.items():
                style = {"color": colour, "linestyle": "-" if entry.source == HEAD else "--"}
                label = f"{entry.system}, {entry.source.replace('_', ' ')}"
                shown_as = metrics[metric] * (100 if metric in SHARES else 1)
                ax.plot(levels.thresholds, shown_as, label=label, **style)
                ax.plot(levels.chosen, shown_as[at], marker=marker, color=colour, markersize=6)
        for metric, ax in panels.items():
            ax.set(title=f"{METRICS[metric]}{' (%)' if metric in SHARES else ''}", xlabel="threshold")
        panels["precision"].set_title(f"precision (%) where {MIN_CALLED} or more are called present")
        handles, names = panels["F1"].get_legend_handles_labels()
        figure.suptitle(title)
        if names:
            figure.legend(handles, names, loc="outside lower center", ncols=3)
        return figure
