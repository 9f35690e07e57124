"""Figures of the page of presence: numbers by policy and keypoint, curves, and the worst errors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
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
MIN_IN_BIN = 30
"""Keypoints of a bin with a dot: the observed share of fewer says more of chance than of the system."""


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
    """A line for each training seed: steps for precision, straight between the points of a ROC."""
    for system in systems:
        for seed, frame in enumerate(system.curves):
            points = points_of(frame, policy, source, curve)
            if points.empty:
                continue
            drawstyle = "default" if curve == "roc" else "steps-pre"  # precision between two levels is that of the next
            ax.plot(
                points["x"], points["y"], linewidth=1.5, drawstyle=drawstyle, label=None if seed else label, **style
            )


def points_of(frame: pd.DataFrame, policy: str, source: str, curve: str) -> pd.DataFrame:
    """The points of a curve, from left to right, as they come."""
    chosen = (frame["policy"] == policy) & (frame["source"] == source) & (frame["curve"] == curve)
    return frame[chosen]


def draw_reliability(systems: Sequence[PresenceResult], policies: Sequence[str], title: str) -> Figure:
    """Observed shares against probabilities: two lines of panels per policy (dots, counts), a panel per calibrator."""
    styles = system_styles([system.name for system in systems])
    with house_style():
        figure, axes = _panels_with_counts(systems, len(policies), len(CALIBRATORS), 2.6)
        for (line, counts), policy in zip(axes, policies, strict=True):
            for ax, below, calibrator in zip(line, counts, CALIBRATORS, strict=True):
                ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="calibrated")
                for system in systems:
                    curve = f"reliability/{calibrator}"
                    _binned((ax, below), system, policy, system.main_source, curve, styles[system.name])
                if len(ax.lines) == 1:
                    words = "not fitted to\nthese sources"
                    ax.text(0.68, 0.1, words, ha="center", color=GREY, transform=ax.transAxes)
                ax.set_title(f"{calibrator.replace('_', ' ')}\n{policy}", fontsize="medium")
            line[0].set_ylabel("observed share present")
        for ax in axes[-1][1]:
            ax.set_xlabel("probability given")
        figure.suptitle(title)
        shared_legend(figure, ncols=4)
        return figure


def draw_localisation(systems: Sequence[PresenceResult], title: str) -> Figure:
    """How near a keypoint is to its label, against the height of the heatmap's peak and the head's presence."""
    styles = system_styles([system.name for system in systems])
    sources = [source for source in (PEAK, HEAD) if any(system.has_localisation(source) for system in systems)]
    with house_style():
        figure, ((line, counts),) = _panels_with_counts(systems, 1, len(sources), 4.2)
        for ax, below, source in zip(line, counts, sources, strict=True):
            ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="as similar as confident")
            for system in systems:
                looks = styles[system.name]
                _binned((ax, below), system, LOCALISED, source, LOCALISATION, looks, name_source=False)
            ax.set_title(SOURCES[source])
            below.set_xlabel(SOURCES[source])
        line[0].set_ylabel("mean similarity with the label")
        figure.suptitle(title)
        shared_legend(figure, ncols=3)
        return figure


def _panels_with_counts(
    systems: Sequence[PresenceResult], num_lines: int, num_columns: int, inches: float
) -> tuple[Figure, list[tuple[Sequence[Axes], Sequence[Axes]]]]:
    """Panels of shares, and below each a flat one of how many keypoints its bins hold."""
    size = max(inches * num_columns + 0.8, 7.0), 1.3 + (1.3 * inches + 0.9) * num_lines
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2 * num_lines, num_columns, squeeze=False, height_ratios=[1.0, 0.34] * num_lines)
    most = max(frame["number"].max() for system in systems for frame in system.curves)
    for ax in axes.flat:
        ax.set(xlim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6))
    for ax in axes[::2].flat:
        ax.set(ylim=(-0.02, 1.02), yticks=np.linspace(0, 1, 6))
        ax.tick_params(labelbottom=False)
    for ax in axes[1::2].flat:
        ax.set(yscale="log", ylim=(0.7, 2.0 * max(most, MIN_IN_BIN)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")  # no mathematics, as `house_style` parses none
        ax.yaxis.set_minor_locator(NullLocator())
        ax.axhline(MIN_IN_BIN, color="black", linewidth=0.8, label=f"{MIN_IN_BIN} keypoints: bins below have no dot")
    for ax in axes[1::2, 0]:
        ax.set_ylabel("in bin (n)")
    return figure, [(axes[i], axes[i + 1]) for i in range(0, 2 * num_lines, 2)]


def _binned(
    panels: tuple[Axes, Axes],
    system: PresenceResult,
    policy: str,
    source: str,
    curve: str,
    style: tuple[Any, str],
    *,
    name_source: bool = True,
) -> None:
    """Dots of bins with `MIN_IN_BIN` keypoints, with their bands; below them how many every bin holds."""
    label = f"{system.name}, {SOURCES[source]}" if name_source else system.name
    colour, marker = style
    looks: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.3}
    for seed, frame in enumerate(system.curves):
        points = points_of(frame, policy, source, curve)
        if points.empty:
            continue
        panels[1].plot(points["x"], points["number"], **(looks | {"markersize": 2.5, "linewidth": 0.8}))
        points = points[points["number"] >= MIN_IN_BIN]
        panels[0].plot(points["x"], points["y"], label=None if seed else label, **looks)
        panels[0].fill_between(points["x"], points["low"], points["high"], color=colour, alpha=0.15, linewidth=0)


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
        handles, anchor = list(_handles(subjects.values())), (0.5, 1 - 0.3 / size[1])
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=anchor, ncols=4, fontsize=8)
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


def _handles(subjects: Iterable[Subject]) -> Iterator[Line2D]:
    ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "linestyle": "none", "markeredgewidth": 2}
    yield Line2D([], [], marker="o", color=GREY, markeredgecolor="black", label="present keypoints")
    yield Line2D([], [], marker="o", color=GREY, markerfacecolor="none", linestyle="none", label="present but hidden")
    yield Line2D([], [], markersize=9, markeredgecolor=ABSENT_COLOUR, **ring, label="where the system puts it")
    place = "its true place" if any(subject.is_true for subject in subjects) else "where it is labelled, if it is"
    yield Line2D([], [], markersize=11, markeredgecolor=TRUTH_COLOUR, **ring, label=place)
