"""What stage pose_scores left of every system, its training seeds pooled, and comparisons of it.

Numbers are named `<policy>/<source>/<score>`, see `key`. Letters: E training seeds, S data sets, M numbers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pyarrow.parquet import read_schema

from bench.data.geometry import Floats
from bench.data.parquet import UNREADABLE
from bench.data.predictions import VAL
from bench.data.presence import POLICIES
from bench.errors import UserError
from bench.reporting.label_counts import LabelCount, count_labels
from bench.reporting.results import (
    Comparison,
    Contrast,
    Result,
    Side,
    Summary,
    check_same_images,
    compare_by_question,
    read_replicates,
    trainings,
)
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, SOURCES, Row, Source, by_experiment, run_file

KNOWN = "known"
PLAIN_AP = "AP"
"""By OKS, whatever is said of presence: the same for all policies and sources."""
GATED, EX_EDGE, EX_CORNER = "gated_AP", "ex_AP_edge", "ex_AP_corner"
SCORES = {
    GATED: "gated AP at the threshold",
    f"{GATED}_area": "gated AP, mean over thresholds",
    EX_EDGE: "Ex-AP (edge) at the threshold",
    f"{EX_EDGE}_area": "Ex-AP (edge), mean over thresholds",
    EX_CORNER: "Ex-AP (corner) at the threshold",
    f"{EX_CORNER}_area": "Ex-AP (corner), mean over thresholds",
    "keypoint_AP": "keypoint AP, pooled",
    "keypoint_AP_macro": "keypoint AP, mean over keypoints",
}
"""Every score, as the page names it."""
COMPARED = (GATED, f"{GATED}_area", EX_EDGE, "keypoint_AP")
"""Those by which a head and the peak of its system are compared: few, as their p-values are corrected together."""


def key(policy: str, source: Source, score: str) -> str:
    return f"{policy}/{source}/{score}"


def at_threshold(threshold: float) -> str:
    """Gated AP had this threshold been taken; at 0 everything is emitted."""
    return f"{GATED}@{threshold:.1f}"


EMIT_ALL = at_threshold(0)


class PoseResult(NamedTuple):
    """One system."""

    result: Result
    counts: dict[str, LabelCount]  # by policy, of the first seed

    @property
    def name(self) -> str:
        return self.result.name

    @property
    def num_seeds(self) -> int:
        return len(self.result.rows)

    @property
    def lines(self) -> list[tuple[str, Source]]:
        """Every policy and source of which there are numbers."""
        return [(p, s) for p in POLICIES for s in SOURCES if key(p, s, GATED) in self.result.keys]

    @property
    def main_source(self) -> Source:
        """The presence head where there is one, else the heatmap peak."""
        return PRESENCE_HEAD if PRESENCE_HEAD in self.result.row.thresholds else HEATMAP_PEAK

    def number(self, name: str) -> Summary:
        """All training seeds together; undefined (None) as soon as it is so for one, or where nothing was measured."""
        if name not in self.result.keys:
            return Summary(None, None, None, None, self.num_seeds)
        return self.result.pooled(name)

    def curve(self, policy: str, source: Source) -> tuple[Floats, list[Summary]]:
        """Thresholds (Q,), and gated AP at each."""
        start = key(policy, source, f"{GATED}@")
        names = [name for name in self.result.keys if name.startswith(start)]
        return np.array([float(name.removeprefix(start)) for name in names]), [self.number(name) for name in names]


def load_pose_scores(runs_dir: Path, rows: Sequence[Row]) -> list[PoseResult]:
    """The systems of the rows, in their order.

    Raises:
        UserError: a file is missing or broken, or seeds differ in their numbers.
    """
    check_same_images(rows)
    return [_load_system(runs_dir, name, trainings(group)) for name, group in by_experiment(rows).items()]


def _load_system(runs_dir: Path, name: str, rows: list[Row]) -> PoseResult:
    files = [run_file(runs_dir, "pose_scores", name, row.seed) for row in rows]
    keys = _columns(files[0], f"pose_scores@{name}-{rows[0].seed}")
    tables = [read_replicates(file, row, keys, "pose_scores") for file, row in zip(files, rows, strict=True)]
    counts = count_labels(run_file(runs_dir, "predictions", name, rows[0].seed), VAL)
    return PoseResult(Result(name, rows, keys, np.stack(tables), [], "pose_scores"), counts)


def _columns(file: Path, stage: str) -> list[str]:
    try:
        return list(read_schema(file).names)
    except UNREADABLE as error:
        raise UserError(f"{file}: cannot be read ({str(error).splitlines()[0]}): run `dvc repro {stage}`") from error


def policies_of(systems: Sequence[PoseResult]) -> list[str]:
    """Those of which there are numbers."""
    found = {policy for system in systems for policy, _ in system.lines}
    return [policy for policy in POLICIES if policy in found]


class Question(NamedTuple):
    """A comparison and what it answers, for a system under a policy."""

    system: str
    policy: str
    source: Source
    made: Comparison


class Answers(NamedTuple):
    """All comparisons of the page. Heads are one question, gates another."""

    heads: list[Question]  # the head minus the peak of the same system
    gates: list[Question]  # suppressing at the threshold minus emitting everything

    @property
    def comparisons(self) -> list[Comparison]:
        return [question.made for question in (*self.heads, *self.gates)]


def answer(systems: Sequence[PoseResult], num_permutations: int, seed: int) -> Answers:
    """Compare heads with peaks, and gates with none."""
    heads, gates = list(_head_contrasts(systems)), list(_gate_contrasts(systems))
    made = compare_by_question([contrast for *_, contrast in (*heads, *gates)], num_permutations, seed)
    asked = [
        Question(system, policy, source, comparison)
        for (system, policy, source, _), comparison in zip((*heads, *gates), made, strict=True)
    ]
    return Answers(asked[: len(heads)], asked[len(heads) :])


Asked = tuple[str, str, Source, Contrast]


def _head_contrasts(systems: Sequence[PoseResult]) -> Iterator[Asked]:
    for system in systems:
        for policy in (policy for policy, source in system.lines if source == PRESENCE_HEAD):
            for score in COMPARED:
                peak, head = (
                    Side(f"{system.name}, {SOURCES[source]}", system.result, key(policy, source, score))
                    for source in (HEATMAP_PEAK, PRESENCE_HEAD)
                )
                yield (
                    system.name,
                    policy,
                    PRESENCE_HEAD,
                    Contrast(f"{SCORES[score]}, {policy}", peak, head, "heads", system.counts[policy].num_rarer),
                )


def _gate_contrasts(systems: Sequence[PoseResult]) -> Iterator[Asked]:
    for system in systems:
        for policy, source in system.lines:
            said = f"{system.name}, {SOURCES[source]}"
            everything = Side(f"{system.name}, everything emitted", system.result, key(policy, source, EMIT_ALL))
            gated = Side(said, system.result, key(policy, source, GATED))
            yield (
                system.name,
                policy,
                source,
                Contrast(f"{SCORES[GATED]}, {policy}", everything, gated, "gates", system.counts[policy].num_rarer),
            )
