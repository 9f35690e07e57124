"""Drawn people as a folder in COCO's layout."""

import json
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.data.keypoints import KEYPOINT_NAMES, SKELETON
from bench.data.synthetic.scene import Scene, SceneParams, draw_scene
from bench.errors import UserError

GENERATOR_VERSION = 2  # raised whenever the same seed gives other pictures
JPEG_QUALITY = 90


def write_drawn_coco(root: Path, num_persons: dict[str, int], params: SceneParams, seed: int) -> None:
    """Draw `<root>/<split>/*.jpg` and `<root>/annotations/person_keypoints_<split>.json`.

    Args:
        root: Made if it is not there.
        num_persons: For each split, e.g. "train2017", at least so many persons with a labelled keypoint.
        params: What the scenes vary.
        seed: Not negative. Each image has a seed of its own from it, so images do not depend on how many are drawn.

    Raises:
        UserError: a number of persons or a seed below 0.
    """
    if seed < 0:
        raise UserError(f"seed: found {seed}, wanted 0 or more")
    for split, number in num_persons.items():
        if number < 0:
            raise UserError(f"num_persons: {split}: found {number}, wanted 0 or more")
    for split, number in num_persons.items():
        _write_split(root, split, number, params, seed)


def draw_numbered_scene(params: SceneParams, seed: int, split: str, number: int) -> Scene:
    """The image of this number in a split."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(split.encode()), number])
    return draw_scene(params, np.random.default_rng(sequence))


def _write_split(root: Path, split: str, num_persons: int, params: SceneParams, seed: int) -> None:
    for folder in (root / split, root / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    width, height = params.image_size
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    draw = partial(_write_image, root / split, params, seed, split)
    with ProcessPoolExecutor(initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        while len(annotations) < num_persons:
            # One image may hold no person, so rounds go on until there are enough; numbers decide, not processes.
            first = len(images) + 1
            numbers = range(first, first + max(1, (num_persons - len(annotations)) // params.people_per_image[1]))
            for image_id, persons in zip(numbers, pool.map(draw, numbers, chunksize=16), strict=True):
                images.append({"id": image_id, "file_name": _file_name(image_id), "width": width, "height": height})
                annotations += [
                    {"id": len(annotations) + 1 + i, "image_id": image_id, **p} for i, p in enumerate(persons)
                ]
    content = {
        "info": {"description": "drawn people", "seed": seed, "generator_version": GENERATOR_VERSION},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [_person_category()],
    }
    file = root / "annotations" / f"person_keypoints_{split}.json"
    file.write_text(json.dumps(content), encoding="utf-8")


def _write_image(folder: Path, params: SceneParams, seed: int, split: str, number: int) -> list[dict[str, Any]]:
    """Draw one image; its annotations, without ids."""
    scene = draw_numbered_scene(params, seed, split, number)
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    (folder / _file_name(number)).write_bytes(encoded.tobytes())
    return scene.annotations


def _file_name(number: int) -> str:
    return f"{number:012}.jpg"


def _person_category() -> dict[str, Any]:
    skeleton = [[first + 1, second + 1] for first, second in SKELETON]  # COCO's file counts from 1
    return {
        "id": 1, "name": "person", "supercategory": "person", "keypoints": list(KEYPOINT_NAMES), "skeleton": skeleton,
    }  # fmt: skip
