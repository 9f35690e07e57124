"""What a sweep adds to its stages: trivial ones, two at once, beside a plain `dvc repro` of the same pipeline.

At most 2 s for each of 60 stages, the last `dvc repro` included. A sweep starts DVC for every stage, a plain run once.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from ruamel.yaml import YAML

from tests.perf.rates import record_number, record_ratios, seconds

REPO = Path(__file__).parents[2]
NUM_STAGES = 60


def python_module(root: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_project(root: Path) -> Path:
    """Stages that depend on one file, as those of this project do on their plan."""
    root.mkdir()
    params = YAML(typ="safe").load((REPO / "params.yaml").read_text())
    params |= {"sweep": {"cpus": 0.5, "gpus": 0, "memory_gb": 0.1}}
    YAML(typ="safe").dump(params, root / "params.yaml")
    (root / "source").write_text("1\n")
    work = {
        "matrix": {"run": list(range(NUM_STAGES - 1))},
        "cmd": "mkdir -p out && cp plan out/${item.run}",
        "deps": ["plan"],
        "outs": ["out/${item.run}"],
    }
    stages = {"resolve": {"cmd": "cp source plan", "deps": ["source"], "outs": ["plan"]}, "work": work}
    YAML(typ="safe").dump({"stages": stages}, root / "dvc.yaml")
    python_module(root, "dvc", "init", "--no-scm", "--quiet")
    python_module(root, "dvc", "config", "core.analytics", "false")
    return root


def test_trivial_stages(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    swept, plain = make_project(tmp_path / "swept"), make_project(tmp_path / "plain")
    taken = seconds(lambda: benchmark.pedantic(python_module, args=(swept, "bench.sweep", "--jobs", "2"), rounds=1))
    beside = seconds(lambda: python_module(plain, "dvc", "repro", "--quiet"))
    assert len(list((swept / "out").iterdir())) == NUM_STAGES - 1
    assert "up to date" in python_module(swept, "dvc", "repro")
    record_number(benchmark, "seconds a stage of a sweep, 60 trivial stages, 2 at once", taken / NUM_STAGES, at_most=2)
    record_ratios(benchmark, "time of plain `dvc repro` over that of a sweep, 60 trivial stages", [beside / taken])


pytestmark = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("sh"), reason="for a POSIX shell")
