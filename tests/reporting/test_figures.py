"""Figures: the right axis, the right bars, the same bytes."""

import io
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench.data.keypoints import KEYPOINT_NAMES
from bench.errors import UserError
from bench.reporting.figures import (
    CURVES,
    Series,
    bars_note,
    draw_curves,
    draw_keypoints,
    draw_panels,
    draw_systems,
    is_log,
    read_curves,
    save,
)
from bench.reporting.results import Result, Summary
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, SOURCES, oks, presence, run_file
from tests.reporting.fake_runs import make_result


@pytest.mark.parametrize(
    ("settings", "log"),
    [
        ([1e-4, 0.01, 1.0], True),
        ([0.0, 0.01, 1.0], False),
        ([0.1, 0.2, 0.4], False),
        ([1, 10], False),
        ([1, 11], True),
        (["mask", "zero"], False),
        ([False, True], False),
    ],
)
def test_a_log_axis_needs_positive_numbers_over_a_decade(settings: list[Any], log: bool) -> None:
    assert is_log(settings) is log
    points = [Summary(0.5, 0.4, 0.6, None, 1)] * len(settings)
    figure = draw_panels(settings, {"AP": [Series("x", points, "k", "o")]}, "title", "factor", parent=0)
    assert figure.axes[0].get_xscale() == ("log" if log else "linear")
    assert figure.axes[0].get_xticklabels()[0].get_text().endswith("(parent)")


def test_bars_reach_to_the_bounds() -> None:
    """With several seeds too: bounds, never the spread; no bar where there are none."""
    points = [Summary(0.5, 0.3, 0.6, None, 1), Summary(0.7, 0.6, 0.9, 0.02, 3), Summary(0.7, None, None, 0.05, 3)]
    figure = draw_panels(["a", "b", "c"], {"AP": [Series("x", points, "k", "o")]}, "title", "")
    bars = figure.axes[0].containers[0][2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars[:2]], [[30, 60], [60, 90]])
    assert [np.size(bar) for bar in bars[2:]] == [0]


def test_a_number_outside_of_its_interval_has_no_negative_bar() -> None:
    figure = draw_panels(["a"], {"AP": [Series("x", [Summary(0.5, 0.6, 0.7, None, 1)], "k", "o")]}, "title", "")
    np.testing.assert_allclose(figure.axes[0].containers[0][2][0].get_segments()[0][:, 1], [50, 70])


def test_undefined_numbers_leave_a_gap() -> None:
    points = [Summary(None, None, None, None, 1), Summary(0.5, 0.4, 0.6, None, 1)]
    figure = draw_panels(["a", "b"], {"AP": [Series("x", points, "k", "o")]}, "title", "")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [np.nan, 50])


def make_results(*seeds: int) -> list[Result]:
    return [make_result("vitpose", seeds), make_result("vitpose_presence", seeds, head=True)]


def test_figures_say_what_their_bars_are() -> None:
    for seeds, note in (
        ((0,), "95 % intervals over images"),
        ((0, 1, 2), "95 % intervals over images and 3 training seeds"),
    ):
        results = make_results(*seeds)
        assert bars_note(results) == note
        for draw in (draw_systems, draw_keypoints):
            assert draw(results, "drawn people").get_suptitle().endswith(f"on drawn people, {note}")
    assert bars_note([make_result("ready"), make_result("trained", (0, 1))]).endswith("and 2 training seeds")


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_figure_of_the_systems_shows_the_numbers_of_the_tables(seeds: tuple[int, ...]) -> None:
    results = make_results(*seeds)
    figure = draw_systems(results, "drawn people")
    ap, auroc, f1 = figure.axes
    np.testing.assert_allclose(ap.lines[0].get_ydata(), [100 * result.number(oks("AP")).value for result in results])
    assert [len(panel.containers) for panel in (ap, auroc, f1)] == [1, 2, 3]  # always present has no use for AUROC
    head = auroc.containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(head, [np.nan, 100 * results[1].number(presence(PRESENCE_HEAD, "AUROC")).value])


def test_every_keypoint_has_a_dot_for_each_source() -> None:
    results = make_results(0)
    first, second = (ax for ax in draw_keypoints(results, "drawn people").axes if ax.has_data())
    assert [len(panel.containers) for panel in (first, second)] == [len(SOURCES) - 1, len(SOURCES)]
    dots = first.containers[0].lines[0]
    wanted = [results[0].number(presence(HEATMAP_PEAK, "F1", name)).value for name in KEYPOINT_NAMES]
    np.testing.assert_allclose(dots.get_xdata(), 100 * np.array(wanted))


def test_figures_say_drawn_people_and_have_the_same_bytes_whatever_the_settings() -> None:
    results = make_results(0)

    def draw() -> list[bytes]:
        files = []
        for make in (draw_systems, draw_keypoints):
            figure = make(results, "drawn people")
            assert "drawn people" in figure.get_suptitle()
            file = io.BytesIO()
            save(figure, file)
            files.append(file.getvalue())
        return files

    first = draw()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black"}):
        assert draw() == first


def test_one_panel_per_curve_and_one_line_per_system_and_seed(tmp_path: Path) -> None:
    for name, presence_loss in (("a", 0.0), ("b", 0.5)):
        for seed in (0, 1):
            file = run_file(tmp_path, "curves", name, seed)
            file.parent.mkdir(exist_ok=True)
            both = dict.fromkeys(["train_presence_loss", "calibration_presence_loss"], presence_loss)
            pd.DataFrame({"epoch": [1, 2], **dict.fromkeys(CURVES, 0.5), **both}).to_csv(file)
    figure = draw_curves(tmp_path, ["a", "b"], [0, 1], "drawn people")
    panels = {ax.get_title(): len(ax.lines) for ax in figure.axes if ax.axison}
    assert panels == {
        "training: heatmap loss": 4,
        "calibration split: heatmap loss": 4,
        "calibration split: AP (%)": 4,
        "training: presence loss": 2,  # of the one that has this term
        "calibration split: presence loss": 2,
    }
    np.testing.assert_array_equal(figure.axes[2].lines[0].get_ydata(), [50, 50])  # AP in per cent


def test_no_panel_mixes_losses_with_and_without_the_presence_term() -> None:
    assert not {"train_loss", "calibration_loss"} & set(CURVES)


def test_missing_curves_name_their_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"curves/a-0\.csv: missing.*`dvc repro train@a-0`"):
        read_curves(tmp_path, "a", 0)
    file = run_file(tmp_path, "curves", "a", 0)
    file.parent.mkdir()
    file.write_text("epoch,train_loss\n1,2\n")
    with pytest.raises(UserError, match="column 'train_heatmap_loss' is missing"):
        read_curves(tmp_path, "a", 0)
    file.write_text("")
    with pytest.raises(UserError, match="not CSV"):
        read_curves(tmp_path, "a", 0)


def test_a_panel_of_undefined_numbers_says_so(tmp_path: Path) -> None:
    figure = Figure()
    empty, filled = figure.subplots(1, 2)
    empty.errorbar([0, 1], [math.nan, math.nan])
    filled.errorbar([0, 1], [math.nan, 0.5])
    save(figure, tmp_path / "figure.png")
    assert [text.get_text() for text in empty.texts] == ["undefined here"]
    assert not filled.texts
