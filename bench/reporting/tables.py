"""Tables of summaries: a page's Markdown and a CSV that holds the very same digits."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from bench.data.keypoints import KEYPOINT_NAMES
from bench.inference.scoring import SCORE_RULES
from bench.metrics.average_precision import STATS
from bench.metrics.bootstrap import MIN_KEYPOINTS
from bench.published import PUBLISHED
from bench.reporting.markdown import FEW_MARK, UNDEFINED, escape
from bench.reporting.results import Comparison, Result, Summary
from bench.reporting.rows import (
    ALWAYS_PRESENT,
    HEATMAP_PEAK,
    METRICS,
    PRESENCE_HEAD,
    SOURCES,
    Row,
    Source,
    annotated_boxes,
    oks,
    presence,
    score_rule,
)

Cell = Summary | str | float | int | None


class Column(NamedTuple):
    """How one column is printed: numbers are multiplied by `scale` and rounded to `decimals`."""

    key: str
    label: str
    direction: Literal["", "↑", "↓"] = ""
    unit: str = ""
    scale: float = 1.0
    decimals: int = 0
    signed: bool = False
    estimated: bool = False  # from a sample of images: every number has its interval
    of_presence: bool = False  # of absent and present keypoints: marked where a line has few of either

    @property
    def header(self) -> str:
        unit = f"({self.unit})" if self.unit else ""
        return " ".join(part for part in (self.label, self.direction, unit) if part)

    def number(self, value: float | None) -> str:
        """The digits, the same on the page and in the CSV; empty when undefined."""
        if value is None:
            return ""
        text = f"{value * self.scale:{'+' if self.signed else ''}.{self.decimals}f}"
        return text.lstrip("+-") if float(text) == 0 else text


class Table(NamedTuple):
    """`name` is the CSV's; a record maps column keys to cells; `note` is Markdown that stands below."""

    name: str
    title: str
    columns: Sequence[Column]
    records: Sequence[Mapping[str, Cell]]
    note: str = ""


def percent(key: str, label: str) -> Column:
    """An estimated fraction for which more is better, printed x100."""
    return Column(key, label, "↑", "%", 100.0, 1, estimated=True)


def presence_percent(key: str, label: str) -> Column:
    """The same of a number that tells absent from present keypoints."""
    return percent(key, label)._replace(of_presence=True)


POINTS = Column("difference", "difference", "↑", "points", 100.0, 1, signed=True, estimated=True)


def format_cell(column: Column, cell: Cell) -> str:
    """A cell of the page: `52.1 [49.8, 54.3]`, an en dash where undefined."""
    if isinstance(cell, str):
        return escape(cell)
    if not isinstance(cell, Summary):
        assert not column.estimated or cell is None, f"{column.key}: a number without its interval"
        return column.number(cell) or UNDEFINED
    value, low, high = (column.number(number) or UNDEFINED for number in cell[:3])
    return UNDEFINED if cell.value is None else f"{value} [{low}, {high}]"


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown, its title above it."""
    cells = [[_marked(column, record) for column in table.columns] for record in table.records]
    frame = pd.DataFrame(cells, columns=[escape(column.header) for column in table.columns])
    align = ["left" if _is_text(table, column) else "right" for column in table.columns]
    body = frame.to_markdown(index=False, disable_numparse=True, colalign=align)
    return "\n\n".join(part for part in (f"**{escape(table.title)}**", body, table.note) if part)


def _marked(column: Column, record: Mapping[str, Cell]) -> str:
    """A cell; a number of presence with the mark of few keypoints where the line has few of a class."""
    text = format_cell(column, record.get(column.key))
    classes = [record[name] for name in ("absent", "present") if isinstance(record.get(name), int)]
    few = column.of_presence and text != UNDEFINED and any(int(str(n)) < MIN_KEYPOINTS for n in classes)
    return f"{text} {FEW_MARK}" if few else text


def to_frame(table: Table) -> pd.DataFrame:
    """The table as text with the page's digits; a summary takes columns <key>, <key>_low, <key>_high and <key>_sd."""
    return pd.DataFrame([_flatten(table.columns, record) for record in table.records]).fillna("")


def write_csv(table: Table, folder: Path) -> None:
    """`<folder>/<name>.csv`."""
    to_frame(table).to_csv(folder / f"{table.name}.csv", index=False, lineterminator="\n")


def _flatten(columns: Sequence[Column], record: Mapping[str, Cell]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for column in columns:
        cell = record.get(column.key)
        if isinstance(cell, Summary):
            keys = (column.key, f"{column.key}_low", f"{column.key}_high", f"{column.key}_sd")
            flat |= {key: column.number(value) for key, value in zip(keys, cell[:4], strict=True)}
        else:
            flat[column.key] = cell if isinstance(cell, str) else column.number(cell)
    return flat


def _is_text(table: Table, column: Column) -> bool:
    return any(isinstance(record.get(column.key), str) for record in table.records)


SYSTEM = Column("system", "system")
SEEDS = Column("seeds", "seeds (n)")
PERSONS = Column("persons", "persons (n)")
IMAGES = Column("images", "images (n)")
ABSENT = Column("absent", "absent (n)")
AP_SPREAD = Column("AP_spread", "AP sd over seeds", "↓", "%", 100.0, 1)


def systems_table(results: Sequence[Result], people: str) -> Table:
    """Localisation: one line per system, and one more on annotated boxes where the protocol has detected ones."""
    columns = [
        SYSTEM,
        Column("boxes", "boxes"),
        *(percent(stat, stat) for stat in STATS),
        AP_SPREAD,
        SEEDS,
        PERSONS,
        Column("parameters", "parameters", "↓", "M", 1e-6, 2),
        Column("presence_parameters", "of these presence head", "↓", "k", 1e-3, 1),
        Column("macs", "multiply-adds per image", "↓", "G", 1e-9, 2),
        Column("input_size", "input (w x h)"),
    ]
    records = [
        {
            "system": result.name,
            "boxes": boxes,
            **{stat: result.number(key(stat)) for stat in STATS},
            "AP_spread": result.number(key("AP")).sd,
            **counts(result),
            "parameters": result.row.num_parameters,
            "presence_parameters": result.row.num_presence_parameters,
            "macs": result.row.num_macs,
            "input_size": "{} x {}".format(*result.row.input_size),
        }
        for result in results
        for boxes, key in _box_protocols(result)
    ]
    return Table("systems", f"Localisation on {people}", columns, records)


def _box_protocols(result: Result) -> Iterator[tuple[str, Callable[[str], str]]]:
    """The boxes that a result was tested on, and how its numbers on them are named."""
    yield result.row.protocol.boxes, oks
    if annotated_boxes("AP") in result.keys:
        yield "ground truth", annotated_boxes


def score_rules_table(results: Sequence[Result], people: str) -> Table:
    """AP and AR of every system had its persons been scored by another rule: one line per system and rule."""
    columns = [
        SYSTEM,
        Column("rule", "score rule"),
        Column("meaning", "score of a person"),
        *(percent(stat, stat) for stat in ("AP", "AR")),
        SEEDS,
        PERSONS,
    ]
    records = [
        {
            "system": result.name,
            "rule": rule,
            "meaning": SCORE_RULES[rule].meaning,
            **{stat: result.number(score_rule(rule, stat)) for stat in ("AP", "AR")},
            **counts(result),
        }
        for result in results
        for rule in SCORE_RULES
        if score_rule(rule, "AP") in result.keys
    ]
    return Table("score_rules", f"Score rules on {people}", columns, records)


def comparison_table(name: str, title: str, comparisons: Sequence[Comparison], note: str = "") -> Table:
    """Paired differences, one line each."""
    columns = [
        Column("second", "of"),
        Column("first", "minus"),
        Column("metric", "metric"),
        POINTS,
        Column("p", "p", decimals=4),
        Column("p_corrected", "p, corrected", decimals=4),
        Column("verdict", "verdict"),
        Column("test", "test"),
        Column("detectable", "smallest detectable", "", "points", 100.0, 1),
        SEEDS,
        IMAGES,
    ]
    records: list[dict[str, Cell]] = [
        {
            "second": comparison.second,
            "first": comparison.first,
            "metric": comparison.label,
            "difference": comparison.difference,
            "p": comparison.p,
            "p_corrected": comparison.p_corrected,
            "verdict": comparison.verdict,
            "test": comparison.test,
            "detectable": comparison.detectable,
            "seeds": comparison.difference.num_seeds,
            "images": comparison.num_images,
        }
        for comparison in comparisons
    ]
    return Table(name, title, columns, records, note)


def verdict(made: Comparison) -> str:
    """A comparison in words, with its number."""
    return f"{made.verdict} ({format_cell(POINTS, made.difference)} points)"


def expected_table(results: Sequence[Result], published: Mapping[str, str]) -> Table:
    """What systems with a published counterpart should reach: one line per system and metric.

    `published` maps systems to keys of `bench.published`. The published numbers are of COCO val2017 with detected
    boxes, or with the true ones where `boxes` says so, and come without intervals; a difference is printed only where
    this row's people are COCO's and its model has the published size.
    """
    columns = [
        SYSTEM,
        Column("published", "published as"),
        Column("metric", "metric"),
        Column("boxes", "boxes of the published number"),
        Column("expected", "published, no interval stated", "↑", "%", 100.0, 1),
        Column("found_boxes", "boxes here"),
        percent("found", "here"),
        Column("difference", "here - published", "", "points", 100.0, 1, signed=True),
        SEEDS,
        PERSONS,
        Column("source", "source"),
    ]
    by_name = {result.name: result for result in results}
    records = [line for name, key in published.items() for line in _expected(by_name[name], key)]
    return Table("expected", "Published results beside those found here", columns, records)


def _expected(result: Result, key: str) -> Iterator[dict[str, Cell]]:
    """AP and AR under each box protocol that was published, beside the same protocol here where it ran."""
    system, row = PUBLISHED[key], result.row
    num_parameters = (row.num_parameters - row.num_presence_parameters) / 1e6
    compares = row.data.source == "coco" and math.isclose(num_parameters, system.num_parameters, rel_tol=0.02)
    ran = dict(_box_protocols(result))
    for boxes, reached in (("detected", system.detected_boxes), ("ground truth", system.true_boxes)):
        found_boxes = boxes if boxes in ran else row.protocol.boxes
        for metric in ("AP", "AP50", "AP75", "AR"):
            expected = getattr(reached, metric, None)
            if expected is None:
                continue
            found = result.number(ran[found_boxes](metric))
            yield {
                "system": result.name,
                "published": system.title,
                "metric": metric,
                "boxes": boxes,
                "expected": expected,
                "found_boxes": found_boxes,
                "found": found,
                "difference": None if found.value is None or not compares else found.value - expected,
                **counts(result),
                "source": system.source,
            }


def presence_table(results: Sequence[Result], people: str) -> Table:
    """Presence: one line per system and source, the floors included."""
    columns = [
        SYSTEM,
        Column("source", "presence read from"),
        Column("threshold", "threshold", decimals=3),
        *(presence_percent(metric, metric) for metric in METRICS),
        ABSENT,
        SEEDS,
        PERSONS,
    ]
    records = [
        {
            "system": result.name,
            "source": label,
            "threshold": _threshold(result.rows, source),
            **{metric: result.number(presence(source, metric)) for metric in METRICS},
            **counts(result),
        }
        for result in results
        for source, label in SOURCES.items()
        if source in result.row.thresholds
    ]
    return Table("presence", f"Presence of keypoints on {people}", columns, records)


def overview_table(results: Sequence[Result], people: str) -> Table:
    """The main comparison: localisation and presence side by side, from the best source that a system has."""
    columns = [
        SYSTEM,
        percent("AP", "AP"),
        percent("AR", "AR"),
        Column("source", "presence read from"),
        presence_percent("F1", "presence F1"),
        presence_percent("AUROC", "presence AUROC"),
        presence_percent("always_present", "F1 of always present"),
        ABSENT,
        SEEDS,
        PERSONS,
    ]
    records = []
    for result in results:
        source = main_source(result)
        records.append(
            {
                "system": result.name,
                **{stat: result.number(oks(stat)) for stat in ("AP", "AR")},
                "source": SOURCES[source],
                **{metric: result.number(presence(source, metric)) for metric in ("F1", "AUROC")},
                "always_present": result.number(presence(ALWAYS_PRESENT, "F1")),
                **counts(result),
            }
        )
    return Table("overview", f"Systems on {people}", columns, records)


def main_source(result: Result) -> Source:
    """The presence head where a system has one, else the heatmap peak."""
    return PRESENCE_HEAD if PRESENCE_HEAD in result.row.thresholds else HEATMAP_PEAK


def keypoint_table(results: Sequence[Result], people: str) -> Table:
    """Presence F1 per keypoint: one line per keypoint, one column per system and source."""
    first = results[0]
    picks: list[tuple[Column, Result, Source]] = []
    picks.append((percent("always_present", "always present"), first, ALWAYS_PRESENT))
    for result in results:
        for source in (PRESENCE_HEAD, HEATMAP_PEAK):
            if source in result.row.thresholds:
                column = percent(f"{result.name}_{source}", f"{result.name}, {SOURCES[source]}")
                picks.append((column, result, source))
    prevalence = Column("prevalence", "labelled present", "", "%", 100.0, 1)
    records = [
        {
            "keypoint": keypoint.replace("_", " "),
            "prevalence": first.row.data.prevalence[k],
            **{column.key: result.number(presence(source, "F1", keypoint)) for column, result, source in picks},
        }
        for k, keypoint in enumerate(KEYPOINT_NAMES)
    ]
    columns = [Column("keypoint", "keypoint"), prevalence, *(column for column, _, _ in picks)]
    return Table("presence_per_keypoint", f"Presence F1 per keypoint on {people}", columns, records)


def counts(result: Result) -> dict[str, Cell]:
    """Seeds, persons and keypoints of either class behind a line."""
    data = result.row.data
    return {
        "seeds": len(result.rows), "persons": data.num_persons, "absent": data.num_absent, "present": data.num_present
    }  # fmt: skip


def rows_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Every number of every row at full precision, one line each, and the thresholds."""
    records: list[dict[str, object]] = []
    for row in rows:
        run = {"run": row.experiment, "seed": row.seed}
        records += [{**run, "number": f"threshold/{name}", "value": value} for name, value in row.thresholds.items()]
        records += [{**run, "number": key, **estimate.model_dump()} for key, estimate in row.numbers.items()]
    return pd.DataFrame(records)


def _threshold(rows: Sequence[Row], source: Source) -> float | str | None:
    thresholds = [row.thresholds[source] for row in rows]
    if len(set(thresholds)) == 1:
        return thresholds[0]
    return ", ".join(UNDEFINED if threshold is None else f"{threshold:.3f}" for threshold in thresholds)
