"""Published systems on COCO val2017: their sizes, what they cost and what they reached, as their authors state it.

AP of medium and of large persons is left out: for ViTPose the two come from a version of its evaluation library that
computed them wrongly, so the systems cannot be compared by them.
"""

from typing import Any, NamedTuple


class Reached(NamedTuple):
    """Fractions, on COCO val2017 with mirrored averaging; None where nothing is stated."""

    AP: float
    AP50: float | None = None
    AP75: float | None = None
    AR: float | None = None


class PublishedSystem(NamedTuple):
    title: str
    model: str  # a name of `models.BUILDERS`
    sizes: dict[str, Any]  # arguments of its builder, but for input_size, num_keypoints, presence_head and init
    num_parameters: float  # millions, of the published weights
    gflops: float | None  # of one image, as the authors count (`COUNTING`); None where nothing is stated
    detected_boxes: Reached  # of the detector with 56.4 AP on persons, the same for all
    true_boxes: Reached | None  # of the annotations; None where nothing is stated
    source: str
    input_size: tuple[int, int] = (192, 256)  # (w, h)


COUNTING = {
    "hrnet": "in units of 2^30; convolutions and linear layers",
    "transpose": "with 4 operations for each value of a batch norm, 5 of a softmax and 1 of other layers, "
    "and the deconvolution at 4 times its cost",
}
"""How the authors' operations differ from `models.cost.count_macs`, by model; ViTPose's state none."""

VITPOSE = {"patch_size": 16, "patch_padding": 2, "decoder_channels": 256, "normalisation": "imagenet"}
VIT_SIZES = {
    "s": {"embed_dim": 384, "depth": 12, "num_heads": 12, "drop_path": 0.1},
    "b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "drop_path": 0.3},
    "l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "drop_path": 0.5},
    "h": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "drop_path": 0.55},
}
TRANSPOSE = {"dropout": 0.1, "normalisation": "imagenet"}
TRANSPOSE_R = TRANSPOSE | {
    "backbone": "resnet50",
    "embed_dim": 256,
    "num_heads": 8,
    "feedforward_dim": 1024,
    "decoder_channels": 256,
}
TRANSPOSE_H = TRANSPOSE | {"num_heads": 1, "decoder_channels": None}
TRANSPOSE_H_W32 = TRANSPOSE_H | {"backbone": "hrnet_w32", "embed_dim": 64, "feedforward_dim": 128}
TRANSPOSE_H_W48 = TRANSPOSE_H | {"backbone": "hrnet_w48", "embed_dim": 96, "feedforward_dim": 192}


def vitpose(size: str, decoder: str, num_parameters: float, reached: Reached) -> PublishedSystem:
    """Parameters are those of transformers' VitPose, which holds the published weights; the repository counts none."""
    return PublishedSystem(
        f"ViTPose-{size.upper()}, {decoder} decoder",
        "vitpose",
        VITPOSE | VIT_SIZES[size] | {"decoder": decoder},
        num_parameters,
        None,
        reached,
        None,
        "ViTAE-Transformer/ViTPose, README (single-task training) and logs; parameters: transformers' VitPose",
    )


def hrnet(
    width: int, num_parameters: float, gflops: float, reached: Reached, true_boxes: Reached | None = None
) -> PublishedSystem:
    return PublishedSystem(
        f"HRNet-W{width}",
        "hrnet",
        {"backbone": f"hrnet_w{width}", "normalisation": "imagenet"},
        num_parameters,
        gflops,
        reached,
        true_boxes,
        "leoxiaobin/deep-high-resolution-net.pytorch, README; true boxes: a rerun of the published weights, thread 174",
    )


def transpose(
    name: str, sizes: dict[str, Any], num_parameters: float, gflops: float, reached: Reached, true_boxes: Reached
) -> PublishedSystem:
    return PublishedSystem(
        f"TransPose-{name}",
        "transpose",
        sizes,
        num_parameters,
        gflops,
        reached,
        true_boxes,
        "yangsenius/TransPose, README",
    )


PUBLISHED: dict[str, PublishedSystem] = {
    "vitpose_s_classic": vitpose("s", "classic", 24.29, Reached(0.738, AR=0.792)),
    "vitpose_s_simple": vitpose("s", "simple", 21.72, Reached(0.735, AR=0.789)),
    "vitpose_b_classic": vitpose("b", "classic", 89.99, Reached(0.75797, 0.90664, 0.83177, 0.81072)),
    "vitpose_b_simple": vitpose("b", "simple", 85.91, Reached(0.75526, 0.90632, 0.82864, 0.80943)),
    "vitpose_l_classic": vitpose("l", "classic", 308.54, Reached(0.78321, 0.91374, 0.85213, 0.83487)),
    "vitpose_l_simple": vitpose("l", "simple", 303.45, Reached(0.78183, 0.91391, 0.85347, 0.83408)),
    "vitpose_h_classic": vitpose("h", "classic", 637.21, Reached(0.79054, 0.9165, 0.85682, 0.84063)),  # of epoch 180
    "vitpose_h_simple": vitpose("h", "simple", 631.11, Reached(0.78904, 0.91575, 0.85585, 0.83953)),
    "hrnet_w32": hrnet(32, 28.5, 7.1, Reached(0.744, 0.905, 0.819, 0.798), Reached(0.765)),
    "hrnet_w48": hrnet(48, 63.6, 14.6, Reached(0.751, 0.906, 0.822, 0.804)),
    "transpose_r_a3": transpose(
        "R-A3", TRANSPOSE_R | {"depth": 3}, 5.2, 8.0, Reached(0.717, 0.889, 0.788, 0.771), Reached(0.738)
    ),
    "transpose_r_a4": transpose(
        "R-A4", TRANSPOSE_R | {"depth": 4}, 6.0, 8.9, Reached(0.726, 0.891, 0.799, 0.780), Reached(0.751)
    ),
    "transpose_h_s": transpose(
        "H-S", TRANSPOSE_H_W32 | {"depth": 4}, 8.0, 10.2, Reached(0.742, 0.896, 0.808, 0.795), Reached(0.761)
    ),
    "transpose_h_a4": transpose(
        "H-A4", TRANSPOSE_H_W48 | {"depth": 4}, 17.3, 17.5, Reached(0.753, 0.900, 0.818, 0.803), Reached(0.775)
    ),
    "transpose_h_a6": transpose(
        "H-A6", TRANSPOSE_H_W48 | {"depth": 6}, 17.5, 21.8, Reached(0.758, 0.901, 0.821, 0.808), Reached(0.781)
    ),
}
"""By the key that `experiments.<name>.published` takes."""
