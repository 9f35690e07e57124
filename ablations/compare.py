"""One factor at a time: an experiment beside its one-factor changes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ablations.grid import Ablation
from bench.reporting.results import Comparison, Contrast, Result, Side, compare_by_question, rarer_of
from bench.reporting.rows import ALWAYS_PRESENT, SOURCES, oks, presence


class Setting(NamedTuple):
    """One value of a factor and the result it gave."""

    value: Any
    result: Result
    is_parent: bool


class Sweep(NamedTuple):
    """A factor's settings, sorted by value, the parent's among them. `name` is that of its table and figure."""

    name: str
    factor: str
    parent: str
    settings: list[Setting]

    @property
    def parent_result(self) -> Result:
        return self.parent_setting.result

    @property
    def parent_setting(self) -> Setting:
        return next(setting for setting in self.settings if setting.is_parent)

    @property
    def results(self) -> list[Result]:
        return [setting.result for setting in self.settings]

    @property
    def changed(self) -> list[Setting]:
        """But for the parent's."""
        return [setting for setting in self.settings if not setting.is_parent]

    def numbers(self) -> dict[str, str]:
        """Key of every number that is compared, and how it is labelled: of sources that all settings have."""
        found = {oks(stat): stat for stat in ("AP", "AR")}
        for source, label in SOURCES.items():
            if source != ALWAYS_PRESENT and all(source in result.row.thresholds for result in self.results):
                found |= {presence(source, metric): f"{metric}, {label}" for metric in ("F1", "AUROC")}
        return found


def build_sweeps(ablations: Sequence[Ablation], results: Mapping[str, Result]) -> list[Sweep]:
    """One sweep per factor and parent, in the order of declaration; `results` are by name, parents included."""
    groups: dict[tuple[str, str], list[Ablation]] = {}
    for ablation in ablations:
        groups.setdefault((ablation.factor, ablation.parent), []).append(ablation)
    factors = [factor for factor, _ in groups]
    return [
        Sweep(
            name=_file_name(factor) if factors.count(factor) == 1 else f"{_file_name(factor)}_of_{parent}",
            factor=factor,
            parent=parent,
            settings=_settings(members, results),
        )
        for (factor, parent), members in groups.items()
    ]


def _settings(members: Sequence[Ablation], results: Mapping[str, Result]) -> list[Setting]:
    parent = Setting(members[0].parent_value, results[members[0].parent], is_parent=True)
    return sorted([parent, *(Setting(m.value, results[m.name], is_parent=False) for m in members)], key=_by_value)


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


def compare_sweeps(sweeps: Sequence[Sweep], num_permutations: int, seed: int) -> dict[str, list[Comparison]]:
    """Every setting beside its parent, by the name of the sweep; each sweep is a question of its own."""
    contrasts = {
        sweep.name: [
            Contrast(
                label,
                Side(parent.name, parent, key),
                Side(setting.result.name, setting.result, key),
                sweep.name,
                rarer_of(key, parent),
            )
            for setting in sweep.changed
            for key, label in sweep.numbers().items()
        ]
        for sweep in sweeps
        for parent in [sweep.parent_result]
    }
    made = iter(compare_by_question([c for group in contrasts.values() for c in group], num_permutations, seed))
    return {name: [next(made) for _ in group] for name, group in contrasts.items()}
