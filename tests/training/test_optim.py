"""Optimiser groups and learning rates by hand."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from bench.training.optim import build_optimizer, build_schedule
from models import PoseModel
from tests.models.small import SMALL, build_small
from tests.training.toys import Recipe

RECIPE = Recipe(lr=1e-3, backbone_lr_factor=0.25, weight_decay=0.1)


def groups_of(model: PoseModel) -> dict[str, dict[str, Any]]:
    """Each parameter's name with its group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, model.backbone, RECIPE).param_groups
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_is_in_exactly_one_group(name: str) -> None:
    model = build_small(name)
    groups = build_optimizer(model, model.backbone, RECIPE).param_groups
    found = Counter(id(parameter) for group in groups for parameter in group["params"])
    assert found == Counter(id(parameter) for parameter in model.parameters())
    assert len(groups) == 4


@pytest.mark.parametrize("name", SMALL)
def test_the_backbone_learns_by_its_factor(name: str) -> None:
    rates = {key.partition(".")[0]: set() for key in groups_of(build_small(name))}
    for key, group in groups_of(build_small(name)).items():
        rates[key.partition(".")[0]].add(group["lr"])
    assert rates == {"backbone": {0.25e-3}, "decoder": {1e-3}, "presence_head": {1e-3}}


@pytest.mark.parametrize("name", SMALL)
def test_biases_and_norms_do_not_decay_and_weights_do(name: str) -> None:
    model = build_small(name)
    norms = (nn.LayerNorm, nn.BatchNorm2d)
    of_norms = {f"{key}.{leaf}" for key, m in model.named_modules() if isinstance(m, norms) for leaf in m.state_dict()}
    for key, group in groups_of(model).items():
        free = key.endswith("bias") or key in of_norms
        assert group["weight_decay"] == (0 if free else 0.1), key


def test_decay_pulls_weights_only() -> None:
    """With no gradient of the loss, AdamW moves what decays and nothing else."""
    model = build_small("vitpose-classic")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, model.backbone, RECIPE).step()
    head = model.get_submodule("presence_head.layers.0")
    block = model.get_submodule("backbone.vit.blocks.0")
    assert head.weight.unique().tolist() == pytest.approx([1 - 1e-3 * 0.1])
    assert block.attn.qkv.weight.unique().tolist() == pytest.approx([1 - 0.25e-3 * 0.1])
    for parameter in (head.bias, block.attn.qkv.bias, block.norm1.weight, block.norm1.bias):
        assert parameter.unique().tolist() == [1]


def factors(recipe: Recipe, num_steps: int) -> list[float]:
    """The learning rate of each step, at a base of 1, and the one after the last."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_schedule(optimizer, recipe, num_steps)  # type: ignore[arg-type]
    found = []
    for _ in range(num_steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("warmup", "schedule", "num_steps", "wanted"),
    [
        (0.4, "constant", 5, [0.5, 1, 1, 1, 1, 1]),
        (1.0, "constant", 4, [0.25, 0.5, 0.75, 1, 1]),
        (0.0, "constant", 3, [1, 1, 1, 1]),
        # 2 steps up, then cos over the 4 left: 0, 45, 90, 135, 180 degrees.
        (1 / 3, "cosine", 6, [0.5, 1, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        (0.0, "cosine", 1, [1, 1]),
    ],
)
def test_learning_rates_by_hand(warmup: float, schedule: str, num_steps: int, wanted: list[float]) -> None:
    assert factors(Recipe(warmup=warmup, schedule=schedule), num_steps) == pytest.approx(wanted, abs=1e-12)


def test_every_step_of_a_long_cosine_learns() -> None:
    found = factors(Recipe(warmup=0.02, schedule="cosine"), 500)
    assert min(found[:-1]) > 0
    assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] == pytest.approx(0, abs=1e-12)


def test_the_schedule_keeps_the_backbones_factor() -> None:
    model = build_small("vitpose-simple")
    optimizer = build_optimizer(model, model.backbone, RECIPE)
    schedule = build_schedule(optimizer, Recipe(warmup=0.5), 8)
    for wanted in (0.25, 0.5, 0.75, 1.0, 1.0):
        assert {round(group["lr"], 9) for group in optimizer.param_groups} == {0.25e-3 * wanted, 1e-3 * wanted}
        optimizer.step()
        schedule.step()
