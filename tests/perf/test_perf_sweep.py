"""What a sweep adds to its stages: 60 stale trivial ones, two at once, beside a plain `dvc repro` of the same pipeline.

At most 2 s for each where the pipeline has no others, the last `dvc repro` included; what 200 and 1,000 cost is shown.
A sweep starts DVC for every stage, a plain run once.
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
NUM_STALE = 60


def python_module(root: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_project(root: Path, num_stages: int) -> Path:
    """Stages that depend on one file, as those of this project do on their plan, all but `NUM_STALE` up to date."""
    for folder in (root / "in", root / "out"):
        folder.mkdir(parents=True)
    params = YAML(typ="safe").load((REPO / "params.yaml").read_text())
    params |= {"sweep": {"cpus": 0.5, "gpus": 0, "memory_gb": 0.1}}
    YAML(typ="safe").dump(params, root / "params.yaml")
    (root / "source").write_text("1\n")
    runs = list(range(num_stages - 1))
    work = {
        "matrix": {"run": runs},
        "cmd": "cp plan out/${item.run}",
        "deps": ["plan", "in/${item.run}"],
        "outs": ["out/${item.run}"],
    }
    stages = {"resolve": {"cmd": "cp source plan", "deps": ["source"], "outs": ["plan"]}, "work": work}
    YAML(typ="safe").dump({"stages": stages}, root / "dvc.yaml")
    python_module(root, "dvc", "init", "--no-scm", "--quiet")
    python_module(root, "dvc", "config", "core.analytics", "false")
    for run in runs:
        (root / f"in/{run}").write_text("1\n")
    if num_stages > NUM_STALE:
        shutil.copy(root / "source", root / "plan")
        for run in runs:
            shutil.copy(root / "plan", root / f"out/{run}")
        python_module(root, "dvc", "commit", "--force", "--quiet")
        for run in runs[:NUM_STALE]:
            (root / f"in/{run}").write_text("2\n")
    return root


@pytest.mark.parametrize("num_stages", [NUM_STALE, 200, 1000])
def test_stale_stages(num_stages: int, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    swept, plain = tmp_path / "swept", tmp_path / "plain"
    shutil.copytree(make_project(swept, num_stages), plain)
    taken = seconds(lambda: benchmark.pedantic(python_module, args=(swept, "bench.sweep", "--jobs", "2"), rounds=1))
    beside = seconds(lambda: python_module(plain, "dvc", "repro", "--quiet"))
    assert len(list((swept / "out").iterdir())) == num_stages - 1
    assert "up to date" in python_module(swept, "dvc", "repro")
    what = f"{NUM_STALE} stale trivial stages of {num_stages}"
    limit = 2 if num_stages == NUM_STALE else None
    record_number(benchmark, f"seconds a stage of a sweep, {what}, 2 at once", taken / NUM_STALE, at_most=limit)
    record_ratios(benchmark, f"time of plain `dvc repro` over that of a sweep, {what}", [beside / taken])


pytestmark = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("sh"), reason="for a POSIX shell")
