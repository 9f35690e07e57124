"""The shape of the project: which package may import which, and that each stage is stale when its code changes."""

import ast
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from ruamel.yaml import YAML

import ablations
import bench
import models
from bench.stages.code import PACKAGES, STAGE_MODULES, import_closure, imported_modules, sha256_of_stage

REPO = Path(__file__).parents[1]
SOURCES = [file for package in PACKAGES for file in sorted((REPO / package).rglob("*.py"))]

# Which of our modules each part may import; a part may always import itself.
ALLOWED = {
    "models": set(),
    "bench.data.download": {"bench.errors", "bench.writing", "bench.data", "bench.stages.command"},  # a command
    "bench.data": {"bench.errors", "bench.writing"},
    "bench.metrics": {"bench.errors", "bench.data"},
    "bench.inference": {"models", "bench.errors", "bench.data", "bench.metrics"},
    "bench.training": {"models", "bench.errors", "bench.writing", "bench.data", "bench.metrics", "bench.inference"},
    "bench.reporting": {
        "bench.errors",
        "bench.machine",
        "bench.writing",
        "bench.data",
        "bench.metrics",
        "bench.published",
        "bench.inference.scoring",
    },
    "bench.sweep": {
        "bench.errors",
        "bench.git",
        "bench.machine",
        "bench.config",
        "bench.resolve",
        "bench.stages.command",
        "bench.stages.files",
    },
    "bench.stages": {"models", "bench"},
    "ablations": {"bench"},
}


def part_of(module: str) -> str:
    return next((part for part in ALLOWED if module == part or module.startswith(part + ".")), module)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(REPO).as_posix())
def test_arrows(file: Path) -> None:
    module = ".".join(file.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
    part = part_of(module)
    if part not in ALLOWED:
        return
    for name in imported_modules(file):
        allowed = ALLOWED[part] | {part}
        assert any(name == target or name.startswith(target + ".") for target in allowed), f"{module} imports {name}"


def stages() -> dict[str, dict]:
    return YAML(typ="safe").load((REPO / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("stage", sorted(stages().keys() - {"resolve", "warmstart"}))
def test_every_stage_depends_on_the_code_of_its_command(stage: str) -> None:
    definition, name = stages()[stage], stage.removesuffix("_ablation").removesuffix("_retest")
    assert definition["cmd"].split()[:3] == ["python", "-m", STAGE_MODULES[name]]
    assert f"runs/${{profile}}/plan/code.{name}.json" in definition["deps"]


def test_resolve_sees_every_edit_of_code() -> None:
    assert stages()["resolve"]["always_changed"] is True


class Copied(NamedTuple):
    """Our code elsewhere, with the digest of what each stage imports of it."""

    root: Path
    digests: dict[str, str]


def digests(root: Path) -> dict[str, str]:
    return {stage: sha256_of_stage(stage, root) for stage in STAGE_MODULES}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Copied:
    root = tmp_path_factory.mktemp("copied")
    for package in PACKAGES:
        shutil.copytree(REPO / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "warmstart"))
    return Copied(root, digests(root))


PAGES = {
    "report", "errors", "presence_report", "pose_scores_report", "stress_report", "dependency_report", "ablations",
    "data_report", "runs_report", "cards", "site",
}  # fmt: skip
WITH_TABLES = PAGES - {"site"} | {"architectures"}
EVERY_PAGE = WITH_TABLES | {"site"}


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        # Rows are named by its metrics.
        ("bench/metrics/presence.py", {"evaluate", "presence", "pose_scores", "card"} | EVERY_PAGE),
        ("bench/metrics/bootstrap.py", {"evaluate", "presence", "pose_scores", "card"} | EVERY_PAGE),
        (
            "bench/metrics/oks.py",
            {"train", "evaluate", "presence", "pose_scores", "stress", "dependency", "card"} | EVERY_PAGE,
        ),  # the best epoch is that of the highest AP
        ("bench/metrics/strata.py", {"errors"}),
        ("bench/metrics/faithfulness.py", {"dependency", "dependency_report"}),
        ("bench/reporting/dependency.py", {"dependency_report"}),
        ("models/attention.py", {"dependency"}),
        ("bench/metrics/presence_study.py", {"presence", "presence_report", "site"}),
        ("bench/reporting/presence_page.py", {"presence_report"}),
        ("bench/metrics/pose_scores.py", {"pose_scores"}),
        ("bench/reporting/pose_page.py", {"pose_scores_report"}),
        ("bench/inference/scoring.py", {"train", "evaluate", "pose_scores"} | WITH_TABLES),
        ("bench/inference/nms.py", {"evaluate", "errors", "pose_scores"}),
        ("bench/data/detections.py", {"prepare", "predict", "dependency"}),
        (
            "bench/data/predictions.py",
            {
                "predict",
                "evaluate",
                "report",
                "errors",
                "presence",
                "presence_report",
                "pose_scores",
                "pose_scores_report",
                "floors",
                "card",
                "stress",
                "stress_report",
                "dependency",
                "dependency_report",
                "site",
            },
        ),
        ("bench/data/synthetic/look.py", {"prepare"}),
        ("bench/training/losses.py", {"train"}),
        ("bench/training/loggers.py", {"train"}),
        ("bench/inference/flip.py", {"train", "predict", "stress", "dependency"}),
        ("bench/data/crop_store.py", {"train", "predict", "stress", "dependency"}),  # samples may come from it
        ("bench/data/truncated.py", {"stress"}),
        ("bench/data/download.py", set()),  # nor may a stage be stale by what only it imports
        ("bench/data/fetching.py", set()),
        ("bench/data/truncation.py", {"stress", "stress_report"}),
        ("bench/metrics/hallucination.py", {"stress_report"}),
        ("models/hrnet.py", {"train", "predict", "stress", "dependency", "architectures"}),
        ("bench/stages/evaluate.py", {"evaluate"}),
        ("bench/stages/provenance.py", {"evaluate"}),
        ("bench/reporting/results.py", {"evaluate", "presence", "pose_scores"} | EVERY_PAGE),
        ("bench/reporting/tables.py", WITH_TABLES),
        ("bench/published.py", WITH_TABLES),
        ("bench/reporting/rows.py", {"evaluate", "presence", "pose_scores", "card"} | EVERY_PAGE),
        ("bench/reporting/model_card.py", {"card", "cards"}),
        ("bench/reporting/hub_card.py", set()),
        ("bench/reporting/html.py", {"site"}),
        ("bench/reporting/explorer.py", {"site"}),
        ("bench/reporting/findings.py", {"report"}),
        ("bench/reporting/data_page.py", {"data_report"}),
        ("bench/errors.py", set(STAGE_MODULES)),
        ("bench/resolve.py", set()),
        ("bench/sweep/params.py", set()),
    ],
)
def test_an_edit_of_code_makes_just_its_readers_stale(file: str, stale: set[str], copied: Copied) -> None:
    edited = copied.root / file
    before = edited.read_text()
    edited.write_text(before + "\nEDITED = True\n")
    after = digests(copied.root)
    edited.write_text(before)
    assert {stage for stage in STAGE_MODULES if after[stage] != copied.digests[stage]} == stale


def test_the_packages_are_ours() -> None:
    for package in (models, bench, ablations):
        assert package.__file__
        assert Path(package.__file__).parents[1] == REPO


def test_light_packages_do_not_need_torch() -> None:
    """Their modules are imported by stages that must start fast."""
    light = [STAGE_MODULES[stage] for stage in ("prepare", "evaluate", "card", *sorted(PAGES))]
    for module in ("bench.stages.resolve", *light):
        for file in import_closure(module):
            tree = ast.parse(file.read_text())
            imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            imports |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            heavy = {name for name in imports if name.split(".")[0] in ("torch", "timm", "torchvision", "transformers")}
            assert not heavy, f"{module} needs {heavy} through {file.relative_to(REPO)}"
