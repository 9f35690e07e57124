"""Rows on disk and over seeds."""

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.errors import UserError
from bench.reporting.rows import (
    HEATMAP_PEAK,
    PRESENCE_HEAD,
    Estimate,
    load_rows,
    oks,
    presence,
    read_row,
    run_file,
    summarise,
    write_row,
)
from tests.reporting.fake_runs import make_row


def save_rows(runs_dir: Path, *keys: tuple[str, int]) -> None:
    for name, seed in keys:
        write_row(make_row(name, seed), run_file(runs_dir, "rows", name, seed))


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    row = make_row("vitpose_presence", head=True)
    write_row(row, tmp_path / "deep/row.json")
    assert read_row(tmp_path / "deep/row.json") == row
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["row.json"]


def test_nan_is_written_as_undefined() -> None:
    assert Estimate(value=math.nan, low=math.nan, high=0.5) == Estimate(value=None, low=None, high=0.5)
    with pytest.raises(ValidationError):
        Estimate(value=math.inf, low=None, high=None)


def test_the_grid_is_walked_in_order_and_nothing_else_is(tmp_path: Path) -> None:
    runs_dir = tmp_path / "demo"
    save_rows(runs_dir, ("b", 1), ("b", 0), ("a", 0), ("a", 1), ("undeclared", 0))
    (runs_dir / "rows/a-7.json").write_text("not a row")
    rows = load_rows(runs_dir, ["b", "a"], [0, 1])
    assert [(row.experiment, row.seed) for row in rows] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]


def test_a_missing_row_names_its_file_and_stage(tmp_path: Path) -> None:
    save_rows(tmp_path / "demo", ("a", 0))
    with pytest.raises(UserError, match=r"rows/a-1\.json: missing.*run `dvc repro evaluate@a-1`$") as found:
        load_rows(tmp_path / "demo", ["a"], [0, 1])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("oks", "AP", "value"), "high", r"oks\.AP\.value: found 'high'"),
        (("seed",), "0", r"seed: found '0'"),
        (("surprise",), 1, r"surprise: found 1"),
        (("data", "prevalence"), [0.5], r"data\.prevalence: found \[0\.5\]"),
        (("oks",), {}, r"oks: found \{\}.*'AP' is missing"),
        (("presence",), {}, r"presence: found \{\}.*'heatmap_peak' is missing"),
    ],
)
def test_a_malformed_row_names_its_file_and_key(
    tmp_path: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    content = json.loads(make_row("a").model_dump_json())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file = run_file(tmp_path / "demo", "rows", "a", 0)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"rows/a-0\.json: {message}"):
        load_rows(tmp_path / "demo", ["a"], [0])


def test_a_row_of_another_run_is_refused(tmp_path: Path) -> None:
    write_row(make_row("a", 1), run_file(tmp_path / "demo", "rows", "a", 0))
    with pytest.raises(UserError, match=r"rows/a-0\.json: seed: found 1, wanted 0"):
        load_rows(tmp_path / "demo", ["a"], [0])
    write_row(make_row("a", profile="paper"), run_file(tmp_path / "demo", "rows", "a", 0))
    with pytest.raises(UserError, match="profile: found 'paper', wanted 'demo'"):
        load_rows(tmp_path / "demo", ["a"], [0])


def with_ap(seed: int, value: float | None) -> dict[str, object]:
    estimates = make_row("a", seed).oks
    return {**estimates, "AP": Estimate(value=value, low=None if value is None else value - 0.1, high=0.9)}


def test_one_seed_keeps_its_interval_and_has_no_spread() -> None:
    summary = summarise([make_row("a", oks=with_ap(0, 0.5))], oks("AP"))
    assert summary == (0.5, 0.4, 0.9, None, 1)


def test_seeds_give_mean_and_sample_deviation() -> None:
    rows = [make_row("a", seed, oks=with_ap(seed, value)) for seed, value in enumerate((0.5, 0.6, 0.7))]
    summary = summarise(rows, oks("AP"))
    assert summary.value == pytest.approx(0.6)
    assert summary.sd == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert summary[1:3] == (None, None)
    assert summary.num_seeds == 3


def test_one_undefined_seed_makes_the_mean_undefined() -> None:
    rows = [make_row("a", 0, oks=with_ap(0, 0.5)), make_row("a", 1, oks=with_ap(1, None))]
    assert summarise(rows, oks("AP")) == (None, None, None, None, 2)


def test_a_source_that_a_system_lacks_is_undefined() -> None:
    row = make_row("vitpose")
    assert summarise([row], presence(PRESENCE_HEAD, "F1")).value is None
    assert summarise([row], presence(HEATMAP_PEAK, "F1")).value == pytest.approx(0.86)
