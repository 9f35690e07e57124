"""What stages train and warmstart share: one seeded training on a profile's manifests."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch._dynamo.exc import TorchDynamoException

from bench.config import FitConfig, TrainConfig
from bench.data.coco import Person, image_sizes, persons_of
from bench.data.crop_store import open_crop_store
from bench.data.hashing import sha256_of
from bench.errors import UserError
from bench.machine import count_workers
from bench.stages.code import sha256_of_stage
from bench.stages.files import RunFiles, crops_dir, manifest_file
from bench.stages.run_model import build, build_codec, build_crop, build_samples, read_manifest
from bench.training.loop import Fit, Length, Objective, fit
from bench.training.resume import StateFile
from models import PoseModel

SUBSET_SEED = 0
DEVICE_SEEDS = 2**32  # beyond all seeds of parameters


def fit_run(
    config: TrainConfig,
    fitting: FitConfig,
    files: RunFiles,
    fabric: Fabric,
    log: Callable[[dict[str, float]], None],
) -> tuple[PoseModel, Fit]:
    """Train on a profile's manifests, seeded and deterministic (on a GPU where an operation can be).

    Every process of the fabric calls this, and has the same result.

    A training that was stopped goes on from `files.unfinished`, which is the caller's to remove once the result is
    written.
    """
    profile, seed = files.profile, files.seed
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=fabric.device.type == "cuda")
    model = build(config, pretrained=True)
    model.freeze(fitting.optim.trainable_layers)
    if fabric.global_rank:  # the first process goes on as if alone; what others drop is their own affair
        torch.manual_seed(DEVICE_SEEDS * fabric.global_rank + seed)
    codec, policy = build_codec(config, model), fitting.presence_policy
    calibration, whole = read_manifest(profile, "calibration"), read_manifest(profile, "train")
    train = some_persons(persons_of(whole), fitting.num_persons)
    store = None
    if fitting.crop_store:
        crop = build_crop(config, codec)
        with fabric.rank_zero_first(local=True):  # which writes it
            store = open_crop_store(crops_dir(profile), train, image_sizes(whole), crop, fitting.augment)
    train_set = build_samples(config, codec, train, policy, fitting.augment, seed, store)
    calibration_set = build_samples(config, codec, persons_of(calibration), policy, None, seed)
    num_workers = count_workers(config.num_workers, fabric.device.type)
    length = Length(fitting.epochs, fitting.batch_size, num_workers, fitting.accumulate)
    objective = Objective(codec, fitting.loss, fitting.optim, length)

    def log_and_print(record: dict[str, float]) -> None:
        log(record)
        fabric.print("  ".join(f"{name} {value:.5g}" for name, value in record.items()))

    state_file = StateFile(files.unfinished, digest(config, profile, seed, fabric.device))
    if fitting.compile:
        model.compile()
    try:
        return model, fit(model, fabric, train_set, calibration_set, calibration, objective, log_and_print, state_file)
    except TorchDynamoException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"base.train.compile: torch.compile failed ({reason}), wanted false on this machine") from error


def digest(config: TrainConfig, profile: str, seed: int, device: torch.device) -> str:
    """Of all that a training depends on."""
    people = sha256_of(manifest_file(profile, name) for name in ("train", "calibration"))
    depends = [
        config.model_dump_json(),
        str(seed),
        people,
        sha256_of_stage("train"),
        torch.__version__,
        device_name(device),
    ]
    return hashlib.sha256("\n".join(depends).encode()).hexdigest()


def some_persons(persons: Sequence[Person], number: int | Literal["all"]) -> list[Person]:
    """That many, in their order, the same for every training seed; those of a smaller number are among them.

    Raises:
        UserError: there are not as many.
    """
    if number == "all":
        return list(persons)
    if number > len(persons):
        raise UserError(f"base.train.num_persons: found {number}, wanted at most the {len(persons)} of the train split")
    chosen = np.random.default_rng(SUBSET_SEED).permutation(len(persons))[:number]
    return [persons[i] for i in np.sort(chosen)]


def device_name(device: torch.device) -> str:
    """The device as reports name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
