"""What the comparisons of systems allow to say, in a few lines: for the front page."""

from collections.abc import Iterator, Sequence

from bench.reporting.markdown import escape
from bench.reporting.results import Comparison, Result
from bench.reporting.rows import ALWAYS_PRESENT, PRESENCE_KEYS, oks, presence
from bench.reporting.tables import POINTS, format_cell, main_source, percent

QUESTIONS = {
    "AP": "Placing keypoints (AP)",
    "AR": "Placing keypoints (AR)",
    "presence F1": "Saying which are present by policy {policy} (presence F1, at the threshold)",
    "presence AUROC": "Saying which are present by policy {policy} (presence AUROC, without a threshold)",
}
"""What each compared metric asks."""


def findings(results: Sequence[Result], comparisons: Sequence[Comparison]) -> str:
    """Of each metric the numbers, the largest first, and how every system differs from the first declared one: a list.

    `comparisons` are those of the first system with each other one, of the metrics of `QUESTIONS`.
    """
    policy = f"`{results[0].row.protocol.policy}`"
    return "\n".join(
        f"- **{question.format(policy=policy)}**{_standing(metric, results)}: "
        f"{' '.join(_sentences(metric, results, comparisons))}"
        for metric, question in QUESTIONS.items()
    )


def _sentences(metric: str, results: Sequence[Result], comparisons: Sequence[Comparison]) -> Iterator[str]:
    keys = {result.name: _key(result, metric) for result in results}
    numbers = {result.name: result.number(keys[result.name]) for result in results}
    ranked = sorted(numbers, key=lambda name: -(numbers[name].value or 0.0))
    yield ", ".join(f"{escape(name)} {format_cell(percent('', ''), numbers[name])} %" for name in ranked) + "."
    if reached := [escape(result.name) for result in results if is_reached_by_floor(result, keys[result.name])]:
        yield f"Not above always present: {', '.join(reached)}."
    first = escape(results[0].name)
    made = [comparison for comparison in comparisons if comparison.label == metric]
    if clear := [f"{escape(c.second)} {format_cell(POINTS, c.difference)}" for c in made if c.is_clear]:
        yield f"Clearly different from {first}, in points: {', '.join(clear)}."
    if alike := [escape(c.second) for c in made if not c.is_clear]:
        yield f"Not clearly different from {first}: {', '.join(alike)}."


def _standing(metric: str, results: Sequence[Result]) -> str:
    """On how many absent keypoints a number of presence stands."""
    return f", {results[0].row.data.num_absent} absent keypoints" if metric.startswith("presence") else ""


def is_reached_by_floor(result: Result, key: str) -> bool:
    """Whether saying yes to everything does as well in a number of presence."""
    if not key.startswith(PRESENCE_KEYS):
        return False
    own, floor = (result.number(k).value for k in (key, presence(ALWAYS_PRESENT, key.rpartition("/")[2])))
    return own is not None and floor is not None and own <= floor


def _key(result: Result, metric: str) -> str:
    """Presence is read from a system's head where it has one, else from its heatmap peak."""
    kind, _, stat = metric.rpartition(" ")
    return presence(main_source(result), stat) if kind else oks(stat)
