"""Files whole or not at all."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.data.arrays import write_arrays
from bench.data.parquet import write_parquet
from bench.errors import UserError
from bench.stages.files import copy_file, write_json
from bench.training.checkpoint import save_checkpoint
from bench.writing import written_whole

WRITERS = {
    "arrays": lambda file: write_arrays(file, {"a": np.ones(3)}),
    "parquet": lambda file: write_parquet(file, pd.DataFrame({"a": [1]})),
    "json": lambda file: write_json(file, list(range(100))),
    "copy": lambda file: copy_file(Path(__file__), file),
    "checkpoint": lambda file: save_checkpoint(file, {"a": torch.ones(3)}, {}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_folders_are_made_and_nothing_else_is_left(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "new" / "deeper" / "file"
    WRITERS[kind](file)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_place_that_cannot_be_written_is_named(kind: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(UserError, match=r"taken/file: cannot be written \((Not a directory|File exists)\)$"):
        WRITERS[kind](tmp_path / "taken" / "file")


@pytest.fixture
def no_room() -> Iterator[None]:
    """No file may grow beyond a hundred bytes, as on a disk that is almost full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", WRITERS)
def test_without_room_the_old_file_stays(kind: str, tmp_path: Path, no_room: None) -> None:
    file = tmp_path / "file"
    file.write_text("of an earlier run")
    with pytest.raises(UserError, match=r"file: cannot be written \(.*File too large.*\)$"):
        WRITERS[kind](file)
    assert file.read_text() == "of an earlier run"
    assert list(tmp_path.iterdir()) == [file]


def test_what_fails_half_way_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("of an earlier run")
    with pytest.raises(KeyboardInterrupt), written_whole(file) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "of an earlier run"
    assert list(tmp_path.iterdir()) == [file]
