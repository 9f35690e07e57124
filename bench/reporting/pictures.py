"""Pictures of persons: the truth, or else the labels, beside what each system says, and what it calls absent.

Letters: K keypoints.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bench.data.coco import CocoDict, Person, persons_of, read_coco, read_image
from bench.data.geometry import Floats, bbox_to_view, crop_matrix, inside, warp_points
from bench.data.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS, SKELETON
from bench.data.predictions import VAL, Split, read_split
from bench.data.presence import POLICIES, TRUE
from bench.errors import UserError
from bench.reporting.figures import house_style, save
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, Row, run_file

PERSONS_PER_PICTURE = 6
MAX_BYTES = 1_500_000
CELL_SIZE = (270, 360)  # (w, h) of a crop in its own pixels
CONTEXT = 1.4  # of the person's box
OUTSIDE = (150, 150, 150)
SIDE_COLOURS = {"left": "#0096ff", "right": "#ffa000", "mid": "#f5f5f5"}
ABSENT_COLOUR = "#e8000b"


class PicturePlan(BaseModel):
    """How many persons are shown, drawn by which seed, as stage resolve says it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_persons: int
    seed: int


class Subject(NamedTuple):
    """A person to show. `keypoints` (K, 2) in image pixels, NaN where no position is known; `present` (K,), `counted`
    (K,): not ignored by the policy, and `hidden` (K,): behind something. `is_true`: positions are true ones."""

    annotation_id: int
    bbox: Floats
    image_file: Path
    keypoints: Floats
    present: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    is_true: bool

    @property
    def absent(self) -> NDArray[np.bool_]:
        return self.counted & ~self.present


class Statement(NamedTuple):
    """What a system says of a person: `keypoints` (K, 2) in image pixels and which of them are `present` (K,); of the
    keypoints that are `counted` under the policy, how many it is `right` about."""

    keypoints: Floats
    present: NDArray[np.bool_]
    right: int
    counted: int


class Pictures(NamedTuple):
    """The files, and the policy that says in them what is present."""

    names: list[str]
    policy: str


def write_pictures(
    folder: Path, manifest_file: Path, runs_dir: Path, rows: Sequence[Row], num_persons: int, seed: int
) -> Pictures:
    """Write `pictures_<n>.png` of persons drawn with `seed` from the val split.

    `rows` has one row per system, whose thresholds and predictions are shown.

    Raises:
        UserError: a manifest, an image or predictions are missing or incomplete.
    """
    manifest = read_coco(manifest_file)
    policy = shown_policy(manifest, rows[0].protocol.policy)
    subjects = choose_subjects(manifest, num_persons, seed, policy)
    statements = {row.experiment: read_statements(runs_dir, row, subjects, policy) for row in rows}
    names = []
    for start in range(0, len(subjects), PERSONS_PER_PICTURE):
        chosen = range(start, min(start + PERSONS_PER_PICTURE, len(subjects)))
        names.append(f"pictures_{start // PERSONS_PER_PICTURE + 1}.png")
        columns = {name: [said[i] for i in chosen] for name, said in statements.items()}
        figure = draw_grid([subjects[i] for i in chosen], columns, policy)
        save_small(figure, folder / names[-1])
    return Pictures(names, policy)


def shown_policy(manifest: CocoDict, headline: str) -> str:
    """The truth where all people carry it; else the headline policy, under its own name."""
    return TRUE if all("true_keypoints" in annotation for annotation in manifest["annotations"]) else headline


def subjects_of(manifest: CocoDict, annotation_ids: Sequence[int], policy: str) -> dict[int, Subject]:
    """Persons by their annotation; `policy` says what counts as present."""
    truths = {annotation["id"]: annotation.get("true_keypoints") for annotation in manifest["annotations"]}
    people = {person.annotation_id: person for person in persons_of(manifest)}
    return {i: _subject(people[i], truths[i], policy) for i in annotation_ids}


def choose_subjects(manifest: CocoDict, num_persons: int, seed: int, policy: str) -> list[Subject]:
    """`num_persons` of the scored persons (all, when there are fewer), drawn with `seed` and by nothing else; `policy`
    says what counts as present."""
    truths = {annotation["id"]: annotation.get("true_keypoints") for annotation in manifest["annotations"]}
    people = sorted(persons_of(manifest), key=lambda person: person.annotation_id)
    order = np.random.default_rng(seed).permutation(len(people))[:num_persons]
    return [_subject(people[i], truths[people[i].annotation_id], policy) for i in order]


def _subject(person: Person, truth: list[float] | None, policy: str) -> Subject:
    """Positions of drawn people are the true ones, else those that the annotator gave."""
    in_window = person.labels.visibility > 0  # whatever a system's window is, it shows nearly all that is labelled
    label = POLICIES[policy].label(person.labels, in_window)
    if truth is None:
        # COCO writes (0, 0) for what is not labelled, which is a place in the picture.
        keypoints = np.where(person.labels.visibility[:, None] > 0, person.keypoints, np.nan)
        hidden = person.labels.visibility == 1
    else:
        keypoints = np.array(truth, dtype=np.float64).reshape(NUM_KEYPOINTS, 3)[:, :2]
        hidden = np.array(truth[2::3]) == 1
    return Subject(
        person.annotation_id,
        person.bbox,
        person.image_file,
        keypoints,
        label.present,
        label.present_weight > 0,
        hidden,
        is_true=truth is not None,
    )


def read_statements(runs_dir: Path, row: Row, subjects: Sequence[Subject], policy: str) -> list[Statement]:
    """A system's predictions for each subject, present or absent by the run's own calibrated threshold: of the presence
    head where it has one, else of the heatmap peak. `policy` says what is right.

    Raises:
        UserError: the predictions are missing, broken, or lack a person.
    """
    file = run_file(runs_dir, "predictions", row.experiment, row.seed)
    split = read_split(file, VAL, policy)
    place_of = {annotation_id: place for place, annotation_id in enumerate(split.annotation_ids.tolist())}
    for subject in subjects:
        if subject.annotation_id not in place_of:
            again = f"run `dvc repro predict@{row.experiment}-{row.seed}`"
            raise UserError(f"{file}: annotation {subject.annotation_id}: missing, wanted every val person: {again}")
    return [_statement(split, place_of[subject.annotation_id], row) for subject in subjects]


def _statement(split: Split, place: int, row: Row) -> Statement:
    if split.presence is not None and PRESENCE_HEAD in row.thresholds:
        present = split.presence[place] >= row.threshold(PRESENCE_HEAD)
    else:
        present = split.score[place] >= row.threshold(HEATMAP_PEAK)
    counted = split.present_weight[place] > 0
    right = (present == split.present[place]) & counted
    return Statement(split.keypoints[place], present, int(right.sum()), int(counted.sum()))


def draw_grid(subjects: Sequence[Subject], columns: dict[str, list[Statement]], policy: str) -> Figure:
    """One line per subject: the truth, or the labels as the policy reads them, then each system."""
    matrices = [crop_matrix(bbox_to_view(subject.bbox, CELL_SIZE, CONTEXT), CELL_SIZE) for subject in subjects]
    captions = [_subject_caption(*pair, policy) for pair in zip(subjects, matrices, strict=True)]
    drawn = any(subject.is_true for subject in subjects)
    strip = 0.14 + 0.1 * max(caption.count("\n") + 1 for caption in captions)
    cell_w, cell_h, top = 1.9, 2.53, 1.12  # inches, as strip
    names = ["truth" if policy == TRUE else f"policy {policy}", *columns]
    size = (max(cell_w * len(names), 7.0), (cell_h + strip) * len(subjects) + top)
    side = 0.502 - cell_w * len(names) / size[0] / 2  # centres a grid that is narrower than the legend
    with house_style():
        figure = Figure(figsize=size)
        grid = figure.add_gridspec(
            len(subjects), len(names), left=side, right=1 - side, top=1 - top / size[1], bottom=strip / size[1],
            wspace=0.03, hspace=strip / cell_h,
        )  # fmt: skip
        for i, (subject, matrix) in enumerate(zip(subjects, matrices, strict=True)):
            cropped = crop(read_image(subject.image_file), matrix)
            for j, name in enumerate(names):
                ax = figure.add_subplot(grid[i, j])
                show(ax, cropped)
                if j == 0:
                    _draw_subject(ax, subject, matrix, captions[i])
                else:
                    _draw_statement(ax, columns[name][i], matrix, policy)
                if i == 0:
                    ax.set_title(name, fontsize=10, fontweight="bold")
        kind = "Drawn people" if drawn else "People"
        figure.suptitle(f"{kind} of the val split, chosen by a seed alone", y=1 - 0.06 / size[1], va="top", fontsize=11)
        anchor = (0.5, 1 - 0.28 / size[1])
        handles = list(_legend_handles(drawn=drawn))
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=anchor, ncols=3, fontsize=8)
        return figure


def crop(image: NDArray[np.uint8], matrix: Floats) -> NDArray[np.uint8]:
    """The person with its surroundings, `CELL_SIZE` large; what lies outside of the image is grey."""
    warped = cv2.warpAffine(image, matrix, CELL_SIZE, flags=cv2.INTER_LINEAR, borderValue=OUTSIDE)
    return np.asarray(warped, dtype=np.uint8)


def show(ax: Axes, cropped: NDArray[np.uint8]) -> None:
    """A crop without axes."""
    ax.imshow(cropped, interpolation="bilinear")
    height, width = cropped.shape[:2]
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    ax.grid(visible=False)


def _draw_subject(ax: Axes, subject: Subject, matrix: Floats, text: str) -> None:
    points = np.where((subject.present | subject.absent)[:, None], subject.keypoints, np.nan)
    draw_pose(ax, warp_points(points, matrix), subject.present, subject.hidden)
    caption(ax, text)


def _subject_caption(subject: Subject, matrix: Floats, policy: str) -> str:
    """How many keypoints are present, absent and ignored, and the absent ones that no cross in the crop shows."""
    there, gone = ("in image", "outside") if policy == TRUE else ("present", "absent")
    ignored = int((~subject.counted).sum())
    text = f"person {subject.annotation_id}: {(subject.present & subject.counted).sum()} {there}"
    text += f", {subject.absent.sum()} {gone}{f', {ignored} ignored' if ignored else ''}"
    unseen = np.flatnonzero(subject.absent & ~_in_crop(warp_points(subject.keypoints, matrix)))
    return _wrap(f"{text}; without a cross: {list_keypoints(unseen)}" if len(unseen) else text)


def _draw_statement(ax: Axes, said: Statement, matrix: Floats, policy: str) -> None:
    draw_pose(ax, warp_points(said.keypoints, matrix), said.present, np.zeros(NUM_KEYPOINTS, dtype=bool))
    words = "presence right" if policy == TRUE else f"as policy {policy}"
    caption(ax, f"{words}: {said.right} of {said.counted}")


def caption(ax: Axes, text: str) -> None:
    """Small print below."""
    ax.text(0.5, -0.02, text, transform=ax.transAxes, ha="center", va="top", fontsize=6.5, linespacing=1.1)


def draw_pose(ax: Axes, points: Floats, present: NDArray[np.bool_], hidden: NDArray[np.bool_]) -> None:
    """Limbs between present keypoints, dots for present ones (hollow for hidden), hollow crosses for absent ones."""
    for start, end in SKELETON:
        if present[start] and present[end]:
            line = points[[start, end]]
            colour = SIDE_COLOURS[side_of(start, end)]
            ax.plot(*line.T, color="black", linewidth=2.8, alpha=0.55, solid_capstyle="round")
            ax.plot(*line.T, color=colour, linewidth=1.6, solid_capstyle="round")
    for k in np.flatnonzero(present):
        colour = SIDE_COLOURS[side_of(int(k), int(k))]
        face = "none" if hidden[k] else colour
        edge = colour if hidden[k] else "black"
        ax.plot(*points[k], "o", markersize=4.2, markerfacecolor=face, markeredgecolor=edge, markeredgewidth=0.7)
    for k in np.flatnonzero(~present & _in_crop(points)):
        ax.plot(*points[k], **CROSS)


CROSS: dict[str, Any] = {
    "marker": "X", "markersize": 7.5, "markerfacecolor": "white", "markeredgecolor": ABSENT_COLOUR,
    "markeredgewidth": 1.3, "linestyle": "none",
}  # fmt: skip


def side_of(start: int, end: int) -> str:
    """Side of a limb: left, right, or mid where it joins the two sides or lies on the midline."""
    sides = {KEYPOINT_NAMES[k].partition("_")[0] for k in (start, end)} - {"nose"}
    return sides.pop() if len(sides) == 1 else "mid"


def list_keypoints(keypoints: Iterable[int]) -> str:
    """Keypoint names in few words: both of a pair as one plural."""
    names = [KEYPOINT_NAMES[k] for k in keypoints]
    words: list[str] = []
    for name in names:
        side, _, part = name.partition("_")
        if not part:
            words.append(name)
        elif f"left_{part}" in names and f"right_{part}" in names:
            words += [f"{part}s"] if side == "left" else []
        else:
            words.append(f"{side} {part}")
    return ", ".join(words)


def _in_crop(points: Floats) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return inside(points, CELL_SIZE)


def _wrap(text: str, width: int = 34) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _legend_handles(*, drawn: bool) -> Iterator[Line2D]:
    """In the order of a legend of three columns of two."""
    dot: dict[str, Any] = {"marker": "o", "markeredgecolor": "black", "markeredgewidth": 0.7}
    yield Line2D([], [], color=SIDE_COLOURS["left"], **dot, label="the person's left")
    yield Line2D([], [], color=SIDE_COLOURS["right"], **dot, label="the person's right")
    hidden: dict[str, Any] = {
        "marker": "o",
        "markerfacecolor": "none",
        "markeredgecolor": SIDE_COLOURS["left"],
        "linestyle": "none",
    }
    yield Line2D([], [], **hidden, label="present but hidden (first column only)")
    yield Line2D([], [], marker="s", color="none", markerfacecolor="#969696", label="outside of the image")
    where = "true place, or where a system puts it" if drawn else "where a system puts it"
    yield Line2D([], [], **CROSS, label=f"absent ({where})")


def save_small(figure: Figure, file: Path) -> None:
    """As fine as `MAX_BYTES` allows."""
    for dpi in (150, 120, 100, 80, 60):
        save(figure, file, dpi)
        if file.stat().st_size <= MAX_BYTES:
            return
