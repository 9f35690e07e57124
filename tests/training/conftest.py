"""Eight drawn persons."""

import pytest

from bench.data.coco import CocoDict, read_coco
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> CocoDict:
    """A manifest of eight persons, each alone in an image of 96 x 96."""
    root = tmp_path_factory.mktemp("drawn")
    params = SceneParams(image_size=(96, 96), people_per_image=(1, 1), num_objects=(0, 1))
    write_drawn_coco(root, {"train2017": 8}, params, seed=0)
    manifest = read_coco(root / "annotations" / "person_keypoints_train2017.json")
    return manifest | {"info": {"image_root": str(root / "train2017")}}
