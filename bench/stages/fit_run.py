"""What stages train and warmstart share: one seeded training on a profile's manifests."""

from collections.abc import Callable

import torch
from lightning_fabric import Fabric

from bench.config import TrainConfig
from bench.stages.run_model import build, build_codec, build_samples, read_manifest
from bench.training.loop import Fit, Objective, fit
from models import PoseModel


def fit_run(
    config: TrainConfig, profile: str, seed: int, fabric: Fabric, log: Callable[[dict[str, float]], None]
) -> tuple[PoseModel, Fit]:
    """Train on a profile's manifests, seeded and deterministic (on a GPU where an operation can be)."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=fabric.device.type == "cuda")
    model = build(config, pretrained=True)
    calibration = read_manifest(profile, "calibration")
    train_set = build_samples(config, read_manifest(profile, "train"), seed, augment=True)
    calibration_set = build_samples(config, calibration, seed, augment=False)
    objective = Objective(build_codec(config, model), config.loss, config.optim, config.train)

    def log_and_print(record: dict[str, float]) -> None:
        log(record)
        print("  ".join(f"{name} {value:.5g}" for name, value in record.items()))

    return model, fit(model, fabric, train_set, calibration_set, calibration, objective, log_and_print)


def device_name(device: torch.device) -> str:
    """The device as reports name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
