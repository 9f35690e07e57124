"""What stages train and warmstart share: one seeded training on a profile's manifests."""

from collections.abc import Callable

import torch
from lightning_fabric import Fabric

from bench.config import FitConfig, TrainConfig
from bench.data.coco import persons_of
from bench.stages.run_model import build, build_codec, build_samples, read_manifest
from bench.training.loop import Fit, Length, Objective, fit
from models import PoseModel


def fit_run(
    config: TrainConfig,
    fitting: FitConfig,
    profile: str,
    seed: int,
    fabric: Fabric,
    log: Callable[[dict[str, float]], None],
) -> tuple[PoseModel, Fit]:
    """Train on a profile's manifests, seeded and deterministic (on a GPU where an operation can be)."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=fabric.device.type == "cuda")
    model = build(config, pretrained=True)
    model.freeze(fitting.optim.trainable_layers)
    codec, policy = build_codec(config, model), fitting.presence_policy
    calibration = read_manifest(profile, "calibration")
    train = persons_of(read_manifest(profile, "train"))
    train_set = build_samples(config, codec, train, policy, fitting.augment, seed)
    calibration_set = build_samples(config, codec, persons_of(calibration), policy, None, seed)
    length = Length(fitting.epochs, fitting.batch_size, config.num_workers)
    objective = Objective(codec, fitting.loss, fitting.optim, length)

    def log_and_print(record: dict[str, float]) -> None:
        log(record)
        print("  ".join(f"{name} {value:.5g}" for name, value in record.items()))

    return model, fit(model, fabric, train_set, calibration_set, calibration, objective, log_and_print)


def device_name(device: torch.device) -> str:
    """The device as reports name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
