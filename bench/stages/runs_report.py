"""Stage runs_report: a page for every trained run: its curves, parameters, numbers, and where they come from."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bench.metrics.average_precision import STATS
from bench.reporting import markdown, tables
from bench.reporting.figures import ABOUT_CURVES, draw_curves, save
from bench.reporting.parallel import map_on_cores
from bench.reporting.results import Summary
from bench.reporting.rows import METRICS, PRESENCE_KEYS, SOURCES, Row, load_rows, oks, presence
from bench.reporting.tables import Cell, Column, Table, percent, presence_percent
from bench.stages.command import run_command
from bench.stages.files import RunFiles, plan_dir, read_model, write_text

REPORTS = Path("reports")


class RunsPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    systems: list[str]
    ablations: dict[str, str]  # name -> its parent
    parameters: dict[str, dict[str, Any]]  # run -> stage -> resolved


def main(profile: str) -> None:
    """Write reports/<profile>/runs."""
    plan = read_model(plan_dir(profile) / "runs_report.json", RunsPlan)
    runs_dir = Path("runs", profile)
    rows = load_rows(runs_dir, plan.systems, plan.seeds)
    rows += load_rows(runs_dir, list(plan.ablations), plan.seeds, stage="evaluate_ablation")
    folder = REPORTS / profile / "runs"
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier run generated
    map_on_cores(partial(write_run, folder, plan, runs_dir), rows)
    shown = runs_table(plan, rows)
    tables.write_csv(shown, folder)
    page = markdown.render(
        INDEX,
        profile=profile,
        people=markdown.people_of(rows),
        note=markdown.empty_class_note(rows),
        table=tables.to_markdown(shown),
        few=markdown.how_to_read_few(),
        pages={markdown.escape(f"{row.experiment}, seed {row.seed}"): folder_of(row) for row in rows},
    )
    write_text(folder / "README.md", page)


def folder_of(row: Row) -> str:
    return RunFiles(row.profile, row.experiment, row.seed).name


def write_run(runs_folder: Path, plan: RunsPlan, runs_dir: Path, row: Row) -> None:
    """The page of one run."""
    folder = runs_folder / folder_of(row)
    folder.mkdir(parents=True, exist_ok=True)
    people = markdown.people_of([row])
    parameters = parameters_table(row.experiment, plan.parameters[row.experiment])
    tables.write_csv(parameters, folder)
    tables.rows_frame([row]).to_csv(folder / "row.csv", index=False, lineterminator="\n")
    save(draw_curves(runs_dir, [row.experiment], [row.seed], people), folder / "curves.png")
    page = markdown.render(
        PAGE,
        name=markdown.escape(row.experiment),
        seed=row.seed,
        folder=folder.name,
        profile=plan.profile,
        parent=markdown.escape(plan.ablations[row.experiment]) if row.experiment in plan.ablations else "",
        facts=markdown.one_line([row]),
        note=markdown.empty_class_note([row]),
        about_curves=ABOUT_CURVES,
        numbers=tables.to_markdown(numbers_table(row)),
        parameters=tables.to_markdown(parameters),
        provenance=markdown.provenance([row]),
    )
    write_text(folder / "README.md", page)


def runs_table(plan: RunsPlan, rows: Sequence[Row]) -> Table:
    """A line per run."""
    sources = {source: label for source, label in SOURCES.items() if any(source in row.thresholds for row in rows)}
    columns = [
        Column("run", "run"),
        Column("seed", "seed"),
        Column("parent", "varies"),
        Column("parameters", "parameters", "↓", "M", 1e-6, 2),
        Column("epoch", "best epoch"),
        percent("AP", "AP"),
        *(presence_percent(source, f"presence AUROC, {label}") for source, label in sources.items()),
        tables.ABSENT,
    ]
    records: list[dict[str, Cell]] = [
        {
            "run": row.experiment,
            "seed": row.seed,
            "parent": plan.ablations.get(row.experiment, "nothing, a system"),
            "parameters": row.num_parameters,
            "epoch": row.best_epoch,
            "AP": number(row, oks("AP")),
            **{source: number(row, presence(source, "AUROC")) for source in sources},
            "absent": row.data.num_absent,
            "present": row.data.num_present,
        }
        for row in rows
    ]
    return Table("runs", f"Runs on {markdown.people_of(rows)}", columns, records)


def number(row: Row, key: str) -> Summary | None:
    """None where the row does not have it."""
    found = row.numbers.get(key)
    return Summary(found.value, found.low, found.high, None, 1) if found else None


def numbers_table(row: Row) -> Table:
    """What one run reached; `row.csv` has all of it."""
    keys = {stat: oks(stat) for stat in STATS}
    keys |= {
        f"presence {metric}, {SOURCES[source]}": presence(source, metric)
        for source in row.thresholds
        for metric in METRICS
    }
    columns = [Column("metric", "number"), presence_percent("value", "value")]
    classes: dict[str, Cell] = {"absent": row.data.num_absent, "present": row.data.num_present}
    records: list[dict[str, Cell]] = [
        {"metric": label, "value": number(row, key), **(classes if key.startswith(PRESENCE_KEYS) else {})}
        for label, key in keys.items()
    ]
    return Table("numbers", f"Numbers of {row.experiment}, seed {row.seed}", columns, records)


def parameters_table(run: str, parameters: Mapping[str, Any]) -> Table:
    """Every parameter of a run, resolved, by its dotted key below the stage that reads it."""
    columns = [Column("stage", "stage"), Column("key", "parameter"), Column("value", "value")]
    records: list[dict[str, Cell]] = [
        {"stage": stage, "key": key, "value": value}
        for stage, tree in parameters.items()
        for key, value in flatten(tree)
    ]
    return Table("parameters", f"Parameters of {run}", columns, records)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves by dotted key, spelled as JSON; a string as it is."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


INDEX = """\
# Runs on {{ people }} (profile {{ profile }})

A run is one experiment or ablation trained with one seed. Each has a page of its curves, its resolved parameters, its
numbers and where it comes from.

{{ note }}

{{ table }}

Brackets are 95 % intervals over the images of the val split. {{ few }}

An ablation varies one factor of the system that the table names. As CSV: [runs.csv](runs.csv).

{% for label, folder in pages.items() %}
- [{{ label }}]({{ folder }}/README.md)
{% endfor %}
"""

PAGE = """\
# Run {{ name }}, seed {{ seed }} (profile {{ profile }})

{{ facts }}

{% if parent %}
An ablation: it varies one factor of {{ parent }}, see [ablations](../../ablations/README.md).
{% else %}
A system: it stands beside the others in [systems](../../systems/README.md), its [pictures
too](../../systems/README.md#pictures); its worst errors of presence are in
[presence](../../presence/README.md#the-worst-errors). What it is for, and how it is loaded: its [model
card](../../cards/{{ folder }}/README.md).
{% endif %}

## Training

![Training curves of {{ name }}](curves.png)

{{ about_curves }}

## Numbers

{{ note }}

{{ numbers }}

All of them, of single keypoints too, at full precision: [row.csv](row.csv).

## Parameters

{{ parameters }}

As CSV: [parameters.csv](parameters.csv).

## Provenance

{{ provenance }}
"""

if __name__ == "__main__":
    run_command(main)
