"""What the shared shape adds to a backbone and a decoder: normalisation, a head's place, freezing."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.pose_model import NORMALISATIONS, Backbone, PoseModel
from models.presence_heads import HEADS
from tests.models.small import INPUT_SIZE, SMALL, build_small, make_images

NUM_KEYPOINTS = 5
CONV_HEAD = {"type": "conv", "dropout": 0.0, "dropout_at": "hidden", "detach": False}


class ToyLayer(nn.Sequential):
    def __init__(self, num_channels: int) -> None:
        super().__init__(nn.Conv2d(num_channels, num_channels, 1), nn.BatchNorm2d(num_channels), nn.Dropout(0.5))


class ToyBackbone(Backbone):
    """A stem of a quarter of the resolution, two layers, a norm, and a constant that is never learnt."""

    num_channels = 6
    num_layers = 2

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.layers = nn.ModuleList([ToyLayer(6), ToyLayer(6)])
        self.norm = nn.BatchNorm2d(6)
        self.position = nn.Parameter(torch.ones(6, 1, 1), requires_grad=False)

    def layer_of(self, name: str) -> int:
        part, *rest = name.split(".")
        return {"stem": 0, "position": 0, "norm": 3}[part] if part != "layers" else int(rest[0]) + 1

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image) + self.position
        for layer in self.layers:
            features = layer(features)
        return self.norm(features)


def make_toy(head: dict[str, Any] | None = None, normalisation: str = "imagenet") -> PoseModel:
    torch.manual_seed(0)
    return PoseModel(
        ToyBackbone(),
        nn.Conv2d(6, NUM_KEYPOINTS, 1),
        input_size=(32, 48),
        num_keypoints=NUM_KEYPOINTS,
        normalisation=normalisation,
        presence_head=head,
    )


def make_head(kind: str, **changes: Any) -> dict[str, Any]:
    sizes = {"pool": 4, "hidden": 6} if HEADS[kind].reads == "heatmaps" else {}
    return {"type": kind, "dropout": 0.0, "dropout_at": "hidden", "detach": False, **sizes, **changes}


def images(num: int = 2, size: tuple[int, int] = (32, 48)) -> Tensor:
    width, height = size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("imagenet", [(1 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, -0.406 / 0.225]),
        ("half", [1.0, -0.2, -1.0]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalisation_by_hand(name: str, wanted: list[float], dtype: torch.dtype) -> None:
    image = torch.tensor([255, 102, 0], dtype=dtype)[None, :, None, None].expand(2, 3, 4, 5)
    normalised = make_toy(normalisation=name).normalise(image)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised, torch.tensor(wanted)[None, :, None, None].expand(2, 3, 4, 5))


def test_the_backbone_sees_the_normalised_image() -> None:
    model = make_toy().eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in NORMALISATIONS["imagenet"])
    wanted = model.decoder(model.backbone((images() / 255 - mean) / std))
    torch.testing.assert_close(model(images()).heatmaps, wanted)


def test_normalisation_is_no_weight() -> None:
    assert not [name for name in make_toy().state_dict() if name.startswith("pixel")]


def test_a_normalisation_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^normalisation: found 'coco', wanted imagenet or half$"):
        make_toy(normalisation="coco")


@pytest.mark.parametrize("shape", [(2, 1, 48, 32), (3, 48, 32), (2, 48, 32, 3)])
def test_an_image_of_another_layout_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^image: found shape {re.escape(str(shape))}, wanted \(B, 3, H, W\)$"):
        make_toy()(torch.zeros(shape, dtype=torch.uint8))


def test_the_size_of_the_heatmaps_is_measured_and_leaves_no_trace() -> None:
    model = make_toy()
    assert model.heatmap_size == (8, 12)
    assert all(module.training for module in model.modules())
    assert model.backbone.norm.num_batches_tracked == 0


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_answers_with_a_logit_for_each_keypoint(kind: str) -> None:
    output = make_toy(make_head(kind))(images())
    assert output.heatmaps.shape == (2, NUM_KEYPOINTS, 12, 8)
    assert output.presence_logits is not None
    assert output.presence_logits.shape == (2, NUM_KEYPOINTS)
    assert (output.visibility_logits is not None) == (kind == "three_class")


@pytest.mark.parametrize("kind", HEADS)
def test_a_detached_head_teaches_neither_decoder_nor_backbone(kind: str) -> None:
    for detach in (False, True):
        model = make_toy(make_head(kind, detach=detach))
        logits = model(images()).presence_logits
        assert logits is not None
        logits.square().sum().backward()
        assert (model.backbone.stem.weight.grad is None) == detach
        reads_heatmaps = HEADS[kind].reads == "heatmaps"
        assert (model.decoder.weight.grad is not None) == (reads_heatmaps and not detach)


def varying(model: PoseModel) -> tuple[bool, bool]:
    """Whether heatmaps and presence differ between two passes, by nothing but the dropout of the head."""
    model.train()
    model.backbone.eval()
    first, second = model(images()), model(images())
    assert first.presence_logits is not None
    heatmaps_differ = not torch.equal(first.heatmaps, second.heatmaps)
    return heatmaps_differ, not torch.equal(first.presence_logits, second.presence_logits)


@pytest.mark.parametrize("kind", HEADS)
def test_dropout_on_features_reaches_heatmaps_too_and_no_other_place_does(kind: str) -> None:
    assert varying(make_toy(make_head(kind))) == (False, False)
    for place in HEADS[kind].places:
        model = make_toy(make_head(kind, dropout=0.5, dropout_at=place))
        assert varying(model) == (place == "features", True)


def test_a_model_is_built_without_memory() -> None:
    with torch.device("meta"):
        model = make_toy(make_head("three_class"))
    assert model.heatmap_size == (8, 12)
    assert {value.device.type for value in (*model.parameters(), *model.buffers())} == {"meta"}


# Freezing: which tensors one step moves. Regular expressions of the backbone's names, for each number of layers left.
FROZEN: dict[str, dict[int | str, str]] = {
    "vitpose-classic": {
        "all": "nothing",
        0: ".*",
        1: r"vit\.(pos_embed|patch_embed|blocks\.0\.).*",
        2: r"vit\.(pos_embed|patch_embed).*",
    },
    "hrnet": {
        "all": "nothing",
        0: ".*",
        1: r"stages\.(conv1|bn1|conv2|bn2|layer1|transition1|stage2|transition2|stage3)\..*",
        2: r"stages\.(conv1|bn1|conv2|bn2|layer1|transition1|stage2)\..*",
        3: r"stages\.(conv1|bn1|conv2|bn2|layer1)\..*",
    },
    "transpose": {
        "all": "nothing",
        0: ".*",
        1: r"(stem|reduce|layers\.0)\..*",
        2: r"(stem|reduce)\..*",
    },
}
CONSTANT = "backbone.position"
EVERY_FREEZE = [(name, layers) for name, choices in FROZEN.items() for layers in choices]


def build_deep(name: str) -> PoseModel:
    """A small model of two layers at least, with a gradient for every parameter from the first step on."""
    model = build_small(name, head=CONV_HEAD, **({} if name == "hrnet" else {"depth": 2}))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # residual branches that start with a factor 0 stop gradients
                parameter.normal_(std=0.1)
    return model


def train_step(model: PoseModel) -> set[str]:
    """Names of the state dict that one step of the optimiser, and the batch it reads, change."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=0.01)
    model.train()
    output = model(images(2, INPUT_SIZE))
    target = torch.rand(output.heatmaps.shape, generator=torch.Generator().manual_seed(2))
    assert output.presence_logits is not None
    loss = functional.mse_loss(output.heatmaps, target) + output.presence_logits.square().mean()
    loss.backward()
    optimizer.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(("name", "layers"), EVERY_FREEZE)
def test_a_step_moves_what_is_left_to_training_and_nothing_else(name: str, layers: int) -> None:
    """Every tensor is compared, batch statistics too."""
    model = build_deep(name)
    model.freeze(layers)
    frozen = re.compile(f"backbone\\.{FROZEN[name][layers]}")
    wanted = {key for key in model.state_dict() if not frozen.fullmatch(key) and key != CONSTANT}
    assert train_step(model) == wanted
    assert all(parameter.grad is None for parameter in model.parameters() if not parameter.requires_grad)


@pytest.mark.parametrize("name", FROZEN)
def test_more_layers_than_there_are_are_refused(name: str) -> None:
    model = build_deep(name)
    most = model.backbone.num_layers
    model.freeze(most)
    for wrong in (most + 1, -1):
        with pytest.raises(ValueError, match=f"^found {wrong}, wanted all or 0 to {most} layers, as the backbone has$"):
            model.freeze(wrong)


@pytest.mark.parametrize("name", SMALL)
def test_every_name_of_a_backbone_has_a_layer(name: str) -> None:
    backbone = build_small(name).backbone
    layers = {backbone.layer_of(key) for key in backbone.state_dict()}
    assert set(range(backbone.num_layers + 1)) <= layers <= set(range(backbone.num_layers + 2))


def test_what_is_frozen_drops_nothing_in_training() -> None:
    model = make_toy()
    model.freeze(0)
    model.train()
    assert torch.equal(model(images()).heatmaps, model(images()).heatmaps)
    assert not any(module.training for module in model.backbone.modules())
    assert model.decoder.training
    model.freeze(1)
    first, second = model.backbone.layers
    assert not any(module.training for module in first.modules())
    assert all(module.training for module in (*second.modules(), model.backbone.norm))


def test_training_and_evaluation_can_alternate() -> None:
    """As in a training that validates after each epoch."""
    model = make_toy()
    model.freeze(1)
    wanted = [module.training for module in model.train().modules()]
    model.eval()
    assert not any(module.training for module in model.modules())
    assert [module.training for module in model.train().modules()] == wanted
    assert {True, False} == set(wanted)


def test_freezing_starts_from_the_whole_model_and_never_wakes_a_constant() -> None:
    model = make_toy()
    for layers in (0, 1, "all"):
        model.freeze(layers)
    asleep = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert asleep == [CONSTANT]
    assert all(module.training for module in model.modules())


def test_a_copy_is_frozen_by_itself() -> None:
    model = make_toy()
    model.freeze(0)
    other = copy.deepcopy(model)
    model.freeze("all")
    other.train()
    assert not other.backbone.norm.training
    assert model.train().backbone.norm.training


def test_a_frozen_model_still_says_what_it_did() -> None:
    model = make_toy(CONV_HEAD).eval()
    before = model(images())
    model.freeze(1)
    for found, wanted in zip(model(images())[:2], before[:2], strict=True):
        assert found is not None
        assert wanted is not None
        assert torch.equal(found, wanted)
    assert not model.training


@pytest.mark.parametrize("name", SMALL)
def test_the_order_of_weights_in_memory_is_no_part_of_a_result(name: str) -> None:
    """Convolutional models keep channels last; what is loaded into them is ordered so too."""
    model = build_small(name)
    image = make_images(2)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()
    torch.testing.assert_close(model.eval()(image).heatmaps, plain(image).heatmaps, rtol=1e-4, atol=1e-5)
    model.load_state_dict(plain.state_dict())
    wide = [value for value in model.parameters() if value.ndim == 4 and min(value.shape) > 1]
    assert all(value.is_contiguous(memory_format=model.backbone.memory_format) for value in wide)
