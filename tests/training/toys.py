"""Small recipes, a small model and samples of drawn people."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from lightning_fabric import Fabric

from bench.data.augment import Augmentation
from bench.data.coco import CocoDict, Person
from bench.data.codec import Codec
from bench.data.dataset import Crop, PoseDataset
from bench.training.loop import Fit, Objective, fit
from models import PoseModel, build_model

INPUT_SIZE = (32, 48)  # (w, h)


class Recipe(NamedTuple):
    lr: float = 3e-3
    backbone_lr_factor: float = 1.0
    weight_decay: float = 0.0
    warmup: float = 0.1
    schedule: str = "constant"
    clip_norm: float = 1.0


class Weights(NamedTuple):
    heatmap_weight: float = 1.0
    presence_weight: float = 0.01
    absent_heatmaps: str = "mask"


class Length(NamedTuple):
    epochs: int = 2
    batch_size: int = 4
    num_workers: int = 0


def make_model(seed: int = 0, dropout: float = 0.0, embed_dim: int = 32) -> PoseModel:
    """ViTPose with a presence head, in microscopic sizes."""
    torch.manual_seed(seed)
    return build_model(
        "vitpose",
        input_size=INPUT_SIZE,
        num_keypoints=17,
        presence_head={"type": "mlp", "pool": 4, "hidden": 8, "dropout": dropout},
        patch_size=8,
        embed_dim=embed_dim,
        depth=2,
        num_heads=4,
        drop_path=0.0,
        decoder="simple",
        decoder_channels=8,
        init="random",
    )


def make_codec(model: PoseModel) -> Codec:
    return Codec(INPUT_SIZE, model.heatmap_size, 4.0)


def make_samples(persons: Sequence[Person], augmentation: Augmentation | None = None, seed: int = 0) -> PoseDataset:
    return PoseDataset(persons, Crop(INPUT_SIZE, 1.25), "labelled", augmentation, seed)


class Training(NamedTuple):
    """One call of `fit` on the CPU, and what it logged."""

    result: Fit
    log: list[dict[str, float]]


def train(
    model: PoseModel,
    train_set: PoseDataset,
    calibration_set: PoseDataset,
    calibration: CocoDict,
    recipe: Recipe = Recipe(),  # noqa: B008  # a tuple, which nobody can change
    length: Length = Length(),  # noqa: B008
    weights: Weights = Weights(),  # noqa: B008
) -> Training:
    log: list[dict[str, float]] = []
    objective = Objective(make_codec(model), weights, recipe, length)
    fabric = Fabric(accelerator="cpu", devices=1)
    return Training(fit(model, fabric, train_set, calibration_set, calibration, objective, log.append), log)
