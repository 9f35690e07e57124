"""A training of ViT-B on a GPU: how near the rate of a large matrix product, and whether the data keep up.

Skipped where there is no GPU; its code runs there on the CPU in microscopic sizes.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest
import torch
from lightning_fabric import Fabric
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.flop_counter import FlopCounterMode

from bench.config import AugmentParams
from bench.data.coco import CocoDict, image_sizes, persons_of
from bench.data.codec import Codec
from bench.data.crop_store import open_crop_store
from bench.data.dataset import PoseDataset, Sample, shuffled_loader
from bench.data.geometry import Crop
from bench.inference.predict import on_device
from bench.training.loop import Length, Objective, fit
from bench.training.losses import Targets, pose_loss
from bench.training.resume import StateFile
from models import PoseModel, build_model
from tests.perf.rates import record_number, record_ratios
from tests.training.toys import Recipe, Weights

AUGMENT = AugmentParams(
    flip=0.5, half_body=0.3, rotation=40.0, rotation_probability=0.6, scale=0.35, shift=0.0, shift_probability=0.3
)
HEAD = {"type": "mlp", "pool": 4, "hidden": 16, "dropout": 0.4, "dropout_at": "hidden", "detach": False}


class Sizes(NamedTuple):
    input_size: tuple[int, int]  # (w, h)
    backbone: dict[str, int]
    batch_size: int
    num_steps: int
    num_workers: int
    num_persons: int
    num_epochs: int
    matrix: int  # side of the product


LARGE = Sizes(
    (192, 256), {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}, 128, 30, 12, 6000, 8, 8192
)
SMALL = Sizes((64, 96), {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}, 8, 2, 0, 32, 1, 64)


def make_model(sizes: Sizes) -> PoseModel:
    torch.manual_seed(0)
    large = sizes.backbone["patch_size"] == 16
    return build_model(
        "vitpose",
        input_size=sizes.input_size,
        num_keypoints=17,
        presence_head=HEAD,
        normalisation="imagenet",
        patch_padding=2 if large else 1,
        drop_path=0.0,
        decoder="classic" if large else "simple",
        decoder_channels=256 if large else 8,
        init="random",
        **sizes.backbone,
    )


class Setting(NamedTuple):
    """A model in training, and persons for it."""

    sizes: Sizes
    fabric: Fabric
    samples: PoseDataset
    manifest: CocoDict
    codec: Codec
    folder: Path

    @classmethod
    def of(cls, sizes: Sizes, accelerator: str, manifest: CocoDict, folder: Path) -> "Setting":
        """As many persons as are wanted: those of the manifest over and over, from a store of crops."""
        known = persons_of(manifest)
        persons = (known * (sizes.num_persons // len(known) + 1))[: sizes.num_persons]
        crop = Crop(sizes.input_size, 1.25, "extend", aligned=True)
        store = open_crop_store(folder, persons, image_sizes(manifest), crop, AUGMENT)
        samples = PoseDataset(persons, crop, "labelled", AUGMENT, 0, store=store)
        codec = Codec("udp", sizes.input_size, make_model(sizes).heatmap_size, 8.0)
        precision: Any = "bf16-mixed" if accelerator == "cuda" else "32-true"
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
        return cls(sizes, fabric, samples, manifest, codec, folder)

    def batches(self) -> Iterator[Sample]:
        """Epoch after epoch."""
        epoch = 0
        while True:
            epoch += 1
            loader = shuffled_loader(self.samples, self.sizes.batch_size, self.sizes.num_workers, epoch)
            yield from on_device(self.fabric, loader)

    def wait(self) -> None:
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize()


def seconds_of(setting: Setting, run: Callable[[], object]) -> float:
    setting.wait()
    start = time.perf_counter()
    run()
    setting.wait()
    return time.perf_counter() - start


def matrix_rate(setting: Setting) -> float:
    """Floating point operations a second of a large product in bf16."""
    side, device = setting.sizes.matrix, setting.fabric.device
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2 * side**3 / median(seconds_of(setting, lambda: a @ b) for _ in range(11))


def make_step(setting: Setting) -> Callable[[Sample], None]:
    """Forward, loss, backward and optimiser step."""
    model = make_model(setting.sizes)
    wrapped, optimizer = setting.fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True))

    def step(batch: Sample) -> None:
        loss = pose_loss(wrapped(batch.image), Targets.of(batch, setting.codec, Weights()), Weights()).total
        setting.fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def count_operations(step: Callable[[Sample], None], batch: Sample) -> int:
    """Of matrix products and convolutions in one step, forward and backward (`torch.utils.flop_counter`)."""
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return int(counter.get_total_flops())


class Found(NamedTuple):
    share: float  # of the matrix rate
    images: float  # a second
    idle: float  # share of a step in which the device waits for its batch


def measure_steps(setting: Setting) -> Found:
    """The rate of training on one batch, and what is lost when every batch is read."""
    step, batches = make_step(setting), setting.batches()
    batch = next(batches)
    operations = count_operations(step, batch)
    num_steps = setting.sizes.num_steps

    def same() -> None:
        for _ in range(num_steps):
            step(batch)

    def fed() -> None:
        for _ in range(num_steps):
            step(next(batches))

    same()
    alone = median(seconds_of(setting, same) for _ in range(5)) / num_steps
    with_data = median(seconds_of(setting, fed) for _ in range(5)) / num_steps
    share = operations / alone / matrix_rate(setting)
    return Found(share, setting.sizes.batch_size / alone, max(0.0, 1 - alone / with_data))


def train_whole(setting: Setting) -> list[dict[str, float]]:
    """A run as the suite trains: all epochs, each with its validation."""
    sizes, log = setting.sizes, list[dict[str, float]]()
    length = Length(sizes.num_epochs, sizes.batch_size, sizes.num_workers)
    objective = Objective(setting.codec, Weights(), Recipe(lr=1e-4), length)
    validated = PoseDataset(persons_of(setting.manifest), setting.samples.crop, "labelled", None, 0)
    state_file = StateFile(setting.folder / "unfinished.pt", "")
    model, people = make_model(sizes), setting.manifest
    fit(model, setting.fabric, setting.samples, validated, people, objective, log.append, state_file)
    return log


def test_the_same_code_on_a_cpu(drawn: CocoDict, tmp_path: Path) -> None:
    setting = Setting.of(SMALL, "cpu", drawn, tmp_path)
    found = measure_steps(setting)
    assert found.share > 0
    assert found.images > 0
    assert 0 <= found.idle < 1
    assert len(train_whole(setting)) == SMALL.num_epochs


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@needs_gpu
def test_steps_of_vit_b(benchmark: BenchmarkFixture, drawn: CocoDict, tmp_path: Path) -> None:
    """At least half of the rate of a matrix product; idle for at most a twentieth."""
    found = benchmark.pedantic(measure_steps, (Setting.of(LARGE, "cuda", drawn, tmp_path),), rounds=1)
    record_ratios(
        benchmark, "training of ViT-B 192 x 256 over a large bf16 product, rates", [found.share], at_least=0.5
    )
    record_number(benchmark, "share of a step in which the GPU waits for data", found.idle, at_most=0.05)
    record_number(benchmark, "images a second, training of ViT-B 192 x 256", found.images)


@needs_gpu
def test_six_thousand_persons_and_eight_epochs(benchmark: BenchmarkFixture, drawn: CocoDict, tmp_path: Path) -> None:
    """Under two minutes."""
    setting = Setting.of(LARGE, "cuda", drawn, tmp_path)
    benchmark.pedantic(train_whole, (setting,), rounds=1)
    record_number(benchmark, "seconds for 6,000 persons, 8 epochs of ViT-B", benchmark.stats.stats.median, at_most=120)
