"""Is a keypoint there? Heads that answer with one logit per keypoint.

Letters: B batch, K keypoints, C channels, h w height and width of what a head reads, F values of one pooled heatmap.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn


class HeadShapes(NamedTuple):
    """Of what a head can read."""

    num_keypoints: int  # K
    heatmap_size: tuple[int, int]  # (w, h)
    num_channels: int  # C of the features


class PresenceLogits(NamedTuple):
    presence: Tensor  # (B, K)
    visibility: Tensor | None = None  # (B, K, 3): not labelled, occluded, visible; of a three-class head alone


class PresenceHead(nn.Module):
    """What all heads have: something they read, one place for dropout, a way to read without giving gradient.

    Args:
        dropout: rate.
        dropout_at: where it acts: on the `features`, before the decoder, so that the heatmaps see it too; on the
            `heatmaps` that the head reads; on the `pooled` values; on the `hidden` ones that the last layer reads.
        detach: no gradient goes from the head to what it reads.

    Raises:
        ValueError: the head has no such place.
    """

    reads: ClassVar[Literal["heatmaps", "features"]]
    places: ClassVar[tuple[str, ...]]

    def __init__(self, *, dropout: float, dropout_at: str, detach: bool) -> None:
        super().__init__()
        if dropout_at not in self.places:
            raise ValueError(f"presence head: found dropout_at {dropout_at!r}, wanted {' or '.join(self.places)}")
        self.dropout, self.dropout_at, self.detach = dropout, dropout_at, detach
        self.feature_dropout = self.dropout_for("features")  # applied by the model, before the decoder

    def dropout_for(self, place: str) -> nn.Dropout:
        """The dropout of one place; of rate 0 where it does not act."""
        return nn.Dropout(self.dropout if place == self.dropout_at else 0.0)

    def forward(self, seen: Tensor) -> PresenceLogits:
        """Heatmaps (B, K, h, w) or features (B, C, h, w), as `reads` says, to logits."""
        return self.answer(seen.detach() if self.detach else seen)

    def answer(self, seen: Tensor) -> PresenceLogits:
        """What `forward` returns, after the question of gradients is settled."""
        raise NotImplementedError


class KeypointLinear(nn.Module):
    """A linear layer of its own for every keypoint, all at once: (B, K, in) to (B, K, out)."""

    def __init__(self, num_keypoints: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # nn.Linear's
        self.weight = nn.Parameter(torch.empty(num_keypoints, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_keypoints, 1, out_features).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        per_keypoint = features.transpose(0, 1)  # (K, B, in)
        return torch.baddbmm(self.bias, per_keypoint, self.weight).transpose(0, 1)


POOLS: dict[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}
"""By the side of the window."""


class MlpPresenceHead(PresenceHead):
    """The source paper's head: max-pool, flatten each heatmap, its own small fully connected network, one logit.

    Args:
        shapes: K and the heatmap's size.
        pool: side of the pooling window.
        pool_type: `max`, as in the paper, or `mean`.
        hidden: width of the hidden layer.
        dropout: `dropout`, `dropout_at` and `detach` of `PresenceHead`.

    Raises:
        ValueError: the window does not divide the heatmap.
    """

    reads = "heatmaps"
    places = ("features", "heatmaps", "pooled", "hidden")
    num_outputs: ClassVar[int] = 1

    def __init__(self, shapes: HeadShapes, *, pool: int, hidden: int, pool_type: str = "max", **dropout: Any) -> None:
        super().__init__(**dropout)
        if pool_type not in POOLS:
            raise ValueError(f"presence head: found pool_type {pool_type!r}, wanted {' or '.join(POOLS)}")
        width, height = shapes.heatmap_size
        if width % pool or height % pool:
            raise ValueError(f"presence head: pool {pool} does not divide heatmaps of {width} x {height}")
        self.layers = nn.Sequential(
            self.dropout_for("heatmaps"),
            POOLS[pool_type](pool),
            nn.Flatten(2),  # (B, K, F)
            self.dropout_for("pooled"),
            self.linear(shapes.num_keypoints, (width // pool) * (height // pool), hidden),
            nn.ReLU(),
            self.dropout_for("hidden"),
            self.linear(shapes.num_keypoints, hidden, self.num_outputs),
        )

    def linear(self, num_keypoints: int, in_features: int, out_features: int) -> nn.Module:
        """One layer, (B, K, in) to (B, K, out)."""
        return KeypointLinear(num_keypoints, in_features, out_features)

    def answer(self, seen: Tensor) -> PresenceLogits:
        return PresenceLogits(self.layers(seen)[..., 0])


class SharedMlpPresenceHead(MlpPresenceHead):
    """As `MlpPresenceHead`, with one network for all keypoints: K times fewer parameters."""

    def linear(self, num_keypoints: int, in_features: int, out_features: int) -> nn.Module:  # noqa: ARG002
        return nn.Linear(in_features, out_features)


class ThreeClassPresenceHead(MlpPresenceHead):
    """As `MlpPresenceHead`, with a logit for each of not labelled, occluded and visible.

    A keypoint is present when it is occluded or visible: log(e^occluded + e^visible) - not_labelled is the logit of
    that. Source of the classes: Guesdon et al., VISAPP 2022.
    """

    num_outputs = 3

    def answer(self, seen: Tensor) -> PresenceLogits:
        visibility = self.layers(seen)  # (B, K, 3)
        return PresenceLogits(visibility[..., 1:].logsumexp(-1) - visibility[..., 0], visibility)


class LinearPresenceHead(PresenceHead):
    """Features averaged over the image, one linear layer (mmpose's VisPredictHead)."""

    reads = "features"
    places = ("features", "hidden")

    def __init__(self, shapes: HeadShapes, **dropout: Any) -> None:
        super().__init__(**dropout)
        self.hidden_dropout = self.dropout_for("hidden")
        self.linear = nn.Linear(shapes.num_channels, shapes.num_keypoints)

    def answer(self, seen: Tensor) -> PresenceLogits:
        return PresenceLogits(self.linear(self.hidden_dropout(seen.mean((2, 3)))))


def pooling_block(num_channels: int, side: int) -> nn.Sequential:
    """3x3 convolution, batch norm, max-pooling to side x side, ReLU."""
    convolution = nn.Conv2d(num_channels, num_channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(num_channels), nn.AdaptiveMaxPool2d(side), nn.ReLU())


class ConvPresenceHead(PresenceHead):
    """Three convolutions that pool the features to one vector, and a linear map (ProbPose, CVPR 2025).

    On the paper's features of 12 x 16 (w, h) the pooling windows are its 3 x 4, 2 x 2 and 2 x 2; features of every
    size become 4 x 4, 2 x 2 and 1 x 1.
    """

    reads = "features"
    places = ("features", "hidden")

    def __init__(self, shapes: HeadShapes, **dropout: Any) -> None:
        super().__init__(**dropout)
        self.layers = nn.Sequential(
            *(pooling_block(shapes.num_channels, side) for side in (4, 2, 1)),
            self.dropout_for("hidden"),
            nn.Conv2d(shapes.num_channels, shapes.num_keypoints, 1),
            nn.Flatten(),
        )

    def answer(self, seen: Tensor) -> PresenceLogits:
        return PresenceLogits(self.layers(seen))


HEADS: dict[str, type[MlpPresenceHead] | type[LinearPresenceHead] | type[ConvPresenceHead]] = {
    "mlp": MlpPresenceHead,
    "shared_mlp": SharedMlpPresenceHead,
    "three_class": ThreeClassPresenceHead,
    "linear": LinearPresenceHead,
    "conv": ConvPresenceHead,
}


def build_head(shapes: HeadShapes, *, type: str, **sizes: Any) -> PresenceHead:  # noqa: A002  # the parameter's name
    """The head `type` of `HEADS` with dropout, dropout_at, detach, and the sizes of one that reads heatmaps.

    Raises:
        ValueError: no such type, pool_type or place, or a pool that does not divide the heatmaps.
    """
    if type not in HEADS:
        raise ValueError(f"presence head: found type {type!r}, wanted {', '.join(HEADS)}")
    return HEADS[type](shapes, **sizes)
