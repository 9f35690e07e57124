"""Tables, sentences and the figure of the page of pose scores."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bench.reporting.figures import house_style, shared_legend, system_styles
from bench.reporting.markdown import escape
from bench.reporting.pose_results import EMIT_ALL, PLAIN_AP, SCORES, Answers, PoseResult, key, policies_of
from bench.reporting.results import Comparison
from bench.reporting.rows import PRESENCE_HEAD, SOURCES, Source
from bench.reporting.tables import (
    ABSENT,
    SEEDS,
    SYSTEM,
    Cell,
    Column,
    Table,
    comparison_table,
    percent,
    presence_percent,
    verdict,
)

NOTHING = "No policy leaves present and absent keypoints in calibration and in val, so there is nothing to compare."


def scores_table(systems: Sequence[PoseResult], headline: str, people: str) -> Table:
    """Every score of every system, policy and source; under the headline policy also where there are none."""
    columns = [
        SYSTEM,
        Column("policy", "policy"),
        Column("source", "presence read from"),
        percent(PLAIN_AP, "AP (OKS)"),
        presence_percent(EMIT_ALL, "gated AP, everything emitted"),
        *(presence_percent(score, label) for score, label in SCORES.items()),
        ABSENT,
        Column("threshold", "threshold", decimals=3),
        SEEDS,
    ]
    records: list[dict[str, Cell]] = [
        {
            "system": system.name,
            "policy": policy,
            "source": SOURCES[source],
            PLAIN_AP: system.number(PLAIN_AP),
            **{score: system.number(key(policy, source, score)) for score in (EMIT_ALL, *SCORES)},
            "threshold": system.number(key(policy, source, "threshold")).value,
            **system.counts[policy].cells(),
            "seeds": system.num_seeds,
        }
        for system in systems
        for policy, source in _lines(system, headline)
    ]
    return Table("pose_scores", f"Poses that can say that a keypoint is not there, on {people}", columns, records)


def _lines(system: PoseResult, headline: str) -> list[tuple[str, Source]]:
    if any(policy == headline for policy, _ in system.lines):
        return system.lines
    return [(headline, system.main_source), *system.lines]


def comparisons_table(answers: Answers, people: str) -> Table:
    title = f"Does saying that a keypoint is not there score? Paired differences on {people}"
    return comparison_table("differences", title, answers.comparisons)


def head_sentences(answers: Answers) -> str:
    """Whether heads help, as a list: one line per system and policy."""
    if not answers.comparisons:
        return NOTHING
    if not answers.heads:
        return "**No system here has a presence head**, so there is nothing to compare."
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for question in answers.heads:
        groups.setdefault((question.system, question.policy), []).append(question.made)
    return "\n".join(
        f"- {escape(system)}, policy `{policy}`: the head, minus the peak of the same system: {_verdicts(found)}."
        for (system, policy), found in groups.items()
    )


def gate_sentences(answers: Answers) -> str:
    """Whether suppressing helps, as a list: one line per system, policy and source."""
    if not answers.gates:
        return NOTHING
    return "\n".join(
        f"- {escape(system)}, policy `{policy}`, by the {SOURCES[source]}: {_verdicts([made])}."
        for system, policy, source, made in answers.gates
    )


def _verdicts(found: Sequence[Comparison]) -> str:
    return "; ".join(f"{made.label.rpartition(', ')[0]} {verdict(made)}" for made in found)


def draw_gated(systems: Sequence[PoseResult], title: str) -> Figure:
    """Gated AP (%) against the threshold: a panel per policy, a line per system and source with its band."""
    styles = system_styles([system.name for system in systems])
    policies = policies_of(systems)
    with house_style():
        figure = Figure(figsize=(max(4.2 * len(policies), 8.0), 5.0), layout="constrained")
        axes = figure.subplots(1, len(policies), sharey=True, squeeze=False)[0]
        for ax, policy in zip(axes, policies, strict=True):
            for system in systems:
                colour, marker = styles[system.name]
                for source in (source for p, source in system.lines if p == policy):
                    thresholds, points = system.curve(policy, source)
                    value, low, high = 100 * np.array([point[:3] for point in points], dtype=np.float64).T
                    line = {"color": colour, "linestyle": "-" if source == PRESENCE_HEAD else "--"}
                    label = f"{system.name}, {SOURCES[source]}"
                    ax.plot(thresholds, value, marker=marker, markersize=4, label=label, **line)
                    ax.fill_between(thresholds, low, high, color=colour, alpha=0.12, linewidth=0)
            ax.set(title=f"policy {policy}", xlabel="threshold of presence", xlim=(-0.02, 1.02))
            ax.tick_params(labelleft=True)
        figure.axes[0].set_ylabel("gated AP (%)")
        figure.suptitle(title)
        shared_legend(figure, ncols=3)
        return figure
