"""Typed parameters: what `params.yaml` may hold. Every key is declared here, once; no value has a default."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Size = Annotated[tuple[Count, Count], Field(strict=False)]  # (w, h); YAML has lists only
Range = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], Field(strict=False)]


def _spelt(pattern: str, wanted: str) -> Callable[[str], str]:
    """A check of text that says in words what it wants."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"found {value!r}, wanted {wanted}")
        return value

    return check


class Params(BaseModel):
    """A section of parameters: strict types, unknown keys refused, read only."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NumPersons(Params):
    train: Count | Literal["all"]  # all: every person that calibration leaves
    calibration: Count
    val: Count | Literal["all"]


class DrawnPeople(Params):
    """What the generator of drawn people varies (`bench.data.synthetic`)."""

    image_size: Size
    people_per_image: Range
    num_objects: Range
    truncation: Fraction
    max_yaw: Annotated[float, Field(ge=0, le=180)]
    unlabelled_fraction: Annotated[float, Field(ge=0, lt=1)]  # with 1 nobody is ever labelled


class DataParams(Params):
    """What `prepare` depends on. A resolved plan holds null for the part that its source does not read."""

    source: Literal["drawn", "coco"]
    root: Annotated[str, Field(min_length=1)] | None  # folder in COCO layout
    detections: Annotated[str, Field(min_length=1)] | None  # COCO file of detected boxes in the val images
    min_detection_score: Fraction | None
    seed: Seed
    num_persons: NumPersons
    on_broken: Literal["error", "skip"]
    drawn: DrawnPeople | None

    @model_validator(mode="after")
    def _source_has_what_it_reads(self) -> Self:
        read = "root" if self.source == "coco" else "drawn"
        if getattr(self, read) is None:
            raise ValueError(f"{read}: found null, wanted a value as source is {self.source!r}")
        if self.detections is not None and self.min_detection_score is None:
            raise ValueError("min_detection_score: found null, wanted a number from 0 to 1 as detections are given")
        if self.source == "drawn" and "all" in (self.num_persons.train, self.num_persons.val):
            raise ValueError("num_persons: found 'all', wanted numbers: drawn people have no end")
        return self

    def only_read(self) -> Self:
        """The same without what the source does not read."""
        if self.source == "drawn":
            return self.model_copy(update={"root": None, "detections": None, "min_detection_score": None})
        unread = {"drawn": None} if self.detections else {"drawn": None, "min_detection_score": None}
        return self.model_copy(update=unread)


# Published files lie in one place, so that DVC sees when they change.
PublishedPath = Annotated[str, AfterValidator(_spelt("models/published/.+", "null or models/published/<file>"))]
Init = Annotated[
    str,
    AfterValidator(
        _spelt(
            "random|warmstart|timm:.+|models/published/.+",
            "random, warmstart, timm:<tag> or models/published/<file>",
        )
    ),
]
HRNetName = Annotated[str, AfterValidator(_spelt("hrnet_.+", "an HRNet of timm, as hrnet_w32"))]
StemName = Annotated[str, AfterValidator(_spelt("resnet.+|hrnet_.+", "a ResNet or an HRNet of timm, as resnet50"))]


class ArchitectureParams(Params):
    """What every architecture has."""

    normalisation: Literal["imagenet", "half"]  # of the pixels, as the first weights were trained with
    init: Init


class AttentionParams(ArchitectureParams):
    """Sizes that every transformer has."""

    embed_dim: Count
    depth: Count
    num_heads: Count

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        return self

    def num_layers(self) -> int:
        """Layers of the backbone that can be frozen one by one."""
        return self.depth


class VitPoseParams(AttentionParams):
    patch_size: Count
    patch_padding: Annotated[int, Field(ge=0)]
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    decoder: Literal["classic", "simple", "bilinear16", "bilinear16_relu_first"]
    decoder_channels: Count | None  # of the classic decoder; null in a resolved plan where it has another

    @model_validator(mode="after")
    def _padding_makes_no_patches(self) -> Self:
        if 2 * self.patch_padding >= self.patch_size:
            raise ValueError(
                f"patch_padding: found {self.patch_padding}, wanted less than half of patch_size {self.patch_size}"
            )
        if self.decoder == "classic" and self.decoder_channels is None:
            raise ValueError("decoder_channels: found None, wanted a number for the classic decoder")
        return self

    def only_read(self) -> Self:
        """The same without the channels of a decoder that has none."""
        return self if self.decoder == "classic" else self.model_copy(update={"decoder_channels": None})

    def input_multiple(self) -> int:
        return self.patch_size

    def heatmap_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        factor = self.patch_size if self.decoder.startswith("bilinear16") else 4
        return input_size[0] // self.patch_size * factor, input_size[1] // self.patch_size * factor


class HRNetParams(ArchitectureParams):
    backbone: HRNetName

    def only_read(self) -> Self:
        return self

    def num_layers(self) -> int:
        """Stages 2 to 4."""
        return 3

    def input_multiple(self) -> int:
        return 32

    def heatmap_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        return input_size[0] // 4, input_size[1] // 4


class TransPoseParams(AttentionParams):
    embed_dim: Annotated[int, Field(ge=4, multiple_of=4)]  # a sine and a cosine for each of x and y
    backbone: StemName  # ResNet: TransPose-R, HRNet: TransPose-H
    feedforward_dim: Count
    dropout: Fraction
    decoder_channels: Count | None  # of R's deconvolution; H has none

    @model_validator(mode="after")
    def _deconvolution_is_of_r(self) -> Self:
        if (self.decoder_channels is None) != self.backbone.startswith("hrnet_"):
            wanted = "null: TransPose-H has no deconvolution" if self.decoder_channels else "a number"
            raise ValueError(f"decoder_channels: found {self.decoder_channels}, wanted {wanted} (on {self.backbone})")
        return self

    def only_read(self) -> Self:
        return self

    def input_multiple(self) -> int:
        return 8 if self.decoder_channels else 16

    def heatmap_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        return input_size[0] // 4, input_size[1] // 4


ModelName = Literal["vitpose", "hrnet", "transpose"]


class Architectures(Params):
    """The sizes of each architecture in one profile; a run reads its own alone."""

    vitpose: VitPoseParams
    hrnet: HRNetParams
    transpose: TransPoseParams


HeadType = Literal["mlp", "shared_mlp", "three_class", "linear", "conv"]
Place = Literal["features", "heatmaps", "pooled", "hidden"]
DROPOUT_PLACES: dict[HeadType, tuple[Place, ...]] = {
    "mlp": get_args(Place),
    "shared_mlp": get_args(Place),
    "three_class": get_args(Place),
    "linear": ("features", "hidden"),
    "conv": ("features", "hidden"),
}
"""Where dropout can act in a head of each type; `hidden` is what its last layer reads."""


class PresenceHeadParams(Params):
    type: Literal["none"] | HeadType
    pool: Count | None  # of heads on heatmaps, as the next two; null in a resolved plan where the head has none
    pool_type: Literal["max", "mean"] | None
    hidden: Count | None
    dropout: Annotated[float, Field(ge=0, lt=1)]
    dropout_at: Place
    detach: bool  # no gradient from the head to what it reads

    @model_validator(mode="after")
    def _dropout_has_its_place(self) -> Self:
        places = get_args(Place) if self.type == "none" else DROPOUT_PLACES[self.type]
        if self.dropout_at not in places:
            wanted = f"{' or '.join(places)} in a {self.type} head"
            raise ValueError(f"dropout_at: found {self.dropout_at!r}, wanted {wanted}")
        return self

    @property
    def reads_heatmaps(self) -> bool:
        return self.type in ("mlp", "shared_mlp", "three_class")

    def only_read(self) -> Self:
        """The same without the sizes that the head does not have, and without a place where nothing is dropped."""
        sizes = {} if self.reads_heatmaps else {"pool": None, "pool_type": None, "hidden": None}
        return self.model_copy(update=sizes if self.dropout else {**sizes, "dropout_at": "hidden"})


PolicyName = Literal["labelled", "visible", "in_window", "known", "border_aware", "three_class", "true"]


class LossParams(Params):
    heatmap_weight: NonNegative
    heatmap_mean: Literal["labelled", "all"]
    presence_weight: NonNegative
    absent_heatmaps: Literal["mask", "zero"]
    weighting: Literal["fixed", "uncertainty"]

    def only_read(self) -> Self:
        """The same without the weights of a sum that learns its own."""
        unread = {"heatmap_weight": 1.0, "presence_weight": 1.0}
        return self if self.weighting == "fixed" else self.model_copy(update=unread)


class AugmentParams(Params):
    flip: Fraction
    half_body: Fraction
    rotation: Annotated[float, Field(ge=0, le=90)]
    rotation_probability: Fraction
    scale: Annotated[float, Field(ge=0, lt=1)]
    shift: Fraction
    shift_probability: Fraction

    def only_read(self) -> Self:
        """The same without amounts that are never drawn, and without probabilities of nothing."""
        update = {} if self.rotation and self.rotation_probability else {"rotation": 0.0, "rotation_probability": 0.0}
        if not (self.shift and self.shift_probability):
            update |= {"shift": 0.0, "shift_probability": 0.0}
        return self.model_copy(update=update)


class OptimParams(Params):
    lr: Positive
    backbone_lr_factor: Fraction
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    trainable_layers: Annotated[int, Field(ge=0)] | Literal["all"]  # of the backbone, counted from its end
    weight_decay: NonNegative
    warmup: Fraction
    schedule: Literal["constant", "cosine", "step"]
    final_lr_factor: Fraction
    clip_norm: Positive | None

    def only_read(self) -> Self:
        """The same without an end of the cosine where there is none, and without rates of a frozen backbone."""
        update = {} if self.schedule == "cosine" else {"final_lr_factor": 0.0}
        if self.trainable_layers == 0:
            update |= {"backbone_lr_factor": 1.0, "layer_decay": 1.0}
        return self.model_copy(update=update)


NumWorkers = Annotated[int, Field(ge=0)] | Literal["auto"]  # processes that read images; auto: by the machine


class TrainParams(Params):
    num_persons: Count | Literal["all"]  # of the train split, chosen at random, always the same; fewer are among more
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    accumulate: Count  # parts of a batch that go through the model one after the other
    compile: bool  # by torch.compile
    devices: Count  # that share every batch, of one node
    num_nodes: Count
    strategy: Literal["ddp", "fsdp"]  # every process has all weights, or a share of each
    precision: Literal["32-true", "bf16-mixed"]
    num_workers: NumWorkers
    crop_store: bool  # decode every image once, not in every epoch (`bench.data.crop_store`)

    @model_validator(mode="after")
    def _parts_hold_two(self) -> Self:
        num_parts = self.accumulate * self.devices * self.num_nodes
        if self.batch_size < 2 * num_parts:  # batch normalisation needs two
            raise ValueError(
                f"found {num_parts} parts (accumulate x devices x num_nodes) of a batch of {self.batch_size},"
                " wanted two persons or more in each"
            )
        return self

    @model_validator(mode="after")
    def _shares_are_several(self) -> Self:
        if self.strategy == "fsdp" and self.devices * self.num_nodes == 1:
            raise ValueError("found strategy 'fsdp' on one device, wanted several that share the weights")
        return self


class BaseParams(Params):
    """What training depends on."""

    input_size: Size
    fit: Literal["extend", "letterbox", "stretch"]
    bbox_padding: Annotated[float, Field(ge=1, le=4)]
    codec: Literal["msra", "dark", "mmpose_dark", "udp"]
    sigma: Positive
    model: ModelName
    architectures: Architectures
    weights: PublishedPath | None
    presence_head: PresenceHeadParams
    presence_policy: PolicyName
    loss: LossParams
    augment: AugmentParams
    optim: OptimParams
    train: TrainParams

    @property
    def architecture(self) -> VitPoseParams | HRNetParams | TransPoseParams:
        sizes: dict[str, VitPoseParams | HRNetParams | TransPoseParams] = {
            "vitpose": self.architectures.vitpose,
            "hrnet": self.architectures.hrnet,
            "transpose": self.architectures.transpose,
        }
        return sizes[self.model]

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        multiple = self.architecture.input_multiple()
        if any(side % multiple for side in self.input_size):
            raise ValueError(
                f"input_size {list(self.input_size)} is not a multiple of {multiple}, as {self.model} needs"
            )
        heatmap_size = self.architecture.heatmap_size(self.input_size)
        head = self.presence_head
        if head.type == "three_class" and self.presence_policy != "labelled":
            raise ValueError(
                f"presence_policy: found {self.presence_policy!r}, wanted 'labelled' with a three_class head, whose "
                "classes are COCO's v"
            )
        if not head.reads_heatmaps:
            return self
        if head.pool is None or head.hidden is None or head.pool_type is None:
            found = f"pool {head.pool}, pool_type {head.pool_type} and hidden {head.hidden}"
            raise ValueError(f"presence_head: found {found}, wanted values for a {head.type} head")
        if any(side % head.pool for side in heatmap_size):
            raise ValueError(
                f"presence_head.pool {head.pool} does not divide the {heatmap_size[0]} x {heatmap_size[1]} heatmaps of "
                f"{self.model}"
            )
        return self

    @model_validator(mode="after")
    def _shared_out_with_a_fixed_sum(self) -> Self:
        if self.train.strategy == "fsdp" and self.loss.weighting != "fixed":
            raise ValueError(
                f"loss.weighting: found {self.loss.weighting!r}, wanted 'fixed' with train.strategy 'fsdp'"
            )
        return self

    def misfit(self) -> str | None:
        """What makes no sense at the sizes of this profile, though it may at those of another."""
        (map_w, map_h), input_w = self.architecture.heatmap_size(self.input_size), self.input_size[0]
        if (sigma_heatmap := self.sigma * map_w / input_w) < 1:
            return (
                f"sigma {self.sigma:g} is {sigma_heatmap:g} pixels of the {map_w} x {map_h} heatmaps of {self.model}, "
                "wanted at least one: a target must reach more than its own pixel"
            )
        num_layers, trainable = self.architecture.num_layers(), self.optim.trainable_layers
        if trainable != "all" and trainable > num_layers:
            return f"optim.trainable_layers: found {trainable}, wanted all or 0 to {num_layers} of {self.model}"
        return None


class TestParams(Params):
    """What prediction depends on."""

    __test__ = False  # not a test class, whatever its name says to pytest
    flip_test: bool
    decoding: Literal["codec", "published", "argmax", "quarter", "dark"]
    batch_size: Count


class EvaluateParams(Params):
    """What metrics depend on."""

    score_rule: Literal["box", "box_keypoint", "box_presence", "presence_weighted"]
    oks_nms: Annotated[float, Field(gt=0, le=1)] | None  # poses more alike than this are one
    presence_policy: PolicyName
    threshold: Literal["max_f1"] | Annotated[float, Field(ge=0, le=1)]
    interval: Literal["percentile", "bca"]
    num_resamples: Annotated[int, Field(ge=20)]
    seed: Seed


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"found {list(values)!r}, wanted each once")
    return values


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if sorted(set(values)) != list(values):
        raise ValueError(f"found {list(values)!r}, wanted each once, the smallest first")
    return values


Side = Literal["left", "right", "top", "bottom"]
Padding = Literal["zeros", "mean", "reflect"]
Kept = Annotated[float, Field(gt=0, le=1)]


class StressParams(Params):
    """What the truncation stress test depends on (`bench.data.truncation`)."""

    num_persons: Count
    kept: Annotated[tuple[Kept, ...], Field(strict=False, min_length=1), AfterValidator(_each_once)]
    sides: Annotated[tuple[Side, ...], Field(strict=False, min_length=1), AfterValidator(_each_once)]
    paddings: Annotated[tuple[Padding, ...], Field(strict=False, min_length=1), AfterValidator(_each_once)]
    seed: Seed


Share = Annotated[float, Field(gt=0, lt=1)]


class DependencyParams(Params):
    """What dependency maps and the test of them depend on (`bench.inference.dependency`)."""

    num_persons: Count
    keypoints_per_person: Count
    cell: Count
    shares: Annotated[tuple[Share, ...], Field(strict=False, min_length=1), AfterValidator(_ascending)]
    seed: Seed


class ReportParams(Params):
    picture_persons: Count
    picture_seed: Seed


class WarmstartEpochs(Params):
    """A transformer without convolutions needs the most."""

    vitpose: Count
    hrnet: Count
    transpose: Count


class WarmstartParams(Params):
    """How the small profiles' backbones were trained, once, on drawn people that no profile uses."""

    profile: str  # whose sizes, loss and augmentation it takes
    init: Literal["random", "warmstart"]
    seed: Seed
    num_persons: NumPersons
    optim: OptimParams
    epochs: WarmstartEpochs
    batch_size: Annotated[int, Field(ge=2)]
    num_workers: NumWorkers


PROFILE_SECTIONS = ("data", "base", "test", "evaluate", "stress", "dependency", "report")
MODEL_NAMES: tuple[ModelName, ...] = get_args(ModelName)


class FitConfig(Params):
    """What a training reads and prediction does not."""

    presence_policy: PolicyName
    loss: LossParams
    augment: AugmentParams
    optim: OptimParams
    num_persons: Count | Literal["all"]
    epochs: Count
    batch_size: int
    accumulate: int
    compile: bool
    devices: int
    num_nodes: int
    strategy: Literal["ddp", "fsdp"]
    crop_store: bool

    @property
    def processes(self) -> tuple[int, int, str]:
        """Of each node, how many nodes, and what they share."""
        return self.devices, self.num_nodes, self.strategy


class TrainConfig(Params):
    """One run's training, complete: `base` with only the parts that this run reads."""

    input_size: Size
    fit: str
    bbox_padding: float
    codec: str
    sigma: float
    model: ModelName
    architecture: VitPoseParams | HRNetParams | TransPoseParams
    presence_head: PresenceHeadParams | None
    weights: str | None  # a published model's, which is not trained
    fitting: FitConfig | None  # None with `weights`
    precision: Literal["32-true", "bf16-mixed"]
    num_workers: NumWorkers

    @classmethod
    def from_base(cls, base: BaseParams) -> Self:
        """Drop what the run does not read: other architectures, a head's sizes, with `weights` the whole training."""
        shared = {name: getattr(base, name) for name in cls.model_fields if name in BaseParams.model_fields}
        head = None if base.presence_head.type == "none" else base.presence_head.only_read()
        architecture = base.architecture.only_read()
        if base.weights is not None:
            architecture = architecture.model_copy(update={"init": "random"})
        return cls.model_validate(
            {
                **shared,
                "architecture": architecture,
                "presence_head": head,
                "fitting": None if base.weights else cls._fitting(base),
                "precision": base.train.precision,
                "num_workers": base.train.num_workers,
            }
        )

    @staticmethod
    def _fitting(base: BaseParams) -> FitConfig:
        loss, policy = base.loss.only_read(), base.presence_policy
        if base.presence_head.type == "none":
            loss = base.loss.model_copy(update={"presence_weight": 0.0, "weighting": "fixed"})
            policy = policy if loss.absent_heatmaps == "zero" else "labelled"
        return FitConfig(
            presence_policy=policy,
            loss=loss,
            augment=base.augment.only_read(),
            optim=base.optim.only_read(),
            num_persons=base.train.num_persons,
            epochs=base.train.epochs,
            batch_size=base.train.batch_size,
            accumulate=base.train.accumulate,
            compile=base.train.compile,
            devices=base.train.devices,
            num_nodes=base.train.num_nodes,
            strategy=base.train.strategy,
            crop_store=base.train.crop_store,
        )

    def weights_file(self) -> str | None:
        """The file or folder in this project that the run's first weights come from, if there is one."""
        if self.weights is not None:
            return self.weights
        init = self.architecture.init
        if init == "warmstart":
            return f"models/warmstart/{self.model}.safetensors"
        return init if init.startswith("models/") else None
