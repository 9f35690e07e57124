"""Stage stress_report: the page of what truncation does to the systems of one profile, from their stress files."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import expit

from bench.config import EvaluateParams, StressParams
from bench.data.geometry import Floats
from bench.data.people import image_positions
from bench.data.predictions import CALIBRATION, read_split
from bench.data.stressed import Stressed, read_stressed
from bench.data.truncation import conditions
from bench.errors import UserError
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.calibration import calibration_metrics
from bench.metrics.calibrators import Calibrator, fit_temperature
from bench.metrics.errors import NEAR
from bench.metrics.hallucination import METRICS as PLACES
from bench.metrics.hallucination import Landing, swap_distances, swap_rates
from bench.metrics.presence import Labelled, metrics_at, ranking
from bench.reporting import markdown, tables
from bench.reporting.figures import save
from bench.reporting.parallel import map_on_cores
from bench.reporting.results import pool_numbers
from bench.reporting.rows import ALWAYS_PRESENT, HEATMAP_PEAK, PRESENCE_HEAD, Row, Source, load_rows
from bench.reporting.stress import (
    ALL_SIDES,
    MODE_LABELS,
    PADDING_LABELS,
    Grid,
    Point,
    System,
    Tally,
    calibration_table,
    difference,
    draw_curves,
    given_away_table,
    halfway_table,
    head_lines,
    number,
    paddings_table,
    places_table,
    presence_table,
    sides_table,
    system_lines,
    tally_table,
    voice_lines,
    with_head,
)
from bench.stages.command import run_command
from bench.stages.files import RunFiles, plan_dir, read_model, write_text

REPORTS = Path("reports")
MAX_RESAMPLES = 500
"""Every condition is resampled apart, and there are many."""

Values = dict[str, Floats]  # name of a number -> (S,), its value in every data set


class StressPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    systems: list[str]
    evaluate: EvaluateParams
    stress: StressParams

    @property
    def num_resamples(self) -> int:
        return min(self.evaluate.num_resamples, MAX_RESAMPLES)


class Measured(NamedTuple):
    """One run: its numbers in every data set, and of how many persons and keypoints they are."""

    values: Values
    tallies: dict[tuple[str, float], Tally]
    num_persons: int
    num_images: int


def main(profile: str) -> None:
    """Write reports/<profile>/truncation."""
    plan = read_model(plan_dir(profile) / "stress_report.json", StressPlan)
    rows = load_rows(Path("runs", profile), plan.systems, plan.seeds)
    runs = map_on_cores(partial(measure_run, plan), rows)
    systems = [pool_system(name, rows, runs) for name in plan.systems]
    folder = REPORTS / profile / "truncation"
    markdown.fresh_folder(folder)
    write_page(folder, plan, systems, rows, runs[0])


def grid_of(params: StressParams) -> Grid:
    """Panels in the order of the conditions."""
    grid = conditions(sides=params.sides, kept=params.kept, paddings=params.paddings)
    return Grid(list(dict.fromkeys((c.mode, c.padding) for c in grid)), params.sides, params.kept)


def pool_system(name: str, rows: Sequence[Row], runs: Sequence[Measured]) -> System:
    """All training seeds of a system."""
    own = [(row, run) for row, run in zip(rows, runs, strict=True) if row.experiment == name]
    numbers = pool_numbers([run.values for _, run in own], own[0][1].num_images)
    return System(name, list(own[0][0].thresholds), numbers, own[0][1].tallies, len(own))


def measure_run(plan: StressPlan, row: Row) -> Measured:
    """Every number of one run."""
    files = RunFiles(plan.profile, row.experiment, row.seed)
    stressed = read_stressed(files.stress)
    check_declared(files.stress, stressed, plan.stress)
    image_ids = np.unique(stressed.image_ids)
    rng = np.random.default_rng(plan.evaluate.seed)
    counts = draw_resampling(len(image_ids), plan.num_resamples, "percentile", rng).counts
    calibrator = temperature_of(files, plan.evaluate) if PRESENCE_HEAD in row.thresholds else None
    everybody = Everybody.of(stressed)
    grid = grid_of(plan.stress)
    values: Values = {}
    for point in grid.points():
        samples = stressed.take(at(stressed, point))
        image = image_positions(image_ids, samples.image_ids)
        values |= presence_values(point, samples, row, image, counts)
        if calibrator is not None:
            values |= calibration_values(point, samples, calibrator, image, counts)
        values |= place_values(point, samples, everybody, image, counts)
    values |= differences(grid, list(row.thresholds), values)
    return Measured(values, tally(stressed, grid, len(everybody.ids)), len(everybody.ids), len(image_ids))


def check_declared(file: Path, stressed: Stressed, params: StressParams) -> None:
    """Raises:
    UserError: the file is of other conditions than those declared.
    """
    found = set(zip(stressed.mode, stressed.side, stressed.kept.tolist(), stressed.padding, strict=True))
    wanted = set(map(tuple, conditions(sides=params.sides, kept=params.kept, paddings=params.paddings)))
    if found != wanted:
        example = sorted(found ^ wanted)[0]
        what = "an undeclared" if example in found else "nobody under"
        raise UserError(f"{file}: found {what} condition {example}: run `dvc repro stress@{file.stem}`")


def at(stressed: Stressed, point: Point) -> NDArray[np.bool_]:
    """Which samples are of a point."""
    is_there = (stressed.mode == point.mode) & (stressed.padding == point.padding) & (stressed.kept == point.kept)
    return np.asarray(is_there if point.side == ALL_SIDES else is_there & (stressed.side == point.side))


def temperature_of(files: RunFiles, params: EvaluateParams) -> Calibrator:
    """Fitted on the plain calibration split, one for all keypoints."""
    split = read_split(files.predictions, CALIBRATION, params.presence_policy)
    assert split.presence_logits is not None, "a run with a threshold for its head has a head"
    return fit_temperature(column(split.presence_logits), column(split.present), column(split.present_weight))


def column(values: NDArray) -> NDArray:
    """Keypoints (N, K) as if each were a person with one (N * K, 1): they are pooled, and none is looked at apart."""
    return values.reshape(-1, 1)


def of_keypoints(image: NDArray[np.int64], samples: Stressed) -> NDArray[np.int64]:
    """The image (N * K,) of every keypoint."""
    return np.repeat(image, samples.score.shape[1])


def scores_of(samples: Stressed) -> dict[Source, Floats]:
    """Every statement on presence (N, K)."""
    floor = np.ones_like(samples.score)
    scores: dict[Source, Floats] = {HEATMAP_PEAK: samples.score, ALWAYS_PRESENT: floor}
    return scores if samples.logits is None else {PRESENCE_HEAD: expit(samples.logits), **scores}


def presence_values(
    point: Point, samples: Stressed, row: Row, image: NDArray[np.int64], counts: NDArray[np.int32]
) -> Values:
    """AUROC, F1 and hallucinated keypoints per person, at the threshold that was chosen on plain calibration data."""
    values: Values = {}
    pooled_image = of_keypoints(image, samples)
    labels = Labelled(column(samples.present), column(samples.weight), pooled_image)
    absent = (samples.weight > 0) & ~samples.present
    nowhere = np.full(len(absent), np.nan)
    for name, found in (("absent", absent), ("present", (samples.weight > 0) & samples.present)):
        values[number(point, name)] = np.full(len(counts), float(found.sum()))
    scores = scores_of(samples)
    for source in row.thresholds:
        score, threshold = scores[source], row.threshold(source)
        views = metrics_at(column(score), labels, threshold, counts) | ranking(column(score), labels, counts)
        values |= {number(point, metric, source): views[metric][:, 0] for metric in ("AUROC", "F1")}
        hallucinated = (absent & (score >= threshold)).sum(axis=1) if np.isfinite(threshold) else nowhere
        every_sample = np.ones(len(hallucinated))
        values[number(point, "hallucinated", source)] = mean_in(hallucinated, every_sample, image, counts)
    return values


def calibration_values(
    point: Point, samples: Stressed, calibrator: Calibrator, image: NDArray[np.int64], counts: NDArray[np.int32]
) -> Values:
    """ECE of the head as it is, and with the temperature of the plain calibration split."""
    assert samples.logits is not None, "a run with a threshold for its head has a head"
    logits, present, weight = (column(x) for x in (samples.logits, samples.present, samples.weight))
    pooled_image = of_keypoints(image, samples)
    return {
        number(point, metric, PRESENCE_HEAD): calibration_metrics(
            probability, present, weight, pooled_image, counts
        ).pooled["ECE"]
        for metric, probability in (("ECE", expit(logits)), ("ECE_temperature", calibrator(logits)))
    }


class Everybody(NamedTuple):
    """All persons of a file, as they are in the whole image."""

    ids: NDArray[np.int64]  # (P,) annotation ids, ascending
    image_ids: NDArray[np.int64]  # (P,)
    truth: Floats  # (P, K, 2); NaN where not in the image, or not known to be
    area: Floats  # (P,)

    @classmethod
    def of(cls, stressed: Stressed) -> "Everybody":
        ids, first = np.unique(stressed.annotation_ids, return_index=True)
        return cls(ids, stressed.image_ids[first], stressed.truth[first], stressed.area[first])


def place_values(
    point: Point, samples: Stressed, everybody: Everybody, image: NDArray[np.int64], counts: NDArray[np.int32]
) -> Values:
    """How well what remains is placed, and what absent keypoints were put on."""
    remains = samples.present & (samples.visibility > 0)
    summed = np.where(remains, samples.similarity, 0.0).sum(axis=1)
    values = {number(point, "similarity"): mean_in(summed, remains.sum(axis=1), image, counts)}
    landing = Landing._make(column(x) for x in landings(samples, everybody))
    found = swap_rates(landing, of_keypoints(image, samples), counts)[0]
    return values | {number(point, place): found[place] for place in PLACES}


def landings(samples: Stressed, everybody: Everybody) -> Landing:
    """Each sample in a picture of its own, beside the others of its image, of whom nothing is cut."""
    others = (samples.image_ids[:, None] == everybody.image_ids) & (samples.annotation_ids[:, None] != everybody.ids)
    sample, other = np.nonzero(others)
    truth = np.concatenate([samples.truth, everybody.truth[other]])
    there = np.isfinite(truth).all(axis=-1)
    there[: len(samples.score)] = samples.present & (samples.weight > 0)
    absent = np.zeros_like(there)
    absent[: len(samples.score)] = (samples.weight > 0) & ~samples.present
    landing = swap_distances(
        predicted=np.concatenate([samples.keypoints, everybody.truth[other]]),
        keypoints=np.nan_to_num(truth),
        present=there,
        absent=absent,
        area=np.concatenate([samples.area, everybody.area[other]]),
        image=np.concatenate([np.arange(len(samples.score)), sample]),
    )
    return Landing._make(field[: len(samples.score)] for field in landing)


def mean_in(
    total: NDArray[np.number], times: NDArray[np.number], image: NDArray[np.int64], counts: NDArray[np.int32]
) -> Floats:
    """Sum of `total` (N,) over that of `times` (N,) in every data set (S,); NaN where there is nothing to divide by."""
    above, below = (counts @ np.bincount(image, x, minlength=counts.shape[1]) for x in (total, times))
    return np.divide(above, below, out=np.full(len(counts), np.nan), where=below > 0)


def differences(grid: Grid, sources: Sequence[Source], values: Values) -> Values:
    """Of AUROC, draw by draw: between paddings, and between what is cut away and what is left out of the window."""
    return {
        difference(first, second, source): values[number(first, "AUROC", source)]
        - values[number(second, "AUROC", source)]
        for first, second in [*grid.padding_pairs(), *grid.mode_pairs()]
        for source in sources
    }


def tally(stressed: Stressed, grid: Grid, num_persons: int) -> dict[tuple[str, float], Tally]:
    """Of every mode and fraction."""
    found = {}
    for mode in grid.modes:
        num_samples = num_persons * (1 if mode == "blackout" else len(grid.sides))
        for kept in grid.kept:
            samples = stressed.take(at(stressed, Point(mode, grid.paddings(mode)[0], ALL_SIDES, kept)))
            known = samples.weight > 0
            present = samples.present & known
            found[mode, kept] = Tally(
                samples=num_samples,
                excluded=num_samples - len(samples.score),
                empty=int((~present.any(axis=1)).sum()),
                present=int(present.sum()),
                absent=int((known & ~samples.present).sum()),
                unknown=int((~known).sum()),
            )
    return found


def write_page(folder: Path, plan: StressPlan, systems: Sequence[System], rows: Sequence[Row], first: Measured) -> None:
    """Tables, figures and the page that shows them."""
    people, grid = markdown.people_of(rows), grid_of(plan.stress)
    makers: list[Callable[[Sequence[System], Grid, str], tables.Table]] = [
        halfway_table, given_away_table, paddings_table, presence_table, places_table, sides_table, tally_table,
    ]  # fmt: skip
    if with_head(systems):
        makers.append(calibration_table)
    shown = [make(systems, grid, people) for make in makers]
    for table in shown:
        tables.write_csv(table, folder)
    num_seeds = len(plan.seeds)
    bars = f"95 % intervals over images{f' and {num_seeds} training seeds' if num_seeds > 1 else ''}"
    draw_figures(folder, systems, grid, f"on truncated {people}, {bars}")
    page = markdown.render(
        PAGE,
        profile=plan.profile,
        people=people,
        facts=markdown.one_line(rows),
        note="\n\n".join([markdown.mismatch_note(rows), markdown.no_threshold_note(rows)]),
        limits=markdown.limits(rows),
        bars=bars,
        few=markdown.how_to_read_few(),
        num_resamples=plan.num_resamples,
        num_persons=first.num_persons,
        num_images=first.num_images,
        halfway=grid.halfway_text,
        near=NEAR,
        threshold_rule=markdown.escape(rows[0].protocol.threshold_rule),
        modes=MODE_LABELS,
        padding_names=grid.padding_names,
        paddings=markdown.spell_choice(PADDING_LABELS[name] for name in grid.padding_names),
        has_head=bool(with_head(systems)),
        tables={table.name: tables.to_markdown(table) for table in shown},
        stress=declared(plan.stress),
        provenance=markdown.provenance(rows),
    )
    write_text(folder / "README.md", page)


def declared(params: StressParams) -> str:
    """The parameters, for the provenance."""
    kept = ", ".join(f"{kept:g}" for kept in params.kept)
    return (
        f"at most {params.num_persons} persons, kept {kept}; sides {', '.join(params.sides)}; paddings "
        f"{', '.join(params.paddings)}; seed {params.seed}"
    )


def draw_figures(folder: Path, systems: Sequence[System], grid: Grid, where: str) -> None:
    figures = {
        "auroc": draw_curves(voice_lines(systems, "AUROC", floor=False), grid, f"Presence AUROC {where}", "AUROC (%)"),
        "f1": draw_curves(voice_lines(systems, "F1", floor=True), grid, f"Presence F1 {where}", "F1 (%)"),
        "hallucinated": draw_curves(
            voice_lines(systems, "hallucinated", floor=True),
            grid,
            f"Absent keypoints called present, {where}",
            "per person",
            scale=1.0,
        ),
        "similarity": draw_curves(
            system_lines(systems, "similarity"), grid, f"Localisation of what remains, {where}", "similarity (%)"
        ),
        "swaps": draw_curves(
            system_lines(systems, "swap"), grid, f"Absent keypoints that were swapped, {where}", "swapped (%)"
        ),
    }
    if with_head(systems):
        figures["ece"] = draw_curves(head_lines(systems), grid, f"Calibration {where}", "ECE (%)")
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


PAGE = """\
# What truncation does to presence, on {{ people }} (profile {{ profile }})

{{ facts }} Of these, **{{ num_persons }} persons in {{ num_images }} images**, drawn at random, are truncated here.

COCO's label 0 says "not labelled", which is not "absent". A keypoint that was cut away on purpose is certainly absent.
So every person is taken several times, with less and less of it kept, and each system, as it was trained, is asked
again.

{{ note }}

## How to read it

The modes ask different things and are never mixed.

- **{{ modes.cut }}**: the image ends at a line across the person, as at the border of a photograph. The box is what
  remains, the crop is made anew, and beyond the line there is padding.
- **{{ modes.shift }}**: the image goes on, but the model's window, as large as for the same box, ends at that line.
  No border is to be seen. The person then stands at the window's edge, which a training without random shifts never
  shows.
- **{{ modes.blackout }}**: patches hide keypoints, which are in the window still. They count as **present**: it asks
  whether a system takes hidden for absent. Absent are only those that the image never held.

Kept is a fraction of the person's box along the axis of the cut, or of the keypoints where they are covered; 100 % is
the person as it is, the same in all modes. Sides are pooled: the person is cut from each in turn.

**The edge of a cut can give absence away; a shifted window has no such edge.** Beyond a cut there is padding
({{ paddings }}): a system may answer "absent" because it sees the edge, and not because it knows where the limb would
be. In a shifted window only the person, and its place in the window, can tell.
{% if "mean" in padding_names %}
The mean colour is 0 to a model that normalises pixels with ImageNet's mean.
{% endif %}
{% if "reflect" in padding_names %}
A mirrored image has no edge, but limbs that are not there.
{% endif %}
Padding is shown wherever the window leaves the image, so it also changes the other modes, and persons of whom all is
kept.

- **AUROC** asks which keypoints are there without a threshold; 50 % is a coin. **F1** is at the threshold of the
  plain data ({{ threshold_rule }}), which knows nothing of truncation; *always present* says yes to everything, and
  its F1 falls with the share that is there. An F1 below that line is below that of no answer.
- **Absent, called present**: keypoints per person that a system claims at that threshold, and that are not there.
- **Similarity of what remains**: mean of the term of OKS, 100 % for the labelled place, of keypoints that are left and
  labelled, on the scale of the whole person.
- **Heatmap peak** reads presence off the height of the heatmap's peak, which needs no head.
- Brackets and bars are {{ bars }} (percentile bootstrap, {{ num_resamples }} resamples of the images used; all sides
  of a person move together). They are not corrected for their number. Arrows tell which way is better; an en dash
  stands for a number that is undefined or that too few images define.
- {{ few }}

**What this does not show.** {{ limits }} A cut is straight and falls on one person at a time; real ones fall on
everybody in the image. Boxes know where the cut is, as an annotator's would.

## Where {{ halfway }} is kept

With the first padding of the list; for all paddings and fractions see below.

{{ tables.halfway }}

### Does the edge give it away?

AUROC where persons are cut away and where they are left out of the window, and paired differences. Two things differ:
the edge that a cut shows, and the place of the person in the window, in the middle or at its edge. Similarity of what
remains tells what the place does to the poses: where it is much lower, a lower AUROC may come from that, too. The next
table leaves the window where it is and changes the padding alone.

{{ tables.given_away }}

### Paddings

AUROC under each padding in the same windows, and paired differences from the first one declared. Nothing but the
padding changes: where an interval of what is cut away lies below 0, AUROC with the first padding rests in part on how
that padding looks.

{{ tables.paddings }}

As CSV: [halfway.csv](halfway.csv), [given_away.csv](given_away.csv), [paddings.csv](paddings.csv).

## Presence as less is kept

![AUROC](auroc.png)

![F1](f1.png)

![Absent keypoints called present](hallucinated.png)

<details><summary>The numbers of the figures</summary>

{{ tables.presence }}

</details>

As CSV: [presence.csv](presence.csv).

{% if has_head %}
## Does calibration transfer?

Expected calibration error of the presence head's probability: as it is, and **tempered**, with the one temperature that
fits the plain calibration split best. Chance alone keeps it above 0, the more so the fewer keypoints are left. Where
the tempered line rises to the right by more than its bars, the temperature fits truncated persons worse.

![ECE](ece.png)

<details><summary>The numbers of the figure</summary>

{{ tables.calibration }}

</details>

As CSV: [calibration.csv](calibration.csv).
{% endif %}

## Where keypoints are put

A heatmap has a peak somewhere, whether its keypoint is there or not. What is left should stay in its place
(similarity); what is absent has to be put somewhere. Near means a similarity of {{ near }} or more; **swapped** is on
the mirror partner, as the left wrist on the right one, or on the same keypoint, or its mirror partner, of somebody else
in the image.
Distances are to the nearest keypoint of the person that is left, in roots of the person's area (median).

![Similarity of what remains](similarity.png)

![Swapped](swaps.png)

<details><summary>The numbers of the figures</summary>

{{ tables.places }}

</details>

As CSV: [places.csv](places.csv).

## Side by side

Where {{ halfway }} is kept, with the first padding; left and right are those of the image.

<details><summary>The table</summary>

{{ tables.sides }}

</details>

As CSV: [sides.csv](sides.csv).

## How many

A person of whom nothing is kept is excluded; one of whom no known keypoint is left is not. Unknown keypoints, neither
labelled nor drawn, count nowhere. The padding changes nothing of this.

{{ tables.tally }}

As CSV: [tally.csv](tally.csv).

## Provenance

- stress test: {{ stress }}
{{ provenance }}
"""

if __name__ == "__main__":
    run_command(main)
