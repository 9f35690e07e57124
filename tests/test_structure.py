"""The shape of the project: which package may import which, and that DVC knows what each stage really reads."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import ablations
import bench
import models

REPO = Path(__file__).parents[1]
PACKAGES = ("models", "bench", "ablations")
SOURCES = [file for package in PACKAGES for file in sorted((REPO / package).rglob("*.py"))]

# Which of our modules each part may import; a part may always import itself.
ALLOWED = {
    "models": set(),
    "bench.data": {"bench.errors"},
    "bench.metrics": {"bench.errors", "bench.data"},
    "bench.inference": {"models", "bench.errors", "bench.data", "bench.metrics"},
    "bench.training": {"models", "bench.errors", "bench.data", "bench.metrics", "bench.inference"},
    "bench.reporting": {"bench.errors", "bench.data", "bench.metrics"},
    "bench.stages": {"models", "bench"},
    "ablations": {"bench"},
}


def module_file(name: str) -> Path | None:
    path = REPO.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported_modules(file: Path) -> Iterator[str]:
    """Our own modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES and module_file(name))


def import_closure(module: str) -> set[Path]:
    """The files that importing a module reads."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if file is None or file in seen:
            continue
        seen.add(file)
        parts = name.split(".")
        waiting += [".".join(parts[:i]) for i in range(1, len(parts))]
        waiting += imported_modules(file)
    return seen


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


@pytest.mark.parametrize("stage", sorted(stages()))
def test_dvc_depends_on_what_a_stage_imports(stage: str) -> None:
    definition = stages()[stage]
    command = re.match(r"python -m ([\w.]+)", definition["cmd"])
    assert command, definition["cmd"]
    declared: set[Path] = set()
    for dep in definition["deps"]:
        path = REPO / dep
        if dep.split("/")[0] in PACKAGES and not dep.startswith("models/warmstart"):
            assert path.exists(), dep
            declared |= set(path.rglob("*.py")) if path.is_dir() else {path}
    wanted = import_closure(command[1])
    missing, needless = sorted(wanted - declared), sorted(declared - wanted)
    assert not missing, [str(file.relative_to(REPO)) for file in missing]
    assert not needless, [str(file.relative_to(REPO)) for file in needless]


def test_the_packages_are_ours() -> None:
    for package in (models, bench, ablations):
        assert package.__file__
        assert Path(package.__file__).parents[1] == REPO


def test_light_packages_do_not_need_torch() -> None:
    """Their modules are imported by stages that must start fast: resolve, prepare, evaluate, report."""
    for module in ("bench.stages.resolve", "bench.stages.prepare", "bench.stages.evaluate", "bench.stages.report"):
        for file in import_closure(module):
            tree = ast.parse(file.read_text())
            imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            imports |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            heavy = {name for name in imports if name.split(".")[0] in ("torch", "timm", "torchvision", "transformers")}
            assert not heavy, f"{module} needs {heavy} through {file.relative_to(REPO)}"
