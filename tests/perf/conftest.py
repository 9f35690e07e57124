"""Thirty-two drawn persons, and the settings under which times are taken."""

from collections.abc import Iterator

import pytest
import torch

from bench.data.coco import CocoDict, read_coco
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams
from bench.machine import keep_memory


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> CocoDict:
    """A manifest of drawn persons in images of 320 x 240."""
    root = tmp_path_factory.mktemp("drawn")
    write_drawn_coco(root, {"train2017": 32}, SceneParams(), seed=0)
    manifest = read_coco(root / "annotations" / "person_keypoints_train2017.json")
    return manifest | {"info": {"image_root": str(root / "train2017")}}


@pytest.fixture(autouse=True, scope="session")
def kept_memory() -> None:
    """As every stage does."""
    keep_memory()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One core for all, so that numbers compare."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
