"""The pipeline as DVC runs it, in a temporary copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.stages.resolve import UNCHANGED

REPO = Path(__file__).parents[1]
COPIED = ("bench", "models", "ablations", "dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore")
YAML_SAFE = YAML(typ="safe")
Tree = dict[str, Any]

# Stands for a stage that is not real: its outputs are digests of its dependencies, and it notes that it ran.
FAKE_STAGE = """
import hashlib, sys
from pathlib import Path
stage, *paths = sys.argv[1:]
outs, deps = paths[:paths.index("--")], paths[paths.index("--") + 1:]
found = [file for dep in map(Path, deps) for file in (sorted(dep.rglob("*")) if dep.is_dir() else [dep])]
content = b"".join(file.read_bytes() for file in found if file.is_file() and file.suffix != ".pyc")
digest = hashlib.sha256(content).hexdigest()
for out in map(Path, outs):
    for file in [out] if out.suffix else [out / f"{name}.json" for name in ("train", "calibration", "val")]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(digest)
with open("ran.log", "a") as log:
    log.write(stage + "\\n")
"""

# They are committed, not cached, so they are made anew where all else comes back from DVC's run cache.
PAGES = {
    "report", "errors", "presence_report", "pose_scores_report", "stress_report", "dependency_report", "ablations",
    "runs_report", "cards", "site",
}  # fmt: skip

SMALL_GRID = {
    "seeds": [0],
    "experiments": {
        "vitpose_presence": {"model": "vitpose", "presence_head": {"type": "mlp"}},
        "hrnet": {"model": "hrnet"},
    },
    "ablations": {
        "sigma_6": {"of": "hrnet", "sigma": 6.0},
    },
    "retests": [{"name": "no_flip", "of": "hrnet", "test": {"flip_test": False}}],
}


class Project:
    """A copy of the project, and what DVC does in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            source = REPO / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, root / name)
        (root / "reports").mkdir()
        self.dvc("init", "--no-scm", "--quiet")
        self.dvc("config", "core.analytics", "false")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        folder = Path(sys.executable).parent
        environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=500
        )

    def dvc(self, *arguments: str) -> str:
        done = self.run("dvc", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def edit(self, change: Callable[[Tree], None]) -> None:
        file = self.root / "params.yaml"
        tree = YAML_SAFE.load(file.read_text())
        change(tree)
        YAML_SAFE.dump(tree, file)

    def repro(self) -> set[str]:
        """Stages that ran, but for `resolve`, which checks every edit and is restored where it has seen one before."""
        log = self.root / "ran.log"
        log.unlink(missing_ok=True)
        self.dvc("repro")
        return set(log.read_text().split()) if log.exists() else set()


def fake_stages(root: Path, real: Collection[str] = ("resolve",)) -> None:
    (root / "fake_stage.py").write_text(FAKE_STAGE)
    tree = YAML_SAFE.load((root / "dvc.yaml").read_text())
    for name, stage in tree["stages"].items():
        if name in ("warmstart", *real):
            continue
        outs = [next(iter(out)) if isinstance(out, dict) else out for out in [*stage["outs"], *stage.get("plots", [])]]
        run = "item.run.name" if name.endswith("_retest") else "item.run"
        full_name = f"{name}@${{{run}}}-${{item.seed}}" if "matrix" in stage else name
        stage["cmd"] = " ".join(["python fake_stage.py", full_name, *outs, "--", *stage["deps"]])
    YAML_SAFE.dump(tree, root / "dvc.yaml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two systems, one ablation, one seed; everything has run once."""
    project = Project(tmp_path_factory.mktemp("project"))
    fake_stages(project.root)
    project.edit(lambda tree: tree.update(SMALL_GRID))
    project.repro()
    return project


def run_stages(*names: str, kind: str = "") -> set[str]:
    """Of systems, or of ablations, which are neither stressed nor studied and have no card."""
    studied = () if kind else ("stress", "dependency", "presence", "pose_scores", "card")
    stages = ("train", "predict", "evaluate", *studied)
    return {f"{stage}{kind}@{name}" for name in names for stage in stages}


RETEST = {"predict_retest@no_flip-0", "evaluate_retest@no_flip-0"}


def test_again_there_is_nothing_to_do(project: Project) -> None:
    assert project.repro() == set()
    assert UNCHANGED in project.dvc("repro")


def test_adding_editing_and_removing_an_ablation(project: Project) -> None:
    entry = {"of": "vitpose_presence", "loss": {"presence_weight": 0.5}}
    project.edit(lambda tree: tree["ablations"].update(extra=entry))
    own = run_stages("extra-0", kind="_ablation")
    assert project.repro() == PAGES | own
    project.edit(lambda tree: tree["ablations"]["extra"]["loss"].update(presence_weight=0.25))
    assert project.repro() == PAGES | own
    project.edit(lambda tree: tree["ablations"].pop("extra"))
    assert project.repro() == {"ablations", "runs_report", "site"}  # the systems' rows are as they were


def test_a_retest_never_retrains(project: Project) -> None:
    entry = {"name": "half", "of": "vitpose_presence", "evaluate": {"threshold": 0.5}}
    project.edit(lambda tree: tree["retests"].append(entry))
    assert project.repro() == PAGES | {"predict_retest@half-0", "evaluate_retest@half-0"}
    project.edit(lambda tree: tree["retests"].pop())
    assert project.repro() == {"ablations", "site"}


def test_editing_an_experiment_reruns_its_ablations_too(project: Project) -> None:
    project.edit(lambda tree: tree["experiments"]["hrnet"].update(bbox_padding=1.5))
    wanted = run_stages("hrnet-0") | run_stages("sigma_6-0", kind="_ablation")
    floors = {"floors", "presence@vitpose_presence-0"}  # they read the window of the first system, by name here
    assert project.repro() == PAGES | wanted | floors | RETEST
    project.edit(lambda tree: tree["experiments"]["hrnet"].pop("bbox_padding"))
    assert project.repro() <= PAGES  # the rest comes back from the run cache


def test_a_new_seed_runs_only_itself(project: Project) -> None:
    project.edit(lambda tree: tree.update(seeds=[0, 1]))
    wanted = run_stages("vitpose_presence-1", "hrnet-1") | run_stages("sigma_6-1", kind="_ablation")
    assert project.repro() == PAGES | wanted | {stage.replace("-0", "-1") for stage in RETEST}
    project.edit(lambda tree: tree.update(seeds=[0]))
    assert project.repro() <= PAGES


def test_a_threshold_never_retrains(project: Project) -> None:
    project.edit(lambda tree: tree["evaluate"].update(threshold=0.5))
    systems = {
        f"{stage}@{name}-0"
        for stage in ("evaluate", "pose_scores", "card")  # presence studies every rule for thresholds
        for name in ("vitpose_presence", "hrnet")
    }
    wanted = systems | {"evaluate_ablation@sigma_6-0", "evaluate_retest@no_flip-0"}
    assert project.repro() == PAGES | wanted
    project.edit(lambda tree: tree["evaluate"].update(threshold="max_f1"))
    assert project.repro() <= PAGES


def test_test_time_parameters_never_retrain(project: Project) -> None:
    project.edit(lambda tree: tree["test"].update(flip_test=False) or tree["retests"][0]["test"].update(flip_test=True))
    ran = project.repro()
    assert not [stage for stage in ran if stage.startswith("train")]
    assert {"predict@hrnet-0", "evaluate@hrnet-0", "report"} <= ran
    project.edit(lambda tree: tree["test"].update(flip_test=True) or tree["retests"][0]["test"].update(flip_test=False))
    assert project.repro() <= PAGES


def test_another_profile_runs_beside_the_first(project: Project) -> None:
    project.edit(lambda tree: tree.update(profile="full"))
    ran = project.repro()
    assert {"prepare", "train@hrnet-0", "train_ablation@sigma_6-0", "report"} <= ran
    assert (project.root / "runs/demo/rows/hrnet-0.json").exists()
    project.edit(lambda tree: tree.update(profile="demo"))
    assert project.repro() <= PAGES | {
        "architectures",
        "data_report",
    }  # what a stage last did, DVC knows of one profile


def test_a_profile_at_rest_reruns_nothing(project: Project) -> None:
    project.edit(lambda tree: tree["profiles"]["full"].update(base={"sigma": 9.0}))
    assert project.repro() == set()


def test_a_harder_stress_test_reruns_nothing_else(project: Project) -> None:
    project.edit(lambda tree: tree["profiles"]["demo"]["stress"].update(kept=[1.0, 0.2]))
    assert project.repro() == {"stress@vitpose_presence-0", "stress@hrnet-0", "stress_report", "site"}
    project.edit(lambda tree: tree["profiles"]["demo"]["stress"].update(kept=[1.0, 0.7, 0.5, 0.3]))
    assert project.repro() <= PAGES


def test_no_ablations_at_all(project: Project) -> None:
    before = YAML_SAFE.load((project.root / "params.yaml").read_text())["ablations"]
    project.edit(lambda tree: tree.update(ablations={}))
    assert project.repro() == {"ablations", "runs_report", "site"}
    project.edit(lambda tree: tree.update(ablations=before))
    assert project.repro() <= PAGES


def test_a_typo_stops_before_any_work(project: Project) -> None:
    before = (project.root / "params.yaml").read_text()
    project.edit(lambda tree: tree["base"]["optim"].update(lrr=1.0))
    done = project.run("dvc", "repro")
    assert done.returncode != 0
    assert "error: params.yaml: base.optim.lrr: unknown key 'lrr'" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Running stage 'prepare'" not in done.stdout
    (project.root / "params.yaml").write_text(before)
    assert project.repro() == set()


@pytest.mark.slow
def test_the_real_stages_from_nothing_to_reports(tmp_path: Path) -> None:
    """Microscopic models on a few drawn people, through every stage."""
    project = Project(tmp_path)

    def shrink(tree: Tree) -> None:
        tree["experiments"] = {"vitpose_presence": {"model": "vitpose", "presence_head": {"type": "mlp"}}}
        tree["ablations"] = {"dropout_0": {"of": "vitpose_presence", "presence_head": {"dropout": 0.0}}}
        demo = tree["profiles"]["demo"]
        demo["data"]["num_persons"] = {"train": 32, "calibration": 12, "val": 16}
        demo["base"]["train"] = {"epochs": 1, "batch_size": 8, "num_workers": 0}
        demo["base"]["architectures"]["vitpose"] |= {"embed_dim": 16, "depth": 1, "init": "random"}

    project.edit(shrink)
    output = project.dvc("repro")
    assert output.count("Running stage") == 26 + 2 * 4  # retests
    row = json.loads((project.root / "runs/demo/rows/vitpose_presence-0.json").read_text())
    assert row["data"]["num_persons"] == 16
    assert set(row["thresholds"]) == {"presence_head", "heatmap_peak", "always_present"}
    for page in (
        "README.md",
        "demo/systems/README.md",
        "demo/errors/README.md",
        "demo/presence/README.md",
        "demo/pose_scores/README.md",
        "demo/truncation/README.md",
        "demo/ablations/README.md",
        "demo/data/README.md",
        "demo/runs/README.md",
        "demo/cards/README.md",
        "demo/cards/vitpose_presence-0/README.md",
    ):
        assert (project.root / "reports" / page).read_text().startswith("# ")
    for page in ("index.html", "demo/html/presence.html", "demo/html/runs/vitpose_presence-0.html"):
        assert (project.root / "reports" / page).read_text().startswith("<!doctype html>")
    again = project.dvc("repro")
    assert UNCHANGED in again
    assert re.findall(r"Running stage '(.+)'", again) == ["resolve"]
