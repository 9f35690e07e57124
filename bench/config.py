"""Typed parameters: what `params.yaml` may hold. Every key is declared here, once; no value has a default."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Size = Annotated[tuple[Count, Count], Field(strict=False)]  # (w, h); YAML has lists only
Range = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], Field(strict=False)]


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
    seed: Seed
    num_persons: NumPersons
    on_broken: Literal["error", "skip"]
    drawn: DrawnPeople | None

    @model_validator(mode="after")
    def _source_has_what_it_reads(self) -> Self:
        read = "root" if self.source == "coco" else "drawn"
        if getattr(self, read) is None:
            raise ValueError(f"{read}: found null, wanted a value as source is {self.source!r}")
        if self.source == "drawn" and "all" in (self.num_persons.train, self.num_persons.val):
            raise ValueError("num_persons: found 'all', wanted numbers: drawn people have no end")
        return self

    def only_read(self) -> Self:
        """The same without what the source does not read."""
        return self.model_copy(update={"root" if self.source == "drawn" else "drawn": None})


Init = Annotated[str, Field(pattern="^(random|warmstart|timm:.+)$")]


class AttentionParams(Params):
    """Sizes that every transformer has."""

    embed_dim: Annotated[int, Field(ge=4, multiple_of=4)]  # a sine and a cosine for each of x and y
    depth: Count
    num_heads: Count

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        return self


class VitPoseParams(AttentionParams):
    patch_size: Count
    drop_path: Fraction
    decoder: Literal["classic", "simple", "bilinear16"]
    decoder_channels: Count
    init: Init

    def input_multiple(self) -> int:
        return self.patch_size

    def heatmap_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        factor = self.patch_size if self.decoder == "bilinear16" else 4
        return input_size[0] // self.patch_size * factor, input_size[1] // self.patch_size * factor


class HRNetParams(Params):
    backbone: Annotated[str, Field(pattern="^hrnet_")]
    init: Init

    def input_multiple(self) -> int:
        return 32

    def heatmap_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        return input_size[0] // 4, input_size[1] // 4


class TransPoseParams(AttentionParams):
    backbone: Annotated[str, Field(pattern="^resnet")]
    feedforward_dim: Count
    dropout: Fraction
    decoder_channels: Count
    init: Init

    def input_multiple(self) -> int:
        return 8

    def heatmap_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        return input_size[0] // 4, input_size[1] // 4


ModelName = Literal["vitpose", "hrnet", "transpose"]


class Architectures(Params):
    """The sizes of each architecture in one profile; a run reads its own alone."""

    vitpose: VitPoseParams
    hrnet: HRNetParams
    transpose: TransPoseParams


class PresenceHeadParams(Params):
    type: Literal["none", "mlp"]
    pool: Count
    hidden: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]


PolicyName = Literal["labelled", "visible", "true"]


class LossParams(Params):
    heatmap_weight: NonNegative
    presence_weight: NonNegative
    absent_heatmaps: Literal["mask", "zero"]


class AugmentParams(Params):
    flip: Fraction
    half_body: Fraction
    rotation: Annotated[float, Field(ge=0, le=180)]
    rotation_probability: Fraction
    scale: Annotated[float, Field(ge=0, lt=1)]
    shift: Fraction


class OptimParams(Params):
    lr: Positive
    backbone_lr_factor: Fraction
    weight_decay: NonNegative
    warmup: Fraction
    schedule: Literal["constant", "cosine"]
    clip_norm: Positive


class TrainParams(Params):
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]  # batch normalisation needs two
    precision: Literal["32-true", "bf16-mixed"]
    num_workers: Annotated[int, Field(ge=0)]


class BaseParams(Params):
    """What training depends on."""

    input_size: Size
    bbox_padding: Annotated[float, Field(ge=1, le=4)]
    sigma: Positive
    model: ModelName
    architectures: Architectures
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
        pool = self.presence_head.pool
        if self.presence_head.type != "none" and any(side % pool for side in heatmap_size):
            raise ValueError(
                f"presence_head.pool {pool} does not divide the {heatmap_size[0]} x {heatmap_size[1]} heatmaps of "
                f"{self.model}"
            )
        return self


class TestParams(Params):
    """What prediction depends on."""

    __test__ = False  # not a test class, whatever its name says to pytest
    flip_test: bool
    decoding: Literal["argmax", "dark"]
    batch_size: Count


class EvaluateParams(Params):
    """What metrics depend on."""

    score_rule: Literal["box", "box_keypoint"]
    presence_policy: PolicyName
    threshold: Literal["max_f1"] | Annotated[float, Field(ge=0, le=1)]
    num_resamples: Annotated[int, Field(ge=20)]
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
    num_workers: Annotated[int, Field(ge=0)]


PROFILE_SECTIONS = ("data", "base", "test", "evaluate", "report")
MODEL_NAMES: tuple[str, ...] = get_args(ModelName)


class TrainConfig(Params):
    """One run's training, complete: `base` with only the parts that this run reads."""

    input_size: Size
    bbox_padding: float
    sigma: float
    model: ModelName
    architecture: VitPoseParams | HRNetParams | TransPoseParams
    presence_head: PresenceHeadParams | None
    presence_policy: PolicyName
    loss: LossParams
    augment: AugmentParams
    optim: OptimParams
    train: TrainParams

    @classmethod
    def from_base(cls, base: BaseParams) -> Self:
        """Drop the sizes of other architectures, and the head and its loss where the run has none."""
        shared = {name: getattr(base, name) for name in cls.model_fields if name in BaseParams.model_fields}
        if base.presence_head.type == "none":
            shared["presence_head"] = None
            shared["loss"] = base.loss.model_copy(update={"presence_weight": 0.0})
        return cls.model_validate({**shared, "architecture": base.architecture})
