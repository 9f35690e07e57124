"""Tables and sentences of the page of presence."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.presence import POLICIES
from bench.metrics.calibrators import CALIBRATORS
from bench.metrics.presence import AT_THRESHOLD, MACRO, POOLED, RANKING
from bench.metrics.presence_study import LOCALISATION, LOCALISED, RANKED, THRESHOLD_RULES
from bench.reporting.markdown import escape, lacking_class
from bench.reporting.presence_results import (
    ALWAYS,
    BIASED,
    BOX_GEOMETRY,
    FLOORS,
    HEAD,
    LOGISTIC,
    OWN,
    PEAK,
    PREVALENCE,
    SOURCES,
    TESTED,
    TRUE,
    PresenceResult,
    difference,
    key,
    lines_of,
    rank_agreement,
)
from bench.reporting.results import Comparison, Summary
from bench.reporting.tables import SEEDS, SYSTEM, Cell, Column, Table, comparison_table, percent

SHOWN = (HEAD, PEAK, LOGISTIC)
"""Own sources in tables that would be too long with all of them; `numbers.csv` has the rest."""
SOURCE = Column("source", "presence read from")
POLICY = Column("policy", "policy")
NO_INTERVAL = "biased upwards, no interval"


def lower(name: str, label: str, unit: str = "", scale: float = 1.0, decimals: int = 3) -> Column:
    """An estimated number for which less is better."""
    return Column(name, label, "↓", unit, scale, decimals, estimated=True)


METRIC_COLUMNS = {
    "AUROC": percent("AUROC", "AUROC"),
    "AP_present": percent("AP_present", "AP present"),
    "AP_absent": percent("AP_absent", "AP absent"),
    "FPR95": lower("FPR95", "FPR95", "%", 100.0, 1),
    "precision": percent("precision", "precision"),
    "recall": percent("recall", "recall"),
    "F1": percent("F1", "F1"),
    "balanced_accuracy": percent("balanced_accuracy", "balanced accuracy"),
    "MCC": Column("MCC", "MCC", "↑", "", 1.0, 2, estimated=True),
    "hallucinated": lower("hallucinated", "hallucinated", "per person", decimals=2),
    "missed": lower("missed", "missed", "per person", decimals=2),
    "ECE": Column("ECE", f"ECE ({NO_INTERVAL})", "↓", "", 1.0, 3),
    "ECE_mass": Column("ECE_mass", f"ECE, bins of equal mass ({NO_INTERVAL})", "↓", "", 1.0, 3),
    "reliability_debiased": lower("reliability_debiased", "reliability, debiased", decimals=4),
    "Brier": lower("Brier", "Brier", decimals=4),
    "NLL": lower("NLL", "NLL"),
}


class LabelCount(NamedTuple):
    """How many keypoints of the val split are what under a policy."""

    policy: str
    num_present: int
    num_absent: int
    num_ignored: int


def policies_table(counts: Sequence[LabelCount], scored: Sequence[str], people: str) -> Table:
    """What each policy reads as present, and how many keypoints that makes."""
    columns = [
        POLICY,
        Column("meaning", "meaning"),
        Column("present", "present (n)"),
        Column("absent", "absent (n)"),
        Column("ignored", "ignored (n)"),
        Column("scored", "has numbers below"),
    ]
    records: list[dict[str, Cell]] = [
        {
            "policy": count.policy,
            "meaning": POLICIES[count.policy].meaning,
            "present": count.num_present,
            "absent": count.num_absent,
            "ignored": count.num_ignored,
            "scored": "yes" if count.policy in scored else "no, one class is empty",
        }
        for count in counts
    ]
    return Table("policies", f"Label policies and the keypoints of {people}", columns, records)


def unfitted_note(counts: Sequence[LabelCount], policy: str) -> str:
    """What the calibration split does not allow under a policy; empty where it has both classes."""
    num_present, num_absent = next(count[1:3] for count in counts if count.policy == policy)
    lacking = lacking_class(num_present, num_absent)
    if not lacking:
        return ""
    if not num_present:
        return "> Nor is any calibrator, or any regression, fitted on the calibration split."  # the other note says why
    return (
        f"> **calibration has {lacking} under policy {policy}**, so no calibrator and no regression is fitted there, "
        "and the threshold of highest F1 calls everything present."
    )


def winners_table(systems: Sequence[PresenceResult], people: str) -> Table:
    """AUROC of every system's main source, of its heatmap statistics and of the floors, by policy."""
    others = (LOGISTIC, BOX_GEOMETRY, PREVALENCE, ALWAYS)
    columns = [
        POLICY,
        SYSTEM,
        SOURCE,
        percent("AUROC", "AUROC"),
        Column("difference", "AUROC minus that of box geometry", "↑", "points", 100.0, 1, signed=True, estimated=True),
        *(percent(other, f"AUROC of {SOURCES[other].partition(' (')[0]}") for other in others),
        SEEDS,
    ]
    records: list[dict[str, Cell]] = []
    for policy, system in _by_policy(systems):
        source = system.main_source
        pair = [system.side(policy, s, "AUROC", s) for s in (BOX_GEOMETRY, source) if system.has_source(policy, s)]
        records.append(
            {
                "policy": policy,
                "system": system.name,
                "source": SOURCES[source],
                "AUROC": system.number(key(policy, source, "AUROC")),
                "difference": difference(pair[0], pair[1]) if len(pair) == 2 else None,
                **{other: system.number(key(policy, other, "AUROC")) for other in others},
                "seeds": system.num_seeds,
            }
        )
    return Table("winners", f"Who tells best what is there, on {people}", columns, records)


def _by_policy(systems: Sequence[PresenceResult]) -> list[tuple[str, PresenceResult]]:
    return [(policy, s) for policy in POLICIES for s in systems if policy in s.policies]


def winners_sentences(systems: Sequence[PresenceResult], policies: Sequence[str]) -> str:
    """Who leads under each policy, and whether by more than chance, as a list."""
    return "\n".join(_winner(systems, policy) for policy in policies)


def _winner(systems: Sequence[PresenceResult], policy: str) -> str:
    ranked = sorted(
        (system for system in systems if policy in system.policies),
        key=lambda system: -(system.number(key(policy, system.main_source, "AUROC")).value or 0.0),
    )
    sides = [system.side(policy, system.main_source, "AUROC", "") for system in ranked[:2]]
    first = ranked[0]
    source = first.main_source
    text = f"- `{policy}`: **{escape(first.name)}** ({SOURCES[source]}), AUROC "
    text += f"{_percent(first.number(key(policy, source, 'AUROC')))} %"
    text += _best_floor(first, policy)
    if len(sides) < 2:
        return f"{text}."
    ahead = difference(sides[1], sides[0])
    clear = "ahead of" if (ahead.low or 0) > 0 else "not clearly ahead of"
    return f"{text}, {clear} {escape(ranked[1].name)} ({_percent(ahead, signed=True)} points)."


def _best_floor(system: PresenceResult, policy: str) -> str:
    found = {floor: system.number(key(policy, floor, "AUROC")) for floor in FLOORS if system.has_source(policy, floor)}
    if not found:
        return ""
    best = max(found, key=lambda floor: found[floor].value or 0.0)
    return f" (best floor: {FLOORS[best]}, {_percent(found[best])} %)"


def _percent(number: Summary, *, signed: bool = False) -> str:
    column = Column("", "", scale=100.0, decimals=1, signed=signed)
    value, low, high = (column.number(x) or "undefined" for x in number[:3])
    return f"{value} [{low}, {high}]"


def head_table(comparisons: Sequence[tuple[str, Comparison]], people: str) -> Table:
    """The head against thresholding the heatmap."""
    title = f"The presence head minus what the heatmap says, on {people}"
    return comparison_table("head", title, [comparison for _, comparison in comparisons])


def head_answer(comparisons: Sequence[tuple[str, Comparison]]) -> str:
    """The answer in words, one line per system, opponent and metric."""
    if not comparisons:
        return "**No system here has a presence head**, so there is nothing to compare."
    groups: dict[tuple[str, str, str], list[tuple[str, Comparison]]] = {}
    for policy, made in comparisons:
        groups.setdefault((made.second, made.first, made.label.partition(",")[0]), []).append((policy, made))
    return "\n".join(_answer(*names, found) for names, found in groups.items())


def _answer(second: str, first: str, metric: str, found: Sequence[tuple[str, Comparison]]) -> str:
    verdicts: dict[str, list[str]] = {"better": [], "worse": [], "not clearly different": []}
    for policy, made in found:
        up = (made.difference.value or 0.0) > 0
        verdict = ("better" if up else "worse") if made.is_clear else "not clearly different"
        verdicts[verdict].append(f"`{policy}` ({_percent(made.difference, signed=True)} points)")
    said = "; ".join(f"**{verdict}** under {', '.join(under)}" for verdict, under in verdicts.items() if under)
    system, _, source = second.rpartition(", ")
    return f"- {escape(system)}, {metric}: the {source} against {first.removeprefix(f'{system}, ')}: {said}."


def agreement_table(systems: Sequence[PresenceResult], people: str) -> Table:
    """Whether policies rank systems alike."""
    columns = [
        Column("first", "policy"),
        Column("second", "and policy"),
        *(Column(m, f"Kendall tau of {m}", "", "", 1.0, 2, estimated=True) for m in TESTED),
        Column("systems", "systems (n)"),
        SEEDS,
    ]
    policies = [policy for policy in POLICIES if all(policy in system.policies for system in systems)]
    records: list[dict[str, Cell]] = [
        {
            "first": first,
            "second": second,
            **{metric: rank_agreement(systems, metric, first, second) for metric in TESTED},
            "systems": len(systems),
            "seeds": max(system.num_seeds for system in systems),
        }
        for first, second in combinations(policies, 2)
    ]
    return Table("agreement", f"Do policies rank systems alike? On {people}", columns, records)


def truth_table(systems: Sequence[PresenceResult], people: str) -> Table:
    """How far the numbers under each policy are from those under the truth."""
    columns = [
        POLICY,
        SYSTEM,
        SOURCE,
        *(
            Column(metric, f"{metric} minus that of true", "", "points", 100.0, 1, signed=True, estimated=True)
            for metric in TESTED
        ),
        SEEDS,
    ]
    records: list[dict[str, Cell]] = []
    carrying = [system for system in systems if TRUE in system.policies]
    for policy in (p for p in POLICIES if p != TRUE and any(p in system.policies for system in carrying)):
        for name, source, place in lines_of(carrying, policy, (HEAD, PEAK)):
            system = carrying[place]
            if source in (system.main_source, *FLOORS) and system.has_source(TRUE, source):
                distance = {
                    metric: difference(system.side(TRUE, source, metric, ""), system.side(policy, source, metric, ""))
                    for metric in TESTED
                }
                line: dict[str, Cell] = {"policy": policy, "system": name, "source": SOURCES[source], **distance}
                records.append({**line, "seeds": system.num_seeds})
    return Table("truth", f"Distance from the truth, on {people}", columns, records)


def thresholds_table(systems: Sequence[PresenceResult], policy: str, people: str) -> Table:
    """Numbers at a threshold, by the rule that chose it."""
    columns = [SYSTEM, SOURCE, Column("rule", "threshold of"), *(METRIC_COLUMNS[m] for m in AT_THRESHOLD), SEEDS]
    records: list[dict[str, Cell]] = [
        {
            "system": name,
            "source": SOURCES[source],
            "rule": meaning,
            **{m: systems[place].number(key(policy, source, m, rule)) for m in AT_THRESHOLD},
            "seeds": systems[place].num_seeds,
        }
        for name, source, place in lines_of(systems, policy, SHOWN)
        for rule, meaning in THRESHOLD_RULES.items()
        if systems[place].has(key(policy, source, "F1", rule))
    ]
    return Table("thresholds", f"Presence at a threshold, policy {policy}, on {people}", columns, records)


def ranking_table(systems: Sequence[PresenceResult], policy: str, people: str) -> Table:
    """Numbers without a threshold, of all keypoints pooled and as means over keypoints."""
    views = {POOLED: "micro", MACRO: "macro"}
    columns = [SYSTEM, SOURCE]
    for metric in RANKING:
        shown = METRIC_COLUMNS[metric]
        columns += [shown._replace(key=f"{metric}_{w}", label=f"{shown.label}, {w}") for w in views.values()]
    records: list[dict[str, Cell]] = [
        {
            "system": name,
            "source": SOURCES[source],
            **{
                f"{metric}_{word}": systems[place].number(key(policy, source, metric, RANKED, view))
                for metric in RANKING
                for view, word in views.items()
            },
            "seeds": systems[place].num_seeds,
        }
        for name, source, place in lines_of(systems, policy, list(OWN))
    ]
    title = f"Presence without a threshold, policy {policy}, on {people}"
    return Table("ranking", title, [*columns, SEEDS], records)


def calibration_table(systems: Sequence[PresenceResult], policy: str, people: str) -> Table:
    """Whether probabilities mean what they say, before and after each calibrator."""
    metrics = ("ECE", "ECE_mass", "reliability_debiased", "Brier", "NLL")
    columns = [SYSTEM, SOURCE, Column("calibrator", "calibrator"), *(METRIC_COLUMNS[m] for m in metrics), SEEDS]
    records: list[dict[str, Cell]] = []
    for name, source, place in lines_of(systems, policy, list(OWN)):
        for calibrator in CALIBRATORS:
            found = {m: systems[place].number(key(policy, source, m, calibrator)) for m in metrics}
            if found["Brier"].value is not None:
                cells: dict[str, Cell] = {m: x.value if m in BIASED else x for m, x in found.items()}
                line: dict[str, Cell] = {"system": name, "source": SOURCES[source], "calibrator": calibrator}
                records.append({**line, **cells, "seeds": systems[place].num_seeds})
    missing = [label for label in FLOORS.values() if all(record["source"] != label for record in records)]
    note = f"Not calibrated, hence without a line: {', '.join(missing)}." if missing else ""
    return Table("calibration", f"Calibration, policy {policy}, on {people}", columns, records, note)


def localisation_table(systems: Sequence[PresenceResult], people: str) -> Table:
    """Whether confidence is the similarity with the label that is to be expected."""
    metrics = ("ECE", "reliability_debiased", "Brier")
    columns = [SYSTEM, SOURCE, *(METRIC_COLUMNS[metric] for metric in metrics), SEEDS]
    records: list[dict[str, Cell]] = []
    for system in systems:
        for source in (HEAD, PEAK):
            if system.has_localisation(source):
                found = {m: system.number(key(LOCALISED, source, m, LOCALISATION)) for m in metrics}
                cells: dict[str, Cell] = {m: x.value if m in BIASED else x for m, x in found.items()}
                line: dict[str, Cell] = {"system": system.name, "source": SOURCES[source]}
                records.append({**line, **cells, "seeds": system.num_seeds})
    return Table("localisation", f"Confidence against similarity with the label, on {people}", columns, records)


def keypoint_table(systems: Sequence[PresenceResult], policy: str, people: str) -> Table:
    """AUROC by keypoint: one column per system and source."""
    picks = list(lines_of(systems, policy, SHOWN))
    columns = [percent(f"{name}/{source}", f"AUROC, {name}, {SOURCES[source]}") for name, source, _ in picks]
    records: list[dict[str, Cell]] = [
        {
            "keypoint": keypoint.replace("_", " "),
            **{
                f"{name}/{source}": systems[place].number(key(policy, source, "AUROC", RANKED, keypoint))
                for name, source, place in picks
            },
        }
        for keypoint in KEYPOINT_NAMES
    ]
    title = f"AUROC by keypoint, policy {policy}, on {people}"
    return Table("presence_per_keypoint", title, [Column("keypoint", "keypoint"), *columns], records)


def numbers_frame(systems: Sequence[PresenceResult]) -> pd.DataFrame:
    """Everything but single keypoints, one line each: all policies, sources, rules."""
    records: list[Mapping[str, object]] = []
    for system in systems:
        for name in system.result.keys:
            number = system.number(name)
            policy, source, rule, view, metric = name.split("/")
            low, high = (None, None) if metric in BIASED else (number.low, number.high)
            line = {"policy": policy, "source": source, "rule": rule, "view": view, "metric": metric}
            records.append({"system": system.name, **line, "value": number.value, "low": low, "high": high})
    return pd.DataFrame(records)
