"""Figures: crisp, colour-blind safe, and the same bytes every time. Letters: K keypoints."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from bench.data.keypoints import KEYPOINT_NAMES
from bench.errors import UserError
from bench.reporting.results import Result, Summary
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, SOURCES, Source, oks, presence, run_file

DPI = 150
MARKERS = "osD^vPX*"
GREY = "0.45"
PALETTE = sns.color_palette("colorblind")
SOURCE_STYLES: dict[Source, tuple[Any, str]] = {
    "presence_head": (PALETTE[1], "o"),
    "heatmap_peak": (PALETTE[0], "s"),
    "always_present": (GREY, "d"),
}
CURVES = {
    "train_heatmap_loss": "training: heatmap loss",
    "calibration_heatmap_loss": "calibration split: heatmap loss",
    "calibration_AP": "calibration split: AP (%)",
    "train_presence_loss": "training: presence loss",
    "calibration_presence_loss": "calibration split: presence loss",
}
"""The two terms of the loss stand apart, before their weights: their sum compares only among runs that have both."""
ABOUT_CURVES = (
    "Each term of the loss is shown before its weight. Losses of training are means over the steps of an epoch, with "
    "random views; those of the calibration split are taken after it."
)


class Series(NamedTuple):
    """One line of a panel: a summary per setting."""

    label: str
    points: Sequence[Summary]
    colour: Any
    marker: str


@contextmanager
def house_style() -> Iterator[None]:
    """One style whatever the machine's matplotlibrc says; nothing global is left changed."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**sns.axes_style("whitegrid"), **sns.plotting_context("notebook", font_scale=0.85)})
        mpl.rcParams.update(
            {
                "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same letters
                "axes.edgecolor": "0.6",
                "axes.linewidth": 0.8,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.titlesize": "medium",
                "grid.color": "0.9",
                "legend.frameon": False,
                "text.parse_math": False,  # a dollar sign in a name is a dollar sign
                "savefig.facecolor": "white",
            }
        )
        yield


def save(figure: Figure, file: Path | BinaryIO, dpi: int = DPI) -> None:
    """A PNG without a date or a version in it; a panel of undefined numbers alone says so."""
    for ax in figure.axes:
        if ax.lines and not (ax.images or ax.patches or any(map(_has_a_point, ax.lines))):
            ax.text(0.5, 0.5, "undefined here", ha="center", va="center", color=GREY, transform=ax.transAxes)
    with house_style():  # some settings are read only when a figure is drawn
        figure.savefig(file, dpi=dpi, metadata={"Software": None})


def _has_a_point(line: Line2D) -> bool:
    return bool(np.isfinite(np.asarray(line.get_xydata(), dtype=np.float64)).all(axis=1).any())


def system_styles(names: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """Colour and marker of each system, by its place among the declared ones."""
    palette = PALETTE if len(names) <= len(PALETTE) else sns.color_palette("husl", len(names))
    return {name: (palette[i], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def read_curves(runs_dir: Path, name: str, seed: int) -> pd.DataFrame:
    """Raises:
    UserError: the curves of a run are missing, or a column is.
    """
    file = run_file(runs_dir, "curves", name, seed)
    again = f"run `dvc repro train@{name}-{seed}`"
    try:
        frame = pd.read_csv(file)
    except OSError as error:
        raise UserError(f"{file}: missing ({error.strerror}), wanted the training curves: {again}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file}: not CSV ({str(error).splitlines()[0]}), wanted the training curves: {again}"
        ) from error
    missing = [column for column in ("epoch", *CURVES) if column not in frame]
    if missing:
        raise UserError(f"{file}: column {missing[0]!r} is missing, wanted epoch, {', '.join(CURVES)}: {again}")
    frame["calibration_AP"] *= 100
    return frame


def draw_curves(runs_dir: Path, names: Sequence[str], seeds: Sequence[int], people: str) -> Figure:
    """What training did: one panel per curve, one line per system and seed."""
    styles = system_styles(names)
    with house_style():
        figure = Figure(figsize=(11, 6.4), layout="constrained")
        *axes, unused = figure.subplots(2, 3).flat
        unused.set_axis_off()
        panels = dict(zip(CURVES, axes, strict=True))
        for name in names:
            colour, marker = styles[name]
            for seed in seeds:
                frame = read_curves(runs_dir, name, seed)
                style = {"color": colour, "marker": marker, "markersize": 5, "markevery": len(frame) // 20 + 1}
                for curve, ax in panels.items():
                    if frame[curve].any():
                        label = name if seed == seeds[0] else None
                        ax.plot(frame["epoch"], frame[curve], label=label, **style)
        for curve, ax in panels.items():
            ax.set(title=CURVES[curve], xlabel="epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if not ax.lines:
                reason = "no presence head" if curve.endswith("presence_loss") else "nothing was trained"
                ax.text(0.5, 0.5, reason, ha="center", color=GREY, transform=ax.transAxes)
        handles, labels = panels["calibration_AP"].get_legend_handles_labels()
        figure.suptitle(f"Training on {people}")
        if labels:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        return figure


def draw_keypoints(results: Sequence[Result], people: str) -> Figure:
    """Presence F1 per keypoint: one panel per system, one dot per keypoint and source."""
    num_columns = min(4, len(results))
    num_lines = -(-len(results) // num_columns)
    with house_style():
        figure = Figure(figsize=(max(2.3 + 2.4 * num_columns, 8.0), 1.2 + 4.9 * num_lines), layout="constrained")
        axes = figure.subplots(num_lines, num_columns, sharex=True, sharey=True, squeeze=False)
        for ax, result in zip(axes.flat, results, strict=False):
            _dots(ax, result)
            ax.set_title(result.name)
            ax.tick_params(axis="x", labelbottom=True)
        for ax in list(axes.flat)[len(results) :]:
            ax.set_axis_off()
        axes[0, 0].set_yticks(range(len(KEYPOINT_NAMES)), [name.replace("_", " ") for name in KEYPOINT_NAMES])
        axes[0, 0].invert_yaxis()
        handles = {
            label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        labels = [label for label in SOURCES.values() if label in handles]
        figure.suptitle(f"Presence F1 (%) per keypoint on {people}, {bars_note(results)}")
        figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=len(labels))
        return figure


def _dots(ax: Axes, result: Result) -> None:
    sources = [source for source in SOURCES if source in result.row.thresholds]
    offsets = np.linspace(-0.24, 0.24, len(sources))
    for offset, source in zip(offsets, sources, strict=True):
        points = [result.number(presence(source, "F1", keypoint)) for keypoint in KEYPOINT_NAMES]
        colour, marker = SOURCE_STYLES[source]
        values, bars = arrays(points)
        style = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "none", "elinewidth": 1.2}
        ax.errorbar(values, np.arange(len(points)) + offset, xerr=bars, label=SOURCES[source], **style)
    ax.set_ylim(-0.6, len(KEYPOINT_NAMES) - 0.4)
    ax.grid(visible=False, axis="y")


def bars_note(results: Sequence[Result]) -> str:
    """What the bars of a figure are."""
    seeds = max(len(result.rows) for result in results)
    return f"95 % intervals over images{f' and {seeds} training seeds' if seeds > 1 else ''}"


def draw_panels(
    settings: Sequence[Any], panels: Mapping[str, Sequence[Series]], title: str, xlabel: str, parent: int | None = None
) -> Figure:
    """Numbers (%) against settings, one panel per metric.

    The axis is logarithmic where the settings are positive numbers over more than a decade, else one place per setting;
    the setting at `parent` is marked.
    """
    log = is_log(settings)
    with house_style():
        figure = Figure(figsize=(1.0 + 3.3 * len(panels), 4.2), layout="constrained")
        for ax, (metric, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for i, line in enumerate(series):
                _line(ax, _positions(settings, i, len(series)), line, joined=log)
            ax.set(title=f"{metric} (%)", xlabel=xlabel)
            _ticks(ax, settings, parent, log=log)
        figure.suptitle(title)
        _shared_legend(figure)
        return figure


def draw_grid_of_panels(panels: Mapping[str, tuple[Sequence[str], Sequence[Series]]], title: str) -> Figure:
    """Numbers (%) against settings that each panel has for itself, by its title; three panels a line."""
    num_columns = min(3, len(panels))
    num_lines = -(-len(panels) // num_columns)
    with house_style():
        figure = Figure(figsize=(max(4.0 * num_columns, 7.5), 0.8 + 3.1 * num_lines), layout="constrained")
        axes = list(figure.subplots(num_lines, num_columns, squeeze=False).flat)
        for ax, (name, (settings, series)) in zip(axes, panels.items(), strict=False):
            for i, line in enumerate(series):
                _line(ax, _positions(settings, i, len(series)), line, joined=False)
            ax.set_title(name)
            _ticks(ax, settings, None, log=False)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        figure.suptitle(title)
        _shared_legend(figure)
        return figure


def is_log(settings: Sequence[Any]) -> bool:
    """Whether settings belong on a logarithmic axis: positive numbers that span more than a decade."""
    numbers = [value for value in settings if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(settings) > 0 and min(numbers) > 0 and max(numbers) / min(numbers) > 10


def _positions(settings: Sequence[Any], i: int, num_series: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Where series i stands: a little beside the others, so that bars do not hide each other."""
    beside = (i - (num_series - 1) / 2) * 0.12
    if not is_log(settings):
        return np.arange(len(settings), dtype=np.float64) + beside
    span = np.log10(max(settings) / min(settings))
    step = float(10 ** (beside * span / len(settings)))
    places: np.ndarray[Any, np.dtype[np.float64]] = np.array([setting * step for setting in settings])
    return places


def _line(ax: Axes, x: np.ndarray[Any, np.dtype[np.float64]], series: Series, *, joined: bool) -> None:
    values, bars = arrays(series.points)
    style = {"color": series.colour, "marker": series.marker, "markersize": 6, "elinewidth": 1.5, "capsize": 3}
    ax.errorbar(x, values, yerr=bars, linestyle="-" if joined else "none", linewidth=1, label=series.label, **style)


def _ticks(ax: Axes, settings: Sequence[Any], parent: int | None, *, log: bool) -> None:
    labels = [f"{value:g}" if isinstance(value, float) else str(value) for value in settings]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    slanted = longest * len(labels) > 34
    turn: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    if parent is not None:
        labels[parent] += " (parent)" if slanted else "\n(parent)"
    if log:
        ax.set_xscale("log")
    else:
        ax.set_xlim(-0.6, len(settings) - 0.4)
    ax.set_xticks(list(settings) if log else range(len(settings)), labels, **turn)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(y=0.15)


def _shared_legend(figure: Figure) -> None:
    entries = {
        label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=len(entries))


def arrays(points: Sequence[Summary]) -> tuple[Any, Any]:
    """Values (P,) and bars (2, P) in per cent, to the interval's bounds."""
    numbers = np.array([point[:3] for point in points], dtype=np.float64)  # None becomes NaN
    values, lows, highs = 100 * numbers.T
    # A percentile interval may leave out its own value; a bar cannot have a negative length.
    return values, np.maximum(np.stack([values - lows, highs - values]), 0.0)


def draw_systems(results: Sequence[Result], people: str) -> Figure:
    """AP and presence of every system at a glance, the floors beside each."""
    title = f"Systems on {people}, {bars_note(results)}"
    return draw_panels([result.name for result in results], metric_panels(results), title, "")


def metric_panels(results: Sequence[Result]) -> dict[str, list[Series]]:
    """AP, and AUROC and F1 by source, of results that are one setting each."""
    ap = Series("localisation", [result.number(oks("AP")) for result in results], PALETTE[2], "D")
    return {
        "AP": [ap],
        "presence AUROC": _by_source(results, "AUROC", [PRESENCE_HEAD, HEATMAP_PEAK]),
        "presence F1": _by_source(results, "F1", list(SOURCES)),
    }


def _by_source(results: Sequence[Result], metric: str, sources: Sequence[Source]) -> list[Series]:
    found = [source for source in sources if any(source in result.row.thresholds for result in results)]
    return [
        Series(SOURCES[source], [result.number(presence(source, metric)) for result in results], *SOURCE_STYLES[source])
        for source in found
    ]


def shared_legend(figure: Figure, ncols: int) -> None:
    """What any panel has, below all of them."""
    entries = {
        label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=min(ncols, len(entries)))
