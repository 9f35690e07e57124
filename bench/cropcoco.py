"""python -m bench.cropcoco PROFILE RUN SEED ANNOTATIONS.json IMAGE_FOLDER: what a run says of people cut by a picture.

How well it tells what is there, on a file in the format of CropCOCO (`bench.data.cropcoco`) and under each of its
rules, and where it puts what lies outside of the picture; with 95 % intervals over images. Nothing is chosen on these
people. Letters: N persons, K keypoints, I images, S data sets.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from tabulate import tabulate
from typer import Option

from bench.data.coco import read_image
from bench.data.cropcoco import RULES, WINDOW_PADDING, WINDOW_SIZE, CropCoco, read_cropcoco
from bench.data.geometry import Floats
from bench.data.hashing import sha256_of
from bench.errors import UserError
from bench.inference.predict import Predictions
from bench.metrics.bootstrap import Interval, Method, Resampling, draw_resampling, few_images_note
from bench.metrics.presence import POOLED, VIEWS, Labelled, metrics_at, ranking
from bench.reporting.rows import ALWAYS_PRESENT, HEATMAP_PEAK, PRESENCE_HEAD, SOURCES, Row, Source
from bench.score import UNDEFINED
from bench.stages.code import import_closure
from bench.stages.command import run_command
from bench.stages.evaluated_run import open_evaluated
from bench.stages.files import RunFiles
from bench.stages.run_model import TrainedRun
from bench.stages.stress import similarity

PERCENT = {"AUROC": "AUROC", "AP_absent": "AP absent", "FPR95": "FPR95", "F1": "F1"}
"""Metrics that are shown x 100."""
PER_PERSON = {"hallucinated": "hallucinated per person"}

INSIDE, OUTSIDE = "inside of the picture", "outside of the picture"


def main(
    profile: str,
    run: str,
    seed: int,
    annotations: Path,
    image_folder: Path,
    num_resamples: Annotated[int, Option(min=1)] = 2000,
    interval: Method = "percentile",
    resampling_seed: Annotated[int, Option("--seed", min=0)] = 0,
) -> None:
    """Print how well a run tells which keypoints of CropCOCO are there, and where it puts those outside."""
    files = RunFiles(profile, run, seed)
    cropcoco = read_cropcoco(annotations, image_folder)
    check_images(cropcoco)
    asked = open_evaluated(files)
    found = asked.ask(cropcoco.persons)
    statements = statements_of(found, asked.row)
    image = np.unique([person.image_id for person in cropcoco.persons], return_inverse=True)[1]
    rng = np.random.default_rng(resampling_seed)
    resampling = draw_resampling(int(image.max()) + 1, num_resamples, interval, rng)
    drawn = f"{interval} intervals from {num_resamples} resamples of the images, seed {resampling_seed}"
    code = sha256_of(sorted(import_closure("bench.cropcoco")))[:12]
    parts = (
        presence_table(statements, cropcoco, image, resampling),
        localisation_table(found.keypoints, cropcoco, image, resampling),
        few_images_note(resampling.counts.shape[1]),
        threshold_sentence(statements, asked.row),
        f"{stamp(files, asked.trained, annotations, cropcoco)}; {drawn}; bench.cropcoco {code}",
    )
    print("\n\n".join(filter(None, parts)))


def check_images(cropcoco: CropCoco) -> None:
    """Raises:
    UserError: an image is missing, is none, or has another size than the file says.
    """
    sizes = zip(cropcoco.persons, cropcoco.annotated.image_size.tolist(), strict=True)
    for file, wanted in {person.image_file: size for person, size in sizes}.items():
        height, width, _ = read_image(file).shape
        if [width, height] != wanted:
            raise UserError(f"{file}: found {width} x {height} pixels, wanted {wanted[0]} x {wanted[1]} as annotated")


class Statement(NamedTuple):
    """What a source says of the keypoints; what scores at least the threshold is called present."""

    score: Floats  # (N, K) higher = more likely there
    threshold: float


def statements_of(found: Predictions, row: Row) -> dict[Source, Statement]:
    """Of every source that the run has, and of the floor; thresholds are those of its row."""
    scores: dict[Source, Floats] = {}  # (N, K)
    if found.presence_logits is not None:
        scores[PRESENCE_HEAD] = expit(found.presence_logits.astype(np.float64))
    scores[HEATMAP_PEAK] = found.score.astype(np.float64)
    scores[ALWAYS_PRESENT] = np.ones(found.score.shape)
    return {source: Statement(score, row.threshold(source)) for source, score in scores.items()}


def presence_numbers(statement: Statement, labels: Labelled, resampling: Resampling) -> dict[str, Interval]:
    """By metric, of all keypoints pooled; undefined where a class that it needs is empty."""
    score, threshold = statement
    views = ranking(score, labels, resampling.counts) | metrics_at(score, labels, threshold, resampling.counts)
    names = (*PERCENT, *PER_PERSON)
    values = np.stack([views[name][:, VIEWS.index(POOLED)] for name in names], axis=1)
    return dict(zip(names, resampling.intervals(values), strict=True))


def presence_table(
    statements: Mapping[Source, Statement], cropcoco: CropCoco, image: NDArray[np.integer], resampling: Resampling
) -> str:
    """A line for every rule and source, in Markdown; `image` (N,) are positions."""
    records = []
    for rule in RULES:
        labels = Labelled(*cropcoco.label(rule), image)
        num_present = int(labels.present.sum())  # none without a label
        numbers = {"present": num_present, "absent": int(labels.weight.sum()) - num_present}
        for source, statement in statements.items():
            metrics = presence_numbers(statement, labels, resampling)
            records.append(
                {"present means": rule, "read from": SOURCES[source], **numbers}
                | {label: cell(metrics[name]) for name, label in PERCENT.items()}
                | {label: cell(metrics[name], scale=1.0) for name, label in PER_PERSON.items()}
            )
    return as_markdown(records, num_words=2)


def localisation_table(
    keypoints: Floats, cropcoco: CropCoco, image: NDArray[np.integer], resampling: Resampling
) -> str:
    """Mean similarity (the term of OKS) of what is in the window, in and outside of the picture, in Markdown."""
    shown, in_image = (cropcoco.label(rule).present for rule in ("window", "image"))
    where = {INSIDE: shown & in_image, OUTSIDE: shown & ~in_image}
    terms = similarity(keypoints, cropcoco.annotated.keypoints, cropcoco.area, shown)
    means = {name: mean_by_image(terms, chosen, image, resampling.counts) for name, chosen in where.items()}
    columns = {**means, "difference": means[OUTSIDE] - means[INSIDE]}
    intervals = resampling.intervals(np.stack(list(columns.values()), axis=1))
    numbers = [*(int(chosen.sum()) for chosen in where.values()), ""]
    records = [
        {"in the window": name, "keypoints": number, "mean similarity": cell(found)}
        for name, number, found in zip(columns, numbers, intervals, strict=True)
    ]
    return as_markdown(records, num_words=1)


def mean_by_image(
    values: Floats, chosen: NDArray[np.bool_], image: NDArray[np.integer], counts: NDArray[np.integer]
) -> Floats:
    """Mean (S,) of the chosen values (N, K) in every data set; NaN where there is none."""
    owner = np.broadcast_to(image[:, None], chosen.shape)[chosen]
    total = counts @ np.bincount(owner, weights=values[chosen], minlength=counts.shape[1])
    number = counts @ np.bincount(owner, minlength=counts.shape[1])
    return np.divide(total, number, out=np.full(len(counts), np.nan), where=number > 0)


def cell(found: Interval, scale: float = 100.0) -> str:
    """`value (low to high)`, with dashes for what is undefined."""
    value, low, high = (UNDEFINED if math.isnan(x) else f"{scale * x:.2f}" for x in found)
    return value if low == UNDEFINED else f"{value} ({low} to {high})"


def as_markdown(records: list[dict[str, object]], num_words: int) -> str:
    """`num_words` columns of words, then numbers."""
    align = ("left",) * num_words + ("right",) * (len(records[0]) - num_words)
    return tabulate(records, headers="keys", tablefmt="github", disable_numparse=True, colalign=align)


def threshold_sentence(statements: Mapping[Source, Statement], row: Row) -> str:
    """Where the thresholds come from, and what they are."""
    how = f"{row.protocol.threshold_rule}, policy {row.protocol.policy}"
    values = ", ".join(f"{SOURCES[source]} {statement.threshold:.4g}" for source, statement in statements.items())
    return f"Thresholds for F1 and hallucinated, {how}, none chosen on these people: {values}."


def stamp(files: RunFiles, trained: TrainedRun, annotations: Path, cropcoco: CropCoco) -> str:
    """On what the numbers stand."""
    num_images = len({person.image_id for person in cropcoco.persons})
    decoding = f"decoding {trained.test.decoding}, {'flip test' if trained.test.flip_test else 'no flip test'}"
    width, height = trained.config.input_size
    window = f"window {':'.join(map(str, WINDOW_SIZE))} widened by {WINDOW_PADDING}"
    return (
        f"x 100 but for numbers per person; {annotations} sha256 {sha256_of([annotations])}, "
        f"{len(cropcoco.persons)} persons in {num_images} images, {window}; run {files.profile}/{files.name}, "
        f"checkpoint sha256 {sha256_of([files.checkpoint])[:12]}, input {width} x {height} of boxes widened by "
        f"{trained.config.bbox_padding:g}, {decoding}"
    )


if __name__ == "__main__":
    run_command(main)
