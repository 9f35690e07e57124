"""Sweeps and differences, by hand."""

import pytest

from ablations.compare import Ablation, build_sweeps, difference, excludes_zero, spell
from bench.reporting.rows import Estimate, Row, Summary, oks
from tests.reporting.fake_runs import make_row


def with_ap(name: str, seed: int, value: float | None, low: float | None = None, high: float | None = None) -> Row:
    row = make_row(name, seed)
    return row.model_copy(update={"oks": {**row.oks, "AP": Estimate(value=value, low=low, high=high)}})


def ablation(name: str, factor: str, value: object, parent: str = "p") -> Ablation:
    return Ablation(name=name, parent=parent, factor=factor, value=value, parent_value=0.3)


def rows_of(*names: str) -> dict[str, list[Row]]:
    return {name: [make_row(name)] for name in names}


def test_settings_are_sorted_with_the_parent_among_them() -> None:
    members = [ablation("b", "x.y", 2.0), ablation("a", "x.y", 0.1), ablation("c", "x.y", "auto")]
    (sweep,) = build_sweeps(members, rows_of("p", "a", "b", "c"))
    assert [(s.value, s.is_parent) for s in sweep.settings] == [
        (0.1, False),
        (0.3, True),
        (2.0, False),
        ("auto", False),
    ]
    assert [row.experiment for row in sweep.rows] == ["a", "p", "b", "c"]
    assert sweep.name == "x_y"


def test_a_factor_of_two_parents_makes_two_sweeps_with_names_of_their_own() -> None:
    members = [ablation("a", "x", 1.0), ablation("b", "x", 1.0, parent="q"), ablation("c", "z", 1.0)]
    sweeps = build_sweeps(members, rows_of("p", "q", "a", "b", "c"))
    assert [sweep.name for sweep in sweeps] == ["x_of_p", "x_of_q", "z"]


def test_the_interval_of_a_difference_adds_the_arms_in_squares() -> None:
    own, parent = [with_ap("a", 0, 0.60, 0.56, 0.64)], [with_ap("p", 0, 0.50, 0.46, 0.53)]
    found = difference(own, parent, oks("AP"))
    assert found.value == pytest.approx(0.10)
    assert found.low == pytest.approx(0.10 - 0.05)  # arms 0.04 down and 0.03 up: hypotenuse 0.05
    assert found.high == pytest.approx(0.10 + (0.04**2 + 0.04**2) ** 0.5)
    assert excludes_zero(found)


def test_seeds_are_paired() -> None:
    own = [with_ap("a", 0, 0.6), with_ap("a", 1, 0.8)]
    parent = [with_ap("p", 1, 0.7), with_ap("p", 0, 0.5)]
    found = difference(own, parent, oks("AP"))
    assert found.value == pytest.approx(0.1)
    assert found.sd == pytest.approx(0.0)
    assert not excludes_zero(found)  # no interval, no claim


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_a_difference_to_something_undefined_is_undefined(num_seeds: int) -> None:
    own = [with_ap("a", seed, 0.6, 0.5, 0.7) for seed in range(num_seeds)]
    parent = [with_ap("p", seed, None) for seed in range(num_seeds)]
    assert difference(own, parent, oks("AP")).value is None


def test_zero_is_left_out_only_by_an_interval() -> None:
    assert excludes_zero(Summary(-0.2, -0.3, -0.1, None, 1))
    assert not excludes_zero(Summary(0.2, -0.1, 0.5, None, 1))
    assert not excludes_zero(Summary(0.2, None, None, None, 1))


def test_values_as_shown() -> None:
    assert [spell(value) for value in (1e-4, 3, True, None, "mask", [64, 96])] == [
        "0.0001", "3", "true", "None", "mask", "64, 96",
    ]  # fmt: skip
