"""Stage train: one run of one experiment or ablation, from its resolved parameters to the best epoch's weights."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import torch
from dvclive import Live
from lightning_fabric import Fabric

from bench.config import TrainConfig
from bench.stages.command import run_command
from bench.stages.files import RunFiles, TrainingInfo, plan_dir, read_model, write_json, write_text
from bench.stages.run_model import build, build_codec, build_fabric, build_samples, read_manifest
from bench.training.checkpoint import count_parameters, save_checkpoint
from bench.training.loop import Fit, Objective, fit
from models import PoseModel


def main(profile: str, run: str, seed: int) -> None:
    """Write checkpoint, training info, live curves and runs/<profile>/curves/<run>-<seed>.csv."""
    config = read_model(plan_dir(profile) / run / "train.json", TrainConfig)
    files = RunFiles(profile, run, seed)
    fabric = build_fabric(config.train.precision)
    with Live(str(files.live), save_dvc_exp=False, report=None, dvcyaml=None) as live:

        def log(record: dict[str, float]) -> None:
            for name, value in record.items():
                live.log_metric(name, value)
            live.next_step()

        model, result = fit_run(config, profile, seed, fabric, log)
    save_checkpoint(files.checkpoint, result.state)
    write_curves(files.curves, result)
    info = TrainingInfo(
        best_epoch=result.best_epoch,
        device=device_name(fabric.device),
        num_parameters=count_parameters(model),
        num_presence_parameters=count_parameters(model.presence_head),
    )
    write_json(files.training, info.model_dump())


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


def write_curves(file: Path, result: Fit) -> None:
    """One line per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, result.history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.history)
    write_text(file, text.getvalue())


def device_name(device: torch.device) -> str:
    """The device as reports name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


if __name__ == "__main__":
    run_command(main)
