"""What stage presence left of every system, its training seeds pooled: numbers, curves, and comparisons of them.

Numbers are named `<policy>/<source>/<rule>/<view>/<metric>`, see `key`. Letters: E training seeds, S data sets,
M numbers, Q systems.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data.parquet import UNREADABLE
from bench.data.predictions import VAL
from bench.data.presence import POLICIES
from bench.errors import UserError
from bench.metrics.bootstrap import Interval, percentile_interval, pool_seeds
from bench.metrics.presence import POOLED
from bench.metrics.presence_study import GLOBAL, LOCALISATION, LOCALISED, RANKED, kendall_tau
from bench.reporting.label_counts import LabelCount, count_labels
from bench.reporting.results import (
    POOLING_SEED,
    Comparison,
    Contrast,
    Result,
    Side,
    Summary,
    check_same_images,
    compare_by_question,
    paired_difference,
    pool_columns,
    summarise,
    trainings,
)
from bench.reporting.rows import Row, by_experiment, run_file

Floats = NDArray[np.float64]

HEAD, PEAK, LOGISTIC = "presence_head", "heatmap_peak", "logistic"
BOX_GEOMETRY, PREVALENCE, ALWAYS = "box_geometry", "prevalence", "always_present"
OWN = {
    HEAD: "presence head",
    PEAK: "heatmap peak",
    "blurred_peak": "blurred peak",
    "mass": "heatmap mass",
    "entropy": "heatmap entropy",
    "peak_gap": "peak gap",
    LOGISTIC: "logistic on heatmap",
}
"""What is read off a system, as pages name it."""
FLOORS = {
    BOX_GEOMETRY: "box geometry (no pixels)",
    PREVALENCE: "prevalence (no image)",
    ALWAYS: "always present",
}
"""What needs no system."""
SOURCES = OWN | FLOORS
TESTED = {"AUROC": RANKED, "F1": GLOBAL}
"""The two numbers that are compared, by the rule behind each."""
BIASED = ("ECE", "ECE_mass", "resolution")
"""Resampling adds to these what chance adds, so no interval of theirs is shown."""
EVERY_SYSTEM = "every system"


class PresenceResult(NamedTuple):
    """One system. `result` has the numbers that come with replicates, `pooled` the same over its seeds; `tables` and
    `curves` have one frame per seed."""

    result: Result
    pooled: dict[str, Summary]
    tables: list[pd.DataFrame]  # E, by the name of the number: value, low, high
    curves: list[pd.DataFrame]  # E
    policies: list[str]  # those that tell present from absent in val, in the order of `POLICIES`
    counts: dict[str, LabelCount]  # by policy, of the first seed

    @property
    def name(self) -> str:
        return self.result.name

    @property
    def num_seeds(self) -> int:
        return len(self.result.rows)

    @property
    def num_resamples(self) -> int:
        return self.result.replicates.shape[1] - 1

    @property
    def main_source(self) -> str:
        """The presence head where there is one, else the heatmap peak."""
        return HEAD if self.has_localisation(HEAD) else PEAK

    def has_source(self, policy: str, source: str) -> bool:
        return self.has(key(policy, source, "AUROC"))

    def has_localisation(self, source: str) -> bool:
        return self.has(key(LOCALISED, source, "Brier", LOCALISATION))

    def has(self, name: str) -> bool:
        return name in self.tables[0].index

    def number(self, name: str) -> Summary:
        """Of one seed, or pooled; a number of one keypoint has no replicates, so with several seeds it is their mean,
        with bounds that span the intervals of all."""
        if name in self.pooled:
            return self.pooled[name]
        if not self.has(name):
            return Summary(None, None, None, None, self.num_seeds)
        found = np.array([table.loc[name, ["value", "low", "high"]].to_numpy(dtype=float) for table in self.tables])
        value, low, high = found[:, 0].mean(), found[:, 1].min(), found[:, 2].max()
        return summarise(Interval(float(value), float(low), float(high)), self.num_seeds)

    def side(self, policy: str, source: str, metric: str, label: str) -> Side:
        """Raises:
        UserError: no replicates of it.
        """
        name = key(policy, source, metric)
        if name not in self.pooled:
            file = run_file(Path(), "presence_replicates", self.name, self.result.row.seed)
            raise UserError(f"{file}: column {name!r} is missing: run `dvc repro presence@{file.stem}`")
        return Side(label, self.result, name)


def key(policy: str, source: str, metric: str, rule: str | None = None, view: str = POOLED) -> str:
    """Name of a number; AUROC and F1 know their usual rule."""
    return f"{policy}/{source}/{rule or TESTED[metric]}/{view}/{metric}"


def load_presence(runs_dir: Path, rows: Sequence[Row]) -> list[PresenceResult]:
    """The systems of the rows, in their order.

    Raises:
        UserError: a file is missing or broken, seeds differ in their numbers, or runs were not tested on the same
            images.
    """
    check_same_images(rows)
    return [_load_system(runs_dir, name, trainings(group)) for name, group in by_experiment(rows).items()]


def _load_system(runs_dir: Path, name: str, rows: list[Row]) -> PresenceResult:
    tables = [_by_name(_read(runs_dir, "presence", row, COLUMNS)) for row in rows]
    curves = [_read(runs_dir, "presence_curves", row, CURVE_COLUMNS) for row in rows]
    first = _read(runs_dir, "presence_replicates", rows[0], ())
    keys = list(first.columns)
    frames = [first, *(_read(runs_dir, "presence_replicates", row, keys)[keys] for row in rows[1:])]
    replicates = [frame.to_numpy(dtype=np.float64) for frame in frames]
    result = Result(name, rows, keys, np.stack(replicates), [], "presence")
    counts = count_labels(run_file(runs_dir, "predictions", name, rows[0].seed), VAL)
    measured = tables[0]["value"].dropna()  # a heatmap always has its peak
    policies = [policy for policy in POLICIES if key(policy, PEAK, "AUROC") in measured.index]
    pooled = pool_columns(keys, result.replicates, result.num_images)
    return PresenceResult(result, pooled, tables, curves, policies, counts)


COLUMNS = ("policy", "source", "rule", "view", "metric", "value", "low", "high")
CURVE_COLUMNS = ("policy", "source", "curve", "x", "y", "low", "high", "number")


def _read(runs_dir: Path, kind: str, row: Row, columns: Sequence[str]) -> pd.DataFrame:
    file = run_file(runs_dir, kind, row.experiment, row.seed)
    again = f"run `dvc repro presence@{row.experiment}-{row.seed}`"
    try:
        frame = pd.read_parquet(file)
    except UNREADABLE as error:
        raise UserError(f"{file}: cannot be read ({str(error).splitlines()[0]}): {again}") from error
    missing = [column for column in columns if column not in frame]
    if missing:
        raise UserError(f"{file}: column {missing[0]!r} is missing: {again}")
    return frame


def _by_name(frame: pd.DataFrame) -> pd.DataFrame:
    names = ["/".join(map(str, parts)) for parts in frame[list(COLUMNS[:5])].itertuples(index=False)]
    return frame.assign(name=names).set_index("name")[["value", "low", "high"]]


def lines_of(systems: Sequence[PresenceResult], policy: str, own: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Name, source and place of the system of every line: its own sources, then the floors, once for all systems where
    all agree on them (they differ where crops do, and a policy reads the crop)."""
    for place, system in enumerate(systems):
        for source in own:
            if system.has_source(policy, source):
                yield system.name, source, place
    for source in FLOORS:
        having = [place for place, system in enumerate(systems) if system.has_source(policy, source)]
        names = [key(policy, source, metric) for metric in TESTED]
        numbers = [tuple(systems[place].number(name)[:3] for name in names) for place in having]
        if having and len(set(numbers)) == 1:
            yield EVERY_SYSTEM, source, having[0]
        else:
            yield from ((systems[place].name, source, place) for place in having)


def difference(first: Side, second: Side) -> Summary:
    """Second minus first, paired, without a test."""
    contrast = Contrast("", first, second, "")
    return summarise(paired_difference(contrast).interval, contrast.num_seeds)


def head_comparisons(systems: Sequence[PresenceResult], num: int, seed: int) -> list[tuple[str, Comparison]]:
    """Policy and comparison: the head minus the heatmap peak, the logistic regression and box geometry, AUROC and F1,
    under every policy. Whether it is above one of these is one question, to all systems and policies."""
    contrasts: list[tuple[str, Contrast]] = []
    for system in systems:
        for policy in system.policies:
            if system.has_source(policy, HEAD):
                for other in (name for name in (PEAK, LOGISTIC, BOX_GEOMETRY) if system.has_source(policy, name)):
                    contrasts += [(policy, _contrast(system, policy, other, metric)) for metric in TESTED]
    made = compare_by_question([contrast for _, contrast in contrasts], num, seed)
    return [(policy, comparison) for (policy, _), comparison in zip(contrasts, made, strict=True)]


def _contrast(system: PresenceResult, policy: str, other: str, metric: str) -> Contrast:
    first, second = (
        system.side(policy, source, metric, f"{system.name}, {SOURCES[source]}") for source in (other, HEAD)
    )
    return Contrast(f"{metric}, {policy}", first, second, other, system.counts[policy].num_rarer)


def rank_agreement(systems: Sequence[PresenceResult], metric: str, first: str, second: str) -> Summary:
    """Kendall's tau between the rankings of systems (by their main sources) under two policies."""
    num_seeds = max(system.num_seeds for system in systems)
    if len(systems) < 2:
        return Summary(None, None, None, None, num_seeds)
    tau = kendall_tau(*(np.stack([_column(s, policy, metric) for s in systems], axis=1) for policy in (first, second)))
    return summarise(percentile_interval(float(tau[0]), tau[1:], systems[0].result.num_images), num_seeds)


def _column(system: PresenceResult, policy: str, metric: str) -> Floats:
    """(S,), seeds pooled."""
    column = system.side(policy, system.main_source, metric, "").column
    return pool_seeds(column, np.random.default_rng(POOLING_SEED))[:, 0]
