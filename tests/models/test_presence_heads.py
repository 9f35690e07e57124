"""What each head computes, beside plain loops, and where dropout and gradients go."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.presence_heads import (
    HEADS,
    HeadShapes,
    KeypointLinear,
    MlpPresenceHead,
    PresenceHead,
    build_head,
    pooling_block,
)

NUM_KEYPOINTS = 5
NUM_CHANNELS = 6
SHAPES = HeadShapes(NUM_KEYPOINTS, heatmap_size=(8, 12), num_channels=NUM_CHANNELS)
ON_HEATMAPS = ("mlp", "shared_mlp", "three_class")
ON_FEATURES = ("linear", "conv")
PLACES = {
    "mlp": ("features", "heatmaps", "pooled", "hidden"),
    "shared_mlp": ("features", "heatmaps", "pooled", "hidden"),
    "three_class": ("features", "heatmaps", "pooled", "hidden"),
    "linear": ("features", "hidden"),
    "conv": ("features", "hidden"),
}
EVERY_PLACE = [(kind, place) for kind, places in PLACES.items() for place in places]


def make_head(kind: str = "mlp", **changes: Any) -> PresenceHead:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"dropout": 0.0, "dropout_at": "hidden", "detach": False}
    if kind in ON_HEATMAPS:
        sizes |= {"pool": 4, "hidden": 7}
    return build_head(SHAPES, type=kind, **(sizes | changes))


def seen_by(kind: str, num: int = 3) -> Tensor:
    """Heatmaps or features, as a head of the type reads."""
    num_maps = NUM_KEYPOINTS if kind in ON_HEATMAPS else NUM_CHANNELS
    return torch.randn(num, num_maps, 12, 8, generator=torch.Generator().manual_seed(1))


def heatmaps() -> Tensor:
    return seen_by("mlp")


def as_linears(layer: KeypointLinear) -> list[nn.Linear]:
    """The same weights as one `nn.Linear` per keypoint."""
    linears = []
    for weight, bias in zip(layer.weight, layer.bias, strict=True):
        linear = nn.Linear(*weight.shape)
        linear.load_state_dict({"weight": weight.T, "bias": bias[0]})
        linears.append(linear)
    return linears


def looped(head: PresenceHead, maps: Tensor) -> Tensor:
    """Max over 4 x 4 windows, linear, ReLU, linear, for one keypoint after the other: (B, K, outputs)."""
    layers = [layer for layer in head.modules() if isinstance(layer, KeypointLinear | nn.Linear)]
    per_keypoint = [as_linears(x) if isinstance(x, KeypointLinear) else [x] * NUM_KEYPOINTS for x in layers]
    answers = []
    for keypoint, (first, second) in enumerate(zip(*per_keypoint, strict=True)):
        pooled = maps[:, keypoint].unflatten(2, (2, 4)).unflatten(1, (3, 4)).amax((2, 4)).flatten(1)  # (B, 3*2)
        answers.append(second(first(pooled).relu()))
    return torch.stack(answers, dim=1)


def test_keypoint_linear_is_a_loop_of_linears() -> None:
    layer = KeypointLinear(NUM_KEYPOINTS, in_features=7, out_features=4)
    features = torch.randn(3, NUM_KEYPOINTS, 7)
    wanted = [linear(features[:, keypoint]) for keypoint, linear in enumerate(as_linears(layer))]
    torch.testing.assert_close(layer(features), torch.stack(wanted, dim=1))


def test_keypoint_linear_starts_as_linear_does() -> None:
    """Uniform within 1 / sqrt(in), and no two keypoints alike."""
    torch.manual_seed(0)
    layer = KeypointLinear(NUM_KEYPOINTS, in_features=400, out_features=50)
    for values in (layer.weight, layer.bias):
        assert 0.045 < values.abs().max() <= 0.05
        assert abs(values.std().item() - 0.05 / 3**0.5) < 0.003
    assert len({weight[0, 0].item() for weight in layer.weight}) == NUM_KEYPOINTS


def test_the_heads_say_what_they_read_and_where_dropout_can_act() -> None:
    assert {kind: head.reads for kind, head in HEADS.items()} == {
        **dict.fromkeys(ON_HEATMAPS, "heatmaps"),
        **dict.fromkeys(ON_FEATURES, "features"),
    }
    assert {kind: head.places for kind, head in HEADS.items()} == PLACES


@pytest.mark.parametrize("kind", ON_HEATMAPS)
def test_a_head_on_heatmaps_is_pool_linear_relu_linear_for_each_keypoint(kind: str) -> None:
    head = make_head(kind)
    presence, visibility = head(heatmaps())
    if kind == "three_class":
        torch.testing.assert_close(visibility, looped(head, heatmaps()))
    else:
        torch.testing.assert_close(presence, looped(head, heatmaps())[..., 0])
        assert visibility is None


@pytest.mark.parametrize(("kind", "networks"), [("mlp", NUM_KEYPOINTS), ("shared_mlp", 1)])
def test_one_network_for_each_keypoint_or_for_all(kind: str, networks: int) -> None:
    count = sum(parameter.numel() for parameter in make_head(kind).parameters())
    assert count == networks * ((6 * 7 + 7) + (7 + 1))


def test_the_shared_network_gives_keypoints_that_change_places_the_same_answers() -> None:
    order = torch.tensor([2, 0, 1, 4, 3])
    for kind, same in (("shared_mlp", True), ("mlp", False)):
        head = make_head(kind)
        assert torch.allclose(head(heatmaps()[:, order]).presence, head(heatmaps()).presence[:, order]) == same


def test_presence_of_a_three_class_head_is_the_softmax_of_what_is_not_unlabelled() -> None:
    presence, visibility = make_head("three_class")(heatmaps())
    assert visibility is not None
    assert visibility.shape == (3, NUM_KEYPOINTS, 3)
    probability = visibility.softmax(-1)  # not labelled, occluded, visible
    torch.testing.assert_close(presence.sigmoid(), probability[..., 1] + probability[..., 2])


def test_a_linear_head_is_the_mean_of_each_channel_and_a_linear_map() -> None:
    head = make_head("linear")
    weight, bias = head.state_dict().values()
    wanted = seen_by("linear").flatten(2).mean(2) @ weight.T + bias
    torch.testing.assert_close(head(seen_by("linear")).presence, wanted)


def plain_conv_head(head: PresenceHead, features: Tensor) -> Tensor:
    """On features of 12 x 16 (w, h), with the paper's own windows and the functions of torch."""
    state = [value for value in head.state_dict().values() if value.ndim]  # without num_batches_tracked
    for (weight, scale, shift, mean, var), window in zip(
        (state[:5], state[5:10], state[10:15]), ((4, 3), (2, 2), (2, 2)), strict=True
    ):
        convolved = functional.conv2d(features, weight, padding=1)
        normed = functional.batch_norm(convolved, mean, var, scale, shift)
        features = functional.max_pool2d(normed, window).relu()
    weight, bias = state[15:]
    return features[:, :, 0, 0] @ weight[:, :, 0, 0].T + bias


def test_a_conv_head_on_the_papers_features_pools_with_the_papers_windows() -> None:
    head = make_head("conv").eval()
    with torch.no_grad():
        for value in head.state_dict().values():
            if value.ndim == 1:
                value.uniform_(0.5, 1.5)  # uneven statistics
    features = torch.randn(3, NUM_CHANNELS, 16, 12)
    torch.testing.assert_close(head(features).presence, plain_conv_head(head, features))


@pytest.mark.parametrize("size", [(14, 14), (6, 4), (1, 1), (3, 64), (24, 18)])
def test_a_conv_head_reads_features_of_every_size(size: tuple[int, int]) -> None:
    """And all of them: the largest value of a channel reaches the answer from wherever it is."""
    features = torch.zeros(2, NUM_CHANNELS, *size)
    assert make_head("conv")(features).presence.shape == (2, NUM_KEYPOINTS)
    assert pooling_block(NUM_CHANNELS, 4)(features).shape[2:] == (4, 4)
    head = make_head("conv").eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.abs_()  # so that no ReLU stops it
    for row, column in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 2)):
        features[0] = 0
        features[0, :, row, column] = 100
        answers = head(features).presence
        assert not torch.equal(answers[0], answers[1])


@pytest.mark.parametrize("keypoint", range(NUM_KEYPOINTS))
@pytest.mark.parametrize("kind", ON_HEATMAPS)
def test_a_heatmap_moves_only_its_own_logit(kind: str, keypoint: int) -> None:
    head = make_head(kind)
    changed = heatmaps()
    changed[:, keypoint] += 1
    moved = head(changed).presence != head(heatmaps()).presence
    assert moved[:, keypoint].all()
    assert moved.sum() == len(changed)


def test_the_gradient_of_a_logit_stays_in_its_heatmap() -> None:
    maps = heatmaps().requires_grad_()
    make_head()(maps).presence[:, 2].sum().backward()
    assert maps.grad is not None
    reached = maps.grad.abs().sum((0, 2, 3)) > 0
    assert reached.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("kind", HEADS)
def test_a_detached_head_learns_and_gives_no_gradient_to_what_it_reads(kind: str) -> None:
    for detach in (False, True):
        seen = seen_by(kind).requires_grad_()
        head = make_head(kind, detach=detach)
        head(seen).presence.square().sum().backward()
        assert all(parameter.grad is not None for parameter in head.parameters())
        assert (seen.grad is None) == detach


@pytest.mark.parametrize("kind", HEADS)
def test_detaching_changes_no_answer(kind: str) -> None:
    attached, detached = (make_head(kind, detach=detach)(seen_by(kind)).presence for detach in (False, True))
    assert torch.equal(attached, detached)


@pytest.mark.parametrize(("kind", "place"), EVERY_PLACE)
def test_dropout_acts_once_in_its_place_and_in_training_alone(kind: str, place: str) -> None:
    head = make_head(kind, dropout=0.5, dropout_at=place)
    rates = [layer.p for layer in head.modules() if isinstance(layer, nn.Dropout)]
    assert sorted(rates) == [0.0] * (len(PLACES[kind]) - 1) + [0.5]

    def answer() -> Tensor:
        return head(head.feature_dropout(seen_by(kind)) if place == "features" else seen_by(kind)).presence

    assert not torch.equal(answer(), answer())
    head.eval()
    assert torch.equal(answer(), answer())


@pytest.mark.parametrize(("kind", "place"), EVERY_PLACE)
def test_what_dropout_sees_has_the_shape_of_its_place(kind: str, place: str) -> None:
    head = make_head(kind, dropout=0.5, dropout_at=place)
    (layer,) = (layer for layer in head.modules() if isinstance(layer, nn.Dropout) and layer.p)
    shapes: list[tuple[int, ...]] = []
    layer.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    head(seen_by(kind))
    hidden = {"linear": (3, NUM_CHANNELS), "conv": (3, NUM_CHANNELS, 1, 1)}.get(kind, (3, NUM_KEYPOINTS, 7))
    wanted = {
        "features": [],  # before the decoder, in the model
        "heatmaps": [(3, NUM_KEYPOINTS, 12, 8)],
        "pooled": [(3, NUM_KEYPOINTS, 6)],
        "hidden": [hidden],
    }
    assert shapes == wanted[place]


@pytest.mark.parametrize("kind", ON_FEATURES)
@pytest.mark.parametrize("place", ["heatmaps", "pooled"])
def test_a_head_on_features_has_no_other_places(kind: str, place: str) -> None:
    message = f"^presence head: found dropout_at '{place}', wanted features or hidden$"
    with pytest.raises(ValueError, match=message):
        make_head(kind, dropout_at=place)


def test_a_type_that_does_not_exist_is_refused() -> None:
    message = "^presence head: found type 'cnn', wanted mlp, shared_mlp, three_class, linear, conv$"
    with pytest.raises(ValueError, match=message):
        make_head("cnn")


@pytest.mark.parametrize("pool", [3, 8])
def test_the_window_must_divide_both_sides(pool: int) -> None:
    """3 divides the height of 12 alone, 8 the width of 8 alone."""
    with pytest.raises(ValueError, match=f"^presence head: pool {pool} does not divide heatmaps of 8 x 12$"):
        MlpPresenceHead(SHAPES, pool=pool, hidden=4, dropout=0.0, dropout_at="hidden", detach=False)


def test_a_pool_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^presence head: found pool_type 'min', wanted max or mean$"):
        make_head(pool_type="min")


def test_the_mean_pool_sees_all_of_its_window() -> None:
    """Of a window only the highest value reaches max-pooling; mean-pooling is moved by any."""
    seen, other = heatmaps(), heatmaps()
    other[:, :, 0, 0] = seen.min() - 1  # may be the highest of no window but those where it is already
    highest = seen[:, :, :4, :4].flatten(2).argmax(-1) == 0
    for kind, moved in (("mean", torch.ones_like(highest)), ("max", highest)):
        head = make_head(pool_type=kind)
        torch.testing.assert_close(head(seen).presence != head(other).presence, moved)
