"""Figures of the page of presence: numbers by policy and keypoint, curves, and the worst errors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bench.data.coco import read_image
from bench.data.geometry import Floats, bbox_to_view, crop_matrix, warp_points
from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.predictions import Split
from bench.data.presence import POLICIES
from bench.metrics.calibrators import CALIBRATORS
from bench.metrics.presence_study import LOCALISATION, LOCALISED, RANKED
from bench.reporting.figures import (
    GREY,
    PALETTE,
    Series,
    draw_grid_of_panels,
    house_style,
    shared_legend,
    system_styles,
)
from bench.reporting.pictures import (
    ABSENT_COLOUR,
    CELL_SIZE,
    CONTEXT,
    Subject,
    caption,
    crop,
    draw_pose,
    show,
)
from bench.reporting.presence_results import (
    ALWAYS,
    BOX_GEOMETRY,
    FLOORS,
    HEAD,
    LOGISTIC,
    PEAK,
    PREVALENCE,
    SOURCES,
    PresenceResult,
    key,
)

SOURCE_STYLES: dict[str, tuple[Any, str]] = {
    HEAD: (PALETTE[1], "o"),
    PEAK: (PALETTE[0], "s"),
    LOGISTIC: (PALETTE[2], "^"),
    BOX_GEOMETRY: (GREY, "D"),
}
FLOOR_STYLES: dict[str, tuple[Any, str]] = {
    BOX_GEOMETRY: ("0.2", "--"),
    PREVALENCE: ("0.4", "-."),
    ALWAYS: ("0.55", ":"),
}
FLOOR_MARKERS = {BOX_GEOMETRY: "d", PREVALENCE: "x", ALWAYS: "_"}
CURVES = {
    "roc": ("ROC", "absent called present", "present called present"),
    "pr_present": ("to find the present", "recall", "precision"),
    "pr_absent": ("to find the absent", "recall", "precision"),
}
TRUTH_COLOUR = "#00c853"


class Case(NamedTuple):
    """A keypoint of a person that a system is wrong about: `score` is what it gives, `said` (2,) where it puts it."""

    annotation_id: int
    keypoint: int
    score: float
    said: Floats


def draw_policies(systems: Sequence[PresenceResult], title: str) -> Figure:
    """AUROC and F1 of the main source of every system, and of the floors, by policy."""
    policies = [policy for policy in POLICIES if policy in systems[0].policies]
    styles = system_styles([system.name for system in systems])
    panels = {}
    for metric, name in (("AUROC", "AUROC (%)"), ("F1", "F1 (%) at the threshold of highest F1")):
        series = [
            Series(
                f"{system.name}, {SOURCES[system.main_source]}",
                [system.number(key(policy, system.main_source, metric)) for policy in policies],
                *styles[system.name],
            )
            for system in systems
        ]
        for floor, (colour, _) in FLOOR_STYLES.items():
            points = [systems[0].number(key(policy, floor, metric)) for policy in policies]
            series.append(Series(FLOORS[floor], points, colour, FLOOR_MARKERS[floor]))
        panels[name] = (policies, series)
    figure = draw_grid_of_panels(panels, title)
    return _two_line_legend(figure, size=(11.0, 5.2))


def _two_line_legend(figure: Figure, size: tuple[float, float]) -> Figure:
    """The shared legend in lines of four, and a figure wide enough for it."""
    figure.set_size_inches(*size)
    for legend in list(figure.legends):
        legend.remove()
    entries = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    with house_style():
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=4)
    return figure


def draw_keypoints(systems: Sequence[PresenceResult], policy: str, title: str) -> Figure:
    """AUROC by keypoint: one panel per system, one dot per keypoint and source."""
    num_columns = min(4, len(systems))
    num_lines = -(-len(systems) // num_columns)
    with house_style():
        figure = Figure(figsize=(max(2.3 + 2.4 * num_columns, 8.0), 1.2 + 5.2 * num_lines), layout="constrained")
        axes = figure.subplots(num_lines, num_columns, sharex=True, sharey=True, squeeze=False)
        for ax, system in zip(axes.flat, systems, strict=False):
            _dots(ax, system, policy)
        for ax in list(axes.flat)[len(systems) :]:
            ax.set_axis_off()
        axes[0, 0].set_yticks(range(len(KEYPOINT_NAMES)), [name.replace("_", " ") for name in KEYPOINT_NAMES])
        axes[0, 0].set_ylim(len(KEYPOINT_NAMES) - 0.4, -0.6)
        figure.suptitle(title)
        shared_legend(figure, ncols=4)
        return figure


def _dots(ax: Axes, system: PresenceResult, policy: str) -> None:
    sources = [source for source in SOURCE_STYLES if system.has_source(policy, source)]
    for offset, source in zip(np.linspace(-0.27, 0.27, len(sources)), sources, strict=True):
        points = [system.number(key(policy, source, "AUROC", RANKED, keypoint)) for keypoint in KEYPOINT_NAMES]
        values, lows, highs = 100 * np.array([point[:3] for point in points], dtype=np.float64).T
        bars = np.maximum([values - lows, highs - values], 0)
        colour, marker = SOURCE_STYLES[source]
        style = {"color": colour, "marker": marker, "markersize": 4, "linestyle": "none", "elinewidth": 1.1}
        ax.errorbar(values, np.arange(len(points)) + offset, xerr=bars, label=SOURCES[source], **style)
    ax.axvline(50, color=GREY, linestyle=":", label="prevalence, always present")
    ax.set(title=system.name, xlabel="AUROC (%)")
    ax.tick_params(axis="x", labelbottom=True)
    ax.grid(visible=False, axis="y")


def draw_curves(systems: Sequence[PresenceResult], policy: str, title: str) -> Figure:
    """ROC and both precision-recall curves; a system with a head has its heatmap peak dashed."""
    styles = system_styles([system.name for system in systems])
    with house_style():
        figure = Figure(figsize=(11.0, 5.0), layout="constrained")
        for ax, (curve, (name, xlabel, ylabel)) in zip(figure.subplots(1, 3), CURVES.items(), strict=True):
            for floor, (colour, line) in FLOOR_STYLES.items():
                _curve(ax, systems[:1], policy, floor, curve, FLOORS[floor], color=colour, linestyle=line)
            for system in systems:
                for source in dict.fromkeys((system.main_source, PEAK)):
                    label = f"{system.name}, {SOURCES[source]}"
                    line = "-" if source == system.main_source else "--"
                    colour = styles[system.name][0]
                    _curve(ax, [system], policy, source, curve, label, color=colour, linestyle=line)
            ax.set(title=name, xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            ax.set_box_aspect(1)
        figure.suptitle(title)
        shared_legend(figure, ncols=3)
        return figure


def _curve(
    ax: Axes, systems: Sequence[PresenceResult], policy: str, source: str, curve: str, label: str, **style: Any
) -> None:
    """A line, and its band where there is one, for each training seed."""
    for system in systems:
        for seed, frame in enumerate(system.curves):
            points = points_of(frame, policy, source, curve)
            if points.empty:
                continue
            ax.plot(points["x"], points["y"], linewidth=1.5, label=None if seed else label, **style)
            if points["low"].notna().any():
                ax.fill_between(
                    points["x"], points["low"], points["high"], color=style["color"], alpha=0.12, linewidth=0
                )


def points_of(frame: pd.DataFrame, policy: str, source: str, curve: str) -> pd.DataFrame:
    """The points of a curve, from left to right, as they come."""
    chosen = (frame["policy"] == policy) & (frame["source"] == source) & (frame["curve"] == curve)
    return frame[chosen]


def draw_reliability(systems: Sequence[PresenceResult], policies: Sequence[str], title: str) -> Figure:
    """Observed shares against probabilities: a line of panels per policy, a panel per calibrator."""
    styles = system_styles([system.name for system in systems])
    with house_style():
        figure = Figure(figsize=(2.6 * len(CALIBRATORS) + 0.6, 1.3 + 2.9 * len(policies)), layout="constrained")
        axes = figure.subplots(len(policies), len(CALIBRATORS), sharex=True, sharey=True, squeeze=False)
        for line, policy in zip(axes, policies, strict=True):
            for ax, calibrator in zip(line, CALIBRATORS, strict=True):
                ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="calibrated")
                for system in systems:
                    source = system.main_source
                    _binned(ax, system, policy, source, f"reliability/{calibrator}", styles[system.name])
                if len(ax.lines) == 1:
                    ax.text(0.68, 0.1, "not fitted to\nthese sources", ha="center", color=GREY, transform=ax.transAxes)
                ax.set_title(f"{calibrator.replace('_', ' ')}\n{policy}", fontsize="medium")
                ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
                ax.set_box_aspect(1)
            line[0].set_ylabel("observed share present")
        for ax in axes[-1]:
            ax.set_xlabel("probability given")
        figure.suptitle(title)
        shared_legend(figure, ncols=4)
        return figure


def draw_localisation(systems: Sequence[PresenceResult], title: str) -> Figure:
    """How near a keypoint is to its label, against the height of the heatmap's peak and the head's presence."""
    styles = system_styles([system.name for system in systems])
    sources = [source for source in (PEAK, HEAD) if any(system.has_localisation(source) for system in systems)]
    with house_style():
        figure = Figure(figsize=(1.0 + 4.4 * len(sources), 5.4), layout="constrained")
        for ax, source in zip(figure.subplots(1, len(sources), squeeze=False)[0], sources, strict=True):
            ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="as similar as confident")
            for system in systems:
                _binned(ax, system, LOCALISED, source, LOCALISATION, styles[system.name], name_source=False)
            ax.set(title=SOURCES[source], xlabel=SOURCES[source], ylabel="mean similarity with the label")
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        figure.suptitle(title)
        shared_legend(figure, ncols=3)
        return figure


def _binned(
    ax: Axes,
    system: PresenceResult,
    policy: str,
    source: str,
    curve: str,
    style: tuple[Any, str],
    *,
    name_source: bool = True,
) -> None:
    """Dots of bins that hold something, with their bands."""
    label = f"{system.name}, {SOURCES[source]}" if name_source else system.name
    for seed, frame in enumerate(system.curves):
        points = points_of(frame, policy, source, curve)
        points = points[points["number"] > 0]
        if points.empty:
            continue
        colour, marker = style
        ax.plot(
            points["x"], points["y"], color=colour, marker=marker, markersize=4, linewidth=1.3,
            label=None if seed else label,
        )  # fmt: skip
        ax.fill_between(points["x"], points["low"], points["high"], color=colour, alpha=0.15, linewidth=0)


def worst_cases(split: Split, score: Floats, num: int) -> dict[str, list[Case]]:
    """The absent keypoints of highest and the present ones of lowest score (N, K), at most one of each per person."""
    counted = split.present_weight > 0
    return {
        "hallucinated": list(_extreme(split, score, counted & ~split.present, num, sign=-1)),
        "missed": list(_extreme(split, score, counted & split.present, num, sign=1)),
    }


def _extreme(split: Split, score: Floats, chosen: NDArray[np.bool_], num: int, *, sign: int) -> Iterator[Case]:
    ranked = np.where(chosen, sign * score, np.inf)
    worst = ranked.argmin(axis=1)  # of every person
    people = np.argsort(ranked.min(axis=1), kind="stable")
    for i in people[:num]:
        k = int(worst[i])
        if chosen[i, k]:
            yield Case(int(split.annotation_ids[i]), k, float(score[i, k]), split.keypoints[i, k])


def draw_cases(cases: Mapping[str, Sequence[Case]], subjects: Mapping[int, Subject], title: str) -> Figure:
    """A line of crops per kind of error: the pose that is there, and the keypoint that the system is wrong about."""
    num_columns = max(*map(len, cases.values()), 1)
    cell_w, cell_h, strip, top = 1.9, 2.53, 0.42, 0.7  # inches
    size = (max(cell_w * num_columns, 9.0), (cell_h + strip) * len(cases) + top)
    with house_style():
        figure = Figure(figsize=size)
        grid = figure.add_gridspec(
            len(cases), num_columns, left=0.04, right=0.995, top=1 - top / size[1], bottom=strip / size[1],
            wspace=0.04, hspace=strip / cell_h,
        )  # fmt: skip
        for i, (kind, found) in enumerate(cases.items()):
            for j in range(num_columns):
                ax = figure.add_subplot(grid[i, j])
                if j == 0:
                    ax.set_ylabel(kind, fontsize=9, fontweight="bold")
                if j < len(found):
                    _draw_case(ax, found[j], subjects[found[j].annotation_id])
                else:
                    ax.set(xticks=[], yticks=[], frame_on=False)
                if not found and j == 0:
                    ax.text(0.5, 0.5, "nobody", ha="center", color=GREY, transform=ax.transAxes)
        figure.suptitle(title, y=1 - 0.06 / size[1], va="top", fontsize=11)
        figure.legend(
            handles=list(_handles()), loc="upper center", bbox_to_anchor=(0.5, 1 - 0.3 / size[1]), ncols=4, fontsize=8
        )
        return figure


def _draw_case(ax: Axes, case: Case, subject: Subject) -> None:
    matrix = crop_matrix(bbox_to_view(subject.bbox, CELL_SIZE, CONTEXT), CELL_SIZE)
    show(ax, crop(read_image(subject.image_file), matrix))
    points = warp_points(subject.keypoints, matrix)
    draw_pose(ax, np.where(subject.present[:, None], points, np.nan), subject.present, subject.hidden)
    said, known = warp_points(case.said[None], matrix)[0], points[case.keypoint]
    ring: dict[str, Any] = {"markerfacecolor": "none", "markersize": 13, "markeredgewidth": 2}
    if not np.isnan(known).any():
        ax.plot(*known, "o", markeredgecolor=TRUTH_COLOUR, **ring)
        ax.plot(*np.stack([known, said]).T, color="white", linewidth=1, linestyle=":")
    ax.plot(*said, "o", markeredgecolor=ABSENT_COLOUR, **{**ring, "markersize": 10})
    ax.set(xlim=(-0.5, CELL_SIZE[0] - 0.5), ylim=(CELL_SIZE[1] - 0.5, -0.5))
    beyond = not (0 <= said[0] < CELL_SIZE[0] and 0 <= said[1] < CELL_SIZE[1])
    name = KEYPOINT_NAMES[case.keypoint].replace("_", " ")
    caption(ax, f"{name}: {case.score:.2f}\nperson {case.annotation_id}{', put outside' if beyond else ''}")


def _handles() -> Iterator[Line2D]:
    ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "linestyle": "none", "markeredgewidth": 2}
    yield Line2D([], [], marker="o", color=GREY, markeredgecolor="black", label="present keypoints")
    yield Line2D([], [], marker="o", color=GREY, markerfacecolor="none", linestyle="none", label="present but hidden")
    yield Line2D([], [], markersize=9, markeredgecolor=ABSENT_COLOUR, **ring, label="where the system puts it")
    yield Line2D([], [], markersize=11, markeredgecolor=TRUTH_COLOUR, **ring, label="where it is, if known")
