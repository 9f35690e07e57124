"""What tables print, and that their CSVs hold the same digits."""

import re
from collections.abc import Callable

import pytest

from bench.reporting.markdown import UNDEFINED
from bench.reporting.rows import Row, Summary
from bench.reporting.tables import (
    Column,
    Table,
    expected_table,
    format_cell,
    keypoint_table,
    overview_table,
    percent,
    presence_table,
    rows_frame,
    systems_table,
    to_frame,
    to_markdown,
)
from tests.reporting.fake_runs import SYSTEMS, estimate, make_row

AP = percent("AP", "AP")
TABLES = (overview_table, systems_table, presence_table, keypoint_table)
MakeTable = Callable[[list[Row], str], Table]


def make_rows(*seeds: int) -> list[Row]:
    return [make_row(name, seed, head=name == "vitpose_presence") for name in SYSTEMS for seed in seeds]


def body(table: Table) -> list[list[str]]:
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (Summary(0.521, 0.4979, 0.543, None, 1), "52.1 [49.8, 54.3]"),
        (Summary(0.521, None, None, 0.004, 3), "52.1 ± 0.4"),
        (Summary(None, None, None, None, 1), UNDEFINED),
        (Summary(0.5, None, None, None, 1), f"50.0 [{UNDEFINED}, {UNDEFINED}]"),
    ],
)
def test_cells(summary: Summary, text: str) -> None:
    assert format_cell(AP, summary) == text


def test_numbers_near_zero_have_no_sign() -> None:
    difference = Column("d", "difference", decimals=1, signed=True)
    assert [difference.number(value) for value in (-0.04, 0.04, -1.0, 1.0)] == ["0.0", "0.0", "-1.0", "+1.0"]


def test_headers_carry_direction_and_unit() -> None:
    header = to_markdown(systems_table(make_rows(0), "drawn people")).splitlines()[2]
    cells = [cell.strip() for cell in header.split("|")]
    assert {"AP ↑ (%)", "AR ↑ (%)", "parameters ↓ (M)", "seeds (n)", "persons (n)"} <= set(cells)


def test_names_cannot_break_a_table() -> None:
    table = Table("t", "a | b", [Column("name", "<i>"), AP], [{"name": "x|y <b> `z`\n", "AP": 0.5}])
    text = to_markdown(table)
    assert r"x\|y &lt;b&gt; \`z\`" in text
    assert "<" not in text
    assert len(body(table)) == 1
    assert [len(line) for line in body(table)] == [2]


@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_csv_holds_the_digits_of_the_page(make: MakeTable, seeds: tuple[int, ...]) -> None:
    table = make(make_rows(*seeds), "drawn people")
    frame = to_frame(table)
    for (_, record), cells in zip(frame.iterrows(), body(table), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            keys = [key for key in frame if re.fullmatch(rf"{re.escape(column.key)}(_low|_high|_sd)?", key)]
            digits = [record[key] for key in keys if record[key] != ""]
            assert re.findall(r"[\d.]+", cell) == [x for text in digits for x in re.findall(r"[\d.]+", text)]


@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize(("seeds", "pattern"), [((0,), r"[\d.]+ \[[\d.]+, [\d.]+\]"), ((0, 1), r"[\d.]+ ± [\d.]+")])
def test_every_score_has_an_interval_or_a_spread(make: MakeTable, seeds: tuple[int, ...], pattern: str) -> None:
    table = make(make_rows(*seeds), "drawn people")
    scores = [i for i, column in enumerate(table.columns) if column.direction == "↑"]
    assert scores
    for cells in body(table):
        assert all(re.fullmatch(pattern, cells[i]) for i in scores), cells


def test_every_system_shows_its_floors() -> None:
    table = presence_table(make_rows(0), "drawn people")
    sources = {(str(record["system"]), str(record["source"])) for record in table.records}
    assert sources == {(name, floor) for name in SYSTEMS for floor in ("heatmap peak", "always present")} | {
        ("vitpose_presence", "presence head")
    }


def test_one_seed_has_a_dash_for_its_spread() -> None:
    def spreads(*seeds: int) -> set[str]:
        table = systems_table(make_rows(*seeds), "drawn people")
        place = [column.key for column in table.columns].index("AP_spread")
        return {cells[place] for cells in body(table)}

    assert spreads(0) == {UNDEFINED}
    assert UNDEFINED not in spreads(0, 1)


def test_every_title_says_drawn_people() -> None:
    for make in TABLES:
        assert "drawn people" in to_markdown(make(make_rows(0), "drawn people")).splitlines()[0]


def test_full_precision_is_kept_beside() -> None:
    rows = make_rows(0)
    frame = rows_frame(rows).set_index(["run", "source", "keypoint", "metric"])
    assert frame.loc[("hrnet", "oks", "", "AP"), "value"] == rows[2].oks["AP"].value


def test_a_published_system_stands_beside_its_row() -> None:
    """HRNet-W32: 74.4 and 79.8 with detected boxes, 76.5 with the annotated ones (its README, a rerun)."""
    drawn = make_row("hrnet")
    oks = drawn.oks | {"AP": estimate(0.75), "AR": estimate(0.79)}
    photographed = drawn.model_copy(
        update={
            "data": drawn.data.model_copy(update={"source": "coco"}),
            "oks": oks | {"AP50": estimate(0.9), "AP75": estimate(0.82)},
            "num_parameters": 28_536_000,
        }
    )
    lines = body(expected_table([photographed], {"hrnet": "hrnet_w32"}))
    assert [line[2:6] for line in lines] == [
        ["AP", "detected", "74.4", "ground truth"],
        ["AP50", "detected", "90.5", "ground truth"],
        ["AP75", "detected", "81.9", "ground truth"],
        ["AR", "detected", "79.8", "ground truth"],
        ["AP", "ground truth", "76.5", "ground truth"],
    ]
    assert [line[7] for line in lines] == ["+0.6", "-0.5", "+0.1", "-0.8", "-1.5"]
    assert {line[1] for line in lines} == {"HRNet-W32"}
    smaller = photographed.model_copy(update={"num_parameters": 1_500_000})
    for row in (drawn, smaller):
        assert {line[7] for line in body(expected_table([row], {"hrnet": "hrnet_w32"}))} == {UNDEFINED}


def test_a_published_model_counts_once_whatever_the_seeds() -> None:
    rows = [make_row("ready", seed, best_epoch=0) for seed in (0, 1)]
    line = body(systems_table(rows, "drawn people"))[0]
    assert re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", line[1])
    assert line[8] == "1"
