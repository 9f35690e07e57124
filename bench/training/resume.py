"""Where a training that was stopped, in whatever way, goes on."""

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from bench.errors import UserError
from bench.writing import written_whole
from models.weight_files import BROKEN

SECONDS_BETWEEN = 60.0
SHARE_OF_TIME = 0.02
"""Of a training, for writing its states: large ones are written less often."""


class StateFile:
    """The state of an unfinished training.

    Args:
        file: outside of what DVC deletes before it runs a stage.
        asked: digest of all that the training depends on: the state of another training is not taken.
        seconds_between: the least, between two states.
    """

    def __init__(self, file: Path, asked: str, seconds_between: float = SECONDS_BETWEEN) -> None:
        self.file, self.asked = file, asked
        self.seconds_between = seconds_between
        self._next = time.monotonic() + seconds_between

    def load(self) -> dict[str, Any] | None:
        """What was saved last; None where there is no state of this training.

        Raises:
            UserError: the file is broken.
        """
        try:
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
            asked, content = state["asked"], state["content"]
        except FileNotFoundError:
            return None
        except (*BROKEN, UnpicklingError, struct.error) as error:
            raise UserError(
                f"{self.file}: cannot be read as the state of a training ({type(error).__name__}): remove it, and the"
                " training begins anew"
            ) from error
        return content if asked == self.asked else None

    @property
    def is_due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self._next

    def save(self, content: Mapping[str, Any]) -> None:
        """Raises:
        UserError: it cannot be written; the one before is still there.
        """
        start = time.monotonic()
        with written_whole(self.file) as partial, partial.open("wb") as stream:
            torch.save({"asked": self.asked, "content": dict(content)}, stream)
        now = time.monotonic()
        self._next = now + max(self.seconds_between, (now - start) / SHARE_OF_TIME)
