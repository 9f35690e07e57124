"""python -m bench.score on files, as the command line runs it."""

import json
import math
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from bench import score
from bench.data.coco import COCO_LAYOUT, CROWDPOSE_LAYOUT, Layout
from bench.metrics.average_precision import STATS
from bench.metrics.oks import RULES
from bench.stages.command import run_command
from tests.metrics.evaluators import Case, as_result, draw_case, make_large_person, make_truth, ours

Refused = Callable[..., str]
Show = Callable[..., str]
MakeCoco = Callable[[int, int], tuple[dict[str, Any], list[dict[str, Any]]]]
FEW = ("--num-resamples", "20")
PYCOCOTOOLS = f"pycocotools {version('pycocotools')}"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Case], tuple[str, str]]:
    """The two files of a case."""

    def write_case(case: Case) -> tuple[str, str]:
        files = tmp_path / "results.json", tmp_path / "truth.json"
        for file, content in zip(files, (case.entries, case.coco), strict=True):
            file.write_text(json.dumps(content))
        return str(files[0]), str(files[1])

    return write_case


@pytest.fixture
def show(
    write: Callable[[Case], tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Show:
    """(case, options) -> what the command prints."""

    def run(case: Case, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["score", *write(case), *options])
        with pytest.raises(SystemExit) as stopped:
            run_command(score.main)
        assert not stopped.value.code
        return capsys.readouterr().out

    return run


def columns(shown: str) -> dict[str, list[str]]:
    """The table's columns by title."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines() if line[:1] == "|"]
    titles, _, *rows = lines
    return {title: [row[i] for row in rows] for i, title in enumerate(titles)}


def percents(values: Any) -> list[str]:
    return [score.UNDEFINED if math.isnan(value) else f"{100 * value:.2f}" for value in values]


def toy(seed: int = 0, layout: Layout = COCO_LAYOUT) -> Case:
    """A drawn case with some of the poses right, and without boxes."""
    rules = RULES["crowdpose" if layout == CROWDPOSE_LAYOUT else "coco"]
    cases = (draw_case(s, layout) for s in range(1000 * seed, 1000 * seed + 1000))
    return next(
        case
        for case in cases
        if 0.1 < ours(case, rules)[0] < 0.9
        and "bbox" not in case.entries[0]
        and all(person["area"] != 0 for person in case.coco["annotations"])
    )


def test_a_line_for_each_number(show: Show) -> None:
    case = toy()
    shown = show(case, *FEW)
    table = columns(shown)
    assert table[""] == list(STATS)
    assert table["x 100"] == table[PYCOCOTOOLS] == percents(ours(case))
    for value, interval in zip(table["x 100"], table["95 % interval"], strict=True):
        if interval != score.UNDEFINED:
            low, high = map(float, interval.split(" to "))
            assert 0 <= low <= high <= 100
            assert value != score.UNDEFINED
    assert re.search(r"^pycocotools [\d.]+ agrees (exactly|to \S+)\.$", shown, re.MULTILINE)


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_one_image_has_numbers_and_no_interval(show: Show, interval: str) -> None:
    person = make_large_person(1)
    shown = show(Case(make_truth(person), [as_result(person)]), *FEW, "--interval", interval)
    table = columns(shown)
    assert table["x 100"][0] == "100.00"
    assert set(table["95 % interval"]) == {score.UNDEFINED}
    assert "Too few images (n < 20): with 1 image, there is no interval" in shown


ONE_IMAGE = [Path(f"../shared/cases/score/{name}_oneimage.json") for name in ("res", "gt")]


@pytest.mark.skipif(not ONE_IMAGE[0].is_file(), reason="shared/cases is not beside the project")
def test_the_case_of_one_image_has_no_interval(show: Show) -> None:
    entries, coco = (json.loads(file.read_text()) for file in ONE_IMAGE)
    table = columns(show(Case(coco, entries), *FEW))
    assert table["x 100"][0] == "92.52"
    assert set(table["95 % interval"]) == {score.UNDEFINED}


def test_the_stamp_is_one_line(show: Show) -> None:
    people = [make_large_person(1), make_large_person(2) | {"iscrowd": 1}, make_large_person(3)]
    strays = [as_result(people[0], 0.9, shift=900.0)] * 21
    silent = as_result(people[0]) | {"keypoints": [1.0, 2.0, 0.0] * 17}
    case = Case(make_truth(*people), [*strays, silent, as_result(people[2])])
    counts = "3 images, 2 people that count of 3 annotated, 23 detections, left out: "
    intervals = "percentile intervals from 20 resamples of the images, seed 0; bench.score "
    for rules, left_out in (
        ("coco", "2 beyond the 20 of their image"),
        ("xtcocotools", "1 beyond the 20 of their image, 1 without a keypoint score above 0"),
    ):
        stamp = show(case, "--rules", rules, *FEW).splitlines()[-1]
        assert stamp.startswith(f"rules {rules}, at most 20 detections an image; {counts}{left_out}; {intervals}")
        assert re.search(r"bench\.score [0-9a-f]{12}$", stamp)
    assert "left out: none;" in show(case._replace(entries=[]), *FEW)


def test_boxes_change_medium_and_large_alone(show: Show, make_coco: MakeCoco) -> None:
    without = Case(*make_coco(1, 30))
    case = without._replace(entries=[entry | {"bbox": [0.0, 0.0, 50.0, 50.0]} for entry in without.entries])
    shown = show(case, *FEW)
    table = columns(shown)
    assert score.BBOX_NOTE in shown
    assert table["with bbox"] == table[PYCOCOTOOLS] == percents(ours(case))
    assert table["x 100"] == percents(ours(without))
    pairs = zip(STATS, table["x 100"], table["with bbox"], strict=True)
    assert [stat for stat, extent, box in pairs if extent != box] == ["APM", "APL"]
    assert "with bbox" not in columns(show(without, *FEW))


@pytest.mark.parametrize("rules", list(RULES))
def test_every_evaluator_agrees(show: Show, rules: str) -> None:
    layout = score.LAYOUTS[rules]
    for seed in range(3):
        case = toy(seed, layout)
        expected = ours(case, RULES[rules])
        if not layout.has_area:
            people = [{key: value for key, value in p.items() if key != "area"} for p in case.coco["annotations"]]
            case = case._replace(coco=case.coco | {"annotations": people})
        shown = show(case, "--rules", rules, *FEW)
        if "does not run here" in shown:
            pytest.skip("xtcocotools does not import")
        assert columns(shown)["x 100"] == percents(expected)
        some = " in AP, AP50, AP75, AR, AR50, AR75, ARM, ARL" if rules == "xtcocotools_before_1_12" else ""
        assert re.search(rf"^\w+ [\d.]+ agrees (exactly|to \S+){some}\.$", shown, re.MULTILINE)


def test_rules_are_those_that_are_known() -> None:
    assert set(get_args(score.RulesName)) == set(RULES) == set(score.REFERENCES) == set(score.LAYOUTS)


def test_the_seed_decides_the_intervals_alone(show: Show, make_coco: MakeCoco) -> None:
    case = Case(*make_coco(1, 30))
    first, again, other = (show(case, *FEW, "--seed", seed) for seed in "001")
    assert first == again
    assert columns(first)["x 100"] == columns(other)["x 100"]
    assert columns(first)["95 % interval"] != columns(other)["95 % interval"]
    assert columns(show(case, *FEW, "--interval", "bca"))["x 100"] == columns(first)["x 100"]


def test_without_a_cross_check(show: Show) -> None:
    shown = show(toy(), *FEW, "--no-cross-check")
    assert "pycocotools" not in shown
    assert list(columns(shown)) == ["", "x 100", "95 % interval"]


def test_no_result_scores_zero(show: Show) -> None:
    people = [make_large_person(1), make_large_person(2) | {"area": 2500.0}]
    shown = show(Case(make_truth(*people), []), *FEW)
    assert columns(shown)["x 100"] == ["0.00"] * len(STATS)
    assert f"{PYCOCOTOOLS} cannot read a list without results: not cross-checked." in shown
    shown = show(Case(make_truth(*people), []), *FEW, "--rules", "xtcocotools")
    assert " agrees exactly." in shown


def test_what_is_undefined_is_a_dash(show: Show) -> None:
    nobody = Case({"images": [{"id": 5}, {"id": 6}], "annotations": []}, [as_result(make_large_person(5))])
    shown = show(nobody, *FEW)
    table = columns(shown)
    assert table["x 100"] == table["95 % interval"] == table[PYCOCOTOOLS] == [score.UNDEFINED] * len(STATS)
    assert " agrees exactly." in shown


def test_a_difference_is_said_aloud(show: Show) -> None:
    person = make_large_person(1) | {"id": 0}
    shown = show(Case(make_truth(person), [as_result(person)]), *FEW)
    reason = "it takes whoever finds an annotation with id 0 for a miss"
    assert re.search(
        rf"^pycocotools [\d.]+ DIFFERS by up to 1 \(as fraction, A[PR]\); {reason}\.$", shown, re.MULTILINE
    )


def test_an_evaluator_that_does_not_import(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ValueError("numpy.dtype size changed,\nmay indicate binary incompatibility")

    monkeypatch.setattr(score, "import_module", broken)
    shown = show(toy(), *FEW, "--rules", "xtcocotools")
    reason = "does not run here (numpy.dtype size changed, may indicate binary incompatibility)"
    assert re.search(rf"^xtcocotools [\d.]+ {re.escape(reason)}: not cross-checked\.$", shown, re.MULTILINE)
    assert "xtcocotools 1" not in "".join(columns(shown))


def test_an_evaluator_that_is_not_installed(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setitem(sys.modules, "xtcocotools.coco", None)
    monkeypatch.setattr(score, "version", missing)
    shown = show(toy(), *FEW, "--rules", "xtcocotools")
    assert re.search(r"^xtcocotools does not run here \(.*\): not cross-checked\.$", shown, re.MULTILINE)


def test_the_same_result_twice_and_large_ids(show: Show) -> None:
    person = make_large_person(10**15) | {"id": 10**15}
    twice = Case(make_truth(person), [as_result(person)] * 2)
    assert columns(show(twice, *FEW))["x 100"][0] == "100.00"


def test_inputs_of_the_functions_are_left_alone() -> None:
    case = toy()
    before = json.dumps(case)
    score.ask_reference("coco", case.coco, case.entries)
    assert json.dumps(case) == before


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [0.0] * 48}, "annotation 1: keypoints: found a list of 48, wanted 51 finite numbers"),
        ({"keypoints": [10**400] + [0] * 50}, "annotation 1: keypoints: found a list of 51, wanted 51 finite numbers"),
        ({"area": math.nan}, "annotation 1: area: found nan, wanted a number of pixels"),
        ({"area": None}, "annotation 1: area: found None, wanted a number of pixels"),
        ({"bbox": [0, 0, 0, 5]}, "annotation 1: bbox: found [0, 0, 0, 5], wanted [x, y, w, h] with w, h > 0"),
        ({"category_id": 3}, "annotation 1: category_id: found 3, wanted 1, a person"),
        ({"iscrowd": None}, "annotation 1: iscrowd: found None, wanted 0 or 1"),
        ({"image_id": 2**63}, "annotation 1: image_id: found 9223372036854775808, wanted the id of an"),
        ({"num_keypoints": 16}, "num_keypoints: found 16, wanted 17, the number of keypoints with v = 1 or 2"),
        ({"id": "1"}, "wanted a mapping with a whole-number id"),
    ],
)
def test_wrong_annotations(
    write: Callable[[Case], tuple[str, str]], refused: Refused, change: dict[str, Any], message: str
) -> None:
    files = write(Case(make_truth(make_large_person(1)), []))
    truth = json.loads(Path(files[1]).read_text())
    truth["annotations"][0] |= change
    Path(files[1]).write_text(json.dumps(truth))
    error = refused(score.main, *files)
    assert error.startswith(f"error: {files[1]}: ")
    assert message in error


@pytest.mark.parametrize(
    ("coco", "message"),
    [
        ({"images": [], "annotations": []}, "images: found none, wanted one or more"),
        ({"images": [{"id": 2**63}], "annotations": []}, "images[0]: found {'id': 9223372036854775808}, wanted"),
        ({"images": [{"id": 1}] * 2, "annotations": []}, "images[1]: id 1 is used twice"),
        ([], "found a list at the top, wanted a mapping with images, annotations"),
        ({"images": [{"id": 1}]}, "annotations: found None, wanted a list"),
    ],
)
def test_wrong_ground_truth(
    write: Callable[[Case], tuple[str, str]], refused: Refused, coco: Any, message: str
) -> None:
    files = write(Case(coco, []))
    assert f"error: {files[1]}: {message}" in refused(score.main, *files)


def test_a_number_of_too_many_digits(write: Callable[[Case], tuple[str, str]], refused: Refused) -> None:
    files = write(toy())
    Path(files[1]).write_text("[" + "9" * 5000 + "]")
    assert "broken JSON (Exceeds the limit" in refused(score.main, *files)


def test_wrong_results(write: Callable[[Case], tuple[str, str]], refused: Refused) -> None:
    case = toy()
    files = write(case._replace(entries=[case.entries[0], case.entries[0] | {"score": math.nan}]))
    assert refused(score.main, *files) == f"error: {files[0]}: [1]: score: found nan, wanted a finite number\n"
    assert "as ground truth is, wanted a list of results" in refused(score.main, files[1], files[1])
    assert "none.json: cannot be read" in refused(score.main, "none.json", files[1])


def test_crowdpose_counts_visible_keypoints_of_fourteen(
    write: Callable[[Case], tuple[str, str]], refused: Refused, show: Show
) -> None:
    case = toy(0, CROWDPOSE_LAYOUT)
    assert "annotation" in refused(score.main, *write(case))  # of seventeen
    person = next(p for p in case.coco["annotations"] if 1 in p["keypoints"][2::3])
    person["num_keypoints"] = int((np.array(person["keypoints"][2::3]) > 0).sum())
    error = refused(score.main, *write(case), "--rules", "crowdpose")
    assert "the number of keypoints with v = 2" in error
