"""What benchmarks share: a rate for the table, and two ways of doing the same timed side by side."""

import time
from collections.abc import Callable
from statistics import median

from pytest_benchmark.fixture import BenchmarkFixture


def record_rate(benchmark: BenchmarkFixture, unit: str, number: int) -> None:
    """Put `number` things per round into the report as things per second."""
    benchmark.extra_info[f"{unit}_per_s"] = round(number / benchmark.stats.stats.median)
    print(f"\n{benchmark.name}: {benchmark.extra_info[f'{unit}_per_s']} {unit}/s")


def record_ratio(
    benchmark: BenchmarkFixture, what: str, ours: Callable[[], object], other: Callable[[], object]
) -> None:
    """Time both in turns in this process; the report gets the time of `other` over that of `ours`, median of 7."""
    pairs = [(seconds(ours), seconds(other)) for _ in range(7)]
    ratio = median(theirs / mine for mine, theirs in pairs)
    benchmark.extra_info[what] = round(ratio, 2)
    print(f"\n{benchmark.name}: {what} {ratio:.2f}")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
