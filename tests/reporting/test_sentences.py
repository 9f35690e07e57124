"""Sentences that state a fact are made of the data, and change with it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.data.keypoints import NUM_KEYPOINTS
from bench.metrics.strata import FACTORS
from bench.reporting.data_page import SplitData, lost_labels
from bench.reporting.diagnosis import Diagnosis, draw_strata, stratum
from bench.reporting.findings import findings
from bench.reporting.markdown import how_to_read, limits, spell_choice
from bench.reporting.model_card import TrainedOn, card_text
from bench.reporting.presence_page import crop_policies, floors_sentence
from bench.reporting.presence_results import BOX_GEOMETRY, FLOORS, PREVALENCE, PresenceResult, key
from bench.reporting.results import Summary
from bench.reporting.rows import Row
from tests.reporting.fake_runs import make_card, make_result, make_row


def with_protocol(row: Row, **changes: Any) -> Row:
    return row.model_copy(update={"protocol": row.protocol.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("words", "spelled"),
    [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "a", "c", "b"], "a, b or c"), (["a", "a"], "a")],
)
def test_a_choice_names_each_once(words: list[str], spelled: str) -> None:
    assert spell_choice(words) == spelled


def test_rules_of_thresholds_are_spelled_as_a_choice() -> None:
    rules = ["max F1 on calibration", "fixed at 0.5", "fixed at 0.3", "fixed at 0.5"]
    rows = [with_protocol(make_row(str(i)), threshold_rule=rule) for i, rule in enumerate(rules)]
    assert "at a threshold (max F1 on calibration, fixed at 0.5 or fixed at 0.3), which" in how_to_read(rows)


def test_limits_name_the_systems_that_began_from_a_warm_start() -> None:
    both = [make_row("vitpose"), make_row("hrnet")]
    assert "The backbones were trained beforehand" in limits(both)
    one = [both[0], with_protocol(both[1], init="random")]
    assert "The backbones of vitpose were trained beforehand" in limits(one)
    assert "beforehand" not in limits([with_protocol(row, init="random") for row in both])


def test_limits_say_what_the_policy_reads() -> None:
    row = make_row("vitpose")
    photographed = row.model_copy(update={"data": row.data.model_copy(update={"source": "coco"})})
    assert "(`labelled`: v > 0 present, v = 0 absent)" in limits([photographed])
    visible = limits([with_protocol(photographed, policy="visible")])
    assert "(`visible`: v = 2 present, the rest absent)" in visible
    assert "v > 0" not in visible


def floors(**auroc: dict[str, float]) -> PresenceResult:
    """A system of which nothing but the floors' AUROC is known, by policy."""
    numbers = {
        key(policy, floor, "AUROC"): Summary(value, value - 0.01, value + 0.01, None, 1)
        for policy, found in auroc.items()
        for floor, value in found.items()
    }
    table = {name: [0.0, 0.0, 0.0] for name in numbers}
    frame = pd.DataFrame(table, index=["value", "low", "high"]).T
    return PresenceResult(make_result("hrnet"), numbers, [frame], [], list(auroc), {})


def test_which_floor_is_the_strongest_is_looked_up() -> None:
    below = dict.fromkeys(FLOORS, 0.5) | {BOX_GEOMETRY: 0.8}
    assert floors_sentence(floors(true=below)).startswith("Box geometry is the floor of highest AUROC under every")
    above = below | {PREVALENCE: 0.9}
    said = floors_sentence(floors(true=below, known=above))
    assert said.endswith("has a higher AUROC: prevalence (no image), 90.0 [89.0, 91.0] % under `known`.")
    assert "`true`" not in said


def test_policies_that_read_the_crop_are_looked_up() -> None:
    assert crop_policies() == "`in_window` and `known`"


def split(visibility: list[int], truth: list[int]) -> SplitData:
    pad = NUM_KEYPOINTS - len(visibility)
    seen, true = (np.array([[*values, *([2] * pad)]]) for values in (visibility, truth))
    zeros = np.zeros((1, NUM_KEYPOINTS, 2))
    return SplitData("val", {}, seen, true, np.zeros(1, bool), np.ones((1, 4)), zeros, np.ones((1, 2), dtype=np.int64))


def test_lost_labels_are_counted() -> None:
    assert lost_labels([split([2, 1, 0], [2, 1, 0])]) == "Every keypoint in the image has its label."
    said = lost_labels([split([0, 1, 0], [2, 1, 0]), split([2, 0, 0], [2, 1, 0])])
    assert "away from 2 of the 32 keypoints that are in the image (6.2 %)" in said


def test_levels_of_persons_carry_their_number() -> None:
    level = {f"{name}/{level}": 10 * (i + 1) for name, f in FACTORS.items() for i, level in enumerate(f.levels)}
    numbers = {
        stratum(name, label, "AP"): Summary(0.5, 0.4, 0.6, None, 1) for name, f in FACTORS.items() for label in f.levels
    }
    figure = draw_strata([Diagnosis("hrnet", numbers, level, 1)], "")
    size = next(ax for ax in figure.axes if "size" in ax.get_title())
    assert [tick.get_text() for tick in size.get_xticklabels()][:2] == ["below 32\nn = 10", "32-64\nn = 20"]


def test_findings_name_the_policy() -> None:
    result = make_result("hrnet")
    assert "Saying which are present by policy `labelled`" in findings([result], [])


def card(row: Row, **changes: Any) -> str:
    return card_text(row, make_card(row, **changes))


def test_a_card_claims_a_training_only_where_there_was_one() -> None:
    row = make_row("hrnet")
    assert "It was trained and tested on **drawn people" in card(row)
    assert "One training, seed 0" in card(row)
    published = card(row, trained_on=TrainedOn(train=0, calibration=6))
    assert "It was tested on **drawn people" in published
    assert "One training" not in published


def test_a_card_speaks_of_annotated_boxes_only_where_they_were() -> None:
    row = make_row("hrnet")
    assert "it was not tested on those of a detector" in card(row)
    assert "those of a detector" not in card(with_protocol(row, boxes="detected"))
