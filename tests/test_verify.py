"""Two runs are compared file by file; the runs themselves are `make verify`'s."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bench import verify
from bench.errors import UserError
from bench.resolve import load_grid

REPO = Path(__file__).parents[1]


def make_outputs(clone: Path) -> None:
    """Of a run of a quarter of a second."""
    row = {"numbers": [1, 2], "provenance": {"evaluated_at": f"of {clone.name}", "trained_seconds": len(clone.name)}}
    for name, text in {"runs/demo/row.json": json.dumps(row), "data/a.json": "[]", "reports/page.md": "# Page"}.items():
        file = clone / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first", tmp_path / "other"
    make_outputs(first)
    make_outputs(second)
    return first, second


def test_the_clock_is_no_difference(clones: tuple[Path, Path]) -> None:
    assert not list(verify.differences(*clones))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("runs/demo/row.json", lambda file: file.write_text(file.read_text().replace("[1, 2]", "[1, 3]"))),
        ("reports/page.md", lambda file: file.unlink()),
        ("reports/new.md", lambda file: file.write_text("new")),
        ("data/a.json", lambda file: file.write_text("[0]")),
    ],
)
@pytest.mark.parametrize("changed", [0, 1])
def test_any_other_is_named(
    changed: int, file: str, change: Callable[[Path], object], clones: tuple[Path, Path]
) -> None:
    change(clones[changed] / file)
    assert list(verify.differences(*clones)) == [Path(file)]


def test_the_small_experiment_is_a_valid_one(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text((REPO / "params.yaml").read_text())
    verify.make_small(params)
    grid = load_grid(params)
    assert set(grid.experiments) == {"vitpose_presence", "hrnet"}
    assert YAML(typ="safe").load(params.read_text())["profile"] == "demo"


def commit_project(root: Path) -> None:
    """A repository that holds the parameters alone."""
    (root / "params.yaml").write_text((REPO / "params.yaml").read_text())
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def test_edits_that_a_clone_would_not_have_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    commit_project(root)
    (root / "params.yaml").write_text("edited")
    with pytest.raises(UserError, match=r"root: found edits that are not committed, wanted none"):
        verify.verify(root, tmp_path)


def test_a_run_that_fails_says_how(tmp_path: Path) -> None:
    """The clone has no pipeline."""
    root = tmp_path / "root"
    root.mkdir()
    commit_project(root)
    with pytest.raises(UserError, match=r"first: dvc repro ended with exit code 253 \(.+\), wanted 0$"):
        verify.verify(root, tmp_path)


def test_clones_that_differ_end_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    commit_project(root)
    monkeypatch.setattr(verify, "run", make_outputs)
    verify.verify(root, tmp_path)
    assert capsys.readouterr().out.startswith("3 files of ")
    again = tmp_path / "again"
    again.mkdir()
    monkeypatch.setattr(
        verify, "run", lambda clone: (make_outputs(clone), (clone / "data/a.json").write_text(clone.name))
    )
    with pytest.raises(UserError, match=r"^1 of 3 files differ, wanted none: data/a\.json$"):
        verify.verify(root, again)
