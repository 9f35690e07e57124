"""Which of our modules a stage imports: one digest a stage, so that an edit reruns just the stages that read it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.data.hashing import sha256_of

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "bench", "ablations")
STAGES = (
    "prepare", "train", "predict", "evaluate", "floors", "presence", "pose_scores", "stress", "dependency", "report",
    "errors", "presence_report", "pose_scores_report", "stress_report", "dependency_report", "architectures",
    "data_report", "runs_report", "card", "cards", "site",
)  # fmt: skip
STAGE_MODULES = {**{stage: f"bench.stages.{stage}" for stage in STAGES}, "ablations": "ablations.report"}


def sha256_of_stage(stage: str, root: Path = ROOT) -> str:
    """Digest of all of our sources that importing the stage's module reads."""
    return sha256_of(sorted(import_closure(STAGE_MODULES[stage], root)))


def import_closure(module: str, root: Path = ROOT) -> set[Path]:
    """Our files that importing a module reads, itself and its packages included."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = module_file(name, root)
        if file is None or file in seen:
            continue
        seen.add(file)
        parts = name.split(".")
        waiting += [".".join(parts[:i]) for i in range(1, len(parts))]
        waiting += imported_modules(file, root)
    return seen


def imported_modules(file: Path, root: Path = ROOT) -> Iterator[str]:
    """Our own modules that a file imports, anywhere in it."""
    yield from (name for name in _imported_names(file.read_text(encoding="utf-8")) if module_file(name, root))


@cache
def _imported_names(source: str) -> tuple[str, ...]:
    """What a source imports of our packages, modules or what they hold; every stage asks, so it is parsed once."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.split(".")[0] in PACKAGES)


def module_file(name: str, root: Path = ROOT) -> Path | None:
    """Where a module of ours lies, if it is one."""
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
