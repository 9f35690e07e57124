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
from tests.perf.rates import record_number
from tests.reporting import fake_runs

NUM_RUNS = 60
NUM_RESAMPLES = 2000
NUM_PERSONS = 120
FACTORS = ("loss.presence_weight", "presence_head.dropout", "sigma", "optim.lr")
VALUES = np.linspace(0.1, 0.9, (NUM_RUNS - len(fake_runs.SYSTEMS)) // len(FACTORS)).round(3).tolist()
ABLATIONS = tuple(
    (f"{factor.rpartition('.')[2]}_{i}", factor, value, 0.05) for factor in FACTORS for i, value in enumerate(VALUES)
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fake_runs, "ABLATIONS", ABLATIONS)
    monkeypatch.setattr(fake_runs, "RESAMPLING", {"num": NUM_RESAMPLES, "seed": 0})
    fake_runs.make_project(tmp_path, num_persons=NUM_PERSONS, pictured=6, with_presence=True)
    return tmp_path


def write_pages() -> None:
    for stage in (report, presence_report, ablations_report, data_report, runs_report):
        stage.main("demo")


def test_pages_of_sixty_runs(benchmark: BenchmarkFixture, project: Path) -> None:
    plan = json.loads((project / "runs/demo/plan/runs_report.json").read_text())
    assert len(plan["parameters"]) == NUM_RUNS
    benchmark.pedantic(write_pages, rounds=1)
    assert len(list((project / "reports/demo/runs").glob("*/README.md"))) == NUM_RUNS
    record_number(benchmark, "seconds for the pages of 60 runs", benchmark.stats.stats.median, at_most=30)
