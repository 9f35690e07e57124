"""The loop: it learns, says the same twice, keeps the best epoch, and stops with a word where it cannot go on."""

from collections.abc import Iterator
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from bench.data.coco import CocoDict, persons_of
from bench.data.codec import encode
from bench.data.dataset import ordered_loader
from bench.data.people import Truth
from bench.errors import UserError
from bench.training import loop
from bench.training.loop import Length
from bench.training.losses import FixedSum
from bench.training.optim import build_schedule
from bench.training.watch import Watch
from models import PoseModel, PoseOutput
from models.presence_heads import HEADS
from tests.training.toys import (
    LENGTH,
    NO_STATE,
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
    "calibration_heatmap_loss",
    "calibration_presence_loss",
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
    result, _ = train(model, samples, make_samples(persons), drawn, recipe, LENGTH._replace(epochs=4, batch_size=8))
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
    result, _ = train(model, make_samples(persons), make_samples(persons), drawn, length=LENGTH._replace(epochs=3))
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


@pytest.mark.parametrize("clip_norm", [1.0, None])
def test_a_gradient_that_is_not_finite_is_refused_though_the_loss_is(clip_norm: float | None, drawn: CocoDict) -> None:
    """Squares of gradients around 1e27 exceed float32."""
    persons, model, recipe = persons_of(drawn), make_model(), Recipe(clip_norm=clip_norm)
    before = {key: value.clone() for key, value in model.named_parameters()}
    with pytest.raises(UserError, match=r"^epoch 1, step 1: the norm of the gradients is inf at a loss of \d"):
        train(model, make_samples(persons), make_samples(persons), drawn, recipe, weights=Weights(heatmap_weight=1e30))
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


@pytest.mark.parametrize("look_every", [1, 3, 100])
@pytest.mark.parametrize(("place", "what"), [(0, "the loss is nan"), (3, "the norm of the gradients is nan")])
def test_a_later_look_names_the_same_step(look_every: int, place: int, what: str) -> None:
    """Step 4 of 7 is broken, and so are those after it, as the weights would be."""
    steps = torch.arange(28.0).reshape(7, 4)
    steps[3:, place] = torch.nan
    watch = Watch(2, look_every)
    with pytest.raises(UserError, match=rf"^epoch 2, step 4: {what}"):
        for step in steps:
            watch.add(step)
        watch.means()


@pytest.mark.parametrize("look_every", [1, 3, 7, 100])
def test_means_do_not_depend_on_when_one_looks(look_every: int) -> None:
    steps, watch = torch.rand(7, 4), Watch(1, look_every)
    for step in steps:
        watch.add(step)
        assert len(watch.unseen) < look_every
    wanted = [float(np.mean(column)) for column in steps.double().T[:3].numpy()]
    assert list(watch.means().values()) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("clip_norm", "wanted"), [(None, [3, 4]), (10.0, [3, 4]), (1.0, [0.6, 0.8]), (2.5, [1.5, 2])])
def test_gradients_are_clipped_to_their_norm_or_left_alone(clip_norm: float | None, wanted: list[float]) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    model = nn.Linear(2, 1, bias=False)
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=1.0))
    recipe = Recipe(clip_norm=clip_norm)
    objective = loop.Objective(make_codec(make_model()), Weights(), recipe, LENGTH)
    stepper = loop.Stepper(
        fabric, wrapped, optimizer, build_schedule(optimizer.optimizer, recipe, 1), objective, FixedSum()
    )
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert stepper.clip_gradients().item() == pytest.approx(5)
    assert model.weight.grad.tolist()[0] == pytest.approx(wanted, rel=1e-5)


class Modes:
    """A hook that notes, at every training step, which parts of the backbone are in training mode."""

    def __init__(self) -> None:
        self.training: list[set[str]] = []

    def __call__(self, model: PoseModel, *_: object) -> None:
        if model.training:
            self.training.append({name for name, part in model.backbone.named_modules() if part.training})


@pytest.mark.parametrize("trainable_layers", ["all", 1, 0])
def test_what_is_frozen_stays_and_the_rest_is_trained(trainable_layers: Any, drawn: CocoDict) -> None:
    """Two epochs, with a validation between that must not wake what is frozen; bit for bit."""
    persons, model, modes = persons_of(drawn), make_model(dropout=0.4, drop_path=0.2), Modes()
    model.freeze(trainable_layers)
    model.register_forward_hook(modes)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recipe = Recipe(layer_decay=0.5, weight_decay=0.1, backbone_lr_factor=0.5)
    train(model, make_samples(persons), make_samples(persons[:2]), drawn, recipe)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    buffers = {key for key, _ in model.named_buffers() if not key.startswith("backbone")}
    assert trained <= moved <= trained | buffers
    of_backbone = {".".join(key.split(".")[2:4]) for key in moved if key.startswith("backbone")}
    last = {"blocks.1", "norm.weight", "norm.bias"}
    wanted = {"all": last | {"blocks.0", "patch_embed.proj", "pos_embed"}, 1: last, 0: set()}
    assert of_backbone == wanted[trainable_layers]
    assert len(modes.training) == 4
    for training in modes.training:
        assert ("vit.blocks.0.drop_path1" in training) == (trainable_layers == "all")
        assert ("vit.blocks.1.drop_path1" in training) == (trainable_layers != 0)
        assert trainable_layers != 0 or not training


@pytest.mark.parametrize("codec", ["msra", "dark", "mmpose_dark", "udp"])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_and_codec_learns(head: str, codec: str, drawn: CocoDict) -> None:
    persons = persons_of(drawn)
    objective = loop.Objective(
        make_codec(make_model(), codec),
        Weights(heatmap_mean="all"),
        Recipe(schedule="step"),
        LENGTH._replace(batch_size=8),
    )
    samples, model = make_samples(persons * 10, aligned=objective.codec.aligned), make_model(head=head)
    calibration = make_samples(persons, aligned=objective.codec.aligned)
    fabric = Fabric(accelerator="cpu", devices=1)
    result = loop.fit(model, fabric, samples, calibration, drawn, objective, lambda _: None, NO_STATE)
    first, last = result.history
    assert last["train_heatmap_loss"] < first["train_heatmap_loss"]
    assert last["train_presence_loss"] < first["train_presence_loss"]


def gradients(drawn: CocoDict, accumulate: int, weights: Weights, codec: str = "udp") -> tuple[list[Tensor], Tensor]:
    """Of the first batch of eight, and its three losses."""
    model, fabric = make_model(head="three_class"), Fabric(accelerator="cpu", devices=1)
    objective = loop.Objective(make_codec(model, codec), weights, Recipe(), Length(1, 8, 0, accumulate))
    stepper = loop.Stepper.build(model, fabric, objective, num_batches=1)
    (batch,) = ordered_loader(make_samples(persons_of(drawn), EVERYTHING), 8, num_workers=0)
    losses = stepper.backward(batch)
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None], losses


@pytest.mark.parametrize("accumulate", [2, 3, 4])
@pytest.mark.parametrize("absent_heatmaps", ["mask", "zero"])
@pytest.mark.parametrize("heatmap_mean", ["labelled", "all"])
def test_parts_of_a_batch_add_up_to_it(
    heatmap_mean: str, absent_heatmaps: str, accumulate: int, drawn: CocoDict
) -> None:
    """Eight persons in parts of three at the most, with unlike numbers of labelled keypoints."""
    weights = Weights(heatmap_mean=heatmap_mean, absent_heatmaps=absent_heatmaps)
    (found, losses), (wanted, whole) = gradients(drawn, accumulate, weights), gradients(drawn, 1, weights)
    torch.testing.assert_close(losses, whole)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-7)


@pytest.mark.slow
@pytest.mark.skipif(which("c++") is None, reason="no compiler")
def test_a_compiled_model_learns_the_same(drawn: CocoDict) -> None:
    """Up to the order of sums, in weights with their own names."""
    persons, plain, compiled = persons_of(drawn), make_model(), make_model()
    compiled.compile()
    length = LENGTH._replace(epochs=1)
    wanted = train(plain, make_samples(persons), make_samples(persons), drawn, length=length).result
    found = train(compiled, make_samples(persons), make_samples(persons), drawn, length=length).result
    assert list(found.state) == list(wanted.state)
    assert found.history[0]["train_loss"] == pytest.approx(wanted.history[0]["train_loss"], rel=1e-4)


def test_fewer_persons_than_a_batch_are_refused(drawn: CocoDict) -> None:
    persons = persons_of(drawn)
    with pytest.raises(UserError, match=r"^base\.train\.batch_size: found 9, wanted at most the 8 persons$"):
        train(make_model(), make_samples(persons), make_samples(persons), drawn, length=LENGTH._replace(batch_size=9))


def test_the_last_incomplete_batch_is_left_out_and_the_schedule_knows(
    drawn: CocoDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight persons in batches of three are two steps; the learning rate ends at zero with the last one."""
    asked = []
    build = loop.build_schedule
    monkeypatch.setattr(loop, "build_schedule", lambda *arguments: asked.append(build(*arguments)) or asked[-1])
    persons = persons_of(drawn)
    recipe, length = Recipe(schedule="cosine"), LENGTH._replace(epochs=2, batch_size=3)
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


@pytest.mark.parametrize("name", ["dark", "udp"])
def test_the_truth_itself_has_an_ap_of_one(name: str, drawn: CocoDict) -> None:
    """`validate` decodes, unwarps and scores: with perfect sub-pixel heatmaps nothing is lost on the way."""
    codec = make_codec(make_model(), name)
    samples = make_samples(persons_of(drawn), aligned=codec.aligned)
    loader = ordered_loader(samples, 3, num_workers=0)
    truths = iter([encode(batch.keypoints_input, (batch.visibility > 0).float(), codec)[0] for batch in loader])

    class Oracle(nn.Module):
        def forward(self, _: Tensor) -> PoseOutput:
            return PoseOutput(next(truths), None)

    objective = loop.Objective(codec, Weights(), Recipe(), LENGTH)
    record = loop.validate(
        Oracle(), loader, Truth.of(drawn), samples.persons, objective, Fabric(accelerator="cpu", devices=1)
    )
    assert record["calibration_AP"] == pytest.approx(1)
    assert record["calibration_loss"] == record["calibration_heatmap_loss"] == 0
