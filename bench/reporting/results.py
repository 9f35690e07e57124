"""From rows to results: one per experiment, its training seeds pooled, and paired comparisons of them.

Letters: E training seeds, S data sets (the whole val split, then B resamples of its images), M metrics.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data.arrays import read_arrays, write_arrays
from bench.data.parquet import UNREADABLE, write_parquet
from bench.errors import UserError
from bench.metrics.average_precision import mix
from bench.metrics.bootstrap import (
    MIN_IMAGES,
    MIN_KEYPOINTS,
    Difference,
    Interval,
    compare,
    correct,
    p_values,
    percentile_interval,
    percentile_intervals,
    pool_seeds,
)
from bench.metrics.many_sets import ManySets
from bench.metrics.oks import Matches
from bench.reporting.parallel import map_on_cores
from bench.reporting.rows import PRESENCE_KEYS, Row, by_experiment, load_rows, oks, run_file

Floats = NDArray[np.float64]
Values = Mapping[str, Floats]  # name of a number -> (S,)
NOT_CLEAR = "not clearly different"
LEVEL = 0.05  # of tests; 1 - CONFIDENCE but for its rounding
POOLING_SEED = 0  # of the draws of training seeds; every result draws alike, so that differences stay paired


class Summary(NamedTuple):
    """One number of a result with its 95 % interval, over images and, with several training seeds, over those too;
    `sd` is the standard deviation over seeds (n - 1), None for one. All but the last are None where undefined."""

    value: float | None
    low: float | None
    high: float | None
    sd: float | None
    num_seeds: int


class Result(NamedTuple):
    """An experiment's rows, one per training seed, and its numbers in every data set."""

    name: str
    rows: list[Row]
    keys: list[str]  # M
    replicates: Floats  # (E, S, M)
    matches_files: list[Path]  # E
    stage: str = "evaluate"  # that writes all of these
    drawn_images: int | None = None  # of which the numbers are, where these are fewer than those of the split

    @property
    def num_images(self) -> int:
        return self.drawn_images or self.row.data.num_images

    @property
    def row(self) -> Row:
        """For what is the same for all seeds."""
        return self.rows[0]

    def number(self, key: str) -> Summary:
        """One number; undefined (None) as soon as it is so for one seed, or where the result does not have it."""
        if key not in self.keys:
            return Summary(None, None, None, None, len(self.rows))
        if len(self.rows) == 1:
            estimate = self.row.numbers[key]
            return Summary(estimate.value, estimate.low, estimate.high, None, 1)
        return self.pooled(key)

    def pooled(self, key: str) -> Summary:
        """The same from the replicates alone, which hold `key`."""
        column, num_seeds = self.replicates[:, :, [self.keys.index(key)]], len(self.rows)
        if np.isnan(column[:, 0]).any():
            return Summary(None, None, None, None, num_seeds)
        pooled = pool_seeds(column, np.random.default_rng(POOLING_SEED))[:, 0]
        sd = float(column[:, 0, 0].std(ddof=1)) if num_seeds > 1 else None
        return summarise(percentile_interval(float(pooled[0]), pooled[1:], self.num_images), num_seeds, sd)


def summarise(interval: Interval, num_seeds: int, sd: float | None = None) -> Summary:
    """An interval as tables take it, with None for NaN."""
    value, low, high = (None if np.isnan(number) else number for number in interval)
    return Summary(value, low, high, sd, num_seeds)


def pool_numbers(by_seed: Sequence[Values], num_images: int) -> dict[str, Summary]:
    """The numbers of all training seeds together, with percentile intervals."""
    keys = list(by_seed[0])
    values = np.stack([np.stack([seed[key] for key in keys], axis=1) for seed in by_seed])
    return pool_columns(keys, values, num_images)


def pool_columns(keys: Sequence[str], values: Floats, num_images: int) -> dict[str, Summary]:
    """The same from the numbers' values (E, S, M)."""
    pooled = np.ascontiguousarray(pool_seeds(values, np.random.default_rng(POOLING_SEED)).T)  # (M, S)
    intervals = percentile_intervals(pooled[:, 0], pooled[:, 1:], num_images)
    return {key: summarise(interval, len(values)) for key, interval in zip(keys, intervals, strict=True)}


def load_results(runs_dir: Path, names: Sequence[str], seeds: Sequence[int], stage: str = "evaluate") -> list[Result]:
    """The results of the declared grid, in its order.

    Raises:
        UserError: a row or its replicates are missing or broken, or runs were not tested on the same images.
    """
    rows = load_rows(runs_dir, names, seeds, stage)
    check_same_images(rows)
    return [_load_result(runs_dir, name, trainings(group), stage) for name, group in by_experiment(rows).items()]


def check_same_images(rows: Sequence[Row]) -> None:
    """Raises:
    UserError: rows of different images or draws, which cannot be paired.
    """
    for row in rows:
        for what, found, wanted in (
            ("data", row.data.sha256, rows[0].data.sha256),
            ("intervals", row.protocol.intervals, rows[0].protocol.intervals),
        ):
            if found != wanted:
                raise UserError(
                    f"{row.experiment}-{row.seed}: {what}: found {found}, wanted {wanted} as of "
                    f"{rows[0].experiment}-{rows[0].seed}: run `dvc repro`"
                )


def trainings(rows: list[Row]) -> list[Row]:
    """But for the repetitions of a published model: no seed enters that."""
    return rows[:1] if all(row.best_epoch == 0 for row in rows) else rows


def _load_result(runs_dir: Path, name: str, rows: list[Row], stage: str) -> Result:
    keys = list(rows[0].numbers)
    tables = [read_replicates(run_file(runs_dir, "replicates", name, row.seed), row, keys, stage) for row in rows]
    matches_files = [run_file(runs_dir, "matches", name, row.seed) for row in rows]
    return Result(name, rows, keys, np.stack(tables), matches_files, stage)


def read_replicates(file: Path, row: Row, keys: Sequence[str], stage: str) -> Floats:
    """Some numbers of a row in every data set, (S, M).

    Raises:
        UserError: the file is missing or broken, or a number is missing.
    """
    again = f"run `dvc repro {stage}@{row.experiment}-{row.seed}`"
    try:
        frame = pd.read_parquet(file)
    except UNREADABLE as error:
        raise UserError(f"{file}: no readable replicates ({str(error).splitlines()[0]}): {again}") from error
    missing = [key for key in keys if key not in frame]
    if missing:
        raise UserError(f"{file}: column {missing[0]!r} is missing, wanted all numbers of the row: {again}")
    return frame[list(keys)].to_numpy(dtype=np.float64)


def write_replicates(file: Path, keys: Sequence[str], values: Floats) -> None:
    """A column per number (S, M); whole or not at all."""
    write_parquet(file, pd.DataFrame(values, columns=list(keys)))


def write_matches(file: Path, matches: Matches) -> None:
    """The matches behind a row's OKS numbers; whole or not at all."""
    write_arrays(file, matches._asdict())


def read_matches(file: Path, stage: str = "evaluate") -> Matches:
    """Raises:
    UserError: missing or broken.
    """
    return Matches(**read_arrays(file, Matches._fields, "matches", stage))


class Side(NamedTuple):
    """One side of a comparison: a number of a result, under the name that tables give it."""

    name: str
    result: Result
    key: str

    @property
    def column(self) -> Floats:
        """(E, S, 1)."""
        return self.result.replicates[:, :, [self.result.keys.index(self.key)]]


class Contrast(NamedTuple):
    """What is compared: `label` names the number, `question` what a reader asks: p-values are corrected for all
    contrasts that answer the same one. `num_rarer` is how many keypoints the rarer class has, absent or present; None
    for a number that does not tell them apart."""

    label: str
    first: Side
    second: Side
    question: str
    num_rarer: int | None = None

    @property
    def stat(self) -> str | None:
        """Which of COCO's numbers is compared, under the protocol of both rows; None for any other number."""
        name = self.first.key.removeprefix(oks(""))
        return name if self.first.key == self.second.key == oks(name) else None

    @property
    def num_seeds(self) -> int:
        return max(len(self.first.result.rows), len(self.second.result.rows))

    @property
    def test(self) -> str:
        """Poses can be traded between two trained models; presence scores of two have no common scale, and a trade of
        images knows nothing of the luck of a training."""
        return "permutation" if self.stat is not None and self.num_seeds == 1 else "bootstrap"


def rarer_of(key: str, result: Result) -> int | None:
    """Keypoints of the rarer class that a number of a row stands on; None where it is none of presence."""
    data = result.row.data
    return min(data.num_absent, data.num_present) if key.startswith(PRESENCE_KEYS) else None


class Comparison(NamedTuple):
    """Second minus first. `p_corrected` is corrected for all comparisons that answer the same question; it is None, as
    p is, where nothing was tested."""

    first: str
    second: str
    label: str
    difference: Summary
    p: float | None
    p_corrected: float | None
    detectable: float | None
    test: str
    num_images: int
    is_scarce: bool = False  # one of the two classes has too few keypoints to judge by

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than chance: its interval leaves out 0, and so does its corrected p-value. A
        permutation of images knows nothing of another training; the interval over seeds does."""
        low, high = self.difference.low, self.difference.high
        if self.p_corrected is None or low is None or high is None or self.is_scarce or self.num_images < MIN_IMAGES:
            return False
        return self.p_corrected < LEVEL and (low > 0 or high < 0)

    @property
    def verdict(self) -> str:
        """In words: better or worse only where it is clear, and else why not."""
        if self.is_clear:
            return "better" if (self.difference.value or 0.0) > 0 else "worse"
        if self.is_unchanged:
            return "unchanged"
        if self.num_images < MIN_IMAGES:
            return f"too few images (n < {MIN_IMAGES})"
        return f"too few absent or present keypoints (n < {MIN_KEYPOINTS})" if self.is_scarce else NOT_CLEAR

    @property
    def is_unchanged(self) -> bool:
        """Whether it is 0 by construction, whatever the images."""
        return self.p is None and self.difference[:3] == (0, 0, 0)


class Tested(NamedTuple):
    """A contrast's difference with its interval, and what its test compares."""

    difference: Difference
    observed: float  # NaN where nothing can be tested
    null: Floats  # (B,)

    @classmethod
    def of(cls, difference: Difference, observed: float, null: Floats) -> "Tested":
        return cls(difference, observed if difference.is_tested else np.nan, null)


def compare_by_question(contrasts: Sequence[Contrast], num_permutations: int, seed: int) -> list[Comparison]:
    """Paired comparisons; those with one question are corrected together.

    OKS numbers of one training each are tested by a permutation of images between the two, from their stored matches;
    the others by the bootstrap (`Contrast.test`).
    """
    tested = _test(contrasts, num_permutations, seed)
    groups: dict[str, list[int]] = {}
    for i, contrast in enumerate(contrasts):
        groups.setdefault(contrast.question, []).append(i)
    found: dict[int, Comparison] = {}
    for places in groups.values():
        made = _answer([contrasts[i] for i in places], [tested[i] for i in places])
        found |= dict(zip(places, made, strict=True))
    return [found[i] for i in range(len(contrasts))]


def _answer(contrasts: Sequence[Contrast], tested: Sequence[Tested]) -> list[Comparison]:
    """The comparisons of one question. Draws of the shorter test are taken again where two tests differ in number; that
    makes no p-value smaller, as the corrected one is at least the other."""
    num_images = contrasts[0].first.result.num_images
    observed = np.array([one.observed for one in tested])
    pairs = zip(observed, tested, strict=True)
    p = np.array([p_values(np.array([x]), one.null[:, None], num_images)[0] for x, one in pairs])
    num_draws = max(len(one.null) for one in tested)
    corrected = correct(observed, np.stack([np.resize(one.null, num_draws) for one in tested], axis=1), p)
    return [
        _comparison(contrast, one.difference, *both)
        for contrast, one, *both in zip(contrasts, tested, p, corrected, strict=True)
    ]


def _test(contrasts: Sequence[Contrast], num_permutations: int, seed: int) -> list[Tested]:
    differences = [paired_difference(contrast) for contrast in contrasts]
    tested = [Tested.of(found, found.interval.value, found.null) for found in differences]
    together = _permuted_together(contrasts)
    trades = []
    for places in together:
        first, second = contrasts[places[0]].first.result, contrasts[places[0]].second.result
        trades.append(Trade.of(first, second, [str(contrasts[i].stat) for i in places], num_permutations, seed))
    for places, nulls in zip(together, map_on_cores(permuted_differences, trades), strict=True):
        for i, null in zip(places, nulls.T, strict=True):
            tested[i] = Tested.of(differences[i], float(null[0]), null[1:])
    return tested


def _permuted_together(contrasts: Sequence[Contrast]) -> list[list[int]]:
    """Places of the contrasts that are tested by permutation, those of the same two results together."""
    pairs: dict[tuple[str, str], list[int]] = {}
    for i, contrast in enumerate(contrasts):
        if contrast.test == "permutation":
            pairs.setdefault((contrast.first.result.name, contrast.second.result.name), []).append(i)
    return list(pairs.values())


def _comparison(contrast: Contrast, difference: Difference, p: float, p_corrected: float) -> Comparison:
    p_or_none, corrected_or_none, detectable = (
        None if np.isnan(number) else float(number) for number in (p, p_corrected, difference.detectable)
    )
    return Comparison(
        contrast.first.name,
        contrast.second.name,
        contrast.label,
        summarise(difference.interval, contrast.num_seeds),
        p_or_none,
        corrected_or_none,
        detectable,
        contrast.test,
        contrast.first.result.num_images,
        contrast.num_rarer is not None and contrast.num_rarer < MIN_KEYPOINTS,
    )


def paired_difference(contrast: Contrast) -> Difference:
    """On the same images, draw by draw and seed by seed."""
    differences = contrast.second.column - contrast.first.column
    pooled = pool_seeds(differences, np.random.default_rng(POOLING_SEED))[:, 0]
    return compare(np.zeros_like(pooled), pooled, contrast.first.result.num_images)


class Trade(NamedTuple):
    """A permutation test of two trained models: some of `STATS`, from the files of their matches, each with the stage
    that writes it."""

    matches: Sequence[tuple[Path, str]]  # of the first, of the second
    stats: Sequence[str]
    num_images: int
    num_permutations: int
    seed: int

    @classmethod
    def of(cls, first: Result, second: Result, stats: Sequence[str], num_permutations: int, seed: int) -> "Trade":
        """Of results of one training seed each."""
        matches = [(result.matches_files[0], result.stage) for result in (first, second)]
        return cls(matches, stats, first.row.data.num_images, num_permutations, seed)


def permuted_differences(trade: Trade) -> Floats:
    """The numbers' differences (1 + B, M): as they are, then where the two models trade images by coin."""
    mixed = ManySets(mix(*(read_matches(*file) for file in trade.matches)))
    coins = np.random.default_rng(trade.seed).integers(2, size=(trade.num_permutations, trade.num_images))
    coins = np.concatenate([np.zeros_like(coins[:1]), coins])
    traded, kept = (
        mixed.stats_of_sets(trade.stats, np.hstack(sides)) for sides in ([coins, 1 - coins], [1 - coins, coins])
    )
    return np.asarray(traded - kept)
