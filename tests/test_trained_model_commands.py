"""python -m bench.show, bench.export_onnx and bench.export_hub on drawn people and microscopic models."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from torch import Tensor

from bench import export_hub, export_onnx, show
from bench.data.codec import Codec, decode
from bench.data.hashing import sha256_of
from bench.data.keypoints import flip_order
from bench.data.predictions import VAL, read_split
from bench.inference import flip
from bench.inference.exported import Answer, ExportedModel
from bench.inference.scoring import person_scores
from bench.reporting.hub_card import write_card
from bench.reporting.model_card import Card, TrainedOn, card_page
from bench.reporting.rows import read_row
from bench.stages import card as card_stage
from bench.stages.command import run_command
from bench.stages.evaluated_run import find_run, open_evaluated
from bench.stages.files import RunFiles, manifest_file, read_model
from bench.stages.run_model import read_manifest
from bench.stages.run_record import card_of, open_record
from models import PoseOutput
from tests.data.test_boxes import turn, write_image
from tests.evaluated_project import PROFILE, evaluated_project

HEAD, BARE = RunFiles(PROFILE, "head", 0), RunFiles(PROFILE, "bare", 0)
RUNS = [HEAD, BARE]
COCO_MINI = Path(__file__).parents[2] / "shared" / "coco-mini"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a run with a head and one without, whose peaks are made to know something of presence."""
    experiments = {"head": {}, "bare": {"presence_head": {"type": "none"}}}
    with evaluated_project(tmp_path_factory.mktemp("project"), experiments) as folder:
        predictions = pd.read_parquet(BARE.predictions)
        predictions["score"] += 0.01 * predictions["present_labelled"]
        predictions.to_parquet(BARE.predictions)
        yield folder


Run = Callable[..., str]


@pytest.fixture
def call(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """(a command's main, arguments) -> what it prints."""

    def run(main: Callable[..., None], *arguments: str | Path) -> str:
        monkeypatch.chdir(project)
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments), "--profile", PROFILE])
        with pytest.raises(SystemExit) as stopped:
            run_command(main)
        printed = capsys.readouterr()
        assert not stopped.value.code, printed.err
        return printed.out

    return run


def image_folder() -> Path:
    """Where the drawn people of the val split are."""
    manifest = read_manifest(PROFILE, VAL)
    return (Path(manifest["info"]["image_root"]) / manifest["images"][0]["file_name"]).parent


def read_shown(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.pose.json"))]


@pytest.mark.parametrize("files", RUNS, ids=lambda files: files.run)
def test_shown_people_are_those_of_the_predictions(files: RunFiles, call: Run, tmp_path: Path) -> None:
    said = call(
        show.main, image_folder(), "--run", files.name, "--boxes", manifest_file(PROFILE, VAL), "--out", tmp_path
    )
    shown = read_shown(tmp_path)
    row, split = read_row(files.row), read_split(files.predictions, VAL, "labelled")
    people = [person for content in shown for person in content["people"]]
    assert f"{len(split.score)} people in {len(shown)} of " in said
    order = np.argsort(split.image_ids, kind="stable")
    assert [person["image_id"] for person in people] == split.image_ids[order].tolist()
    triples = np.array([person["keypoints"] for person in people]).reshape(-1, 17, 3)
    np.testing.assert_allclose(triples[..., :2], split.keypoints[order], atol=1e-9)
    if files is HEAD:  # the peaks of the other are not its own
        score = person_scores(row.protocol.score_rule, split.bbox_score, split.score, split.presence)
        np.testing.assert_allclose([person["score"] for person in people], score[order], rtol=1e-6)
        np.testing.assert_allclose(triples[..., 2], split.score[order], rtol=1e-6)
        assert split.presence is not None
        before = split.presence[order]
        far = np.abs(before - row.thresholds["presence_head"]) > 1e-7
        present = np.array([person["present"] for person in people])
        np.testing.assert_array_equal(present[far], (before >= row.thresholds["presence_head"])[far])
        assert 0 < present.mean() < 1


@pytest.mark.parametrize("files", RUNS, ids=lambda files: files.run)
def test_its_json_says_all_that_presence_stands_on(files: RunFiles, call: Run, tmp_path: Path) -> None:
    [image] = sorted(image_folder().iterdir())[:1]
    call(show.main, image, "--run", files.name, "--out", tmp_path / "new" / "folder")
    [content] = read_shown(tmp_path / "new" / "folder")
    [person] = content["people"]
    facts, score = content["presence"], np.array(person["keypoints"][2::3])
    presence = np.array(person["presence"])
    assert facts["source"] == ("presence head" if files is HEAD else "heatmap peak")
    assert facts["calibrator"] == ("temperature" if files is HEAD else "platt")
    assert facts["threshold_rule"] == "max F1 on calibration"
    if files is BARE:
        np.testing.assert_allclose(presence, 1 / (1 + np.exp(-facts["slope"] * score - facts["intercept"])))
    assert person["present"] == (presence >= facts["threshold"]).tolist()
    assert content["boxes"] == "the whole picture"
    height, width = cv2.imread(str(image)).shape[:2]
    assert person["person_bbox"] == [0, 0, width, height]
    assert content["image"]["file_name"] == image.name
    assert content["run"]["run"] == f"{PROFILE}/{files.name}"
    assert content["run"]["checkpoint_sha256"] == sha256_of([files.checkpoint])
    assert {file.suffix for file in (tmp_path / "new" / "folder").iterdir()} == {".json", ".png"}


def test_a_turned_picture_is_taken_as_stored_and_said_so(call: Run, tmp_path: Path) -> None:
    write_image(tmp_path / "plain.jpg", 40, 30)
    (tmp_path / "turned.jpg").write_bytes((tmp_path / "plain.jpg").read_bytes())
    turn(tmp_path / "turned.jpg")
    said = call(show.main, tmp_path, "--run", HEAD.name, "--out", tmp_path / "out")
    plain, turned = read_shown(tmp_path / "out")
    assert said.count("turned.jpg: an EXIF tag asks viewers to turn it; it is taken as stored") == 1
    assert "plain.jpg" not in said
    assert plain["people"][0]["keypoints"] == turned["people"][0]["keypoints"]
    assert (plain["image"]["exif_orientation"], turned["image"]["exif_orientation"]) == ("none", "not followed")


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="no COCO people here")
def test_photographs_can_be_shown(call: Run, tmp_path: Path) -> None:
    content = json.loads((COCO_MINI / "annotations/person_keypoints_val2017.json").read_text())
    image = content["images"][0]
    boxes = [a for a in content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
    file = next(COCO_MINI.rglob(Path(image["file_name"]).name))
    annotations = COCO_MINI / "annotations/person_keypoints_val2017.json"
    call(show.main, file, "--run", HEAD.name, "--boxes", annotations, "--out", tmp_path)
    [shown] = read_shown(tmp_path)
    assert [person["person_bbox"] for person in shown["people"]] == [person["bbox"] for person in boxes]
    assert cv2.imread(str(tmp_path / f"{file.stem}.pose.png")) is not None


def test_results_find_their_pictures_by_the_names_of_a_file(call: Run, tmp_path: Path) -> None:
    """What is not shown is said."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("sea.png", "zoo.png", "new.png"):
        write_image(folder / name, 40, 30)
    names = [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(("zoo.png", "sea.png"))]
    (tmp_path / "names.json").write_text(json.dumps({"images": names, "annotations": []}))
    boxes = [{"image_id": i, "category_id": 1, "bbox": [i + 1, 2, 9, 9], "score": 1} for i in (0, 1, 5)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    files = ("--boxes", tmp_path / "boxes.json", "--images", tmp_path / "names.json")
    said = call(show.main, folder, "--run", HEAD.name, *files, "--out", tmp_path / "out")
    sea, zoo = read_shown(tmp_path / "out")
    assert sea["people"][0]["person_bbox"] == [2, 2, 9, 9]
    assert zoo["people"][0]["person_bbox"] == [1, 2, 9, 9]
    assert f"1 of 3 pictures are not in it, the first is {folder / 'new.png'}" in said
    assert "1 of 3 boxes are of other pictures than these" in said
    assert "2 people in 2 of 3 pictures" in said


def test_bad_input_of_show_is_one_line(
    refused: Callable[..., str], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    options = ("--run", HEAD.name, "--profile", PROFILE, "--out", str(tmp_path / "out"))
    assert "none.jpg: no such file or folder" in refused(show.main, "none.jpg", *options)
    write_image(tmp_path / "a.png", 40, 30)
    image = str(tmp_path / "a.png")
    runs = "found no run 'other-0', wanted one of bare-0, head-0"
    assert runs in refused(show.main, image, "--run", "other-0", "--profile", PROFILE)
    for name in ("head", "../head-0", ""):
        assert f"found no run {name!r}" in refused(show.main, image, "--run", name, "--profile", PROFILE)
    assert "no run is evaluated there yet" in refused(show.main, image, "--run", HEAD.name, "--profile", "none")
    (tmp_path / "boxes.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "bbox": [50, 0, 9, 9], "score": 1}])
    )
    boxes = ("--boxes", str(tmp_path / "boxes.json"))
    assert "a.png is not named by a number of its own" in refused(show.main, image, *options, *boxes)
    assert "found --images without --boxes" in refused(show.main, image, *options, "--images", boxes[1])
    (tmp_path / "numbered").mkdir()
    write_image(tmp_path / "numbered" / "1.png", 40, 30)
    numbered = str(tmp_path / "numbered" / "1.png")
    assert "a part inside of its image of 40 x 30 pixels" in refused(show.main, numbered, *options, *boxes)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(show.main, image, *options[:-1], str(tmp_path / "file" / "out"))
    assert "wanted another --out" in refused(show.main, str(tmp_path), *options[:-1], str(tmp_path))
    write_image(tmp_path / "a.jpg", 40, 30)
    assert "a.jpg and a.png: found one name" in refused(show.main, str(tmp_path), *options)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the extra onnx is not installed")
@pytest.mark.parametrize("files", RUNS, ids=lambda files: files.run)
def test_an_exported_run_says_the_same_as_its_predictions(files: RunFiles, call: Run, tmp_path: Path) -> None:
    import onnxruntime

    file = tmp_path / "new" / "run.onnx"
    assert "6 people as torch" in call(export_onnx.main, file, "--run", files.name)
    assert [path.name for path in file.parent.iterdir()] == ["run.onnx"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert len(json.loads(facts["keypoint_names"])) == 17
    assert json.loads(facts["preprocessing"])["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert (facts["licence"], facts["policy"], facts["decoding"]) == ("Apache-2.0", "labelled", "argmax (udp)")
    asked = open_evaluated(files)
    assert float(facts["threshold"]) == asked.read_presence().threshold
    assert json.loads(facts["origin"])["checkpoint_sha256"] == sha256_of([files.checkpoint])
    for size in (1, 3):
        image = np.zeros((size, 3, *asked.trained.config.input_size[::-1]), dtype=np.float32)
        found = Answer(*session.run(list(Answer._fields), {"image": image}))
        assert [part.shape for part in found] == [(size, 17, 2), (size, 17), (size, 17)]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the extra onnx is not installed")
def test_a_difference_from_torch_is_refused_and_nothing_is_left(
    refused: Callable[..., str], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setitem(export_onnx.LIMITS, "presence", 1e-30)
    said = refused(export_onnx.main, str(tmp_path / "run.onnx"), "--run", HEAD.name, "--profile", PROFILE)
    assert "run.onnx: not written: " in said
    assert "presence by onnxruntime differs from torch by up to " in said
    assert not list(tmp_path.iterdir())


def without_swap(output: PoseOutput, *, shift: bool) -> PoseOutput:
    right = flip.flip_output(output, shift=shift)
    return right._replace(heatmaps=right.heatmaps[:, flip_order()])


def with_other_shift(output: PoseOutput, *, shift: bool) -> PoseOutput:
    return flip.flip_output(output, shift=not shift)


def normalised_twice(model: ExportedModel, image: Tensor) -> tuple[Answer, Tensor]:
    return RIGHT_FORWARD(model, image / 0.225)


def moved(model: ExportedModel, image: Tensor) -> tuple[Answer, Tensor]:
    found, heatmaps = RIGHT_FORWARD(model, image)
    return found._replace(keypoints=found.keypoints + 0.5), heatmaps


RIGHT_FORWARD = ExportedModel.forward
WRONG: dict[str, tuple[str, Callable[..., Any], str]] = {
    "left and right": ("flip_output", without_swap, "heatmaps"),
    "shift": ("flip_output", with_other_shift, "heatmaps"),
    "normalisation": ("ExportedModel.forward", normalised_twice, "heatmaps"),
    "half a pixel": ("ExportedModel.forward", moved, "decoding"),
}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the extra onnx is not installed")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_graph_is_refused(
    name: str, refused: Callable[..., str], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    place, wrong, difference = WRONG[name]
    monkeypatch.setattr(f"bench.inference.exported.{place}", wrong)
    said = refused(export_onnx.main, str(tmp_path / "run.onnx"), "--run", BARE.name, "--profile", PROFILE)
    assert f"run.onnx: not written: {difference} by onnxruntime differs from torch by up to " in said
    assert not list(tmp_path.iterdir())


def test_the_first_difference_beyond_its_limit_is_named() -> None:
    right = {"heatmaps": 9e-5, "peak": 0.0, "presence": 9e-5, "decoding": 9e-3, "keypoints": 50.0}
    export_onnx.refuse_difference(Path("run.onnx"), export_onnx.Comparison(5, right))  # equal peaks change places
    wanted = "presence by onnxruntime differs from torch by up to 0.0003 in probability for 5 people, wanted at most "
    with pytest.raises(ValueError, match=f"{wanted}0.0001$"):
        export_onnx.refuse_difference(
            Path("run.onnx"), export_onnx.Comparison(5, right | {"presence": 3e-4, "decoding": 0.02})
        )
    assert export_onnx.largest_difference(torch.ones(2), torch.tensor([1, torch.nan])) == torch.inf


def test_missing_packages_are_named(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None if name == "onnxscript" else name)
    wanted = "onnxscript is not installed, wanted the extra onnx: pip install onnx onnxruntime onnxscript"
    assert wanted in refused(export_onnx.main, "run.onnx", "--run", HEAD.name)


@pytest.mark.parametrize("files", RUNS, ids=lambda files: files.run)
def test_a_hub_folder_gives_the_run_again(
    files: RunFiles, call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(export_hub.main, tmp_path / "hub", "--run", files.name)
    asked = open_evaluated(files)
    monkeypatch.chdir(tmp_path / "hub")
    card, config = ModelCard.load("README.md"), json.loads(Path("config.json").read_text())
    recipe = card.text.partition("```python\n")[2].partition("```")[0]
    loaded: dict[str, Any] = {}
    exec(recipe, loaded)
    assert recipe.count("\n") == 6
    image = torch.randint(256, (2, 3, *asked.trained.config.input_size[::-1]), dtype=torch.uint8)
    with torch.no_grad():
        found, wanted = loaded["model"](image), asked.trained.network.eval()(image)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    points = decode(found.heatmaps, Codec(**config["codec"]), config["decoding"])
    assert points.score.shape == (2, 17)
    assert config["presence"]["threshold"] == asked.read_presence().threshold
    facts = json.loads(Path("preprocessor_config.json").read_text())
    mean, std = (torch.tensor(facts[name])[:, None, None] for name in ("mean", "std"))
    torch.testing.assert_close((image - mean) / std, loaded["model"].normalise(image))


@pytest.mark.parametrize("files", RUNS, ids=lambda files: files.run)
def test_the_numbers_of_a_card_are_those_of_the_row(files: RunFiles, call: Run, tmp_path: Path) -> None:
    call(export_hub.main, tmp_path / "hub", "--run", files.name)
    row, card = read_row(files.row), ModelCard.load(tmp_path / "hub" / "README.md")
    source = "presence_head" if files is HEAD else "heatmap_peak"
    keys = ["oks/AP", "oks/AR", f"presence/{source}/all/F1", f"presence/{source}/all/AUROC"]
    results = card.data.eval_results
    assert results is not None
    assert [result.metric_value for result in results] == [row.numbers[key].value for key in keys]
    for key in (*keys, "presence/always_present/all/F1"):
        value, low, high = (100 * x for x in row.numbers[key].model_dump().values())
        assert f" {value:.1f} [{low:.1f}, {high:.1f}] |" in card.text
    assert card.data.license == "apache-2.0"
    for part in (
        "drawn people, not on photographs",
        "8 drawn people to train on",
        "6 of the calibration split to choose",
        "v > 0 present",
    ):
        assert part in card.text


def test_a_card_says_whose_people_and_weights_they_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    record = open_record(HEAD)
    data = record.row.data.model_copy(update={"source": "coco", "name": "COCO val2017"})
    protocol = record.row.protocol.model_copy(update={"init": "models/published/a.pth (mmpose)"})
    row = record.row.model_copy(update={"data": data, "protocol": protocol})
    changed = {"licence": "other", "trained_on": TrainedOn(train=0, calibration=6)}
    said = write_card(row, card_of(record).model_copy(update=changed))
    assert "drawn" not in said.partition("## Provenance")[0]
    for part in (
        "license: other",
        "The weights are the published file `models/published/a.pth (mmpose)`, as it is; 6 photographed people",
        "The images and annotations are those of COCO val2017",
        "That of the authors of the published weights.",
    ):
        assert part in said


@pytest.mark.parametrize("files", RUNS, ids=lambda files: files.run)
def test_the_card_of_the_reports_is_that_of_the_folder(
    files: RunFiles, call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(export_hub.main, tmp_path / "hub", "--run", files.name)  # in the project's folder, as what follows
    card_stage.main(PROFILE, files.run, files.seed)
    written = ModelCard.load(tmp_path / "hub" / "README.md").text.splitlines()
    page = card_page(read_row(files.row), read_model(files.card, Card)).splitlines()
    added = [line for line in page if line not in written]
    assert [line for line in written if line not in page] == [
        f"# {files.run}, seed 0, profile {PROFILE}",
        "With the code of the suite (packages `models` and `bench`) on the path, in this folder:",
        *(line for line in written if line.startswith("| code_revision |")),
    ]
    assert added[0] == f"# Model card: {files.run}, seed 0, profile {PROFILE}"
    assert f"python -m bench.export_hub FOLDER --run {files.name} --profile {PROFILE}" in added
    assert len(added) == 6
    assert not [line for line in page if "---" in line and not line.startswith("|:--")]


def test_a_card_counts_the_persons_that_a_run_was_trained_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    record = open_record(HEAD)
    assert record.config.fitting is not None
    fewer = record.config.model_copy(update={"fitting": record.config.fitting.model_copy(update={"num_persons": 5})})
    published = record.config.model_copy(update={"fitting": None, "weights": "models/published/a.pth"})
    cards = [card_of(replace(record, config=config)) for config in (record.config, fewer, published)]
    assert [card.trained_on.train for card in cards] == [8, 5, 0]
    assert [card.licence for card in cards] == ["Apache-2.0", "Apache-2.0", "other"]


def test_a_folder_that_exists_is_kept(
    refused: Callable[..., str], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "mine").write_text("mine")
    said = refused(export_hub.main, str(tmp_path / "hub"), "--run", HEAD.name, "--profile", PROFILE)
    assert "hub: it exists, wanted a folder that is new" in said


def test_peaks_that_say_nothing_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    asked = open_evaluated(find_run(PROFILE, BARE.name))
    turned = asked.calibration._replace(score=-asked.calibration.score)
    with pytest.raises(ValueError, match=r"bare-0\.parquet: heatmap peaks .* nothing to read$"):
        replace(asked, calibration=turned).read_presence()
    assert card_of(replace(asked, calibration=turned)).presence is None  # a page says so, and the pipeline goes on
