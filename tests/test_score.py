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


# CrowdPose and CropCOCO as they are shipped


CASES = Path(__file__).parents[2] / "shared" / "cases"


def crowdpose_person(image_id: int, visibility: list[int]) -> dict[str, Any]:
    points = [[10.0 * k, 12.0 * k, v] if v else [0, 0, 0] for k, v in enumerate(visibility)]
    keypoints = [value for triplet in points for value in triplet]
    count = sum(v > 0 for v in visibility[:12])
    person = {"id": image_id, "image_id": image_id, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 140, 160]}
    return person | {"keypoints": keypoints, "num_keypoints": count}


def test_crowdpose_counts_labelled_keypoints_of_the_first_twelve(
    write: Callable[[Case], tuple[str, str]], refused: Refused, show: Show
) -> None:
    hidden, both, head = [1] * 14, [2] * 7 + [1] * 7, [0] * 12 + [2, 1]
    people = [crowdpose_person(i, v) for i, v in enumerate([hidden, both, head], start=1)]
    case = Case(make_truth(*people), [as_result(person) for person in people[1:]])
    shown = show(case, "--rules", "crowdpose", *FEW)
    assert "2 people that count of 3 annotated" in shown  # of whom head and neck alone are labelled: ignored
    assert columns(shown)["x 100"][STATS.index("AR")] == "50.00"
    assert "DIFFERS" not in shown
    assert "annotation" in refused(score.main, *write(case))  # of seventeen
    of_all = [person | {"num_keypoints": sum(v > 0 for v in person["keypoints"][2::3])} for person in people]
    shown = show(case._replace(coco=make_truth(*of_all)), "--rules", "crowdpose", *FEW)
    assert "3 people that count of 3 annotated" in shown
    assert "DIFFERS" not in shown
    people[0]["num_keypoints"] = 0  # of v = 2, which would leave this person out
    error = refused(score.main, *write(case), "--rules", "crowdpose")
    assert (
        "annotation 1: num_keypoints: found 0, wanted 12, the number of keypoints with v = 1 or 2 among the first 12"
        in (error)
    )


@pytest.mark.skipif(not CASES.exists(), reason="there is no folder shared/cases beside the project")
def test_a_crowdpose_file_as_shipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = CASES / "crowdpose_like"
    arguments = [str(folder / "res.json"), str(folder / "gt.json"), "--rules", "crowdpose", *FEW]
    monkeypatch.setattr(sys, "argv", ["score", *arguments])
    with pytest.raises(SystemExit):
        run_command(score.main)
    shown = capsys.readouterr().out
    assert "32 people that count of 32 annotated" in shown
    if "does not run here" not in shown:
        assert "agrees" in shown


def cut(person: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """As CropCOCO has it: some keypoints outside of the picture, one lost, and the count from before the cut."""
    triples = np.array(person["keypoints"]).reshape(17, 3)
    triples[(triples[:, 2] > 0) & (rng.random(17) < 0.4), 2] = 3
    triples[rng.integers(17)] = 0
    return person | {"keypoints": triples.ravel().tolist()}


@pytest.mark.parametrize("rules", ["coco", "xtcocotools"])
def test_keypoints_outside_of_the_picture_count_as_labelled(rules: str, show: Show) -> None:
    rng = np.random.default_rng(0)
    for seed in range(3):
        case = toy(seed)
        case = case._replace(coco=case.coco | {"annotations": [cut(p, rng) for p in case.coco["annotations"]]})
        num_outside = sum(person["keypoints"][2::3].count(3) for person in case.coco["annotations"])
        assert any(
            person["num_keypoints"] > np.count_nonzero(person["keypoints"][2::3]) for person in case.coco["annotations"]
        )
        shown = show(case, "--rules", rules, *FEW)
        assert f"{num_outside} keypoints have v = 3, which CropCOCO gives to what lies outside of the picture" in shown
        assert "OKS takes them for labelled" in shown
        assert "agrees" in shown or "does not run here" in shown
        assert columns(shown)["x 100"] == percents(ours(case, RULES[rules]))


def test_a_count_below_what_is_labelled_is_refused(write: Callable[[Case], tuple[str, str]], refused: Refused) -> None:
    person = make_large_person(1)
    person["keypoints"][2] = 3
    right = "wanted 16, or 17 with those of v = 3, or more as before the picture was cut"
    for wrong in (15, 18):
        error = refused(score.main, *write(Case(make_truth(person | {"num_keypoints": wrong}), [])))
        assert f"num_keypoints: found {wrong}, {right}" in error


# A part of the images


def test_images_without_a_pose_are_counted(show: Show) -> None:
    people = [make_large_person(i) for i in range(1, 6)] + [make_large_person(6) | {"iscrowd": 1}]
    case = Case(make_truth(*people), [as_result(person) for person in people[:2]])
    shown = show(case, *FEW)
    assert (
        "4 of 6 images of the annotations have no pose in the results: 3 people that count in them are misses" in shown
    )
    assert columns(shown)["x 100"][STATS.index("AR")] == "40.00"
    shown = show(case, *FEW, "--images", "results")
    assert "have no pose in the results: they, and 3 people that count in them, are left out" in shown
    assert columns(shown)["x 100"][STATS.index("AR")] == "100.00"
    assert "; 2 images, 2 people that count of 2 annotated, 2 detections" in shown
    assert re.search(r"^pycocotools [\d.]+ agrees", shown, re.MULTILINE)
    whole = case._replace(entries=[as_result(person) for person in people])
    assert "The results have a pose in each of the 6 images of the annotations." in show(whole, *FEW)


def test_no_image_of_no_result(write: Callable[[Case], tuple[str, str]], refused: Refused) -> None:
    error = refused(score.main, *write(Case(make_truth(make_large_person(1)), [])), "--images", "results")
    assert "found no pose, wanted one or more: --images results scores no other images" in error


def test_repeated_poses_and_equal_scores_are_said(show: Show) -> None:
    people = [make_large_person(1), make_large_person(2)]
    poses = [as_result(person, 0.0) for person in people]
    shown = show(Case(make_truth(*people), [*poses, poses[0]]), *FEW)
    assert "1 poses repeat another of the file (image, keypoints, score)" in shown
    assert "All 3 poses have the score 0: AP then hangs on their order in the file." in shown
    shown = show(Case(make_truth(*people), [as_result(people[0], 0.5), as_result(people[1], 0.6)]), *FEW)
    assert "repeat another" not in shown
    assert "poses have the score" not in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [1.0] * 42}, "[0]: keypoints: found a list of 42, wanted 51 numbers x, y, score"),
        ({"image_id": 9}, "[0]: image_id: found 9, wanted the id of one of the 1 images"),
        ({"image_id": "1"}, "[0]: image_id: found '1', wanted the id of one of the 1 images"),
    ],
)
def test_results_of_something_else(
    write: Callable[[Case], tuple[str, str]], refused: Refused, change: dict[str, Any], message: str
) -> None:
    person = make_large_person(1)
    error = refused(score.main, *write(Case(make_truth(person), [as_result(person) | change])))
    assert message in error
    assert error.count("\n") == 1
