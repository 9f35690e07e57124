"""What the comparisons of systems allow to say, in a few lines: for the front page."""

from collections.abc import Iterator, Sequence

from bench.reporting.markdown import escape
from bench.reporting.results import Comparison, Result
from bench.reporting.rows import oks, presence
from bench.reporting.tables import POINTS, format_cell, main_source, percent

QUESTIONS = {
    "AP": "Placing keypoints (AP)",
    "AR": "Placing keypoints (AR)",
    "presence F1": "Saying which are present by policy {policy} (presence F1, at the threshold)",
    "presence AUROC": "Saying which are present by policy {policy} (presence AUROC, without a threshold)",
}
"""What each compared metric asks."""


def findings(results: Sequence[Result], comparisons: Sequence[Comparison]) -> str:
    """Who is highest in each metric, and how every system differs from the first declared one, as a list.

    `comparisons` are those of the first system with each other one, of the metrics of `QUESTIONS`.
    """
    policy = f"`{results[0].row.protocol.policy}`"
    return "\n".join(
        f"- **{question.format(policy=policy)}**: {' '.join(_sentences(metric, results, comparisons))}"
        for metric, question in QUESTIONS.items()
    )


def _sentences(metric: str, results: Sequence[Result], comparisons: Sequence[Comparison]) -> Iterator[str]:
    keys = {result.name: _key(result, metric) for result in results}
    best = max(results, key=lambda result: result.number(keys[result.name]).value or 0.0)
    first = escape(results[0].name)
    yield f"**{escape(best.name)}** is highest, {format_cell(percent('', ''), best.number(keys[best.name]))} %."
    made = [comparison for comparison in comparisons if comparison.label == metric]
    if clear := [f"{escape(c.second)} {format_cell(POINTS, c.difference)}" for c in made if c.is_clear]:
        yield f"Clearly different from {first}, in points: {', '.join(clear)}."
    if alike := [escape(c.second) for c in made if not c.is_clear]:
        yield f"Not clearly different from {first}: {', '.join(alike)}."


def _key(result: Result, metric: str) -> str:
    """Presence is read from a system's head where it has one, else from its heatmap peak."""
    kind, _, stat = metric.rpartition(" ")
    return presence(main_source(result), stat) if kind else oks(stat)
