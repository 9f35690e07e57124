"""From persons to predictions in image pixels; training validates with the same functions.

Letters: N persons, B batch, K keypoints, H W input height and width.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from bench.data.codec import Codec, decode
from bench.data.dataset import Sample
from bench.data.geometry import Floats, invert, warp_points
from bench.inference.flip import flip_output, mean_output
from bench.inference.statistics import heatmap_statistics
from models import PoseOutput


class Predictions(NamedTuple):
    """Arrays in the order of the persons."""

    keypoints: Floats  # (N, K, 2) image pixels
    score: NDArray[np.float32]  # (N, K) heatmap peak
    presence_logits: NDArray[np.float32] | None  # (N, K); None without a head
    statistics: dict[str, NDArray[np.float32]]  # (N, K) each of `HeatmapStatistics`; none where nobody asked


def on_device(fabric: Fabric, loader: DataLoader[Sample]) -> Iterable[Sample]:
    """The same batches on the fabric's device; sharding among devices is not left to the library."""
    return cast(Iterable[Sample], fabric.setup_dataloaders(loader, use_distributed_sampler=False))


@torch.inference_mode()
def run_model(
    model: nn.Module, loader: Iterable[Sample], *, flip_test: bool, shift: bool
) -> Iterator[tuple[Sample, PoseOutput]]:
    """Every batch with the model's output in float32; under `flip_test` averaged with the mirrored image's.

    `shift` moves the mirrored heatmaps by one pixel, as codecs that are not aligned need (`Codec.shift`).
    """
    model.eval()
    for batch in loader:
        output: PoseOutput = model(batch.image)
        if flip_test:
            output = mean_output(output, flip_output(model(batch.image.flip(-1)), shift=shift))
        yield batch, _in_full_precision(output)


def _in_full_precision(output: PoseOutput) -> PoseOutput:
    presence, visibility = output.presence_logits, output.visibility_logits
    return PoseOutput(
        output.heatmaps.float(),
        None if presence is None else presence.float(),
        None if visibility is None else visibility.float(),
    )


def decode_batch(
    batch: Sample, output: PoseOutput, codec: Codec, decoding: str, *, statistics: bool = False
) -> Predictions:
    """Heatmaps to keypoints in image pixels, by a decoding of `bench.data.codec.decode`, and to their statistics."""
    decoded = decode(output.heatmaps, codec, decoding)
    keypoints_input = decoded.keypoints_input.double().cpu().numpy()
    logits = output.presence_logits
    found = heatmap_statistics(output.heatmaps)._asdict() if statistics else {}
    return Predictions(
        keypoints=warp_points(keypoints_input, invert(batch.matrix.cpu().numpy())),
        score=decoded.score.cpu().numpy(),
        presence_logits=None if logits is None else logits.cpu().numpy(),
        statistics={name: values.cpu().numpy() for name, values in found.items()},
    )


def concatenate(parts: list[Predictions]) -> Predictions:
    """Batches of predictions as one."""
    logits = [part.presence_logits for part in parts if part.presence_logits is not None]
    return Predictions(
        keypoints=np.concatenate([part.keypoints for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        presence_logits=np.concatenate(logits) if logits else None,
        statistics={name: np.concatenate([part.statistics[name] for part in parts]) for name in parts[0].statistics},
    )


def predict(model: nn.Module, loader: Iterable[Sample], codec: Codec, *, decoding: str, flip_test: bool) -> Predictions:
    """Predictions for every person of a loader, in its order."""
    outputs = run_model(model, loader, flip_test=flip_test, shift=codec.shift)
    return concatenate([decode_batch(batch, output, codec, decoding, statistics=True) for batch, output in outputs])
