"""What the comparisons of systems allow to say, in a few lines: for the front page."""

from collections.abc import Sequence

from bench.reporting.markdown import escape
from bench.reporting.results import Comparison, Result
from bench.reporting.rows import oks, presence
from bench.reporting.tables import Column, format_cell, main_source, percent

POINTS = Column("difference", "", scale=100.0, decimals=1, signed=True, estimated=True)


def findings(results: Sequence[Result], comparisons: Sequence[Comparison]) -> str:
    """Who is highest in each metric, and how every system differs from the first declared one, as a list.

    `comparisons` are those of the first system with each other one, of the metrics named here."""
    return "\n".join(_finding(metric, results, comparisons) for metric in ("AP", "AR", "presence F1", "presence AUROC"))


def _finding(metric: str, results: Sequence[Result], comparisons: Sequence[Comparison]) -> str:
    kind, _, stat = metric.rpartition(" ")
    keys = {result.name: presence(main_source(result), stat) if kind else oks(stat) for result in results}
    best = max(results, key=lambda result: result.number(keys[result.name]).value or 0.0)
    text = f"- **{metric}**: **{escape(best.name)}** is highest, "
    text += f"{format_cell(percent('', ''), best.number(keys[best.name]))} %."
    made = [comparison for comparison in comparisons if comparison.label == metric]
    if not made:
        return text
    said = (
        f"{escape(c.second)} {format_cell(POINTS, c.difference)}{'' if c.is_clear else ' (not clear)'}" for c in made
    )
    return f"{text} Minus {escape(made[0].first)}, in points: {', '.join(said)}."
