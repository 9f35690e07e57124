"""What the presence head costs in a training step."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data.codec import Codec
from bench.data.dataset import Sample
from bench.training.losses import pose_loss
from models import build_model
from tests.perf.rates import record_rate, record_ratio

BATCH_SIZE = 16
INPUT_SIZE = (64, 96)
HEAD = {"type": "mlp", "pool": 4, "hidden": 64, "dropout": 0.4, "dropout_at": "hidden", "detach": False}
# The sizes of the demo profile.
SYSTEMS = {
    "vitpose": {
        "patch_size": 8,
        "patch_padding": 0,
        "embed_dim": 128,
        "depth": 4,
        "num_heads": 4,
        "drop_path": 0.0,
        "decoder": "simple",
        "decoder_channels": 256,
    },
    "hrnet": {"backbone": "hrnet_w18_small"},
    "transpose": {
        "backbone": "resnet18",
        "embed_dim": 128,
        "depth": 2,
        "num_heads": 4,
        "feedforward_dim": 256,
        "dropout": 0.1,
        "decoder_channels": 64,
    },
}


class Weights(NamedTuple):
    heatmap_weight: float = 1.0
    presence_weight: float = 0.01
    absent_heatmaps: str = "mask"
    heatmap_mean: str = "labelled"
    weighting: str = "fixed"


def make_batch() -> Sample:
    generator = torch.Generator().manual_seed(0)
    width, height = INPUT_SIZE
    ones = torch.ones(BATCH_SIZE, 17)
    return Sample(
        image=torch.randint(0, 256, (BATCH_SIZE, 3, height, width), dtype=torch.uint8, generator=generator),
        keypoints_input=torch.rand(BATCH_SIZE, 17, 2, generator=generator) * torch.tensor([width, height]),
        visibility=2 * ones.long(),
        present=ones,
        present_weight=ones,
        matrix=torch.zeros(BATCH_SIZE, 2, 3),
        person_index=torch.arange(BATCH_SIZE),
    )


def make_step(name: str, head: dict[str, object] | None) -> Callable[[], float]:
    """Forward, loss, backward and optimiser step of one batch; returns the loss."""
    torch.manual_seed(0)
    sizes = SYSTEMS[name] | {"normalisation": "imagenet", "init": "random"}
    model = build_model(name, input_size=INPUT_SIZE, num_keypoints=17, presence_head=head, **sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    codec, batch = Codec("udp", INPUT_SIZE, model.heatmap_size, 4.0), make_batch()

    def step() -> float:
        loss = pose_loss(model(batch.image), batch, codec, Weights()).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_step_with_and_without_the_head(benchmark: BenchmarkFixture, name: str) -> None:
    plain, asking = make_step(name, None), make_step(name, HEAD)
    first = asking()
    last = benchmark(asking)
    assert last < first  # it does train
    record_rate(benchmark, "persons", BATCH_SIZE)
    record_ratio(benchmark, "with_head_over_without", plain, asking)
