"""A run's model as one ONNX graph says what bench says: every architecture, every decoding, any batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.data.codec import Codec, encode
from bench.data.keypoints import NUM_KEYPOINTS
from bench.export_onnx import export
from bench.inference.exported import Answer, ExportedModel, answer
from bench.inference.flip import flip_output, mean_output
from bench.inference.presence import PresenceReading
from models import PoseModel, PoseOutput, build_model

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

HEAD = PresenceReading(from_head=True, slope=0.8, intercept=0.0, threshold=0.6)
PEAK = PresenceReading(from_head=False, slope=5.0, intercept=-1.9, threshold=0.4)
MLP = {"type": "mlp", "pool": 4, "hidden": 4, "dropout": 0.4, "dropout_at": "hidden", "detach": False}
SHARED: dict[str, Any] = {"num_keypoints": NUM_KEYPOINTS, "normalisation": "imagenet", "init": "random"}
VIT = {"patch_size": 8, "patch_padding": 2, "embed_dim": 8, "depth": 2, "num_heads": 2, "drop_path": 0.1}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "vitpose": (VIT | {"decoder": "classic", "decoder_channels": 4}, MLP),
    "hrnet": ({"backbone": "hrnet_w18_small"}, None),
    "transpose": (
        {"backbone": "resnet18", "embed_dim": 8, "depth": 1, "num_heads": 2, "feedforward_dim": 8}
        | {"dropout": 0.1, "decoder_channels": 4},
        {"type": "conv", "dropout": 0.4, "dropout_at": "hidden", "detach": False},
    ),
}


def ask(model: ExportedModel, input_size: tuple[int, int], image: Tensor, folder: Path) -> Answer:
    """What onnxruntime says of it."""
    file = folder / "model.onnx"
    export(model, input_size, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return Answer(*map(torch.from_numpy, session.run(list(Answer._fields), {"image": image.numpy()})))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_says_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes, head = MODELS[name]
    input_size = (32, 64)
    model = build_model(name, input_size=input_size, presence_head=head, **SHARED, **sizes).eval()
    enlarge_last_layer(model)
    reading = PEAK if head is None else HEAD
    codec = Codec("udp", input_size, model.heatmap_size, 4.0)
    pixels = torch.randint(256, (5, 3, 64, 32), dtype=torch.uint8)
    with torch.no_grad():
        output = mean_output(model(pixels), flip_output(model(pixels.flip(-1)), shift=codec.shift))
    wanted = answer(output, codec, "argmax", reading)
    exported = ExportedModel(model, codec, decoding="argmax", flip_test=True, reading=reading)
    found = ask(exported, input_size, model.normalise(pixels), tmp_path)
    for ours, theirs in zip(wanted, found, strict=True):
        assert ours.std() > 0
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)


def enlarge_last_layer(model: PoseModel) -> None:
    """So that the highest pixel of a heatmap does not hang on a rounding error."""
    last = [part for part in model.decoder.modules() if isinstance(part, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight *= 100


class Painted(nn.Module):
    """Stands for a model: an image holds its heatmaps, keypoint after keypoint below each other."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
        self.register_buffer("pixel_std", torch.ones(3, 1, 1))

    def forward(self, image: Tensor) -> PoseOutput:
        return PoseOutput(image[:, 0].unflatten(1, (NUM_KEYPOINTS, -1)), None)


@pytest.mark.parametrize(
    ("codec_name", "decoding"),
    [("udp", "codec"), ("msra", "codec"), ("dark", "argmax"), ("mmpose_dark", "published"), ("udp", "published")],
)
def test_every_decoding_can_be_exported(codec_name: str, decoding: str, tmp_path: Path) -> None:
    codec = Codec(codec_name, (48, 64), (12, 16), 8.0)
    rng = torch.Generator().manual_seed(0)
    keypoints = torch.rand((3, NUM_KEYPOINTS, 2), generator=rng) * torch.tensor([47.0, 63.0])
    heatmaps, _ = encode(keypoints, torch.ones(3, NUM_KEYPOINTS), codec)
    heatmaps = heatmaps + 0.01 * torch.rand(heatmaps.shape, generator=rng)
    wanted = answer(PoseOutput(heatmaps, None), codec, decoding, PEAK)
    model = ExportedModel(Painted(), codec, decoding=decoding, flip_test=False, reading=PEAK)  # type: ignore[arg-type]
    image = heatmaps.flatten(1, 2)[:, None].expand(-1, 3, -1, -1)
    found = ask(model, (12, 16 * NUM_KEYPOINTS), image.contiguous(), tmp_path)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_the_model_itself_stays_as_it_is() -> None:
    model = Painted()
    model.pixel_mean += 1
    ExportedModel(model, Codec("udp", (48, 64), (12, 16), 8.0), decoding="codec", flip_test=True, reading=PEAK)  # type: ignore[arg-type]
    assert model.pixel_mean.min() == 1
