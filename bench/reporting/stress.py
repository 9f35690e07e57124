"""Tables and figures of what truncation does to the systems."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.reporting.figures import GREY, house_style, system_styles
from bench.reporting.results import Summary
from bench.reporting.rows import ALWAYS_PRESENT, HEATMAP_PEAK, PRESENCE_HEAD, SOURCES, Source
from bench.reporting.tables import ABSENT, SEEDS, SYSTEM, Cell, Column, Table, percent, presence_percent

ALL_SIDES = "all"
MODE_LABELS = {"cut": "cut away", "shift": "left out of the window", "blackout": "covered"}
PADDING_LABELS = {"zeros": "black", "mean": "mean colour", "reflect": "mirrored"}
LINE_STYLES: dict[Source, str] = {PRESENCE_HEAD: "-", HEATMAP_PEAK: "--", ALWAYS_PRESENT: ":"}


class Point(NamedTuple):
    """One point of a curve: a condition, its sides pooled (`ALL_SIDES`) or one of them."""

    mode: str
    padding: str
    side: str
    kept: float


def number(point: Point, metric: str, source: str = "") -> str:
    """Name of a number of a point; of a source of statements on presence where the metric asks for one."""
    return f"{point.mode}/{point.padding}/{point.side}/{point.kept:g}/{source}/{metric}"


def difference(first: Point, second: Point, source: str) -> str:
    """Name of the AUROC of the first minus that of the second point."""
    return f"difference/{number(first, 'AUROC', source)}/{number(second, 'AUROC', source)}"


class Tally(NamedTuple):
    """What a mode and a fraction leave, all sides together; the padding changes nothing of it."""

    samples: int  # persons x sides
    excluded: int  # of these: nothing of the person is kept
    empty: int  # of those not excluded: no keypoint is left that is known to be present
    present: int
    absent: int
    unknown: int


class Grid(NamedTuple):
    """What was declared."""

    panels: Sequence[tuple[str, str]]  # mode and padding
    sides: Sequence[str]
    kept: Sequence[float]

    @property
    def halfway(self) -> float:
        """The fraction that tables of one fraction take: the one nearest to a half."""
        return min(self.kept, key=lambda kept: abs(kept - 0.5))

    @property
    def halfway_text(self) -> str:
        return f"{100 * self.halfway:g} %"

    @property
    def modes(self) -> list[str]:
        return list(dict.fromkeys(mode for mode, _ in self.panels))

    def paddings(self, mode: str) -> list[str]:
        return [padding for name, padding in self.panels if name == mode]

    @property
    def padding_names(self) -> list[str]:
        return list(dict.fromkeys(padding for _, padding in self.panels))

    def points(self) -> list[Point]:
        """Of the curves, then of the table of sides."""
        curves = [Point(*panel, ALL_SIDES, kept) for panel in self.panels for kept in self.kept]
        return curves + self.by_side()

    def by_side(self) -> list[Point]:
        """Halfway, with the first padding; what is covered has no side."""
        modes = [mode for mode in self.modes if mode != "blackout"]
        return [Point(mode, self.paddings(mode)[0], side, self.halfway) for mode in modes for side in self.sides]

    def padding_pairs(self) -> list[tuple[Point, Point]]:
        """Halfway: every other padding, and the first one."""
        points = {panel: Point(*panel, ALL_SIDES, self.halfway) for panel in self.panels}
        return [
            (points[mode, other], points[mode, self.paddings(mode)[0]])
            for mode in self.modes
            for other in self.paddings(mode)[1:]
        ]

    def mode_pairs(self) -> list[tuple[Point, Point]]:
        """Halfway: cut away, and left out of the window."""
        points = {panel: Point(*panel, ALL_SIDES, self.halfway) for panel in self.panels}
        return [(points["cut", padding], points["shift", padding]) for padding in self.paddings("cut")]


class System(NamedTuple):
    """The numbers of one system, its training seeds pooled."""

    name: str
    sources: Sequence[Source]
    numbers: Mapping[str, Summary]
    tallies: Mapping[tuple[str, float], Tally]  # by mode and fraction
    num_seeds: int


class Voice(NamedTuple):
    """Who says what is present: a source of a system."""

    system: System
    source: Source

    @property
    def label(self) -> str:
        if self.source == ALWAYS_PRESENT:
            return SOURCES[ALWAYS_PRESENT]
        return f"{self.system.name}, {SOURCES[self.source]}"

    def record(self, **cells: Cell) -> dict[str, Cell]:
        """A line of a table. Whoever says yes to everything is the same in all systems."""
        name = "any" if self.source == ALWAYS_PRESENT else self.system.name
        return {"system": name, "source": SOURCES[self.source], **cells, "seeds": self.system.num_seeds}


def voices(systems: Sequence[System], *, floor: bool) -> list[Voice]:
    """All heads and peaks, and on demand the floor, once."""
    found = [Voice(system, source) for system in systems for source in system.sources if source != ALWAYS_PRESENT]
    return [*found, Voice(systems[0], ALWAYS_PRESENT)] if floor else found


MODE, PADDING = Column("mode", "what is absent is"), Column("padding", "padding")
KEPT = Column("kept", "kept of 100", scale=100.0)
SOURCE = Column("source", "source")
HALLUCINATED = Column(
    "hallucinated", "absent, called present", "↓", "keypoints per person", 1.0, 2, estimated=True, of_presence=True
)
AUROC, F1 = presence_percent("AUROC", "AUROC"), presence_percent("F1", "F1")
SIMILARITY = percent("similarity", "similarity of what remains")
ECE = Column("ECE", "ECE, as it is", "↓", "%", 100.0, 1, estimated=True)
ECE_TEMPERATURE = Column("ECE_temperature", "ECE, tempered", "↓", "%", 100.0, 1, estimated=True)
PLACES = (
    Column("on_own", "on one of its own", "", "%", 100.0, 1, estimated=True),
    Column("on_mirror", "on its mirror partner", "↓", "%", 100.0, 1, estimated=True),
    Column("on_other", "on somebody else", "↓", "%", 100.0, 1, estimated=True),
    Column("swap", "swapped", "↓", "%", 100.0, 1, estimated=True),
    Column("distance", "distance to the nearest", "", "roots of the area", 1.0, 2, estimated=True),
)
BY_SOURCE = ("AUROC", "F1", "hallucinated")
OF_A_HEAD = ("ECE", "ECE_temperature")
OF_POSES = ("similarity", *(column.key for column in PLACES))


def _classes(system: System, point: Point) -> dict[str, Cell]:
    """How many keypoints are absent, and present."""
    return {name: int(system.numbers[number(point, name)].value or 0) for name in ("absent", "present")}


def _where(point: Point) -> dict[str, Cell]:
    return {"mode": MODE_LABELS[point.mode], "padding": PADDING_LABELS[point.padding], "kept": point.kept}


def presence_table(systems: Sequence[System], grid: Grid, people: str) -> Table:
    """Presence along every curve: one line per point and voice."""
    columns = [MODE, PADDING, KEPT, SYSTEM, SOURCE, AUROC, F1, HALLUCINATED, ABSENT, SEEDS]
    records = [
        voice.record(
            **_where(point),
            **{key: voice.system.numbers[number(point, key, voice.source)] for key in BY_SOURCE},
            **_classes(voice.system, point),
        )
        for point in grid.points()
        if point.side == ALL_SIDES
        for voice in voices(systems, floor=True)
    ]
    return Table("presence", f"Presence of truncated persons, on {people}", columns, records)


def halfway_table(systems: Sequence[System], grid: Grid, people: str) -> Table:
    """The same where half is kept, with the first padding."""
    whole = presence_table(systems, grid, people)
    first = {MODE_LABELS[mode]: PADDING_LABELS[grid.paddings(mode)[0]] for mode in grid.modes}
    records = [
        record
        for record in whole.records
        if record["kept"] == grid.halfway and record["padding"] == first[str(record["mode"])]
    ]
    return whole._replace(
        name="halfway", title=f"Presence where {grid.halfway_text} is kept, on {people}", records=records
    )


def calibration_table(systems: Sequence[System], grid: Grid, people: str) -> Table:
    """ECE of every head along every curve."""
    records: list[dict[str, Cell]] = [
        {
            "system": system.name,
            **_where(point),
            **{key: system.numbers[number(point, key, PRESENCE_HEAD)] for key in OF_A_HEAD},
            "seeds": system.num_seeds,
        }
        for point in grid.points()
        if point.side == ALL_SIDES
        for system in with_head(systems)
    ]
    columns = [MODE, PADDING, KEPT, SYSTEM, ECE, ECE_TEMPERATURE, SEEDS]
    return Table("calibration", f"Calibration of presence of truncated persons, on {people}", columns, records)


def with_head(systems: Sequence[System]) -> list[System]:
    return [system for system in systems if PRESENCE_HEAD in system.sources]


def places_table(systems: Sequence[System], grid: Grid, people: str) -> Table:
    """Where keypoints were put along every curve: one line per point and system."""
    records: list[dict[str, Cell]] = [
        {
            "system": system.name,
            **_where(point),
            **{key: system.numbers[number(point, key)] for key in OF_POSES},
            "seeds": system.num_seeds,
        }
        for point in grid.points()
        if point.side == ALL_SIDES
        for system in systems
    ]
    columns = [MODE, PADDING, KEPT, SYSTEM, SIMILARITY, *PLACES, SEEDS]
    return Table("places", f"Where keypoints of truncated persons were put, on {people}", columns, records)


def sides_table(systems: Sequence[System], grid: Grid, people: str) -> Table:
    """Side by side where half is kept: one line per mode, side and voice."""
    records = [
        voice.record(
            mode=MODE_LABELS[point.mode],
            side=point.side,
            **{key: voice.system.numbers[number(point, key, voice.source)] for key in BY_SOURCE},
            **{key: voice.system.numbers[number(point, key)] for key in ("similarity", "swap")},
            **_classes(voice.system, point),
        )
        for point in grid.by_side()
        for voice in voices(systems, floor=False)
    ]
    columns = [
        MODE, Column("side", "side lost"), SYSTEM, SOURCE, AUROC, F1, HALLUCINATED,
        SIMILARITY, PLACES[3], ABSENT, SEEDS,
    ]  # fmt: skip
    return Table("sides", f"Side by side, {grid.halfway_text} kept, on {people}", columns, records)


def paddings_table(systems: Sequence[System], grid: Grid, people: str) -> Table:
    """AUROC under every padding where half is kept, and how far from that under the first one."""
    paddings = grid.padding_names
    columns = [
        MODE,
        SYSTEM,
        SOURCE,
        *(presence_percent(padding, f"AUROC, {PADDING_LABELS[padding]}") for padding in paddings),
    ]
    columns += [
        _points(f"minus_{padding}", f"{PADDING_LABELS[padding]} - {PADDING_LABELS[paddings[0]]}")
        for padding in paddings[1:]
    ]
    records = []
    for mode in grid.modes:
        for voice in voices(systems, floor=False):
            numbers, source = voice.system.numbers, voice.source
            cells: dict[str, Cell] = {
                padding: numbers[number(Point(mode, padding, ALL_SIDES, grid.halfway), "AUROC", source)]
                for padding in grid.paddings(mode)
            }
            for pair in grid.padding_pairs():
                if pair[0].mode == mode:
                    cells[f"minus_{pair[0].padding}"] = numbers[difference(*pair, source)]
            cells |= _classes(voice.system, Point(mode, grid.paddings(mode)[0], ALL_SIDES, grid.halfway))
            records.append(voice.record(mode=MODE_LABELS[mode], **cells))
    return Table("paddings", f"Paddings, {grid.halfway_text} kept, on {people}", [*columns, ABSENT, SEEDS], records)


def given_away_table(systems: Sequence[System], grid: Grid, people: str) -> Table:
    """AUROC of a cut beside that of a shifted window, where half is kept."""
    records = [
        voice.record(
            padding=PADDING_LABELS[cut.padding],
            cut=voice.system.numbers[number(cut, "AUROC", voice.source)],
            shift=voice.system.numbers[number(shift, "AUROC", voice.source)],
            difference=voice.system.numbers[difference(cut, shift, voice.source)],
            **_classes(voice.system, cut),
            similarity_cut=voice.system.numbers[number(cut, "similarity")],
            similarity_shift=voice.system.numbers[number(shift, "similarity")],
        )
        for cut, shift in grid.mode_pairs()
        for voice in voices(systems, floor=False)
    ]
    columns = [
        PADDING, SYSTEM, SOURCE, presence_percent("cut", "AUROC, cut away"),
        presence_percent("shift", "AUROC, left out of the window"),
        _points("difference", "cut - left out"), percent("similarity_cut", "similarity, cut away"),
        percent("similarity_shift", "similarity, left out"), ABSENT, SEEDS,
    ]  # fmt: skip
    return Table("given_away", f"Cut away or left out, {grid.halfway_text} kept, on {people}", columns, records)


def _points(key: str, label: str) -> Column:
    return Column(key, label, "", "points", 100.0, 1, signed=True, estimated=True, of_presence=True)


def tally_table(systems: Sequence[System], grid: Grid, people: str) -> Table:
    """Of how many persons and keypoints the numbers are; one line for all systems to which it applies."""
    records: list[dict[str, Cell]] = []
    for mode in grid.modes:
        for kept in grid.kept:
            found: dict[Tally, list[str]] = {}
            for system in systems:
                found.setdefault(system.tallies[mode, kept], []).append(system.name)
            for tally, names in found.items():
                who = "all" if len(found) == 1 else ", ".join(names)
                records.append({"mode": MODE_LABELS[mode], "kept": kept, "systems": who, **tally._asdict()})
    columns = [
        MODE, KEPT, Column("systems", "systems"), Column("samples", "persons x sides"),
        Column("excluded", "excluded: nothing kept"), Column("empty", "no keypoint left"),
        Column("present", "keypoints present"), Column("absent", "absent"), Column("unknown", "unknown"),
    ]  # fmt: skip
    return Table("tally", f"How many persons and keypoints, on {people}", columns, records)


class Line(NamedTuple):
    """A curve of every panel: the same number along the fractions kept."""

    label: str
    system: System
    metric: str
    source: str
    colour: Any
    marker: str
    style: str


def voice_lines(systems: Sequence[System], metric: str, *, floor: bool) -> list[Line]:
    """A colour per system; heads are solid, peaks are dashed."""
    styles = system_styles([system.name for system in systems])
    lines = []
    for voice in voices(systems, floor=floor):
        colour, marker = (GREY, "d") if voice.source == ALWAYS_PRESENT else styles[voice.system.name]
        style = LINE_STYLES[voice.source]
        lines.append(Line(voice.label, voice.system, metric, voice.source, colour, marker, style))
    return lines


def head_lines(systems: Sequence[System]) -> list[Line]:
    """The calibration of heads, as they are (solid) and tempered (dashed)."""
    styles = system_styles([system.name for system in systems])
    kinds = (("ECE", "as it is", "-"), ("ECE_temperature", "tempered", "--"))
    return [
        Line(f"{system.name}, {label}", system, metric, PRESENCE_HEAD, colour, marker, style)
        for system in with_head(systems)
        for colour, marker in [styles[system.name]]
        for metric, label, style in kinds
    ]


def system_lines(systems: Sequence[System], metric: str) -> list[Line]:
    styles = system_styles([system.name for system in systems])
    return [
        Line(system.name, system, metric, source="", colour=colour, marker=marker, style="-")
        for system in systems
        for colour, marker in [styles[system.name]]
    ]


def draw_curves(lines: Sequence[Line], grid: Grid, title: str, ylabel: str, scale: float = 100.0) -> Figure:
    """A panel per mode (a row each) and padding, all on one scale; the less is kept, the further to the right."""
    paddings = grid.padding_names
    num_columns, num_rows = len(paddings), len(grid.modes)
    with house_style():
        size = (max(1.0 + 3.2 * num_columns, 7.5), 1.4 + 2.6 * num_rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
        for row, mode in zip(axes, grid.modes, strict=True):
            for ax, padding in zip(row, paddings, strict=True):
                if (mode, padding) in grid.panels:
                    _panel(ax, lines, grid, mode, padding, scale)
                else:
                    ax.set_axis_off()
            row[0].set_ylabel(ylabel)
        axes[0, 0].invert_xaxis()
        figure.suptitle(title)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
        return figure


def _panel(ax: Axes, lines: Sequence[Line], grid: Grid, mode: str, padding: str, scale: float) -> None:
    kept = np.array(sorted(grid.kept))
    reach = 2.5 if len(kept) == 1 else 100 * float(np.diff(kept).min()) / 4
    for line, beside in zip(lines, _beside(len(lines)), strict=True):
        points = [
            line.system.numbers[number(Point(mode, padding, ALL_SIDES, fraction), line.metric, line.source)]
            for fraction in kept.tolist()
        ]
        values, lows, highs = scale * np.array([point[:3] for point in points], dtype=np.float64).T  # None becomes NaN
        bars = np.maximum(np.stack([values - lows, highs - values]), 0.0)
        style = {
            "color": line.colour,
            "marker": line.marker,
            "linestyle": line.style,
            "markersize": 4,
            "linewidth": 1.2,
        }
        ax.errorbar(100 * kept + beside * reach, values, yerr=bars, label=line.label, elinewidth=1, **style)
    ax.set_title(f"{MODE_LABELS[mode]}, {PADDING_LABELS[padding]}")
    ax.set_xlabel("kept (%)")
    ax.set_xticks(100 * kept)
    ax.tick_params(labelbottom=True)


def _beside(num_lines: int) -> Iterator[float]:
    """A little beside each other, from -.5 to .5, so that bars do not hide each other."""
    yield from (np.linspace(-0.5, 0.5, num_lines) if num_lines > 1 else [0.0])
