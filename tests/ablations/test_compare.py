"""Sweeps and their differences to the parent, by hand."""

import math

import numpy as np
import pytest

from ablations.compare import build_sweeps, compare_sweeps, spell
from ablations.grid import Ablation
from bench.reporting.results import Result, Summary, load_results
from bench.reporting.rows import HEATMAP_PEAK, PRESENCE_HEAD, oks, presence
from tests.reporting.fake_runs import ABLATIONS, NUM_RESAMPLES, PARENT, make_people, make_result, make_run

HEAD = ("AP", "AR", "F1, presence head", "AUROC, presence head", "F1, heatmap peak", "AUROC, heatmap peak")


def ablation(name: str, factor: str, value: object, parent: str = "p") -> Ablation:
    return Ablation(name=name, parent=parent, factor=factor, value=value, parent_value=0.3, retest=False)


def results_of(*names: str) -> dict[str, Result]:
    return {name: make_result(name) for name in names}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """The fake ablations and their parent, with the matches that tests need; a second parent without a head."""
    root = tmp_path_factory.mktemp("runs")
    manifest = make_people(root, 6, np.random.default_rng(0))
    names = [PARENT, *(name for name, *_ in ABLATIONS), "plain"]
    for name in names:
        for seed in (0, 1):
            make_run(root / "demo", manifest, name, seed, head=name != "plain")
    return {result.name: result for result in load_results(root / "demo", names, [0, 1])}


FAKE = [
    Ablation(name=name, parent=PARENT, factor=factor, value=value, parent_value=parent_value, retest=False)
    for name, factor, value, parent_value in ABLATIONS
]


def test_settings_are_sorted_with_the_parent_among_them() -> None:
    members = [ablation("b", "x.y", 2.0), ablation("a", "x.y", 0.1), ablation("c", "x.y", "auto")]
    (sweep,) = build_sweeps(members, results_of("p", "a", "b", "c"))
    assert [(s.value, s.is_parent) for s in sweep.settings] == [
        (0.1, False),
        (0.3, True),
        (2.0, False),
        ("auto", False),
    ]
    assert [result.name for result in sweep.results] == ["a", "p", "b", "c"]
    assert sweep.parent_result.name == "p"
    assert [setting.result.name for setting in sweep.changed] == ["a", "b", "c"]
    assert sweep.name == "x_y"


def test_a_factor_of_two_parents_makes_two_sweeps_with_names_of_their_own() -> None:
    members = [ablation("a", "x", 1.0), ablation("b", "x", 1.0, parent="q"), ablation("c", "z", 1.0)]
    sweeps = build_sweeps(members, results_of("p", "q", "a", "b", "c"))
    assert [sweep.name for sweep in sweeps] == ["x_of_p", "x_of_q", "z"]


def test_only_numbers_that_all_settings_have_are_compared() -> None:
    """Always present is the same whatever was changed, so it is no number to compare."""
    headed, plain = make_result("p", head=True), make_result("a")
    (both,) = build_sweeps([ablation("h", "x", 1.0)], {"p": headed, "h": make_result("h", head=True)})
    assert tuple(both.numbers().values()) == HEAD
    assert list(both.numbers()) == [
        *map(oks, ("AP", "AR")),
        *(presence(source, metric) for source in (PRESENCE_HEAD, HEATMAP_PEAK) for metric in ("F1", "AUROC")),
    ]
    for parent, changed in ((headed, plain), (plain, headed)):
        (mixed,) = build_sweeps([ablation("a", "x", 1.0)], {"p": parent, "a": changed})
        assert tuple(mixed.numbers().values()) == ("AP", "AR", "F1, heatmap peak", "AUROC, heatmap peak")


def test_every_setting_is_compared_with_its_own_parent(results: dict[str, Result]) -> None:
    other = Ablation(name="dropout_2", parent="plain", factor="y", value=1, parent_value=0, retest=False)
    sweeps = build_sweeps([*FAKE, other], results)
    found = compare_sweeps(sweeps, 20, 0)
    assert list(found) == ["loss_presence_weight", "presence_head_dropout", "y"]
    lines = [(x.first, x.second, x.label) for x in found["loss_presence_weight"]]
    assert lines == [(PARENT, name, label) for name in ("presence_weight_1e_4", "presence_weight_1") for label in HEAD]
    assert {(x.first, x.second) for x in found["y"]} == {("plain", "dropout_2")}
    assert [x.label for x in found["y"]] == ["AP", "AR", "F1, heatmap peak", "AUROC, heatmap peak"]
    for comparison in found["presence_head_dropout"]:
        (key,) = (key for key, label in sweeps[1].numbers().items() if label == comparison.label)
        own, parent = results[comparison.second].number(key).value, results[PARENT].number(key).value
        assert own is not None and parent is not None
        assert comparison.difference.value == pytest.approx(own - parent)
        assert comparison.difference.num_seeds == 2
        assert comparison.test == "bootstrap"  # of several trainings


def test_each_factor_is_a_question_of_its_own(results: dict[str, Result]) -> None:
    """A sweep keeps its p-values whatever else the page shows."""
    sweeps = build_sweeps(FAKE, results)
    together = compare_sweeps(sweeps, 20, 0)
    assert len(sweeps) > 1
    for sweep in sweeps:
        assert compare_sweeps([sweep], 20, 0)[sweep.name] == together[sweep.name]
    lines = [line for group in together.values() for line in group]
    assert len(lines) == len(ABLATIONS) * len(HEAD)
    assert all(line.p_corrected >= line.p for line in lines if line.p is not None and line.p_corrected is not None)


def arms(name: str, *values: float, key: str = presence(HEATMAP_PEAK, "F1")) -> Result:
    """A result with this number for each seed, and a luck of the images that all results share."""
    luck = np.concatenate([[0.0], np.random.default_rng(0).normal(scale=0.1, size=NUM_RESAMPLES)])
    columns = {key: np.stack([value + luck for value in values])}
    return make_result(name, range(len(values)), columns=columns)


def differences_of(own: Result, parent: Result, results: dict[str, Result]) -> dict[str, Summary]:
    """By label; the matches are borrowed, as only presence is looked at."""
    borrowed = results["plain"].matches_files[:1]
    data = parent.row.data.model_copy(update={"num_images": 6})
    own, parent = (
        result._replace(matches_files=borrowed, rows=[row.model_copy(update={"data": data}) for row in result.rows])
        for result in (own, parent)
    )
    sweeps = build_sweeps([ablation(own.name, "x", 1.0, parent.name)], {own.name: own, parent.name: parent})
    return {line.label: line.difference for line in compare_sweeps(sweeps, 5, 0)["x"]}


def test_draws_are_paired(results: dict[str, Result]) -> None:
    """What images do to both cancels, be it ever so much: the interval has no width."""
    found = differences_of(arms("a", 0.6), arms("p", 0.5), results)["F1, heatmap peak"]
    assert found == (*[pytest.approx(0.1)] * 3, None, 1)


def test_seeds_are_paired(results: dict[str, Result]) -> None:
    found = differences_of(arms("a", 0.6, 0.8), arms("p", 0.5, 0.7), results)["F1, heatmap peak"]
    assert found == (*[pytest.approx(0.1)] * 3, None, 2)
    crossed = differences_of(arms("a", 0.6, 0.8), arms("p", 0.7, 0.5), results)["F1, heatmap peak"]
    assert crossed[:3] == pytest.approx((0.1, -0.1, 0.3))


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_a_difference_to_something_undefined_is_undefined(num_seeds: int, results: dict[str, Result]) -> None:
    parent = arms("p", *[math.nan] * num_seeds)
    found = differences_of(arms("a", *[0.6] * num_seeds), parent, results)["F1, heatmap peak"]
    assert found == (None, None, None, None, num_seeds)


def test_a_second_comparison_says_the_same(results: dict[str, Result]) -> None:
    sweeps = build_sweeps(FAKE, results)
    assert compare_sweeps(sweeps, 20, 0) == compare_sweeps(sweeps, 20, 0)


def test_values_as_shown() -> None:
    assert [spell(value) for value in (1e-4, 3, True, None, "mask", [64, 96])] == [
        "0.0001", "3", "true", "None", "mask", "64, 96",
    ]  # fmt: skip
