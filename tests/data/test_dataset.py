"""Samples: what the model sees, what is known of it, and that only (seed, epoch, person) decide."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from bench.data.coco import Person, persons_of, read_coco
from bench.data.dataset import (
    Crop,
    PoseDataset,
    Sample,
    ordered_loader,
    shuffled_loader,
)
from bench.data.geometry import bbox_to_view, crop_matrix, inside, warp_points
from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.presence import Labels
from tests.views import EVERYTHING, Views

COCO_MINI = Path(__file__).parents[3] / "shared" / "coco-mini"
INPUT_SIZE = (64, 96)
CROP = Crop(INPUT_SIZE, 1.25, "extend", aligned=True)
IMAGE_SHAPE = (120, 160)
BBOX = np.array([30.0, 20.0, 50.0, 70.0])
VISIBILITY = np.array([2] * 14 + [1, 0, 0])  # the right knee is hidden, the ankles have no place


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    """Five persons in images of coloured noise; unlabelled keypoints lie at (0, 0), as in COCO."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    people = []
    for number in range(5):
        file = folder / f"{number}.png"
        cv2.imwrite(str(file), rng.integers(0, 255, (*IMAGE_SHAPE, 3), dtype=np.uint8))
        keypoints = (BBOX[:2] + rng.uniform(0.05, 0.95, (17, 2)) * BBOX[2:]) * (VISIBILITY > 0)[:, None]
        people.append(Person(number, number, file, BBOX, 1.0, keypoints, Labels(VISIBILITY, None)))
    return people


def make_samples(
    persons: list[Person],
    augmentation: Views | None = None,
    seed: int = 0,
    policy: str = "labelled",
    crop: Crop = CROP,
) -> PoseDataset:
    return PoseDataset(persons, crop, policy, augmentation, seed)


def same(first: Sample, second: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def box_to_input(points: np.ndarray) -> np.ndarray:
    """The plain view by hand: 50 x 70 is higher than 2:3, so the width is 70 * 2 / 3; a quarter more on each axis."""
    scale = np.array([70 * 64 / 96, 70.0]) * 1.25
    scale = np.maximum(scale, np.array([50, 50 * 96 / 64]) * 1.25)
    corner = np.array([55.0, 55.0]) - scale / 2
    return (points - corner) / scale * (np.array(INPUT_SIZE) - 1)


def test_the_plain_view_is_the_padded_box(persons: list[Person]) -> None:
    sample = make_samples(persons)[0, 1]
    np.testing.assert_allclose(sample.keypoints_input, box_to_input(persons[1].keypoints), atol=1e-4)
    points = np.array([[30.0, 20.0], [80.0, 90.0]])
    np.testing.assert_allclose(warp_points(points, sample.matrix.numpy()), box_to_input(points), atol=1e-9)
    assert sample.person_index == 1


def test_labels_are_those_of_the_annotation(persons: list[Person]) -> None:
    sample = make_samples(persons)[0, 0]
    assert sample.visibility.tolist() == VISIBILITY.tolist()
    assert sample.present.tolist() == [1] * 15 + [0, 0]
    assert sample.present_weight.tolist() == [1] * 17
    visible = make_samples(persons, policy="visible")[0, 0]
    assert visible.visibility.tolist() == VISIBILITY.tolist()
    assert visible.present.tolist() == [1] * 14 + [0, 0, 0]


def test_types_and_shapes(persons: list[Person]) -> None:
    sample = make_samples(persons, EVERYTHING)[0, 0]
    assert sample.image.shape == (3, 96, 64)
    assert sample.image.dtype == torch.uint8
    assert sample.image.is_contiguous()
    assert sample.keypoints_input.shape == (17, 2)
    assert sample.matrix.dtype == torch.float64
    assert sample.visibility.dtype == torch.int64
    for field in ("keypoints_input", "present", "present_weight"):
        assert getattr(sample, field).dtype == torch.float32


def test_the_image_shows_in_colour_what_the_matrix_says(tmp_path: Path) -> None:
    """A red, a green and a blue square: each channel has its peak where the keypoint of that square is."""
    image = np.zeros((*IMAGE_SHAPE, 3), dtype=np.uint8)
    keypoints = np.zeros((17, 2))
    for channel, (x, y) in enumerate([(40, 30), (70, 60), (50, 80)]):
        image[y - 1 : y + 2, x - 1 : x + 2, channel] = 255
        keypoints[channel] = x, y
    cv2.imwrite(str(tmp_path / "rgb.png"), image[..., ::-1])
    person = Person(0, 0, tmp_path / "rgb.png", BBOX, 1.0, keypoints, Labels(np.full(17, 2), None))
    for augmentation in (None, Views(rotation=40, scale=0.2, shift=0.1)):
        sample = make_samples([person], augmentation)[0, 0]
        for channel in range(3):
            rows, columns = sample.image[channel].float().nonzero(as_tuple=True)
            weight = sample.image[channel][rows, columns].float()
            centroid = torch.stack([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
            torch.testing.assert_close(centroid, sample.keypoints_input[channel], rtol=0, atol=0.3)


def test_outside_of_the_image_is_black(persons: list[Person]) -> None:
    person = persons[0]._replace(bbox=np.array([-500.0, -500.0, 50.0, 70.0]))
    assert make_samples([person])[0, 0].image.sum() == 0


def test_a_flipped_view_mirrors_the_image_and_swaps_left_and_right(persons: list[Person]) -> None:
    """By name: what was the left one is now called the right one, with its labels."""
    plain = make_samples(persons, policy="visible")[0, 0]
    flipped = make_samples(persons, Views(flip=1.0), policy="visible")[0, 0]
    difference = (flipped.image.flip(-1).int() - plain.image.int()).abs()
    assert difference.max() <= 8  # the noise is warped with other roundings
    assert difference.float().mean() < 1
    for name in KEYPOINT_NAMES:
        side, _, rest = name.partition("_")
        other = {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)
        here, there = KEYPOINT_NAMES.index(name), KEYPOINT_NAMES.index(other)
        assert flipped.visibility[here] == plain.visibility[there]
        assert flipped.present[here] == plain.present[there]
        mirrored = torch.stack([INPUT_SIZE[0] - 1 - plain.keypoints_input[there, 0], plain.keypoints_input[there, 1]])
        torch.testing.assert_close(flipped.keypoints_input[here], mirrored, rtol=0, atol=1e-4)
    assert flipped.present.tolist() != plain.present.tolist()  # the knees do differ


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_weight_follows_the_keypoint_that_was_cut_away(flip: float, persons: list[Person]) -> None:
    """Known by name: the keypoint's place in the crop says whether its presence may be asked for."""
    samples = make_samples(persons, Views(flip=flip, rotation=60, shift=0.6))
    num_cut = 0
    for epoch in range(8):
        for index in range(len(persons)):
            sample = samples[epoch, index]
            x, y = sample.keypoints_input.T
            seen = (x > -0.5) & (x < 63.5) & (y > -0.5) & (y < 95.5)
            counts = seen | (sample.visibility == 0)
            assert (sample.present_weight == counts.float()).all()
            num_cut += int((~counts).sum())
    assert num_cut > 50


def test_a_plain_view_that_cuts_counts_the_same_way(persons: list[Person]) -> None:
    person = persons[0]._replace(bbox=np.array([30.0, 20.0, 10.0, 14.0]))  # a box of the head alone
    sample = make_samples([person])[0, 0]
    within = inside(sample.keypoints_input.numpy().astype(np.float64), INPUT_SIZE)
    assert 0 < within[:15].sum() < 15
    assert sample.present_weight[:15].tolist() == within[:15].tolist()
    assert sample.present_weight[15:].tolist() == [1, 1]  # without a place, "not labelled" is all there is


def test_seed_epoch_and_person_decide_the_view(persons: list[Person]) -> None:
    samples = make_samples(persons, EVERYTHING)
    assert same(samples[2, 3], make_samples(persons, EVERYTHING)[2, 3])
    assert not same(samples[2, 3], samples[1, 3])
    assert not same(samples[2, 3], make_samples(persons, EVERYTHING, seed=1)[2, 3])
    twins = make_samples([persons[0]] * 2, EVERYTHING)
    assert not torch.equal(twins[0, 0].matrix, twins[0, 1].matrix)


def test_without_random_views_the_epoch_changes_nothing(persons: list[Person]) -> None:
    assert same(make_samples(persons)[0, 2], make_samples(persons, seed=5)[7, 2])


def test_reading_a_sample_edits_no_person(persons: list[Person]) -> None:
    before = [(person.keypoints.copy(), person.labels.visibility.copy()) for person in persons]
    samples = make_samples(persons, EVERYTHING)
    for index in range(len(persons)):
        sample = samples[0, index]
        sample.keypoints_input.add_(100)
        sample.visibility.zero_()
    for person, (keypoints, visibility) in zip(persons, before, strict=True):
        np.testing.assert_array_equal(person.keypoints, keypoints)
        np.testing.assert_array_equal(person.labels.visibility, visibility)


def test_workers_change_nothing(persons: list[Person]) -> None:
    alone, helped = (list(shuffled_loader(make_samples(persons, EVERYTHING), 2, n, epoch=3)) for n in (0, 1))
    assert len(alone) == len(helped) == 2
    assert all(same(*batches) for batches in zip(alone, helped, strict=True))


def test_an_epoch_has_every_person_once_in_an_order_of_its_own(persons: list[Person]) -> None:
    samples = make_samples(persons * 4, EVERYTHING)

    def order(epoch: int) -> list[int]:
        return torch.cat([batch.person_index for batch in shuffled_loader(samples, 5, 0, epoch)]).tolist()

    assert sorted(order(1)) == list(range(20))
    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != list(range(20))
    assert len(list(shuffled_loader(samples, 3, 0, 1))) == 6  # the last two persons make no batch


def test_the_ordered_loader_has_every_person_in_order(persons: list[Person]) -> None:
    batches = list(ordered_loader(make_samples(persons), 2, 0))
    assert [len(batch.image) for batch in batches] == [2, 2, 1]
    assert torch.cat([batch.person_index for batch in batches]).tolist() == [0, 1, 2, 3, 4]


# Other crops.


def test_hrnets_geometry_spans_whole_pixels(persons: list[Person]) -> None:
    """The plain view by hand, times the input's size instead of one less."""
    sample = make_samples(persons, crop=CROP._replace(aligned=False))[0, 1]
    wanted = box_to_input(persons[1].keypoints) / (np.array(INPUT_SIZE) - 1) * np.array(INPUT_SIZE)
    np.testing.assert_allclose(sample.keypoints_input, wanted, atol=1e-4)


def test_a_stretched_box_fills_the_input(persons: list[Person]) -> None:
    """The box of 50 x 70 about (55, 55), a quarter larger on each axis."""
    sample = make_samples(persons, crop=CROP._replace(fit="stretch"))[0, 1]
    scale = np.array([50, 70]) * 1.25
    wanted = (persons[1].keypoints - (55 - scale / 2)) / scale * (np.array(INPUT_SIZE) - 1)
    np.testing.assert_allclose(sample.keypoints_input, wanted, atol=1e-4)


def test_a_letterbox_shows_the_box_where_extend_does_and_black_around_it(persons: list[Person]) -> None:
    """The box is 2:1 here, the input 2:3: a third of the height is filled."""
    person = persons[0]._replace(bbox=np.array([30.0, 40.0, 80.0, 40.0]))
    whole, letterbox = (make_samples([person], crop=CROP._replace(fit=fit))[0, 0] for fit in ("extend", "letterbox"))
    torch.testing.assert_close(letterbox.keypoints_input, whole.keypoints_input)
    assert torch.equal(letterbox.matrix, whole.matrix)
    top, bottom = 95 / 2 - 95 / 6, 95 / 2 + 95 / 6
    inner = slice(int(top) + 3, int(bottom) - 2)
    assert (letterbox.image[:, inner].int() - whole.image[:, inner].int()).abs().max() <= 16
    assert letterbox.image[:, : int(top) - 1].sum() == letterbox.image[:, int(bottom) + 3 :].sum() == 0
    assert whole.image.sum() > 1.5 * letterbox.image.sum()


def test_what_a_letterbox_does_not_show_is_not_asked_for(persons: list[Person]) -> None:
    """A labelled keypoint in the black part cannot be known; without a label, nothing changes."""
    keypoints = persons[0].keypoints.copy()
    keypoints[3] = 70, 85  # five pixels below the padded box, which ends at 85 - 5
    keypoints[16] = 70, 85  # not labelled
    person = persons[0]._replace(bbox=np.array([30.0, 40.0, 80.0, 32.0]), keypoints=keypoints)
    samples = {fit: make_samples([person], crop=CROP._replace(fit=fit))[0, 0] for fit in ("extend", "letterbox")}
    weight = {fit: sample.present_weight for fit, sample in samples.items()}
    assert (weight["extend"][3], weight["letterbox"][3]) == (1, 0)
    assert (weight["extend"][16], weight["letterbox"][16]) == (1, 1)
    assert samples["extend"].visibility[3] > 0
    assert samples["letterbox"].visibility[3] == 0  # nor is there a heatmap to learn
    assert (samples["letterbox"].visibility <= samples["extend"].visibility).all()
    assert samples["letterbox"].visibility.any()


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_flipped_views_of_other_fits_are_mirrored_too(fit: str, persons: list[Person]) -> None:
    crop = CROP._replace(fit=fit)
    plain, flipped = (make_samples(persons, views, crop=crop)[0, 0] for views in (None, Views(flip=1.0)))
    difference = (flipped.image.flip(-1).int() - plain.image.int()).abs()
    assert difference.float().mean() < 1.5


# Real people.


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason=f"no COCO images at {COCO_MINI}")
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_people_of_coco_are_in_their_views(split: str) -> None:
    """The persons are those that COCO scores, and all their visible keypoints lie in the padded box.

    Boxes are drawn around what is visible, so a few of the hidden keypoints lie further out.
    """
    file = COCO_MINI / "annotations" / f"person_keypoints_{split}.json"
    people = persons_of(read_coco(file) | {"info": {"image_root": str(COCO_MINI / split)}})
    annotations = json.loads(file.read_text())["annotations"]
    scored = {a["id"]: a for a in annotations if any(a["keypoints"][2::3]) and not a["iscrowd"]}
    assert [person.annotation_id for person in people] == list(scored)
    assert len(people) > 50
    triples = np.array([scored[person.annotation_id]["keypoints"] for person in people]).reshape(-1, 17, 3)
    samples = make_samples(people)
    views = [bbox_to_view(person.bbox, INPUT_SIZE, CROP.bbox_padding) for person in people]
    seen = np.array(
        [
            inside(warp_points(points, crop_matrix(view, INPUT_SIZE)), INPUT_SIZE)
            for points, view in zip(triples[..., :2], views, strict=True)
        ]
    )
    visible, hidden = seen[triples[..., 2] == 2], seen[triples[..., 2] == 1]
    assert len(visible) > 500
    assert len(hidden) > 50
    assert visible.all()
    assert 0.9 < hidden.mean() < 1
    # What lies further out cannot be known from the crop, so its presence is not asked for.
    lost = next(index for index in range(len(people)) if (~seen[index] & (triples[index, :, 2] > 0)).any())
    wanted = seen[lost] | (triples[lost, :, 2] == 0)
    assert samples[0, lost].present_weight.tolist() == wanted.tolist()


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason=f"no COCO images at {COCO_MINI}")
def test_a_photograph_becomes_a_sample() -> None:
    """Pixels of the crop are those of the photograph, by a warp of our own (nearest pixel)."""
    file = COCO_MINI / "annotations" / "person_keypoints_val2017.json"
    people = persons_of(read_coco(file) | {"info": {"image_root": str(COCO_MINI / "val2017")}})
    index = max(range(len(people)), key=lambda i: people[i].bbox[2:].prod())  # a large one: the crop is smooth
    sample = make_samples(people)[0, index]
    image = cv2.imread(str(people[index].image_file))[..., ::-1]
    view = bbox_to_view(people[index].bbox, INPUT_SIZE, 1.25)
    columns, rows = np.meshgrid(np.linspace(-0.5, 0.5, 64), np.linspace(-0.5, 0.5, 96))
    x = np.rint(view.center[0] + columns * view.scale[0]).astype(int)
    y = np.rint(view.center[1] + rows * view.scale[1]).astype(int)
    within = (x >= 0) & (x < image.shape[1]) & (y >= 0) & (y < image.shape[0])
    found, wanted = sample.image.permute(1, 2, 0).numpy()[within].astype(float), image[y[within], x[within]]
    assert within.mean() > 0.3
    assert np.median(np.abs(found - wanted)) <= 5
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.95
