"""One factor at a time: an experiment beside its one-factor changes."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from bench.reporting.rows import Estimate, Row, Summary, summarise

Pick = Callable[[Row], Estimate | None]


class Ablation(BaseModel):
    """A declared one-factor change: `factor` is the dotted key, its values are the run's and its parent's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    parent: str
    factor: str
    value: Any
    parent_value: Any


class Setting(NamedTuple):
    """One value of a factor and the rows it gave, one per seed."""

    value: Any
    rows: list[Row]
    is_parent: bool


class Sweep(NamedTuple):
    """A factor's settings, sorted by value, the parent's among them. `name` is that of its table and figure."""

    name: str
    factor: str
    parent: str
    settings: list[Setting]

    @property
    def parent_rows(self) -> list[Row]:
        return next(setting.rows for setting in self.settings if setting.is_parent)

    @property
    def rows(self) -> list[Row]:
        return [row for setting in self.settings for row in setting.rows]


def build_sweeps(ablations: Sequence[Ablation], rows: dict[str, list[Row]]) -> list[Sweep]:
    """One sweep per factor and parent, in the order of declaration; `rows` are by run name, parents included."""
    groups: dict[tuple[str, str], list[Ablation]] = {}
    for ablation in ablations:
        groups.setdefault((ablation.factor, ablation.parent), []).append(ablation)
    factors = [factor for factor, _ in groups]
    return [
        Sweep(
            name=_file_name(factor) if factors.count(factor) == 1 else f"{_file_name(factor)}_of_{parent}",
            factor=factor,
            parent=parent,
            settings=_settings(members, rows),
        )
        for (factor, parent), members in groups.items()
    ]


def _settings(members: Sequence[Ablation], rows: dict[str, list[Row]]) -> list[Setting]:
    parent = Setting(members[0].parent_value, rows[members[0].parent], is_parent=True)
    return sorted([parent, *(Setting(m.value, rows[m.name], is_parent=False) for m in members)], key=_by_value)


def _by_value(setting: Setting) -> tuple[bool, float, str]:
    """Numbers first, by size; then the rest by name."""
    value = setting.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (False, float(value), "")
    return (True, 0.0, spell(value))


def spell(value: Any) -> str:
    """A value as tables and axes show it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(spell(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _file_name(factor: str) -> str:
    return factor.replace(".", "_")


def difference(setting: Sequence[Row], parent: Sequence[Row], pick: Pick) -> Summary:
    """Setting minus parent.

    With one seed the interval is recovered from the two separate ones as if they were independent (MOVER: Zou and
    Donner, Statistics in Medicine 2008). Both saw the same images, so it is wider than a paired interval would be. With
    several seeds: mean and sd of the differences per seed.
    """
    if len(setting) > 1:
        return _seed_differences(setting, parent, pick)
    own, other = summarise(setting, pick), summarise(parent, pick)
    if own.value is None or other.value is None:
        return Summary(None, None, None, None, 1)
    centre = own.value - other.value
    if None in (own.low, own.high, other.low, other.high):
        return Summary(centre, None, None, None, 1)
    assert own.low is not None and own.high is not None and other.low is not None and other.high is not None
    down = math.hypot(own.value - own.low, other.high - other.value)
    up = math.hypot(own.high - own.value, other.value - other.low)
    return Summary(centre, centre - down, centre + up, None, 1)


def _seed_differences(setting: Sequence[Row], parent: Sequence[Row], pick: Pick) -> Summary:
    pairs = list(_values(setting, parent, pick))
    if len(pairs) < len(setting):
        return Summary(None, None, None, None, len(setting))
    differences = [own - other for own, other in pairs]
    return Summary(statistics.fmean(differences), None, None, statistics.stdev(differences), len(setting))


def _values(setting: Sequence[Row], parent: Sequence[Row], pick: Pick) -> Iterator[tuple[float, float]]:
    """Both values of each seed, where both are defined."""
    by_seed = {row.seed: pick(row) for row in parent}
    for row in setting:
        own, other = pick(row), by_seed[row.seed]
        if own is not None and own.value is not None and other is not None and other.value is not None:
            yield own.value, other.value


def excludes_zero(summary: Summary) -> bool:
    """Whether a difference's interval leaves out 0; never so without an interval."""
    return summary.low is not None and summary.high is not None and (summary.low > 0 or summary.high < 0)
