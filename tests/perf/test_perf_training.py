"""What the presence head costs in a training step."""

import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from bench.data.codec import Codec
from bench.data.dataset import Sample
from bench.training.losses import Targets, pose_loss
from models import build_model
from tests.perf.rates import record_number, record_rate, record_ratio, record_ratios

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


def make_batch(batch_size: int = BATCH_SIZE, input_size: tuple[int, int] = INPUT_SIZE) -> Sample:
    generator = torch.Generator().manual_seed(0)
    width, height = input_size
    ones = torch.ones(batch_size, 17)
    return Sample(
        image=torch.randint(0, 256, (batch_size, 3, height, width), dtype=torch.uint8, generator=generator),
        keypoints_input=torch.rand(batch_size, 17, 2, generator=generator) * torch.tensor([width, height]),
        visibility=2 * ones.long(),
        present=ones,
        present_weight=ones,
        matrix=torch.zeros(batch_size, 2, 3),
        person_index=torch.arange(batch_size),
    )


def make_step(name: str, head: dict[str, object] | None) -> Callable[[], float]:
    """Forward, loss, backward and optimiser step of one batch; returns the loss."""
    torch.manual_seed(0)
    sizes = SYSTEMS[name] | {"normalisation": "imagenet", "init": "random"}
    model = build_model(name, input_size=INPUT_SIZE, num_keypoints=17, presence_head=head, **sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    codec, batch = Codec("udp", INPUT_SIZE, model.heatmap_size, 4.0), make_batch()

    def step() -> float:
        loss = pose_loss(model(batch.image), Targets.of(batch, codec, Weights()), Weights()).total
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


LARGE_SIZE, LARGE_BATCH, NUM_PAIRS = (192, 256), 2, 21
VIT_B = {
    "patch_size": 16,
    "patch_padding": 2,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "drop_path": 0.0,
    "decoder": "classic",
    "decoder_channels": 256,
    "normalisation": "imagenet",
    "init": "random",
}
DROPOUT = {"dropout": 0.4, "dropout_at": "hidden", "detach": False}
LARGE_HEADS = {
    "mlp_16": {"type": "mlp", "pool": 4, "hidden": 16},
    "mlp": {"type": "mlp", "pool": 4, "hidden": 64},
    "shared_mlp": {"type": "shared_mlp", "pool": 4, "hidden": 64},
    "linear": {"type": "linear"},
    "conv": {"type": "conv"},
}
SMALL_HEAD = "mlp_16"


class LargeStep:
    """ViT-B with a head or none, its optimiser and a batch."""

    def __init__(self, head: dict[str, object] | None) -> None:
        torch.manual_seed(0)
        head = head and head | DROPOUT
        self.model = build_model("vitpose", input_size=LARGE_SIZE, num_keypoints=17, presence_head=head, **VIT_B)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.codec = Codec("udp", LARGE_SIZE, self.model.heatmap_size, 8.0)
        self.batch = make_batch(LARGE_BATCH, LARGE_SIZE)

    def loss(self) -> Tensor:
        return pose_loss(self.model(self.batch.image), Targets.of(self.batch, self.codec, Weights()), Weights()).total

    def seconds(self) -> float:
        """Of one step, on the processor: other processes do not count."""
        start = time.process_time()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.process_time() - start

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def bytes(self) -> int:
        """What a step holds at its peak: what the backward pass needs, and weights, gradients and two moments."""
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if not isinstance(tensor, nn.Parameter):
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.loss()  # alive until all is counted, so that no storage has the place of another
        assert loss.isfinite()
        return sum(saved.values()) + 4 * 4 * self.num_parameters()


@pytest.mark.parametrize("name", LARGE_HEADS)
def test_what_a_head_costs_a_vit_b(benchmark: BenchmarkFixture, name: str) -> None:
    """Parameters, memory and time of a step, each over those without a head; the small head has bars."""
    plain, asking = LargeStep(None), LargeStep(LARGE_HEADS[name])
    bars = name == SMALL_HEAD
    benchmark.pedantic(asking.seconds, rounds=1, warmup_rounds=1)
    plain.seconds()
    over = f"ViT-B 192 x 256, head {name} over none"
    parameters, memory = asking.num_parameters() / plain.num_parameters(), asking.bytes() / plain.bytes()
    record_number(benchmark, f"{over}: parameters", parameters, at_most=1.01 if bars else None)
    record_number(benchmark, f"{over}: memory of a step", memory, at_most=1.02 if bars else None)
    pairs = [(asking.seconds(), plain.seconds()) for _ in range(NUM_PAIRS if bars else 3)]
    ratios = [ours / other for ours, other in pairs]
    record_ratios(benchmark, f"{over}: time of a step", ratios, at_most=1.01 if bars else None)
