"""What files were when they first came: later downloads of the same name must be the same."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from pydantic import TypeAdapter, ValidationError

from bench.errors import UserError
from bench.writing import written_whole


@dataclass(frozen=True)
class Pin:
    url: str  # the official one, even where a mirror served it
    size: int
    sha256: str


_PINS = TypeAdapter(dict[str, Pin])


class Pins:
    """A JSON file of pins by file name, written at each new one."""

    def __init__(self, file: Path) -> None:
        """Read the file, if it is there.

        Raises:
            UserError: it is no file of pins.
        """
        self.file, self._writing = file, Lock()
        try:
            self._pins = _PINS.validate_json(file.read_bytes())
        except FileNotFoundError:
            self._pins = {}
        except (OSError, ValidationError) as error:
            raise UserError(f"{file}: cannot be read as pins of downloads, mend it or take it from git") from error

    def get(self, name: str) -> Pin | None:
        return self._pins.get(name)

    def add(self, name: str, pin: Pin) -> None:
        """Pin a file, unless it is pinned already.

        Raises:
            UserError: the file of pins cannot be written.
        """
        if name in self._pins:
            return
        with self._writing, written_whole(self.file) as partial:
            self._pins[name] = pin
            partial.write_bytes(_PINS.dump_json(dict(sorted(self._pins.items())), indent=2) + b"\n")
