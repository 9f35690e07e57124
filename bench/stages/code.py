"""Which of our modules a stage imports: one digest a stage, so that an edit reruns just the stages that read it."""

import ast
from collections.abc import Iterable, Iterator
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
    return sha256_of_stages([stage], root)[stage]


def sha256_of_stages(stages: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """`sha256_of_stage` by stage; a source that several of them import is parsed once."""
    known: Imports = {}
    return {stage: sha256_of(sorted(import_closure(STAGE_MODULES[stage], root, known))) for stage in stages}


Imports = dict[str, tuple[Path, list[str]] | None]
"""By name of a module: its file and what that imports; None where it is no module of ours."""


def import_closure(module: str, root: Path = ROOT, known: Imports | None = None) -> set[Path]:
    """Our files that importing a module reads, itself and its packages included. `known` is read and added to."""
    known = {} if known is None else known
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in known:
            file = module_file(name, root)
            known[name] = None if file is None else (file, list(_imported_names(file)))
        if found := known[name]:
            parts = name.split(".")
            waiting += [".".join(parts[:i]) for i in range(1, len(parts))]
            waiting += found[1]
    return {found[0] for name in seen if (found := known[name])}


def imported_modules(file: Path, root: Path = ROOT) -> Iterator[str]:
    """Our own modules that a file imports, anywhere in it."""
    yield from (name for name in _imported_names(file) if module_file(name, root))


def _imported_names(file: Path) -> Iterator[str]:
    """What a file imports of our packages: modules, or what they hold."""
    for node in _statements(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All below a node; expressions, the most of a tree, hold none."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.expr):
            yield node
            yield from _statements(node)


def module_file(name: str, root: Path = ROOT) -> Path | None:
    """Where a module of ours lies, if it is one."""
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
