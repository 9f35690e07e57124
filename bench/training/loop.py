"""The training loop: epochs, validation on the calibration split, the best epoch's weights."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
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
from bench.training.losses import WEIGHTINGS, LossWeights, pose_loss
from bench.training.optim import Recipe, build_optimizer, build_schedule
from models import PoseModel

VALIDATION_DECODING = "codec"  # the choice of the epoch must not depend on what prediction is later asked for
VALIDATION_SCORE_RULE = "box_keypoint"  # for models with and without presence alike
LOOK_EVERY = 32
"""Steps. A GPU that is asked at every one stands still meanwhile; so few lose seconds of a lost training."""


class Length(NamedTuple):
    """How long, how many at once, and how many processes read the images."""

    epochs: int
    batch_size: int
    num_workers: int


class Objective(NamedTuple):
    """What is minimised and how."""

    codec: Codec
    loss: LossWeights
    recipe: Recipe
    length: Length


class Fit(NamedTuple):
    """The result of a training: one record per epoch, and the weights of the best one (on the CPU)."""

    history: list[dict[str, float]]
    best_epoch: int
    state: dict[str, Tensor]


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
) -> Fit:
    """Train `model` in place; keep the weights of the epoch with the highest calibration AP, then the lowest loss.

    `log` gets each epoch's record: epoch, train_loss, train_heatmap_loss, train_presence_loss, calibration_loss,
    calibration_AP.

    Raises:
        UserError: the loss is not finite, or there are fewer persons than one batch.
    """
    length = objective.length
    num_batches = len(train_set.persons) // length.batch_size
    if num_batches == 0:
        raise UserError(
            f"base.train.batch_size: found {length.batch_size}, wanted at most the {len(train_set.persons)} persons"
        )
    total_loss = WEIGHTINGS[objective.loss.weighting]().to(fabric.device)
    optimizer = build_optimizer(model, objective.recipe, list(total_loss.parameters()))
    schedule = build_schedule(optimizer, objective.recipe, length.epochs * num_batches)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    stepper = Stepper(fabric, wrapped, wrapped_optimizer, schedule, objective, total_loss)
    in_order = on_device(fabric, ordered_loader(calibration_set, length.batch_size, length.num_workers))
    truth = Truth.of(calibration)
    best = Fit([], 0, {})
    best_key = (-1.0, -math.inf)
    with Progress(*PROGRESS_COLUMNS, disable=not fabric.is_global_zero) as progress:
        task = progress.add_task("", total=length.epochs * num_batches * length.batch_size)
        advance = partial(progress.advance, task, length.batch_size)
        for epoch in range(1, length.epochs + 1):
            progress.update(task, description=f"epoch {epoch}/{length.epochs}")
            loader = shuffled_loader(train_set, length.batch_size, length.num_workers, epoch)
            record = {"epoch": epoch} | stepper.train(on_device(fabric, loader), epoch, advance)
            record |= validate(wrapped, in_order, truth, calibration_set.persons, objective)
            best.history.append(record)
            log(record)
            key = (record["calibration_AP"], -record["calibration_loss"])
            if key > best_key:
                state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
                best, best_key = best._replace(best_epoch=epoch, state=state), key
    return best


class Stepper(NamedTuple):
    """What one optimiser step needs."""

    fabric: Fabric
    model: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    objective: Objective
    total_loss: nn.Module  # from the two losses to the one that is minimised

    def train(self, loader: Iterable[Sample], epoch: int, advance: Callable[[], None]) -> dict[str, float]:
        """One epoch; the mean of every loss.

        Raises:
            UserError: the loss or its gradient is not finite, with the first step where it was not. On a CPU the
                weights are those before that step; elsewhere they may be up to `LOOK_EVERY` steps further.
        """
        self.model.train()
        on_cpu = self.fabric.device.type == "cpu"  # where a look costs nothing
        watch = Watch(epoch, look_every=1 if on_cpu else LOOK_EVERY)
        for batch in loader:
            losses = pose_loss(self.model(batch.image), batch, self.objective.codec, self.objective.loss)
            minimised = self.total_loss(losses)
            self.fabric.backward(minimised)
            watch.add(torch.stack([minimised, losses.heatmap, losses.presence, self.clip_gradients()]))
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)
            advance()
        return watch.means()

    def clip_gradients(self) -> Tensor:
        """Their norm before; without a limit they stay as they are."""
        limit = self.objective.recipe.clip_norm
        max_norm = math.inf if limit is None else limit
        norm = self.fabric.clip_gradients(self.model, self.optimizer, max_norm=max_norm, error_if_nonfinite=False)
        assert norm is not None  # Fabric has none only where it clips values
        return norm


class Watch:
    """The numbers of an epoch's steps, left on the device and looked at every few steps and at the end.

    Args:
        epoch: for messages.
        look_every: steps.
    """

    def __init__(self, epoch: int, look_every: int) -> None:
        self.epoch, self.look_every = epoch, look_every
        self.seen: list[list[float]] = []
        self.unseen: list[Tensor] = []

    def add(self, numbers: Tensor) -> None:
        """Minimised loss, heatmap loss, presence loss and norm of the gradients (4,) of the next step.

        Raises:
            UserError: as `look`.
        """
        self.unseen.append(numbers.detach())
        if len(self.unseen) == self.look_every:
            self.look()

    def look(self) -> None:
        """Raises:
        UserError: a loss or a norm that was not finite since the last look.
        """
        numbers = torch.stack(self.unseen).tolist() if self.unseen else []
        self.unseen = []
        for total, heatmap, presence, norm in numbers:
            self.seen.append([total, heatmap, presence])
            where = f"epoch {self.epoch}, step {len(self.seen)}"
            require_finite(total, f"{where}: the loss is {total} (heatmap {heatmap}, presence {presence})")
            require_finite(norm, f"{where}: the norm of the gradients is {norm} at a loss of {total}")

    def means(self) -> dict[str, float]:
        """Of every loss over the epoch.

        Raises:
            UserError: as `look`.
        """
        self.look()
        means = np.mean(self.seen, axis=0).tolist()
        return dict(zip(("train_loss", "train_heatmap_loss", "train_presence_loss"), means, strict=True))


def require_finite(value: float, finding: str) -> None:
    """Stop a training that has diverged."""
    if not math.isfinite(value):
        raise UserError(f"{finding}, wanted a finite number: lower base.optim.lr or the weights of base.loss")


def validate(
    model: nn.Module, loader: Iterable[Sample], truth: Truth, persons: Sequence[Person], objective: Objective
) -> dict[str, float]:
    """`calibration_loss` and `calibration_AP` of a model, by the benchmark's own functions, without flip test."""
    losses, parts = [], []
    for batch, output in run_model(model, loader, flip_test=False, shift=False):
        losses.append(float(pose_loss(output, batch, objective.codec, objective.loss).total) * len(batch.person_index))
        parts.append(decode_batch(batch, output, objective.codec, VALIDATION_DECODING))
    predictions = concatenate(parts)
    image_ids = np.array([person.image_id for person in persons])
    bbox_scores = np.array([person.bbox_score for person in persons])
    scores = person_scores(VALIDATION_SCORE_RULE, bbox_scores, predictions.score, presence=None)
    detections = truth.detections(image_ids, predictions.keypoints, predictions.score.astype(np.float64), scores)
    evaluation = OKSEvaluation(match(truth.people, detections, truth.num_images))
    return {"calibration_loss": sum(losses) / len(persons), "calibration_AP": evaluation.stats["AP"]}
