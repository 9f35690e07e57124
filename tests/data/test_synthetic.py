"""Drawn people: the truth about every keypoint, and files that COCO's tools read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from bench.data.coco import check_annotation
from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.synthetic.canvas import NOBODY, Canvas, Ink, fixed, paint
from bench.data.synthetic.coco import draw_numbered_scene, write_drawn_coco
from bench.data.synthetic.figure import build_figure, rotation, sample_body
from bench.data.synthetic.look import sample_look
from bench.data.synthetic.parts import Placed
from bench.data.synthetic.pose import Limb, Pose
from bench.data.synthetic.render import draw_person, keypoint_pixels, visible_keypoints
from bench.data.synthetic.scene import SceneParams, annotate
from bench.errors import UserError

FACE, LEFT_SIDE, RIGHT_SIDE = slice(0, 3), slice(5, 17, 2), slice(6, 17, 2)
STANDING = Pose(0, (0, 0, 0), (0, 0, 0), (Limb(0, 30, 0, 10),) * 2, (Limb(0, 8, 0, 5),) * 2, lying=False, seated=False)


def triples(annotation: dict[str, Any], key: str) -> np.ndarray:
    return np.array(annotation[key], dtype=float).reshape(17, 3)


def people(params: SceneParams, num_images: int, seed: int = 0) -> list[dict[str, Any]]:
    return [a for number in range(num_images) for a in draw_numbered_scene(params, seed, "val2017", number).annotations]


def one_person(yaw: float, origin: tuple[float, float] = (100, 95)) -> tuple[Canvas, Placed]:
    """Someone with arms and legs apart on a 200 x 200 canvas, bald so that the ears are free."""
    rng = np.random.default_rng(3)
    look = sample_look(rng)._replace(skirt=0, hairline="bald", hair_extra="none", covers_ears=False)
    placed = Placed(build_figure(sample_body(rng), STANDING, rotation(1, yaw)), look, 90.0, np.array(origin))
    canvas = Canvas.on(np.full((200, 200, 3), 200, np.uint8))
    draw_person(canvas, placed, 1)
    return canvas, placed


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    write_drawn_coco(root, {"train2017": 12, "val2017": 6}, SceneParams(), seed=4)
    return root


def test_the_same_seed_writes_the_same_bytes_and_more_people_change_no_image(drawn: Path, tmp_path: Path) -> None:
    write_drawn_coco(tmp_path, {"train2017": 24, "val2017": 6}, SceneParams(), seed=4)
    files = [file.relative_to(drawn) for file in sorted(drawn.rglob("*.jpg"))]
    assert len(files) > 5
    for file in (*files, Path("annotations/person_keypoints_val2017.json")):
        assert (drawn / file).read_bytes() == (tmp_path / file).read_bytes()


def test_another_seed_and_another_split_draw_other_pictures() -> None:
    keys = ((0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2))
    images = [draw_numbered_scene(SceneParams(), *key).image for key in keys]
    assert len({image.tobytes() for image in images}) == 4


def test_pycocotools_reads_the_folder(drawn: Path) -> None:
    for split, least in (("train2017", 12), ("val2017", 6)):
        coco = COCO(drawn / "annotations" / f"person_keypoints_{split}.json")
        annotations = coco.loadAnns(coco.getAnnIds(catIds=[1], iscrowd=False))
        assert sum(a["num_keypoints"] > 0 for a in annotations) >= least
        assert [check_annotation(a) for a in annotations] == [None] * len(annotations)
        for a in annotations:
            pixels = coco_mask.area(coco.annToRLE(a))
            assert 0.6 * a["area"] - 30 < pixels < 1.4 * a["area"] + 60
            assert (drawn / split / coco.imgs[a["image_id"]]["file_name"]).is_file()


def test_the_file_says_where_it_is_from(drawn: Path) -> None:
    content = json.loads((drawn / "annotations" / "person_keypoints_val2017.json").read_text())
    assert content["info"]["description"] == "drawn people"
    assert content["info"]["seed"] == 4
    assert content["licenses"] == []
    skeleton = np.array(content["categories"][0]["skeleton"])
    assert (skeleton.min(), skeleton.max()) == (1, 17)


def test_visibility_is_zero_just_outside_of_the_image_and_labels_are_the_truth() -> None:
    params = SceneParams()
    everyone = people(params, 25)
    width, height = params.image_size
    seen = set()
    for a in everyone:
        labels, truth = triples(a, "keypoints"), triples(a, "true_keypoints")
        x, y, v = truth.T
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        assert (inside == (v > 0)).all()
        assert (labels[inside] == truth[inside]).all()
        assert (labels[~inside] == 0).all()
        assert a["num_keypoints"] == (labels[:, 2] > 0).sum() > 0
        left, top, w, h = a["bbox"]
        assert left >= 0 <= top and left + w <= width and top + h <= height
        assert 100 <= a["area"] <= w * h
        visible = truth[v == 2, :2]  # a pixel of the mask is at most half a pixel away
        assert (visible >= np.array([left, top]) - 0.5).all() and (visible <= np.array([left + w, top + h]) - 0.5).all()
        seen |= set(v)
    assert seen == {0, 1, 2}


def test_unlabelled_fraction_drops_that_share_and_keeps_truth_and_picture() -> None:
    full = [draw_numbered_scene(SceneParams(), 1, "x", n) for n in range(25)]
    noisy = [draw_numbered_scene(SceneParams(unlabelled_fraction=0.3), 1, "x", n) for n in range(25)]
    assert all((a.image == b.image).all() for a, b in zip(full, noisy, strict=True))
    before = [a for scene in full for a in scene.annotations]
    after = [a for scene in noisy for a in scene.annotations]
    truths = [a["true_keypoints"] for a in before]
    assert all(a["true_keypoints"] in truths for a in after)
    assert len(before) - 3 < len(after) <= len(before)  # who loses every label is not annotated
    present, kept = (sum(a["num_keypoints"] for a in some) for some in (before, after))
    assert 0.62 < kept / present < 0.78
    assert kept == sum((triples(a, "keypoints")[:, 2] > 0).sum() for a in after)


def test_seen_from_the_front_all_is_visible_and_left_is_the_persons_left() -> None:
    canvas, placed = one_person(yaw=0)
    assert visible_keypoints(canvas, placed, 1).all()
    x = keypoint_pixels(placed)[:, 0]
    assert (x[LEFT_SIDE] > x[RIGHT_SIDE]).all()


def test_seen_from_behind_the_head_hides_the_face_and_left_is_left() -> None:
    canvas, placed = one_person(yaw=180)
    visible = visible_keypoints(canvas, placed, 1)
    assert not visible[FACE].any()
    assert visible[3:].all()
    x = keypoint_pixels(placed)[:, 0]
    assert (x[LEFT_SIDE] < x[RIGHT_SIDE]).all()


def test_seen_from_the_side_the_far_side_is_hidden() -> None:
    canvas, placed = one_person(yaw=90)  # looks to the right of the image: the right side is near
    visible = dict(zip(KEYPOINT_NAMES, visible_keypoints(canvas, placed, 1).tolist(), strict=True))
    assert all(visible[name] for name in ("nose", "right_eye", "right_ear", "right_shoulder", "right_knee"))
    assert not any(visible[name] for name in ("left_eye", "left_ear", "left_shoulder", "left_hip"))
    assert not visible["right_hip"]  # behind the arm that hangs before it


def test_nothing_is_visible_behind_an_object_that_covers_all() -> None:
    canvas, placed = one_person(yaw=0)
    grey = np.full((3, 1, 1), 99, np.float32)
    legs = np.array([(0, 110), (200, 110), (200, 220), (0, 220)])
    paint(canvas, [fixed(legs)], Ink(lambda _x, _y: grey, NOBODY, 0, 3.0))
    visible, rows = visible_keypoints(canvas, placed, 1), keypoint_pixels(placed)[:, 1]
    assert (visible == (rows < 110)).all()
    assert not visible.all()
    paint(canvas, [fixed(legs - (0, 110)), fixed(legs)], Ink(lambda _x, _y: grey, NOBODY, 0, 3.0))
    assert not visible_keypoints(canvas, placed, 1).any()
    assert annotate(canvas, placed, 1) is None


def test_a_nearer_person_hides_the_one_behind() -> None:
    canvas, placed = one_person(yaw=0)
    draw_person(canvas, placed, 2)
    assert not visible_keypoints(canvas, placed, 1).any()
    assert visible_keypoints(canvas, placed, 2).all()


def test_a_person_cut_by_the_border_has_positions_outside() -> None:
    canvas, placed = one_person(yaw=0, origin=(100, 180))
    annotation = annotate(canvas, placed, 1)
    assert annotation is not None
    truth = triples(annotation, "true_keypoints")
    assert (truth[13:, 1] > 199).all() and (truth[13:, 2] == 0).all()
    assert (triples(annotation, "keypoints")[13:] == 0).all()
    assert (truth[:11, 2] == 2).all()


def test_truncation_is_the_share_of_people_cut_by_the_border() -> None:
    def share_cut(truncation: float) -> float:
        params = SceneParams(people_per_image=(1, 1), num_objects=(0, 0), truncation=truncation)
        return float(np.mean([(triples(a, "true_keypoints")[:, 2] == 0).any() for a in people(params, 25)]))

    assert share_cut(0.0) == 0
    assert share_cut(1.0) > 0.85


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", (0, 240)),
        ("people_per_image", (3, 1)),
        ("people_per_image", (0, 0)),
        ("num_objects", (-1, 2)),
        ("truncation", 1.5),
        ("max_yaw", 181.0),
        ("unlabelled_fraction", -0.1),
        ("unlabelled_fraction", 1.0),
        ("unlabelled_fraction", float("nan")),
    ],
)
def test_bad_parameters_name_their_key(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^{key}: found .*, wanted "):
        SceneParams(**{key: value})


@pytest.mark.parametrize(("number", "seed", "key"), [(-1, 0, "num_persons"), (1, -1, "seed")])
def test_bad_numbers_name_their_key_and_write_nothing(number: int, seed: int, key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{key}: "):
        write_drawn_coco(tmp_path, {"val2017": number}, SceneParams(), seed)
    assert not list(tmp_path.iterdir())
