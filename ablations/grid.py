"""What is varied, and which question of the study each factor belongs to."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict


class Ablation(BaseModel):
    """A declared one-factor change: `factor` is the dotted key, its values are the run's and its parent's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    parent: str
    factor: str
    value: Any
    parent_value: Any
    retest: bool  # takes its parent's training


class Question(NamedTuple):
    """Of the study. A factor belongs to the first question of which a pattern is its dotted key's."""

    name: str
    text: str
    factors: tuple[str, ...]


QUESTIONS = (
    Question("loss", "How should presence and localisation share the loss?", ("loss.*_weight", "loss.weighting")),
    Question("absence", "What should a model learn of a keypoint that is not there?", (
        "loss.absent_heatmaps", "loss.heatmap_mean", "presence_policy",
    )),
    Question("dropout", "How much dropout does the head need, and where?", ("presence_head.dropout*",)),
    Question("gradient", "Should presence train what the head reads?", ("presence_head.detach",)),
    Question("head", "What should the head look like?", ("presence_head.*",)),
    Question("transfer", "Which first weights, and how much of the backbone should be trained?", (
        "architectures.*.init", "optim.trainable_layers", "optim.backbone_lr_factor", "optim.layer_decay",
    )),
    Question("architecture", "What does the architecture change?", ("architectures.*", "model", "weights")),
    Question("input", "What should the model be shown, and which targets?", (
        "input_size", "fit", "bbox_padding", "codec", "sigma",
    )),
    Question("augmentation", "Which augmentation helps?", ("augment.*",)),
    Question("data", "How many persons are enough?", ("train.num_persons",)),
    Question("training", "How long, and how fast?", ("optim.*", "train.*")),
    Question("testing", "What changes without any training?", ("test.*", "evaluate.*")),
)  # fmt: skip
"""In the order of the page."""


def question_of(factor: str) -> Question:
    """That of a factor; every key of `params.yaml` that can be varied has one."""
    return next(q for q in QUESTIONS if any(fnmatchcase(factor, pattern) for pattern in q.factors))


def by_question(factors: Iterable[str]) -> dict[Question, list[str]]:
    """The questions that these factors ask, in the order of `QUESTIONS`, each with its factors in theirs."""
    asked: dict[Question, list[str]] = {}
    for factor in dict.fromkeys(factors):
        asked.setdefault(question_of(factor), []).append(factor)
    return dict(sorted(asked.items(), key=lambda item: QUESTIONS.index(item[0])))
