"""Optimiser groups and learning rates by hand."""

import math
import re
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from bench.training.optim import build_optimizer, build_schedule
from models import PoseModel
from models.presence_heads import KeypointLinear
from tests.models.small import SMALL, build_small
from tests.training.toys import Recipe

RECIPE = Recipe(lr=1e-3, backbone_lr_factor=0.25, weight_decay=0.1)


def groups_of(model: PoseModel, recipe: Recipe = RECIPE) -> dict[str, dict[str, Any]]:
    """Each trained parameter's name with its group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, recipe).param_groups
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("trainable_layers", ["all", 1, 0])
def test_every_trained_parameter_is_in_exactly_one_group(name: str, trainable_layers: Any) -> None:
    model = build_small(name)
    model.freeze(trainable_layers)
    groups = build_optimizer(model, RECIPE).param_groups
    found = Counter(id(parameter) for group in groups for parameter in group["params"])
    assert found == Counter(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert len(groups) == (2 if trainable_layers == 0 else 4)


@pytest.mark.parametrize("name", SMALL)
def test_the_backbone_learns_by_its_factor(name: str) -> None:
    rates = {key.partition(".")[0]: set() for key in groups_of(build_small(name))}
    for key, group in groups_of(build_small(name)).items():
        rates[key.partition(".")[0]].add(group["lr"])
    assert rates == {"backbone": {0.25e-3}, "decoder": {1e-3}, "presence_head": {1e-3}}


# Where each name belongs, from the input on: the n-th of N patterns is N - 1 - n decays away from the head.
ORDERS = {
    "vitpose-classic": (r"vit\.(patch_embed|pos_embed)", *(rf"vit\.blocks\.{i}\." for i in range(3)), r"vit\.norm\."),
    "hrnet": (
        r"stages\.(conv1|bn1|conv2|bn2|layer1)\.",
        r"stages\.(transition1|stage2)\.",
        r"stages\.(transition2|stage3)\.",
        r"stages\.(transition3|stage4)\.",
        "nothing follows",
    ),
    "transpose": (r"stem\.|reduce\.", *(rf"layers\.{i}\." for i in range(3)), "nothing follows"),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_learning_rate_decays_towards_the_input(name: str) -> None:
    model = build_small(name) if name == "hrnet" else build_small(name, depth=3)
    patterns = [re.compile(rf"backbone\.({pattern})") for pattern in ORDERS[name]]
    seen = Counter()
    for key, group in groups_of(model, RECIPE._replace(layer_decay=0.5)).items():
        places = [place for place, pattern in enumerate(patterns) if pattern.match(key)]
        num_decays = len(patterns) - 1 - places[0] if places else None
        seen[num_decays] += 1
        assert len(places) == key.startswith("backbone."), key
        assert group["lr"] == pytest.approx(1e-3 if num_decays is None else 0.25e-3 * 0.5**num_decays), key
    assert set(seen) == {None, *range(0 if name.startswith("vitpose") else 1, len(patterns))}


def test_vitpose_b_has_the_published_learning_rates() -> None:
    """12 blocks at 0.75: embeddings at 0.75^13 of the rate, the first block at 0.75^12, the last norm as the head."""
    model = build_small("vitpose-classic", depth=12)
    recipe = Recipe(lr=5e-4, layer_decay=0.75, weight_decay=0.1)
    rates = {key: group["lr"] for key, group in groups_of(model, recipe).items()}
    for key, wanted in (
        ("backbone.vit.patch_embed.proj.weight", 1.187863e-05),
        ("backbone.vit.pos_embed", 1.187863e-05),
        ("backbone.vit.blocks.0.attn.qkv.weight", 1.583818e-05),
        ("backbone.vit.blocks.11.mlp.fc2.bias", 3.75e-4),
        ("backbone.vit.norm.weight", 5e-4),
        ("decoder.2.weight", 5e-4),
    ):
        assert rates[key] == pytest.approx(wanted, rel=1e-6), key
    assert len(build_optimizer(model, recipe).param_groups) == 13 * 2 + 2


def test_without_weight_decay_it_is_adam() -> None:
    """As HRNet and TransPose are trained: after three steps the same bits, and nearly those of a loop over weights."""
    models = ours, fused, plain = [build_small("vitpose-simple") for _ in range(3)]
    optimizers = [build_optimizer(ours, Recipe(lr=1e-2)), Adam(fused.parameters(), lr=1e-2, fused=True)]
    optimizers.append(Adam(plain.parameters(), lr=1e-2, foreach=False))
    for seed in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    for mine, theirs, slow in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(mine, theirs)
        torch.testing.assert_close(mine, slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_biases_norms_and_positions_do_not_decay_and_weights_do(name: str) -> None:
    model = build_small(name)
    norms = (nn.LayerNorm, nn.BatchNorm2d)
    of_norms = {f"{key}.{leaf}" for key, m in model.named_modules() if isinstance(m, norms) for leaf in m.state_dict()}
    for key, group in groups_of(model).items():
        free = key.endswith("bias") or key in of_norms or key == "backbone.vit.pos_embed"
        assert group["weight_decay"] == (0 if free else 0.1), key


def test_decay_pulls_weights_only() -> None:
    """With no gradient of the loss, AdamW moves what decays and nothing else."""
    model = build_small("vitpose-classic")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, RECIPE).step()
    assert model.presence_head is not None
    head = next(part for part in model.presence_head.modules() if isinstance(part, KeypointLinear))
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
        (0.0, "cosine", 2, [1, 0.5, 0]),
        (0.0, "cosine", 1, [1, 0]),
        # A tenth from 170 / 210 of the steps on, a hundredth from 200 / 210 on.
        (2 / 21, "step", 21, [0.5, *[1] * 16, *[0.1] * 3, *[0.01] * 2]),
        (0.0, "step", 10, [*[1] * 9, 0.1, 0.01]),
    ],
)
def test_learning_rates_by_hand(warmup: float, schedule: str, num_steps: int, wanted: list[float]) -> None:
    assert factors(Recipe(warmup=warmup, schedule=schedule), num_steps) == pytest.approx(wanted, abs=1e-12)


def test_a_cosine_ends_where_it_is_told() -> None:
    """TransPose goes from 1e-4 to 1e-5."""
    found = factors(Recipe(warmup=0.0, schedule="cosine", final_lr_factor=0.1), 4)
    half = math.sqrt(0.5)
    assert found == pytest.approx([1, 0.55 + 0.45 * half, 0.55, 0.55 - 0.45 * half, 0.1])


def test_steps_fall_on_the_published_epochs() -> None:
    """210 epochs of 293 steps, at 500 steps of warm-up: the rate changes with the first step of an epoch."""
    found = factors(Recipe(warmup=500 / (210 * 293), schedule="step"), 210 * 293)
    assert found[498:501] == pytest.approx([499 / 500, 1, 1])
    changes = [step for step in range(501, len(found)) if found[step] != found[step - 1]]
    assert changes == [170 * 293, 200 * 293]


def test_every_step_of_a_long_cosine_learns() -> None:
    found = factors(Recipe(warmup=0.02, schedule="cosine"), 500)
    assert min(found[:-1]) > 0
    assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] == pytest.approx(0, abs=1e-12)


def test_the_schedule_keeps_the_backbones_factor() -> None:
    model = build_small("vitpose-simple")
    optimizer = build_optimizer(model, RECIPE)
    schedule = build_schedule(optimizer, Recipe(warmup=0.5), 8)
    for wanted in (0.25, 0.5, 0.75, 1.0, 1.0):
        assert {round(group["lr"], 9) for group in optimizer.param_groups} == {0.25e-3 * wanted, 1e-3 * wanted}
        optimizer.step()
        schedule.step()
