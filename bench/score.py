"""python -m bench.score RESULTS.json ANNOTATIONS.json: COCO's ten numbers of any COCO-format result file.

With 95 % intervals over images, under the rules of the evaluator that is asked for, and beside what that evaluator
itself says of the same files. Letters: D detections, S data sets, P people.
"""

import contextlib
import io
import json
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from tabulate import tabulate
from typer import Option

from bench.data.checks import check_annotations
from bench.data.coco import COCO_LAYOUT, CROPCOCO_LAYOUT, CROWDPOSE_LAYOUT, OUTSIDE, CocoDict, Layout, read_coco
from bench.data.geometry import Floats
from bench.data.hashing import sha256_of
from bench.data.people import Detections, Truth
from bench.data.results import Results, read_results
from bench.errors import UserError
from bench.metrics.average_precision import STATS, OKSEvaluation
from bench.metrics.bootstrap import Interval, Method, Resampling, draw_resampling, few_images_note
from bench.metrics.oks import RULES, Rules, ignored_people, match
from bench.stages.code import import_closure
from bench.stages.command import run_command

RulesName = Literal["coco", "xtcocotools", "xtcocotools_before_1_12", "crowdpose"]
ImagesName = Literal["annotations", "results"]

LAYOUTS = dict.fromkeys(RULES, COCO_LAYOUT) | {"crowdpose": CROWDPOSE_LAYOUT}
"""How annotations look, by name of the rules."""

UNDEFINED = "\N{EN DASH}"
ENTRY_KEYS = ("image_id", "category_id", "keypoints", "score", "bbox")  # what evaluators of keypoints need of an entry
SAME = 1e-9  # evaluators add up in different orders; beyond this the result is another

BBOX_NOTE = (
    "The entries have a bbox. The COCO tools then decide by its area, not by the extent of the keypoints, whether an "
    "unmatched detection counts among medium or large people: column `with bbox`, other in APM and APL alone."
)


def main(
    results: Path,
    annotations: Path,
    rules: RulesName = "coco",
    images: Annotated[
        ImagesName, Option(help="results: only images of which the result file has a pose")
    ] = "annotations",
    num_resamples: Annotated[int, Option(min=1)] = 2000,
    interval: Method = "percentile",
    seed: Annotated[int, Option(min=0)] = 0,
    cross_check: bool = True,
) -> None:
    """Print COCO's ten numbers of a result file, x 100, with 95 % intervals over images."""
    coco = read_annotations(annotations, LAYOUTS[rules])
    truth = Truth.of(coco)
    found = read_results(results, truth.image_ids, LAYOUTS[rules].num_keypoints)
    coverage = coverage_note(truth, found.detections, RULES[rules], images)
    if images == "results":
        coco = part_with_results(results, coco, truth, found.detections)
        truth, image = Truth.of(coco), np.unique(found.detections.image, return_inverse=True)[1]
        found = found._replace(detections=found.detections._replace(image=image))
    resampling = draw_resampling(truth.num_images, num_resamples, interval, np.random.default_rng(seed))
    score = score_results(truth, found, RULES[rules], resampling)
    reference = ask_reference(rules, coco, read_entries(results)) if cross_check else None
    notes = (
        coverage,
        few_images_note(truth.num_images),
        outside_note(truth),
        repeated_note(found.detections),
        equal_scores_note(found.detections),
        BBOX_NOTE if score.with_bbox is not None else "",
        agreement(score, reference) if reference is not None else "",
    )
    print("\n\n".join([score_table(score, reference), *filter(None, notes)]))
    code = sha256_of(sorted(import_closure("bench.score")))[:12]
    drawn = f"{interval} intervals from {num_resamples} resamples of the images, seed {seed}"
    print(f"\n{stamp(rules, truth, found, score)}; {drawn}; bench.score {code}")


def read_annotations(file: Path, layout: Layout) -> CocoDict:
    """A COCO keypoint file whose annotations are all right; the area of people is NaN where none is annotated.

    Raises:
        UserError: see `bench.data.coco.read_coco` and `bench.data.checks.check_annotations`; no image.
    """
    coco = read_coco(file)
    if not coco["images"]:
        raise UserError(f"{file}: images: found none, wanted one or more")
    if layout == COCO_LAYOUT and any(has_outside(annotation) for annotation in coco["annotations"]):
        layout = CROPCOCO_LAYOUT
    check_annotations(file, coco, layout)
    if layout.has_area:
        return coco
    return coco | {"annotations": [annotation | {"area": math.nan} for annotation in coco["annotations"]]}


def has_outside(annotation: CocoDict) -> bool:
    """Whether a keypoint has CropCOCO's v = 3; the annotation need not be checked."""
    keypoints = annotation.get("keypoints")
    return isinstance(keypoints, list) and OUTSIDE in keypoints[2::3]


def part_with_results(file: Path, coco: CocoDict, truth: Truth, detections: Detections) -> CocoDict:
    """The images of which there is a pose, and their annotations.

    Raises:
        UserError: there is no pose at all.
    """
    if not len(detections.image):
        raise UserError(f"{file}: found no pose, wanted one or more: --images results scores no other images")
    kept = set(truth.image_ids[np.unique(detections.image)].tolist())
    return coco | {
        "images": [image for image in coco["images"] if image["id"] in kept],
        "annotations": [annotation for annotation in coco["annotations"] if annotation["image_id"] in kept],
    }


def read_entries(file: Path) -> list[CocoDict]:
    """The entries of a result file that `read_results` has read, once more, as other evaluators are given them."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    return [{key: entry[key] for key in ENTRY_KEYS if key in entry} for entry in entries]


class Score(NamedTuple):
    """The `STATS` of a result file, as fractions, and on how much they stand."""

    intervals: list[Interval]
    with_bbox: Floats | None  # (10,) with the area of the boxes in the file, if it has any
    num_people: int  # that count
    num_evaluated: int  # detections
    num_dropped: int  # detections whose keypoint scores are all 0 or less

    @property
    def as_evaluators_read_it(self) -> Floats:
        """(10,)"""
        return np.array([interval.value for interval in self.intervals]) if self.with_bbox is None else self.with_bbox


def score_results(truth: Truth, results: Results, rules: Rules, resampling: Resampling) -> Score:
    """Score the poses of a file; the images of `resampling` are those of `truth`."""
    matches = match(truth.people, results.detections, truth.num_images, rules)
    evaluation = OKSEvaluation(matches)
    values = np.stack([evaluation.stats_of(counts) for counts in resampling.counts])  # (S, 10)
    with_bbox = None
    if results.bbox_area is not None:
        evaluation = OKSEvaluation(match(truth.people, results.with_bbox_area, truth.num_images, rules))
        with_bbox = evaluation.stats_of(resampling.counts[0])
    scoreless = ~(results.detections.keypoint_score > 0).any(axis=1)
    return Score(
        intervals=resampling.intervals(values),
        with_bbox=with_bbox,
        num_people=int(matches.num_counted[0].sum()),
        num_evaluated=len(matches.detection),
        num_dropped=int(scoreless.sum()) if rules.drop_zero_scores else 0,
    )


class Evaluator(NamedTuple):
    """Somebody else's evaluator that goes by the same rules."""

    package: str
    iou_type: str = "keypoints"
    stats: Sequence[str] = STATS  # in which it must agree


REFERENCES = {
    "coco": Evaluator("pycocotools"),
    "xtcocotools": Evaluator("xtcocotools"),
    "xtcocotools_before_1_12": Evaluator("xtcocotools", stats=[s for s in STATS if s not in {"APM", "APL"}]),
    "crowdpose": Evaluator("xtcocotools", "keypoints_crowd"),
}
"""By name of the rules."""

UNMATCHABLE: dict[str, Callable[[int], bool]] = {
    "pycocotools": lambda annotation_id: annotation_id == 0,
    "xtcocotools": lambda annotation_id: annotation_id < 0,
}
"""Ids of annotations by which a package marks that a detection has no match: what is matched to them is a miss."""


class Reference(NamedTuple):
    """What another evaluator says, or why it says nothing."""

    evaluator: Evaluator
    values: Floats | None  # (10,)
    silence: str = ""
    unmatchable: Sequence[int] = ()  # annotations, see `UNMATCHABLE`

    @property
    def name(self) -> str:
        try:
            return f"{self.evaluator.package} {version(self.evaluator.package)}"
        except PackageNotFoundError:
            return self.evaluator.package


def ask_reference(rules: str, coco: CocoDict, entries: Sequence[CocoDict]) -> Reference:
    """What the evaluator with these rules says of checked annotations and entries, which stay as they are."""
    evaluator = REFERENCES[rules]
    if not entries and evaluator.package == "pycocotools":
        return Reference(evaluator, None, "cannot read a list without results")
    unmatchable = [a["id"] for a in coco["annotations"] if UNMATCHABLE[evaluator.package](a["id"])]
    try:
        values = run_evaluator(evaluator, RULES[rules], coco, entries)
        return Reference(evaluator, values, unmatchable=unmatchable)
    except (ImportError, ValueError) as error:  # ValueError: built against another numpy
        return Reference(evaluator, None, f"does not run here ({' '.join(str(error).split())})")


def run_evaluator(evaluator: Evaluator, rules: Rules, coco: CocoDict, entries: Sequence[CocoDict]) -> Floats:
    """The `STATS` (10,), NaN where undefined."""
    api, evaluation = (import_module(f"{evaluator.package}.{module}") for module in ("coco", "cocoeval"))
    truth = api.COCO()
    truth.dataset = {
        "images": coco["images"],
        "annotations": [dict(annotation) for annotation in coco["annotations"]],
        "categories": [{"id": 1, "name": "person"}],
    }
    options = () if evaluator.package == "pycocotools" else (rules.sigmas, rules.segment_area)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([dict(entry) for entry in entries])
        running = evaluation.COCOeval(truth, found, evaluator.iou_type, *options)
        running.evaluate()
        running.accumulate()
        running.params.iouType = "keypoints"  # the ten numbers also of CrowdPose, where it would print others
        running.summarize()
    return np.where(running.stats == -1, np.nan, running.stats)


def agreement(score: Score, reference: Reference) -> str:
    """A sentence: whether the other evaluator says the same."""
    if reference.values is None:
        return f"{reference.name} {reference.silence}: not cross-checked."
    places = [STATS.index(stat) for stat in reference.evaluator.stats]
    ours, theirs = score.as_evaluators_read_it[places], reference.values[places]
    difference = np.where(np.isnan(ours) & np.isnan(theirs), 0.0, np.abs(ours - theirs))
    largest = float(difference.max())  # NaN where only one of the two is undefined
    which = "" if len(places) == len(STATS) else f" in {', '.join(reference.evaluator.stats)}"
    if largest <= SAME:
        return f"{reference.name} agrees {f'to {largest:.0e}' if largest else 'exactly'}{which}."
    worst = STATS[places[int(difference.argmax())]]
    ids = ", ".join([*map(str, reference.unmatchable[:3]), *["..."] * (len(reference.unmatchable) > 3)])
    reason = f"; it takes whoever finds an annotation with id {ids} for a miss" if ids else ""
    return f"{reference.name} DIFFERS by up to {largest:.2g} (as fraction, {worst}){which}{reason}."


def score_table(score: Score, reference: Reference | None) -> str:
    """A line for each of the `STATS`, in Markdown."""
    columns = {
        "": list(STATS),
        "x 100": [percent(interval.value) for interval in score.intervals],
        "95 % interval": [bounds(interval) for interval in score.intervals],
    }
    if score.with_bbox is not None:
        columns["with bbox"] = [percent(value) for value in score.with_bbox]
    if reference is not None and reference.values is not None:
        columns[reference.name] = [percent(value) for value in reference.values]
    align = ("left", *["right"] * (len(columns) - 1))
    return tabulate(columns, headers="keys", tablefmt="github", disable_numparse=True, colalign=align)


def coverage_note(truth: Truth, detections: Detections, rules: Rules, images: ImagesName) -> str:
    """Of how many images of the annotation file there is no pose, and what that means."""
    lacks = np.ones(truth.num_images, dtype=bool)
    lacks[detections.image] = False
    if not lacks.any():
        return f"The results have a pose in each of the {truth.num_images} images of the annotations."
    num_people = int((lacks[truth.people.image] & ~ignored_people(truth.people, rules)).sum())
    without = f"{lacks.sum()} of {truth.num_images} images of the annotations have no pose in the results"
    if images == "results":
        return f"{without}: they, and {num_people} people that count in them, are left out (--images results)."
    return (
        f"{without}: {num_people} people that count in them are misses. If the results are of a part of the images, "
        "score that part alone: --images results."
    )


def outside_note(truth: Truth) -> str:
    """How many keypoints have CropCOCO's v = 3, and how they count; nothing where none has."""
    num_outside = int((truth.people.visibility == OUTSIDE).sum())
    if not num_outside:
        return ""
    return (
        f"{num_outside} keypoints have v = {OUTSIDE}, which CropCOCO gives to what lies outside of the picture. As in "
        "the COCO tools, OKS takes them for labelled, as every v > 0."
    )


def repeated_note(detections: Detections) -> str:
    """How many poses stand in the file more than once; nothing where none does."""
    columns = (
        detections.image[:, None],
        detections.score[:, None],
        detections.keypoints.reshape(len(detections.image), 2 * detections.keypoint_score.shape[1]),
    )
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1))
    num_repeated = len(rows) - len({row.tobytes() for row in rows})
    if not num_repeated:
        return ""
    return (
        f"{num_repeated} poses repeat another of the file (image, keypoints, score): a person is matched to one alone."
    )


def equal_scores_note(detections: Detections) -> str:
    """That all scores are equal; nothing where they differ."""
    score = detections.score
    if len(score) < 2 or (score != score[0]).any():
        return ""
    return f"All {len(score)} poses have the score {score[0]:g}: AP then hangs on their order in the file."


def percent(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{100 * value:.2f}"


def bounds(interval: Interval) -> str:
    return UNDEFINED if math.isnan(interval.low) else f"{percent(interval.low)} to {percent(interval.high)}"


def stamp(rules: str, truth: Truth, results: Results, score: Score) -> str:
    """By which rules and on what the numbers stand, on one line."""
    num_found, most = len(results.detections.image), RULES[rules].max_detections
    num_surplus = num_found - score.num_dropped - score.num_evaluated
    left_out = [
        f"{num_surplus} beyond the {most} of their image" if num_surplus else "",
        f"{score.num_dropped} without a keypoint score above 0" if score.num_dropped else "",
    ]
    dropped = ", ".join(filter(None, left_out)) or "none"
    return (
        f"rules {rules}, at most {most} detections an image; {truth.num_images} images, {score.num_people} people that "
        f"count of {len(truth.people.image)} annotated, {num_found} detections, left out: {dropped}"
    )


if __name__ == "__main__":
    run_command(main)
