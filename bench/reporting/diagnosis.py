"""Tables and figures of what is wrong with the poses of the systems.

Letters: E training seeds, S data sets, M numbers, K keypoints, C kinds of error.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from bench.data.keypoints import KEYPOINT_NAMES
from bench.metrics.errors import COSTS, KINDS
from bench.metrics.strata import FACTORS
from bench.reporting.figures import PALETTE, Series, draw_grid_of_panels, house_style, system_styles
from bench.reporting.results import Summary, Values, pool_numbers
from bench.reporting.tables import SEEDS, SYSTEM, Cell, Column, Table, percent

COST_LABELS = {
    "jitter": "jitter",
    "inversion": "inversion",
    "swap": "swap",
    "miss": "miss",
    "localisation": "all four",
    "score": "scores",
    "false_positives": "false positives",
    "missed": "missed persons",
}
FACTOR_LABELS = {
    "occlusion": "share of occluded keypoints",
    "num_labelled": "labelled keypoints",
    "size": "size (pixels)",
    "crowding": "overlapping people",
    "truncation": "cut by the image border",
}
KIND_COLOURS = dict(zip(KINDS[1:], (PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]), strict=True))


class Diagnosis(NamedTuple):
    """The numbers of one system, its training seeds pooled, and how many people are in every stratum."""

    name: str
    numbers: Mapping[str, Summary]
    num_people: Mapping[str, int]
    num_seeds: int


def share(kind: str, keypoint: str = "all") -> str:
    """Name of the share of a kind of error among the labelled keypoints of people who were found."""
    return f"share/{keypoint}/{kind}"


def cost(name: str) -> str:
    """Name of the AP gained when one sort of error is undone; of AP itself for `AP`."""
    return f"cost/{name}"


def stratum(factor: str, level: str, stat: str) -> str:
    """Name of AP or AR of the people of a level."""
    return f"stratum/{factor}/{level}/{stat}"


def pool(name: str, by_seed: Sequence[Values], num_people: Mapping[str, int], num_images: int) -> Diagnosis:
    """One system from the numbers of each of its training seeds, with percentile intervals."""
    return Diagnosis(name, pool_numbers(by_seed, num_images), num_people, len(by_seed))


def kinds_table(systems: Sequence[Diagnosis], people: str) -> Table:
    """Where the keypoints are: one line per system."""
    columns = [SYSTEM, percent("good", "good"), *(_error(kind, kind, "%") for kind in KINDS[1:]), SEEDS]
    records: list[dict[str, Cell]] = [
        {"system": system.name, **{kind: system.numbers[share(kind)] for kind in KINDS}, "seeds": system.num_seeds}
        for system in systems
    ]
    return Table("kinds", f"Labelled keypoints by what became of them, on {people}", columns, records)


def keypoint_kinds_table(systems: Sequence[Diagnosis], people: str) -> Table:
    """The same by keypoint: one line per system and keypoint."""
    columns = [
        SYSTEM,
        Column("keypoint", "keypoint"),
        percent("good", "good"),
        *(_error(kind, kind, "%") for kind in KINDS[1:]),
        SEEDS,
    ]
    records: list[dict[str, Cell]] = [
        {
            "system": system.name,
            "keypoint": keypoint.replace("_", " "),
            **{kind: system.numbers[share(kind, keypoint)] for kind in KINDS},
            "seeds": system.num_seeds,
        }
        for system in systems
        for keypoint in KEYPOINT_NAMES
    ]
    return Table("kinds_per_keypoint", f"Labelled keypoints by what became of them, on {people}", columns, records)


def costs_table(systems: Sequence[Diagnosis], people: str) -> Table:
    """AP, and what would be gained were one sort of error undone: one line per system."""
    columns = [SYSTEM, percent("AP", "AP")]
    columns += [_error(name, COST_LABELS[name], "points") for name in COSTS]
    columns.append(SEEDS)
    records: list[dict[str, Cell]] = [
        {
            "system": system.name,
            **{name: system.numbers[cost(name)] for name in ("AP", *COSTS)},
            "seeds": system.num_seeds,
        }
        for system in systems
    ]
    return Table("costs", f"AP that each sort of error costs, on {people}", columns, records)


def strata_table(systems: Sequence[Diagnosis], people: str) -> Table:
    """AP and AR by attribute of the person: one line per factor, level and system; levels without people left out."""
    columns = [
        Column("factor", "by"),
        Column("level", "level"),
        SYSTEM,
        percent("AP", "AP"),
        percent("AR", "AR"),
        Column("persons", "persons (n)"),
        SEEDS,
    ]
    records: list[dict[str, Cell]] = [
        {
            "factor": FACTOR_LABELS[factor],
            "level": level,
            "system": system.name,
            **{stat: system.numbers[stratum(factor, level, stat)] for stat in ("AP", "AR")},
            "persons": num_people,
            "seeds": system.num_seeds,
        }
        for factor, level, num_people in levels_with_people(systems[0])
        for system in systems
    ]
    return Table("strata", f"AP and AR by attribute of the person, on {people}", columns, records)


def levels_with_people(system: Diagnosis) -> list[tuple[str, str, int]]:
    """Factor, level and number of people of every level that somebody is in."""
    levels = [(name, level) for name, factor in FACTORS.items() for level in factor.levels]
    return [(*pair, number) for pair in levels if (number := system.num_people["/".join(pair)])]


def draw_costs(systems: Sequence[Diagnosis], title: str) -> Figure:
    """What each sort of error costs, one line of dots per system."""
    styles = system_styles([system.name for system in systems])
    series = [
        Series(system.name, [system.numbers[cost(name)] for name in COSTS], *styles[system.name]) for system in systems
    ]
    return draw_grid_of_panels({"AP gained if undone (points)": ([COST_LABELS[c] for c in COSTS], series)}, title)


def draw_strata(systems: Sequence[Diagnosis], title: str) -> Figure:
    """AP by attribute of the person, one panel per factor."""
    styles = system_styles([system.name for system in systems])
    panels = {}
    for factor in FACTORS:
        levels = [level for name, level, _ in levels_with_people(systems[0]) if name == factor]
        panels[f"AP (%) by {FACTOR_LABELS[factor]}"] = (
            levels,
            [
                Series(
                    system.name,
                    [system.numbers[stratum(factor, level, "AP")] for level in levels],
                    *styles[system.name],
                )
                for system in systems
            ],
        )
    return draw_grid_of_panels(panels, title)


def draw_kinds(systems: Sequence[Diagnosis], title: str) -> Figure:
    """Shares of the kinds of error by keypoint, stacked, one panel per system."""
    with house_style():
        figure = Figure(figsize=(max(1.6 + 2.3 * len(systems), 7.0), 5.4), layout="constrained")
        axes = figure.subplots(1, len(systems), sharex=True, sharey=True, squeeze=False)[0]
        places = np.arange(len(KEYPOINT_NAMES))
        for ax, system in zip(axes, systems, strict=True):
            left = np.zeros(len(KEYPOINT_NAMES))
            for kind, colour in KIND_COLOURS.items():
                shares = np.array([system.numbers[share(kind, k)].value or 0.0 for k in KEYPOINT_NAMES]) * 100
                ax.barh(places, shares, left=left, color=colour, label=kind, height=0.75, linewidth=0)
                left += shares
            ax.set(title=system.name, xlabel="% of labelled keypoints")
            ax.grid(visible=False, axis="y")
        axes[0].set_yticks(places, [name.replace("_", " ") for name in KEYPOINT_NAMES])
        axes[0].invert_yaxis()
        figure.suptitle(title)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(KIND_COLOURS))
        return figure


def _error(key: str, label: str, unit: str) -> Column:
    """An estimated fraction for which less is better, printed x100."""
    return Column(key, label, "↓", unit, 100.0, 1, estimated=True)
