"""Names that parameters may hold are those that the code knows."""

from collections.abc import Iterable
from typing import get_args

import pytest

from bench import config
from bench.data.codec import CODECS, DECODINGS
from bench.data.geometry import FITS
from bench.data.presence import POLICIES
from bench.inference.scoring import SCORE_RULES
from bench.metrics.bootstrap import Method
from bench.training.losses import HEATMAP_MEANS, WEIGHTINGS
from models import BUILDERS
from models.decoders import DECODERS
from models.pose_model import NORMALISATIONS
from models.presence_heads import HEADS

NAMES = [
    (config.BaseParams, "codec", CODECS),
    (config.BaseParams, "fit", FITS),
    (config.BaseParams, "model", BUILDERS),
    (config.BaseParams, "presence_policy", POLICIES),
    (config.TestParams, "decoding", [*DECODINGS, "codec", "published"]),
    (config.EvaluateParams, "score_rule", SCORE_RULES),
    (config.EvaluateParams, "presence_policy", POLICIES),
    (config.EvaluateParams, "interval", get_args(Method)),
    (config.LossParams, "heatmap_mean", HEATMAP_MEANS),
    (config.LossParams, "weighting", WEIGHTINGS),
    (config.VitPoseParams, "decoder", DECODERS),
    (config.VitPoseParams, "normalisation", NORMALISATIONS),
]


@pytest.mark.parametrize(("section", "key", "known"), NAMES)
def test_every_name_is_known_and_can_be_chosen(section: type[config.Params], key: str, known: Iterable[str]) -> None:
    assert set(get_args(section.model_fields[key].annotation)) == set(known)


def test_every_head_and_its_places_for_dropout() -> None:
    assert {name: set(places) for name, places in config.DROPOUT_PLACES.items()} == {
        name: set(head.places) for name, head in HEADS.items()
    }


@pytest.mark.parametrize(
    ("params", "sizes"),
    [
        (config.VitPoseParams, {"patch_size": 16, "decoder": "simple", "decoder_channels": None}),
        (config.HRNetParams, {"backbone": "hrnet_w18_small"}),
        (config.TransPoseParams, {"backbone": "resnet18", "decoder_channels": 8, "feedforward_dim": 8, "dropout": 0.0}),
        (config.TransPoseParams, {"backbone": "hrnet_w18_small", "decoder_channels": None}),
    ],
)
def test_the_smallest_input_of_the_config_is_the_smallest_that_builds(
    params: type[config.Params], sizes: dict[str, object]
) -> None:
    model = params.__name__.removesuffix("Params").lower()
    shared = {"normalisation": "half", "init": "random"}
    if model == "vitpose":
        sizes = sizes | {"patch_padding": 2, "embed_dim": 8, "depth": 1, "num_heads": 2, "drop_path": 0.0}
    if model == "transpose":
        sizes = {"feedforward_dim": 8, "dropout": 0.0} | sizes | {"embed_dim": 8, "depth": 1, "num_heads": 2}
    checked = params.model_validate(sizes | shared)
    side = checked.input_multiple()  # type: ignore[attr-defined]
    common = {"num_keypoints": 17, "presence_head": None, **checked.model_dump()}
    assert BUILDERS[model](input_size=(side, 2 * side), **common).heatmap_size == checked.heatmap_size(  # type: ignore[attr-defined]
        (side, 2 * side)
    )
    with pytest.raises(ValueError, match="is not a multiple of"):
        BUILDERS[model](input_size=(side // 2, side), **common)
