"""Stage errors: the page of what is wrong with the poses of the systems of one profile."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bench.config import EvaluateParams
from bench.data.coco import CocoDict, read_coco
from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.people import Truth
from bench.data.predictions import DETECTED, VAL, read_split
from bench.data.presence import BORDER
from bench.inference.poses import scored_detections
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.errors import FOUND, KINDS, NEAR, PRECISE, classify_keypoints, error_costs, shares
from bench.metrics.strata import OVERLAP, strata
from bench.reporting import markdown, tables
from bench.reporting.diagnosis import (
    Diagnosis,
    cost,
    costs_table,
    draw_costs,
    draw_kinds,
    draw_strata,
    keypoint_kinds_table,
    kinds_table,
    pool,
    share,
    strata_table,
    stratum,
)
from bench.reporting.figures import save
from bench.reporting.parallel import map_on_cores
from bench.reporting.results import Values
from bench.reporting.rows import Row, load_rows
from bench.stages.command import run_command
from bench.stages.files import RunFiles, has_detections, manifest_file, plan_dir, read_model, write_text

REPORTS = Path("reports")


class ErrorsPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    systems: list[str]
    evaluate: EvaluateParams


class Val(NamedTuple):
    """The val split: its people, the sizes (w, h) of its images (I, 2), and how often each is taken (S, I)."""

    truth: Truth
    image_size: NDArray[np.int64]
    counts: NDArray[np.int32]


def main(profile: str) -> None:
    """Write reports/<profile>/errors."""
    plan = read_model(plan_dir(profile) / "errors.json", ErrorsPlan)
    rows = load_rows(Path("runs", profile), plan.systems, plan.seeds)
    val = open_val(read_coco(manifest_file(profile, VAL)), plan.evaluate)
    systems = map_on_cores(partial(diagnose_system, plan, val), plan.systems)
    folder = REPORTS / profile / "errors"
    markdown.fresh_folder(folder)
    write_page(folder, plan, systems, rows)


def open_val(manifest: CocoDict, params: EvaluateParams) -> Val:
    """The resamples are those of stage evaluate."""
    truth = Truth.of(manifest)
    sizes = {image["id"]: (image["width"], image["height"]) for image in manifest["images"]}
    image_size = np.array([sizes[image_id] for image_id in truth.image_ids.tolist()])
    rng = np.random.default_rng(params.seed)
    return Val(truth, image_size, draw_resampling(truth.num_images, params.num_resamples, "percentile", rng).counts)


def diagnose_system(plan: ErrorsPlan, val: Val, name: str) -> Diagnosis:
    """All training seeds of a system."""
    runs = [diagnose_run(RunFiles(plan.profile, name, seed), plan.evaluate, val) for seed in plan.seeds]
    return pool(name, [values for values, _ in runs], runs[0][1], val.truth.num_images)


def diagnose_run(files: RunFiles, params: EvaluateParams, val: Val) -> tuple[Values, dict[str, int]]:
    """Every number of one run in every data set, and how many people every stratum has."""
    boxes = DETECTED if has_detections(files.profile) else VAL
    split = read_split(files.predictions, boxes, params.presence_policy)
    detections = scored_detections(split, val.truth, params.score_rule, params.oks_nms)
    people = val.truth.people
    pooled, by_keypoint = shares(classify_keypoints(people, detections), val.counts)
    values = {share(kind): pooled[:, c] for c, kind in enumerate(KINDS)}
    for k, keypoint in enumerate(KEYPOINT_NAMES):
        values |= {share(kind, keypoint): by_keypoint[:, k, c] for c, kind in enumerate(KINDS)}
    values |= {cost(sort): gained for sort, gained in error_costs(people, detections, val.counts).items()}
    levels = strata(people, detections, val.image_size, val.counts)
    for (factor, level), found in levels.items():
        values |= {stratum(factor, level, stat): found.stats[:, i] for i, stat in enumerate(("AP", "AR"))}
    return values, {f"{factor}/{level}": found.num_people for (factor, level), found in levels.items()}


def write_page(folder: Path, plan: ErrorsPlan, systems: Sequence[Diagnosis], rows: Sequence[Row]) -> None:
    """Tables, figures and the page that shows them."""
    people = markdown.people_of(rows)
    shown = [make(systems, people) for make in (kinds_table, keypoint_kinds_table, costs_table, strata_table)]
    for table in shown:
        tables.write_csv(table, folder)
    num_seeds = len(plan.seeds)
    bars = f"95 % intervals over images{f' and {num_seeds} training seeds' if num_seeds > 1 else ''}"
    save(draw_kinds(systems, f"What became of labelled keypoints, on {people}"), folder / "kinds.png")
    save(draw_costs(systems, f"What errors cost in AP on {people}, {bars}"), folder / "costs.png")
    save(draw_strata(systems, f"AP by attribute of the person on {people}, {bars}"), folder / "strata.png")
    page = markdown.render(
        PAGE,
        profile=plan.profile,
        people=people,
        facts=markdown.one_line(rows),
        note=markdown.mismatch_note(rows),
        bars=bars,
        found=FOUND,
        near=NEAR,
        precise=PRECISE,
        border=BORDER,
        overlap=OVERLAP,
        rule=markdown.escape(plan.evaluate.score_rule),
        num_resamples=plan.evaluate.num_resamples,
        tables={table.name: tables.to_markdown(table) for table in shown},
        provenance=markdown.provenance(rows),
    )
    write_text(folder / "README.md", page)


PAGE = """\
# What is wrong with the poses, on {{ people }} (profile {{ profile }})

{{ facts }}

AP says how good poses are, not what is wrong with them. Here every labelled keypoint of every person who was found is
sorted by what became of it, each sort of error is undone to see what AP it costs, and AP is taken apart by attributes
of the person. After Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV 2017.
Persons are scored by {{ rule }}. Brackets are {{ bars }} (percentile bootstrap, {{ num_resamples }} resamples).

{{ note }}

## What became of the keypoints

A person is found where a pose has OKS {{ found }} with it at least. Similarity is that of a single keypoint with a
labelled one, from 0 to 1.

- **good**: similarity {{ precise }} or more with its own label, as near as annotators are to each other;
- **jitter**: nearest to its own label, but {{ near }} to {{ precise }};
- **inversion**: nearest to its mirror partner, as the left wrist on the right one;
- **swap**: nearest to a keypoint of another person;
- **miss**: near to none of these, below {{ near }}.

{{ tables.kinds }}

![What became of labelled keypoints, by keypoint](kinds.png)

<details><summary>The numbers of the figure</summary>

{{ tables.kinds_per_keypoint }}

</details>

As CSV: [kinds.csv](kinds.csv), [kinds_per_keypoint.csv](kinds_per_keypoint.csv).

## What each error costs

AP as it is, and how much higher it would be were errors of one sort alone undone: keypoints put just near enough to
their label (first four, then all four together), persons ranked by how good their poses truly are (scores), poses of
nobody taken away (false positives), or nobody overlooked (missed persons). **Scores** is about the most that any score
rule could gain with these poses, a presence-aware one too. Costs do not add up: undoing one error can uncover another.

{{ tables.costs }}

![What each sort of error costs](costs.png)

As CSV: [costs.csv](costs.csv).

## Who is hard to find

People of other levels are ignored, as COCO ignores the large when it looks at the medium; a pose of nobody counts
against the level of the person it is most like, and against none where it is like nobody. So AP of levels is higher
than that of all. Boxes overlap where their intersection over union is above {{ overlap }}; a box within {{ border }}
pixels of the border is cut by it. Where few persons share a level, its interval says so.

![AP by attribute of the person](strata.png)

{{ tables.strata }}

As CSV: [strata.csv](strata.csv).

## Provenance

{{ provenance }}
"""

if __name__ == "__main__":
    run_command(main)
