"""What every reader of annotations asks of a file, and that no sound file is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.checks import check_annotations, faults_of
from bench.data.coco import COCO_LAYOUT, CROWDPOSE_LAYOUT, CocoDict
from bench.data.cropcoco import read_cropcoco
from bench.data.keypoints import CROWDPOSE_NAMES, KEYPOINT_NAMES
from bench.data.plausible import NEAR, Labels, labels_of
from bench.data.subset import build_manifests
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams
from bench.errors import UserError
from bench.score import read_annotations

SHARED = Path(__file__).parents[3] / "shared"
CASES, COCO_MINI = SHARED / "cases", SHARED / "coco-mini"
FILE = Path("truth.json")

Change = Callable[[dict[str, Any], tuple[int, int]], None]

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases here")


def make_people(num_people: int = 40, seed: int = 0) -> CocoDict:
    """People all over pictures of two sizes, two in each; one of six touches a border. All keypoints are labelled."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": (640, 480)[i % 2], "height": (480, 640)[i % 2]}
        for i in range(num_people // 2)
    ]
    people = [make_person(rng, 100 + i, images[i // 2]) for i in range(num_people)]
    category = {"id": 1, "name": "person", "keypoints": list(KEYPOINT_NAMES)}
    return {"images": images, "annotations": people, "categories": [category]}


def make_person(rng: np.random.Generator, annotation_id: int, image: dict[str, Any]) -> dict[str, Any]:
    size = np.array([image["width"], image["height"]])
    extent = rng.uniform(0.15, 0.5, 2) * size
    start = rng.uniform(-0.1, 1.1, 2).clip(0, 1) * (size - extent)
    points = start + rng.uniform(0, 1, (17, 2)) * extent
    return {
        "id": annotation_id, "image_id": image["id"], "category_id": 1, "iscrowd": 0, "num_keypoints": 17,
        "bbox": [*start.tolist(), *extent.tolist()], "area": float(0.5 * extent.prod()),
        "keypoints": np.column_stack([points, np.full(17, 2)]).ravel().tolist(),
    }  # fmt: skip


def changed(change: Change, num_people: int | None = None) -> CocoDict:
    """The first so many people, or all, changed."""
    coco = make_people()
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for person in coco["annotations"][:num_people]:
        change(person, sizes[person["image_id"]])
    return coco


def on_boxes(edit: Callable[..., list[float]]) -> Change:
    """(x, y, w, h, the size of the picture) -> another box."""
    return lambda person, size: person.update(bbox=edit(*person["bbox"], size))


def on_keypoints(edit: Callable[[float, float, tuple[int, int]], tuple[float, float]]) -> Change:
    def change(person: dict[str, Any], size: tuple[int, int]) -> None:
        triples = np.array(person["keypoints"]).reshape(17, 3).tolist()
        person["keypoints"] = [value for x, y, v in triples for value in (*edit(x, y, size), v)]

    return change


def on_both(factor: Callable[[tuple[int, int]], tuple[float, float]]) -> Change:
    def change(person: dict[str, Any], size: tuple[int, int]) -> None:
        fx, fy = factor(size)
        on_boxes(lambda x, y, w, h, _: [x * fx, y * fy, w * fx, h * fy])(person, size)
        on_keypoints(lambda x, y, _: (x * fx, y * fy))(person, size)

    return change


CORNERS = on_boxes(lambda x, y, w, h, _: [x, y, x + w, y + h])

WRONG: dict[str, tuple[Change, str]] = {
    "corners": (CORNERS, r"the boxes look like \[x1, y1, x2, y2\]"),
    "centres": (
        on_boxes(lambda x, y, w, h, _: [x + w / 2, y + h / 2, w, h]),
        "the boxes look like .centre x, centre y",
    ),
    "y first": (on_boxes(lambda x, y, w, h, _: [y, x, h, w]), r"the boxes look like \[y, x, h, w\]"),
    "outside": (
        on_boxes(lambda x, y, w, h, _: [x + 5000, y, w, h]),
        r"bbox: found \[5\d+.*wanted a part of the picture",
    ),
    "0 to 1": (
        on_both(lambda size: (1 / size[0], 1 / size[1])),
        "boxes look like values from 0 to 1 and the keypoints",
    ),
    "boxes 0 to 1": (
        on_boxes(lambda x, y, w, h, s: [x / s[0], y / s[1], w / s[0], h / s[1]]),
        "wanted a box in pixels.*; the boxes look like values from 0 to 1$",
    ),
    "keypoints 0 to 1": (
        on_keypoints(lambda x, y, s: (x / s[0], y / s[1])),
        "the keypoints look like values from 0 to",
    ),
    "per cent": (
        on_both(lambda size: (100 / size[0], 100 / size[1])),
        "are they per cent, or labels of a smaller copy",
    ),
    "keypoints in per cent": (on_keypoints(lambda x, y, s: (100 * x / s[0], 100 * y / s[1])), "look like per cent"),
    "keypoints y first": (on_keypoints(lambda x, y, _: (y, x)), "the keypoints look like y before x"),
    "twice the size": (on_both(lambda _: (2, 2)), "labels look like those of the picture in another size, 2 times"),
    "1.1 times the size": (on_both(lambda _: (1.1, 1.1)), "run beyond .*picture in another size, 1.1 times"),
    "half the size": (on_both(lambda _: (0.5, 0.5)), "found no boxes of 40 people beyond 50% of the width and 50% of"),
    "0.8 of the size": (
        on_both(lambda _: (0.8, 0.8)),
        "found no boxes of 40 people beyond 80% of the width and 80% of",
    ),
    "keypoints of half the size": (
        on_keypoints(lambda x, y, _: (x / 2, y / 2)),
        "the keypoints look like .* 0.5 times",
    ),
    "keypoints of twice the size": (on_keypoints(lambda x, y, _: (2 * x, 2 * y)), "the keypoints look like .* 2 times"),
    "area": (
        lambda person, _: person.update(area=0),
        r"area: found 0 \(so have 40 of 40 people that count\), wanted the",
    ),
}
"""Of all people of a file."""


@pytest.mark.parametrize("name", WRONG)
def test_labels_that_are_no_pixels_of_their_pictures_are_refused(name: str) -> None:
    change, message = WRONG[name]
    with pytest.raises(UserError, match=rf"^truth\.json: annotation 1\d\d.*{message}") as refused:
        check_annotations(FILE, changed(change))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (CORNERS, r"bbox: .*\(1 of 40 annotations are so\); the boxes look like \[x1, y1, x2, y2\]"),
        (on_boxes(lambda _x, y, w, h, _: [-w, y, w, h]), "bbox: .*wanted a part of the picture"),
        (on_boxes(lambda x, _y, w, h, s: [x, s[1] - h / 9, w, h]), "bbox: .*wanted a box in the picture"),
        (on_keypoints(lambda x, y, s: (x + 2 * s[0], y)), "keypoints: .*wanted a keypoint in the picture"),
        (on_keypoints(lambda *_: (0, 0)), r"keypoints: found \[0, 0\].*wanted keypoints in pixels"),
        (lambda person, _: person["keypoints"].__setitem__(slice(0, 2), [0, 0]), "keypoints: .*; .* v = 0$"),
        (lambda person, _: person.update(area=0), r"area: found 0 \(so have 1 of 40 people that count\)"),
    ],
)
def test_a_single_wrong_annotation_is_named(change: Change, message: str) -> None:
    coco = make_people()
    place = next(  # somebody in the lower right, away from the corner
        i for i, p in enumerate(coco["annotations"]) if p["bbox"][0] > 300 and p["bbox"][1] > 200
    )
    person, image = coco["annotations"][place], coco["images"][place // 2]
    change(person, (image["width"], image["height"]))
    faults = faults_of(FILE, coco)
    assert list(faults) == [person["id"]]
    with pytest.raises(UserError, match=f"^truth.json: annotation {person['id']}: {message}"):
        check_annotations(FILE, coco)


def test_keypoints_of_another_person_are_refused() -> None:
    coco = make_people()
    first, second = (person for person in coco["annotations"] if person["id"] in (100, 101))
    first["bbox"], second["bbox"] = [10.0, 10.0, 60.0, 90.0], [500.0, 300.0, 60.0, 90.0]
    for person, corner in ((first, (500.0, 300.0)), (second, (10.0, 10.0))):
        points = np.random.default_rng(0).uniform(0, 60, (17, 2)) + corner
        person["keypoints"] = np.column_stack([points, np.full(17, 2)]).ravel().tolist()
    with pytest.raises(UserError, match=r"annotation 100: keypoints: .*\(2 of 40 .*keypoints of another person\?"):
        check_annotations(FILE, coco)


def test_corners_of_people_in_the_middle_are_refused() -> None:
    """Read as x, y, w, h they stay in their pictures, but are empty at their right and lower side."""
    coco = make_people()
    for person in coco["annotations"]:
        x, y, w, h = person["bbox"]
        start, extent = [130 + x / 20, 130 + y / 20], [60 + w / 5, 60 + h / 5]
        points = start + np.random.default_rng(person["id"]).uniform(0, 1, (17, 2)) * extent
        person["keypoints"] = np.column_stack([points, np.full(17, 2)]).ravel().tolist()
        person["bbox"] = [*start, start[0] + extent[0], start[1] + extent[1]]
    with pytest.raises(UserError, match=r"empty at their right and lower side, .*they look like \[x1, y1, x2, y2\]$"):
        check_annotations(FILE, coco)


# What is sound


@pytest.mark.parametrize("seed", range(3))
def test_people_in_their_pictures_are_taken(seed: int) -> None:
    assert faults_of(FILE, make_people(seed=seed)) == {}


def cropped_to_people() -> CocoDict:
    """As LSP: a picture is a person, its box is the picture, and some keypoints lie a little over the border."""
    coco = make_people()
    rng = np.random.default_rng(1)
    coco["images"] = [
        {"id": p["id"], "file_name": f"{p['id']}.jpg", "width": 90, "height": 180} for p in coco["annotations"]
    ]
    for person in coco["annotations"]:
        points = rng.uniform(-3, 3, (17, 2)) + rng.uniform(0, 1, (17, 2)) * (90, 180)
        person |= {"image_id": person["id"], "bbox": [0, 0, 90, 180]}
        person["keypoints"] = np.column_stack([points, np.full(17, 2)]).ravel().tolist()
    return coco


def without_names() -> CocoDict:
    coco = make_people()
    del coco["categories"]
    return coco


def without_sizes() -> CocoDict:
    coco = make_people()
    return coco | {"images": [{"id": image["id"]} for image in coco["images"]]}


def one_of_many_far() -> CocoDict:
    """COCO has mistakes of its own: one in a thousand is let pass."""
    coco = make_people(2000)
    x, y, w, h = coco["annotations"][0]["bbox"]
    coco["annotations"][0]["bbox"] = [x, y, w / 20, h / 20]
    return coco


SOUND = {
    "cropped to people": cropped_to_people,
    "one person": lambda: make_people(2) | {"annotations": make_people(2)["annotations"][:1]},
    "nobody": lambda: make_people() | {"annotations": []},
    "no categories": without_names,
    "no sizes": without_sizes,
    "one of many": one_of_many_far,
    "half a pixel over": lambda: changed(on_boxes(lambda x, y, w, h, _: [x, y, w + 0.5, h + 0.5])),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_are_taken(name: str) -> None:
    assert faults_of(FILE, SOUND[name]()) == {}


def test_drawn_people_are_taken(tmp_path: Path) -> None:
    """Also cut ones, whose true positions lie outside."""
    scene = SceneParams(image_size=(96, 96), truncation=0.8)
    write_drawn_coco(tmp_path, {"train2017": 40, "val2017": 4}, scene, seed=0)
    file = tmp_path / "annotations" / "person_keypoints_train2017.json"
    assert faults_of(file, json.loads(file.read_text())) == {}


def reach_and_border(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    return labels.reach[labels.labelled], labels.box_beyond


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="no COCO people here")
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_is_far_from_the_rules(split: str) -> None:
    """The rates that `bench.data.plausible` states."""
    coco = json.loads((COCO_MINI / "annotations" / f"person_keypoints_{split}.json").read_text())
    assert faults_of(FILE, coco) == {}
    labels = labels_of(
        coco["annotations"], {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    )
    reach, beyond = reach_and_border(labels)
    assert beyond.max() == 0
    assert reach.max() < 0.49
    assert (reach > NEAR).mean() < 0.017
    enough = labels.labelled.sum(axis=1) >= 3
    assert np.nanmin(labels.reach[enough], axis=1).max() == 0


# Categories, areas, images


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 1, "name": "dog"}], "category 1: name: found 'dog', wanted 'person'"),
        ([{"id": 0, "name": "person"}], r"categories: found the ids \[0\], wanted 1 once"),
        ([{"id": 1, "name": "person"}] * 2, r"categories: found the ids \[1, 1\], wanted 1 once"),
        ({"id": 1, "name": "person"}, "categories: found .*, wanted a list"),
        (["person"], "categories: found .*, wanted a list of mappings"),
        ([{"id": 1, "name": ["person"]}], "category 1: name: found .'person'., wanted 'person'"),
        (
            [{"id": 1, "name": "person", "keypoints": "nose"}],
            "category 1: keypoints: found 'nose', wanted a list of names",
        ),
        (
            [{"id": 1, "name": "person", "keypoints": ["nose", "right_eye", "left_eye", *KEYPOINT_NAMES[3:]]}],
            "category 1: keypoints: found 'right_eye' at place 1, wanted 'left_eye': the order is nose, left_eye",
        ),
        (
            [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE_NAMES)}],
            "category 1: keypoints: found 14 names, wanted 17: nose, left_eye",
        ),
    ],
)
def test_category_1_is_a_person_of_seventeen_keypoints(categories: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^truth.json: {message}"):
        check_annotations(FILE, make_people() | {"categories": categories})


@pytest.mark.parametrize(
    "categories",
    [
        [],
        [{"id": 1, "name": "Person"}, {"id": 18, "name": "dog"}],
        [{"id": 1, "name": "person", "keypoints": []}],
        [{"id": 1, "name": "person", "keypoints": [name.replace("_", " ").title() for name in KEYPOINT_NAMES]}],
    ],
)
def test_categories_that_say_the_same_are_taken(categories: Any) -> None:
    check_annotations(FILE, make_people() | {"categories": categories})


def crowdpose() -> CocoDict:
    coco = make_people()
    for person in coco["annotations"]:
        person["keypoints"] = person["keypoints"][:42]
        person["num_keypoints"] = CROWDPOSE_LAYOUT.count(person["keypoints"][2::3])
    names = [*CROWDPOSE_NAMES[:12], "top_head", "neck"]
    return coco | {"categories": [{"id": 1, "name": "person", "keypoints": names}]}


def test_crowdpose_has_names_of_its_own() -> None:
    coco = crowdpose()
    check_annotations(FILE, coco, CROWDPOSE_LAYOUT)
    coco["categories"][0]["keypoints"][:2] = ["right_shoulder", "left_shoulder"]
    with pytest.raises(
        UserError, match="category 1: keypoints: found 'right_shoulder' at place 0, wanted 'left_shoulder'"
    ):
        check_annotations(FILE, coco, CROWDPOSE_LAYOUT)


def test_areas_count_of_people_that_count() -> None:
    coco = make_people()
    crowd, unlabelled, *_ = coco["annotations"]
    crowd |= {"area": 0, "iscrowd": 1}
    unlabelled |= {"area": 0, "keypoints": [0] * 51, "num_keypoints": 0}
    check_annotations(FILE, coco)


def test_annotations_of_images_that_are_not_listed_are_counted() -> None:
    coco = make_people()
    for person in coco["annotations"][5:]:
        person["image_id"] += 1000
    with pytest.raises(
        UserError, match=r"annotation 105: image_id: found 1002, wanted the id of .*\(so have 35 of 40 ann"
    ):
        check_annotations(FILE, coco)


# Readers


def read_as_prepare(_: Path, folder: Path) -> None:
    build_manifests(folder, {"train": "all", "calibration": 1, "val": 1}, 0, skip_broken=False)


READERS: dict[str, Callable[[Path, Path], object]] = {
    "score": lambda file, _: read_annotations(file, COCO_LAYOUT),
    "cropcoco": read_cropcoco,
    "prepare": read_as_prepare,
}
"""(file, the folder in COCO's layout that holds it)."""

CUT_ON_PURPOSE = {"centres", "keypoints y first", "1.1 times the size"}
"""What may be so in CropCOCO, where keypoints lie outside of pictures and their boxes."""


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses(name: str, reader: str, tmp_path: Path) -> None:
    if reader == "cropcoco" and name in CUT_ON_PURPOSE:
        pytest.skip("people cut on purpose may be so")
    read = READERS[reader]
    file = tmp_path / "annotations" / "person_keypoints_train2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(changed(WRONG[name][0])))
    with pytest.raises(UserError, match=r"annotation 1\d\d"):
        read(file, tmp_path)


# The shared cases


@needs_cases
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("xyxy_boxes", r"annotation 1: bbox: found .*; the boxes look like \[x1, y1, x2, y2\]"),
        ("normalised_keypoints", "annotation 1: keypoints: found .*; the keypoints look like values from 0 to 1"),
        ("other_order_17", "category 1: keypoints: found 'hip' at place 0, wanted 'nose'"),
        ("category1_is_not_person", "category 1: name: found 'horse', wanted 'person'"),
        ("area_zero", r"annotation 1: area: found 0 \(so have 94 of 94 people that count\)"),
    ],
)
def test_the_shared_data_sets(case: str, message: str) -> None:
    file = CASES / "data" / case / "annotations" / "person_keypoints_train2017.json"
    with pytest.raises(UserError, match=message):
        check_annotations(file, json.loads(file.read_text()))


@needs_cases
def test_the_shared_boxes_outside() -> None:
    file = CASES / "data" / "boxes_wholly_outside" / "annotations" / "person_keypoints_val2017.json"
    with pytest.raises(UserError, match=r"annotation 10001: bbox: found \[5045.39, .*wanted a part of the picture"):
        check_annotations(file, json.loads(file.read_text()))


@needs_cases
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gt_area0.json", r"annotation 900000000001: area: found 0 \(so have 151 of 151 people that count\)"),
        ("gt_imageid_off_by_one.json", r"image_id: found 873, wanted the id of an image .*\(so have 162 of 162 annot"),
    ],
)
def test_the_shared_files_to_score(file: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_annotations(CASES / "score" / file, COCO_LAYOUT)


@needs_cases
@pytest.mark.parametrize("case", ["tiny", "exif180", "data/no_absent", "data/one_picture", "data/val_copies_train"])
def test_shared_data_sets_whose_labels_are_sound(case: str) -> None:
    for file in sorted((CASES / case / "annotations").iterdir()):
        assert faults_of(file, json.loads(file.read_text())) == {}
