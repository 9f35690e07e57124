"""Maps of what keypoints depend on: how faithful they are, in numbers, tables and figures.

Numbers are named `<map>/<what>/<measure>`, see `key`. Letters: Q questions, M maps.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.data.coco import CocoDict, persons_of, read_image
from bench.data.dependencies import FLOORS, MAPS, NEARNESS, RANDOM, Dependencies, read_dependencies
from bench.data.geometry import Floats, warp_image
from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.people import image_positions
from bench.errors import UserError
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.faithfulness import DELETION, FAITHFULNESS, INSERTION, MODES, area_under, kept_curves
from bench.reporting.figures import MARKERS, PALETTE, arrays, house_style, shared_legend
from bench.reporting.markdown import escape
from bench.reporting.pictures import caption, show
from bench.reporting.results import Comparison, Contrast, Result, Side, compare_by_question, trainings
from bench.reporting.rows import Row, by_experiment, run_file
from bench.reporting.tables import SEEDS, SYSTEM, Cell, Column, Table, comparison_table, percent, verdict

MEASURES = (DELETION, INSERTION, FAITHFULNESS)
LOCALISATION, PRESENCE = "localisation", "presence"
WHATS = (LOCALISATION, PRESENCE)
STYLES = {name: (PALETTE[i], MARKERS[i]) for i, name in enumerate(MAPS)}


def key(name: str, what: str, measure: str) -> str:
    return f"{name}/{what}/{measure}"


def at_share(mode: str, share: float) -> str:
    """A point of a curve, as a measure."""
    return f"{mode}@{share:g}"


class System(NamedTuple):
    """One system: the replicates of its numbers, and what its first training seed was asked."""

    result: Result
    asked: Dependencies

    @property
    def name(self) -> str:
        return self.result.name

    @property
    def maps(self) -> list[str]:
        found: list[str] = self.asked.names.tolist()
        return found

    @property
    def shares(self) -> list[float]:
        """Of the curves, both ends included."""
        return [0.0, *self.asked.shares.tolist(), 1.0]

    @property
    def num_images(self) -> int:
        return len(np.unique(self.asked.image_ids))


def load_systems(runs_dir: Path, rows: Sequence[Row], num_resamples: int, seed: int) -> list[System]:
    """The systems of the rows, in their order, every one on the same draws of the images.

    Raises:
        UserError: a file is missing or broken, or runs were asked of other keypoints.
    """
    asked = {(row.experiment, row.seed): read_dependencies(_file(runs_dir, row)) for row in rows}
    _check_same_questions(runs_dir, rows, asked)
    image_ids = np.unique(next(iter(asked.values())).image_ids)
    counts = draw_resampling(len(image_ids), num_resamples, "percentile", np.random.default_rng(seed)).counts
    systems = []
    for name, repeated in by_experiment(rows).items():
        group = trainings(repeated)
        own = [asked[name, row.seed] for row in group]
        tables = [_values(one, image_positions(image_ids, one.image_ids), counts) for one in own]
        replicates = np.stack([np.stack(list(table.values()), axis=1) for table in tables])
        systems.append(
            System(Result(name, group, list(tables[0]), replicates, [], "dependency", len(image_ids)), own[0])
        )
    return systems


def _file(runs_dir: Path, row: Row) -> Path:
    return run_file(runs_dir, "dependency", row.experiment, row.seed)


def _check_same_questions(runs_dir: Path, rows: Sequence[Row], asked: dict[tuple[str, int], Dependencies]) -> None:
    first = next(iter(asked.values()))
    for row in rows:
        found = asked[row.experiment, row.seed]
        for field in ("annotation_ids", "keypoint", "shares"):
            if not np.array_equal(getattr(found, field), getattr(first, field)):
                file, wanted = (_file(runs_dir, one) for one in (row, rows[0]))
                raise UserError(
                    f"{file}: {field}: found others than of {wanted.stem}, wanted the same: run "
                    f"`dvc repro dependency@{file.stem}`"
                )


def _values(asked: Dependencies, image: NDArray[np.int64], counts: NDArray[np.int32]) -> dict[str, Floats]:
    """Every number of a run in every data set."""
    found: dict[str, Floats] = {}
    shares = asked.shares.tolist()
    for what, curves in ((LOCALISATION, asked.similarity), (PRESENCE, asked.presence)):
        kept = kept_curves(curves, image, counts)  # (B, M, 2, S + 2)
        areas = area_under(kept, shares)
        for m, name in enumerate(asked.names.tolist()):
            for i, mode in enumerate(MODES):
                found[key(name, what, mode)] = areas[:, m, i]
                for j, share in enumerate([0.0, *shares, 1.0]):
                    found[key(name, what, at_share(mode, share))] = kept[:, m, i, j]
            found[key(name, what, FAITHFULNESS)] = found[key(name, what, INSERTION)] - found[key(name, what, DELETION)]
    return found


def faithfulness_table(systems: Sequence[System], people: str) -> Table:
    """Every measure of every map: one line per system and map."""
    columns = [SYSTEM, Column("map", "map")]
    for what in WHATS:
        columns += [
            Column(f"{what}_{DELETION}", f"{what}, {DELETION}", "↓", "%", 100.0, 1, estimated=True),
            percent(f"{what}_{INSERTION}", f"{what}, {INSERTION}"),
            percent(f"{what}_{FAITHFULNESS}", f"{what}, {FAITHFULNESS}"),
        ]
    columns += [SEEDS, Column("keypoints", "keypoints (n)")]
    records: list[dict[str, Cell]] = [
        {
            "system": system.name,
            "map": MAPS[name],
            **{
                f"{what}_{measure}": system.result.pooled(key(name, what, measure))
                for what in WHATS
                for measure in MEASURES
            },
            "seeds": len(system.result.rows),
            "keypoints": len(system.asked.keypoint),
        }
        for system in systems
        for name in system.maps
    ]
    return Table("faithfulness", f"How faithful maps of dependency are, on {people}", columns, records)


class Question(NamedTuple):
    """A map beside the floor of nearness, of one system."""

    system: str
    map: str
    what: str
    made: Comparison


def compare_with_nearness(systems: Sequence[System], num_permutations: int, seed: int) -> list[Question]:
    """Every map of every system; localisation is one question, presence another."""
    asked = [
        (system, name, what, _contrast(system, name, what))
        for system in systems
        for name in system.maps
        if name not in FLOORS
        for what in WHATS
    ]
    made = compare_by_question([contrast for *_, contrast in asked], num_permutations, seed)
    return [
        Question(system.name, name, what, comparison)
        for (system, name, what, _), comparison in zip(asked, made, strict=True)
    ]


def _contrast(system: System, name: str, what: str) -> Contrast:
    first, second = (
        Side(f"{system.name}, {MAPS[side]}", system.result, key(side, what, FAITHFULNESS)) for side in (NEARNESS, name)
    )
    return Contrast(f"{FAITHFULNESS}, {what}", first, second, what)


def differences_table(questions: Sequence[Question], people: str) -> Table:
    title = f"Do maps say more than nearness does? Paired differences on {people}"
    return comparison_table("differences", title, [question.made for question in questions])


def sentences(questions: Sequence[Question]) -> str:
    """Each map beside nearness, as a list: one line per system and map."""
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.system, question.map), []).append(question)
    return "\n".join(
        f"- {escape(system)}, {MAPS[name]}: {'; '.join(f'for {q.what} {verdict(q.made)}' for q in found)}."
        for (system, name), found in groups.items()
    )


def draw_faithfulness(systems: Sequence[System], title: str) -> Figure:
    """Faithfulness (%) of every map: a panel per system, a line per map."""
    looks = {LOCALISATION: (PALETTE[2], "D"), PRESENCE: (PALETTE[1], "o")}
    names = list(iterate_maps(systems))
    with house_style():
        figure = Figure(figsize=(max(1.9 + 2.3 * len(systems), 7.0), 1.4 + 0.36 * len(names)), layout="constrained")
        axes = figure.subplots(1, len(systems), sharex=True, sharey=True, squeeze=False)[0]
        for ax, system in zip(axes, systems, strict=True):
            for offset, (what, (colour, marker)) in zip((-0.13, 0.13), looks.items(), strict=True):
                points = [system.result.pooled(key(name, what, FAITHFULNESS)) for name in system.maps]
                values, bars = arrays(points)
                style = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "none", "elinewidth": 1.4}
                places = np.array([names.index(name) for name in system.maps]) + offset
                ax.errorbar(values, places, xerr=bars, label=what, **style)
            ax.axvline(0, color="0.6", linewidth=0.8)
            ax.set(title=system.name, yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
            ax.grid(visible=False, axis="y")
        axes[0].set_yticklabels([MAPS[name] for name in names])
        figure.suptitle(title)
        shared_legend(figure, ncols=2)
        return figure


def draw_curves(systems: Sequence[System], mode: str, title: str) -> Figure:
    """What is left (%) against the share of the picture: a column per system, a line of panels per question."""
    with house_style():
        figure = Figure(figsize=(max(3.1 * len(systems), 7.0), 6.6), layout="constrained")
        axes = figure.subplots(len(WHATS), len(systems), sharex=True, sharey="row", squeeze=False)
        for line, what in zip(axes, WHATS, strict=True):
            for ax, system in zip(line, systems, strict=True):
                for name in system.maps:
                    _curve(ax, system, name, what, mode)
            line[0].set_ylabel(f"{what}: left (%)")
        for ax, system in zip(axes[0], systems, strict=True):
            ax.set_title(system.name)
        for ax in axes[-1]:
            ax.set_xlabel("spoiled (%)" if mode == DELETION else "shown (%)")
        figure.suptitle(title)
        shared_legend(figure, ncols=3)
        return figure


def _curve(ax: Axes, system: System, name: str, what: str, mode: str) -> None:
    points = [system.result.pooled(key(name, what, at_share(mode, share))) for share in system.shares]
    value, low, high = 100 * np.array([point[:3] for point in points], dtype=np.float64).T
    colour, marker = STYLES[name]
    style = {"color": colour, "linestyle": ":" if name in FLOORS else "-"}
    shares = 100 * np.array(system.shares)
    ax.plot(shares, value, marker=marker, markersize=4, label=MAPS[name], **style)
    ax.fill_between(shares, low, high, color=colour, alpha=0.1, linewidth=0)


def choose_questions(asked: Dependencies, num_persons: int, seed: int) -> NDArray[np.int64]:
    """Which questions are shown: the first of persons drawn at random."""
    people, first = np.unique(asked.annotation_ids, return_index=True)
    order = np.random.default_rng(seed).permutation(len(people))[:num_persons]
    return first[order]


def draw_maps(asked: Dependencies, chosen: NDArray[np.int64], manifest: CocoDict, title: str) -> Figure:
    """A line per question: the picture as the system sees it, then every map over it but the random one."""
    files = {person.annotation_id: person.image_file for person in persons_of(manifest)}
    names = [name for name in asked.names.tolist() if name != RANDOM]
    width, height = asked.input_size.tolist()
    cell_w = 1.55
    cell_h = cell_w * height / width
    with house_style():
        size = (max(cell_w * (len(names) + 1) + 0.2, 6.0), (cell_h + 0.28) * len(chosen) + 0.9)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(chosen), len(names) + 1, squeeze=False)
        for line, q in zip(axes, chosen.tolist(), strict=True):
            image = warp_image(read_image(files[asked.annotation_ids[q]]), asked.matrix[q], (width, height))
            for ax, name in zip(line, ["", *names], strict=True):
                _draw_map(ax, image, asked, q, name)
            caption(line[0], KEYPOINT_NAMES[asked.keypoint[q]].replace("_", " "))
        for ax, label in zip(axes[0], ["input", *(MAPS[name] for name in names)], strict=True):
            ax.set_title(label.replace(" (", "\n(").replace(" of ", "\nof "), fontsize=8)
        figure.suptitle(title)
        return figure


def _draw_map(ax: Axes, image: NDArray[np.uint8], asked: Dependencies, q: int, name: str) -> None:
    """The picture; with a map, in grey and the map over it, from the lowest to the highest of its cells."""
    show(ax, image if not name else np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8))
    if name:
        height, width = image.shape[:2]
        values = asked.maps[q, asked.names.tolist().index(name)]
        ax.imshow(values, cmap="inferno", alpha=0.6, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    ax.plot(*asked.points[q], marker="o", markersize=7, markerfacecolor="none", markeredgecolor="#00e5ff", zorder=4)


def iterate_maps(systems: Sequence[System]) -> Iterator[str]:
    """Every map that a system has, in the order of `MAPS`."""
    return (name for name in MAPS if any(name in system.maps for system in systems))
