"""The head's promise: every keypoint has a network of its own."""

import pytest
import torch
from torch import nn

from models.presence_heads import KeypointLinear, MlpPresenceHead

NUM_KEYPOINTS = 5


def make_head(dropout: float = 0.0) -> MlpPresenceHead:
    torch.manual_seed(0)
    return MlpPresenceHead(NUM_KEYPOINTS, heatmap_size=(8, 12), pool=4, hidden=6, dropout=dropout)


def heatmaps(num: int = 3) -> torch.Tensor:
    return torch.randn(num, NUM_KEYPOINTS, 12, 8, generator=torch.Generator().manual_seed(1))


def as_linears(layer: KeypointLinear) -> list[nn.Linear]:
    """The same weights as one `nn.Linear` per keypoint."""
    linears = []
    for weight, bias in zip(layer.weight, layer.bias, strict=True):
        linear = nn.Linear(*weight.shape)
        linear.load_state_dict({"weight": weight.T, "bias": bias[0]})
        linears.append(linear)
    return linears


def test_keypoint_linear_is_a_loop_of_linears() -> None:
    layer = KeypointLinear(NUM_KEYPOINTS, in_features=7, out_features=4)
    features = torch.randn(3, NUM_KEYPOINTS, 7)
    looped = [linear(features[:, keypoint]) for keypoint, linear in enumerate(as_linears(layer))]
    torch.testing.assert_close(layer(features), torch.stack(looped, dim=1))


def test_keypoint_linear_starts_as_linear_does() -> None:
    """Uniform within 1 / sqrt(in), and no two keypoints alike."""
    torch.manual_seed(0)
    layer = KeypointLinear(NUM_KEYPOINTS, in_features=400, out_features=50)
    for values in (layer.weight, layer.bias):
        assert 0.045 < values.abs().max() <= 0.05
        assert abs(values.std().item() - 0.05 / 3**0.5) < 0.003
    assert len({weight[0, 0].item() for weight in layer.weight}) == NUM_KEYPOINTS


def test_the_head_is_pool_linear_relu_linear_for_each_keypoint() -> None:
    head = make_head().eval()
    first, second = (as_linears(layer) for layer in head.layers if isinstance(layer, KeypointLinear))
    for keypoint in range(NUM_KEYPOINTS):
        pooled = heatmaps()[:, keypoint].unflatten(2, (2, 4)).unflatten(1, (3, 4)).amax((2, 4)).flatten(1)  # (B, 3*2)
        wanted = second[keypoint](first[keypoint](pooled).relu())[:, 0]
        torch.testing.assert_close(head(heatmaps())[:, keypoint], wanted)


@pytest.mark.parametrize("keypoint", range(NUM_KEYPOINTS))
def test_a_heatmap_moves_only_its_own_logit(keypoint: int) -> None:
    head = make_head().eval()
    changed = heatmaps()
    changed[:, keypoint] += 1
    moved = head(changed) != head(heatmaps())
    assert moved[:, keypoint].all()
    assert moved.sum() == len(changed)


def test_the_gradient_of_a_logit_stays_in_its_heatmap() -> None:
    maps = heatmaps().requires_grad_()
    make_head()(maps)[:, 2].sum().backward()
    assert maps.grad is not None
    reached = maps.grad.abs().sum((0, 2, 3)) > 0
    assert reached.tolist() == [False, False, True, False, False]


def test_dropout_acts_in_training_alone() -> None:
    head = make_head(dropout=0.5)
    assert not torch.equal(head(heatmaps()), head(heatmaps()))
    head.eval()
    assert torch.equal(head(heatmaps()), head(heatmaps()))


@pytest.mark.parametrize("pool", [3, 8])
def test_the_window_must_divide_both_sides(pool: int) -> None:
    """3 divides the height of 12 alone, 8 the width of 8 alone."""
    with pytest.raises(ValueError, match=f"^presence head: pool {pool} does not divide heatmaps of 8 x 12$"):
        MlpPresenceHead(NUM_KEYPOINTS, heatmap_size=(8, 12), pool=pool, hidden=4, dropout=0.0)
