"""python -m bench.cropcoco on drawn people cut by their pictures, and a microscopic model."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from bench import cropcoco
from bench.config import EvaluateParams
from bench.data.coco import read_coco, read_image
from bench.data.cropcoco import RULES, CropCoco, read_cropcoco, widening
from bench.data.hashing import sha256_of
from bench.data.keypoints import OKS_SIGMAS
from bench.data.predictions import CALIBRATION, VAL, read_split
from bench.inference.predict import Predictions
from bench.metrics.bootstrap import draw_resampling
from bench.metrics.presence import Labelled
from bench.stages.command import run_command
from bench.stages.evaluate import presence_sources, threshold_of
from bench.stages.files import RunFiles, manifest_file, plan_dir, read_model
from bench.stages.run_model import build_samples, open_run
from tests.evaluated_project import evaluated_project

FILES = RunFiles("p", "run", 0)
RUN = ("p", "run", "0")
KEPT = 0.6  # of the pictures, from above


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose run is evaluated."""
    with evaluated_project(tmp_path_factory.mktemp("project"), {"run": {}}) as folder:
        yield folder


@pytest.fixture
def cut(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The val people as CropCOCO's: the pictures end early, the positions stay."""
    monkeypatch.chdir(project)
    manifest = read_coco(manifest_file("p", VAL))
    images = [cut_image(image, Path(manifest["info"]["image_root"]), tmp_path) for image in manifest["images"]]
    height_of = {image["id"]: image["height"] for image in images}
    people = [cut_person(person, height_of[person["image_id"]]) for person in manifest["annotations"]]
    file = tmp_path / "cropcoco.json"
    file.write_text(json.dumps({"images": images, "annotations": [person for person in people if person]}))
    return file


def cut_image(image: dict[str, Any], root: Path, folder: Path) -> dict[str, Any]:
    height = int(KEPT * image["height"])
    file = folder / image["file_name"]
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = read_image(root / image["file_name"])[:height]
    assert cv2.imwrite(str(file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return image | {"height": height}


def cut_person(person: dict[str, Any], height: int) -> dict[str, Any] | None:
    x, y, w, h = person["bbox"]
    bbox = [x, y, w, min(h, height - y)]
    if bbox[3] < 4:
        return None
    triples = np.array(person["keypoints"], dtype=np.float64).reshape(17, 3)
    labelled = triples[:, 2] > 0
    triples[labelled & (triples[:, 1] > height - 0.5), 2] = 1
    triples[labelled & (widening(triples[:, :2], np.array(bbox)) > 1.25), 2] = 3
    kept = {key: person[key] for key in ("id", "image_id", "category_id", "iscrowd", "area")}
    return kept | {"bbox": bbox, "keypoints": triples.ravel().tolist()}


@pytest.fixture
def show(cut: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """(options) -> what the command prints of the cut people."""

    def run(*options: str) -> str:
        arguments = ["cropcoco", *RUN, str(cut), str(cut.parent), "--num-resamples", "20", *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stopped:
            run_command(cropcoco.main)
        assert not stopped.value.code
        return capsys.readouterr().out

    return run


def tables(shown: str) -> tuple[dict[tuple[str, str], list[str]], dict[str, list[str]]]:
    """Cells of the table of presence by rule and source, and of that of localisation by where."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines() if line[:2] == "| "]
    presence, localisation = ([row for row in rows if (len(row) > 3) == wide][1:] for wide in (True, False))
    return {(row[0], row[1]): row[2:] for row in presence}, {row[0]: row[1:] for row in localisation}


def predicted(people: CropCoco) -> Predictions:
    trained = open_run(FILES)
    return trained.predict(build_samples(trained.config, trained.codec, people.persons, "labelled", None, 0))


def value(cell: str) -> float:
    return float(cell.partition(" ")[0])


def test_numbers_of_presence_are_those_of_a_direct_computation(show: Callable[..., str], cut: Path) -> None:
    people = read_cropcoco(cut, cut.parent)
    found = predicted(people)
    assert found.presence_logits is not None
    scores = {"presence head": found.presence_logits, "heatmap peak": found.score}
    scores["always present"] = np.ones_like(found.score)
    params = read_model(plan_dir("p") / "run" / "evaluate.json", EvaluateParams)
    calibration, val = (read_split(FILES.predictions, name, params.presence_policy) for name in (CALIBRATION, VAL))
    chosen = [threshold_of(s[0], calibration, params) for s in presence_sources(calibration, val).values()]
    chosen[0] = math.log(chosen[0] / (1 - chosen[0])) - 1e-6  # as a logit
    table = tables(show())[0]
    assert set(table) == {(rule, source) for rule in RULES for source in scores}
    for rule in RULES:
        label = people.label(rule)
        counted = label.present_weight > 0
        present = label.present[counted]
        assert 0 < present.sum() < present.size
        for (source, score), threshold in zip(scores.items(), chosen, strict=True):
            cells = table[rule, source]
            assert cells[:2] == [str(present.sum()), str((~present).sum())]
            called = score[counted] >= threshold
            wanted = [
                100 * roc_auc_score(present, score[counted]),
                100 * average_precision_score(~present, -score[counted]),
                100 * f1_score(present, called),
                (called & ~present).sum() / len(people.persons),
            ]
            np.testing.assert_allclose([value(cells[i]) for i in (2, 3, 5, 6)], wanted, atol=0.006)
        assert table[rule, "always present"][4] == "100.00 (100.00 to 100.00)"


def test_similarity_is_that_of_a_direct_computation(show: Callable[..., str], cut: Path) -> None:
    people = read_cropcoco(cut, cut.parent)
    away = np.linalg.norm(predicted(people).keypoints - people.annotated.keypoints, axis=-1)
    area = {annotation["id"]: annotation["area"] for annotation in json.loads(cut.read_text())["annotations"]}
    areas = np.array([area[person.annotation_id] for person in people.persons])
    terms = np.exp(-(away**2) / (2 * areas[:, None] * (2 * OKS_SIGMAS) ** 2))
    window, image = (people.label(rule).present for rule in ("window", "image"))
    inside, outside, difference = tables(show())[1].values()
    assert [inside[0], outside[0]] == [str((window & image).sum()), str((window & ~image).sum())]
    means = [100 * terms[window & image].mean(), 100 * terms[window & ~image].mean()]
    wanted = [*means, means[1] - means[0]]
    np.testing.assert_allclose([value(x[1]) for x in (inside, outside, difference)], wanted, atol=0.006)


def test_it_says_on_what_its_numbers_stand(show: Callable[..., str], cut: Path) -> None:
    people = read_cropcoco(cut, cut.parent)
    first, again, other = (show("--seed", seed) for seed in "001")
    assert first == again
    assert [value(row[2]) for row in tables(first)[0].values()] == [value(row[2]) for row in tables(other)[0].values()]
    assert tables(first) != tables(other)
    num_images = len({person.image_id for person in people.persons})
    for part in (
        f"{cut} sha256 {sha256_of([cut])}, {len(people.persons)} persons in {num_images} images",
        f"run p/run-0, checkpoint sha256 {sha256_of([FILES.checkpoint])[:12]}",
        "hallucinated are the run's own, max F1 on calibration, policy labelled: presence head 0.",
        "percentile intervals from 20 resamples of the images, seed 0",
    ):
        assert part in first


def test_who_knows_a_rule_is_perfect_under_it(cut: Path) -> None:
    people = read_cropcoco(cut, cut.parent)
    image = np.unique([person.image_id for person in people.persons], return_inverse=True)[1]
    resampling = draw_resampling(int(image.max()) + 1, 20, "percentile", np.random.default_rng(0))
    labels = {rule: Labelled(*people.label(rule), image) for rule in RULES}
    knowing = cropcoco.Statement(labels["image"].present.astype(np.float64), 0.5)
    perfect = cropcoco.presence_numbers(knowing, labels["image"], resampling)
    assert {name: tuple(interval) for name, interval in perfect.items()} == {
        "AUROC": (1, 1, 1), "AP_absent": (1, 1, 1), "FPR95": (0, 0, 0), "F1": (1, 1, 1), "hallucinated": (0, 0, 0)
    }  # fmt: skip
    assert cropcoco.presence_numbers(knowing, labels["window"], resampling)["AUROC"].value < 1


def test_a_rule_without_one_class_is_a_dash(show: Callable[..., str], cut: Path) -> None:
    content = json.loads(cut.read_text())
    for person in content["annotations"]:
        person["keypoints"][2::3] = [min(v, 1) for v in person["keypoints"][2::3]]
    cut.write_text(json.dumps(content))
    table = tables(show())[0]
    for source in ("presence head", "heatmap peak", "always present"):
        assert table["written", source][1:5] == ["0", *[cropcoco.UNDEFINED] * 3]
    assert "100.00 (100.00 to 100.00)" in table["written", "always present"]  # its F1


def test_broken_input_is_one_line(
    refused: Callable[..., str], cut: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    file, folder = str(cut), str(cut.parent)
    assert "none.json: cannot be read" in refused(cropcoco.main, *RUN, "none.json", folder)
    assert "none-0.json: missing" in refused(cropcoco.main, "p", "none", "0", file, folder)
    assert "run-7.json: missing" in refused(cropcoco.main, "p", "run", "7", file, folder)
    assert "cannot be read as an image" in refused(cropcoco.main, *RUN, file, str(cut.parent / "elsewhere"))
    content = json.loads(cut.read_text())
    image = next(i for i in content["images"] if i["id"] == content["annotations"][0]["image_id"])
    image["width"] += 1
    cut.write_text(json.dumps(content))
    found, height = image["width"] - 1, image["height"]
    wanted = f"found {found} x {height} pixels, wanted {found + 1} x {height} as annotated"
    assert wanted in refused(cropcoco.main, *RUN, file, folder)
