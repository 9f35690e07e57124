"""Stage ablations: a table and a figure for every factor that was varied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ablations.compare import Sweep, build_sweeps, compare_sweeps, spell
from ablations.grid import Ablation, by_question
from ablations.sentences import answer, sweep_sentences
from bench.metrics.bootstrap import few_images_note
from bench.reporting import markdown, tables
from bench.reporting.figures import bars_note, draw_panels, metric_panels, save
from bench.reporting.results import Comparison, Result, check_same_images, load_results
from bench.reporting.rows import ALWAYS_PRESENT, SOURCES, Row, oks, presence
from bench.reporting.tables import Cell, Column, Table, percent, presence_percent
from bench.stages.command import run_command
from bench.stages.files import ResamplingPlan, plan_dir, read_model, write_text

REPORTS = Path("reports")


class AblationsPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    resampling: ResamplingPlan
    ablations: list[Ablation]


class Chapter(NamedTuple):
    """A question of the study, what the numbers answer, and the sweeps behind it."""

    name: str
    question: str
    answer: str
    sections: "list[Section]"


class Section(NamedTuple):
    """What the page shows of one sweep, as Markdown."""

    name: str
    factor: str
    parent: str
    note: str
    table: str
    differences: str
    findings: str


def main(profile: str) -> None:
    """Write reports/<profile>/ablations."""
    plan = read_model(plan_dir(profile) / "ablations.json", AblationsPlan)
    runs_dir = Path("runs", profile)
    parents = list(dict.fromkeys(ablation.parent for ablation in plan.ablations))
    results = load_results(runs_dir, parents, plan.seeds)
    for stage, retest in (("evaluate_ablation", False), ("evaluate_retest", True)):
        changed = [ablation.name for ablation in plan.ablations if ablation.retest == retest]
        results += load_results(runs_dir, changed, plan.seeds, stage=stage)
    check_same_images(rows_of(results))
    folder = REPORTS / profile / "ablations"
    markdown.fresh_folder(folder)
    write_page(folder, plan, results)


def write_page(folder: Path, plan: AblationsPlan, results: Sequence[Result]) -> None:
    """A section per sweep, and the page around them."""
    sweeps = build_sweeps(plan.ablations, {result.name: result for result in results})
    if not sweeps:
        write_text(
            folder / "README.md", f"# Ablations (profile {plan.profile})\n\nNone is declared in `params.yaml`.\n"
        )
        return
    rows = rows_of(results)
    tables.rows_frame(rows).to_csv(folder / "rows.csv", index=False, lineterminator="\n")
    comparisons = compare_sweeps(sweeps, plan.resampling.num, plan.resampling.seed)
    page = markdown.render(
        PAGE,
        profile=plan.profile,
        people=markdown.people_of(rows),
        few_images=few_images_note(rows[0].data.num_images),
        how_to_read=markdown.how_to_read(rows),
        differences=markdown.how_to_read_differences(plan.resampling.num, "one section of this page"),
        limits=markdown.limits(rows),
        bars=bars_note(results),
        note=markdown.empty_class_note(rows),
        chapters=write_chapters(folder, sweeps, comparisons),
        provenance=markdown.provenance(rows),
    )
    write_text(folder / "README.md", page)


def write_chapters(
    folder: Path, sweeps: Sequence[Sweep], comparisons: Mapping[str, Sequence[Comparison]]
) -> list[Chapter]:
    """Every question that the sweeps ask."""
    return [
        Chapter(
            question.name,
            question.text,
            answer([(sweep, comparisons[sweep.name]) for sweep in asked]),
            [write_section(folder, sweep, comparisons[sweep.name]) for sweep in asked],
        )
        for question, factors in by_question(sweep.factor for sweep in sweeps).items()
        for asked in [[sweep for factor in factors for sweep in sweeps if sweep.factor == factor]]
    ]


def rows_of(results: Sequence[Result]) -> list[Row]:
    return [row for result in results for row in result.rows]


def write_section(folder: Path, sweep: Sweep, comparisons: Sequence[Comparison]) -> Section:
    """The CSVs and the figure of one sweep."""
    rows = rows_of(sweep.results)
    people = markdown.people_of(rows)
    table = sweep_table(sweep, people)
    title = f"{sweep.factor} of {sweep.parent} compared on {people}"
    differences = tables.comparison_table(f"{sweep.name}_differences", title, comparisons)
    for shown in (table, differences):
        tables.write_csv(shown, folder)
    settings = sweep.settings
    values = [setting.value if isinstance(setting.value, int | float) else spell(setting.value) for setting in settings]
    parent = next(i for i, setting in enumerate(settings) if setting.is_parent)
    caption = f"{sweep.factor} of {sweep.parent} on {people}, {bars_note(sweep.results)}"
    save(draw_panels(values, metric_panels(sweep.results), caption, sweep.factor, parent), folder / f"{sweep.name}.png")
    return Section(
        name=sweep.name,
        factor=markdown.escape(sweep.factor),
        parent=markdown.escape(sweep.parent),
        note=markdown.mismatch_note(rows),
        table=tables.to_markdown(table),
        differences=tables.to_markdown(differences),
        findings=sweep_sentences(sweep, comparisons),
    )


def sweep_table(sweep: Sweep, people: str) -> Table:
    """A line per setting, sorted by value, the parent's marked: localisation, then presence by every source."""
    columns = [Column("value", sweep.factor), Column("run", "run"), *(percent(stat, stat) for stat in ("AP", "AR"))]
    keys = {stat: oks(stat) for stat in ("AP", "AR")}
    for source, label in SOURCES.items():
        if any(source in result.row.thresholds for result in sweep.results):
            for metric in ("F1",) if source == ALWAYS_PRESENT else ("F1", "AUROC"):
                columns.append(presence_percent(f"{source}_{metric}", f"{metric}, {label}"))
                keys[f"{source}_{metric}"] = presence(source, metric)
    records: list[dict[str, Cell]] = [
        {
            "value": spell(setting.value),
            "run": f"{setting.result.name}{' (parent)' if setting.is_parent else ''}",
            **{column: setting.result.number(key) for column, key in keys.items()},
            **tables.counts(setting.result),
        }
        for setting in sweep.settings
    ]
    columns += [tables.ABSENT, tables.SEEDS, tables.PERSONS]
    return Table(sweep.name, f"{sweep.factor} of {sweep.parent} on {people}", columns, records)


PAGE = """\
# Ablations on {{ people }} (profile {{ profile }})

Each section varies one factor of one system, the parent, and leaves all else as it is.

{{ few_images }}

{% for chapter in chapters %}
- [{{ chapter.question }}](#{{ chapter.name }}) {{ chapter.answer }}
{% endfor %}

## How to read this page

{{ how_to_read }}
{{ differences }}

**What this does not show.** {{ limits }}

{{ note }}

{% for chapter in chapters %}
<a id="{{ chapter.name }}"></a>

## {{ chapter.question }}

{{ chapter.answer }}

{% for section in chapter.sections %}
### {{ section.factor }} of {{ section.parent }}

{{ section.findings }}

{{ section.note }}

{{ section.table }}

{{ section.differences }}

![{{ section.factor }} on {{ people }}]({{ section.name }}.png)

Bars: {{ bars }}. As CSV: [{{ section.name }}.csv]({{ section.name }}.csv),
[{{ section.name }}_differences.csv]({{ section.name }}_differences.csv).

{% endfor %}
{% endfor %}
## Provenance

{{ provenance }}

Every number at full precision: [rows.csv](rows.csv).
"""

if __name__ == "__main__":
    run_command(main)
