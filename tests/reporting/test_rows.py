"""Rows on disk: what they hold, what is refused."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.data.keypoints import KEYPOINT_NAMES
from bench.errors import UserError
from bench.metrics.average_precision import STATS
from bench.reporting.rows import (
    ALWAYS_PRESENT,
    HEATMAP_PEAK,
    METRICS,
    PRESENCE_HEAD,
    PROTOCOL_VERSION,
    PROTOCOLS,
    Estimate,
    annotated_boxes,
    by_experiment,
    load_rows,
    oks,
    presence,
    presence_keys,
    read_row,
    run_file,
    score_rule,
    write_row,
)
from tests.reporting.fake_runs import make_row


def save_rows(runs_dir: Path, *keys: tuple[str, int]) -> None:
    for name, seed in keys:
        write_row(make_row(name, seed), run_file(runs_dir, "rows", name, seed))


def contents(**options: Any) -> dict[str, Any]:
    """A row as its file holds it."""
    return json.loads(make_row("a", **options).model_dump_json())


def without(content: dict[str, Any], *path: str) -> dict[str, Any]:
    """The same without one key."""
    key, *rest = path
    return content | {key: without(content[key], *rest)} if rest else {k: v for k, v in content.items() if k != key}


def save_content(runs_dir: Path, content: dict[str, Any]) -> None:
    file = run_file(runs_dir, "rows", "a", 0)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))


def test_keys_name_numbers_as_documented() -> None:
    assert oks("AP") == "oks/AP"
    assert annotated_boxes("AR") == "annotated_boxes/AR"
    assert score_rule("box", "AP") == "score_rule/box/AP"
    assert presence(HEATMAP_PEAK, "F1") == "presence/heatmap_peak/all/F1"
    assert presence(PRESENCE_HEAD, "AUROC", "left_knee") == "presence/presence_head/left_knee/AUROC"
    keys = presence_keys(ALWAYS_PRESENT)
    assert len(keys) == len(set(keys)) == (1 + len(KEYPOINT_NAMES)) * len(METRICS)


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
    assert {name: [row.seed for row in group] for name, group in by_experiment(rows).items()} == {
        "b": [0, 1],
        "a": [0, 1],
    }


@pytest.mark.parametrize("stage", ["evaluate", "evaluate_ablation"])
def test_a_missing_row_names_its_file_and_stage(tmp_path: Path, stage: str) -> None:
    save_rows(tmp_path / "demo", ("a", 0))
    with pytest.raises(UserError, match=rf"rows/a-1\.json: missing.*run `dvc repro {stage}@a-1`$") as found:
        load_rows(tmp_path / "demo", ["a"], [0, 1], stage)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("numbers", "oks/AP", "value"), "high", r"numbers\.oks/AP\.value: found 'high'"),
        (("seed",), "0", r"seed: found '0'"),
        (("surprise",), 1, r"surprise: found 1"),
        (("data", "prevalence"), [0.5], r"data\.prevalence: found \[0\.5\]"),
        (("numbers",), {}, r".*numbers: 'oks/AP' is missing"),
        (("thresholds",), {}, r".*thresholds: 'heatmap_peak' is missing"),
        (("thresholds", "guess"), 0.5, r"thresholds\.guess.*: found 'guess'"),
        (("thresholds", "presence_head"), 0.5, r".*numbers: 'presence/presence_head/all/precision' is missing"),
        (("protocol", "oks_nms"), None, r"protocol\.oks_nms: found None"),
    ],
)
def test_a_malformed_row_names_its_file_and_key(
    tmp_path: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    content = contents()
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    save_content(tmp_path / "demo", content)
    with pytest.raises(UserError, match=rf"rows/a-0\.json: {message}") as found:
        load_rows(tmp_path / "demo", ["a"], [0])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "key", [*map(oks, STATS), *presence_keys(HEATMAP_PEAK)[::17], *presence_keys(PRESENCE_HEAD)[::17]]
)
def test_no_number_of_a_source_may_be_missing(tmp_path: Path, key: str) -> None:
    save_content(tmp_path / "demo", without(contents(head=True), "numbers", key))
    with pytest.raises(UserError, match=f"numbers: '{key}' is missing"):
        load_rows(tmp_path / "demo", ["a"], [0])


@pytest.mark.parametrize(
    "path",
    [
        ("protocol", "version"), ("protocol", "oks_nms"), ("protocol", "intervals"), ("data", "source_sha256"),
        ("provenance", "code_revision"), ("provenance", "trained_seconds"), ("provenance", "evaluated_at"),
        ("thresholds",), ("numbers",),
    ],
)  # fmt: skip
def test_nothing_of_the_origin_may_be_missing(tmp_path: Path, path: tuple[str, ...]) -> None:
    save_content(tmp_path / "demo", without(contents(), *path))
    with pytest.raises(UserError, match=rf"rows/a-0\.json: {re.escape('.'.join(path))}: .*Field required"):
        load_rows(tmp_path / "demo", ["a"], [0])


def test_a_row_of_another_protocol_is_refused(tmp_path: Path) -> None:
    """The same predictions could have given other numbers."""
    assert max(PROTOCOLS) == PROTOCOL_VERSION
    content = contents()
    save_content(tmp_path / "demo", content | {"protocol": content["protocol"] | {"version": 1}})
    with pytest.raises(UserError, match=rf"rows/a-0\.json: protocol\.version: found 1, wanted {PROTOCOL_VERSION}"):
        load_rows(tmp_path / "demo", ["a"], [0])


def test_a_row_of_another_run_is_refused(tmp_path: Path) -> None:
    write_row(make_row("a", 1), run_file(tmp_path / "demo", "rows", "a", 0))
    with pytest.raises(UserError, match=r"rows/a-0\.json: seed: found 1, wanted 0"):
        load_rows(tmp_path / "demo", ["a"], [0])
    write_row(make_row("a", profile="paper"), run_file(tmp_path / "demo", "rows", "a", 0))
    with pytest.raises(UserError, match="profile: found 'paper', wanted 'demo'"):
        load_rows(tmp_path / "demo", ["a"], [0])
    write_row(make_row("b"), run_file(tmp_path / "demo", "rows", "a", 0))
    with pytest.raises(UserError, match="experiment: found 'b', wanted 'a'"):
        load_rows(tmp_path / "demo", ["a"], [0])
