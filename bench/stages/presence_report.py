"""Stage presence_report: the page of who tells which keypoints are there, from what stage presence measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict

from bench.data.coco import read_coco
from bench.data.predictions import CALIBRATION, VAL, read_split
from bench.data.presence import TRUE
from bench.metrics.calibration import NUM_BINS
from bench.reporting import markdown, tables
from bench.reporting import presence_figures as figures
from bench.reporting import presence_page as pages
from bench.reporting.figures import save
from bench.reporting.label_counts import count_labels
from bench.reporting.pictures import save_small, subjects_of
from bench.reporting.presence_results import (
    HEAD,
    SOURCES,
    PresenceResult,
    head_comparisons,
    load_presence,
)
from bench.reporting.rows import Row, load_rows
from bench.reporting.tables import Table
from bench.stages.command import run_command
from bench.stages.files import ResamplingPlan, RunFiles, manifest_file, plan_dir, read_model, write_text

REPORTS = Path("reports")
CASES = 6


class PresencePlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    systems: list[str]
    policy: str  # the headline one
    resampling: ResamplingPlan


class Page(NamedTuple):
    """What a page is made of."""

    plan: PresencePlan
    rows: Sequence[Row]
    systems: Sequence[PresenceResult]

    @property
    def people(self) -> str:
        return markdown.people_of(self.rows)

    @property
    def shown_policies(self) -> list[str]:
        """Those with figures: the headline one, and the truth where the data carry it, each where val has both classes
        of keypoints."""
        return [p for p in dict.fromkeys((self.plan.policy, TRUE)) if p in self.systems[0].policies]

    @property
    def has_headline(self) -> bool:
        return self.plan.policy in self.systems[0].policies

    @property
    def cases_policy(self) -> str:
        """That of the pictures of people."""
        return TRUE if TRUE in self.systems[0].policies else self.plan.policy

    @property
    def bars(self) -> str:
        """What brackets and bars are."""
        num_seeds = max(system.num_seeds for system in self.systems)
        return f"95 % intervals over images{f' and {num_seeds} training seeds' if num_seeds > 1 else ''}"


def main(profile: str) -> None:
    """Write reports/<profile>/presence."""
    plan = read_model(plan_dir(profile) / "presence_report.json", PresencePlan)
    runs_dir = Path("runs", profile)
    rows = load_rows(runs_dir, plan.systems, plan.seeds)
    page = Page(plan, rows, load_presence(runs_dir, rows))
    folder = REPORTS / profile / "presence"
    markdown.fresh_folder(folder)
    write_page(folder, page)


def write_page(folder: Path, page: Page) -> None:
    """Tables, figures and the page that shows them."""
    plan, systems, people = page.plan, page.systems, page.people
    comparisons = head_comparisons(systems, plan.resampling.num, plan.resampling.seed)
    shown = [
        pages.policies_table(systems[0].counts, systems[0].policies, people),
        pages.winners_table(systems, people),
        pages.head_table(comparisons, people),
        pages.agreement_table(systems, people),
        pages.truth_table(systems, people),
        pages.thresholds_table(systems, plan.policy, people),
        pages.ranking_table(systems, plan.policy, people),
        pages.calibration_table(systems, plan.policy, people),
        pages.localisation_table(systems, people),
        pages.keypoint_table(systems, plan.policy, people),
    ]
    shown = [table for table in shown if table.records]
    for table in shown:
        tables.write_csv(table, folder)
    numbers: pd.DataFrame = pages.numbers_frame(systems)
    numbers.to_csv(folder / "numbers.csv", index=False, lineterminator="\n", float_format="%.5g")
    write_figures(folder, page)
    answer = pages.head_answer(comparisons)
    first = RunFiles(plan.profile, plan.systems[0], plan.seeds[0])
    unfitted = pages.unfitted_note(count_labels(first.predictions, CALIBRATION)[plan.policy], plan.policy)
    write_text(folder / "findings.md", findings(page, answer))
    write_text(folder / "README.md", render(page, shown, answer, unfitted, write_cases(folder, page)))


def findings(page: Page, answer: str) -> str:
    """The numbers under the policies of most interest, and heads beside heatmaps: for the front page."""
    shown = pages.winners_sentences(page.systems, page.shown_policies)
    return markdown.render(FINDINGS, note=markdown.empty_class_note(page.rows), shown=shown, answer=answer)


def write_figures(folder: Path, page: Page) -> None:
    """All but the pictures of people, each where there is something to draw."""
    systems, policy, on = page.systems, page.plan.policy, f"on {page.people}"
    if systems[0].policies:
        title = f"Presence under every policy {on}, {page.bars}"
        save(figures.draw_policies(systems, title), folder / "policies.png")
    if page.has_headline:
        title = f"AUROC by keypoint, policy {policy}, {on}, {page.bars}"
        save(figures.draw_keypoints(systems, policy, title), folder / "keypoints.png")
    for shown in page.shown_policies:
        save(figures.draw_curves(systems, shown, f"Presence {on}, policy {shown}"), folder / f"curves_{shown}.png")
    if page.shown_policies:
        title = f"What probabilities of presence mean, {on}, bands 95 % over images"
        save(figures.draw_reliability(systems, page.shown_policies, title), folder / "reliability.png")
    title = f"Confidence and place {on}, bands 95 % over images"
    save(figures.draw_localisation(systems, title), folder / "localisation.png")


def write_cases(folder: Path, page: Page) -> Mapping[str, str]:
    """`worst_<system>.png` of each system's first seed; returns file names by system."""
    policy = page.cases_policy
    manifest = read_coco(manifest_file(page.plan.profile, VAL))
    names = {}
    for system in page.systems:
        seed = system.result.row.seed
        split = read_split(RunFiles(page.plan.profile, system.name, seed).predictions, VAL, policy)
        score = split.presence if system.main_source == HEAD and split.presence is not None else split.score
        cases = figures.worst_cases(split, score, CASES)
        chosen = [case.annotation_id for found in cases.values() for case in found]
        title = f"{system.name}, {SOURCES[system.main_source]} (seed {seed}): the worst errors, policy {policy}"
        names[system.name] = f"worst_{system.name}.png"
        save_small(figures.draw_cases(cases, subjects_of(manifest, chosen, policy), title), folder / names[system.name])
    return names


def render(page: Page, shown: Sequence[Table], answer: str, unfitted: str, cases: Mapping[str, str]) -> str:
    """The page itself."""
    return markdown.render(
        PAGE,
        profile=page.plan.profile,
        people=page.people,
        policy=page.plan.policy,
        facts=markdown.one_line(page.rows),
        note=markdown.notes(page.rows),
        unfitted=unfitted,
        has_headline=page.has_headline,
        bars=page.bars,
        num_resamples=page.systems[0].num_resamples,
        winners=pages.winners_sentences(page.systems, page.systems[0].policies),
        answer=answer,
        num_systems=len(page.systems),
        few=markdown.how_to_read_few(),
        several_seeds=any(system.num_seeds > 1 for system in page.systems),
        curves=page.shown_policies,
        cases=cases,
        cases_policy=page.cases_policy,
        tables={table.name: tables.to_markdown(table) for table in shown},
        first=page.systems[0].name,
        num_bins=NUM_BINS,
        crop_policies=pages.crop_policies(),
        floors=pages.floors_sentence(page.systems[0]),
        min_in_bin=figures.MIN_IN_BIN,
        limits=markdown.limits(page.rows),
        provenance=markdown.provenance(page.rows),
    )


FINDINGS = """\
**Which keypoints are there?** By label policy, numbers that no test compares:

{{ note }}

{{ shown }}

<details><summary>Is the presence head above thresholding the heatmap, and box geometry? Tested</summary>

{{ answer }}

</details>
"""

PAGE = """\
# Which keypoints are there? Presence on {{ people }} (profile {{ profile }})

{{ facts }}

A system puts every keypoint somewhere, even one that is not in the picture. **Presence** is the question whether it is
there at all. COCO's labels do not quite answer it: **v = 0 says "not labelled", which is not "absent"**. The keypoint
may lie beyond the border, or be hidden, too small, or simply passed over by the annotator. So there is no one right
answer key; each **policy** below reads the same labels another way, and every number names its policy. The headline
policy, `{{ policy }}`, is that of `evaluate.presence_policy`.

{{ tables.policies }}

{{ crop_policies }} read the crop, so their counts are those of {{ first }}. As CSV: [policies.csv](policies.csv).

{{ note }}

{{ unfitted }}

## How to read

- **AUROC** is how often a present keypoint gets a higher score than an absent one; 50 % is a coin. **AP present** and
  **AP absent** are average precisions with the present, or the absent, as what is to be found. **FPR95** is the share
  of absent keypoints called present where 95 % of the present ones are.
- **F1**, precision, recall, balanced accuracy and MCC (Matthews correlation, from -1 to 1) need a threshold, which is
  chosen on the calibration split. **Hallucinated** and **missed** are absent keypoints called present, and present ones
  called absent, per person.
- **Micro** pools all keypoints; **macro** is the mean over keypoints. A score that is the same for all persons, such as
  prevalence, has a macro AUROC of 50 %, whatever its micro AUROC is.
- **Read from**: the *presence head*, where a system has one; from any heatmap its *peak*, the peak after a *blur*, its
  *mass*, its *entropy* and the *gap* between its two highest peaks; *logistic on heatmap* is a logistic regression on
  all of these, fitted on the calibration split.
- **Floors**: *box geometry* knows the person's box and no pixel, *prevalence* how often each keypoint is there and no
  image, *always present* nothing. Where a source is not above box geometry, its numbers do not show that it knows more
  of presence than the place and size of the box tell; they do not show the opposite either.
- Brackets are {{ bars }} (percentile bootstrap, {{ num_resamples }} resamples that all systems share). Differences are
  paired. **p** is two-sided, from the bootstrap; **p, corrected** corrects for all lines that answer one question: is
  the head above this other source (step-down max-T, Westfall and Young 1993)? With n images no p is below 2^(1-n), and
  a line that no image could change is unchanged and has no p. Arrows tell which way is better; an en dash stands for
  what is undefined.
- {{ few }}
{% if several_seeds %}
- Numbers are means over training seeds. Those of single keypoints have bounds that span the intervals of all seeds.
{% endif %}

## The numbers under every policy

{{ winners }}

Every system is read from its main source, which is chosen by a rule and not by its numbers: the presence head where it
has one, else the heatmap peak. Differences here are not tested, so that nothing is said of who is better.

{% if "winners" in tables %}
{{ tables.winners }}

![Presence under every policy](policies.png)

Floors in the figure are those of {{ first }}'s crops. As CSV: [winners.csv](winners.csv); every number of all policies,
sources and rules: [numbers.csv](numbers.csv).
{% else %}
No policy leaves both present and absent keypoints in val, so nobody wins. Every number of all policies, sources and
rules that is defined: [numbers.csv](numbers.csv).
{% endif %}

## Is the presence head above thresholding the heatmap?

{{ answer }}

{% if "head" in tables %}
A line is called better or worse where its interval leaves out 0 and its corrected p is below .05. F1 is at the
threshold of highest F1 on the calibration split. {{ floors }}

{{ tables.head }}

As CSV: [head.csv](head.csv).
{% endif %}

## Do policies rank systems alike?

{% if num_systems < 3 %}
**With fewer than 3 systems (here {{ num_systems }}), a ranking means little**: two can only stay or trade places.

{% endif %}
Kendall's tau is 1 where two policies rank the systems (each by its main source; floors are no systems) alike, -1 where
one is the other reversed. A wide interval says that these images do not settle the ranking.

{% if "agreement" in tables %}
{{ tables.agreement }}

As CSV: [agreement.csv](agreement.csv).
{% else %}
Fewer than two policies leave both present and absent keypoints in val.
{% endif %}

## How far are the policies from the truth?

{% if "truth" in tables %}
Drawn people carry which keypoints are in the image in truth (`true`). The same scores, judged by each policy minus
judged by the truth: above 0, the number under the policy is higher than it is in truth. The threshold of F1 is chosen
under each policy for itself.

{{ tables.truth }}

As CSV: [truth.csv](truth.csv).
{% else %}
These data carry no truth, or one that leaves a single class of keypoints in val, so nothing here can say.
{% endif %}

## At a threshold

{{ tables.thresholds }}

.5 is shown for probabilities only. As CSV: [thresholds.csv](thresholds.csv). On the HTML page of the site
(`reports/index.html`), a slider moves the threshold.

<a id="explorer"></a>

## Without a threshold

{{ tables.ranking }}

As CSV: [ranking.csv](ranking.csv).

{% for shown in curves %}
![ROC and precision-recall curves, policy {{ shown }}](curves_{{ shown }}.png)

{% endfor %}
{% if curves %}
Solid: the main source; dashed: the heatmap peak of a system with a head. One line per training seed; floors are those
of {{ first }}. Precision is drawn in steps, one for each level of a score, so that the area under a line is its AP.
{% endif %}

## Do probabilities mean what they say?

A forecast is calibrated when, of the keypoints given probability p, the share p is there. Calibrators are fitted on the
calibration split; `none` takes the head's own sigmoid. Compare by the debiased reliability (about 0 when calibrated,
below it, too), the Brier score or the negative log-likelihood: **ECE has no interval here**, as chance keeps it above
0 and resampling adds the same once more.

{% if "calibration" in tables %}
{{ tables.calibration }}

As CSV: [calibration.csv](calibration.csv).
{% else %}
No calibrator could be fitted, and no system has a presence head, so there is no probability to look at.
{% endif %}

{% if curves %}
![Reliability](reliability.png)

Bins are equally wide, {{ num_bins }} of them. A bin has a dot where it holds {{ min_in_bin }} keypoints or more; how
many each one holds stands below.
{% endif %}

## Does confidence say how near a keypoint is?

Another question, kept apart from presence: of labelled keypoints alone, is the height of the heatmap's peak, or the
head's presence, the similarity with the label (a keypoint's term of OKS, 1 at its very place) that is to be expected?
A head is not trained for it: presence says that a keypoint is there, not that it was found.

{{ tables.localisation }}

As CSV: [localisation.csv](localisation.csv).

![Confidence against similarity](localisation.png)

## By keypoint

{% if has_headline %}
![AUROC by keypoint](keypoints.png)
{% endif %}

<details><summary>The numbers{{ " of the figure" if has_headline }}</summary>

{{ tables.presence_per_keypoint }}

</details>

As CSV: [presence_per_keypoint.csv](presence_per_keypoint.csv).

## The worst errors

Absent keypoints of highest score (hallucinated) and present ones of lowest score (missed), by `{{ cases_policy }}`, one
at most per person and kind. They are chosen for being extreme, so they do not show how often this happens.

{% for system, file in cases.items() %}
![Worst errors of {{ system }}]({{ file }})

{% endfor %}

## What this does not show

{{ limits }} A policy that reads v = 0 as absent rewards guessing what annotators skip. Thresholds and calibrators were
fitted on the calibration split and enter as given: intervals do not cover their chance.\
{% if cases_policy != "true" %}
 The worst errors may be wrong labels.\
{% endif %}


## Provenance

{{ provenance }}
"""

if __name__ == "__main__":
    run_command(main)
