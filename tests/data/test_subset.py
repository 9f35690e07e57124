import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.config import DataParams
from bench.data.coco import CocoDict, is_scored, persons_of
from bench.data.subset import build_manifests, shared_pictures
from bench.errors import UserError
from bench.stages import prepare
from bench.stages.files import plan_dir, write_json

PROFILE = "own"
CASES = Path(__file__).parents[3] / "shared" / "cases"
BARE_PARAMS = {"detections": None, "min_detection_score": None, "on_broken": "error", "drawn": None}
ASKED: dict[str, Any] = {"train": 9, "calibration": 4, "val": 8}


def plan_prepare(root: Path) -> None:
    """What stage resolve would write for this COCO folder, below `tmp_path`."""
    params = {
        "source": "coco",
        "root": str(root),
        "detections": None,
        "min_detection_score": None,
        "seed": 0,
        "num_persons": ASKED | {"train": "all"},
        "on_broken": "error",
        "drawn": None,
    }
    write_json(root.parent / plan_dir(PROFILE) / "prepare.json", params)


def build(
    root: Path, asked: dict[str, Any] = ASKED, *, seed: int = 0, skip_broken: bool = False
) -> dict[str, CocoDict]:
    return build_manifests(root, asked, seed, skip_broken=skip_broken)


def test_exact_numbers_disjoint_images_and_all_their_annotations(coco_root: Path) -> None:
    manifests = build(coco_root)
    assert {name: len(persons_of(manifest)) for name, manifest in manifests.items()} == ASKED
    images = {name: {image["file_name"] for image in manifest["images"]} for name, manifest in manifests.items()}
    assert not images["train"] & images["calibration"]
    assert all(name.startswith("val2017/") for name in images["val"])
    source = json.loads((coco_root / "annotations/person_keypoints_train2017.json").read_text())
    for name in ("train", "calibration"):
        ids = {image["id"] for image in manifests[name]["images"]}
        wanted = [annotation for annotation in source["annotations"] if annotation["image_id"] in ids]
        assert sorted(a["id"] for a in manifests[name]["annotations"]) == sorted(a["id"] for a in wanted)


def test_the_seed_decides_and_more_training_leaves_calibration(coco_root: Path) -> None:
    assert build(coco_root) == build(coco_root)
    other = build(coco_root, seed=1)
    assert other["train"]["images"] != build(coco_root)["train"]["images"]
    more = build(coco_root, ASKED | {"train": 12})
    assert more["calibration"] == build(coco_root)["calibration"]


def test_all_takes_every_person_that_calibration_leaves(coco_root: Path) -> None:
    manifests = build(coco_root, ASKED | {"train": "all", "val": "all"})
    num_all = 4 * (2 + 3 + 1)
    assert manifests["train"]["info"]["num_persons"] == num_all - 4
    assert manifests["val"]["info"]["num_persons"] == num_all


def test_crowds_and_unlabelled_persons_are_kept_but_never_scored(coco_root: Path) -> None:
    manifest = build(coco_root, ASKED | {"val": "all"})["val"]
    kept = {annotation["id"]: annotation for annotation in manifest["annotations"]}
    assert not is_scored(kept[190])
    assert not is_scored(kept[191])
    assert not {190, 191} & {person.annotation_id for person in persons_of(manifest)}


def test_a_manifest_names_its_source(coco_root: Path) -> None:
    info = build(coco_root, seed=7)["val"]["info"]
    file = coco_root / "annotations/person_keypoints_val2017.json"
    assert info["source_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert info["seed"] == 7


def test_persons_hold_what_was_annotated(coco_root: Path) -> None:
    manifest = build(coco_root)["train"]
    person = persons_of(manifest)[0]
    assert person.image_file.is_file()
    assert person.bbox.tolist() == [4, 6, 20, 24]
    assert person.keypoints[3].tolist() == [8, 11]
    assert person.labels.visibility.tolist() == [2] * 17


def test_fewer_persons_than_asked(coco_root: Path) -> None:
    with pytest.raises(UserError, match=r"val2017.json: found 24 persons .* data.num_persons.val, wanted 25 "):
        build(coco_root, ASKED | {"val": 25})


def test_a_broken_image_is_an_error_or_a_counted_skip(coco_root: Path) -> None:
    for file in sorted((coco_root / "train2017").iterdir())[:3]:
        file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(UserError, match=r"train2017/0000000000\d\d.jpg: image \d+ is broken"):
        build(coco_root, ASKED | {"train": "all"})
    manifests = build(coco_root, ASKED | {"train": "all"}, skip_broken=True)
    skipped = manifests["train"]["info"]["skipped"] + manifests["calibration"]["info"]["skipped"]
    assert len(skipped) == 3
    assert manifests["train"]["info"]["num_persons"] == 24 - (2 + 3 + 1) - 4


def _tag(file: Path, orientation: int) -> None:
    """Ask viewers to turn a JPEG."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(file) as picture:
        picture.save(file, exif=exif)


def test_pictures_that_a_tag_asks_to_turn_are_said(
    coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a turn leaves the size: nothing shows on which pixels the labels were drawn."""
    _tag(coco_root / "train2017" / "000000000002.jpg", 3)
    manifests = build(coco_root, ASKED | {"train": "all"})
    turned = manifests["train"]["info"]["turned"] + manifests["calibration"]["info"]["turned"]
    assert turned == ["000000000002.jpg"]
    assert manifests["val"]["info"]["turned"] == []
    monkeypatch.chdir(tmp_path)
    params = {"source": "coco", "root": str(coco_root), "num_persons": ASKED | {"train": "all"}, "seed": 0}
    prepare.write_manifests("own", DataParams.model_validate(BARE_PARAMS | params))
    said = capsys.readouterr().out
    assert said.count("1 of ") == 1
    assert "an EXIF tag that asks viewers to turn them (000000000002.jpg). They are taken as stored" in said


def test_labels_of_a_turned_size_are_refused(coco_root: Path) -> None:
    """By a quarter, with the size that viewers show: the labels were drawn on turned pixels."""
    for file in (coco_root / "train2017").iterdir():
        _tag(file, 6)
    assert build(coco_root)["train"]["info"]["turned"]  # as stored, as COCO's labels are
    file = coco_root / "annotations/person_keypoints_train2017.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image |= {"width": 48, "height": 40}
    file.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"found 40 x 48 pixels, wanted 48 x 40 as annotated once its EXIF tag is follow"
    ):
        build(coco_root)


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases here")
def test_the_shared_pictures_upside_down_are_said() -> None:
    manifests = build(CASES / "exif180", {"train": "all", "calibration": 20, "val": "all"})
    for manifest in manifests.values():
        assert len(manifest["info"]["turned"]) == manifest["info"]["num_images"]


def _keypoint(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["annotations"][0].update(keypoints=value)


def _update(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["annotations"][0].update(values)


def _image(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["images"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_keypoint([1, 2, 3]), "annotation 100: keypoints: found a list of 3|keypoints: found .1, 2, 3., wanted 51"),
        (_keypoint([0.0] * 50), "annotation 100: keypoints: found a list of 50, wanted 51 finite numbers"),
        (_keypoint([float("nan")] * 51), "annotation 100: keypoints: found a list of 51, wanted 51 finite numbers"),
        (_keypoint([1, 1, 3] * 17), r"annotation 100: keypoints: found visibility \[3\], wanted 0, 1 or 2"),
        (_keypoint(None), "annotation 100: keypoints: found None, wanted 51 finite numbers"),
        (_update(num_keypoints=16), "annotation 100: num_keypoints: found 16, wanted 17"),
        (
            _update(bbox=[1, 2, 0, 5]),
            r"annotation 100: bbox: found \[1, 2, 0, 5\], wanted \[x, y, w, h\] with w, h > 0",
        ),
        (_update(bbox=[1, 2, 3]), "annotation 100: bbox: found"),
        (_update(bbox=[1, 2, 3, float("inf")]), "annotation 100: bbox: found"),
        (_update(area=-1), "annotation 100: area: found -1, wanted a number"),
        (_update(iscrowd=2), "annotation 100: iscrowd: found 2, wanted 0 or 1"),
        (_update(category_id=3), "annotation 100: category_id: found 3, wanted 1"),
        (_update(image_id=999), "annotation 100: image_id: found 999, wanted the id of an image"),
        (_update(image_id="1"), "annotation 100: image_id: found '1', wanted the id of an image"),
        (_update(id=101), r"annotations\[1\]: id 101 is used twice"),
        (_update(id=None), r"annotations\[0\]: found .*, wanted a mapping with a whole-number id"),
        (_update(true_keypoints=[1]), "annotation 100: true_keypoints: found"),
        (_image(width="40"), "image 1: width: found '40', wanted a whole number of pixels"),
        (_image(width=41), "image 1: found 40 x 48 pixels, wanted 41 x 48 as annotated"),
        (_image(file_name="../1.jpg"), "image 1: file_name: found '../1.jpg', wanted a path inside"),
        (_image(file_name="gone.jpg"), "train2017/gone.jpg: image 1 is missing"),
        (lambda content: content.pop("images"), "images: found None, wanted a list"),
        (lambda content: content.update(annotations={}), "annotations: found {}, wanted a list"),
    ],
)
def test_a_broken_annotation_names_file_and_id(
    coco_root: Path,
    edit_annotations: Callable[[Callable[[dict[str, Any]], None]], Path],
    refused: Callable[..., str],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    edit_annotations(change)
    plan_prepare(coco_root)
    error = refused(prepare.main, PROFILE)
    assert re.search(message, error)
    assert "person_keypoints_train2017.json" in error or "train2017/" in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [', "broken JSON"),
        (b"", "broken JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[]", "found a list at the top"),
        (b"[" * 100000, "broken JSON"),
    ],
)
def test_a_broken_file_is_named(coco_root: Path, refused: Callable[..., str], content: bytes, message: str) -> None:
    file = coco_root / "annotations/person_keypoints_train2017.json"
    file.write_bytes(content)
    plan_prepare(coco_root)
    error = refused(prepare.main, PROFILE)
    assert re.search(message, error)
    assert str(file) in error


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"person_keypoints_train2017.json: cannot be read \(No such file"):
        build(tmp_path)


def test_pictures_of_a_manifest_have_the_digest_of_their_bytes(coco_root: Path) -> None:
    image = build(coco_root)["val"]["images"][0]
    assert image["sha256"] == hashlib.sha256((coco_root / image["file_name"]).read_bytes()).hexdigest()


def copy_into_val(root: Path, name: str, change: Callable[[bytes], bytes] = bytes) -> None:
    """A picture of train2017 with its labels, under the same name."""
    train, val = (root / "annotations" / f"person_keypoints_{split}2017.json" for split in ("train", "val"))
    shutil.copy(train, val)
    for file in sorted((root / "train2017").glob(name)):
        (root / "val2017" / file.name).write_bytes(change(file.read_bytes()))


def test_a_test_on_pictures_of_the_training_is_refused(coco_root: Path) -> None:
    copy_into_val(coco_root, "*.jpg")
    with pytest.raises(UserError, match=r"val share \d+ of \d+ pictures \(the first: train2017/.*\.jpg and val2017/"):
        build(coco_root, ASKED | {"train": "all", "val": "all"})


def test_a_copy_that_was_saved_anew_is_found_by_its_name_and_labels(coco_root: Path) -> None:
    copy_into_val(coco_root, "*.jpg", lambda content: content + b" ")
    with pytest.raises(UserError, match=r"wanted each in one alone: a test must show other pictures"):
        build(coco_root, ASKED | {"train": "all", "val": "all"})


def manifest_of(prefix: str, *pictures: tuple[str, str]) -> CocoDict:
    """Pictures by name and content, a person in each."""
    images = [
        {"id": i, "file_name": f"{prefix}/{name}", "sha256": content} for i, (name, content) in enumerate(pictures)
    ]
    people = [{"image_id": i, "bbox": [i, 0, 9, 9], "keypoints": [hash(prefix)]} for i in range(len(pictures))]
    return {"images": images, "annotations": people}


def test_the_odd_picture_that_a_large_collection_holds_twice_is_said() -> None:
    many = [(f"{i}.jpg", f"first {i}") for i in range(100)]
    first = manifest_of("train2017", *many)
    second = manifest_of("val2017", ("again.jpg", "first 7"), *((name, f"other {name}") for name, _ in many))
    (shared,) = shared_pictures({"train": first, "val": second})
    assert not shared.is_copy
    assert shared.sentence == (
        "train and val share 1 of 100 pictures (the first: train2017/7.jpg and val2017/again.jpg)"
    )


def test_names_that_begin_anew_in_each_folder_are_no_copies() -> None:
    splits = {name: manifest_of(name, ("0001.jpg", name), ("0002.jpg", f"{name}, too")) for name in ("train", "val")}
    assert shared_pictures(splits) == []


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases here")
def test_the_shared_copy_of_train_is_refused(tmp_path: Path) -> None:
    (tmp_path / "annotations").symlink_to(CASES / "data/val_copies_train/annotations")
    for split in ("train2017", "val2017"):
        (tmp_path / split).symlink_to(CASES / "tiny/train2017")
    with pytest.raises(UserError, match=r"calibration and val share \d+ of \d+ pictures"):
        build(tmp_path, {"train": "all", "calibration": 20, "val": "all"})
