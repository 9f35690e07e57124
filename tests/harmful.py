"""A pickle made to harm."""

from pathlib import Path
from typing import Any


class Harmful:
    """What it would run when it is read, in the working directory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("harm"), "done")
