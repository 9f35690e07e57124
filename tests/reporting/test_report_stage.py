"""The page of the systems, from a made-up project folder."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import UserError
from bench.inference.scoring import SCORE_RULES
from bench.reporting.markdown import FEW_MARK
from bench.reporting.pictures import MAX_BYTES
from bench.reporting.results import load_results
from bench.reporting.rows import PRESENCE_HEAD, presence, read_row, run_file, write_row
from bench.stages.files import ResamplingPlan
from bench.stages.report import compare_rules, compare_systems, index, main
from tests.reporting.fake_runs import NUM_RESAMPLES, SCORE_RULE, make_project

SYSTEMS = ("vitpose_presence", "hrnet")
SYSTEMS_DIR = Path("reports/demo/systems")
PLAN = Path("runs/demo/plan/report.json")
TABLES = {
    "overview", "systems", "score_rules", "presence", "presence_per_keypoint", "score_rule_differences", "differences",
    "expected",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose report was made twice; `first` keeps the files of the first time."""
    root = tmp_path_factory.mktemp("project")
    make_project(root, systems=SYSTEMS, num_persons=6, pictured=1, published={"hrnet": "hrnet_w32"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main("demo")
        (root / "reports/demo").rename(root / "first")
        main("demo")
    for other in (
        "architectures",
        "demo/errors",
        "demo/truncation",
        "demo/pose_scores",
        "demo/presence",
        "demo/data",
        "demo/runs",
    ):
        (root / "reports" / other).mkdir(parents=True)
        (root / "reports" / other / "README.md").write_text("the page of another stage")
    return root


@pytest.fixture
def copied(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def change_plan(**changes: object) -> None:
    PLAN.write_text(json.dumps({**json.loads(PLAN.read_text()), **changes}))


def test_two_runs_give_the_same_bytes(project: Path) -> None:
    files = sorted(file.relative_to(project / "first") for file in (project / "first").rglob("*") if file.is_file())
    assert len(files) > 10
    assert {file.stem for file in files if file.suffix == ".csv"} == TABLES | {"rows"}
    for file in files:
        assert (project / "first" / file).read_bytes() == (project / "reports/demo" / file).read_bytes(), file


def test_every_link_leads_to_a_file(project: Path) -> None:
    page = project / SYSTEMS_DIR / "README.md"
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert {"pictures_1.png", "curves.png", "rows.csv", *(f"{table}.csv" for table in TABLES)} <= set(links)
    assert all((page.parent / link).is_file() for link in links)


def test_the_page_shows_the_numbers_of_its_csvs(project: Path) -> None:
    page = re.sub(f"(?: {FEW_MARK})? +", " ", (project / SYSTEMS_DIR / "README.md").read_text())
    for table in ("systems", "score_rules", "presence"):
        frame = pd.read_csv(project / SYSTEMS_DIR / f"{table}.csv", dtype=str)
        metric = "F1" if table == "presence" else "AP"
        for record in frame.to_dict("records"):
            assert f"| {record[metric]} [{record[f'{metric}_low']}, {record[f'{metric}_high']}] |" in page
    assert f"percentile, {NUM_RESAMPLES} resamples of the images" in page
    assert "by coin, 40 times" in page


def test_every_system_is_compared_with_the_first(project: Path) -> None:
    frame = pd.read_csv(project / SYSTEMS_DIR / "differences.csv")
    assert set(frame["first"]) == {"vitpose_presence"}
    assert set(frame["second"]) == {"hrnet"}
    assert frame["metric"].tolist() == ["AP", "AR", "presence F1", "presence AUROC"]
    assert frame["test"].tolist() == ["permutation", "permutation", "bootstrap", "bootstrap"]
    assert set(frame["images"]) == {6}
    assert (frame["p"] <= frame["p_corrected"]).all()
    found = pd.read_csv(project / SYSTEMS_DIR / "systems.csv").set_index("system")["AP"]
    assert frame["difference"][0] == pytest.approx(found["hrnet"] - found["vitpose_presence"], abs=0.11)  # as rounded


def test_the_findings_are_those_of_the_tables(project: Path) -> None:
    folder = project / SYSTEMS_DIR
    overview = pd.read_csv(folder / "overview.csv", dtype=str)
    differences = pd.read_csv(folder / "differences.csv", dtype=str)
    lines = (folder / "findings.md").read_text().splitlines()
    metrics = {"AP": "AP", "AR": "AR", "presence F1": "F1", "presence AUROC": "AUROC"}
    for line, (metric, column) in zip(lines, metrics.items(), strict=True):
        ranked = overview.iloc[(-overview[column].astype(float)).argsort(kind="stable")].to_dict("records")
        found = ", ".join(f"{x['system']} {x[column]} [{x[f'{column}_low']}, {x[f'{column}_high']}] %" for x in ranked)
        assert f": {found}." in line
        assert ("absent keypoints" in line) == metric.startswith("presence")
        (made,) = differences[differences["metric"] == metric].to_dict("records")
        assert made["verdict"] in {"too few images (n < 20)", "unchanged"}  # 6 images
        assert "Not clearly different from vitpose_presence: hrnet." in line
    assert (
        "**Too few images (n < 20): with 6 images, the intervals are too narrow" in (folder / "README.md").read_text()
    )


def test_presence_is_compared_from_the_best_source_of_each(project: Path) -> None:
    results = load_results(project / "runs/demo", ["vitpose_presence", "hrnet"], [0])
    found = {comparison.label: comparison for comparison in compare_systems(results, ResamplingPlan(num=10, seed=0))}
    head = results[0].number(presence(PRESENCE_HEAD, "F1")).value
    peak = results[1].number(presence("heatmap_peak", "F1")).value
    assert head is not None and peak is not None
    assert found["presence F1"].difference.value == pytest.approx(peak - head)


def test_every_other_score_rule_is_compared_with_the_declared_one(project: Path) -> None:
    results = load_results(project / "runs/demo", ["vitpose_presence", "hrnet"], [0])
    found = compare_rules(results, ResamplingPlan(num=10, seed=0))
    others = [rule for rule in SCORE_RULES if rule != SCORE_RULE]
    assert [(comparison.first, comparison.second) for comparison in found] == [
        *[(f"vitpose_presence, {SCORE_RULE}", f"vitpose_presence, {rule}") for rule in others],
        *[(f"hrnet, {SCORE_RULE}", f"hrnet, {rule}") for rule in others if not SCORE_RULES[rule].needs_presence],
    ]
    assert {comparison.test for comparison in found} == {"bootstrap"}
    frame = pd.read_csv(project / SYSTEMS_DIR / "score_rule_differences.csv")
    assert frame["second"].tolist() == [comparison.second for comparison in found]


def test_pages_hold_the_declared_systems_and_no_paths_of_this_machine(project: Path) -> None:
    for name in ("README.md", "demo/systems/README.md"):
        text = (project / "reports" / name).read_text()
        assert all(f"| {system} " in text for system in SYSTEMS)
        assert str(project) not in text
        assert "drawn people" in text


def test_pictures_stay_small(project: Path) -> None:
    assert all(file.stat().st_size <= MAX_BYTES for file in (project / SYSTEMS_DIR).glob("*.png"))


def test_the_index_lists_profiles_with_a_page_and_names_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    text = index(["demo", "laptop"])
    assert "## Profile demo" in text
    assert "## Profile laptop" not in text
    assert "not run yet: laptop" in text


def test_a_removed_system_leaves_nothing(copied: Path) -> None:
    change_plan(systems=["vitpose_presence"], published={})
    main("demo")
    folder = Path("reports/demo/systems")
    texts = [file.read_text() for file in Path("reports").rglob("*") if file.suffix in {".md", ".csv"}]
    assert not any("hrnet" in text for text in texts)
    # One system alone differs from nobody, and nothing is published of it.
    assert {file.stem for file in folder.glob("*.csv")} == TABLES - {"differences", "expected"} | {"rows"}
    page = (folder / "README.md").read_text()
    assert not any(
        words in page for words in ("Is the difference real?", "Beside the published results", "expected.csv")
    )
    links = re.findall(r"\]\(([^)#]+)\)", page)
    assert all((folder / link).is_file() for link in links)


def test_a_published_model_counts_once_on_the_page(copied: Path) -> None:
    """And a comparison of it with a trained one has the seeds of that."""
    for kind, suffix in (("rows", "json"), ("replicates", "parquet"), ("matches", "npz"), ("curves", "csv")):
        for name in SYSTEMS:
            shutil.copy(f"runs/demo/{kind}/{name}-0.{suffix}", f"runs/demo/{kind}/{name}-1.{suffix}")
    for seed in (0, 1):
        for name in SYSTEMS:
            row = read_row(run_file(Path("runs/demo"), "rows", name, seed))
            changed = row.model_copy(update={"seed": seed, "best_epoch": 0 if name == "hrnet" else 3})
            write_row(changed, run_file(Path("runs/demo"), "rows", name, seed))
    change_plan(seeds=[0, 1])
    main("demo")
    folder = Path("reports/demo/systems")
    systems = pd.read_csv(folder / "systems.csv").set_index("system")
    assert systems["seeds"].to_dict() == {"vitpose_presence": 2, "hrnet": 1}
    assert systems["AP_spread"].isna().to_dict() == {"vitpose_presence": False, "hrnet": True}
    assert set(pd.read_csv(folder / "differences.csv")["seeds"]) == {2}


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        ("rows", "evaluate"),
        ("replicates", "evaluate"),
        ("matches", "evaluate"),
        ("curves", "train"),
        ("predictions", "predict"),
    ],
)
def test_a_missing_file_of_a_run_names_its_stage(kind: str, stage: str, copied: Path) -> None:
    file = run_file(Path("runs/demo"), kind, "hrnet", 0)
    file.unlink()
    with pytest.raises(UserError, match=rf"^{file}: .*run `dvc repro {stage}@hrnet-0`$") as found:
        main("demo")
    assert "\n" not in str(found.value)


def test_runs_of_other_data_are_refused(copied: Path) -> None:
    file = run_file(Path("runs/demo"), "rows", "hrnet", 0)
    row = read_row(file)
    write_row(row.model_copy(update={"data": row.data.model_copy(update={"sha256": "e" * 64})}), file)
    with pytest.raises(
        UserError, match=r"^hrnet-0: data: found e+, wanted d+ as of vitpose_presence-0: run `dvc repro`$"
    ):
        main("demo")


def test_runs_of_another_protocol_are_marked_above_every_table_of_scores(copied: Path) -> None:
    file = run_file(Path("runs/demo"), "rows", "hrnet", 0)
    row = read_row(file)
    write_row(row.model_copy(update={"protocol": row.protocol.model_copy(update={"flip_test": "none"})}), file)
    main("demo")
    page = Path("reports/demo/systems/README.md").read_text()
    assert page.count("> - protocol.flip_test: vitpose_presence: mirrored; hrnet: none") == 7
    assert "> - protocol.flip_test: vitpose_presence: mirrored; hrnet: none" in Path("reports/README.md").read_text()
