"""What training shows of every person, decoded once and kept on disk: a cache that changes no result.

Decoding a JPEG costs many times what is made of it, and every epoch would decode it again for every person. So one
memory-mapped file holds for each person the part of the image, in its own resolution, that any random view can show.
A part is warped where it lay in the image, not from its own corner: sums of floating point would round a few pixels in
100,000 another way, and a training would end elsewhere.

The file is named by a digest of all that its bytes depend on, the contents of the images too, so that it is never
stale; it appears by one renaming, so that it is whole or not there, whoever else writes it meanwhile. Runs that show
the same parts of the same persons share it, whatever their seed, model, codec or size of the input. Nothing deletes
one, but `make clean`.
"""

import hashlib
import math
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.data.augment import Augmentation, Body, reachable
from bench.data.coco import Person, read_image
from bench.data.geometry import Crop, View, bbox_to_view, bounds
from bench.errors import UserError

READ = 1  # pixels around a view that its crop may read: the next one, or one by a rounding
MARGIN = READ + 1  # pixels around what all views show: where a view ends is a rounded number as well
CHANNELS = 3
FORMAT = 1  # of the file: to be raised where its bytes come to mean something else

ImageSizes = Mapping[int, tuple[int, int]]  # (w, h) by image id
Regions = NDArray[np.int64]  # (N, 4): x0, y0, x1, y1 in whole pixels, the last ones not included


class CropStore:
    """The parts of images in a file that is whole, by the place of the person."""

    def __init__(self, file: Path, regions: Regions, sizes: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        self.file = file
        self._layout = (regions, sizes, offsets)
        self._pixels = np.asarray(np.memmap(file, np.uint8, mode="r"))
        self._places = np.column_stack(self._layout).tolist()
        self._canvas = np.empty(int(sizes.prod(1).max()) * CHANNELS, dtype=np.uint8)

    def __reduce__(self) -> tuple[type["CropStore"], tuple[Any, ...]]:
        """Another process maps the file again: pickled, a map would be all its pixels."""
        return CropStore, (self.file, *self._layout)

    def image_for(self, index: int, view: View) -> NDArray[np.uint8]:
        """A person's image (H, W, 3), RGB, right where the view's crop reads; it changes with the next call."""
        left, top, right, bottom, width, height, offset = self._places[index]
        shape = (bottom - top, right - left, CHANNELS)
        part = self._pixels[offset : offset + math.prod(shape)].reshape(shape)
        if shape == (height, width, CHANNELS):
            return part
        x0, y0, x1, y1 = bounds(view)
        x0, y0 = max(math.floor(x0) - READ, 0), max(math.floor(y0) - READ, 0)
        x1, y1 = min(math.ceil(x1) + READ + 1, width), min(math.ceil(y1) + READ + 1, height)
        image = self._canvas[: height * width * CHANNELS].reshape(height, width, CHANNELS)
        if x0 < x1 and y0 < y1:
            assert left <= x0 and top <= y0 and x1 <= right and y1 <= bottom, "a view of another augmentation"
            image[y0:y1, x0:x1] = part[y0 - top : y1 - top, x0 - left : x1 - left]
        return image


def open_crop_store(
    folder: Path,
    persons: Sequence[Person],
    image_sizes: ImageSizes,
    crop: Crop,
    augmentation: Augmentation,
) -> CropStore:
    """The store of these persons in `folder`, written first where it is not there.

    Raises:
        UserError: an image is missing, broken or of another size; no room on the disk; the folder cannot be written.
    """
    sizes = np.reshape([image_sizes[person.image_id] for person in persons], (-1, 2))
    regions = shared_regions(persons, needed_regions(persons, sizes, crop, augmentation))
    offsets, num_bytes = lay_out(persons, regions)
    file = folder / f"{digest_of(persons, regions)}.bin"
    if not (file.is_file() and file.stat().st_size == num_bytes):
        _write(file, persons, sizes, regions, num_bytes)
    return CropStore(file, regions, sizes, offsets)


def needed_regions(
    persons: Sequence[Person], sizes: NDArray[np.int64], crop: Crop, augmentation: Augmentation
) -> Regions:
    """What each person's views can show of its image, sizes (N, 2); where that is nothing, one pixel, never read."""
    reaches = []
    for person in persons:
        view = bbox_to_view(person.bbox, crop.input_size, crop.bbox_padding, crop.fit)
        body = Body(person.keypoints, person.labels.visibility > 0)
        reaches.append(reachable(view, body, augmentation, crop.input_size, crop.fit))
    low, high = np.split(np.reshape(reaches, (-1, 4)), 2, axis=1)
    first = np.clip(np.floor(low) - MARGIN, 0, sizes - 1)
    last = np.clip(np.ceil(high) + MARGIN, 0, sizes - 1)
    return np.concatenate([first, np.maximum(first, last) + 1], axis=1).astype(np.int64)


def shared_regions(persons: Sequence[Person], regions: Regions) -> Regions:
    """The same, but one region for all persons of an image where that is smaller than all of theirs."""
    shared = regions.copy()
    for places in _places_by_image(persons).values():
        own = regions[places]
        whole = np.concatenate([own[:, :2].min(0), own[:, 2:].max(0)])
        if _num_bytes(whole[None]).sum() < _num_bytes(own).sum():
            shared[places] = whole
    return shared


def lay_out(persons: Sequence[Person], regions: Regions) -> tuple[NDArray[np.int64], int]:
    """Where each region's bytes begin (N,), and how many there are in all."""
    offsets = np.zeros(len(persons), dtype=np.int64)
    end = 0
    for places in _places_by_image(persons).values():
        begins: dict[tuple[int, ...], int] = {}
        for place in places:
            region = tuple(regions[place].tolist())
            if region not in begins:
                begins[region] = end
                end += int(_num_bytes(regions[place][None])[0])
            offsets[place] = begins[region]
    return offsets, end


def digest_of(persons: Sequence[Person], regions: Regions) -> str:
    """Of all that the file's bytes depend on: regions, images by content, and who decodes them.

    Raises:
        UserError: an image cannot be read.
    """
    digest = hashlib.sha256(f"{FORMAT} OpenCV {cv2.__version__}".encode())
    for file, places in _places_by_image(persons).items():
        digest.update(hashlib.sha256(_content(file)).digest())
        digest.update(np.array(places).tobytes() + regions[places].tobytes())
    return digest.hexdigest()[:32]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        read_image(file)  # says what is wrong, as it does without a store
        raise


def _places_by_image(persons: Sequence[Person]) -> dict[Path, list[int]]:
    places = defaultdict(list)
    for place, person in enumerate(persons):
        places[person.image_file].append(place)
    return places


def _num_bytes(regions: Regions) -> NDArray[np.int64]:
    sizes: NDArray[np.int64] = (regions[:, 2:] - regions[:, :2]).prod(1) * CHANNELS
    return sizes


def _write(file: Path, persons: Sequence[Person], sizes: NDArray[np.int64], regions: Regions, num_bytes: int) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _check_room(file.parent, num_bytes)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".partial", delete=False) as partial:
            try:
                _write_parts(partial, persons, sizes, regions)
                partial.flush()
                os.fsync(partial.fileno())  # or a crash of the machine may leave the name without the bytes
                os.replace(partial.name, file)
            except BaseException:
                with suppress(OSError):
                    Path(partial.name).unlink()
                raise
    except OSError as error:
        raise UserError(
            f"{file.parent}: cannot be written ({error.strerror}), wanted {_gigabytes(num_bytes)} for "
            "base.train.crop_store, or false there"
        ) from error


def _write_parts(partial: IO[bytes], persons: Sequence[Person], sizes: NDArray[np.int64], regions: Regions) -> None:
    """In the order of `lay_out`; every image is decoded once."""
    for image_file, places in _places_by_image(persons).items():
        image, wanted = read_image(image_file), tuple(sizes[places[0]].tolist())
        found = image.shape[1::-1]
        if found != wanted:
            raise UserError(f"{image_file}: found {found[0]} x {found[1]} pixels, wanted {wanted[0]} x {wanted[1]}")
        for left, top, right, bottom in dict.fromkeys(map(tuple, regions[places].tolist())):
            partial.write(image[top:bottom, left:right].tobytes())


def _check_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise UserError(
            f"{folder}: found {_gigabytes(free)} free, wanted {_gigabytes(num_bytes)} for base.train.crop_store, "
            "or false there"
        )


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
