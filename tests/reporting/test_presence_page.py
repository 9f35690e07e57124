"""The page of presence, from a made-up project."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data.predictions import VAL, read_split
from bench.errors import UserError
from bench.metrics.calibrators import CALIBRATORS
from bench.reporting.presence_figures import (
    MIN_IN_BIN,
    draw_curves,
    draw_localisation,
    draw_reliability,
    points_of,
    worst_cases,
)
from bench.reporting.presence_results import PresenceResult, key, load_presence
from bench.reporting.rows import load_rows
from bench.stages.presence_report import main
from tests.reporting.fake_runs import PARENT, make_project
from tests.reporting.test_intervals import bare_scores, count_scores, tables_of

FLOORS = ("box geometry", "prevalence", "always present")


def make(root: Path, systems: tuple[str, ...], seeds: range) -> Path:
    make_project(root, systems=systems, seeds=seeds, num_persons=24, with_presence=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main("demo")
    return root


@pytest.fixture(scope="module", params=[1, 2], ids=["one seed", "two seeds"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("presence"), (PARENT, "hrnet", "vitpose"), range(request.param))


def page_of(project: Path) -> str:
    return (project / "reports/demo/presence/README.md").read_text()


def test_every_score_has_its_interval(project: Path) -> None:
    page = page_of(project)
    assert len(list(tables_of(page))) == 10
    assert count_scores(page) > 500
    assert bare_scores(page) == []


def test_the_page_shows_all_figures_and_tables(project: Path) -> None:
    folder, page = project / "reports/demo/presence", page_of(project)
    files = {file.name for file in folder.iterdir()} - {"README.md", "findings.md"}
    assert files == set(re.findall(r"\]\(([\w.]+\.(?:png|csv))\)", page))
    assert {"curves_labelled.png", "curves_true.png", "localisation.png", f"worst_{PARENT}.png"} <= files
    assert all((folder / file).stat().st_size > 0 for file in files)


def test_bins_of_few_keypoints_have_no_dot_and_their_counts_stand_below(project: Path) -> None:
    """The made-up bins hold 5, 15, 25, 35 keypoints and more."""
    systems = load(project)
    figures = {
        f"reliability/{name}": draw_reliability(systems, ["labelled"], "").axes[i :: len(CALIBRATORS)]
        for i, name in enumerate(CALIBRATORS)
    }
    for curve in ("reliability/none", "reliability/platt"):
        panel, below = figures[curve]
        system = next(s for s in systems if not points_of(s.curves[0], "labelled", s.main_source, curve).empty)
        bins = points_of(system.curves[0], "labelled", system.main_source, curve)
        assert (bins["number"] < MIN_IN_BIN).sum() == 3
        np.testing.assert_array_equal(panel.lines[1].get_xdata(), bins["x"][bins["number"] >= 30])
        line, counts = below.lines[:2]
        assert set(line.get_ydata()) == {MIN_IN_BIN}
        np.testing.assert_array_equal(counts.get_ydata(), bins["number"])
    (panel, *_) = draw_localisation(systems, "").axes
    assert len(panel.lines[1].get_xdata()) == 8


def test_precision_is_drawn_in_steps_and_the_roc_is_not(project: Path) -> None:
    roc, present, absent = draw_curves(load(project), "labelled", "").axes
    assert {line.get_drawstyle() for line in roc.lines} == {"default"}
    assert {line.get_drawstyle() for ax in (present, absent) for line in ax.lines} == {"steps-pre"}


def load(project: Path) -> list[PresenceResult]:
    seeds = sorted({int(file.stem.rpartition("-")[2]) for file in (project / "runs/demo/rows").iterdir()})
    names = [PARENT, "hrnet", "vitpose"]
    return load_presence(project / "runs/demo", load_rows(project / "runs/demo", names, seeds))


def test_every_table_of_scores_shows_the_floors(project: Path) -> None:
    text = [str(table) for table in tables_of(page_of(project)) if "AUROC" in str(table) or "F1" in str(table)]
    with_floors = [table for table in text if all(floor in table for floor in FLOORS)]
    assert len(text) - len(with_floors) == 2  # the head's differences, and agreement of rankings


def test_ece_stands_without_an_interval(project: Path) -> None:
    tables = [t for t in tables_of(page_of(project)) if any("ECE" in header for header in t.header)]
    columns = [(t, i) for t in tables for i, header in enumerate(t.header) if "ECE" in header]
    assert len(columns) == 3  # two of presence, one of localisation
    assert all("biased upwards, no interval" in table.header[i] for table, i in columns)
    assert all(re.fullmatch(r"\d\.\d{3}(?: †)?", line[i]) for table, i in columns for line in table.lines)
    numbers = pd.read_csv(project / "reports/demo/presence/numbers.csv")
    assert numbers.loc[numbers["metric"].isin(["ECE", "ECE_mass"]), ["low", "high"]].isna().all(axis=None)
    assert numbers.loc[numbers["metric"] == "Brier", "low"].notna().any()


def test_the_head_is_compared_and_corrected(project: Path) -> None:
    frame = pd.read_csv(project / "reports/demo/presence/head.csv")
    assert len(frame) == 5 * 3 * 2  # policies with both classes, opponents, metrics
    assert (frame["p_corrected"].fillna(1) >= frame["p"].fillna(1)).all()
    runs = project / "runs/demo"
    seeds = sorted(int(file.stem.rsplit("-", 1)[1]) for file in (runs / "presence").glob(f"{PARENT}-*"))
    columns = [pd.read_parquet(runs / f"presence_replicates/{PARENT}-{seed}.parquet") for seed in seeds]
    head, peak = (key("labelled", source, "AUROC") for source in ("presence_head", "heatmap_peak"))
    expected = np.mean([column[head][0] - column[peak][0] for column in columns]) * 100
    assert frame["difference"][0] == pytest.approx(expected, abs=0.051)


def test_one_seed_shows_the_numbers_of_the_stage(project: Path) -> None:
    seeds = sorted({int(file.stem.rsplit("-", 1)[1]) for file in (project / "runs/demo/presence").glob("hrnet-*")})
    (system,) = load_presence(project / "runs/demo", load_rows(project / "runs/demo", ["hrnet"], seeds))
    names = [key("visible", "heatmap_peak", "AUROC"), key("visible", "mass", "F1", view="left_knee")]
    for name in names:
        stored = np.array([table.loc[name, ["value", "low", "high"]] for table in system.tables], dtype=float)
        assert system.number(name).value == pytest.approx(stored[:, 0].mean())
        if len(seeds) == 1:
            np.testing.assert_allclose(system.number(name)[:3], stored[0])
    assert system.main_source == "heatmap_peak"


def test_without_a_head_and_with_one_system_the_page_says_so(tmp_path: Path) -> None:
    page = page_of(make(tmp_path, ("hrnet",), range(1)))
    assert "No system here has a presence head" in page
    assert "a ranking means little" in page
    assert bare_scores(page) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        (tmp_path / "runs/demo/presence_curves/hrnet-0.parquet").unlink()
        with pytest.raises(UserError, match=r"presence_curves/hrnet-0.*run `dvc repro presence@hrnet-0`"):
            main("demo")


def test_the_worst_cases_are_the_most_extreme(project: Path) -> None:
    split = read_split(project / "runs/demo/predictions/hrnet-0.parquet", VAL, "true")
    cases = worst_cases(split, split.score, 3)
    absent = split.score[~split.present & (split.present_weight > 0)]
    assert cases["hallucinated"][0].score == absent.max()
    assert cases["missed"][0].score == split.score[split.present].min()
    for found, wanted in ((cases["hallucinated"], False), (cases["missed"], True)):
        people = [split.annotation_ids.tolist().index(case.annotation_id) for case in found]
        assert len(set(people)) == 3
        assert [bool(split.present[i, case.keypoint]) for i, case in zip(people, found, strict=True)] == [wanted] * 3
