"""A project of drawn people whose microscopic runs are evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.resolve import load_grid
from bench.stages import evaluate, predict, prepare, resolve, train
from tests.test_parameters import small_tree

PROFILE = "p"


@contextmanager
def evaluated_project(folder: Path, experiments: dict[str, Any]) -> Iterator[Path]:
    """In a folder that is the current one meanwhile; every run has seed 0."""
    tree = small_tree(PROFILE)
    tree["test"]["decoding"] = "argmax"  # the flat heatmaps of an untrained model have no stable sub-pixel peak
    tree["experiments"] = experiments
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(resolve, "STAGE_MODULES", {})
        YAML(typ="safe").dump(tree, Path("params.yaml"))
        resolve.write_plan(load_grid(Path("params.yaml")))
        prepare.main(PROFILE)
        for run in experiments:
            for stage in (train, predict, evaluate):
                stage.main(PROFILE, run, 0)
        yield folder
