"""The loop: it learns, says the same twice, keeps the best epoch, and stops with a word where it cannot go on."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bench.data.coco import CocoDict, persons_of
from bench.data.codec import encode
from bench.data.dataset import ordered_loader
from bench.errors import UserError
from bench.training import loop
from models import PoseModel, PoseOutput
from tests.training.toys import (
    Length,
    Recipe,
    Training,
    Weights,
    make_codec,
    make_model,
    make_samples,
    train,
)
from tests.views import EVERYTHING

RECORD = [
    "epoch",
    "train_loss",
    "train_heatmap_loss",
    "train_presence_loss",
    "calibration_loss",
    "calibration_AP",
]


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """As the stage trains."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def train_randomly(drawn: CocoDict, seed: int) -> Training:
    """Two epochs with random views and dropout, as a run of this seed."""
    persons = persons_of(drawn)
    model = make_model(seed, dropout=0.4)
    return train(model, make_samples(persons, EVERYTHING, seed), make_samples(persons[:3]), drawn)


def test_eight_persons_are_learnt_by_heart(drawn: CocoDict) -> None:
    """In plain views of the persons that it is judged on: losses vanish and the poses come out."""
    persons = persons_of(drawn)
    model = make_model(embed_dim=64)
    samples = make_samples(persons * 30)  # an epoch is 30 times the same eight, without validation between
    recipe = Recipe(lr=5e-3, schedule="cosine")
    result, _ = train(model, samples, make_samples(persons), drawn, recipe, Length(4, batch_size=8))
    first, last = result.history[0], result.history[-1]
    assert last["train_heatmap_loss"] < first["train_heatmap_loss"] / 5
    assert last["train_presence_loss"] < first["train_presence_loss"] / 2
    assert last["calibration_loss"] < first["train_loss"] / 5
    assert last["calibration_AP"] > first["calibration_AP"] + 0.2


def test_the_same_seed_gives_the_same_bits(drawn: CocoDict) -> None:
    (first, first_log), (again, again_log) = train_randomly(drawn, 0), train_randomly(drawn, 0)
    assert first_log == again_log
    assert all(torch.equal(again.state[key], value) for key, value in first.state.items())


def test_another_seed_gives_other_weights(drawn: CocoDict) -> None:
    first, other = train_randomly(drawn, 0).result.state, train_randomly(drawn, 1).result.state
    changed = [key for key, value in first.items() if not torch.equal(other[key], value)]
    assert len(changed) > len(first) / 2


def test_every_epoch_is_logged_as_it_ends(drawn: CocoDict) -> None:
    result, log = train_randomly(drawn, 0)
    assert [list(record) for record in log] == [RECORD] * 2
    assert [record["epoch"] for record in log] == [1, 2]
    assert log == result.history
    weights = log[0]["train_heatmap_loss"] + 0.01 * log[0]["train_presence_loss"]
    assert log[0]["train_loss"] == pytest.approx(weights, rel=1e-5)


@pytest.mark.parametrize(
    ("scores", "losses", "best"),
    [
        ([0.1, 0.5, 0.3], [1.0, 1.0, 1.0], 2),
        ([0.1, 0.5, 0.3], [1.0, 9.0, 1.0], 2),  # AP before loss
        ([0.0, 0.0, 0.0], [3.0, 2.0, 2.5], 2),  # no AP yet: the lowest loss
        ([0.4, 0.4, 0.4], [1.0, 1.0, 1.0], 1),  # the first of equals
    ],
)
def test_the_best_epochs_weights_are_kept(
    scores: list[float], losses: list[float], best: int, drawn: CocoDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    persons = persons_of(drawn)
    model, seen = make_model(), []
    told = iter(zip(scores, losses, strict=True))

    def validate(*_: object) -> dict[str, float]:
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        score, loss = next(told)
        return {"calibration_loss": loss, "calibration_AP": score}

    monkeypatch.setattr(loop, "validate", validate)
    result, _ = train(model, make_samples(persons), make_samples(persons), drawn, length=Length(epochs=3))
    assert result.best_epoch == best
    assert all(torch.equal(result.state[key], value) for key, value in seen[best - 1].items())
    assert any(not torch.equal(result.state[key], value) for key, value in seen[best % 3].items())


class BreakAt:
    """A hook that makes the heatmaps of one training step NaN, and remembers the weights it had."""

    def __init__(self, step: int) -> None:
        self.steps_left = step
        self.state: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, _: object, output: PoseOutput) -> PoseOutput:
        self.steps_left -= model.training
        if self.steps_left != 0 or not model.training:
            return output
        self.state = {key: value.clone() for key, value in model.state_dict().items()}
        return output._replace(heatmaps=output.heatmaps * torch.nan)


@pytest.mark.parametrize(("nth", "where"), [(1, "epoch 1, step 1"), (2, "epoch 1, step 2"), (3, "epoch 2, step 1")])
def test_a_loss_that_is_not_finite_names_its_step_and_takes_none(nth: int, where: str, drawn: CocoDict) -> None:
    """Eight persons in batches of four: two steps an epoch."""
    persons, model, hook = persons_of(drawn), make_model(), BreakAt(nth)
    model.register_forward_hook(hook)
    message = rf"^{where}: the loss is nan \(heatmap nan, presence [0-9.]+\), wanted a finite number: lower base\.optim"
    with pytest.raises(UserError, match=message):
        train(model, make_samples(persons), make_samples(persons), drawn)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in hook.state.items())


def test_a_gradient_that_is_not_finite_is_refused_though_the_loss_is(drawn: CocoDict) -> None:
    """Squares of gradients around 1e27 exceed float32."""
    persons, model = persons_of(drawn), make_model()
    before = {key: value.clone() for key, value in model.named_parameters()}
    with pytest.raises(UserError, match=r"^epoch 1, step 1: the norm of the gradients is inf at a loss of \d"):
        train(model, make_samples(persons), make_samples(persons), drawn, weights=Weights(heatmap_weight=1e30))
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


def test_fewer_persons_than_a_batch_are_refused(drawn: CocoDict) -> None:
    persons = persons_of(drawn)
    with pytest.raises(UserError, match=r"^base\.train\.batch_size: found 9, wanted at most the 8 persons$"):
        train(make_model(), make_samples(persons), make_samples(persons), drawn, length=Length(batch_size=9))


def test_the_last_incomplete_batch_is_left_out_and_the_schedule_knows(
    drawn: CocoDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight persons in batches of three are two steps; the learning rate ends at zero with the last one."""
    asked = []
    build = loop.build_schedule
    monkeypatch.setattr(loop, "build_schedule", lambda *arguments: asked.append(build(*arguments)) or asked[-1])
    persons = persons_of(drawn)
    recipe, length = Recipe(schedule="cosine"), Length(epochs=2, batch_size=3)
    train(make_model(), make_samples(persons), make_samples(persons), drawn, recipe, length)
    assert asked[0].last_epoch == 4
    assert asked[0].get_last_lr()[0] == pytest.approx(0, abs=1e-12)


def test_validation_leaves_no_trace(drawn: CocoDict) -> None:
    """Judged on one person or on eight, with batch statistics in the model, the weights come out the same."""
    persons = persons_of(drawn)

    def weights_with(num_calibration: int) -> dict[str, Tensor]:
        model: PoseModel = make_model(dropout=0.4)
        train(model, make_samples(persons), make_samples(persons[:num_calibration]), drawn)
        return model.state_dict()

    few, many = weights_with(1), weights_with(8)
    assert all(torch.equal(few[key], value) for key, value in many.items())


def test_the_truth_itself_has_an_ap_of_one(drawn: CocoDict) -> None:
    """`validate` decodes, unwarps and scores: with perfect heatmaps nothing is lost on the way."""
    samples, codec = make_samples(persons_of(drawn)), make_codec(make_model())
    loader = ordered_loader(samples, 3, num_workers=0)
    truths = iter([encode(batch.keypoints_input, batch.labelled, codec)[0] for batch in loader])

    class Oracle(nn.Module):
        def forward(self, _: Tensor) -> PoseOutput:
            return PoseOutput(next(truths), None)

    objective = loop.Objective(codec, Weights(), Recipe(), Length())
    record = loop.validate(Oracle(), loader, drawn, samples.persons, objective)
    assert record["calibration_AP"] == pytest.approx(1)
    assert record["calibration_loss"] == 0
