"""Checkpoints: a round trip without loss, whole files only, errors of one line."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import UserError
from bench.training.checkpoint import load_checkpoint, save_checkpoint
from tests.training.toys import INPUT_SIZE, make_model

FIRST = "backbone.vit.pos_embed"


def image() -> Tensor:
    shape = (2, 3, INPUT_SIZE[1], INPUT_SIZE[0])
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_loaded_model_says_the_same_bit_for_bit(tmp_path: Path) -> None:
    file, source, target = tmp_path / "model.safetensors", make_model(seed=0).eval(), make_model(seed=1).eval()
    assert not torch.equal(source(image()).heatmaps, target(image()).heatmaps)
    save_checkpoint(file, source.state_dict(), {})
    load_checkpoint(file, target)
    for found, wanted in zip(target(image())[:2], source(image())[:2], strict=True):
        assert torch.equal(found, wanted)
    assert list(tmp_path.iterdir()) == [file]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file, model = tmp_path / "model.safetensors", make_model()
    save_checkpoint(file, model.state_dict(), {})
    before = file.read_bytes()
    shared = torch.ones(3)
    with pytest.raises(RuntimeError, match="share memory"):
        save_checkpoint(file, {"a": shared, "b": shared}, {})
    assert file.read_bytes() == before


def test_views_are_written_as_they_are(tmp_path: Path) -> None:
    """Weights may be transposed views, which the format cannot hold."""
    file, model = tmp_path / "model.safetensors", torch.nn.Linear(3, 2)
    save_checkpoint(file, {"weight": torch.arange(6.0).reshape(3, 2).T, "bias": torch.zeros(2)}, {})
    load_checkpoint(file, model)
    assert model.weight.tolist() == [[0, 2, 4], [1, 3, 5]]


def write_state(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        state = dict(make_model().state_dict())
        change(state)
        save_file(state, file)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda _: None, r"cannot be read as a checkpoint \(.*\), wanted one of stage train"),
        (lambda file: file.write_bytes(b"no tensors"), r"cannot be read as a checkpoint \(.*\), wanted one of .*"),
        (write_state(lambda state: state.pop(FIRST)), f"1 tensors do not fit the model, the first is '{FIRST}'"),
        (write_state(lambda state: state.update(x=torch.ones(1))), "1 tensors do not fit .*, the first is 'x'"),
        (
            write_state(lambda state: state.update({FIRST: torch.ones(9)})),
            f"1 tensors do not fit the model, the first is '{FIRST}'",
        ),
    ],
    ids=["no file", "no safetensors", "missing tensor", "left over tensor", "misshapen tensor"],
)
def test_a_checkpoint_that_does_not_fit_is_one_line_and_changes_nothing(
    write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    file, model = tmp_path / "model.safetensors", make_model(seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    write(file)
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: {message}$") as caught:
        load_checkpoint(file, model)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
