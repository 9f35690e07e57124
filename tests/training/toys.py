"""Small recipes, a small model and samples of drawn people."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric

from bench.data.augment import Augmentation
from bench.data.coco import CocoDict, Person
from bench.data.codec import Codec
from bench.data.dataset import PoseDataset
from bench.data.geometry import Crop
from bench.training.loop import Fit, Length, Objective, fit
from bench.training.resume import StateFile
from models import PoseModel, build_model
from models.presence_heads import HEADS

INPUT_SIZE = (32, 48)  # (w, h)
NO_STATE = StateFile(Path("never"), "", seconds_between=math.inf)
LENGTH = Length(epochs=2, batch_size=4, num_workers=0)


class Recipe(NamedTuple):
    lr: float = 3e-3
    backbone_lr_factor: float = 1.0
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    warmup: float = 0.1
    schedule: str = "constant"
    final_lr_factor: float = 0.0
    clip_norm: float | None = 1.0


class Weights(NamedTuple):
    heatmap_weight: float = 1.0
    presence_weight: float = 0.01
    absent_heatmaps: str = "mask"
    heatmap_mean: str = "labelled"
    weighting: str = "fixed"


def make_model(
    seed: int = 0, dropout: float = 0.0, embed_dim: int = 32, head: str = "mlp", drop_path: float = 0.0
) -> PoseModel:
    """ViTPose with a presence head, in microscopic sizes."""
    torch.manual_seed(seed)
    sizes = {"pool": 4, "hidden": 8} if HEADS[head].reads == "heatmaps" else {}
    return build_model(
        "vitpose",
        input_size=INPUT_SIZE,
        num_keypoints=17,
        normalisation="imagenet",
        presence_head=sizes | {"type": head, "dropout": dropout, "dropout_at": "hidden", "detach": False},
        patch_size=8,
        patch_padding=0,
        embed_dim=embed_dim,
        depth=2,
        num_heads=4,
        drop_path=drop_path,
        decoder="simple",
        decoder_channels=8,
        init="random",
    )


def make_codec(model: PoseModel, name: str = "udp") -> Codec:
    return Codec(name, INPUT_SIZE, model.heatmap_size, 4.0)


def make_samples(
    persons: Sequence[Person], augmentation: Augmentation | None = None, seed: int = 0, *, aligned: bool = True
) -> PoseDataset:
    crop = Crop(INPUT_SIZE, bbox_padding=1.25, fit="extend", aligned=aligned)
    return PoseDataset(persons, crop, "labelled", augmentation, seed)


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
    length: Length = LENGTH,
    weights: Weights = Weights(),  # noqa: B008
    state_file: StateFile = NO_STATE,
    fabric: Fabric | None = None,
) -> Training:
    log: list[dict[str, float]] = []
    objective = Objective(make_codec(model), weights, recipe, length)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    result = fit(model, fabric, train_set, calibration_set, calibration, objective, log.append, state_file)
    return Training(result, log)
