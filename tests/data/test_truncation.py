"""Truncated persons: what is kept, what is shown, and that geometry alone says what is present."""

from itertools import pairwise, product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.data.coco import Person, persons_of, read_coco, read_image
from bench.data.dataset import PoseDataset, Sample
from bench.data.geometry import Crop, crop_matrix, invert, warp_points
from bench.data.presence import Labels
from bench.data.synthetic.scene import SceneParams, draw_scene
from bench.data.truncated import FILLS, TruncatedDataset, truncated_loader
from bench.data.truncation import (
    KEPT,
    MODES,
    NO_SIDE,
    PADDINGS,
    SIDES,
    Condition,
    conditions,
    cut_line,
    geometric_label,
    is_covered,
    is_shown,
    kept_bbox,
    known_positions,
    truncate,
)
from bench.errors import UserError

COCO_MINI = Path(__file__).parents[3] / "shared" / "coco-mini"
SIZE = (64, 96)
CROPS = [Crop(SIZE, 1.25, fit, aligned) for fit in ("extend", "letterbox", "stretch") for aligned in (True, False)]
CROP = CROPS[0]
IMAGE_SIZE = (160, 120)
BBOX = np.array([30.0, 20.0, 50.0, 70.0])
VISIBILITY = np.array([2] * 14 + [1, 0, 0])
CUTS = conditions(modes=("cut", "shift"))


def make_person(
    file: Path, bbox: NDArray[np.float64] = BBOX, seed: int = 0, visibility: NDArray[np.int64] = VISIBILITY
) -> Person:
    """In an image of noise without black; unlabelled keypoints lie at (0, 0)."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 256, (*IMAGE_SIZE[::-1], 3), dtype=np.uint8), (0, 0), 3).astype(float)
    image = np.interp(image, (image.min(), image.max()), (40, 255)).astype(np.uint8)
    cv2.imwrite(str(file), image)
    keypoints = (bbox[:2] + rng.uniform(0.02, 0.98, (17, 2)) * bbox[2:]) * (visibility > 0)[:, None]
    return Person(seed, seed, file, bbox, 1.0, keypoints, Labels(visibility, None))


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    """Of many shapes: upright, lying, tiny, at the border of the image and over it."""
    folder = tmp_path_factory.mktemp("images")
    boxes = [BBOX, [20, 40, 90, 31], [70.3, 60.8, 9.6, 12.1], [0, 0, 60.5, 119], [110, 50, 50, 70], [-8, 30, 40, 100]]
    return [make_person(folder / f"{i}.png", np.array(b, dtype=np.float64), seed=i) for i, b in enumerate(boxes)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    """Drawn people of whom a third of the labels are lost; the truth is not."""
    folder, params = tmp_path_factory.mktemp("drawn"), SceneParams(truncation=0.8, unlabelled_fraction=0.3)
    people: list[Person] = []
    for number in range(6):
        scene = draw_scene(params, np.random.default_rng(number))
        height, width = scene.image.shape[:2]
        cv2.imwrite(str(folder / f"{number}.png"), scene.image[..., ::-1])
        manifest = {
            "info": {"image_root": str(folder)},
            "images": [{"id": number, "file_name": f"{number}.png", "width": width, "height": height}],
            "annotations": [{"id": 10 * number + i, "image_id": number, **a} for i, a in enumerate(scene.annotations)],
        }
        people += persons_of(manifest)
    return people


def sample_of(person: Person, condition: Condition, crop: Crop = CROP) -> Sample:
    return TruncatedDataset([person], crop, [condition], 0)[0, 0]


def image_positions(sample: Sample) -> NDArray[np.float64]:
    """Of every pixel of an input, (H, W, 2)."""
    pixels = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), axis=-1).astype(np.float64)
    return warp_points(pixels.reshape(-1, 2), invert(sample.matrix.numpy())).reshape(SIZE[1], SIZE[0], 2)


def pixels_of(sample: Sample) -> NDArray[np.int64]:
    return sample.image.permute(1, 2, 0).numpy().astype(np.int64)


def kept_side(points: NDArray[np.float64], line: float, side: str) -> NDArray[np.bool_]:
    axis, direction = SIDES[side]
    return (line - points[..., axis]) * direction > 0


# The grid.


def test_the_grid_by_hand() -> None:
    assert conditions(("cut",), ("left", "top"), (1.0, 0.5), ("mean", "zeros")) == (
        ("cut", "left", 1.0, "mean"), ("cut", "left", 0.5, "mean"), ("cut", "top", 1.0, "mean"),
        ("cut", "top", 0.5, "mean"), ("cut", "left", 1.0, "zeros"), ("cut", "left", 0.5, "zeros"),
        ("cut", "top", 1.0, "zeros"), ("cut", "top", 0.5, "zeros"),
    )  # fmt: skip


def test_the_whole_grid() -> None:
    grid = conditions(paddings=PADDINGS)
    assert len(set(grid)) == len(grid) == (2 * 4 * 3 + 2) * 8
    assert {c.mode for c in grid} == set(MODES)
    assert {c.side for c in grid if c.mode == "blackout"} == {NO_SIDE}
    assert {c.padding for c in grid if c.mode == "blackout"} == {"zeros", "mean"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modes": ("crop",)}, r"mode: found 'crop', wanted 'cut' or 'shift' or 'blackout'"),
        ({"sides": ("up",)}, r"side: found 'up', wanted 'left' or 'right' or 'top' or 'bottom'"),
        ({"paddings": ("black",)}, r"padding: found 'black', wanted 'zeros' or 'mean' or 'reflect'"),
        ({"kept": (0.0,)}, r"kept: found 0.0, wanted a fraction above 0 and at most 1"),
        ({"kept": (1.1,)}, r"kept: found 1.1, wanted a fraction"),
        ({"kept": (float("nan"),)}, r"kept: found nan, wanted a fraction"),
        ({"modes": ("blackout",), "paddings": ("reflect",)}, r"found no condition in"),
    ],
)
def test_conditions_that_do_not_exist(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        conditions(**change)


def test_a_dataset_checks_its_conditions(persons: list[Person]) -> None:
    with pytest.raises(UserError, match=r"padding: found 'reflect', wanted 'zeros' or 'mean'"):
        TruncatedDataset(persons, CROP, [Condition("blackout", NO_SIDE, 0.5, "reflect")], 0)


# What is kept.


@pytest.mark.parametrize(
    ("side", "kept", "line", "bbox"),
    [
        ("right", 0.5, 55.5, (30, 20, 25.5, 70)),
        ("left", 0.5, 54.5, (54.5, 20, 25.5, 70)),
        ("bottom", 0.3, 41.5, (30, 20, 50, 21.5)),
        ("top", 0.7, 40.5, (30, 40.5, 50, 49.5)),
    ],
)
def test_a_cut_by_hand(side: str, kept: float, line: float, bbox: tuple[float, ...]) -> None:
    condition = Condition("cut", side, kept, "zeros")
    assert cut_line(BBOX, condition) == line
    assert kept_bbox(BBOX, condition).tolist() == list(bbox)


@pytest.mark.parametrize("side", SIDES)
def test_what_is_kept_is_exact_to_a_pixel(side: str) -> None:
    axis, direction = SIDES[side]
    for condition in conditions(("cut", "shift"), (side,), KEPT[1:]):
        for seed in range(50):
            rng = np.random.default_rng(seed)
            bbox = np.concatenate([rng.uniform(0, 100, 2), rng.uniform(5, 300, 2)])
            kept = kept_bbox(bbox, condition)
            assert abs(kept[axis + 2] - condition.kept * bbox[axis + 2]) <= 0.5
            start, end = kept[axis] - bbox[axis], kept[axis] + kept[axis + 2] - bbox[axis] - bbox[axis + 2]
            assert abs(start if direction > 0 else end) < 1e-9
            assert kept[[1 - axis, 3 - axis]].tolist() == bbox[[1 - axis, 3 - axis]].tolist()


def test_a_mirrored_person_is_cut_in_the_mirrored_place() -> None:
    for kept in KEPT:
        for x, width in ((30.0, 50.0), (17.25, 33.5), (3.0, 10.0)):
            box, mirrored = np.array([x, 0, width, 9]), np.array([159 - x - width, 0, width, 9])
            right = cut_line(box, Condition("cut", "right", kept, "zeros"))
            assert cut_line(mirrored, Condition("cut", "left", kept, "zeros")) == 159 - right


def test_of_a_box_of_one_pixel_only_the_whole_is_kept(persons: list[Person]) -> None:
    speck = persons[0]._replace(bbox=np.array([40.0, 40.0, 1.0, 1.0]))
    grid = (*CUTS, Condition("blackout", NO_SIDE, 0.3, "zeros"))
    samples = TruncatedDataset([speck, persons[0]], CROP, grid, 0)
    assert {grid[c].kept for c, p in samples.keys if p == 0 and grid[c].mode != "blackout"} == {1.0}
    assert [p for _, p in samples.excluded] == [0] * (2 * 4 * 7)
    assert len(samples.keys) + len(samples.excluded) == 2 * len(grid)
    assert sum(t.num_excluded for t in samples.tally()) == len(samples.excluded)
    for key in samples.keys:
        assert samples[key].image.shape == (3, 96, 64)


def test_a_box_beside_the_image_shows_only_padding(persons: list[Person]) -> None:
    away = persons[0]._replace(bbox=np.array([300.0, 20.0, 50.0, 70.0]))
    for padding in ("zeros", "mean"):
        image = pixels_of(sample_of(away, Condition("cut", "left", 0.5, padding)))
        assert (image == FILLS[padding]).all()


def test_a_line_behind_the_box_cuts_nothing_off_it() -> None:
    """Of 2.2 pixels, .95 are kept: the line nearest to 2.09 is 2.5."""
    for side, bbox in (("right", [0.0, 0, 2.2, 9]), ("left", [-2.2, 0, 2.2, 9])):
        assert kept_bbox(np.array(bbox), Condition("cut", side, 0.95, "zeros")).tolist() == pytest.approx(bbox)


# Where all is kept.


@pytest.mark.parametrize("crop", CROPS)
def test_the_whole_is_the_plain_sample_to_the_bit(crop: Crop, persons: list[Person], drawn: list[Person]) -> None:
    people = persons + drawn
    whole = conditions(kept=(1.0,))
    plain, samples = PoseDataset(people, crop, "labelled", None, 0), TruncatedDataset(people, crop, whole, 0)
    assert not samples.excluded
    for c, p in samples.keys:
        found, wanted = samples[c, p], plain[0, p]
        for field in ("image", "keypoints_input", "visibility", "matrix", "person_index"):
            assert torch.equal(getattr(found, field), getattr(wanted, field)), field
        for name in Sample._fields:
            assert getattr(found, name).dtype == getattr(wanted, name).dtype


def test_padding_changes_only_what_is_outside_of_the_image(persons: list[Person]) -> None:
    for person in persons:
        zeros, mean, reflect = (sample_of(person, Condition("cut", "left", 1.0, padding)) for padding in PADDINGS)
        x, y = np.moveaxis(image_positions(zeros), -1, 0)
        within = (x >= 0) & (x <= IMAGE_SIZE[0] - 1) & (y >= 0) & (y <= IMAGE_SIZE[1] - 1)
        without = (x < -1) | (x > IMAGE_SIZE[0]) | (y < -1) | (y > IMAGE_SIZE[1])
        for other in (mean, reflect):
            assert np.abs(pixels_of(zeros) - pixels_of(other))[within].max() <= 1
        assert (pixels_of(zeros)[without] == 0).all()
        assert (pixels_of(mean)[without] == FILLS["mean"]).all()
        assert (pixels_of(reflect)[without] > 30).all()  # the image has nothing darker than 40


# Pixels.


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mode", ["cut", "shift"])
def test_the_picture_goes_on_up_to_the_line_and_no_further(
    mode: str, side: str, crop: Crop, persons: list[Person]
) -> None:
    """Pixel by pixel: what is shown is the photograph where it exists and is not beyond the line."""
    for person in persons:
        condition = Condition(mode, side, 0.6, "zeros")
        sample, image = sample_of(person, condition, crop), read_image(person.image_file).astype(np.float64)
        positions, line = image_positions(sample), cut_line(person.bbox, condition)
        axis = SIDES[side][0]
        blur = max(1.1 / sample.matrix[axis, axis].item(), 1)  # of a pixel of the input or of the image
        gap = np.abs(positions[..., axis] - line) / blur
        kept = kept_side(positions, line, side)
        if mode == "shift":  # nothing beyond the line is in the window at all
            assert kept.all() or (crop.fit == "letterbox" and (pixels_of(sample)[~kept & (gap > 1)] == 0).all())
            assert gap.min() < 1  # and the window reaches it
        else:
            beyond = (line - positions[..., axis]) * SIDES[side][1] < -1
            assert beyond.any() or person.bbox[axis + 2] < 20  # its window goes on for less than a pixel
            assert (pixels_of(sample)[beyond] == 0).all()
        x, y = np.moveaxis(positions, -1, 0)
        view = TruncatedDataset([person], crop, [condition], 0).truncated((0, 0)).view
        if view.shown is not None:  # its black bars are no end of the image
            kept &= (np.abs(positions - view.center) < view.shown / 2 - 1.5).all(axis=-1)
        real = kept & (gap > 1) & (x >= 1) & (x <= IMAGE_SIZE[0] - 2) & (y >= 1) & (y <= IMAGE_SIZE[1] - 2)
        assert real.any()
        assert pixels_of(sample)[real].min() > 30  # no black where the image goes on: it has nothing darker than 40
        map_x, map_y = x.astype(np.float32), y.astype(np.float32)
        wanted = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR)[real]
        assert np.abs(pixels_of(sample)[real] - wanted).max() <= 8  # the warp rounds positions to 1/32 of a pixel


def test_cut_and_shift_show_the_kept_part_alike(persons: list[Person]) -> None:
    """The same pixels on the same scale, moved."""
    for side in SIDES:
        cut, shift = (sample_of(persons[0], Condition(mode, side, 0.6, "zeros")) for mode in ("cut", "shift"))
        np.testing.assert_allclose(cut.matrix[:, :2], shift.matrix[:, :2])
        moved = (cut.matrix - shift.matrix)[:, 2].abs()
        assert (moved > 1).sum() == 1


def test_mean_and_reflection_lie_beyond_the_line(persons: list[Person]) -> None:
    person, image = persons[0], read_image(persons[0].image_file).astype(np.float64)
    line = cut_line(person.bbox, Condition("cut", "right", 0.5, "zeros"))
    for padding in ("mean", "reflect"):
        sample = sample_of(person, Condition("cut", "right", 0.5, padding))
        x, y = np.moveaxis(image_positions(sample), -1, 0)
        beyond = (x > line + 1) & (y > 1) & (y < IMAGE_SIZE[1] - 2) & (2 * line - x > 1)
        assert beyond.any()
        if padding == "mean":
            assert (pixels_of(sample)[beyond] == FILLS["mean"]).all()
        else:
            mirrored = cv2.remap(image, (2 * line - x).astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
            assert np.abs(pixels_of(sample) - mirrored)[beyond].max() <= 8


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_letterbox_stays_black_around_what_is_kept(padding: str, persons: list[Person]) -> None:
    sample = sample_of(persons[1], Condition("cut", "right", 0.9, padding), CROPS[2])
    truncated = TruncatedDataset([persons[1]], CROPS[2], [Condition("cut", "right", 0.9, padding)], 0).truncated((0, 0))
    y = image_positions(sample)[..., 1]
    outside = np.abs(y - truncated.view.center[1]) > truncated.view.shown[1] / 2 + 1
    assert outside.mean() > 0.2
    assert (pixels_of(sample)[outside] == 0).all()


# Labels.


@pytest.mark.parametrize("crop", CROPS)
def test_keypoints_beyond_the_line_are_absent_and_those_before_are_present(crop: Crop, persons: list[Person]) -> None:
    """All labelled keypoints lie in their box here, so that the line alone decides."""
    samples, labelled = TruncatedDataset(persons, crop, CUTS, 0), VISIBILITY > 0
    assert not samples.excluded
    for c, p in samples.keys:
        sample, condition, person = samples[c, p], CUTS[c], persons[p]
        line = cut_line(person.bbox, condition)
        before = kept_side(person.keypoints, line, condition.side) | (condition.kept == 1)
        assert (sample.present.numpy() > 0).tolist() == (labelled & before).tolist(), (condition, p)
        assert (sample.present_weight.numpy() > 0).tolist() == labelled.tolist()


def test_positions_are_those_of_the_new_input(persons: list[Person]) -> None:
    """By hand: the left half is kept, of 25.5 x 70 about (42.75, 55), and 70 decides the window."""
    cut = sample_of(persons[0], Condition("cut", "right", 0.5, "zeros"))
    scale = np.array([70 * 64 / 96, 70]) * 1.25
    wanted = (persons[0].keypoints - ([42.75, 55] - scale / 2)) / scale * [63, 95]
    np.testing.assert_allclose(cut.keypoints_input, wanted, atol=1e-4)
    shift = sample_of(persons[0], Condition("shift", "right", 0.5, "zeros"))
    edge = (shift.matrix.numpy() @ [55.5, 0, 1])[0]
    assert edge == pytest.approx(63.5)


def test_what_is_cut_away_has_no_visibility(persons: list[Person]) -> None:
    """Not even where the window still covers its place; what the window leaves out keeps it, as in a plain sample."""
    person, condition = persons[0], Condition("cut", "right", 0.5, "zeros")
    beyond = ~kept_side(person.keypoints, 55.5, "right")
    cut, shift = sample_of(person, condition), sample_of(person, condition._replace(mode="shift"))
    assert cut.visibility.tolist() == (VISIBILITY * ~beyond).tolist()
    assert shift.visibility.tolist() == VISIBILITY.tolist()
    x = cut.keypoints_input[beyond & (VISIBILITY > 0), 0]
    assert (x < 63).any()


@pytest.mark.parametrize("crop", CROPS)
def test_less_kept_is_more_absent(crop: Crop, persons: list[Person], drawn: list[Person]) -> None:
    """In the box; of all else, another window can show more than the plain one."""
    people = persons + drawn
    for mode, side in product(("cut", "shift"), SIDES):
        grid = conditions((mode,), (side,))
        samples = TruncatedDataset(people, crop, grid, 0)
        for p, person in enumerate(people):
            points, in_image, _ = known_positions(person)
            in_box = (points >= person.bbox[:2]) & (points <= person.bbox[:2] + person.bbox[2:])
            before = in_box.all(axis=-1) & in_image
            assert (samples.label((0, p)).present >= before).all()
            for key in [(c, p) for c in range(len(grid)) if (c, p) in set(samples.keys)]:
                present = samples.label(key).present & in_box.all(axis=-1)
                assert (present <= before).all(), (grid[key[0]], p)
                before = present


def test_labels_of_drawn_people_are_the_truth(drawn: list[Person]) -> None:
    """Also of keypoints without a label, and of those that the border of the image had cut away before."""
    samples = TruncatedDataset(drawn, CROP, CUTS, 0)
    num_unlabelled = num_outside = 0
    for c, p in samples.keys:
        person, condition, label = drawn[p], CUTS[c], samples.label((c, p))
        assert (label.present_weight == 1).all()
        truth = person.labels.true_visibility > 0
        if condition.kept < 1:
            truth &= kept_side(person.true_keypoints, cut_line(person.bbox, condition), condition.side)
        in_window = is_shown(person.true_keypoints, samples.truncated((c, p)), CROP)
        assert label.present.tolist() == (truth & in_window).tolist()
        num_unlabelled += int((label.present & (person.labels.visibility == 0)).sum())
        num_outside += int((~label.present & (person.labels.true_visibility == 0)).sum())
    assert num_unlabelled > 100
    assert num_outside > 100


def test_nobody_left_is_kept_and_counted(persons: list[Person]) -> None:
    """Both labelled keypoints lie at the feet."""
    visibility = np.array([0] * 15 + [2, 1])
    keypoints = np.zeros((17, 2))
    keypoints[15:] = [[40, 85], [60, 88]]
    person = persons[0]._replace(keypoints=keypoints, labels=Labels(visibility, None))
    samples = TruncatedDataset([person], CROP, conditions(("cut",), ("bottom", "top"), (1.0, 0.5)), 0)
    assert [tuple(t) for t in samples.tally()] == [
        (1, 0, 0, 2, 0, 15), (1, 0, 1, 0, 2, 15), (1, 0, 0, 2, 0, 15), (1, 0, 0, 2, 0, 15),
    ]  # fmt: skip
    sample = samples[1, 0]
    assert sample.present.sum() == 0
    assert sample.present_weight.tolist() == [0] * 15 + [1, 1]
    assert sample.visibility.sum() == 0


# Blackout.


@pytest.mark.parametrize("kept", KEPT)
def test_covered_keypoints_are_present_but_hidden(kept: float, drawn: list[Person]) -> None:
    condition = Condition("blackout", NO_SIDE, kept, "zeros")
    for person in drawn:
        samples = TruncatedDataset([person], CROP, [condition, condition._replace(kept=1.0)], 3)
        sample, whole = samples[0, 0], samples[1, 0]
        assert torch.equal(sample.present, whole.present)
        assert torch.equal(sample.keypoints_input, whole.keypoints_input)
        covered = is_covered(person.true_keypoints, samples.truncated((0, 0)).patches)
        assert (covered & (whole.present.numpy() > 0)).sum() >= (1 - kept) * whole.present.sum() - 1e-6
        assert (sample.visibility.numpy()[covered & (person.labels.visibility > 0)] == 1).all()
        assert torch.equal(sample.visibility[~covered], whole.visibility[~covered])


@pytest.mark.parametrize("padding", FILLS)
def test_patches_are_painted_and_all_else_is_left(padding: str, persons: list[Person]) -> None:
    grid = conditions(("blackout",), kept=(1.0, 0.6), paddings=(padding,))
    samples = TruncatedDataset(persons, CROP, grid, 0)
    num_painted = 0
    for p in range(len(persons)):
        whole, sample = samples[0, p], samples[1, p]
        positions = image_positions(sample).reshape(-1, 2)
        blur = np.array([2.0, 2.0, -2.0, -2.0])  # image pixels from the border of a patch
        x, y = positions.T
        real = (x >= 0) & (y >= 0) & (x <= IMAGE_SIZE[0] - 1) & (y <= IMAGE_SIZE[1] - 1)
        painted = is_covered(positions, samples.truncated((1, p)).patches + blur) & real
        left = ~is_covered(positions, samples.truncated((1, p)).patches - blur)
        found, before = (pixels_of(s).reshape(-1, 3) for s in (sample, whole))
        assert (found[painted] == FILLS[padding]).all()
        assert (found[left] == before[left]).all()
        num_painted += int(painted.sum())
    assert num_painted > 500


def test_a_blackout_covers_what_a_smaller_one_covers(drawn: list[Person]) -> None:
    grid = conditions(("blackout",))
    samples = TruncatedDataset(drawn, CROP, grid, 0)
    for p in range(len(drawn)):
        patches = [samples.truncated((c, p)).patches.tolist() for c in range(len(grid))]
        for fewer, more in pairwise(patches):
            assert more[: len(fewer)] == fewer
        assert len(patches[-1]) > 0 or not samples.label((0, p)).present.any()


def test_patches_stay_on_their_own_sample(drawn: list[Person]) -> None:
    grid = conditions(("blackout",), kept=(0.3, 1.0))
    before, after = (TruncatedDataset(drawn[:1], CROP, grid, 0) for _ in range(2))
    after[0, 0]
    assert torch.equal(after[1, 0].image, before[1, 0].image)


def test_only_patches_depend_on_the_seed(drawn: list[Person]) -> None:
    grid = conditions(kept=(0.5,), sides=("left",))
    first, again, other = (TruncatedDataset(drawn[:3], CROP, grid, seed) for seed in (0, 0, 1))
    for key in first.keys:
        assert all(torch.equal(a, b) for a, b in zip(first[key], again[key], strict=True))
        same = all(torch.equal(a, b) for a, b in zip(first[key], other[key], strict=True))
        assert same == (grid[key[0]].mode != "blackout")


def test_patches_are_drawn_from_the_generator_given(drawn: list[Person]) -> None:
    condition = Condition("blackout", NO_SIDE, 0.5, "zeros")
    first, again = (truncate(drawn[0], condition, CROP, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first.patches, again.patches)
    assert (first.patches[:, 2:] > first.patches[:, :2]).all()


# Loading.


def test_the_loader_gives_every_key_in_order(persons: list[Person]) -> None:
    grid = conditions(sides=("left",), kept=(1.0, 0.5))
    samples = TruncatedDataset(persons, CROP, grid, 0)
    assert samples.keys[:7] == [(c, 0) for c in range(6)] + [(0, 1)]
    alone, helped = (list(truncated_loader(samples, 4, num_workers)) for num_workers in (0, 1))
    assert torch.cat([batch.person_index for batch in alone]).tolist() == [p for _, p in samples.keys]
    for batch, twin in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, twin, strict=True))
    key = samples.keys[5]
    assert torch.equal(alone[1].image[1], samples[key].image)


def test_a_sample_edits_no_person(drawn: list[Person]) -> None:
    person = drawn[0]
    before = [
        person.bbox.copy(),
        person.keypoints.copy(),
        person.labels.visibility.copy(),
        person.true_keypoints.copy(),
    ]
    samples = TruncatedDataset([person], CROP, conditions(paddings=PADDINGS), 0)
    for key in samples.keys:
        sample = samples[key]
        sample.keypoints_input.add_(100)
        sample.visibility.zero_()
        sample.image.zero_()
    after = [person.bbox, person.keypoints, person.labels.visibility, person.true_keypoints]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert samples[samples.keys[0]].image.sum() > 0


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason=f"no COCO images at {COCO_MINI}")
def test_people_of_coco() -> None:
    """Of real people who are cut, what is labelled is present or absent, and what is not is unknown."""
    file = COCO_MINI / "annotations" / "person_keypoints_val2017.json"
    people = persons_of(read_coco(file) | {"info": {"image_root": str(COCO_MINI / "val2017")}})[:60]
    grid = conditions(("cut", "shift"), kept=(1.0, 0.5))
    samples = TruncatedDataset(people, CROP, grid, 0)
    for condition, tally in zip(grid, samples.tally(), strict=True):
        num_known = sum(int((people[p].labels.visibility > 0).sum()) for c, p in samples.keys if grid[c] == condition)
        assert tally.num_present + tally.num_absent == num_known
        share = tally.num_absent / num_known
        assert (share < 0.02) if condition.kept == 1 else (0.2 < share < 0.8)
    for p in range(0, 60, 12):
        truncated = samples.truncated((1, p))
        assert geometric_label(people[p], truncated, CROP).present.tolist() == samples.label((1, p)).present.tolist()
        assert samples[1, p].image.sum() > 0


def test_the_window_of_a_view_is_the_one_of_its_matrix(persons: list[Person]) -> None:
    truncated = truncate(persons[0], CUTS[1], CROP, np.random.default_rng(0))
    sample = sample_of(persons[0], CUTS[1])
    np.testing.assert_array_equal(sample.matrix, crop_matrix(truncated.view, SIZE))
