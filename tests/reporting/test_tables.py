"""What tables print, and that their CSVs hold the same digits."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from bench.inference.scoring import SCORE_RULES
from bench.metrics.average_precision import STATS
from bench.reporting.markdown import FEW_MARK, UNDEFINED
from bench.reporting.results import Comparison, Result, Summary
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, annotated_boxes, oks, presence, score_rule
from bench.reporting.tables import (
    Cell,
    Column,
    Table,
    comparison_table,
    expected_table,
    format_cell,
    keypoint_table,
    main_source,
    overview_table,
    percent,
    presence_percent,
    presence_table,
    rows_frame,
    score_rules_table,
    systems_table,
    to_frame,
    to_markdown,
)
from tests.reporting.fake_runs import NUM_RESAMPLES, SYSTEMS, make_result

AP = percent("AP", "AP")
TABLES = (overview_table, systems_table, score_rules_table, presence_table, keypoint_table)
MakeTable = Callable[[list[Result], str], Table]


def make_results(*seeds: int) -> list[Result]:
    return [make_result(name, seeds, head=name == "vitpose_presence") for name in SYSTEMS]


def body(table: Table) -> list[list[str]]:
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (Summary(0.521, 0.4979, 0.543, None, 1), "52.1 [49.8, 54.3]"),
        (Summary(0.521, 0.4979, 0.543, 0.004, 3), "52.1 [49.8, 54.3]"),
        (Summary(None, None, None, None, 1), UNDEFINED),
        (Summary(0.5, None, None, None, 1), f"50.0 [{UNDEFINED}, {UNDEFINED}]"),
        (Summary(0.521, None, None, 0.004, 3), f"52.1 [{UNDEFINED}, {UNDEFINED}]"),
        (None, UNDEFINED),
    ],
)
def test_cells(summary: Summary | None, text: str) -> None:
    assert format_cell(AP, summary) == text


def test_a_bare_number_is_no_cell_of_a_score() -> None:
    with pytest.raises(AssertionError, match="AP: a number without its interval"):
        format_cell(AP, 0.521)
    with pytest.raises(AssertionError, match="AP: a number without its interval"):
        to_markdown(Table("t", "title", [AP], [{"AP": 0.5}]))
    assert format_cell(AP._replace(estimated=False), 0.521) == "52.1"


def test_numbers_near_zero_have_no_sign() -> None:
    difference = Column("d", "difference", decimals=1, signed=True)
    assert [difference.number(value) for value in (-0.04, 0.04, -1.0, 1.0)] == ["0.0", "0.0", "-1.0", "+1.0"]


def test_headers_carry_direction_and_unit() -> None:
    header = to_markdown(systems_table(make_results(0), "drawn people")).splitlines()[2]
    cells = [cell.strip() for cell in header.split("|")]
    assert {"AP ↑ (%)", "AR ↑ (%)", "parameters ↓ (M)", "seeds (n)", "persons (n)"} <= set(cells)


def test_names_cannot_break_a_table() -> None:
    table = Table(
        "t", "a | b", [Column("name", "<i>"), AP], [{"name": "x|y <b> `z`\n", "AP": Summary(0.5, 0.4, 0.6, None, 1)}]
    )
    text = to_markdown(table)
    assert r"x\|y &lt;b&gt; \`z\`" in text
    assert "<" not in text
    assert len(body(table)) == 1
    assert [len(line) for line in body(table)] == [2]


@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_csv_holds_the_digits_of_the_page(make: MakeTable, seeds: tuple[int, ...]) -> None:
    table = make(make_results(*seeds), "drawn people")
    frame = to_frame(table)
    for (_, record), cells in zip(frame.iterrows(), body(table), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            keys = [key for key in frame if re.fullmatch(rf"{re.escape(column.key)}(_low|_high)?", key)]
            digits = [record[key] for key in keys if record[key] != ""]
            assert re.findall(r"[\d.]+", cell) == [x for text in digits for x in re.findall(r"[\d.]+", text)]


@pytest.mark.parametrize("make", TABLES)
def test_the_csv_holds_the_spread_over_seeds_too(make: MakeTable) -> None:
    table = make(make_results(0, 1, 2), "drawn people")
    frame = to_frame(table)
    for (_, written), record in zip(frame.iterrows(), table.records, strict=True):
        for column in table.columns:
            cell = record.get(column.key)
            if isinstance(cell, Summary) and cell.value is not None:
                assert cell.sd is not None
                assert written[f"{column.key}_sd"] == column.number(cell.sd) != ""
    one = to_frame(make(make_results(0), "drawn people"))
    assert {text for key in one if key.endswith("_sd") for text in one[key]} == {""}


@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_score_has_an_interval(make: MakeTable, seeds: tuple[int, ...]) -> None:
    table = make(make_results(*seeds), "drawn people")
    scores = [i for i, column in enumerate(table.columns) if column.direction == "↑"]
    assert scores
    for cells in body(table):
        assert all(re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", cells[i]) for i in scores), cells


def test_seeds_and_persons_are_counted() -> None:
    for seeds in ((0,), (0, 1, 2)):
        for make in (overview_table, systems_table, score_rules_table, presence_table):
            table = make(make_results(*seeds), "drawn people")
            places = [column.header for column in table.columns]
            for line in body(table):
                assert line[places.index("seeds (n)")] == str(len(seeds))
                assert line[places.index("persons (n)")] == "12"


def test_every_system_shows_its_floors() -> None:
    table = presence_table(make_results(0), "drawn people")
    sources = {(str(record["system"]), str(record["source"])) for record in table.records}
    assert sources == {(name, floor) for name in SYSTEMS for floor in ("heatmap peak", "always present")} | {
        ("vitpose_presence", "presence head")
    }


def test_presence_is_read_from_the_head_where_there_is_one() -> None:
    plain, head = make_result("a"), make_result("b", head=True)
    assert (main_source(plain), main_source(head)) == (HEATMAP_PEAK, PRESENCE_HEAD)
    table = overview_table([plain, head], "drawn people")
    assert [record["source"] for record in table.records] == ["heatmap peak", "presence head"]
    assert [record["F1"] for record in table.records] == [
        plain.number(presence(HEATMAP_PEAK, "F1")),
        head.number(presence(PRESENCE_HEAD, "F1")),
    ]


def test_localisation_has_all_ten_numbers() -> None:
    (result,) = results = [make_result("hrnet")]
    (record,) = systems_table(results, "drawn people").records
    assert {stat: record[stat] for stat in STATS} == {stat: result.number(oks(stat)) for stat in STATS}
    assert record["boxes"] == "ground truth"


def test_detected_and_annotated_boxes_have_a_line_each() -> None:
    result = make_result("hrnet", detected=True)
    on_detected, on_annotated = systems_table([result], "photographed people").records
    assert [line["boxes"] for line in (on_detected, on_annotated)] == ["detected", "ground truth"]
    assert on_detected["AR"] == result.number(oks("AR"))
    assert on_annotated["AR"] == result.number(annotated_boxes("AR")) != on_detected["AR"]


def test_score_rules_are_those_that_a_system_can_answer() -> None:
    plain, head = make_result("hrnet"), make_result("vitpose_presence", head=True)
    table = score_rules_table([plain, head], "drawn people")
    needs = [rule for rule in SCORE_RULES if SCORE_RULES[rule].needs_presence]
    assert needs
    assert [(record["system"], record["rule"]) for record in table.records] == [
        *[("hrnet", rule) for rule in SCORE_RULES if rule not in needs],
        *[("vitpose_presence", rule) for rule in SCORE_RULES],
    ]
    for record in table.records:
        result, rule = plain if record["system"] == "hrnet" else head, str(record["rule"])
        assert record["meaning"] == SCORE_RULES[rule].meaning
        assert record["AP"] == result.number(score_rule(rule, "AP"))


COMPARISONS = [
    Comparison("a", "b", "AP", Summary(0.012, -0.004, 0.031, None, 3), 0.0312, 0.0624, 0.024, "permutation", 333),
    Comparison("a", "c", "F1", Summary(-0.2, -0.3, -0.1, None, 1), 0.002, 0.004, 0.05, "bootstrap", 333),
    Comparison("a", "d", "F1", Summary(None, None, None, None, 1), None, None, None, "bootstrap", 333),
]


def test_differences_stand_with_all_that_belongs_to_them() -> None:
    table = comparison_table("differences", "Systems compared on drawn people", COMPARISONS)
    assert body(table) == [
        [
            "b",
            "a",
            "AP",
            "+1.2 [-0.4, +3.1]",
            "0.0312",
            "0.0624",
            "not clearly different",
            "permutation",
            "2.4",
            "3",
            "333",
        ],
        ["c", "a", "F1", "-20.0 [-30.0, -10.0]", "0.0020", "0.0040", "worse", "bootstrap", "5.0", "1", "333"],
        ["d", "a", "F1", UNDEFINED, UNDEFINED, UNDEFINED, "not clearly different", "bootstrap", UNDEFINED, "1", "333"],
    ]
    header = to_markdown(table).splitlines()[2]
    wanted = {"of", "minus", "difference ↑ (points)", "p", "p, corrected", "smallest detectable (points)", "images (n)"}
    assert wanted <= {cell.strip() for cell in header.split("|")}
    frame = to_frame(table)
    assert frame.loc[0, ["difference", "difference_low", "difference_high", "p_corrected"]].tolist() == [
        "+1.2", "-0.4", "+3.1", "0.0624",
    ]  # fmt: skip
    assert frame.loc[2, ["difference", "difference_low", "p"]].tolist() == ["", "", ""]


def test_one_seed_has_a_dash_for_its_spread() -> None:
    def spreads(*seeds: int) -> set[str]:
        table = systems_table(make_results(*seeds), "drawn people")
        place = [column.key for column in table.columns].index("AP_spread")
        return {cells[place] for cells in body(table)}

    assert spreads(0) == {UNDEFINED}
    assert UNDEFINED not in spreads(0, 1)


def test_every_title_says_drawn_people() -> None:
    for make in TABLES:
        assert "drawn people" in to_markdown(make(make_results(0), "drawn people")).splitlines()[0]


def test_full_precision_is_kept_beside() -> None:
    results = make_results(0, 1)
    rows = [row for result in results for row in result.rows]
    frame = rows_frame(rows).set_index(["run", "seed", "number"])
    assert frame.index.is_unique
    assert len(frame) == sum(len(row.numbers) + len(row.thresholds) for row in rows)
    for key in (oks("AP"), score_rule("box", "AR"), presence(HEATMAP_PEAK, "F1", "left_knee")):
        estimate = results[2].rows[1].numbers[key]
        assert frame.loc[("hrnet", 1, key)].tolist() == [estimate.value, estimate.low, estimate.high]
    assert frame.loc[("hrnet", 1, "threshold/heatmap_peak"), "value"] == 0.21


def test_thresholds_of_seeds_are_all_named() -> None:
    result = make_result("hrnet", (0, 1))
    other = result.rows[1].model_copy(update={"thresholds": {**result.rows[1].thresholds, HEATMAP_PEAK: 0.3}})
    changed = result._replace(rows=[result.rows[0], other])
    assert [line[2] for line in body(presence_table([result], "x"))] == ["0.210", "1.000"]
    assert [line[2] for line in body(presence_table([changed], "x"))] == ["0.210, 0.300", "1.000"]


def reached(detected: bool = False, num_parameters: int = 28_536_000, **numbers: float) -> Result:
    """HRNet on photographs with these numbers."""
    columns = {
        key.replace("true_", "annotated_boxes/") if key.startswith("true_") else oks(key): np.full(
            (1, 1 + NUM_RESAMPLES), value
        )
        for key, value in numbers.items()
    }
    data = make_result("hrnet").row.data.model_copy(update={"source": "coco"})
    return make_result("hrnet", columns=columns, detected=detected, num_parameters=num_parameters, data=data)


def test_a_published_system_stands_beside_its_row() -> None:
    """HRNet-W32: 74.4 and 79.8 with detected boxes, 76.5 with the annotated ones (its README, a rerun)."""
    found = {"AP": 0.75, "AR": 0.79, "AP50": 0.9, "AP75": 0.82}
    lines = body(expected_table([reached(**found)], {"hrnet": "hrnet_w32"}))
    assert [line[2:6] for line in lines] == [
        ["AP", "detected", "74.4", "ground truth"],
        ["AP50", "detected", "90.5", "ground truth"],
        ["AP75", "detected", "81.9", "ground truth"],
        ["AR", "detected", "79.8", "ground truth"],
        ["AP", "ground truth", "76.5", "ground truth"],
    ]
    assert [line[6] for line in lines] == [
        "75.0 [75.0, 75.0]", "90.0 [90.0, 90.0]", "82.0 [82.0, 82.0]", "79.0 [79.0, 79.0]", "75.0 [75.0, 75.0]",
    ]  # fmt: skip
    assert [line[7] for line in lines] == ["+0.6", "-0.5", "+0.1", "-0.8", "-1.5"]
    assert {line[1] for line in lines} == {"HRNet-W32"}
    for result in (make_result("hrnet", num_parameters=28_536_000), reached(num_parameters=1_500_000, **found)):
        assert {line[7] for line in body(expected_table([result], {"hrnet": "hrnet_w32"}))} == {UNDEFINED}


def test_published_numbers_stand_beside_those_of_the_same_boxes() -> None:
    found = {"AP": 0.75, "AR": 0.79, "AP50": 0.9, "AP75": 0.82, "true_AP": 0.77}
    lines = body(expected_table([reached(detected=True, **found)], {"hrnet": "hrnet_w32"}))
    assert [(line[2], line[3], line[5], line[7]) for line in lines] == [
        ("AP", "detected", "detected", "+0.6"),
        ("AP50", "detected", "detected", "-0.5"),
        ("AP75", "detected", "detected", "+0.1"),
        ("AR", "detected", "detected", "-0.8"),
        ("AP", "ground truth", "ground truth", "+0.5"),
    ]


def test_numbers_of_presence_on_few_keypoints_are_marked_and_no_others() -> None:
    columns = [Column("n", "n"), presence_percent("AUROC", "AUROC"), percent("AP", "AP")]
    number = Summary(0.9, 0.8, 0.95, None, 1)
    records: list[dict[str, Cell]] = [
        {"n": 1, "AUROC": number, "AP": number, "absent": 29, "present": 500},
        {"n": 2, "AUROC": number, "AP": number, "absent": 500, "present": 29},
        {"n": 3, "AUROC": number, "AP": number, "absent": 30, "present": 30},
        {"n": 4, "AUROC": None, "AP": number, "absent": 0, "present": 500},
    ]
    text = "90.0 [80.0, 95.0]"
    assert body(Table("t", "t", columns, records)) == [
        ["1", f"{text} {FEW_MARK}", text],
        ["2", f"{text} {FEW_MARK}", text],
        ["3", text, text],
        ["4", UNDEFINED, text],
    ]


def test_a_difference_on_few_keypoints_is_never_called_better() -> None:
    clear = Comparison("a", "b", "AUROC, known", Summary(0.5, 0.4, 0.6, None, 1), 0.001, 0.001, 0.1, "bootstrap", 333)
    assert clear.verdict == "better"
    few = clear._replace(is_scarce=True)
    assert not few.is_clear
    assert few.verdict == "too few absent or present keypoints (n < 30)"
