"""What the comparisons allow to say, in words, and no more. Every sentence is made of numbers."""

from collections.abc import Sequence

from ablations.compare import Setting, Sweep, spell
from bench.reporting import markdown, tables
from bench.reporting.results import Comparison

Compared = tuple[Sweep, Sequence[Comparison]]


def sweep_sentences(sweep: Sweep, comparisons: Sequence[Comparison]) -> str:
    """A line for every setting: from which value to which, and every number that it changed."""
    return "\n".join(
        f"- {_sentence(sweep, setting, [c for c in comparisons if c.second == setting.result.name])}"
        for setting in sweep.changed
    )


def _sentence(sweep: Sweep, setting: Setting, comparisons: Sequence[Comparison]) -> str:
    before, after = sweep.parent_setting.value, setting.value
    factor, start, end = (markdown.escape(text) for text in (sweep.factor, spell(before), spell(after)))
    changes = "; ".join(_change(comparison) for comparison in comparisons)
    return f"{_verb(before, after)} **{factor}** from {start} to {end} changed {changes}."


def _verb(before: object, after: object) -> str:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after)):
        return "Raising" if float(after) > float(before) else "Lowering"  # type: ignore[arg-type]
    return "Setting"


def _change(comparison: Comparison) -> str:
    points = tables.format_cell(tables.POINTS, comparison.difference)
    text = f"{comparison.label} by {points} points"
    return f"{text} (more than chance)" if comparison.is_clear else text


def answer(compared: Sequence[Compared]) -> str:
    """How many of a question's changes moved a number by more than chance, and which did so the most."""
    settings = sum(len(sweep.changed) for sweep, _ in compared)
    clear = [(sweep, made) for sweep, comparisons in compared for made in comparisons if made.is_clear]
    tried = f"{settings} change{'s' if settings > 1 else ''} tried"
    if not clear:
        return f"{tried}: no number moved by more than chance."
    moved = len({made.second for _, made in clear})
    sweep, most = max(clear, key=lambda item: abs(item[1].difference.value or 0.0))
    setting = next(setting for setting in sweep.changed if setting.result.name == most.second)
    value = f"{markdown.escape(sweep.factor)} {markdown.escape(spell(setting.value))}"
    return f"{tried}, {moved} moved a number by more than chance, {value} the most: {_change(most)}."
