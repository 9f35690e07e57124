"""Figures: the right axis, the right bars, the same bytes."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from bench.reporting.figures import (
    CURVES,
    Series,
    draw_curves,
    draw_keypoints,
    draw_panels,
    draw_systems,
    is_log,
    read_curves,
    save,
)
from bench.reporting.rows import Summary, run_file
from tests.reporting.fake_runs import make_row


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
    points = [Summary(0.5, 0.3, 0.6, None, 1), Summary(0.7, None, None, 0.05, 3)]
    figure = draw_panels(["a", "b"], {"AP": [Series("x", points, "k", "o")]}, "title", "")
    bars = figure.axes[0].containers[0][2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[30, 60], [65, 75]])


def test_figures_say_drawn_people_and_have_the_same_bytes_whatever_the_settings() -> None:
    rows = [make_row("vitpose"), make_row("vitpose_presence", head=True)]

    def draw() -> list[bytes]:
        files = []
        for make in (draw_systems, draw_keypoints):
            figure = make(rows, "drawn people")
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
            pd.DataFrame({"epoch": [1, 2], **dict.fromkeys(CURVES, 0.5), "train_presence_loss": presence_loss}).to_csv(
                file
            )
    figure = draw_curves(tmp_path, ["a", "b"], [0, 1], "drawn people")
    assert [len(ax.lines) for ax in figure.axes] == [4, 2, 4, 4]
    np.testing.assert_array_equal(figure.axes[3].lines[0].get_ydata(), [50, 50])  # AP in per cent


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
