"""Stage report: the page of the systems of one profile, and the index of all profiles that have a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from bench.data.presence import POLICIES
from bench.inference.scoring import SCORE_RULES
from bench.reporting import markdown, tables
from bench.reporting.figures import ABOUT_CURVES, bars_note, draw_curves, draw_keypoints, draw_systems, save
from bench.reporting.findings import findings
from bench.reporting.pictures import PicturePlan, write_pictures
from bench.reporting.results import Comparison, Contrast, Result, Side, compare_by_question, load_results, rarer_of
from bench.reporting.rows import oks, presence, score_rule
from bench.stages.command import run_command
from bench.stages.files import ResamplingPlan, manifest_file, plan_dir, read_model, write_json, write_text

REPORTS = Path("reports")
SYSTEM_DIFFERENCES = "differences"


class Compared(NamedTuple):
    """A table of comparisons: its name, its title and its lines."""

    name: str
    title: str
    comparisons: list[Comparison]


class ReportPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    profiles: list[str]
    seeds: list[int]
    systems: list[str]
    published: dict[str, str]  # system -> key of `bench.published`
    resampling: ResamplingPlan
    pictures: PicturePlan


def main(profile: str) -> None:
    """Write reports/<profile>/systems and reports/README.md."""
    plan = read_model(plan_dir(profile) / "report.json", ReportPlan)
    runs_dir = Path("runs", profile)
    results = load_results(runs_dir, plan.systems, plan.seeds)
    folder = REPORTS / profile / "systems"
    markdown.fresh_folder(folder)
    write_page(folder, plan, runs_dir, results)
    write_text(REPORTS / "README.md", index(plan.profiles))


def write_page(folder: Path, plan: ReportPlan, runs_dir: Path, results: Sequence[Result]) -> None:
    """Tables, figures, pictures and the page that shows them."""
    rows = [row for result in results for row in result.rows]
    people = markdown.people_of(rows)
    families = compared(plan, results)
    shown = all_tables(plan, results, families, people)
    for table in shown:
        tables.write_csv(table, folder)
    tables.rows_frame(rows).to_csv(folder / "rows.csv", index=False, lineterminator="\n")
    write_json(folder / "metrics.json", metrics(results))
    save(draw_systems(results, people), folder / "systems.png")
    save(draw_keypoints(results, people), folder / "presence_per_keypoint.png")
    save(draw_curves(runs_dir, plan.systems, plan.seeds, people), folder / "curves.png")
    pictures = write_pictures(
        folder,
        manifest_file(plan.profile, "val"),
        runs_dir,
        [result.row for result in results],
        plan.pictures.num_persons,
        plan.pictures.seed,
    )
    overview = markdown.render(
        OVERVIEW,
        facts=markdown.one_line(rows),
        note=markdown.notes(rows),
        table=tables.to_markdown(shown[0]),
    )
    write_text(folder / "overview.md", overview)
    between_systems = [made for family in families if family.name == SYSTEM_DIFFERENCES for made in family.comparisons]
    write_text(folder / "findings.md", findings(results, between_systems) + "\n")
    write_text(folder / "limits.md", markdown.limits(rows) + "\n")
    page = markdown.render(
        PAGE,
        profile=plan.profile,
        people=people,
        overview=overview,
        how_to_read=markdown.how_to_read(rows),
        differences=markdown.how_to_read_differences(plan.resampling.num, "one metric, or of all score rules"),
        limits=markdown.limits(rows),
        note=markdown.mismatch_note(rows),
        bars=bars_note(results),
        first=markdown.escape(results[0].name),
        rule=markdown.escape(results[0].row.protocol.score_rule),
        tables={table.name: tables.to_markdown(table) for table in shown},
        about_curves=ABOUT_CURVES,
        pictures=pictures.names,
        boxes_given=markdown.boxes_given(rows),
        picture_policy=pictures.policy,
        picture_meaning=POLICIES[pictures.policy].meaning,
        policy=results[0].row.protocol.policy,
        provenance=markdown.provenance(rows),
    )
    write_text(folder / "README.md", page)


def metrics(results: Sequence[Result]) -> dict[str, dict[str, dict[str, float | None]]]:
    """The headline numbers of every system with their intervals, for `dvc metrics`."""
    found = {}
    for result in results:
        source = tables.main_source(result)
        keys = {stat: oks(stat) for stat in ("AP", "AR")}
        keys |= {f"presence_{metric}": presence(source, metric) for metric in ("F1", "AUROC")}
        numbers = {name: result.number(key) for name, key in keys.items()}
        found[result.name] = {name: {"value": n.value, "low": n.low, "high": n.high} for name, n in numbers.items()}
    return found


def all_tables(
    plan: ReportPlan, results: Sequence[Result], families: Sequence[Compared], people: str
) -> list[tables.Table]:
    """The overview first."""
    shown = [
        make(results, people)
        for make in (
            tables.overview_table,
            tables.systems_table,
            tables.score_rules_table,
            tables.presence_table,
            tables.keypoint_table,
        )
    ]
    for name, title, comparisons in families:
        shown.append(tables.comparison_table(name, f"{title} on {people}", comparisons))
    if plan.published:
        shown.append(tables.expected_table(results, plan.published))
    return shown


def compared(plan: ReportPlan, results: Sequence[Result]) -> list[Compared]:
    """Every table of comparisons."""
    families = [Compared("score_rule_differences", "Score rules compared", compare_rules(results, plan.resampling))]
    if len(results) > 1:
        families.append(Compared(SYSTEM_DIFFERENCES, "Systems compared", compare_systems(results, plan.resampling)))
    return families


def compare_systems(results: Sequence[Result], resampling: ResamplingPlan) -> list[Comparison]:
    """Every system beside the first declared one: which is the first must not depend on the numbers. Who differs from
    it in one metric is one question."""
    contrasts = []
    for result in results[1:]:
        own_source, other_source = tables.main_source(results[0]), tables.main_source(result)
        keys = [(stat, oks(stat), oks(stat)) for stat in ("AP", "AR")]
        keys += [
            (f"presence {metric}", presence(own_source, metric), presence(other_source, metric))
            for metric in ("F1", "AUROC")
        ]
        contrasts += [
            Contrast(
                label,
                Side(results[0].name, results[0], own),
                Side(result.name, result, other),
                label,
                rarer_of(own, result),
            )
            for label, own, other in keys
        ]
    return compare_by_question(contrasts, resampling.num, resampling.seed)


def compare_rules(results: Sequence[Result], resampling: ResamplingPlan) -> list[Comparison]:
    """AP of every system under every other score rule beside AP under the rule of its row."""
    contrasts = []
    for result in results:
        own = result.row.protocol.score_rule
        for rule in SCORE_RULES:
            if rule != own and score_rule(rule, "AP") in result.keys:
                first, second = (Side(f"{result.name}, {name}", result, score_rule(name, "AP")) for name in (own, rule))
                contrasts.append(Contrast("AP", first, second, "score rules"))
    return compare_by_question(contrasts, resampling.num, resampling.seed)


def index(profiles: Sequence[str]) -> str:
    """The page over all declared profiles whose own page is on disk."""
    overviews = {profile: REPORTS / profile / "systems" / "overview.md" for profile in profiles}
    found = {profile: file.read_text(encoding="utf-8") for profile, file in overviews.items() if file.is_file()}
    missing = [profile for profile in profiles if profile not in found]
    return markdown.render(INDEX, found=found, missing=missing)


OVERVIEW = """\
{{ facts }}

{{ note }}

{{ table }}
"""

PAGE = """\
# Systems on {{ people }} (profile {{ profile }})

{{ overview }}

![AP, presence AUROC and presence F1 of every system](systems.png)

## How to read this page

{{ how_to_read }}
{{ differences }}

**What this does not show.** {{ limits }}

## Localisation

{{ note }}

{{ tables.systems }}

As CSV: [systems.csv](systems.csv); the table at the top: [overview.csv](overview.csv). What is wrong with the poses:
[errors](../errors/README.md). What systems say of people of whom a part is cut away:
[truncation](../truncation/README.md). Scores of poses that can say that a keypoint is not there:
[pose scores](../pose_scores/README.md). What the published architectures cost:
[architectures](../../architectures/README.md).

{% if tables.differences is defined %}
### Is the difference real?

Every system beside {{ first }}, the first declared one; presence is read from a system's head where it has one, else
from its heatmap peak.

{{ note }}

{{ tables.differences }}

As CSV: [differences.csv](differences.csv).
{% endif %}

### Does the score rule matter?

COCO's AP never looks at the confidence of a keypoint, only at the one score of each person, by which persons are
ranked. So whatever a model knows of presence reaches AP through the rule that makes this score; the tables elsewhere
use {{ rule }}.
{% if boxes_given %}
Boxes here are annotated ones, which have the score 1: `box` then ranks persons by nothing but their order in the file.
{% endif %}

{{ note }}

{{ tables.score_rules }}

As CSV: [score_rules.csv](score_rules.csv).

{{ note }}

{{ tables.score_rule_differences }}

As CSV: [score_rule_differences.csv](score_rule_differences.csv).

{% if tables.expected is defined %}
### Beside the published results

The published numbers were taken on all of COCO val2017, with the boxes that the table names; a difference is left out
where the people here are not COCO's or the model has another size, and means little on a part of COCO's people, under
other boxes or after another training.

{{ tables.expected }}

As CSV: [expected.csv](expected.csv).
{% endif %}

## Presence

A source says present where its score is at least the threshold. The floors, heatmap peak and always present, stand
below each system. Under every reading of the labels, with calibration and curves: [presence](../presence/README.md).

{{ note }}

{{ tables.presence }}

As CSV: [presence.csv](presence.csv).

### Presence F1 per keypoint

Bars: {{ bars }}.

![Presence F1 per keypoint on {{ people }}](presence_per_keypoint.png)

<details><summary>The numbers of the figure</summary>

{{ note }}

{{ tables.presence_per_keypoint }}

</details>

As CSV: [presence_per_keypoint.csv](presence_per_keypoint.csv).

## Pictures

Persons were chosen by a seed alone. The first column shows \
{{ "the truth" if picture_policy == "true" else "the labels" }} by policy `{{ picture_policy }}` \
({{ picture_meaning }}); red crosses mark what is absent by it. In the other columns they mark what a system calls
absent by its own threshold: of its presence head where it has one, else of its heatmap peak. The counts compare each
system with the first column\
{% if picture_policy != policy %}
; thresholds were chosen under policy `{{ policy }}`, so a system can be wrong here and right in the tables\
{% endif %}
.

{% for picture in pictures %}
![{{ "Truth" if picture_policy == "true" else "Labels" }} and predictions on {{ people }}]({{ picture }})

{% endfor %}

## Training

![Training curves on {{ people }}](curves.png)

{{ about_curves }}

## Provenance

{{ provenance }}

Every number at full precision: [rows.csv](rows.csv).
"""

INDEX = """\
# Reports

This suite measures **keypoint presence** in top-down human pose estimation: is a keypoint there at all, how sure is the
model, and what does asking cost in localisation? These pages are generated by `dvc repro`. As one site, with tables
that sort and a threshold to move: open `index.html`, beside this file.

What the published architectures cost, counted and as published: [architectures](architectures/README.md).

{% for profile, overview in found.items() %}
## Profile {{ profile }}

{{ overview }}

[Systems: tables, figures, pictures]({{ profile }}/systems/README.md) ·
[Presence: how well each source tells which keypoints are there]({{ profile }}/presence/README.md) ·
[Errors: what is wrong with the poses]({{ profile }}/errors/README.md) ·
[Pose scores: poses that can say "not there"]({{ profile }}/pose_scores/README.md) ·
[Truncation: people cut away, left out or covered]({{ profile }}/truncation/README.md) ·
[Dependency maps: what keypoints depend on]({{ profile }}/dependency/README.md) ·
[Ablations: one factor at a time]({{ profile }}/ablations/README.md) ·
[Data: what the persons and their labels are]({{ profile }}/data/README.md) ·
[Runs: curves, parameters and origin of each]({{ profile }}/runs/README.md) ·
[Model cards: what each system is for, and how it is loaded]({{ profile }}/cards/README.md)

{% endfor %}
{% if missing %}
Declared, but not run yet: {{ missing | join(", ") }}. To run one: `profile: {{ missing[0] }}` in
`params.yaml`, then `make repro`.
{% endif %}
"""

if __name__ == "__main__":
    run_command(main)
