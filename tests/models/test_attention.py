"""What is recorded of attention, against the formula, by hand, and that recording changes nothing."""

import pytest
import torch
from torch import Tensor, nn

from models import PoseModel
from models.attention import Attention, attention_of
from models.transpose import EncoderLayer
from models.vitpose import VitBackbone
from tests.models.small import build_small, make_images

GRIDS = {"vitpose-classic": (12, 8), "transpose": (12, 8), "transpose-h": (24, 16)}


def found(model: PoseModel) -> Attention:
    attention = attention_of(model, make_images(2))
    assert attention is not None
    return attention


@pytest.mark.parametrize("name", GRIDS)
def test_every_token_reads_a_whole_in_every_layer(name: str) -> None:
    attention = found(build_small(name).eval())
    rows, columns = attention.grid_shape
    assert attention.grid_shape == GRIDS[name]
    assert [layer.shape for layer in attention.layers] == [(2, rows * columns, rows * columns)] * 2
    for matrix in (*attention.layers, attention.rollout()):
        torch.testing.assert_close(matrix.sum(-1), torch.ones(matrix.shape[:2]))
        assert (matrix >= 0).all()


@pytest.mark.parametrize("name", GRIDS)
def test_recording_leaves_no_trace(name: str) -> None:
    model = build_small(name).eval()
    with torch.no_grad():
        before = model(make_images(2)).heatmaps
        found(model)
        torch.testing.assert_close(model(make_images(2)).heatmaps, before, rtol=0, atol=0)
    for part in model.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks


def test_convolutions_attend_to_nothing() -> None:
    assert attention_of(build_small("hrnet"), make_images(1)) is None


def test_the_attention_of_a_block_is_that_of_the_formula() -> None:
    model = build_small("vitpose-classic").eval()
    assert isinstance(model.backbone, VitBackbone)
    block = model.backbone.vit.blocks[0]
    seen: list[Tensor] = []
    handle = block.attn.qkv.register_forward_hook(lambda *call: seen.append(call[-1]))
    first = found(model).layers[0]
    handle.remove()
    query, key, _ = seen[0].reshape(2, 96, 3, 2, 8).permute(2, 0, 3, 1, 4)  # 2 heads of 8 channels
    torch.testing.assert_close(first, (query @ key.mT / 8**0.5).softmax(-1).mean(1))


def test_the_attention_of_an_encoder_layer_is_that_of_the_formula() -> None:
    model = build_small("transpose").eval()
    layer = next(part for part in model.modules() if isinstance(part, EncoderLayer))
    seen: list[Tensor] = []
    handle = layer.attention.register_forward_pre_hook(lambda _, args: seen.extend(args))
    first = found(model).layers[0]
    handle.remove()
    projected = nn.functional.linear(seen[0], layer.attention.in_proj_weight[:32], layer.attention.in_proj_bias[:32])
    query, key = projected.reshape(2, 96, 2, 2, 8).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(first, (query @ key.mT / 8**0.5).softmax(-1).mean(1))


def test_rollout_by_hand() -> None:
    """Two tokens; the second layer reads all of token 1, half of everything passes by."""
    layers = [torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])]
    attention = Attention(layers, (1, 2))
    torch.testing.assert_close(attention.rollout(), torch.tensor([[[0.5, 0.5], [0.5, 0.5]]]))
    torch.testing.assert_close(attention.last_layer(), layers[1])
    lone = Attention([torch.tensor([[[0.2, 0.8], [1.0, 0.0]]])], (1, 2))
    torch.testing.assert_close(lone.rollout(), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
