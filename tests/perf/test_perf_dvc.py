"""What DVC itself takes where there is nothing to do: this project's stages, for more and more runs.

At most 5 s for 60 stages.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from ruamel.yaml import YAML

from tests.perf.rates import record_number, record_scaling, seconds

SIZES = (10, 60, 200)
WRITE = "import pathlib; out = pathlib.Path('out'); out.mkdir(exist_ok=True); (out / '${item.run}').write_text('done')"


def dvc(root: Path, *arguments: str) -> str:
    folder = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["dvc", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_project(root: Path, num_stages: int) -> None:
    """Stages of a matrix that have run once, each with a file of parameters of its own, as here."""
    root.mkdir()
    names = [f"run_{i}" for i in range(num_stages)]
    for name in names:
        plan = root / "plan" / f"{name}.json"
        plan.parent.mkdir(exist_ok=True)
        plan.write_text(f'{{"run": "{name}"}}')
    stage = {
        "matrix": {"run": "${runs}"},
        "cmd": f'python -c "{WRITE}"',
        "deps": ["plan/${item.run}.json"],
        "outs": ["out/${item.run}"],
    }
    YAML(typ="safe").dump({"runs": names}, root / "params.yaml")
    YAML(typ="safe").dump({"stages": {"run": stage}}, root / "dvc.yaml")
    dvc(root, "init", "--no-scm", "--quiet")
    dvc(root, "config", "core.analytics", "false")
    dvc(root, "repro", "--quiet")


def test_nothing_to_do(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    times = []
    for num_stages in SIZES:
        root = tmp_path / str(num_stages)
        make_project(root, num_stages)
        assert "up to date" in dvc(root, "repro")
        times.append(min(seconds(lambda root=root: dvc(root, "repro")) for _ in range(3)))
    benchmark.pedantic(dvc, args=(tmp_path / "10", "repro"), rounds=1)
    record_scaling(benchmark, "seconds of `dvc repro` with nothing to do", "stages", SIZES, times)
    record_number(benchmark, "seconds with nothing to do, 60 stages", times[SIZES.index(60)], at_most=5)


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stages' command is for a POSIX shell")
