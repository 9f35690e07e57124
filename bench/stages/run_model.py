"""What the stages share that build or open a run's model: it, its codec and its samples, from its parameters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lightning_fabric import Fabric
from torch import nn

from bench.config import AugmentParams, TestParams, TrainConfig
from bench.data.coco import CocoDict, Person, read_coco
from bench.data.codec import Codec
from bench.data.crop_store import CropStore
from bench.data.dataset import PoseDataset, ordered_loader
from bench.data.geometry import Crop
from bench.data.keypoints import NUM_KEYPOINTS
from bench.errors import UserError
from bench.inference.predict import Predictions, on_device, predict
from bench.machine import count_workers
from bench.stages.files import RunFiles, manifest_file, plan_dir, read_model
from bench.training.checkpoint import load_checkpoint
from bench.training.sharding import strategy_of
from models import PoseModel, build_model


def build(config: TrainConfig, *, pretrained: bool) -> PoseModel:
    """The model of a run; weights of its `init` only where they are trained from, not where a checkpoint follows.

    Raises:
        UserError: the sizes do not fit each other, or the weights of `init` cannot be had or do not fit.
    """
    try:
        return build_model(**build_arguments(config, pretrained=pretrained))
    except ValueError as error:  # weights too
        raise UserError(str(error)) from error


def build_arguments(config: TrainConfig, *, pretrained: bool) -> dict[str, Any]:
    """Arguments of `models.build_model`."""
    head = config.presence_head.model_dump(exclude_none=True) if config.presence_head else None
    sizes = config.architecture.model_dump() | ({} if pretrained else {"init": "random"})
    return {
        **sizes,
        "name": config.model,
        "input_size": config.input_size,
        "num_keypoints": NUM_KEYPOINTS,
        "presence_head": head,
    }


def build_codec(config: TrainConfig, model: PoseModel) -> Codec:
    return Codec(config.codec, config.input_size, model.heatmap_size, config.sigma)


def build_crop(config: TrainConfig, codec: Codec) -> Crop:
    return Crop(config.input_size, config.bbox_padding, config.fit, codec.aligned)


def build_samples(
    config: TrainConfig,
    codec: Codec,
    persons: Sequence[Person],
    policy: str,
    augment: AugmentParams | None,
    seed: int,
    store: CropStore | None = None,
) -> PoseDataset:
    """Samples of persons, labelled by a policy; with random views where they are augmented."""
    return PoseDataset(persons, build_crop(config, codec), policy, augment, seed, store)


def read_manifest(profile: str, name: str) -> CocoDict:
    return read_coco(manifest_file(profile, name))


def build_fabric(precision: str, devices: int = 1, num_nodes: int = 1, strategy: str = "ddp") -> Fabric:
    """The best devices there are, one or as many of every node."""
    return Fabric(
        accelerator="auto",
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy_of(strategy, devices * num_nodes),
        precision=precision,  # type: ignore[arg-type]
    )


class TrainedRun(NamedTuple):
    """A run that is asked: its parameters, and its model with the weights of the checkpoint, on the device."""

    config: TrainConfig
    test: TestParams
    codec: Codec
    fabric: Fabric
    model: nn.Module

    @property
    def network(self) -> PoseModel:
        """The model itself, without what Fabric wraps it in."""
        network = self.model.module
        assert isinstance(network, PoseModel)
        return network

    @property
    def num_workers(self) -> int:
        """Processes that read its images."""
        return count_workers(self.config.num_workers, self.fabric.device.type)

    def predict(self, samples: PoseDataset) -> Predictions:
        """Predictions for every person of the samples, in their order."""
        loader = on_device(self.fabric, ordered_loader(samples, self.test.batch_size, self.num_workers))
        return predict(self.model, loader, self.codec, decoding=self.test.decoding, flip_test=self.test.flip_test)


def open_run(files: RunFiles) -> TrainedRun:
    """Raises:
    UserError: the run has no plan or no checkpoint, or the two do not fit each other.
    """
    plan = plan_dir(files.profile) / files.run
    config = read_model(plan / "train.json", TrainConfig)
    test = read_model(plan / "predict.json", TestParams)
    model = build(config, pretrained=False)
    load_checkpoint(files.checkpoint, model)
    fabric = build_fabric(config.precision)
    return TrainedRun(config, test, build_codec(config, model), fabric, fabric.setup(model))
