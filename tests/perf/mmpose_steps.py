"""The steps of a top-down training sample as mmpose 1.x takes them: one person at a time, from the file.

Written anew from what they are documented to do: LoadImage, GetBBoxCenterScale, RandomFlip, RandomHalfBody,
RandomBBoxTransform, TopdownAffine with UDP's warp, GenerateTarget with the UDPHeatmap codec, PackPoseInputs; then the
collating and the normalising of its PoseDataPreprocessor. Left out, in its favour: what its dataset and registry do
before the first step (a person's record is unpickled there), and the records that it packs beside image and target.
mmpose 1.3.2 itself, installed apart, took 1.3 times as long as this at 192 x 256 and 1.4 times at 64 x 96 (COCO's
photographs, one core), so a ratio to this is less than the one to mmpose.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import truncnorm
from torch import Tensor

from bench.data.augment import LOWER_BODY, UPPER_BODY, Augmentation
from bench.data.coco import Person
from bench.data.codec import Codec
from bench.data.keypoints import flip_order

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Step = dict[str, Any]


class Batch(NamedTuple):
    image: Tensor  # (B, 3, H, W) float32, normalised
    target: Tensor  # (B, K, h, w)
    target_weight: Tensor  # (B, K)


def load_image(file: Path) -> NDArray[np.uint8]:
    """(H, W, 3), BGR, by way of the file's bytes."""
    image = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert image is not None
    return image


def record_of(person: Person) -> Step:
    """What mmpose's COCO dataset holds of a person: arrays of one instance, in float32."""
    x, y, width, height = person.bbox
    return {
        "file": person.image_file,
        "bbox": np.array([[x, y, x + width, y + height]], np.float32),
        "keypoints": person.keypoints[None].astype(np.float32),
        "visible": np.minimum(1, person.labels.visibility)[None].astype(np.float32),
    }


def center_and_scale(step: Step, padding: float) -> None:
    x1, y1, x2, y2 = np.hsplit(step["bbox"], [1, 2, 3])
    step["center"] = np.hstack([x1 + x2, y1 + y2]) * 0.5
    step["scale"] = np.hstack([x2 - x1, y2 - y1]) * padding


def random_flip(step: Step, probability: float, rng: np.random.Generator) -> None:
    """Of the whole image, before the crop."""
    if rng.choice([True, False], p=[probability, 1 - probability]):
        width = step["image"].shape[1]
        step["image"] = cv2.flip(step["image"], 1)
        step["center"][:, 0] = width - 1 - step["center"][:, 0]
        order = flip_order()
        step["keypoints"] = step["keypoints"][:, order]
        step["visible"] = step["visible"][:, order]
        step["keypoints"][..., 0] = width - 1 - step["keypoints"][..., 0]


def random_half_body(step: Step, probability: float, rng: np.random.Generator) -> None:
    centers, scales = [], []
    for i, visible in enumerate(step["visible"]):
        chosen = _half(visible, probability, rng)
        if chosen is None:
            centers.append(step["center"][i])
            scales.append(step["scale"][i])
        else:
            points = step["keypoints"][i][chosen]
            centers.append(points.mean(axis=0)[:2])
            scales.append((points.max(axis=0) - points.min(axis=0)) * 1.5)
    step["center"], step["scale"] = np.stack(centers), np.stack(scales)


def _half(visible: NDArray[np.float32], probability: float, rng: np.random.Generator) -> list[int] | None:
    if visible.sum() < 9 or rng.random() > probability:
        return None
    upper, lower = ([int(k) for k in half if visible[k] > 0] for half in (UPPER_BODY, LOWER_BODY))
    prefer_upper = rng.random() < 0.7
    if len(upper) < 2 and len(lower) < 3:
        return None
    if len(lower) < 3:
        return upper
    return lower if len(upper) < 2 or not prefer_upper else upper


def random_bbox_transform(step: Step, augmentation: Augmentation, rng: np.random.Generator) -> None:
    """Three quantities from one draw of truncated normal numbers; mmpose turns by 2 x 40 degrees at most, as we do."""
    number = len(step["scale"])
    drawn = truncnorm.rvs(-1.0, 1.0, size=(number, 4), random_state=rng).astype(np.float32)
    shifted = rng.random((number, 1)) < augmentation.shift_probability
    offset = np.where(shifted, drawn[:, :2] * augmentation.shift, 0.0)
    scale = np.where(rng.random((number, 1)) < 1.0, 1 + drawn[:, 2:3] * augmentation.scale, 1.0)
    turned = rng.random(number) < augmentation.rotation_probability
    step["center"] = step["center"] + offset * step["scale"]
    step["scale"] = step["scale"] * scale
    step["rotation"] = np.where(turned, drawn[:, 3] * 2 * augmentation.rotation, 0.0)


def topdown_affine(step: Step, input_size: tuple[int, int]) -> None:
    width, height = input_size
    w, h = np.hsplit(step["scale"], [1])
    wider = w > h * (width / height)
    scale = np.where(wider, np.hstack([w, w / (width / height)]), np.hstack([h * (width / height), h]))
    matrix = udp_matrix(step["center"][0], scale[0], float(step["rotation"][0]), input_size)
    step["image"] = cv2.warpAffine(step["image"], matrix, input_size, flags=cv2.INTER_LINEAR)
    step["keypoints_input"] = cv2.transform(step["keypoints"], matrix)


def udp_matrix(center: Any, scale: Any, degrees: float, input_size: tuple[int, int]) -> NDArray[np.float32]:
    """(2, 3) from image to input pixels, lengths counted between pixel centres (Huang et al., CVPR 2020)."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    zoom_x, zoom_y = (input_size[0] - 1) / scale[0], (input_size[1] - 1) / scale[1]
    matrix = np.zeros((2, 3), np.float32)
    matrix[0] = zoom_x * cos, -zoom_x * sin, zoom_x * (-center[0] * cos + center[1] * sin + scale[0] / 2)
    matrix[1] = zoom_y * sin, zoom_y * cos, zoom_y * (-center[0] * sin - center[1] * cos + scale[1] / 2)
    return matrix


def generate_target(step: Step, codec: Codec) -> None:
    """Heatmap by heatmap: the Gaussian about the true place, within three sigma of the pixel nearest to it."""
    sigma, last = codec.sigma_heatmap, np.array(codec.heatmap_size) - 1
    places = step["keypoints_input"][0] / np.array(codec.stride, np.float32)
    target = np.zeros((len(places), last[1] + 1, last[0] + 1), np.float32)
    weight = step["visible"][0].copy()
    for k, place in enumerate(places):
        if weight[k] == 0:
            continue
        pixel = np.floor(place + 0.5)
        low = np.maximum(np.ceil(pixel - 3 * sigma), 0).astype(int)
        high = np.minimum(np.floor(pixel + 3 * sigma), last).astype(int)
        if (low > high).any():
            weight[k] = 0
            continue
        x = np.arange(low[0], high[0] + 1, dtype=np.float32) - place[0]
        y = np.arange(low[1], high[1] + 1, dtype=np.float32) - place[1]
        gaussian = np.exp(-(x**2 + y[:, None] ** 2) / (2 * sigma**2))
        target[k, low[1] : high[1] + 1, low[0] : high[0] + 1] = gaussian
    step["target"], step["target_weight"] = target, weight


def pack(step: Step) -> tuple[Tensor, Tensor, Tensor]:
    image = torch.from_numpy(np.ascontiguousarray(step["image"].transpose(2, 0, 1)))
    return image, torch.from_numpy(step["target"]), torch.from_numpy(step["target_weight"])


def sample_of(
    record: Step, codec: Codec, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Image (3, H, W) uint8 BGR, target and its weight."""
    step = {name: value if name == "file" else value.copy() for name, value in record.items()}
    step["image"] = load_image(step["file"])
    center_and_scale(step, 1.25)
    random_flip(step, augmentation.flip, rng)
    random_half_body(step, augmentation.half_body, rng)
    random_bbox_transform(step, augmentation, rng)
    topdown_affine(step, codec.input_size)
    generate_target(step, codec)
    return pack(step)


def batches(
    records: Sequence[Step], codec: Codec, augmentation: Augmentation, batch_size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for start in range(0, len(records), batch_size):
        samples = [sample_of(record, codec, augmentation, rng) for record in records[start : start + batch_size]]
        images = [(image[[2, 1, 0]].float() - mean) / std for image, _, _ in samples]
        yield Batch(torch.stack(images), *(torch.stack([sample[i] for sample in samples]) for i in (1, 2)))
