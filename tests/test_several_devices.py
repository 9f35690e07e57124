"""Processes that share every batch train the same model as one alone; here two on a CPU, through the stage itself."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from bench.resolve import load_grid
from bench.stages import prepare, resolve
from bench.stages.files import RunFiles
from tests.test_parameters import small_tree

REPO = Path(__file__).parents[1]
TWO = {"devices": 2}
RUNS: dict[str, dict[str, Any]] = {
    "alone": {},
    "two": {"train": TWO},
    "two in parts": {"train": TWO | {"accumulate": 2}},
    "shared out": {"train": TWO | {"strategy": "fsdp"}},
    "shared out in parts": {"train": TWO | {"strategy": "fsdp", "accumulate": 2}},
    "learned sum alone": {"loss": {"weighting": "uncertainty"}},
    "learned sum, two": {"loss": {"weighting": "uncertainty"}, "train": TWO},
    "dropping": {"presence_head": {"dropout": 0.5}, "train": TWO},
    "dropping, shared out": {"presence_head": {"dropout": 0.5}, "train": TWO | {"strategy": "fsdp"}},
}
NAMES = {kind: kind.replace(" ", "_").replace(",", "") for kind in RUNS}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without batch statistics, batches of nine, seven persons to validate on: nothing divides evenly."""
    folder = tmp_path_factory.mktemp("workspace")
    tree = small_tree()
    tree["data"]["num_persons"] |= {"train": 27, "calibration": 7}
    tree["base"]["architectures"]["vitpose"] |= {"decoder": "simple"}
    tree["base"]["presence_head"] |= {"dropout": 0.0}
    tree["base"]["train"] |= {"epochs": 2, "batch_size": 9}
    tree["experiments"] = {NAMES[kind]: changes for kind, changes in RUNS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(resolve, "STAGE_MODULES", {})
        YAML(typ="safe").dump(tree, Path("params.yaml"))
        resolve.write_plan(load_grid(Path("params.yaml")))
        prepare.main("p")
    return folder


def command(kind: str) -> list[str]:
    return [sys.executable, "-m", "bench.stages.train", "p", NAMES[kind], "0"]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}


def run(folder: Path, kind: str) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """What one training says of every epoch, and its weights."""
    subprocess.run(command(kind), cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    files = RunFiles("p", NAMES[kind], 0)
    with (folder / files.curves).open() as text:
        curves = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(text)]
    return curves, load_file(folder / files.checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "wanted", "tolerance", "least"),
    [
        ("two", "alone", 2e-6, 1e-7),
        ("two in parts", "alone", 2e-6, 1e-7),
        ("shared out", "alone", 2e-6, 1e-7),
        ("shared out in parts", "alone", 2e-6, 1e-7),
        # Its first step starts at a minimum, where Adam makes a step of full size out of rounding. Its loss is a
        # difference of numbers of size 1, so it may be near 0.
        ("learned sum, two", "learned sum alone", 5e-3, 5e-3),
    ],
)
def test_two_learn_what_one_learns(kind: str, wanted: str, tolerance: float, least: float, workspace: Path) -> None:
    """Up to the order of sums."""
    (curves, weights), (alone, weights_alone) = run(workspace, kind), run(workspace, wanted)
    for ours, theirs in zip(curves, alone, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=least)
    torch.testing.assert_close(weights, weights_alone, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dropping", "dropping, shared out"])
def test_the_same_twice_to_the_bit_and_one_writes(kind: str, workspace: Path) -> None:
    """With dropout, which each process draws for itself; one line of curves an epoch, and nothing left behind."""
    (curves, first), (again, second) = run(workspace, kind), run(workspace, kind)
    assert curves == again
    assert len(curves) == 2
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert not list((workspace / "runs/p/unfinished").glob("*"))
