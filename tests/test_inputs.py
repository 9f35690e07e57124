"""What is read outside of the project: an edit of it reruns what reads it, by plain `dvc repro`.

Stages `resolve` and `prepare` are real; `train` and `predict` stand for all that read what these write.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.data.hashing import sha256_of_listing
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams
from bench.stages.outputs import clean
from bench.stages.resolve import UNCHANGED
from tests.test_pipeline import SMALL_GRID, YAML_SAFE, Project, fake_stages

TRAIN, PREDICT = "train@hrnet-0", "predict@hrnet-0"
LOOKED = {"resolve"}
"""What runs where there is nothing to do."""
EVERYTHING = LOOKED | {"prepare", TRAIN, PREDICT}


class OnFiles(Project):
    """A project that reads a data set in COCO's layout and a file of detected boxes, both outside of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        fake_stages(root, real=("resolve", "prepare"))
        pipeline = YAML_SAFE.load((root / "dvc.yaml").read_text())
        kept = {name: pipeline["stages"][name] for name in ("resolve", "prepare", "train", "predict")}
        YAML_SAFE.dump({"stages": kept}, root / "dvc.yaml")
        self.data = root.parent / "people"
        write_drawn_coco(self.data, {"train2017": 24, "val2017": 8}, SceneParams(), seed=0)
        self.detections = root.parent / "boxes.json"
        self.write_detections(0.9)
        self.edit(self.read_files)

    def read_files(self, tree: dict[str, Any]) -> None:
        tree.update(SMALL_GRID, profile="laptop", experiments={"hrnet": {"model": "hrnet"}}, ablations={}, retests=[])
        tree["data"].update(root=str(self.data), detections=str(self.detections))
        tree["profiles"]["laptop"]["data"] = {"num_persons": {"train": 12, "calibration": 4, "val": 5}}

    def write_detections(self, score: float) -> None:
        images = json.loads((self.data / "annotations/person_keypoints_val2017.json").read_text())["images"]
        boxes = [{"image_id": i["id"], "category_id": 1, "bbox": [5, 5, 40, 60], "score": score} for i in images]
        self.detections.write_text(json.dumps(boxes))

    def ran(self) -> set[str]:
        """Stages whose command a plain `dvc repro` started."""
        return set(re.findall(r"Running stage '(.+)'", self.dvc("repro")))

    def a_picture(self, split: str = "train") -> Path:
        """One that is chosen."""
        manifest = json.loads((self.root / f"data/laptop/{split}.json").read_text())
        return self.data / manifest["images"][0]["file_name"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> OnFiles:
    project = OnFiles(tmp_path_factory.mktemp("on_files") / "project")
    assert project.ran() == EVERYTHING
    return project


@pytest.fixture(autouse=True)
def as_it_was(project: OnFiles) -> Iterator[None]:
    """Edits are undone, to the time of the last change, and what had run then comes back without running."""
    kept = project.root.parent / "kept"
    shutil.copytree(project.data, kept / "people")
    shutil.copy2(project.detections, kept / "boxes.json")
    yield
    shutil.rmtree(project.data)
    shutil.copytree(kept / "people", project.data)
    shutil.copy2(kept / "boxes.json", project.detections)
    shutil.rmtree(kept)
    assert project.ran() <= LOOKED | {"prepare"}


def test_again_there_is_nothing_to_do(project: OnFiles) -> None:
    said = project.dvc("repro")
    assert UNCHANGED in said
    assert set(re.findall(r"Running stage '(.+)'", said)) == LOOKED


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_edited_annotation_reruns_what_reads_it(project: OnFiles, split: str) -> None:
    file = project.data / f"annotations/person_keypoints_{split}2017.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"][2] *= 0.99
    file.write_text(json.dumps(content))
    assert project.ran() == EVERYTHING


def test_the_same_annotations_written_again_rerun_nothing(project: OnFiles) -> None:
    file = project.data / "annotations/person_keypoints_train2017.json"
    file.write_bytes(file.read_bytes())
    assert project.ran() == LOOKED


def test_other_detected_boxes_retrain_nothing(project: OnFiles) -> None:
    project.write_detections(0.8)
    assert project.ran() == EVERYTHING - {TRAIN}


def test_a_replaced_picture_reruns_what_reads_it(project: OnFiles) -> None:
    file = project.a_picture()
    with Image.open(file) as picture:
        picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(file)
    assert project.ran() == EVERYTHING


def test_a_picture_that_is_only_touched_is_looked_at_and_no_more(project: OnFiles) -> None:
    os.utime(project.a_picture(), (1, 1))
    assert project.ran() == LOOKED | {"prepare"}


def test_a_picture_that_is_not_chosen_retrains_nothing(project: OnFiles) -> None:
    (project.data / "train2017" / "another.jpg").write_bytes(project.a_picture().read_bytes())
    assert project.ran() == LOOKED | {"prepare"}


def test_a_deleted_picture_is_named(project: OnFiles) -> None:
    file = project.a_picture("val")
    file.unlink()
    done = project.run("dvc", "repro")
    assert done.returncode != 0
    assert re.search(rf"error: .*{file.name}: image \d+ is missing, wanted a picture of", done.stdout + done.stderr)
    assert not re.search(r"Running stage '(train|predict)", done.stdout)


def test_lost_annotations_are_named(project: OnFiles) -> None:
    (project.data / "annotations/person_keypoints_val2017.json").unlink()
    done = project.run("dvc", "repro")
    assert "person_keypoints_val2017.json: cannot be read" in done.stdout + done.stderr
    assert not re.search(r"Running stage '(train|predict)", done.stdout)


def test_after_the_outputs_are_removed_what_is_edited_is_not_restored(project: OnFiles) -> None:
    """DVC's run cache holds the results of the old picture."""
    file = project.a_picture()
    clean(project.root)
    assert not (project.root / "data").exists()
    assert project.ran() <= LOOKED | {"prepare"}
    clean(project.root)
    with Image.open(file) as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save(file)
    assert project.ran() == EVERYTHING


def test_a_picture_in_both_splits_is_refused(project: OnFiles) -> None:
    train, val = (project.data / f"annotations/person_keypoints_{split}2017.json" for split in ("train", "val"))
    shutil.copy(train, val)
    shutil.rmtree(project.data / "val2017")
    shutil.copytree(project.data / "train2017", project.data / "val2017")
    done = project.run("dvc", "repro")
    assert re.search(r"error: .*val share \d+ of \d+ pictures", done.stdout + done.stderr)


def test_another_data_set_behind_a_link_reruns_what_reads_it(project: OnFiles) -> None:
    moved = project.data.rename(project.root.parent / "moved")
    project.data.symlink_to(moved)
    assert project.ran() == LOOKED  # the same files
    for picture in (moved / "val2017").iterdir():
        with Image.open(picture) as pixels:
            pixels.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(picture)
    assert project.ran() == EVERYTHING
    project.data.unlink()
    moved.rename(project.data)


def test_a_mistake_in_the_parameters_leaves_the_plan(project: OnFiles) -> None:
    plan = sha256_of_listing(project.root / "runs/laptop/plan")
    project.edit(lambda tree: tree.update(profil="laptop"))
    assert project.run("dvc", "repro").returncode != 0
    assert sha256_of_listing(project.root / "runs/laptop/plan") == plan
    project.edit(lambda tree: tree.pop("profil"))


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.jpg").write_bytes(b"longer"),
        lambda folder: os.utime(folder / "a.jpg", ns=(5, 5)),
        lambda folder: (folder / "a.jpg").rename(folder / "b.jpg"),
        lambda folder: (folder / "a.jpg").unlink(),
        lambda folder: (folder / "below" / "more.jpg").touch(),
        lambda folder: (folder.parent / "target.jpg").write_bytes(b"another"),
    ],
)
def test_a_listing_sees_every_change(tmp_path: Path, change: Change) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"a")
    (tmp_path / "target.jpg").write_bytes(b"one")
    (folder / "link.jpg").symlink_to(tmp_path / "target.jpg")
    before = sha256_of_listing(folder)
    assert sha256_of_listing(folder) == before
    change(folder)
    assert sha256_of_listing(folder) != before


def test_a_listing_ends_where_links_lead_round(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "up").symlink_to(tmp_path)
    assert sha256_of_listing(tmp_path) == sha256_of_listing(tmp_path)
