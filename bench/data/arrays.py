"""Arrays on disk."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.writing import written_whole


def write_arrays(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raises:
    UserError: they cannot be written.
    """
    with written_whole(file) as partial, partial.open("wb") as content:
        np.savez_compressed(content, allow_pickle=False, **arrays)


def read_arrays(file: Path, names: Iterable[str], what: str, stage: str) -> dict[str, NDArray[Any]]:
    """The arrays of those names.

    Raises:
        UserError: the file is missing or broken, or an array is missing; the message says `what` was wanted and which
            `stage` writes it.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file}: no readable {what} ({error}): run `dvc repro {stage}@{file.stem}`") from error
