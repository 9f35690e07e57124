"""Dependency maps of models of which it is known what they look at."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.data.dependencies import GRADIENT, LAST_LAYER, NEARNESS, PRESENCE_GRADIENT, RANDOM, ROLLOUT
from bench.inference.dependency import Asked, blurred, dependency_maps, spoil
from models import PoseModel
from models.pose_model import Backbone
from tests.models.small import build_small, make_images

CELL = 8
KEYPOINTS = np.array([2, 5])
POINTS = np.array([[20.0, 12.0], [50.0, 90.0]])


class Patches(Backbone):
    """One feature for each patch of 8 x 8 pixels: a sum of its own pixels alone."""

    num_channels, num_layers = 17, 1

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 17, CELL, stride=CELL)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.embed(image)
        return features

    def layer_of(self, name: str) -> int:  # noqa: ARG002
        return 0


def ask(model: PoseModel) -> dict[str, np.ndarray]:
    asked = Asked(make_images(1)[0], KEYPOINTS, POINTS)
    return dependency_maps(model.eval(), asked, CELL, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "head", "wanted"),
    [
        ("vitpose-classic", True, [LAST_LAYER, ROLLOUT, GRADIENT, PRESENCE_GRADIENT, NEARNESS, RANDOM]),
        ("transpose", False, [LAST_LAYER, ROLLOUT, GRADIENT, NEARNESS, RANDOM]),
        ("hrnet", False, [GRADIENT, NEARNESS, RANDOM]),
    ],
)
def test_every_model_has_the_maps_that_it_can_have(name: str, head: bool, wanted: list[str]) -> None:
    model = build_small(name) if head else build_small(name, head=None)
    found = ask(model)
    assert list(found) == wanted
    for values in found.values():
        assert values.shape == (2, 12, 8)
        assert np.isfinite(values).all()
    for kind in set(wanted) & {LAST_LAYER, ROLLOUT, GRADIENT, PRESENCE_GRADIENT}:
        assert (found[kind] >= 0).all()
        assert not np.array_equal(found[kind][0], found[kind][1])  # of two keypoints


def test_the_gradient_is_that_of_the_cell_that_the_peak_is_made_of() -> None:
    torch.manual_seed(0)
    model = PoseModel(
        Patches(), nn.Identity(), input_size=(64, 96), num_keypoints=17, normalisation="half", presence_head=None
    )
    found = ask(model)[GRADIENT]
    with torch.no_grad():
        peaks = model(make_images(1)).heatmaps[0].flatten(1).argmax(1)[KEYPOINTS]
    for values, peak, k in zip(found, peaks.tolist(), KEYPOINTS, strict=True):
        assert np.flatnonzero(values).tolist() == [peak]
        weight = model.backbone.get_submodule("embed").weight[k].abs().sum() / (0.5 * 255)
        assert values.max() == pytest.approx(weight.item(), rel=1e-5)


def test_nearness_is_highest_at_the_keypoint() -> None:
    found = ask(build_small("hrnet", head=None))[NEARNESS]
    assert [np.unravel_index(values.argmax(), values.shape) for values in found] == [(1, 2), (11, 6)]


def test_asking_leaves_no_gradients_in_the_model() -> None:
    model = build_small("vitpose-classic")
    ask(model)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_spoiling_by_hand() -> None:
    image, spoiled = torch.full((3, 2, 4), 9), torch.zeros((3, 2, 4), dtype=torch.int64)
    found = spoil(image, spoiled, torch.tensor([[[True, False]], [[False, False]]]))
    assert found.shape == (2, 3, 2, 4)
    assert found[0, 1].tolist() == [[9, 9, 0, 0], [9, 9, 0, 0]]
    assert (found[1] == 0).all()


def test_what_is_spoiled_keeps_its_colours_and_loses_its_shapes() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:, ::2] = [200, 100, 0]
    found = blurred(image, 4.0)[:, 12:-12]  # away from the repeated border
    assert found.mean(axis=(0, 1)) == pytest.approx([100, 50, 0], abs=3)
    assert found.std(axis=(0, 1)).max() < 4
