"""How fast samples are made, on one core, also beside the steps that mmpose 1.x takes (`tests.perf.mmpose_steps`).

All of tests/perf: `make perf`.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.config import AugmentParams
from bench.data.coco import CocoDict, Person, image_sizes, persons_of, read_coco
from bench.data.codec import Codec, encode
from bench.data.crop_store import CropStore, open_crop_store
from bench.data.dataset import PoseDataset, ordered_loader, shuffled_loader
from bench.data.geometry import Crop, bbox_to_view, crop_matrix
from bench.data.presence import Labels
from tests.perf import mmpose_steps
from tests.perf.rates import record_rate, record_ratio
from tests.views import Views

AUGMENT = AugmentParams(
    flip=0.5, half_body=0.3, rotation=40.0, rotation_probability=0.6, scale=0.35, shift=0.0, shift_probability=0.0
)


@pytest.mark.parametrize("input_size", [(64, 96), (192, 256)], ids=["64x96", "192x256"])
@pytest.mark.parametrize("augment", [None, AUGMENT], ids=["plain", "random views"])
def test_samples(
    benchmark: BenchmarkFixture, drawn: CocoDict, input_size: tuple[int, int], augment: AugmentParams | None
) -> None:
    """From the image file to a collated batch, in this process."""
    samples = PoseDataset(
        persons_of(drawn), Crop(input_size, 1.25, "extend", aligned=True), "labelled", augment, seed=0
    )
    batches = benchmark(lambda: list(ordered_loader(samples, 16, num_workers=0)))
    assert sum(len(batch.image) for batch in batches) == len(samples.persons)
    record_rate(benchmark, "samples", len(samples.persons))


# Beside mmpose: photographs, from the file to (image, target, weights).

COCO_MINI = Path(__file__).parents[3] / "shared" / "coco-mini"
SIZES = [(64, 96), (192, 256)]
PUBLISHED = AugmentParams(
    flip=0.5, half_body=0.3, rotation=40.0, rotation_probability=0.6, scale=0.5, shift=0.16, shift_probability=0.3
)
BATCH_SIZE, NUM_BATCHES, NUM_EPOCHS = 32, 5, 8
NUM_PERSONS = BATCH_SIZE * NUM_BATCHES
PIXEL_MEAN, PIXEL_STD = (torch.tensor(values)[:, None, None] for values in (mmpose_steps.MEAN, mmpose_steps.STD))


class Photographs(NamedTuple):
    """Persons, two to three an image, the images' sizes (w, h) by id, and where they come from."""

    persons: list[Person]
    sizes: dict[int, tuple[int, int]]
    origin: str


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """COCO's own where they lie beside the project, else made ones."""
    if not COCO_MINI.is_dir():
        return made_photographs(tmp_path_factory.mktemp("made"))
    root = {"info": {"image_root": str(COCO_MINI / "train2017")}}
    manifest = read_coco(COCO_MINI / "annotations" / "person_keypoints_train2017.json") | root
    return Photographs(persons_of(manifest)[:NUM_PERSONS], image_sizes(manifest), "COCO")


def made_photographs(folder: Path) -> Photographs:
    """JPEGs of 640 x 480 and of a photograph's bytes: noise whose amplitude falls with its frequency, and edges."""
    rng = np.random.default_rng(0)
    persons: list[Person] = []
    for image_id in count():
        file = folder / f"{image_id}.jpg"
        cv2.imwrite(str(file), made_photograph(rng), [cv2.IMWRITE_JPEG_QUALITY, 95])
        persons += [made_person(rng, image_id, file) for _ in range(2 + image_id % 2)]
        if len(persons) >= NUM_PERSONS:
            break
    return Photographs(persons[:NUM_PERSONS], dict.fromkeys(range(image_id + 1), (640, 480)), "made")


def made_photograph(rng: np.random.Generator) -> np.ndarray:
    image = np.full((480, 640, 3), 128.0, np.float32)
    for cell in (160, 80, 40, 20, 10, 5, 2, 1):
        noise = rng.normal(scale=2.5 * cell**0.6, size=(480 // cell, 640 // cell, 3)).astype(np.float32)
        image += cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    for _ in range(20):
        x, y, radius = rng.integers([0, 0, 10], [640, 480, 60]).tolist()
        cv2.circle(image, (x, y), radius, rng.uniform(0, 255, 3).tolist(), 2)
    return np.clip(image, 0, 255).astype(np.uint8)


def made_person(rng: np.random.Generator, image_id: int, file: Path) -> Person:
    size = rng.uniform([50, 100], [200, 350])
    corner = rng.uniform(0, np.array([640, 480]) - size)
    keypoints = corner + rng.uniform(size=(17, 2)) * size
    visibility = rng.choice([0, 1, 2], size=17, p=[0.3, 0.1, 0.6])
    return Person(0, image_id, file, np.concatenate([corner, size]), 1.0, keypoints, Labels(visibility, None))


def codec_of(input_size: tuple[int, int]) -> Codec:
    return Codec("udp", input_size, (input_size[0] // 4, input_size[1] // 4), 8.0 if input_size[0] > 64 else 4.0)


def our_batches(samples: PoseDataset, codec: Codec) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """With what is left to the device: pixels normalised, targets made."""
    for batch in shuffled_loader(samples, BATCH_SIZE, num_workers=0, epoch=1):
        target, weight = encode(batch.keypoints_input, (batch.visibility > 0).float(), codec)
        yield (batch.image.float() - PIXEL_MEAN) / PIXEL_STD, target, weight


def test_both_make_the_same_of_a_plain_view(photographs: Photographs) -> None:
    """One matrix, one picture but for single pixels of mmpose's coarser numbers (float32), and one target."""
    codec, still = codec_of((192, 256)), Views(shift_probability=0.0)
    persons = photographs.persons[:BATCH_SIZE]
    samples = PoseDataset(persons, Crop(codec.input_size, 1.25, "extend", aligned=True), "labelled", None, seed=0)
    (ours,) = ordered_loader(samples, BATCH_SIZE, num_workers=0)
    records, rng = [mmpose_steps.record_of(person) for person in persons], np.random.default_rng(0)
    (theirs,) = mmpose_steps.batches(records, codec, still, BATCH_SIZE, rng)
    view = bbox_to_view(persons[0].bbox, codec.input_size, 1.25)._replace(rotation=20.0)
    matrix = mmpose_steps.udp_matrix(view.center, view.scale, 20.0, codec.input_size)
    np.testing.assert_allclose(
        matrix, crop_matrix(view._replace(rotation=20.0), codec.input_size), rtol=1e-4, atol=1e-3
    )
    difference = (theirs.image * PIXEL_STD + PIXEL_MEAN - ours.image).abs()
    assert difference.max() <= 1.01  # grey levels
    assert difference.mean() < 0.01
    target, weight = encode(ours.keypoints_input, (ours.visibility > 0).float(), codec)
    assert torch.equal(theirs.target_weight, weight)
    counted = weight[..., None, None]
    torch.testing.assert_close(theirs.target * counted, target * counted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("input_size", SIZES, ids=["64x96", "192x256"])
def test_three_times_as_fast_as_the_steps_of_mmpose(
    benchmark: BenchmarkFixture, photographs: Photographs, input_size: tuple[int, int], tmp_path: Path
) -> None:
    """Per core, with a store of crops: without what writing it takes, and with an eighth of that, as over 8 epochs."""
    codec, crop = codec_of(input_size), Crop(input_size, 1.25, "extend", aligned=True)
    persons, folders = photographs.persons, (tmp_path / str(i) for i in count())

    def open_store(people: list[Person]) -> CropStore:
        return open_crop_store(next(folders), people, photographs.sizes, crop, PUBLISHED)

    def samples_from(store: CropStore | None) -> PoseDataset:
        return PoseDataset(persons, crop, "labelled", PUBLISHED, seed=0, store=store)

    def epoch_of(samples: PoseDataset) -> Callable[[], None]:
        return lambda: run_through(our_batches(samples, codec))

    records, rng = [mmpose_steps.record_of(person) for person in persons], np.random.default_rng(0)
    stored, decoded = epoch_of(samples_from(open_store(persons))), epoch_of(samples_from(None))

    def mmpose() -> None:
        run_through(mmpose_steps.batches(records, codec, PUBLISHED, BATCH_SIZE, rng))

    def stored_and_written() -> None:
        open_store(persons[: NUM_PERSONS // NUM_EPOCHS])
        stored()

    benchmark.pedantic(stored, rounds=7, warmup_rounds=1)
    record_rate(benchmark, "samples", NUM_PERSONS)
    steps = f"steps of mmpose over ours, {photographs.origin} photographs"
    record_ratio(benchmark, f"{steps}, decoded every time", decoded, mmpose)
    record_ratio(benchmark, f"{steps}, from the store", stored, mmpose, at_least=3)
    record_ratio(benchmark, f"{steps}, an eighth of writing the store too", stored_and_written, mmpose, at_least=3)


def run_through(batches: Iterator[tuple[Tensor, ...]]) -> None:
    assert sum(1 for _ in batches) == NUM_BATCHES
