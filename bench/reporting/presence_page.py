"""Tables and sentences of the page of presence."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal

import pandas as pd

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.presence import POLICIES, TRUE
from bench.metrics.bootstrap import MIN_KEYPOINTS
from bench.metrics.calibrators import CALIBRATORS
from bench.metrics.presence import AT_THRESHOLD, MACRO, POOLED, RANKING
from bench.metrics.presence_study import LOCALISATION, LOCALISED, RANKED, THRESHOLD_RULES
from bench.reporting.label_counts import LabelCount
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
    PresenceResult,
    difference,
    key,
    lines_of,
    rank_agreement,
)
from bench.reporting.results import Comparison, Summary
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
)

SHOWN = (HEAD, PEAK, LOGISTIC)
"""Own sources in tables that would be too long with all of them; `numbers.csv` has the rest."""
SOURCE = Column("source", "presence read from")
POLICY = Column("policy", "policy")
NO_INTERVAL = "biased upwards, no interval"


def lower(name: str, label: str, unit: str = "", scale: float = 1.0, decimals: int = 3) -> Column:
    """An estimated number for which less is better."""
    return Column(name, label, "↓", unit, scale, decimals, estimated=True)


_METRICS = {
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
METRIC_COLUMNS = {name: column._replace(of_presence=True) for name, column in _METRICS.items()}


def policies_table(counts: Mapping[str, LabelCount], scored: Sequence[str], people: str) -> Table:
    """What each policy reads as present, and how many keypoints that makes."""
    columns = [
        POLICY,
        Column("meaning", "meaning"),
        Column("present", "present (n)"),
        ABSENT,
        Column("ignored", "ignored (n)"),
        Column("scored", "has numbers below"),
    ]
    records: list[dict[str, Cell]] = [
        {
            "policy": policy,
            "meaning": POLICIES[policy].meaning,
            **count.cells(),
            "ignored": int(count.ignored.sum()),
            "scored": _scored(count) if policy in scored else "no, one class is empty",
        }
        for policy, count in counts.items()
    ]
    return Table("policies", f"Label policies and the keypoints of {people}", columns, records)


def _scored(count: LabelCount) -> str:
    return f"yes, but one class has fewer than {MIN_KEYPOINTS}" if count.is_scarce else "yes"


def unfitted_note(count: LabelCount, policy: str) -> str:
    """What the calibration split does not allow under a policy; empty where it has both classes."""
    num_present, num_absent = int(count.present.sum()), int(count.absent.sum())
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
        METRIC_COLUMNS["AUROC"],
        _points("difference", "AUROC minus that of box geometry", "↑"),
        *(presence_percent(other, f"AUROC of {SOURCES[other].partition(' (')[0]}") for other in others),
        ABSENT,
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
                **system.counts[policy].cells(),
                "seeds": system.num_seeds,
            }
        )
    return Table("winners", f"AUROC of the main source under every policy, on {people}", columns, records)


def _points(key: str, label: str, direction: Literal["", "↑"] = "") -> Column:
    """A difference of numbers of presence."""
    return Column(key, label, direction, "points", 100.0, 1, signed=True, estimated=True, of_presence=True)


def _by_policy(systems: Sequence[PresenceResult]) -> list[tuple[str, PresenceResult]]:
    return [(policy, s) for policy in POLICIES for s in systems if policy in s.policies]


def winners_sentences(systems: Sequence[PresenceResult], policies: Sequence[str]) -> str:
    """The numbers of all systems under each policy, the largest first, beside the floors, as a list. None is tested."""
    return "\n".join(_numbers_of(systems, policy) for policy in policies)


def _numbers_of(systems: Sequence[PresenceResult], policy: str) -> str:
    having = [system for system in systems if policy in system.policies]
    numbers = {system.name: system.number(key(policy, system.main_source, "AUROC")) for system in having}
    ranked = sorted(having, key=lambda system: -(numbers[system.name].value or 0.0))
    count = ranked[0].counts[policy]
    said = ", ".join(
        f"{escape(system.name)} ({SOURCES[system.main_source]}) {_percent(numbers[system.name])} %" for system in ranked
    )
    text = f"- `{policy}`, {int(count.absent.sum())} absent keypoints: AUROC of {said}."
    if count.is_scarce:
        return f"{text} One class has fewer than {MIN_KEYPOINTS} keypoints, so this says nothing of who is better."
    return text + _floor_sentence(ranked, numbers, policy)


def _floor_sentence(systems: Sequence[PresenceResult], numbers: Mapping[str, Summary], policy: str) -> str:
    """The floor of the largest AUROC, and whom it reaches or exceeds; each system has its own."""
    floors = {system.name: found for system in systems if (found := _largest_floor(system, policy)) is not None}
    if len(floors) < len(systems):
        return ""
    name, number = floors[systems[0].name]
    reached = [s.name for s in systems if (numbers[s.name].value or 0.0) <= (floors[s.name][1].value or 0.0)]
    below = f", which reaches or exceeds {', '.join(map(escape, reached))}" if reached else ""
    return f" Largest of the floors: {FLOORS[name]}, {_percent(number)} %{below}."


def _largest_floor(system: PresenceResult, policy: str) -> tuple[str, Summary] | None:
    found = {floor: system.number(key(policy, floor, "AUROC")) for floor in FLOORS if system.has_source(policy, floor)}
    return max(found.items(), key=lambda item: item[1].value or 0.0, default=None)


def _percent(number: Summary, *, signed: bool = False) -> str:
    column = Column("", "", scale=100.0, decimals=1, signed=signed)
    value, low, high = (column.number(x) or "undefined" for x in number[:3])
    return f"{value} [{low}, {high}]"


def crop_policies() -> str:
    """Those whose labels depend on the crop, as a list."""
    return " and ".join(f"`{name}`" for name, policy in POLICIES.items() if policy.reads_window)


def floors_sentence(system: PresenceResult) -> str:
    """Which floor is the strongest, as the head is compared with box geometry alone."""
    higher = [f"{_named_floor(best, number)} under `{policy}`" for policy, best, number in _above_geometry(system)]
    if not higher:
        return "Box geometry is the floor of highest AUROC under every policy, so it is the one compared here."
    return (
        f"Of the floors, box geometry alone is compared here, although another has a higher AUROC: {', '.join(higher)}."
    )


def _named_floor(floor: str, number: Summary) -> str:
    return f"{FLOORS[floor]}, {_percent(number)} %"


def _above_geometry(system: PresenceResult) -> Iterator[tuple[str, str, Summary]]:
    """Policies under which another floor than box geometry has the highest AUROC, that floor and its number."""
    for policy in system.policies:
        found = {f: system.number(key(policy, f, "AUROC")) for f in FLOORS if system.has_source(policy, f)}
        if found and (best := max(found, key=lambda floor: found[floor].value or 0.0)) != BOX_GEOMETRY:
            yield policy, best, found[best]


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
    verdicts: dict[str, list[str]] = {}
    for policy, made in found:
        verdicts.setdefault(made.verdict, []).append(f"`{policy}` ({_percent(made.difference, signed=True)} points)")
    order = sorted(verdicts, key=lambda verdict: (verdict != "better", verdict != "worse"))
    said = "; ".join(f"{verdict} under {', '.join(verdicts[verdict])}" for verdict in order)
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
        *(_points(metric, f"{metric} minus that of true") for metric in TESTED),
        ABSENT,
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
                records.append({**line, **system.counts[policy].cells(), "seeds": system.num_seeds})
    return Table("truth", f"Distance from the truth, on {people}", columns, records)


def thresholds_table(systems: Sequence[PresenceResult], policy: str, people: str) -> Table:
    """Numbers at a threshold, by the rule that chose it."""
    columns = [
        SYSTEM,
        SOURCE,
        Column("rule", "threshold of"),
        *(METRIC_COLUMNS[m] for m in AT_THRESHOLD),
        ABSENT,
        SEEDS,
    ]
    records: list[dict[str, Cell]] = [
        {
            "system": name,
            "source": SOURCES[source],
            "rule": meaning,
            **{m: systems[place].number(key(policy, source, m, rule)) for m in AT_THRESHOLD},
            **systems[place].counts[policy].cells(),
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
            **systems[place].counts[policy].cells(),
            "seeds": systems[place].num_seeds,
        }
        for name, source, place in lines_of(systems, policy, list(OWN))
    ]
    title = f"Presence without a threshold, policy {policy}, on {people}"
    return Table("ranking", title, [*columns, ABSENT, SEEDS], records)


def calibration_table(systems: Sequence[PresenceResult], policy: str, people: str) -> Table:
    """Whether probabilities mean what they say, before and after each calibrator."""
    metrics = ("ECE", "ECE_mass", "reliability_debiased", "Brier", "NLL")
    columns = [SYSTEM, SOURCE, Column("calibrator", "calibrator"), *(METRIC_COLUMNS[m] for m in metrics), ABSENT, SEEDS]
    records: list[dict[str, Cell]] = []
    for name, source, place in lines_of(systems, policy, list(OWN)):
        for calibrator in CALIBRATORS:
            found = {m: systems[place].number(key(policy, source, m, calibrator)) for m in metrics}
            if found["Brier"].value is not None:
                cells: dict[str, Cell] = {m: x.value if m in BIASED else x for m, x in found.items()}
                line: dict[str, Cell] = {"system": name, "source": SOURCES[source], "calibrator": calibrator}
                records.append(
                    {**line, **cells, **systems[place].counts[policy].cells(), "seeds": systems[place].num_seeds}
                )
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
    columns = [presence_percent(f"{name}/{source}", f"AUROC, {name}, {SOURCES[source]}") for name, source, _ in picks]
    count = systems[0].counts[policy]
    records: list[dict[str, Cell]] = [
        {
            "keypoint": keypoint.replace("_", " "),
            **{
                f"{name}/{source}": systems[place].number(key(policy, source, "AUROC", RANKED, keypoint))
                for name, source, place in picks
            },
            "absent": int(count.absent[k]),
            "present": int(count.present[k]),
        }
        for k, keypoint in enumerate(KEYPOINT_NAMES)
    ]
    title = f"AUROC by keypoint, policy {policy}, on {people}"
    return Table("presence_per_keypoint", title, [Column("keypoint", "keypoint"), *columns, ABSENT], records)


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
