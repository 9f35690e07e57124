"""Losses by hand."""

import math
from collections.abc import Callable

import pytest
import torch

from bench.data.codec import Codec, encode
from bench.data.dataset import Sample
from bench.training.losses import heatmap_mse, pose_loss, presence_bce
from models import PoseOutput
from tests.training.toys import Weights

CODEC = Codec((61, 93), (16, 24), 4.0)  # stride 4 exactly

# Five keypoints, and which of them train a heatmap.
KINDS = ("labelled", "absent", "absent that does not count", "unlabelled but present", "labelled far outside")
MASK = [1, 0, 0, 0, 0]
ZERO = [1, 1, 0, 0, 0]


def batch() -> Sample:
    """One person with a keypoint of each of `KINDS`."""
    return Sample(
        image=torch.zeros(1, 3, 93, 61, dtype=torch.uint8),
        keypoints_input=torch.tensor([[[20.0, 40.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [-50.0, 40.0]]]),
        labelled=torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0]]),
        present=torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]]),
        present_weight=torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0]]),
        matrix=torch.zeros(1, 2, 3),
        person_index=torch.zeros(1),
    )


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_heatmap_mse_by_hand() -> None:
    """Squared errors of 1 and 9 in the first heatmap, of 4 and 0 in the second."""
    heatmaps = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
    target = torch.zeros_like(heatmaps)
    for weight, wanted in (([1, 1], 3.5), ([1, 0], 5), ([0, 1], 2), ([3, 1], (3 * 5 + 2) / 4)):
        assert heatmap_mse(heatmaps, target, torch.tensor([weight]).float()).item() == pytest.approx(wanted)
    torch.testing.assert_close(heatmap_mse(heatmaps + 7, target + 7, torch.ones(1, 2)), torch.tensor(3.5))


def test_presence_bce_is_minus_log_of_the_given_probability() -> None:
    logits = torch.tensor([[logit(0.75), logit(0.25), logit(0.9)]])
    present = torch.tensor([[1.0, 0.0, 0.0]])
    for weight, wanted in (
        ([1, 0, 0], -math.log(0.75)),
        ([0, 1, 0], -math.log(0.75)),
        ([0, 0, 1], -math.log(0.1)),
        ([1, 1, 1], -(2 * math.log(0.75) + math.log(0.1)) / 3),
    ):
        assert presence_bce(logits, present, torch.tensor([weight]).float()).item() == pytest.approx(wanted, rel=1e-5)


def test_presence_bce_is_finite_for_the_surest_mistake() -> None:
    """On probabilities this would be the log of zero."""
    found = presence_bce(torch.tensor([[-200.0, 200.0]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
    assert found.item() == pytest.approx(200)


@pytest.mark.parametrize("loss", [heatmap_mse, presence_bce])
def test_where_nothing_counts_loss_and_gradient_are_zero(loss: Callable[..., torch.Tensor]) -> None:
    shape = (2, 3, 4, 5) if loss is heatmap_mse else (2, 3)
    prediction = torch.full(shape, 9.0, requires_grad=True)
    value = loss(prediction, torch.zeros(shape), torch.zeros(2, 3))
    value.backward()
    assert value.item() == 0
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize(("absent_heatmaps", "trained"), [("mask", MASK), ("zero", ZERO)])
def test_which_heatmaps_are_trained(absent_heatmaps: str, trained: list[int]) -> None:
    heatmaps = torch.full((1, 5, 24, 16), 0.1, requires_grad=True)
    losses = pose_loss(PoseOutput(heatmaps, None), batch(), CODEC, Weights(absent_heatmaps=absent_heatmaps))
    losses.heatmap.backward()
    assert heatmaps.grad is not None
    assert (heatmaps.grad.abs().sum((0, 2, 3)) > 0).tolist() == [bool(t) for t in trained], KINDS


def test_heatmap_loss_by_hand_with_and_without_absent_ones() -> None:
    """The labelled keypoint has its Gaussian, the absent one an empty heatmap: .1^2 everywhere."""
    output = PoseOutput(torch.full((1, 5, 24, 16), 0.1), None)
    columns, rows = torch.meshgrid(torch.arange(16) * 4.0, torch.arange(24) * 4.0, indexing="xy")
    gaussian = torch.exp(-((columns - 20) ** 2 + (rows - 40) ** 2) / 32)
    of_labelled = (0.1 - gaussian).square().mean().item()
    mask = pose_loss(output, batch(), CODEC, Weights(absent_heatmaps="mask"))
    zero = pose_loss(output, batch(), CODEC, Weights(absent_heatmaps="zero"))
    assert mask.heatmap.item() == pytest.approx(of_labelled, rel=1e-5)
    assert zero.heatmap.item() == pytest.approx((of_labelled + 0.01) / 2, rel=1e-5)


def test_a_hidden_keypoint_with_a_place_counts_once() -> None:
    """Not present under policy "visible", but its heatmap has a Gaussian: it is no absent one."""
    hidden = batch()._replace(present=torch.zeros(1, 5), present_weight=torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]]))
    hidden = hidden._replace(labelled=torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]]))
    output = PoseOutput(torch.linspace(0, 1, 5 * 24 * 16).reshape(1, 5, 24, 16), None)
    mask, zero = (pose_loss(output, hidden, CODEC, Weights(absent_heatmaps=name)) for name in ("mask", "zero"))
    assert mask.heatmap > 0
    assert mask == zero


def perfect_output() -> PoseOutput:
    target, _ = encode(batch().keypoints_input, batch().labelled, CODEC)
    return PoseOutput(target, torch.where(batch().present > 0, 60.0, -60.0))


@pytest.mark.parametrize("absent_heatmaps", ["mask", "zero"])
def test_the_truth_has_no_loss(absent_heatmaps: str) -> None:
    losses = pose_loss(perfect_output(), batch(), CODEC, Weights(absent_heatmaps=absent_heatmaps))
    assert losses.heatmap.item() == 0
    assert losses.presence.item() < 1e-20


def test_total_is_the_weighted_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    output = PoseOutput(torch.rand(1, 5, 24, 16, generator=generator), torch.randn(1, 5, generator=generator))
    plain = pose_loss(output, batch(), CODEC, Weights(1.0, 1.0))
    assert plain.total.item() == pytest.approx((plain.heatmap + plain.presence).item())
    weighted = pose_loss(output, batch(), CODEC, Weights(3.0, 0.5))
    assert weighted.total.item() == pytest.approx((3 * plain.heatmap + 0.5 * plain.presence).item())
    assert (weighted.heatmap, weighted.presence) == (plain.heatmap, plain.presence)  # reported unweighted


def test_without_a_head_only_heatmaps_count() -> None:
    losses = pose_loss(PoseOutput(torch.rand(1, 5, 24, 16), None), batch(), CODEC, Weights(2.0, 9.0))
    assert losses.presence.item() == 0
    assert losses.total.item() == pytest.approx(2 * losses.heatmap.item())


def test_half_precision_output_gives_a_loss_in_full_precision() -> None:
    """Squares of small errors vanish in half precision."""
    output = perfect_output()
    assert output.presence_logits is not None
    heatmaps = (output.heatmaps + 1e-3).bfloat16()
    losses = pose_loss(PoseOutput(heatmaps, output.presence_logits.bfloat16()), batch(), CODEC, Weights())
    assert {value.dtype for value in losses} == {torch.float32}
    wanted = (heatmaps.float() - output.heatmaps)[:, :1].square().mean()
    torch.testing.assert_close(losses.heatmap, wanted)


def test_presence_counts_by_its_own_weight_and_not_by_labels() -> None:
    """Only keypoints 0, 1 and 3 have a presence label that counts."""
    logits = torch.zeros(1, 5, requires_grad=True)
    losses = pose_loss(PoseOutput(torch.zeros(1, 5, 24, 16), logits), batch(), CODEC, Weights())
    losses.presence.backward()
    assert losses.presence.item() == pytest.approx(math.log(2))
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.5, 0.0, -0.5, 0.0]]) / 3)
