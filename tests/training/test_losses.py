"""Losses by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.data.codec import Codec, encode
from bench.data.dataset import Sample
from bench.training.losses import (
    HEATMAP_MEANS,
    Losses,
    Targets,
    UncertaintySum,
    heatmap_mse,
    pose_loss,
    presence_bce,
    sum_of_weights,
    visibility_cross_entropy,
)
from models import PoseOutput
from tests.training.toys import Weights

CODEC = Codec("msra", (64, 96), (16, 24), 4.0)  # stride 4, a Gaussian of sigma 1 that ends 3 pixels from its centre

# Five keypoints, and which of them train a heatmap.
KINDS = ("labelled", "absent", "absent that does not count", "unlabelled but present", "labelled far outside")
MASK = [1, 0, 0, 0, 0]
ZERO = [1, 1, 0, 0, 0]


def batch() -> Sample:
    """One person with a keypoint of each of `KINDS`."""
    return Sample(
        image=torch.zeros(1, 3, 96, 64, dtype=torch.uint8),
        keypoints_input=torch.tensor([[[20.0, 40.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [-50.0, 40.0]]]),
        visibility=torch.tensor([[2, 0, 0, 0, 1]]),
        present=torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]]),
        present_weight=torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0]]),
        matrix=torch.zeros(1, 2, 3),
        person_index=torch.zeros(1),
    )


def loss_of(output: PoseOutput, sample: Sample, weights: Weights) -> Losses:
    return pose_loss(output, Targets.of(sample, CODEC, weights), weights)


def mean_mse(heatmaps: Tensor, target: Tensor, weight: Tensor, mean: str) -> Tensor:
    return heatmap_mse(heatmaps, target, weight, HEATMAP_MEANS[mean](weight).clamp_min(1))


def mean_bce(logits: Tensor, present: Tensor, weight: Tensor) -> Tensor:
    return presence_bce(logits, present, weight, sum_of_weights(weight).clamp_min(1))


def mean_cross_entropy(logits: Tensor, visibility: Tensor, weight: Tensor) -> Tensor:
    return visibility_cross_entropy(logits, visibility, weight, sum_of_weights(weight).clamp_min(1))


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_heatmap_mse_by_hand() -> None:
    """Squared errors of 1 and 9 in the first heatmap, of 4 and 0 in the second."""
    heatmaps = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
    target = torch.zeros_like(heatmaps)
    for weight, wanted in (([1, 1], 3.5), ([1, 0], 5), ([0, 1], 2), ([3, 1], (3 * 5 + 2) / 4)):
        found = mean_mse(heatmaps, target, torch.tensor([weight]).float(), "labelled")
        assert found.item() == pytest.approx(wanted)
    moved = mean_mse(heatmaps + 7, target + 7, torch.ones(1, 2), "labelled")
    torch.testing.assert_close(moved, torch.tensor(3.5))


def test_heatmap_mse_over_all_keypoints_by_hand() -> None:
    """Two persons with means of squared errors of 5, 2 and 1, 0; what is not labelled counts as a 0 in the mean."""
    heatmaps = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]], [[[1.0, 1.0]], [[0.0, 0.0]]]])
    target = torch.zeros_like(heatmaps)
    for weight, wanted in (
        ([[1, 1], [1, 1]], 8 / 4),
        ([[1, 0], [0, 0]], 5 / 4),
        ([[0, 1], [1, 0]], 3 / 4),
        ([[0, 0], [0, 0]], 0),
    ):
        assert mean_mse(heatmaps, target, torch.tensor(weight).float(), "all").item() == pytest.approx(wanted)


def published_mse(heatmaps: Tensor, target: Tensor, weight: Tensor, factor: float) -> float:
    """As HRNet (factor 0.5) and ViTPose (1.0) write it: a loop over keypoints, each a mean over batch and pixels."""
    total = 0.0
    for k in range(heatmaps.shape[1]):
        weights = weight[:, k, None, None]
        total += factor * ((heatmaps[:, k] * weights - target[:, k] * weights) ** 2).mean().item()
    return total / heatmaps.shape[1]


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_the_mean_over_all_is_the_published_loss(factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    heatmaps, target = torch.randn(2, 3, 17, 6, 4, generator=generator)
    weight = (torch.rand(3, 17, generator=generator) < 0.6).float()
    found = factor * mean_mse(heatmaps, target, weight, "all").item()
    assert found == pytest.approx(published_mse(heatmaps, target, weight, factor), rel=1e-5)
    assert found < 0.8 * factor * mean_mse(heatmaps, target, weight, "labelled").item()  # they do differ


def test_presence_bce_is_minus_log_of_the_given_probability() -> None:
    logits = torch.tensor([[logit(0.75), logit(0.25), logit(0.9)]])
    present = torch.tensor([[1.0, 0.0, 0.0]])
    for weight, wanted in (
        ([1, 0, 0], -math.log(0.75)),
        ([0, 1, 0], -math.log(0.75)),
        ([0, 0, 1], -math.log(0.1)),
        ([1, 1, 1], -(2 * math.log(0.75) + math.log(0.1)) / 3),
    ):
        assert mean_bce(logits, present, torch.tensor([weight]).float()).item() == pytest.approx(wanted, rel=1e-5)


def test_presence_bce_is_finite_for_the_surest_mistake() -> None:
    """On probabilities this would be the log of zero."""
    found = mean_bce(torch.tensor([[-200.0, 200.0]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
    assert found.item() == pytest.approx(200)


def test_visibility_cross_entropy_is_minus_log_of_the_class_that_it_is() -> None:
    """Not labelled 0.2, occluded 0.3, visible 0.5, for each of three keypoints."""
    logits = torch.tensor([0.2, 0.3, 0.5]).log().expand(1, 3, 3) + torch.tensor([[[0.0], [7.0], [-4.0]]])
    visibility = torch.tensor([[0, 1, 2]])
    for weight, wanted in (
        ([1, 0, 0], -math.log(0.2)),
        ([0, 1, 0], -math.log(0.3)),
        ([0, 0, 1], -math.log(0.5)),
        ([1, 0, 1], -(math.log(0.2) + math.log(0.5)) / 2),
        ([1, 1, 1], -math.log(0.2 * 0.3 * 0.5) / 3),
    ):
        found = mean_cross_entropy(logits, visibility, torch.tensor([weight]).float())
        assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_unlabelled_keypoints_cost_three_classes_what_they_cost_two() -> None:
    """With the presence logit that a three-class head gives: both are minus the log of "not labelled"."""
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    presence_logits = logits[..., 1:].logsumexp(-1) - logits[..., 0]
    ones, nowhere = torch.ones(4, 5), torch.zeros(4, 5, dtype=torch.int64)
    torch.testing.assert_close(
        mean_cross_entropy(logits, nowhere, ones), mean_bce(presence_logits, torch.zeros(4, 5), ones)
    )
    visible = mean_cross_entropy(logits, nowhere + 2, ones)
    assert visible > mean_bce(presence_logits, ones, ones)  # it must also tell visible from occluded


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[tuple[int, ...], Loss]] = {
    "heatmaps, labelled": ((2, 3, 4, 5), lambda x, weight: mean_mse(x, torch.zeros_like(x), weight, "labelled")),
    "heatmaps, all": ((2, 3, 4, 5), lambda x, weight: mean_mse(x, torch.zeros_like(x), weight, "all")),
    "presence": ((2, 3), lambda x, weight: mean_bce(x, torch.zeros_like(x), weight)),
    "visibility": ((2, 3, 3), lambda x, weight: mean_cross_entropy(x, weight.long(), weight)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_where_nothing_counts_loss_and_gradient_are_zero(name: str) -> None:
    shape, loss = LOSSES[name]
    prediction = torch.full(shape, 9.0, requires_grad=True)
    value = loss(prediction, torch.zeros(2, 3))
    value.backward()
    assert value.item() == 0
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize(("absent_heatmaps", "trained"), [("mask", MASK), ("zero", ZERO)])
def test_which_heatmaps_are_trained(absent_heatmaps: str, trained: list[int]) -> None:
    heatmaps = torch.full((1, 5, 24, 16), 0.1, requires_grad=True)
    losses = loss_of(PoseOutput(heatmaps, None), batch(), Weights(absent_heatmaps=absent_heatmaps))
    losses.heatmap.backward()
    assert heatmaps.grad is not None
    assert (heatmaps.grad.abs().sum((0, 2, 3)) > 0).tolist() == [bool(t) for t in trained], KINDS


def test_heatmap_loss_by_hand_with_and_without_absent_ones() -> None:
    """The labelled keypoint has its Gaussian at heatmap pixel (5, 10), the absent one an empty one: .1^2 anywhere."""
    output = PoseOutput(torch.full((1, 5, 24, 16), 0.1), None)
    bell = [math.exp(-(step**2) / 2) for step in range(-3, 4)]
    inside = sum((0.1 - across * down) ** 2 for across in bell for down in bell)
    of_labelled = (inside + (24 * 16 - 49) * 0.01) / (24 * 16)
    mask = loss_of(output, batch(), Weights(absent_heatmaps="mask"))
    zero = loss_of(output, batch(), Weights(absent_heatmaps="zero"))
    assert mask.heatmap.item() == pytest.approx(of_labelled, rel=1e-5)
    assert zero.heatmap.item() == pytest.approx((of_labelled + 0.01) / 2, rel=1e-5)


@pytest.mark.parametrize(("absent_heatmaps", "counting"), [("mask", 1), ("zero", 2)])
def test_the_mean_over_all_divides_by_all_five(absent_heatmaps: str, counting: int) -> None:
    output = PoseOutput(torch.full((1, 5, 24, 16), 0.1), None)
    few, all_five = (loss_of(output, batch(), Weights(1, 1, absent_heatmaps, m)) for m in ("labelled", "all"))
    assert all_five.heatmap.item() == pytest.approx(few.heatmap.item() * counting / 5)


def test_a_hidden_keypoint_with_a_place_counts_once() -> None:
    """Not present under policy "visible", but its heatmap has a Gaussian: it is no absent one."""
    hidden = batch()._replace(present=torch.zeros(1, 5), present_weight=torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]]))
    hidden = hidden._replace(visibility=torch.tensor([[1, 0, 0, 1, 1]]))
    output = PoseOutput(torch.linspace(0, 1, 5 * 24 * 16).reshape(1, 5, 24, 16), None)
    mask, zero = (loss_of(output, hidden, Weights(absent_heatmaps=name)) for name in ("mask", "zero"))
    assert mask.heatmap > 0
    assert mask == zero


def perfect_output() -> PoseOutput:
    target, _ = encode(batch().keypoints_input, (batch().visibility > 0).float(), CODEC)
    return PoseOutput(target, torch.where(batch().present > 0, 60.0, -60.0))


@pytest.mark.parametrize("absent_heatmaps", ["mask", "zero"])
def test_the_truth_has_no_loss(absent_heatmaps: str) -> None:
    losses = loss_of(perfect_output(), batch(), Weights(absent_heatmaps=absent_heatmaps))
    assert losses.heatmap.item() == 0
    assert losses.presence.item() < 1e-20


def test_total_is_the_weighted_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    output = PoseOutput(torch.rand(1, 5, 24, 16, generator=generator), torch.randn(1, 5, generator=generator))
    plain = loss_of(output, batch(), Weights(1.0, 1.0))
    assert plain.total.item() == pytest.approx((plain.heatmap + plain.presence).item())
    weighted = loss_of(output, batch(), Weights(3.0, 0.5))
    assert weighted.total.item() == pytest.approx((3 * plain.heatmap + 0.5 * plain.presence).item())
    assert (weighted.heatmap, weighted.presence) == (plain.heatmap, plain.presence)  # reported unweighted


def test_without_a_head_only_heatmaps_count() -> None:
    losses = loss_of(PoseOutput(torch.rand(1, 5, 24, 16), None), batch(), Weights(2.0, 9.0))
    assert losses.presence.item() == 0
    assert losses.total.item() == pytest.approx(2 * losses.heatmap.item())


def test_half_precision_output_gives_a_loss_in_full_precision() -> None:
    """Squares of small errors vanish in half precision."""
    output = perfect_output()
    assert output.presence_logits is not None
    heatmaps = (output.heatmaps + 1e-3).bfloat16()
    losses = loss_of(PoseOutput(heatmaps, output.presence_logits.bfloat16()), batch(), Weights())
    assert {value.dtype for value in losses} == {torch.float32}
    wanted = (heatmaps.float() - output.heatmaps)[:, :1].square().mean()
    torch.testing.assert_close(losses.heatmap, wanted)


def test_presence_counts_by_its_own_weight_and_not_by_labels() -> None:
    """Only keypoints 0, 1 and 3 have a presence label that counts."""
    logits = torch.zeros(1, 5, requires_grad=True)
    losses = loss_of(PoseOutput(torch.zeros(1, 5, 24, 16), logits), batch(), Weights())
    losses.presence.backward()
    assert losses.presence.item() == pytest.approx(math.log(2))
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.5, 0.0, -0.5, 0.0]]) / 3)


def test_a_three_class_head_is_trained_on_visibility_alone() -> None:
    """Keypoints 0, 1 and 3 count, as visible, not labelled, not labelled; the presence logit only follows."""
    presence_logits = torch.zeros(1, 5, requires_grad=True)
    visibility_logits = torch.tensor([0.2, 0.3, 0.5]).log().repeat(1, 5, 1).requires_grad_()
    output = PoseOutput(torch.zeros(1, 5, 24, 16), presence_logits, visibility_logits)
    losses = loss_of(output, batch(), Weights(0.0, 2.0))
    assert losses.presence.item() == pytest.approx(-(math.log(0.5) + 2 * math.log(0.2)) / 3)
    assert losses.total.item() == pytest.approx(2 * losses.presence.item())
    losses.presence.backward()
    assert presence_logits.grad is None
    rows = [[0.2, 0.3, -0.5], [-0.8, 0.3, 0.5], [0, 0, 0], [-0.8, 0.3, 0.5], [0, 0, 0]]  # softmax minus the truth
    torch.testing.assert_close(visibility_logits.grad, torch.tensor([rows]) / 3)


def test_a_learned_sum_starts_where_it_is_lowest() -> None:
    """Its variances are the losses: log(v) / 2 of each, and half of either term is left."""
    total = UncertaintySum()
    losses = Losses(torch.tensor(9.0), torch.tensor(0.004, requires_grad=True), torch.tensor(0.5, requires_grad=True))
    value = total(losses, 1.0)
    assert value.item() == pytest.approx(0.5 + math.log(0.004) / 2 + 0.5 + math.log(1.0) / 2, rel=1e-5)
    value.backward()
    assert total.log_variances.grad is not None
    assert total.log_variances.grad.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert losses.heatmap.grad is not None
    assert losses.presence.grad is not None
    assert losses.heatmap.grad.item() == pytest.approx(1 / (2 * 0.004), rel=1e-5)
    assert losses.presence.grad.item() == pytest.approx(1 / 1.0, rel=1e-5)
    again = total(Losses(losses.total, losses.heatmap.detach() * 4, losses.presence.detach()), 1.0)
    assert again.item() == pytest.approx(value.item() + 1.5, rel=1e-5)  # set once


def test_a_learned_sum_follows_its_losses() -> None:
    total = UncertaintySum()
    optimizer = torch.optim.Adam(total.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        total(Losses(torch.tensor(0.0), torch.tensor(0.01), torch.tensor(0.3)), 1.0).backward()
        optimizer.step()
    assert total.log_variances.exp().tolist() == pytest.approx([0.01, 0.6], rel=0.02)
