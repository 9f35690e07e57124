"""The page of the ablations, from a made-up project folder."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ablations.report import main
from bench.errors import UserError
from tests.reporting.fake_runs import ABLATIONS, make_project

FOLDER = Path("reports/demo/ablations")
PLAN = Path("runs/demo/plan/ablations.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its page."""
    root = tmp_path_factory.mktemp("project")
    make_project(root, systems=["vitpose_presence"], num_persons=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main("demo")
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def contents() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in FOLDER.iterdir()}


def test_a_table_and_a_figure_per_factor_and_the_same_bytes_twice(project: Path) -> None:
    first = contents()
    factors = {"loss_presence_weight", "presence_head_dropout"}
    assert set(first) == {"README.md", "rows.csv", *(f"{x}.csv" for x in factors), *(f"{x}.png" for x in factors)}
    page = first["README.md"].decode()
    assert all(f"| {name} " in page for name, *_ in ABLATIONS)
    assert page.count("vitpose_presence (parent)") == 2
    assert all((FOLDER / link).is_file() for link in re.findall(r"\]\(([^)#]+)\)", page))
    main("demo")
    assert contents() == first


def test_lines_are_sorted_by_value_and_the_parent_has_no_difference(project: Path) -> None:
    frame = pd.read_csv(FOLDER / "loss_presence_weight.csv")
    assert frame["value"].tolist() == [0.0001, 0.01, 1.0]
    assert frame["AP_difference"].isna().tolist() == [False, True, False]
    page = (FOLDER / "README.md").read_text()
    for record in frame.to_dict("records"):
        assert f"{record['AP']:.1f} [{record['AP_low']:.1f}, {record['AP_high']:.1f}]" in page


def test_a_removed_ablation_leaves_no_row_and_a_removed_factor_no_file(project: Path) -> None:
    plan = json.loads(PLAN.read_text())
    kept = [entry for entry in plan["ablations"] if entry["name"] == "dropout_0"]
    PLAN.write_text(json.dumps({**plan, "ablations": kept}))
    main("demo")
    assert set(contents()) == {"README.md", "rows.csv", "presence_head_dropout.csv", "presence_head_dropout.png"}
    text = b"".join(contents()[name] for name in ("README.md", "rows.csv")).decode()
    assert "dropout_0" in text
    assert not any(name in text for name in ("dropout_2", "presence_weight_1"))


def test_findings_are_what_the_intervals_allow(project: Path) -> None:
    page = (FOLDER / "README.md").read_text()
    for found, low, high in re.findall(r"at \S+, ([+-][\d.]+) \[([+-]?[\d.]+), ([+-]?[\d.]+)\]", page):
        assert float(low) * float(high) > 0
        assert float(low) <= float(found) <= float(high)
    assert "F1, always present (" not in page  # equal in every fake run, so nothing may be said of it


def test_no_ablations_give_a_page_that_says_so(project: Path) -> None:
    PLAN.write_text(json.dumps({"profile": "demo", "seeds": [0], "ablations": []}))
    main("demo")
    assert list(contents()) == ["README.md"]
    assert b"None is declared" in contents()["README.md"]


def test_a_missing_row_names_the_stage_of_the_ablation(project: Path) -> None:
    Path("runs/demo/rows/dropout_0-0.json").unlink()
    with pytest.raises(UserError, match=r"rows/dropout_0-0\.json: missing.*`dvc repro evaluate_ablation@dropout_0-0`"):
        main("demo")
