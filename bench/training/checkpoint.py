"""Checkpoints: the weights of a whole model as safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.errors import UserError
from bench.writing import written_whole
from models.weights import SETTINGS


def save_checkpoint(file: Path, state: dict[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Write weights with the settings of their model that no tensor shows.

    Raises:
        UserError: they cannot be written.
    """
    metadata = {SETTINGS: json.dumps(settings, sort_keys=True)}
    with written_whole(file) as partial:
        try:
            save_file({name: value.contiguous() for name, value in state.items()}, partial, metadata)
        except SafetensorError as error:
            raise UserError(f"{file}: cannot be written ({error})") from error


def load_checkpoint(file: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights into a model of the same architecture.

    Raises:
        UserError: the file is missing or broken, or its tensors are not exactly the model's.
    """
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read as a checkpoint ({error}), wanted one of stage train") from error
    wanted = model.state_dict()
    wrong = sorted(set(state) ^ set(wanted)) or [n for n in wanted if state[n].shape != wanted[n].shape]
    if wrong:
        raise UserError(f"{file}: {len(wrong)} tensors do not fit the model, the first is {wrong[0]!r}")
    model.load_state_dict(state)
