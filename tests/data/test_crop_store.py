"""The store of crops: samples made from it are those of the image files, to the byte, and it is never stale."""

import itertools
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch

from bench.data import crop_store
from bench.data.augment import Body, random_view, reachable
from bench.data.coco import Person
from bench.data.crop_store import READ, CropStore, digest_of, needed_regions, open_crop_store
from bench.data.dataset import Crop, PoseDataset, Sample, shuffled_loader
from bench.data.geometry import FITS, bbox_to_view, bounds, crop_matrix, invert, warp_points
from bench.data.presence import Labels
from bench.errors import UserError
from tests.views import EVERYTHING, Views

WIDTH, HEIGHT = 160, 120
CROP = Crop((64, 96), 1.25, "extend", aligned=True)
WILD = Views(
    flip=0.5, half_body=0.5, rotation=80, rotation_probability=0.8, scale=0.5, shift=0.3, shift_probability=0.8
)
# In the middle, over every border, all of the image, and outside of it.
BBOXES = [
    [60, 40, 30, 50], [-10, -5, 40, 60], [140, 90, 40, 60], [100, -20, 30, 60], [2, 80, 80, 38.5], [0, 0, 160, 120],
    [70.3, 30.7, 6, 80.1], [300, 400, 20, 20], [-90, 10, 20, 20],
]  # fmt: skip


class People(NamedTuple):
    persons: list[Person]
    sizes: dict[int, tuple[int, int]]

    def store(self, folder: Path, crop: Crop = CROP, augmentation: Views = EVERYTHING) -> CropStore:
        return open_crop_store(folder, self.persons, self.sizes, crop, augmentation)

    def digest(self, crop: Crop = CROP, augmentation: Views = EVERYTHING) -> str:
        """Of the file, were the images so large that no part ends at a border."""
        sizes = np.full((len(self.persons), 2), 2000)
        return digest_of(self.persons, needed_regions(self.persons, sizes, crop, augmentation))


@pytest.fixture
def people(tmp_path: Path) -> People:
    """Everybody of `BBOXES`, three to an image of noise."""
    rng, persons = np.random.default_rng(0), []
    (tmp_path / "images").mkdir()
    for number, bbox in enumerate(BBOXES):
        image_id = number // 3
        file = tmp_path / "images" / f"{image_id}.png"
        cv2.imwrite(str(file), rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        box = np.array(bbox, dtype=np.float64)
        visibility = rng.choice([0, 1, 2], size=17, p=[0.2, 0.2, 0.6])
        keypoints = (box[:2] + rng.uniform(-0.3, 1.3, (17, 2)) * box[2:]) * (visibility > 0)[:, None]
        persons.append(Person(number, image_id, file, box, 1.0, keypoints, Labels(visibility, None)))
    return People(persons, dict.fromkeys(range(len(BBOXES)), (WIDTH, HEIGHT)))


def samples_of(people: People, crop: Crop, augmentation: Views, store: CropStore | None) -> PoseDataset:
    return PoseDataset(people.persons, crop, "labelled", augmentation, seed=7, store=store)


def same(first: Sample, second: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("augmentation", [Views(), EVERYTHING, WILD], ids=["none", "some", "wild"])
def test_samples_are_those_of_the_image_files(
    augmentation: Views, fit: str, aligned: bool, people: People, tmp_path: Path
) -> None:
    crop = Crop((64, 96), 1.25, fit, aligned)
    store = people.store(tmp_path, crop, augmentation)
    plain, stored = (samples_of(people, crop, augmentation, one) for one in (None, store))
    for epoch in range(12):
        keys = [(epoch, index) for index in range(len(BBOXES))]
        wanted = plain.__getitems__(keys)
        assert same(stored.__getitems__(keys), wanted)
    assert wanted.image[:7].float().std() > 20  # there is something to see


def test_only_what_is_seen_is_kept(people: People, tmp_path: Path) -> None:
    """A few boxes of a large image: much less than it, and no pixel twice."""
    file = tmp_path / "large.png"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8))
    persons = [person._replace(image_id=0, image_file=file) for person in people.persons[:2] + people.persons[:1]]
    some = People(persons, {0: (1200, 900)})
    store = some.store(tmp_path)
    assert store.file.stat().st_size < 1200 * 900 * 3 / 10
    alone = People(persons[:2], {0: (1200, 900)}).store(tmp_path)
    assert alone.file.stat().st_size == store.file.stat().st_size  # the third is the first again
    plain, stored = (samples_of(some, CROP, EVERYTHING, one) for one in (None, store))
    assert all(same(plain[epoch, index], stored[epoch, index]) for epoch in range(10) for index in range(3))


def test_a_crowd_shares_one_part(people: People, tmp_path: Path) -> None:
    persons = [person._replace(image_id=0, image_file=people.persons[0].image_file) for person in people.persons]
    crowd = People(persons, {0: (WIDTH, HEIGHT)})
    assert crowd.store(tmp_path).file.stat().st_size == WIDTH * HEIGHT * 3


def test_the_part_is_always_large_enough() -> None:
    """Of random persons under random ranges: the corners of every view, and so all that its crop reads."""
    rng = np.random.default_rng(1)
    closest = np.inf
    for _ in range(150):
        share = rng.uniform(size=7) * rng.integers(0, 2, size=7)
        augmentation = Views(
            share[0], share[1], rotation=90 * share[2], rotation_probability=share[3], scale=0.99 * share[4],
            shift=share[5], shift_probability=share[6],
        )  # fmt: skip
        bbox, size = rng.uniform([-50, -50, 1, 1], [200, 150, 150, 200]), tuple(rng.integers(16, 99, 2).tolist())
        body = Body(rng.uniform(-50, 250, (17, 2)), rng.uniform(size=17) < 0.8)
        fit = str(rng.choice(list(FITS)))
        view = bbox_to_view(bbox, size, 1.25, fit)
        reach = reachable(view, body, augmentation, size, fit)
        for _ in range(40):
            seen = random_view(view, body, augmentation, size, fit, rng)
            corners = np.array([[0, 0], [size[0] - 1, 0], [0, size[1] - 1], [size[0] - 1, size[1] - 1]], dtype=float)
            points = warp_points(corners, invert(crop_matrix(seen, size)))
            np.testing.assert_allclose(bounds(seen), [*points.min(0), *points.max(0)], atol=1e-6)
            room = np.concatenate([points.min(0) - reach[:2], reach[2:] - points.max(0)])
            assert room.min() > -1e-6
            closest = min(closest, room.min())
    assert closest < 0.1  # and no larger than it must be


def test_a_view_of_another_augmentation_is_refused(people: People, tmp_path: Path) -> None:
    """Not filled with what lies about: the store is asked for what it does not hold."""
    person = people.persons[0]
    some = People([person], people.sizes)
    stored = samples_of(some, CROP, WILD, some.store(tmp_path, augmentation=Views()))
    with pytest.raises(AssertionError, match="another augmentation"):
        [stored[epoch, 0] for epoch in range(20)]


# What names the file.

Change = Callable[[People], tuple[People, Crop, Views]]


def with_first(people: People, person: Person) -> People:
    return people._replace(persons=[person, *people.persons[1:]])


def other_pixels(people: People) -> People:
    """As long as before, of the same size and time."""
    file = people.persons[0].image_file
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    return people


def away_from_borders(person: Person) -> Person:
    return person._replace(bbox=person.bbox + np.array([1000, 1000, 0, 0]), keypoints=person.keypoints + 1000)


CHANGES: dict[str, Change] = {
    "pixels": lambda p: (other_pixels(p), CROP, EVERYTHING),
    "bbox": lambda p: (with_first(p, p.persons[0]._replace(bbox=p.persons[0].bbox + 70)), CROP, EVERYTHING),
    "keypoints": lambda p: (
        with_first(p, p.persons[0]._replace(keypoints=p.persons[0].keypoints * 0.9)), CROP, EVERYTHING,
    ),
    "persons": lambda p: (p._replace(persons=p.persons[1:]), CROP, EVERYTHING),
    "order": lambda p: (p._replace(persons=p.persons[::-1]), CROP, EVERYTHING),
    "aspect": lambda p: (p, CROP._replace(input_size=(96, 64)), EVERYTHING),
    "padding": lambda p: (p, CROP._replace(bbox_padding=1.5), EVERYTHING),
    "fit": lambda p: (p, CROP._replace(fit="stretch"), EVERYTHING),
    "half_body": lambda p: (p, CROP, EVERYTHING._replace(half_body=0.0)),
    "rotation": lambda p: (p, CROP, EVERYTHING._replace(rotation=5)),
    "scale": lambda p: (p, CROP, EVERYTHING._replace(scale=0.4)),
    "shift": lambda p: (p, CROP, EVERYTHING._replace(shift=0.2)),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_another_content_is_another_file(change: str, people: People) -> None:
    inner = people._replace(persons=[away_from_borders(person) for person in people.persons])
    before = inner.digest()
    changed, crop, augmentation = CHANGES[change](inner)
    assert changed.digest(crop, augmentation) != before


def test_what_the_pixels_do_not_depend_on_shares_the_file(people: People) -> None:
    before = people.digest()
    assert people.digest(CROP._replace(input_size=(128, 192), aligned=False)) == before
    assert people.digest(augmentation=EVERYTHING._replace(flip=0.0, rotation_probability=0.1)) == before


def test_another_opencv_decodes_anew(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    before = people.digest()
    monkeypatch.setattr(cv2, "__version__", "99.0")
    assert people.digest() != before


# How the file comes to be.


def listed(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_second_run_reads_what_the_first_one_wrote(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "crops"
    first = people.store(folder)
    monkeypatch.delattr(crop_store, "read_image")
    assert people.store(folder).file == first.file
    assert listed(folder) == [first.file.name]


def test_a_cut_file_is_written_again(people: People, tmp_path: Path) -> None:
    store = people.store(tmp_path / "crops")
    whole = store.file.read_bytes()
    store.file.write_bytes(whole[:-1])
    assert people.store(tmp_path / "crops").file.read_bytes() == whole


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_writing_leaves_nothing(
    error: BaseException, people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = itertools.count()

    def read_two(file: Path) -> np.ndarray:
        if next(images) == 2:
            raise error
        return np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    monkeypatch.setattr(crop_store, "read_image", read_two)
    with pytest.raises((KeyboardInterrupt, UserError)):
        people.store(tmp_path / "crops")
    assert next(images) == 3
    assert listed(tmp_path / "crops") == []


def test_a_killed_writing_is_not_read(people: People, tmp_path: Path) -> None:
    """What a writer leaves that has no time to clean up has another name."""
    folder = tmp_path / "crops"
    process = multiprocessing.get_context("fork").Process(target=write_and_die, args=(people, folder))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert [name.endswith(".partial") for name in listed(folder)] == [True]
    store = people.store(folder)
    stored, plain = (samples_of(people, CROP, EVERYTHING, one) for one in (store, None))
    assert same(stored[0, 0], plain[0, 0])


def write_and_die(people: People, folder: Path) -> None:
    crop_store.os.replace = lambda *_: os._exit(9)
    people.store(folder)


def test_two_processes_at_once(people: People, tmp_path: Path) -> None:
    folder, context = tmp_path / "crops", multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=write_together, args=(people, folder, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert listed(folder) == [people.store(folder).file.name]


def write_together(people: People, folder: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    replace = os.replace

    def replace_after_both(*names: str | Path) -> None:
        barrier.wait(timeout=20)  # both have written all, neither has named it
        replace(*names)

    crop_store.os.replace = replace_after_both
    stored, plain = (samples_of(people, CROP, EVERYTHING, one) for one in (people.store(folder), None))
    assert all(same(stored[0, index], plain[0, index]) for index in range(len(BBOXES)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_read_the_same_store(num_workers: int, people: People, tmp_path: Path) -> None:
    stored, plain = (samples_of(people, CROP, WILD, one) for one in (people.store(tmp_path, augmentation=WILD), None))
    for epoch in (3, 4):
        found, wanted = shuffled_loader(stored, 4, num_workers, epoch), shuffled_loader(plain, 4, 0, epoch)
        assert all(same(*batches) for batches in zip(found, wanted, strict=True))


def test_pickled_it_is_small(people: People, tmp_path: Path) -> None:
    """For workers that are not forked."""
    store = people.store(tmp_path)
    content = pickle.dumps(store)
    assert len(content) < store.file.stat().st_size / 10
    stored, again = (samples_of(people, CROP, EVERYTHING, one) for one in (store, pickle.loads(content)))
    assert same(stored[0, 1], again[0, 1])


# What cannot be.


@pytest.mark.parametrize("content", [None, b"not a picture"])
def test_a_broken_image_is_named_as_without_a_store(content: bytes | None, people: People, tmp_path: Path) -> None:
    file = people.persons[4].image_file
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(UserError) as plain:
        samples_of(people, CROP, EVERYTHING, None)[0, 4]
    with pytest.raises(UserError) as stored:
        people.store(tmp_path / "crops")
    assert str(stored.value) == str(plain.value)
    assert not (tmp_path / "crops").exists() or listed(tmp_path / "crops") == []


def test_an_image_of_another_size_is_an_error(people: People, tmp_path: Path) -> None:
    other = people._replace(sizes=dict.fromkeys(people.sizes, (WIDTH, 100)))
    with pytest.raises(UserError, match=r"0\.png: found 160 x 120 pixels, wanted 160 x 100$"):
        other.store(tmp_path / "crops")


def test_a_full_disk_is_seen_before(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    wanted = r"crops: found 0\.00 GB free, wanted 0\.00 GB for base\.train\.crop_store, or false there$"
    with pytest.raises(UserError, match=wanted):
        people.store(tmp_path / "crops")
    assert listed(tmp_path / "crops") == []


def test_a_folder_that_cannot_be_written_is_named(people: People, tmp_path: Path) -> None:
    (tmp_path / "crops").write_text("a file")
    wanted = r"crops: cannot be written \(File exists\), wanted 0\.00 GB for base\.train\.crop_store, or false there$"
    with pytest.raises(UserError, match=wanted):
        people.store(tmp_path / "crops")


def test_every_part_has_the_margin_that_a_crop_reads(people: People) -> None:
    sizes = np.array([[WIDTH, HEIGHT]] * len(BBOXES))
    view = bbox_to_view(people.persons[0].bbox, CROP.input_size, CROP.bbox_padding)
    region = needed_regions(people.persons, sizes, CROP, Views())[0]
    x0, y0, x1, y1 = bounds(view)
    assert (region[:2] <= [x0 - READ, y0 - READ]).all()
    assert (region[2:] >= [x1 + READ + 1, y1 + READ + 1]).all()
