"""A run's model as one function of tensors, from a normalised image to keypoints and presence, fit for export.

Letters: B batch, K keypoints, H W input height and width.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.data.codec import Codec, decode
from bench.inference.flip import flip_output, mean_output
from bench.inference.presence import PresenceReading
from models import PoseModel, PoseOutput


class Answer(NamedTuple):
    keypoints: Tensor  # (B, K, 2) input pixels
    peak: Tensor  # (B, K) height of the heatmap
    presence: Tensor  # (B, K) calibrated probability


def answer(output: PoseOutput, codec: Codec, decoding: str, reading: PresenceReading) -> Answer:
    """What a run says, of the output of its model.

    Heatmaps are decoded in double precision: where one is nearly flat, a Newton step in single precision carries
    rounding errors of 1e-4 input pixels and more, by which two runtimes differ.
    """
    decoded = decode(output.heatmaps.double(), codec, decoding)
    peak = decoded.score.to(output.heatmaps.dtype)
    score = output.presence_logits if reading.from_head else peak
    assert score is not None, "a reading of a head that the model does not have"
    presence = torch.sigmoid(reading.slope * score + reading.intercept)
    return Answer(decoded.keypoints_input.to(peak.dtype), peak, presence)


class ExportedModel(nn.Module):
    """The model, with the run's flip test, decoding and calibration, on the CPU in single precision.

    Args:
        model: as trained; it is copied.
        codec: of the run, which says where keypoints lie in the input.
        decoding: one of `bench.data.codec.decode`.
        flip_test: whether the mirrored image is asked as well, as it was for the calibration.
        reading: how presence is read.
    """

    def __init__(
        self, model: PoseModel, codec: Codec, *, decoding: str, flip_test: bool, reading: PresenceReading
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float()
        self.model.pixel_mean.zero_()  # the image comes normalised
        self.model.pixel_std.fill_(1.0)
        self.codec, self.decoding, self.flip_test, self.reading = codec, decoding, flip_test, reading
        self.eval()

    def forward(self, image: Tensor) -> tuple[Answer, Tensor]:
        """The answer to RGB (B, 3, H, W), float, normalised as `PoseModel.normalise` does, and its heatmaps."""
        output = self.model(image)
        if self.flip_test:
            output = mean_output(output, flip_output(self.model(image.flip(-1)), shift=self.codec.shift))
        return answer(output, self.codec, self.decoding, self.reading), output.heatmaps
