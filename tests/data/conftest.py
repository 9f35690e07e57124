"""A small COCO-layout folder with real JPEG files, for tests that then break it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Edit = Callable[[dict[str, Any]], None]


def annotation(annotation_id: int, image_id: int, num_labelled: int = 17, iscrowd: int = 0) -> dict[str, Any]:
    keypoints = np.zeros((17, 3), dtype=int)
    keypoints[:num_labelled] = np.column_stack([np.arange(17) + 5, np.arange(17) + 8, np.full(17, 2)])[:num_labelled]
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [4.0, 6.0, 20.0, 24.0],
        "area": 300.0,
        "iscrowd": iscrowd,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": num_labelled,
        "segmentation": [[4, 6, 24, 6, 24, 30]],
    }


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    """12 images in each split: image i has 1 + i % 3 persons, image 1 a crowd and an unlabelled person besides."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(1, 13):
            pixels = np.random.default_rng((i, len(split))).integers(0, 255, (48, 40, 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / f"{i:012d}.jpg"), pixels)
            images.append({"id": i, "file_name": f"{i:012d}.jpg", "width": 40, "height": 48})
            annotations += [annotation(100 * i + k, i) for k in range(1 + i % 3)]
            annotations[-1]["bbox"][2] += len(split) / 10  # no two splits share a picture
        annotations += [annotation(190, 1, num_labelled=0), annotation(191, 1, num_labelled=0, iscrowd=1)]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        annotation_file(root, split).write_text(json.dumps(content))
    return root


def annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"person_keypoints_{split}.json"


@pytest.fixture
def edit_annotations(coco_root: Path) -> Callable[[Edit], Path]:
    """Change the train annotations in place; returns their file."""

    def edit(change: Edit) -> Path:
        file = annotation_file(coco_root, "train2017")
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
        return file

    return edit
