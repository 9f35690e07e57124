"""TransPose's own parts: the position embedding and the encoder layer."""

import math

import pytest
import torch
from torch import nn
from transformers.models.detr.modeling_detr import DetrSinePositionEmbedding

from models.transpose import EncoderLayer, sine_position


def test_position_by_hand() -> None:
    """Two rows at pi and 2 pi, four columns at pi / 2 to 2 pi; with C = 8 the periods are 1 and 100."""
    position = sine_position((2, 4), 8)
    assert position.shape == (8, 8)
    first = [0, -1, math.sin(math.pi / 100), math.cos(math.pi / 100)]
    first += [1, 0, math.sin(math.pi / 200), math.cos(math.pi / 200)]
    torch.testing.assert_close(position[0], torch.tensor(first), rtol=0, atol=1e-6)
    last = [0, 1, math.sin(math.pi / 50), math.cos(math.pi / 50)] * 2  # both at 2 pi
    torch.testing.assert_close(position[-1], torch.tensor(last), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns", "embed_dim"), [(2, 4, 8), (12, 8, 128), (32, 24, 256)])
def test_position_is_detrs(rows: int, columns: int, embed_dim: int) -> None:
    reference = DetrSinePositionEmbedding(embed_dim // 2, normalize=True)
    wanted = reference((1, 1, rows, columns), torch.device("cpu"), torch.float32)
    torch.testing.assert_close(sine_position((rows, columns), embed_dim), wanted.flatten(2)[0].T, rtol=0, atol=2e-5)


def test_position_treats_rows_and_columns_alike() -> None:
    """On a square grid, mirroring at the diagonal swaps the halves."""
    grid = sine_position((6, 6), 16).reshape(6, 6, 16)
    torch.testing.assert_close(grid[..., :8], grid[..., 8:].transpose(0, 1))
    assert (grid[:, :1, :8] == grid[..., :8]).all()  # the first half does not know the column
    assert len(sine_position((6, 4), 16).unique(dim=0)) == 24  # every place is told apart
    torch.testing.assert_close(grid.square().sum(-1), torch.full((6, 6), 8.0))  # sin^2 + cos^2


def make_layer() -> EncoderLayer:
    torch.manual_seed(0)
    return EncoderLayer(embed_dim=16, num_heads=4, feedforward_dim=24, dropout=0.1).eval()


def tokens() -> torch.Tensor:
    return torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(1))


def test_without_position_the_layer_is_pytorchs_post_norm_layer() -> None:
    layer = make_layer()
    reference = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=False).eval()
    names = {"attention": "self_attn", "feedforward.0": "linear1", "feedforward.3": "linear2"}
    state = {}
    for key, value in layer.state_dict().items():
        part, _, leaf = key.rpartition(".")
        old = next((name for name in names if part.startswith(name)), None)
        state[key if old is None else f"{part.replace(old, names[old])}.{leaf}"] = value
    reference.load_state_dict(state)
    with torch.no_grad():
        found, wanted = layer(tokens(), torch.zeros(12, 16)), reference(tokens())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_position_tells_tokens_apart() -> None:
    """Permuted tokens give permuted outputs exactly where the position is empty."""
    layer, order = make_layer(), torch.randperm(12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for position, blind in ((torch.zeros(12, 16), True), (sine_position((4, 3), 16), False)):
            same = torch.allclose(layer(tokens()[:, order], position), layer(tokens(), position)[:, order], atol=1e-5)
            assert same is blind


def test_the_position_enters_queries_and_keys_but_not_values() -> None:
    """With queries and keys of zero all tokens get equal attention, and the position is out of the game."""
    layer, position = make_layer(), sine_position((4, 3), 16)
    with torch.no_grad():
        assert not torch.allclose(layer(tokens(), position), layer(tokens(), torch.zeros(12, 16)), atol=1e-3)
        layer.attention.in_proj_weight[:32] = 0
        torch.testing.assert_close(layer(tokens(), position), layer(tokens(), torch.zeros(12, 16)))
