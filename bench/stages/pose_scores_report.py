"""Stage pose_scores_report: the page of poses that can say "not there", from what stage pose_scores measured."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bench.data.presence import POLICIES
from bench.reporting import markdown, tables
from bench.reporting import pose_page as pages
from bench.reporting.figures import save
from bench.reporting.pose_results import PoseResult, answer, load_pose_scores, policies_of
from bench.reporting.rows import Row, load_rows
from bench.stages.command import run_command
from bench.stages.files import ResamplingPlan, plan_dir, read_model, write_text

REPORTS = Path("reports")


class PoseScoresPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    systems: list[str]
    policy: str  # the headline one
    resampling: ResamplingPlan


def main(profile: str) -> None:
    """Write reports/<profile>/pose_scores."""
    plan = read_model(plan_dir(profile) / "pose_scores_report.json", PoseScoresPlan)
    runs_dir = Path("runs", profile)
    rows = load_rows(runs_dir, plan.systems, plan.seeds)
    systems = load_pose_scores(runs_dir, rows)
    folder = REPORTS / profile / "pose_scores"
    markdown.fresh_folder(folder)
    write_page(folder, plan, rows, systems)


def write_page(folder: Path, plan: PoseScoresPlan, rows: Sequence[Row], systems: Sequence[PoseResult]) -> None:
    """Tables, the figure and the page that shows them."""
    people = markdown.people_of(rows)
    num_resamples = systems[0].result.replicates.shape[1] - 1
    answers = answer(systems, plan.resampling.num, plan.resampling.seed)
    shown = [pages.scores_table(systems, plan.policy, people), pages.comparisons_table(answers, people)]
    shown = [table for table in shown if table.records]
    for table in shown:
        tables.write_csv(table, folder)
    num_seeds = max(system.num_seeds for system in systems)
    bars = f"95 % intervals over images{f' and {num_seeds} training seeds' if num_seeds > 1 else ''}"
    measured = policies_of(systems)
    if measured:
        save(pages.draw_gated(systems, f"Gated AP on {people}, bands: {bars}"), folder / "gated_ap.png")
    page = markdown.render(
        PAGE,
        profile=plan.profile,
        people=people,
        facts=markdown.one_line(rows),
        note=markdown.notes(rows),
        policies={policy: POLICIES[policy].meaning for policy in dict.fromkeys((*measured, plan.policy))},
        measured=measured,
        headline=plan.policy,
        bars=bars,
        num_resamples=num_resamples,
        threshold_rule=markdown.escape(rows[0].protocol.threshold_rule),
        score_rule=markdown.escape(rows[0].protocol.score_rule),
        oks_nms=markdown.escape(rows[0].protocol.oks_nms),
        few=markdown.how_to_read_few(),
        differences=markdown.how_to_read_differences(plan.resampling.num, "one of the two questions below"),
        heads=pages.head_sentences(answers),
        gates=pages.gate_sentences(answers),
        tables={table.name: tables.to_markdown(table) for table in shown},
        limits=markdown.limits(rows),
        provenance=markdown.provenance(rows),
    )
    write_text(folder / "README.md", page)


PAGE = """\
# Poses that say "not there": scores on {{ people }} (profile {{ profile }})

{{ facts }}

COCO's score of a pose (**OKS**, object keypoint similarity) looks at labelled keypoints alone. It never sees what a
system says of a keypoint that is **absent**: a left knee put on a stranger costs nothing, and a system that knows that
there is no knee earns nothing. The scores of this page see it. They let a pose **suppress** a keypoint, which is to say
that it is not there, where the presence that its system gives it is below a threshold; the others are **emitted**.

{{ note }}

## What is known to be absent

A keypoint is labelled, known to be absent, or unknown, which counts nowhere. Which are known to be absent is what a
label **policy** says; one that is labelled and absent under the policy counts as absent.

{% for policy, meaning in policies.items() %}
- `{{ policy }}`: {{ meaning }}{{ " (headline, `evaluate.presence_policy`)" if policy == headline }}
{% endfor %}

All poses are those on the **annotated boxes** of the val split, whatever boxes the other pages take, since only there
it is known whose pose each one is. People who are left out of the split have no keypoint that is known to be absent.

## How to read

- **AP (OKS)** is COCO's average precision. It is the same for all policies and sources, as OKS hears nothing of either.
- **Gated OKS** is the mean over all keypoints that are labelled or known to be absent. A labelled one scores its
  similarity where it is emitted, else 0; an absent one scores 1 where it is suppressed, else 0. **Gated AP** is AP by
  it. Where everything is emitted, each absent keypoint costs a full share.
- **Ex-OKS** (Purkrabek and Matas, ProbPose, CVPR 2025) weighs mistakes by distance. It knows the window that the model
  is shown (the padded box), and asks whether a keypoint is in it. One that is out and suppressed scores 1. One that is
  out and emitted, or in and suppressed, scores by how far the point, or the label, is from the border of the window: a
  mistake near the border is a small one. **Edge** measures to the nearest edge, as the authors' formula says;
  **corner** to the nearest corner, as their released code does. **Ex-AP** is AP by it.
- **At the threshold**: the one chosen on the calibration split ({{ threshold_rule }}), never on val. **Mean over
  thresholds** is the area under the curve from threshold 0 to 1, which no choice of a threshold can flatter, but
  which reads the scale of the probabilities: one that never says 90 % loses all that lies beyond.
- **Keypoint AP** takes each keypoint for a detection of its own. It is right where the same keypoint of its person is
  near; misplaced and absent ones are false. It needs no threshold, but a ranking: heatmap peak times presence for a
  presence head, the peak alone for the heatmap peak. *Pooled* ranks all keypoints together.
- **Presence head** and **heatmap peak** both become probabilities by Platt scaling (a logistic regression, on the
  head's logit or on the peak), fitted on the calibration split under the same policy, so that a threshold means
  the same for both.
- Persons are ranked by score rule `{{ score_rule }}`, OKS-NMS: {{ oks_nms }}.
- Brackets and bands are {{ bars }} (percentile bootstrap, {{ num_resamples }} resamples that all systems share). Arrows
  tell which way is better; an en dash stands for what is undefined.
- {{ few }}
{{ differences }}

## The scores

{{ tables.pose_scores }}

As CSV: [pose_scores.csv](pose_scores.csv).

{% if headline not in measured %}
**Policy `{{ headline }}` has no scores**: it does not leave both present and absent keypoints in calibration
and in val.
{% endif %}

{% if measured %}
![Gated AP against the threshold of presence](gated_ap.png)

At threshold 0 everything is emitted. Solid: read from the presence head; dashed: from the heatmap peak. Where a line is
higher than at its left end, gated AP is higher with suppression than without.
{% endif %}

## Does a presence head help the pose score?

{{ heads }}

**Does it pay to suppress at all?** Gated AP at the chosen threshold, minus that of emitting everything:

{{ gates }}

{% if "differences" in tables %}
A line is called better or worse where its interval leaves out 0 and its corrected p is below .05.

{{ tables.differences }}

As CSV: [differences.csv](differences.csv).
{% endif %}

## What this does not show

{{ limits }} Under a policy that reads v = 0 as absent, suppressing what annotators passed over is rewarded, though it
may be there.\
{% if "known" in policies %}
 Under `known` only what is labelled outside of the window is absent.\
{% endif %}

The threshold ({{ threshold_rule }}) was not chosen for gated AP. Thresholds and Platt scaling were fitted on the
calibration split and enter as given: intervals do not cover their chance. Ex-OKS here takes absent keypoints without a
label as well; its source has labelled ones only, so that no number compares with a published one.

## Provenance

{{ provenance }}
"""

if __name__ == "__main__":
    run_command(main)
