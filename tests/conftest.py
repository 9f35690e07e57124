"""Small COCO data made from a seed, and stages run as their command line would."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.keypoints import NUM_KEYPOINTS
from bench.stages.command import run_command

ToyCoco = tuple[dict[str, Any], list[dict[str, Any]]]  # ground truth, results


def make_person(rng: np.random.Generator, annotation_id: int, image_id: int) -> dict[str, Any]:
    """Medium and large, some unlabelled throughout, some crowds."""
    w, h = rng.uniform(30, 150, size=2)
    x, y = rng.uniform(0, 300, size=2)
    visibility = rng.integers(0, 3, size=NUM_KEYPOINTS) * (rng.random() > 0.1)
    points = np.stack([rng.uniform(x, x + w, NUM_KEYPOINTS), rng.uniform(y, y + h, NUM_KEYPOINTS)], axis=1)
    keypoints = np.concatenate([points * (visibility[:, None] > 0), visibility[:, None]], axis=1)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int((visibility > 0).sum()),
        "bbox": [x, y, w, h],
        "area": w * h * 0.6,
        "iscrowd": int(rng.random() < 0.1),
    }


def make_result(rng: np.random.Generator, person: dict[str, Any]) -> dict[str, Any]:
    """The person with noise of a random size; scores are coarse, so that some tie."""
    keypoints = np.array(person["keypoints"]).reshape(-1, 3)
    keypoints[:, :2] += rng.normal(scale=rng.uniform(0, 15), size=(NUM_KEYPOINTS, 2))
    keypoints[:, 2] = rng.uniform(0.1, 1, size=NUM_KEYPOINTS)
    score = float(np.round(rng.uniform(0.1, 1), 1))
    return {"image_id": person["image_id"], "category_id": 1, "keypoints": keypoints.ravel().tolist(), "score": score}


@pytest.fixture(scope="session")
def make_coco() -> Callable[[int, int], ToyCoco]:
    """(seed, number of images) -> ground truth and results: 0 to 4 persons an image, some missed, some found twice."""

    def make(seed: int, num_images: int) -> ToyCoco:
        rng = np.random.default_rng(seed)
        image_ids = (rng.permutation(1000)[:num_images] + 1).tolist()
        owners = [image_id for image_id in image_ids for _ in range(rng.integers(5))]
        people = [make_person(rng, 100 + number, image_id) for number, image_id in enumerate(owners)]
        results = [make_result(rng, person) for person in people for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        images = [
            {"id": image_id, "file_name": f"{image_id:012}.jpg", "width": 640, "height": 480} for image_id in image_ids
        ]
        return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}, results

    return make


@pytest.fixture
def toy_coco(make_coco: Callable[[int, int], ToyCoco]) -> ToyCoco:
    """Twenty images of `make_coco`."""
    return make_coco(0, 20)


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """(a stage's main, arguments) -> its error: one line, exit code 1, and no file made, changed or gone."""
    monkeypatch.chdir(tmp_path)

    def files() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def run(main: Callable[..., None], *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["stage", *arguments])
        before = files()
        with pytest.raises(SystemExit) as stopped:
            run_command(main)
        assert stopped.value.code == 1
        assert files() == before
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error

    return run
