"""What benchmarks share: rates, ratios and scaling for the table; `bench.performance` makes a page of them."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

NUM_PAIRS = 7


def record_rate(benchmark: BenchmarkFixture, unit: str, number: int) -> None:
    """Put `number` things per round into the report as things per second."""
    rate = round(number / benchmark.stats.stats.median)
    benchmark.extra_info.setdefault("rates", {})[unit] = rate
    print(f"\n{benchmark.name}: {rate} {unit}/s")


def record_ratio(
    benchmark: BenchmarkFixture,
    what: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Time both in turns in this process; the report gets the time of `other` over that of `ours`."""
    pairs = [(seconds(ours), seconds(other)) for _ in range(NUM_PAIRS)]
    record_ratios(benchmark, what, [theirs / mine for mine, theirs in pairs], at_least=at_least, at_most=at_most)


def record_ratios(
    benchmark: BenchmarkFixture,
    what: str,
    ratios: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Put ratios that were taken side by side into the report: their median, lowest and highest; and hold the median
    to its bar."""
    found = {"median": median(ratios), "low": min(ratios), "high": max(ratios), "n": len(ratios)}
    bar = {"at_least": at_least, "at_most": at_most}
    benchmark.extra_info.setdefault("ratios", {})[what] = found | bar
    print(f"\n{benchmark.name}: {what} {found['median']:.2f}")
    assert at_least is None or found["median"] >= at_least, f"{what}: {found['median']:.2f}, wanted {at_least} or more"
    assert at_most is None or found["median"] <= at_most, f"{what}: {found['median']:.3f}, wanted {at_most} or less"


def record_scaling(
    benchmark: BenchmarkFixture, what: str, against: str, sizes: Sequence[int], found: Sequence[float]
) -> float:
    """Put a curve of what `what` names into the report; returns the exponent e of the fitted c * size^e."""
    exponent = float(np.polyfit(np.log(sizes), np.log(found), 1)[0])
    curve = {"against": against, "sizes": list(sizes), "found": list(found), "exponent": exponent}
    benchmark.extra_info.setdefault("scaling", {})[what] = curve
    print(f"\n{benchmark.name}: {what} grows with {against}^{exponent:.2f}")
    return exponent


def record_number(benchmark: BenchmarkFixture, what: str, number: float, *, at_most: float | None = None) -> None:
    """Put a number into the report, and hold it to its bar."""
    benchmark.extra_info.setdefault("numbers", {})[what] = {"value": number, "at_most": at_most}
    print(f"\n{benchmark.name}: {what} {number:.3g}")
    assert at_most is None or number <= at_most, f"{what}: {number:.3g}, wanted {at_most} or less"


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
