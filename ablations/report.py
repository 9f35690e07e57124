"""Stage ablations: a table and a figure for every factor that was varied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ablations.compare import Ablation, Pick, Sweep, build_sweeps, difference, excludes_zero, spell
from bench.reporting import markdown, tables
from bench.reporting.figures import bars_note, draw_panels, metric_panels, save
from bench.reporting.rows import (
    ALWAYS_PRESENT,
    SOURCES,
    Row,
    by_experiment,
    load_rows,
    oks,
    presence,
    summarise,
)
from bench.reporting.tables import Cell, Column, Table, percent
from bench.stages.command import run_command
from bench.stages.files import plan_dir, read_model, write_text

REPORTS = Path("reports")


class AblationsPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    ablations: list[Ablation]


class Section(NamedTuple):
    """What the page shows of one sweep, as Markdown."""

    name: str
    factor: str
    parent: str
    note: str
    table: str
    findings: str


def main(profile: str) -> None:
    """Write reports/<profile>/ablations."""
    plan = read_model(plan_dir(profile) / "ablations.json", AblationsPlan)
    runs_dir = Path("runs", profile)
    parents = list(dict.fromkeys(ablation.parent for ablation in plan.ablations))
    changed = [ablation.name for ablation in plan.ablations]
    loaded = load_rows(runs_dir, parents, plan.seeds)
    rows = by_experiment([*loaded, *load_rows(runs_dir, changed, plan.seeds, stage="evaluate_ablation")])
    folder = REPORTS / profile / "ablations"
    markdown.fresh_folder(folder)
    write_page(folder, profile, build_sweeps(plan.ablations, rows), rows)


def write_page(folder: Path, profile: str, sweeps: list[Sweep], rows: Mapping[str, list[Row]]) -> None:
    """A section per sweep, and the page around them."""
    if not sweeps:
        write_text(folder / "README.md", f"# Ablations (profile {profile})\n\nNone is declared in `params.yaml`.\n")
        return
    shown = [row for group in rows.values() for row in group]
    tables.rows_frame(shown).to_csv(folder / "rows.csv", index=False, lineterminator="\n")
    page = markdown.render(
        PAGE,
        profile=profile,
        people=markdown.people_of(shown),
        how_to_read=markdown.how_to_read(shown),
        difference=DIFFERENCE_SEEDS if _num_seeds(shown) > 1 else DIFFERENCE_INTERVAL,
        limits=markdown.limits(shown),
        bars=bars_note(shown),
        sections=[write_section(folder, sweep) for sweep in sweeps],
        provenance=markdown.provenance(shown),
    )
    write_text(folder / "README.md", page)


def write_section(folder: Path, sweep: Sweep) -> Section:
    """The CSV and the figure of one sweep."""
    people = markdown.people_of(sweep.rows)
    table = sweep_table(sweep, people)
    tables.write_csv(table, folder)
    settings = sweep.settings
    values = [setting.value if isinstance(setting.value, int | float) else spell(setting.value) for setting in settings]
    parent = next(i for i, setting in enumerate(settings) if setting.is_parent)
    title = f"{sweep.factor} of {sweep.parent} on {people}, {bars_note(sweep.rows)}"
    figure = draw_panels(values, metric_panels([setting.rows for setting in settings]), title, sweep.factor, parent)
    save(figure, folder / f"{sweep.name}.png")
    return Section(
        name=sweep.name,
        factor=markdown.escape(sweep.factor),
        parent=markdown.escape(sweep.parent),
        note=markdown.mismatch_note(sweep.rows),
        table=tables.to_markdown(table),
        findings=findings(sweep),
    )


def sweep_table(sweep: Sweep, people: str) -> Table:
    """A line per setting, sorted by value, the parent's marked: numbers, and AP as a difference to the parent's."""
    metrics = metrics_of(sweep)
    columns = [
        Column("value", sweep.factor),
        Column("run", "run"),
        *(column for column, _ in metrics),
        Column("AP_difference", "AP minus parent's", "↑", "points", 100.0, 1, signed=True),
        tables.SEEDS,
        tables.PERSONS,
    ]
    records: list[dict[str, Cell]] = []
    for setting in sweep.settings:
        record: dict[str, Cell] = {
            "value": spell(setting.value),
            "run": f"{setting.rows[0].experiment}{' (parent)' if setting.is_parent else ''}",
            **{column.key: summarise(setting.rows, pick) for column, pick in metrics},
            "AP_difference": None if setting.is_parent else difference(setting.rows, sweep.parent_rows, oks("AP")),
            **tables.counts(setting.rows),
        }
        records.append(record)
    return Table(sweep.name, f"{sweep.factor} of {sweep.parent} on {people}", columns, records)


def metrics_of(sweep: Sweep) -> list[tuple[Column, Pick]]:
    """The columns of a sweep's table: localisation, then presence by every source that a setting has."""
    metrics: list[tuple[Column, Pick]] = [(percent(metric, metric), oks(metric)) for metric in ("AP", "AR")]
    for source, label in SOURCES.items():
        if any(source in row.presence for row in sweep.rows):
            for metric in ("F1",) if source == ALWAYS_PRESENT else ("F1", "AUROC"):
                metrics.append((percent(f"{source}_{metric}", f"{metric}, {label}"), presence(source, metric)))
    return metrics


def findings(sweep: Sweep) -> str:
    """What the intervals allow to say of each metric, and no more."""
    if _num_seeds(sweep.rows) > 1:
        return "The ± is over seeds; no test is made."
    others = [setting for setting in sweep.settings if not setting.is_parent]
    lines = []
    for column, pick in metrics_of(sweep):
        differences = [(setting, difference(setting.rows, sweep.parent_rows, pick)) for setting in others]
        clear = [
            f"at {markdown.escape(spell(setting.value))}, {tables.format_cell(column._replace(signed=True), found)}"
            for setting, found in differences
            if excludes_zero(found)
        ]
        if clear:
            lines.append(f"- {column.label} ({len(clear)} of {len(others)} settings): {'; '.join(clear)}")
    if not lines:
        return "No setting differs from the parent, in any column, by more than the 95 % interval of the difference."
    head = "Differences to the parent whose 95 % interval leaves out 0 (in points; all others do not):"
    return "\n".join([head, "", *lines])


def _num_seeds(rows: Sequence[Row]) -> int:
    return len({row.seed for row in rows})


DIFFERENCE_INTERVAL = (
    "**AP minus parent's** has its interval from the two separate ones, as if they were independent (MOVER); as both "
    "saw the same images, a paired interval would be narrower. Many differences are looked at and nothing corrects for "
    "that: of twenty that are nothing, one is expected to leave out 0 by chance."
)
DIFFERENCE_SEEDS = "**AP minus parent's** is the mean ± standard deviation of the differences seed by seed."

PAGE = """\
# Ablations on {{ people }} (profile {{ profile }})

Each section varies one factor of one system and leaves all else as it is. The system itself is the parent; its line is
marked in the table and in the figure.

{% for section in sections %}
- [{{ section.factor }} of {{ section.parent }}](#{{ section.name }})
{% endfor %}

## How to read this page

{{ how_to_read }}
- {{ difference }}

**What this does not show.** {{ limits }}

{% for section in sections %}
<a id="{{ section.name }}"></a>

## {{ section.factor }} of {{ section.parent }}

{{ section.note }}

{{ section.table }}

{{ section.findings }}

![{{ section.factor }} on {{ people }}]({{ section.name }}.png)

Bars: {{ bars }}. As CSV: [{{ section.name }}.csv]({{ section.name }}.csv).

{% endfor %}
## Provenance

{{ provenance }}

Every number at full precision: [rows.csv](rows.csv).
"""

if __name__ == "__main__":
    run_command(main)
