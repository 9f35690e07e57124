"""Tables, figure and sentences of the data card: what the persons of every split and their labels are.

Letters: N persons, K keypoints.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.data.coco import CocoDict, Person, persons_of
from bench.data.geometry import Floats
from bench.data.keypoints import FLIP_PAIRS, KEYPOINT_NAMES, NUM_KEYPOINTS
from bench.data.presence import Labels, empty_class_lines
from bench.reporting.figures import PALETTE, house_style
from bench.reporting.tables import Cell, Column, Table

QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
VISIBILITY = {2: "v = 2, visible", 1: "v = 1, hidden", 0: "v = 0, not labelled"}
SPLIT = Column("split", "split")


class SplitData(NamedTuple):
    """One manifest and its scored persons as arrays."""

    name: str
    manifest: CocoDict
    visibility: NDArray[np.int64]  # (N, K) COCO's v
    true_visibility: NDArray[np.int64] | None  # (N, K) of drawn people: 0 where outside of the image
    at_border: NDArray[np.bool_]  # (N,)
    bbox: Floats  # (N, 4) x, y, w, h
    keypoints: Floats  # (N, K, 2)
    image_size: NDArray[np.int64]  # (N, 2) w, h

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return self.visibility > 0

    @property
    def empty_classes(self) -> list[str]:
        """In words; see `bench.data.presence.empty_classes`."""
        return empty_class_lines(self.name, Labels(self.visibility, self.true_visibility, self.at_border))


def split_data(name: str, manifest: CocoDict) -> SplitData:
    """Of the persons that COCO's evaluation scores; there is at least one."""
    persons = persons_of(manifest)
    sizes = {image["id"]: (image["width"], image["height"]) for image in manifest["images"]}
    return SplitData(
        name,
        manifest,
        np.stack([person.labels.visibility for person in persons]),
        _true_visibility(persons),
        np.array([bool(person.labels.at_border) for person in persons]),
        np.stack([person.bbox for person in persons]),
        np.stack([person.keypoints for person in persons]),
        np.array([sizes[person.image_id] for person in persons]),
    )


def _true_visibility(persons: Sequence[Person]) -> NDArray[np.int64] | None:
    found = [person.labels.true_visibility for person in persons]
    known = [visibility for visibility in found if visibility is not None]
    return np.stack(known) if len(known) == len(found) else None


def splits_table(splits: Sequence[SplitData], people: str) -> Table:
    """How much there is of what."""
    columns = [
        SPLIT,
        Column("images", "images (n)"),
        Column("persons", "persons (n)"),
        Column("others", "not scored: crowds, or nothing labelled (n)"),
        Column("keypoints", "keypoints (n)"),
        *(Column(f"v{v}", f"{label} (n)") for v, label in VISIBILITY.items()),
        Column("absent", "v = 0", "", "%", 100.0, 1),
    ]
    records: list[dict[str, Cell]] = [
        {
            "split": split.name,
            "images": len(split.manifest["images"]),
            "persons": len(split.visibility),
            "others": len(split.manifest["annotations"]) - len(split.visibility),
            "keypoints": split.visibility.size,
            **{f"v{v}": int((split.visibility == v).sum()) for v in VISIBILITY},
            "absent": float((~split.labelled).mean()),
        }
        for split in splits
    ]
    return Table("splits", f"Splits of {people}", columns, records)


def sources_table(splits: Sequence[SplitData], people: str) -> Table:
    """Where every manifest comes from."""
    keys = {"source_file": "chosen from", "source_sha256": "its sha256", "source_description": "described as"}
    columns = [SPLIT, *(Column(key, label) for key, label in keys.items())]
    columns += [Column("seed", "seed of the choice"), Column("skipped", "images skipped as broken (n)")]
    records: list[dict[str, Cell]] = [
        {
            "split": split.name,
            **{key: str(split.manifest["info"].get(key, "")) for key in keys},
            "seed": split.manifest["info"].get("seed"),
            "skipped": len(split.manifest["info"].get("skipped", ())),
        }
        for split in splits
    ]
    return Table("sources", f"Where {people} come from", columns, records)


def visibility_table(splits: Sequence[SplitData], people: str) -> Table:
    """A line per keypoint: how often it has which v in each split."""
    columns = [Column("keypoint", "keypoint")]
    columns += [Column(f"{s.name}_v{v}", f"{s.name}, v = {v} (n)") for s in splits for v in VISIBILITY]
    records: list[dict[str, Cell]] = [
        {
            "keypoint": name.replace("_", " "),
            **{f"{s.name}_v{v}": int((s.visibility[:, k] == v).sum()) for s in splits for v in VISIBILITY},
        }
        for k, name in enumerate(KEYPOINT_NAMES)
    ]
    return Table("visibility", f"Visibility of every keypoint of {people}", columns, records)


def border_table(splits: Sequence[SplitData], people: str) -> Table:
    """How much of what is not labelled belongs to persons whom the image cuts."""
    columns = [
        SPLIT,
        Column("persons", "persons whose box touches the border (n)"),
        Column("share", "of all persons", "", "%", 100.0, 1),
        Column("absent_border", "v = 0 in them", "", "%", 100.0, 1),
        Column("absent_others", "v = 0 in the others", "", "%", 100.0, 1),
        Column("of_absent", "of all v = 0, in them", "", "%", 100.0, 1),
    ]
    return Table("border", f"{people.capitalize()} cut by the image's border", columns, [_border(s) for s in splits])


def _border(split: SplitData) -> dict[str, Cell]:
    absent, cut = ~split.labelled, split.at_border
    return {
        "split": split.name,
        "persons": int(cut.sum()),
        "share": float(cut.mean()),
        "absent_border": float(absent[cut].mean()) if cut.any() else None,
        "absent_others": float(absent[~cut].mean()) if not cut.all() else None,
        "of_absent": float(absent[cut].sum() / absent.sum()) if absent.any() else None,
    }


def boxes_table(splits: Sequence[SplitData], people: str) -> Table:
    """Quantiles of the boxes' sizes."""
    columns = [SPLIT, Column("side", "box"), *(Column(name, f"{name} (pixels)", decimals=1) for name in QUANTILES)]
    records: list[dict[str, Cell]] = []
    for split in splits:
        w, h = split.bbox[:, 2], split.bbox[:, 3]
        for side, size in {"width": w, "height": h, "root of area": np.sqrt(w * h)}.items():
            quantiles = {name: float(np.quantile(size, q)) for name, q in QUANTILES.items()}
            records.append({"split": split.name, "side": side, **quantiles})
    return Table("boxes", f"Sizes of the boxes of {people}", columns, records)


def faults_table(splits: Sequence[SplitData], people: str) -> Table:
    """What is known to be wrong with the labels, counted."""
    columns = [Column("fault", "what"), *(Column(split.name, f"{split.name} (n)") for split in splits)]
    counted = [_faults(split) for split in splits]
    records: list[dict[str, Cell]] = [
        {"fault": fault, **{s.name: found[fault] for s, found in zip(splits, counted, strict=True)}}
        for fault in counted[0]
    ]
    return Table("faults", f"Known faults in the labels of {people}", columns, records)


def _faults(split: SplitData) -> dict[str, int]:
    labelled, point = split.labelled, split.keypoints
    corner = split.bbox[:, None, :2]
    in_image = ((point >= 0) & (point < split.image_size[:, None])).all(axis=-1)
    in_box = ((point >= corner) & (point <= corner + split.bbox[:, None, 2:])).all(axis=-1)
    left, right = np.array(FLIP_PAIRS).T
    same = (point[:, left] == point[:, right]).all(axis=-1) & labelled[:, left] & labelled[:, right]
    truth = split.true_visibility
    return {
        "labelled, but outside of the image": int((labelled & ~in_image).sum()),
        "labelled, but outside of the person's own box": int((labelled & ~in_box).sum()),
        "left and right labelled at the very same place (pairs)": int(same.sum()),
        "persons with fewer than 5 labelled keypoints": int((labelled.sum(axis=1) < 5).sum()),
        **({} if truth is None else _faults_by_truth(labelled, truth)),
    }


def _faults_by_truth(labelled: NDArray[np.bool_], truth: NDArray[np.int64]) -> dict[str, int]:
    return {
        "not labelled (v = 0), but visible in the image in truth": int((~labelled & (truth == 2)).sum()),
        "not labelled (v = 0), but hidden in the image in truth": int((~labelled & (truth == 1)).sum()),
        "labelled, but outside of the image in truth": int((labelled & (truth == 0)).sum()),
    }


def lost_labels(splits: Sequence[SplitData]) -> str:
    """How many keypoints of drawn people are in the image in truth and have no label."""
    pairs = [(split.labelled, split.true_visibility) for split in splits if split.true_visibility is not None]
    there = sum(int((truth > 0).sum()) for _, truth in pairs)
    lost = sum(int((~labelled & (truth > 0)).sum()) for labelled, truth in pairs)
    if not lost:
        return "Every keypoint in the image has its label."
    return (
        f"It took the label away from {lost} of the {there} keypoints that are in the image "
        f"({100 * lost / there:.1f} %), as annotators pass keypoints over."
    )


def draw_visibility(split: SplitData, people: str) -> Figure:
    """Shares of v for every keypoint of a split, as stacked bars."""
    with house_style():
        figure = Figure(figsize=(9, 5), layout="constrained")
        ax = figure.subplots()
        places, start = np.arange(NUM_KEYPOINTS), np.zeros(NUM_KEYPOINTS)
        for (v, label), colour in zip(VISIBILITY.items(), (PALETTE[0], PALETTE[1], "0.75"), strict=True):
            share = 100 * (split.visibility == v).mean(axis=0)
            ax.barh(places, share, left=start, color=colour, label=label)
            start = start + share
        ax.set_yticks(places, [name.replace("_", " ") for name in KEYPOINT_NAMES])
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.set(xlabel="keypoints (%)", xlim=(0, 100))
        figure.suptitle(f"Labels of {people}, {split.name} split, {len(split.visibility)} persons")
        figure.legend(loc="outside lower center", ncols=3)
        return figure
