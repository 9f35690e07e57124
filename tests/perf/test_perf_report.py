"""Every page of a profile of 60 runs, from files that the runs left: at most 30 s.

Four systems and 56 ablations; data sets are small, the numbers of resamples and of permutations those of the demo. Not
among the pages: that of the architectures, which reads no run, and those that need more of a run than is made up here.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ablations import report as ablations_report
from bench.stages import data_report, presence_report, report, runs_report
from tests.perf.rates import record_number, record_scaling, seconds
from tests.reporting import fake_runs

SIZES = (12, 28, 60)
NUM_RESAMPLES = 2000
NUM_PERSONS = 120
FACTORS = ("loss.presence_weight", "presence_head.dropout", "sigma", "optim.lr")


def ablations(num_runs: int) -> tuple[tuple[str, str, float, float], ...]:
    """So many that there are `num_runs` with the systems, of four factors in turn."""
    values = np.linspace(0.1, 0.9, (num_runs - len(fake_runs.SYSTEMS)) // len(FACTORS)).round(3).tolist()
    return tuple((f"{f.rpartition('.')[2]}_{i}", f, value, 0.05) for f in FACTORS for i, value in enumerate(values))


def make_project(root: Path, num_runs: int, patch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    patch.setattr(fake_runs, "ABLATIONS", ablations(num_runs))
    patch.setattr(fake_runs, "RESAMPLING", {"num": NUM_RESAMPLES, "seed": 0})
    fake_runs.make_project(root, num_persons=NUM_PERSONS, pictured=6, with_presence=True)
    plan = json.loads((root / "runs/demo/plan/runs_report.json").read_text())
    assert len(plan["parameters"]) == num_runs


def write_pages() -> None:
    for stage in (report, presence_report, ablations_report, data_report, runs_report):
        stage.main("demo")


def test_pages_of_runs(benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    for num_runs in SIZES:
        make_project(tmp_path / str(num_runs), num_runs, monkeypatch)
        monkeypatch.chdir(tmp_path / str(num_runs))
        if num_runs == SIZES[-1]:
            benchmark.pedantic(write_pages, rounds=1)
            times.append(benchmark.stats.stats.median)
        else:
            times.append(seconds(write_pages))
        assert len(list(Path("reports/demo/runs").glob("*/README.md"))) == num_runs
    record_scaling(benchmark, "seconds for all pages", "runs", SIZES, times)
    record_number(benchmark, "seconds for the pages of 60 runs", times[-1], at_most=30)
