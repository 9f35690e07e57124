"""The page of the ablations, from a made-up project folder."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from ablations.grid import QUESTIONS, question_of
from ablations.report import main
from bench.errors import UserError
from bench.reporting.rows import read_row, write_row
from tests.reporting.fake_runs import ABLATIONS, RESAMPLING, make_project

FOLDER = Path("reports/demo/ablations")
REPO = Path(__file__).parents[2]
SWEEPS = ("loss_presence_weight", "presence_head_dropout")
CLEAR = {"better", "worse"}
PLAN = Path("runs/demo/plan/ablations.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its page."""
    root = tmp_path_factory.mktemp("project")
    make_project(root, systems=["vitpose_presence"], num_persons=32)
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


def change_plan(**changes: object) -> None:
    PLAN.write_text(json.dumps({**json.loads(PLAN.read_text()), **changes}))


def files_of(*factors: str) -> set[str]:
    suffixes = (".csv", "_differences.csv", ".png")
    return {"README.md", "rows.csv", *(f"{factor}{suffix}" for factor in factors for suffix in suffixes)}


def contents() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in FOLDER.iterdir()}


def test_a_table_and_a_figure_per_factor_and_the_same_bytes_twice(project: Path) -> None:
    first = contents()
    assert set(first) == files_of("loss_presence_weight", "presence_head_dropout")
    page = first["README.md"].decode()
    assert all(f"| {name} " in page for name, *_ in ABLATIONS)
    assert page.count("vitpose_presence (parent)") == 2
    links = re.findall(r"\]\(([^)#]+)\)", page)
    assert set(links) == set(first) - {"README.md"}
    anchors = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert anchors == set(re.findall(r'<a id="([^"]+)"></a>', page)) == {"loss", "dropout"}
    main("demo")
    assert contents() == first


def test_lines_are_sorted_by_value_and_the_parent_is_compared_with_nobody(project: Path) -> None:
    frame = pd.read_csv(FOLDER / "loss_presence_weight.csv")
    assert frame["value"].tolist() == [0.0001, 0.01, 1.0]
    page = (FOLDER / "README.md").read_text()
    for record in frame.to_dict("records"):
        assert f"{record['AP']:.1f} [{record['AP_low']:.1f}, {record['AP_high']:.1f}]" in page
    differences = pd.read_csv(FOLDER / "loss_presence_weight_differences.csv", dtype=str)
    assert list(dict.fromkeys(differences["second"])) == ["presence_weight_1e_4", "presence_weight_1"]
    assert set(differences["first"]) == {"vitpose_presence"}
    for record in differences.to_dict("records"):
        assert f"{record['difference']} [{record['difference_low']}, {record['difference_high']}]" in page


def test_differences_are_those_of_the_table_above(project: Path) -> None:
    table = pd.read_csv(FOLDER / "presence_head_dropout.csv").set_index("run")
    differences = pd.read_csv(FOLDER / "presence_head_dropout_differences.csv").set_index(["second", "metric"])
    columns = {
        "AP": "AP",
        "AR": "AR",
        "F1, presence head": "presence_head_F1",
        "AUROC, heatmap peak": "heatmap_peak_AUROC",
    }
    for name in ("dropout_0", "dropout_2"):
        for metric, column in columns.items():
            wanted = table.loc[name, column] - table.loc["vitpose_presence (parent)", column]
            assert differences.loc[(name, metric), "difference"] == pytest.approx(wanted, abs=0.11)  # as rounded


def test_a_removed_ablation_leaves_no_row_and_a_removed_factor_no_file(project: Path) -> None:
    plan = json.loads(PLAN.read_text())
    change_plan(ablations=[entry for entry in plan["ablations"] if entry["name"] == "dropout_0"])
    main("demo")
    assert set(contents()) == files_of("presence_head_dropout")
    text = b"".join(
        contents()[name] for name in ("README.md", "rows.csv", "presence_head_dropout_differences.csv")
    ).decode()
    assert "dropout_0" in text
    assert not any(name in text for name in ("dropout_2", "presence_weight_1"))


def test_sentences_have_the_numbers_of_the_tables(project: Path) -> None:
    change_plan(resampling={"num": 600, "seed": 0})
    main("demo")
    page = (FOLDER / "README.md").read_text()
    frames = [pd.read_csv(FOLDER / f"{x}_differences.csv", dtype=str) for x in SWEEPS]
    for line in pd.concat(frames).to_dict("records"):
        said = f"{line['metric']} by {line['difference']} [{line['difference_low']}, {line['difference_high']}] points"
        assert (f"{said} (more than chance)" in page) == (line["verdict"] in CLEAR)
        assert said in page
    assert re.findall(r"^- (\w+) \*\*(\S+)\*\* from (\S+) to (\S+) changed", page, re.MULTILINE) == [
        ("Lowering", "loss.presence_weight", "0.01", "0.0001"),
        ("Raising", "loss.presence_weight", "0.01", "1"),
        ("Lowering", "presence_head.dropout", "0.4", "0"),
        ("Lowering", "presence_head.dropout", "0.4", "0.2"),
    ]
    moved = {line["second"] for line in frames[1].to_dict("records") if line["verdict"] in CLEAR}
    assert moved
    assert f"2 changes tried, {len(moved)} moved a number by more than chance, presence_head.dropout 0" in page


def test_a_new_factor_needs_no_other_edit(project: Path) -> None:
    """A run more in the plan: a section, a figure, sentences, below its question."""
    entry = {"name": "no_flip_test", "parent": "vitpose_presence", "factor": "test.flip_test", "value": False}
    for kind, suffix in (("rows", "json"), ("replicates", "parquet"), ("matches", "npz")):
        source = Path("runs/demo", kind, f"dropout_2-0.{suffix}")
        shutil.copy(source, source.with_name(f"no_flip_test-0.{suffix}"))
    row = Path("runs/demo/rows/no_flip_test-0.json")
    write_row(read_row(row).model_copy(update={"experiment": "no_flip_test"}), row)
    plan = json.loads(PLAN.read_text())
    change_plan(seeds=[0], ablations=[*plan["ablations"], entry | {"parent_value": True, "retest": True}])
    main("demo")
    assert set(contents()) == files_of(*SWEEPS, "test_flip_test")
    page = (FOLDER / "README.md").read_text()
    assert page.index("## What changes without any training?") < page.index("Setting **test.flip_test** from true to")


def test_every_key_belongs_to_a_question() -> None:
    """So whatever is varied has its place on the page."""
    params = YAML(typ="safe").load((REPO / "params.yaml").read_text())
    keys = [*leaves(params["base"]), *(f"{s}.{key}" for s in ("test", "evaluate") for key in leaves(params[s]))]
    assert len(keys) > 50
    asked = {key: question_of(key).name for key in keys}
    assert {asked[key] for key in asked} == {question.name for question in QUESTIONS}
    assert asked["architectures.hrnet.init"] == "transfer"
    assert asked["loss.presence_weight"] == "loss"
    assert asked["presence_head.dropout_at"] == "dropout"
    assert asked["train.num_persons"] == "data"


def leaves(tree: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def test_no_ablations_give_a_page_that_says_so(project: Path) -> None:
    PLAN.write_text(json.dumps({"profile": "demo", "seeds": [0], "resampling": RESAMPLING, "ablations": []}))
    main("demo")
    assert list(contents()) == ["README.md"]
    assert b"None is declared" in contents()["README.md"]


def test_a_missing_row_names_the_stage_of_the_ablation(project: Path) -> None:
    Path("runs/demo/rows/dropout_0-0.json").unlink()
    with pytest.raises(UserError, match=r"rows/dropout_0-0\.json: missing.*`dvc repro evaluate_ablation@dropout_0-0`"):
        main("demo")


@pytest.mark.parametrize(("name", "stage"), [("dropout_0", "evaluate_ablation"), ("vitpose_presence", "evaluate")])
@pytest.mark.parametrize("file", ["replicates/{}-0.parquet", "matches/{}-0.npz"])
def test_what_comparisons_need_names_its_stage_too(file: str, name: str, stage: str, project: Path) -> None:
    path = Path("runs/demo", file.format(name))
    path.unlink()
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: .*run `dvc repro {stage}@{name}-0`$") as found:
        main("demo")
    assert "\n" not in str(found.value)


def test_an_ablation_of_other_data_than_its_parent_is_refused(project: Path) -> None:
    """Each kind of run alone would pass."""
    for name, *_ in ABLATIONS:
        file = Path(f"runs/demo/rows/{name}-0.json")
        row = read_row(file)
        write_row(row.model_copy(update={"data": row.data.model_copy(update={"sha256": "e" * 64})}), file)
    with pytest.raises(UserError, match=r"^presence_weight_1e_4-0: data: found e+, wanted d+ as of vitpose_presence-0"):
        main("demo")


def test_several_seeds_give_intervals_over_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path, systems=["vitpose_presence"], num_persons=3, seeds=(0, 1))
    monkeypatch.chdir(tmp_path)
    main("demo")
    frame = pd.read_csv(FOLDER / "presence_head_dropout.csv")
    assert frame["seeds"].tolist() == [2, 2, 2]
    assert (frame["AP_high"] > frame["AP_low"]).all()
    assert (frame["AP_sd"] > 0).all()
    assert set(pd.read_csv(FOLDER / "presence_head_dropout_differences.csv")["seeds"]) == {2}
    page = (FOLDER / "README.md").read_text()
    assert "Bars: 95 % intervals over images and 2 training seeds." in page
    assert "hierarchical bootstrap" in page


def test_one_image_proves_nothing_about_poses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All resamples of one image are that image, and to trade it turns the sign only."""
    make_project(tmp_path, systems=["vitpose_presence"], num_persons=1)
    monkeypatch.chdir(tmp_path)
    main("demo")
    frame = pd.read_csv(FOLDER / "presence_head_dropout_differences.csv")
    assert frame[["difference_low", "difference_high", "p", "p_corrected"]].isna().all(axis=None)
    assert not set(frame["verdict"]) & CLEAR
