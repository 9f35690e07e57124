"""Tables of summaries: a page's Markdown and a CSV that holds the very same digits."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from bench.data.keypoints import KEYPOINT_NAMES
from bench.published import PUBLISHED
from bench.reporting.markdown import UNDEFINED, escape
from bench.reporting.rows import (
    ALWAYS_PRESENT,
    HEATMAP_PEAK,
    OKS_METRICS,
    PRESENCE_HEAD,
    PRESENCE_METRICS,
    SOURCES,
    Row,
    Source,
    Summary,
    by_experiment,
    keypoint_presence,
    oks,
    presence,
    summarise,
    trainings,
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
    """`name` is the CSV's; a record maps column keys to cells."""

    name: str
    title: str
    columns: Sequence[Column]
    records: Sequence[Mapping[str, Cell]]


def percent(key: str, label: str) -> Column:
    """A fraction for which more is better, printed x100."""
    return Column(key, label, "↑", "%", 100.0, 1)


def format_cell(column: Column, cell: Cell) -> str:
    """A cell of the page: `52.1 [49.8, 54.3]` for one seed, `52.1 ± 0.4` for several, an en dash where undefined."""
    if isinstance(cell, str):
        return escape(cell)
    if not isinstance(cell, Summary):
        return column.number(cell) or UNDEFINED
    value, low, high, sd = (column.number(number) or UNDEFINED for number in cell[:4])
    if cell.value is None:
        return UNDEFINED
    return f"{value} ± {sd}" if cell.num_seeds > 1 else f"{value} [{low}, {high}]"


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown, its title above it."""
    cells = [[format_cell(column, record.get(column.key)) for column in table.columns] for record in table.records]
    frame = pd.DataFrame(cells, columns=[escape(column.header) for column in table.columns])
    align = ["left" if _is_text(table, column) else "right" for column in table.columns]
    return f"**{escape(table.title)}**\n\n{frame.to_markdown(index=False, disable_numparse=True, colalign=align)}"


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
AP_SPREAD = Column("AP_spread", "AP sd over seeds", "↓", "%", 100.0, 1)


def systems_table(rows: Sequence[Row], people: str) -> Table:
    """Localisation: one line per system."""
    scores = [percent(metric, metric) for metric in OKS_METRICS]
    columns = [
        SYSTEM,
        *scores,
        AP_SPREAD,
        SEEDS,
        PERSONS,
        Column("parameters", "parameters", "↓", "M", 1e-6, 2),
        Column("presence_parameters", "of these presence head", "↓", "k", 1e-3, 1),
        Column("macs", "multiply-adds per image", "↓", "G", 1e-9, 2),
        Column("input_size", "input (w x h)"),
    ]
    records = []
    for name, group in by_experiment(rows).items():
        summaries = {metric: summarise(group, oks(metric)) for metric in OKS_METRICS}
        records.append(
            {
                "system": name,
                **summaries,
                "AP_spread": summaries["AP"].sd,
                **counts(group),
                "parameters": group[0].num_parameters,
                "presence_parameters": group[0].num_presence_parameters,
                "macs": group[0].num_macs,
                "input_size": "{} x {}".format(*group[0].input_size),
            }
        )
    return Table("systems", f"Localisation on {people}", columns, records)


def expected_table(rows: Sequence[Row], published: Mapping[str, str]) -> Table:
    """What systems with a published counterpart should reach: one line per system and metric.

    `published` maps systems to keys of `bench.published`. The published numbers are of COCO val2017 with detected
    boxes, or with the true ones where `boxes` says so; a difference is printed only where this row's people are COCO's
    and its model has the published size.
    """
    columns = [
        SYSTEM,
        Column("published", "published as"),
        Column("metric", "metric"),
        Column("boxes", "boxes of the published number"),
        Column("expected", "published", "↑", "%", 100.0, 1),
        Column("found_boxes", "boxes here"),
        percent("found", "here"),
        Column("difference", "here - published", "", "points", 100.0, 1, signed=True),
        SEEDS,
        PERSONS,
        Column("source", "source"),
    ]
    groups = by_experiment(rows)
    records = [line for name, key in published.items() for line in _expected(name, groups[name], key)]
    return Table("expected", "Published results beside those found here", columns, records)


def _expected(name: str, group: Sequence[Row], key: str) -> Iterator[dict[str, Cell]]:
    """AP and AR under each box protocol that was published."""
    system, first = PUBLISHED[key], group[0]
    num_parameters = (first.num_parameters - first.num_presence_parameters) / 1e6
    compares = first.data.source == "coco" and math.isclose(num_parameters, system.num_parameters, rel_tol=0.02)
    for boxes, reached in (("detected", system.detected_boxes), ("ground truth", system.true_boxes)):
        for metric in ("AP", "AP50", "AP75", "AR"):
            expected = getattr(reached, metric, None)
            if expected is None:
                continue
            found = summarise(group, oks(metric))
            yield {
                "system": name,
                "published": system.title,
                "metric": metric,
                "boxes": boxes,
                "expected": expected,
                "found_boxes": first.protocol.boxes,
                "found": found,
                "difference": None if found.value is None or not compares else found.value - expected,
                **counts(group),
                "source": system.source,
            }


def presence_table(rows: Sequence[Row], people: str) -> Table:
    """Presence: one line per system and source, the floors included."""
    columns = [
        SYSTEM,
        Column("source", "presence read from"),
        Column("threshold", "threshold", decimals=3),
        *(percent(metric, metric) for metric in PRESENCE_METRICS),
        SEEDS,
        PERSONS,
    ]
    records = [
        {
            "system": name,
            "source": label,
            "threshold": _threshold(group, source),
            **{metric: summarise(group, presence(source, metric)) for metric in PRESENCE_METRICS},
            **counts(group),
        }
        for name, group in by_experiment(rows).items()
        for source, label in SOURCES.items()
        if all(source in row.presence for row in group)
    ]
    return Table("presence", f"Presence of keypoints on {people}", columns, records)


def overview_table(rows: Sequence[Row], people: str) -> Table:
    """The main comparison: localisation and presence side by side, from the best source that a system has."""
    columns = [
        SYSTEM,
        percent("AP", "AP"),
        percent("AR", "AR"),
        Column("source", "presence read from"),
        percent("F1", "presence F1"),
        percent("AUROC", "presence AUROC"),
        percent("always_present", "F1 of always present"),
        SEEDS,
        PERSONS,
    ]
    records = []
    for name, group in by_experiment(rows).items():
        source = main_source(group)
        records.append(
            {
                "system": name,
                **{metric: summarise(group, oks(metric)) for metric in ("AP", "AR")},
                "source": SOURCES[source],
                **{metric: summarise(group, presence(source, metric)) for metric in ("F1", "AUROC")},
                "always_present": summarise(group, presence(ALWAYS_PRESENT, "F1")),
                **counts(group),
            }
        )
    return Table("overview", f"Systems on {people}", columns, records)


def main_source(group: Sequence[Row]) -> Source:
    """The presence head where a system has one, else the heatmap peak."""
    return PRESENCE_HEAD if all(PRESENCE_HEAD in row.presence for row in group) else HEATMAP_PEAK


def keypoint_table(rows: Sequence[Row], people: str) -> Table:
    """Presence F1 per keypoint: one line per keypoint, one column per system and source."""
    groups = by_experiment(rows)
    picks: list[tuple[Column, list[Row], Source]] = []
    first = next(iter(groups.values()))
    picks.append((percent("always_present", "always present"), first, ALWAYS_PRESENT))
    for name, group in groups.items():
        for source in (PRESENCE_HEAD, HEATMAP_PEAK):
            if all(source in row.presence for row in group):
                picks.append((percent(f"{name}_{source}", f"{name}, {SOURCES[source]}"), group, source))
    prevalence = Column("prevalence", "labelled present", "", "%", 100.0, 1)
    records = [
        {
            "keypoint": keypoint.replace("_", " "),
            "prevalence": first[0].data.prevalence[k],
            **{column.key: summarise(group, keypoint_presence(source, "F1", k)) for column, group, source in picks},
        }
        for k, keypoint in enumerate(KEYPOINT_NAMES)
    ]
    columns = [Column("keypoint", "keypoint"), prevalence, *(column for column, _, _ in picks)]
    return Table("presence_per_keypoint", f"Presence F1 per keypoint on {people}", columns, records)


def counts(group: Sequence[Row]) -> dict[str, Cell]:
    """Seeds and persons behind a line."""
    return {"seeds": len(trainings(group)), "persons": group[0].data.num_persons}


def rows_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Every number of every row at full precision, one line each."""
    records = []
    for row in rows:
        key = {"run": row.experiment, "seed": row.seed}
        for metric, estimate in row.oks.items():
            records.append({**key, "source": "oks", "keypoint": "", "metric": metric, **estimate.model_dump()})
        for source, result in row.presence.items():
            pooled = {**key, "source": source, "keypoint": "all"}
            records.append({**pooled, "metric": "threshold", "value": result.threshold})
            for metric, estimate in result.micro.items():
                records.append({**pooled, "metric": metric, **estimate.model_dump()})
            for metric, estimates in result.per_keypoint.items():
                for keypoint, estimate in zip(KEYPOINT_NAMES, estimates, strict=True):
                    records.append({**pooled, "keypoint": keypoint, "metric": metric, **estimate.model_dump()})
    return pd.DataFrame(records)


def _threshold(group: Sequence[Row], source: Source) -> float | str:
    thresholds = [row.presence[source].threshold for row in group]
    if len(set(thresholds)) == 1:
        return thresholds[0]
    return ", ".join(f"{threshold:.3f}" for threshold in thresholds)
