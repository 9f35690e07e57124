"""Stage dependency_report: the page of what keypoints depend on, and of whether the maps that say so are right."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bench.config import DependencyParams
from bench.data.coco import CocoDict, read_coco
from bench.data.dependencies import GRADIENT, LAST_LAYER, MAPS, NEARNESS, PRESENCE_GRADIENT, RANDOM, ROLLOUT
from bench.data.predictions import VAL
from bench.metrics.bootstrap import few_images_note
from bench.metrics.faithfulness import DELETION, MODES
from bench.reporting import dependency as pages
from bench.reporting import markdown, tables
from bench.reporting.figures import save
from bench.reporting.parallel import map_on_cores
from bench.reporting.pictures import PicturePlan, save_small
from bench.reporting.rows import Row, load_rows
from bench.stages.command import run_command
from bench.stages.files import ResamplingPlan, manifest_file, plan_dir, read_model, write_text

REPORTS = Path("reports")
MEANINGS = {
    LAST_LAYER: "how much the token at the keypoint reads from each other token in the last layer, the mean of all "
    "heads: the map of TransPose (Yang et al., ICCV 2021)",
    ROLLOUT: "the attention of all layers multiplied, half of each token passing a layer by unchanged (Abnar and "
    "Zuidema, ACL 2020)",
    GRADIENT: "how much the highest value of the keypoint's heatmap changes with the pixels of a cell (absolute "
    "gradient, Simonyan et al. 2014); every system has it, one of convolutions alone has nothing else",
    PRESENCE_GRADIENT: "the same of the logit of the presence head",
    NEARNESS: "a floor that never looks at the picture: the nearer a cell is to the place where the system puts the "
    "keypoint, the higher",
    RANDOM: "a floor that knows nothing",
}


class DependencyPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    systems: list[str]
    resampling: ResamplingPlan
    pictures: PicturePlan
    dependency: DependencyParams


def main(profile: str) -> None:
    """Write reports/<profile>/dependency."""
    plan = read_model(plan_dir(profile) / "dependency_report.json", DependencyPlan)
    runs_dir = Path("runs", profile)
    rows = load_rows(runs_dir, plan.systems, plan.seeds)
    systems = pages.load_systems(runs_dir, rows, plan.resampling.num, plan.resampling.seed)
    folder = REPORTS / profile / "dependency"
    markdown.fresh_folder(folder)
    pictures = write_maps(folder, plan, systems, rows)
    write_page(folder, plan, rows, systems, pictures)


def write_maps(
    folder: Path, plan: DependencyPlan, systems: Sequence[pages.System], rows: Sequence[Row]
) -> dict[str, str]:
    """A picture of every system's maps, of the same keypoints; file names by system."""
    manifest, people = read_coco(manifest_file(plan.profile, VAL)), markdown.people_of(rows)
    chosen = pages.choose_questions(systems[0].asked, plan.pictures.num_persons, plan.pictures.seed)
    names = {system.name: f"maps_{place + 1}.png" for place, system in enumerate(systems)}
    map_on_cores(partial(write_picture, folder, names, manifest, chosen, people), systems)
    return names


def write_picture(
    folder: Path,
    names: dict[str, str],
    manifest: CocoDict,
    chosen: NDArray[np.int64],
    people: str,
    system: pages.System,
) -> None:
    figure = pages.draw_maps(system.asked, chosen, manifest, f"{system.name} on {people}")
    save_small(figure, folder / names[system.name])


def write_page(
    folder: Path,
    plan: DependencyPlan,
    rows: Sequence[Row],
    systems: Sequence[pages.System],
    pictures: dict[str, str],
) -> None:
    """Tables, figures and the page that shows them."""
    people = markdown.people_of(rows)
    questions = pages.compare_with_nearness(systems, plan.resampling.num, plan.resampling.seed)
    shown = [pages.faithfulness_table(systems, people), pages.differences_table(questions, people)]
    for table in shown:
        tables.write_csv(table, folder)
    bars = f"95 % intervals over images{f' and {len(plan.seeds)} training seeds' if len(plan.seeds) > 1 else ''}"
    save(pages.draw_faithfulness(systems, f"Faithfulness (%) on {people}, {bars}"), folder / "faithfulness.png")
    for mode in MODES:
        title = f"{mode.capitalize()} on {people}, bands: {bars}"
        save(pages.draw_curves(systems, mode, title), folder / f"{mode}.png")
    asked, params = systems[0].asked, plan.dependency
    page = markdown.render(
        PAGE,
        profile=plan.profile,
        people=people,
        facts=markdown.one_line(rows),
        note=markdown.mismatch_note(rows),
        few_images=few_images_note(systems[0].num_images),
        num_keypoints=len(asked.keypoint),
        num_persons=len(np.unique(asked.annotation_ids)),
        num_images=systems[0].num_images,
        cell=params.cell,
        shares=", ".join(f"{100 * share:g}" for share in params.shares),
        meanings={MAPS[name]: MEANINGS[name] for name in pages.iterate_maps(systems)},
        bars=bars,
        num_resamples=plan.resampling.num,
        differences=markdown.how_to_read_differences(plan.resampling.num, "localisation, or of presence"),
        sentences=pages.sentences(questions),
        tables={table.name: tables.to_markdown(table) for table in shown},
        pictures={markdown.escape(system): file for system, file in pictures.items()},
        seed=plan.seeds[0],
        modes=MODES,
        deletion=DELETION,
        limits=markdown.limits(rows),
        params=f"at most {params.num_persons} persons, {params.keypoints_per_person} keypoints each, cells of "
        f"{params.cell} pixels, seed {params.seed}",
        provenance=markdown.provenance(rows),
    )
    write_text(folder / "README.md", page)


PAGE = """\
# What keypoints depend on, on {{ people }} (profile {{ profile }})

{{ facts }}

Which parts of the picture make a system put a wrist where it does, and which make it say that the wrist is there?
Papers show **dependency maps** as an answer, and hardly ever ask whether the maps are right. Here both are done, of
**{{ num_keypoints }} labelled keypoints of {{ num_persons }} persons in {{ num_images }} images** of the val split,
drawn at random and the same for all systems. {{ few_images }}

{{ note }}

## The maps

{% for name, meaning in meanings.items() %}
- **{{ name }}**: {{ meaning }}.
{% endfor %}

All are of one pass over the picture as it is, without a flip test, on a grid of cells of {{ cell }} x {{ cell }} input
pixels. A brighter cell counts more; the ring is where the system puts the keypoint. One training of each system is
shown, seed {{ seed }}.

{% for system, file in pictures.items() %}
### {{ system }}

![Dependency maps of {{ system }}]({{ file }})

{% endfor %}

## Are they right? How it is tested

A map ranks the cells of a picture. If it is right, the system loses the keypoint as soon as the first cells of the
ranking are gone, and needs no more than these to find it (Petsiuk et al., RISE, BMVC 2018).

- **Deletion** blurs the highest cells: {{ shares }} % of all, and in the end all of them. **Insertion** shows these
  alone, and blurs the rest. What is blurred keeps its colours and loses its shapes; nothing is painted black, which
  systems know as the border of a picture.
- **Localisation** is what is left of the place: the similarity, as in OKS, of where the keypoint is put now
  and where it was put on the whole picture, 100 % if it does not move. The truth does not enter.
- **Presence** is what is left of the presence that the system gives to these keypoints, by its head or else by the
  height of the heatmap's peak, in per cent of that on the whole picture.
- The tables hold the **areas** under these curves. A right map has a small area under deletion and a large one under
  insertion; **faithfulness** is the second minus the first. It is 0 for a map that knows nothing.
- A map earns its name only above **nearness**, which knows where the keypoint is and nothing of the picture.
- Brackets and bands are {{ bars }} (percentile bootstrap, {{ num_resamples }} resamples, the same for all systems).
  Compare the maps of one system. Between systems the scores are of no common scale.
{{ differences }}

## Results

Each map, minus nearness, in points of faithfulness:

{{ sentences }}

A line is called better or worse where its interval leaves out 0 and its corrected p is below .05.

![Faithfulness of every map](faithfulness.png)

{{ tables.faithfulness }}

As CSV: [faithfulness.csv](faithfulness.csv).

{% for mode in modes %}
![What is left under {{ mode }}]({{ mode }}.png)

{% endfor %}

<details><summary>Every comparison with nearness</summary>

{{ tables.differences }}

</details>

As CSV: [differences.csv](differences.csv).

## What this does not show

{{ limits }} Blurred cells are something that no system saw in training: a system may lose a keypoint because the
picture is strange, and not because what is gone mattered. All maps are tested alike, so that differences between them
hold nevertheless. Only labelled keypoints are asked about; why a system calls an absent keypoint present is another
question. A map of attention says where a layer reads, not what it makes of it.

## Provenance

- dependency maps: {{ params }}
{{ provenance }}
"""

if __name__ == "__main__":
    run_command(main)
