"""What stages train and predict share: a run's model, its codec and its samples, from its parameters."""

from collections.abc import Sequence

from lightning_fabric import Fabric

from bench.config import AugmentParams, TrainConfig
from bench.data.coco import CocoDict, Person, read_coco
from bench.data.codec import Codec
from bench.data.dataset import PoseDataset
from bench.data.geometry import Crop
from bench.data.keypoints import NUM_KEYPOINTS
from bench.errors import UserError
from bench.stages.files import manifest_file
from models import PoseModel, build_model


def build(config: TrainConfig, *, pretrained: bool) -> PoseModel:
    """The model of a run; weights of its `init` only where they are trained from, not where a checkpoint follows.

    Raises:
        UserError: the sizes do not fit each other, or the weights of `init` cannot be had or do not fit.
    """
    sizes = config.architecture.model_dump()
    if not pretrained:
        sizes["init"] = "random"
    head = config.presence_head.model_dump(exclude_none=True) if config.presence_head else None
    try:
        return build_model(
            config.model, input_size=config.input_size, num_keypoints=NUM_KEYPOINTS, presence_head=head, **sizes
        )
    except ValueError as error:  # weights too
        raise UserError(str(error)) from error


def build_codec(config: TrainConfig, model: PoseModel) -> Codec:
    return Codec(config.codec, config.input_size, model.heatmap_size, config.sigma)


def build_samples(
    config: TrainConfig, codec: Codec, persons: Sequence[Person], policy: str, augment: AugmentParams | None, seed: int
) -> PoseDataset:
    """Samples of persons, labelled by a policy; with random views where they are augmented."""
    crop = Crop(config.input_size, config.bbox_padding, config.fit, codec.aligned)
    return PoseDataset(persons, crop, policy, augment, seed)


def read_manifest(profile: str, name: str) -> CocoDict:
    return read_coco(manifest_file(profile, name))


def build_fabric(precision: str) -> Fabric:
    """One device, the best there is."""
    return Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]
