"""The training loop: epochs, validation on the calibration split, the best epoch's weights."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.data.coco import CocoDict, Person
from bench.data.codec import Codec
from bench.data.dataset import PoseDataset, Sample, ordered_loader, shuffled_loader
from bench.data.people import Truth
from bench.errors import UserError
from bench.inference.predict import concatenate, decode_batch, on_device, run_model
from bench.inference.scoring import person_scores
from bench.metrics.average_precision import OKSEvaluation
from bench.metrics.oks import match
from bench.training.losses import WEIGHTINGS, LossWeights, Targets, pose_loss
from bench.training.optim import Recipe, build_optimizer, build_schedule
from bench.training.processes import gather, mean_of, part_of
from bench.training.resume import StateFile
from bench.training.sharding import load_whole_state, whole, whole_state, whole_weights
from bench.training.watch import LOOK_EVERY, Watch
from models import PoseModel

VALIDATION_DECODING = "codec"  # the choice of the epoch must not depend on what prediction is later asked for
VALIDATION_SCORE_RULE = "box_keypoint"  # for models with and without presence alike


class Length(NamedTuple):
    """How long, how many at once, and how many processes read the images."""

    epochs: int
    batch_size: int
    num_workers: int
    accumulate: int = 1  # parts of a batch that go through the model one after the other


class Objective(NamedTuple):
    """What is minimised and how."""

    codec: Codec
    loss: LossWeights
    recipe: Recipe
    length: Length


class Fit(NamedTuple):
    """A training so far: one record per epoch, the weights of the best one, and how long it took.

    The weights are whole and on the CPU; of several processes the first alone has them.
    """

    history: list[dict[str, float]]
    best_epoch: int
    state: dict[str, Tensor]
    seconds: float

    def with_epoch(self, record: dict[str, float], model: nn.Module) -> Self:
        """One epoch more; the best is the one with the highest calibration AP, then the lowest loss."""

        def rank(one: dict[str, float]) -> tuple[float, float]:
            return one["calibration_AP"], -one["calibration_loss"]

        longer = self._replace(history=[*self.history, record])
        if self.best_epoch and rank(record) <= rank(self.history[self.best_epoch - 1]):
            return longer
        return longer._replace(best_epoch=len(longer.history), state=whole_weights(model))


class RateColumn(ProgressColumn):
    """Persons per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f} persons/s")


PROGRESS_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    RateColumn(),
    TimeRemainingColumn(),
)


def fit(
    model: PoseModel,
    fabric: Fabric,
    train_set: PoseDataset,
    calibration_set: PoseDataset,
    calibration: CocoDict,
    objective: Objective,
    log: Callable[[dict[str, float]], None],
    state_file: StateFile,
) -> Fit:
    """Train `model` in place and keep the weights of the best epoch.

    `log` gets each epoch's record: epoch, train_loss, train_heatmap_loss, train_presence_loss, and what `validate`
    finds.

    Where `state_file` has a state of this training, it goes on there, to the same bits as if it had never stopped; its
    ended epochs are logged once more.

    Raises:
        UserError: the loss is not finite, there are fewer persons than one batch, or the state cannot be read or
            written.
    """
    length = objective.length
    num_batches = len(train_set.persons) // length.batch_size
    if num_batches == 0:
        raise UserError(
            f"base.train.batch_size: found {length.batch_size}, wanted at most the {len(train_set.persons)} persons"
        )
    stepper = Stepper.build(model, fabric, objective, num_batches)
    part = part_of(fabric)
    in_order = on_device(fabric, ordered_loader(calibration_set, length.batch_size, length.num_workers, part))
    truth = Truth.of(calibration)
    done, seen = resume(stepper, state_file)
    start = time.perf_counter() - done.seconds
    for record in done.history:
        log(record)

    def save_if_due(seen: Sequence[list[float]]) -> None:
        if not fabric.broadcast(state_file.is_due):
            return
        so_far = done._replace(seconds=time.perf_counter() - start)
        state = {"fit": so_far._asdict(), "seen": seen, "stepper": stepper.state()}
        if fabric.is_global_zero:
            state_file.save(state)

    with Progress(*PROGRESS_COLUMNS, disable=not fabric.is_global_zero) as progress:
        num_done = len(done.history) * num_batches + len(seen)
        total = length.epochs * num_batches * length.batch_size
        task = progress.add_task("", total=total, completed=num_done * length.batch_size)
        for epoch in range(len(done.history) + 1, length.epochs + 1):
            progress.update(task, description=f"epoch {epoch}/{length.epochs}")
            watch = Watch(epoch, stepper.look_every, seen)
            loader = shuffled_loader(train_set, length.batch_size, length.num_workers, epoch, len(seen), part)
            stepper.model.train()
            for batch in on_device(fabric, loader):
                stepper.step(batch, watch)
                progress.advance(task, length.batch_size)
                if not watch.unseen:  # where the device is waited for anyway
                    save_if_due(watch.seen)
            record = {"epoch": epoch} | watch.means()
            record |= validate(stepper.model, in_order, truth, calibration_set.persons, objective, fabric)
            done, seen = done.with_epoch(record, model), []
            log(record)
            save_if_due(seen)
    return done._replace(seconds=time.perf_counter() - start)


def resume(stepper: "Stepper", state_file: StateFile) -> tuple[Fit, list[list[float]]]:
    """The training so far and the losses of the epoch under way, with the stepper as it was then."""
    state = state_file.load()
    if state is None:
        return Fit([], 0, {}, 0.0), []
    stepper.load(state["stepper"])
    return Fit(**state["fit"]), state["seen"]


class Stepper(NamedTuple):
    """What one optimiser step needs."""

    fabric: Fabric
    model: _FabricModule
    optimizer: _FabricOptimizer
    schedule: LambdaLR
    objective: Objective
    total_loss: nn.Module  # from the two losses to the one that is minimised

    @classmethod
    def build(cls, model: PoseModel, fabric: Fabric, objective: Objective, num_batches: int) -> Self:
        """At the start of a training, with that many batches in an epoch."""
        total_loss = WEIGHTINGS[objective.loss.weighting](partial(mean_of, fabric)).to(fabric.device)
        wrapped = fabric.setup_module(model)  # which may replace the parameters
        optimizer = build_optimizer(model, objective.recipe, list(total_loss.parameters()))
        schedule = build_schedule(optimizer, objective.recipe, objective.length.epochs * num_batches)
        wrapped_optimizer = fabric.setup_optimizers(optimizer)
        assert isinstance(wrapped_optimizer, _FabricOptimizer)
        return cls(fabric, wrapped, wrapped_optimizer, schedule, objective, total_loss)

    @property
    def learning(self) -> tuple[nn.ModuleDict, Optimizer]:
        """All that has parameters, and what changes them, without what Fabric wraps them in."""
        return nn.ModuleDict({"model": self.model.module, "total_loss": self.total_loss}), self.optimizer.optimizer

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on, the random numbers of every process too."""
        return {
            "learning": whole_state(*self.learning),
            "schedule": self.schedule.state_dict(),
            "random": gather(self.fabric, _random_state(self.fabric.device)),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Be as when `state` was taken."""
        load_whole_state(*self.learning, state["learning"])
        self.schedule.load_state_dict(state["schedule"])
        on_cpu, on_gpu = state["random"][self.fabric.global_rank]
        torch.set_rng_state(on_cpu)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, self.fabric.device)

    @property
    def look_every(self) -> int:
        """Steps: on a CPU a look costs nothing."""
        return 1 if self.fabric.device.type == "cpu" else LOOK_EVERY

    def step(self, batch: Sample, watch: Watch) -> None:
        """One optimiser step.

        Raises:
            UserError: the loss or its gradient is not finite, with the first step where it was not. On a CPU the
                weights are those before that step; elsewhere they may be up to `LOOK_EVERY` steps further.
        """
        losses = self.backward(batch)
        watch.add(torch.cat([losses, self.clip_gradients()[None]]))
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, batch: Sample) -> Tensor:
        """Gradients of a batch, part by part; its minimised loss, heatmap loss and presence loss (3,).

        Of several processes' parts of a batch they are the mean, since divisors are.
        """
        num_parts, weights, mean = self.objective.length.accumulate, self.objective.loss, partial(mean_of, self.fabric)
        targets = Targets.of(batch, self.objective.codec, weights, mean).split(num_parts)
        found: list[Tensor] = []
        for image, wanted in zip(batch.image.tensor_split(num_parts), targets, strict=True):
            with self.fabric.no_backward_sync(self.model, enabled=len(found) < num_parts - 1):
                losses = pose_loss(self.model(image), wanted, weights)
                minimised = self.total_loss(losses, share=len(image) / len(batch.image))
                self.fabric.backward(minimised)
            found.append(torch.stack([minimised, losses.heatmap, losses.presence]).detach())
        for parameter in self.total_loss.parameters():  # which the library does not know
            assert parameter.grad is not None
            parameter.grad = mean(parameter.grad)
        return mean(torch.stack(found).sum(0))

    def clip_gradients(self) -> Tensor:
        """Their norm before; without a limit they stay as they are."""
        limit = self.objective.recipe.clip_norm
        max_norm = float("inf") if limit is None else limit
        norm = self.fabric.clip_gradients(self.model, self.optimizer, max_norm=max_norm, error_if_nonfinite=False)
        assert norm is not None  # Fabric has none only where it clips values
        return whole(norm)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Of the CPU and of the GPU, if there is one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def validate(
    model: nn.Module,
    loader: Iterable[Sample],
    truth: Truth,
    persons: Sequence[Person],
    objective: Objective,
    fabric: Fabric,
) -> dict[str, float]:
    """`calibration_loss`, its two terms before their weights, and `calibration_AP` of a model, by the benchmark's own
    functions, without flip test.

    Of the persons each process loads its part; all get the numbers of all.
    """
    weights = objective.loss
    parts, sums = [], torch.zeros(2, 2, device=fabric.device)  # of heatmap and presence losses, and their divisors
    for batch, output in run_model(model, loader, flip_test=False, shift=False):
        targets = Targets.of(batch, objective.codec, weights)
        losses = pose_loss(output, targets, weights)
        sums += torch.stack([torch.stack([losses.heatmap, losses.presence]) * targets.divisors, targets.divisors])
        parts.append(decode_batch(batch, output, objective.codec, VALIDATION_DECODING))
    predictions = concatenate(list(chain.from_iterable(gather(fabric, parts))))
    image_ids = np.array([person.image_id for person in persons])
    bbox_scores = np.array([person.bbox_score for person in persons])
    scores = person_scores(VALIDATION_SCORE_RULE, bbox_scores, predictions.score, presence=None)
    detections = truth.detections(image_ids, predictions.keypoints, predictions.score.astype(np.float64), scores)
    evaluation = OKSEvaluation(match(truth.people, detections, truth.num_images))
    of_all, divisors = mean_of(fabric, sums)
    heatmap, presence = (of_all / divisors).tolist()
    loss = weights.heatmap_weight * heatmap + weights.presence_weight * presence
    terms = {"calibration_heatmap_loss": heatmap, "calibration_presence_loss": presence}
    return {"calibration_loss": loss, **terms, "calibration_AP": evaluation.stats["AP"]}
