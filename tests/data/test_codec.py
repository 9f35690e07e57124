"""Codecs: targets beside plain loops written from the papers, decodings beside the published ones, and the way back."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.vitpose.image_processing_vitpose import post_dark_unbiased_data_processing

from bench.data.codec import CODECS, DECODINGS, Codec, Decoded, decode, encode

SIZES = {
    "192x256": ((192, 256), (48, 64), 8.0),
    "64x96": ((64, 96), (16, 24), 4.0),
    "stride 1": ((40, 56), (40, 56), 2.0),
}
"""Input, heatmap, sigma in input pixels."""
LARGE = (288, 384), (72, 96), 12.0
EVERY_DECODING = [*DECODINGS, "published"]
EVERY_CODEC = [Codec(name, *sizes) for name in CODECS for sizes in SIZES.values()]
IDS = [f"{name} {size}" for name in CODECS for size in SIZES]
every_codec = pytest.mark.parametrize("codec", EVERY_CODEC, ids=IDS)
exact_codec = pytest.mark.parametrize("codec", [codec for codec in EVERY_CODEC if codec.name != "msra"])
rounded_codec = pytest.mark.parametrize("codec", [codec for codec in EVERY_CODEC if codec.name.startswith("msra")])
NUM_PERSONS = 60
Loop = Callable[[np.ndarray, int, int, int], tuple[float, float]]


@pytest.mark.parametrize("shape", [(64, 48), (24, 16), (56, 40), (7, 5), (12, 1)])
def test_peaks_are_the_first_of_the_highest(shape: tuple[int, int]) -> None:
    """As torch's own search of a whole heatmap; of four values, many are the highest."""
    codec = Codec("udp", (192, 256), (shape[1] if shape[1] > 1 else 2, shape[0]), 8.0)
    heatmaps = torch.from_numpy(np.random.default_rng(0).integers(4, size=(3, 17, *shape))).float()
    heatmaps[0] = 0
    score, place = heatmaps.flatten(2).max(-1)
    found = decode(heatmaps, codec, "argmax")
    assert torch.equal(found.score, score)
    wanted = torch.stack([place % shape[1], place // shape[1]], dim=-1) * stride_of(codec)
    assert torch.equal(found.keypoints_input, wanted)


def stride_of(codec: Codec) -> Tensor:
    return torch.tensor(codec.stride)


def random_places(codec: Codec, low: float = -0.499, high: float = 0.499) -> Tensor:
    """(B, 17, 2) heatmap pixels from `low` to the last pixel and `high`; each axis near a border in a third of them."""
    rng = np.random.default_rng(0)
    last, shape = np.array(codec.heatmap_size) - 1, (NUM_PERSONS, 17, 2)
    depth = rng.uniform(0, 4 * codec.sigma_heatmap, shape)
    anywhere = rng.uniform(low, last + high, shape)
    places = np.choose(rng.integers(6, size=shape), [low + depth, last + high - depth, *[anywhere] * 4])
    return torch.from_numpy(places).float()


def encode_places(places: Tensor, codec: Codec) -> Tensor:
    heatmaps, weight = encode(places * stride_of(codec), torch.ones(places.shape[:2]), codec)
    assert (weight == 1).all()
    return heatmaps


def places_of(decoded: Decoded, codec: Codec) -> Tensor:
    return decoded.keypoints_input / stride_of(codec)


def in_interior(places: Tensor, codec: Codec) -> Tensor:
    """Where the blur sees all around the peak."""
    margin = np.ceil(2.5 * codec.sigma_heatmap) + 1.5
    return ((places > margin) & (places < torch.tensor(codec.heatmap_size) - 1 - margin)).all(-1)


# Geometry.


def test_strides_by_hand() -> None:
    assert Codec("msra", (192, 256), (48, 64), 8.0).stride == (4, 4)
    assert Codec("udp", (192, 256), (48, 64), 8.0).stride == (191 / 47, 255 / 63)
    assert Codec("mmpose_dark", (192, 256), (48, 64), 8.0).stride == (4, 4)
    assert Codec("dark", (192, 256), (48, 64), 8.0).stride == (191 / 47, 255 / 63)


@every_codec
def test_sigma_is_that_of_the_published_sizes_in_heatmap_pixels(codec: Codec) -> None:
    assert codec.sigma_heatmap == (1 if codec.input_size == (64, 96) else 2)


@pytest.mark.parametrize(("name", "aligned"), [("msra", False), ("dark", True), ("mmpose_dark", False), ("udp", True)])
def test_a_codec_that_is_not_aligned_needs_the_shift(name: str, aligned: bool) -> None:
    codec = Codec(name, *SIZES["64x96"])
    assert (codec.aligned, codec.shift) == (aligned, not aligned)
    assert not Codec(name, *SIZES["stride 1"]).shift  # nothing is off there


@every_codec
def test_mirrored_heatmaps_after_the_shift_are_those_of_the_image(codec: Codec) -> None:
    """Off by 1 - 1 / stride, of which a shift by one leaves 1 / stride: a quarter at stride 4; exact when aligned."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.uniform(12 * codec.stride[0] / 2, codec.input_size[0] / 2, (4, 17))).float()
    points = torch.stack([x, torch.full_like(x, codec.input_size[1] / 2)], dim=-1)
    mirrored = points * torch.tensor([-1, 1]) + torch.tensor([codec.input_size[0] - 1, 0])
    heatmaps = encode(mirrored, torch.ones(4, 17), codec)[0].flip(-1)
    found = decode(heatmaps.roll(1, -1) if codec.shift else heatmaps, codec, "dark").keypoints_input - points
    rounding = 0.5 if CODECS[codec.name].rounded else 0
    off = 0 if codec.aligned else min(1 / codec.stride[0], 1 - 1 / codec.stride[0])
    limit = off + rounding + 1e-3
    assert found[..., 0].abs().max() / codec.stride[0] < limit


# Targets.


def loop_target(point: np.ndarray, codec: Codec) -> tuple[np.ndarray, float]:
    """One heatmap and its weight, pixel by pixel, from the text of the papers."""
    width, height = codec.heatmap_size
    less = 1 if codec.name in ("udp", "dark") else 0
    x = point[0] * (width - less) / (codec.input_size[0] - less)
    y = point[1] * (height - less) / (codec.input_size[1] - less)
    sigma = codec.sigma * width / codec.input_size[0]
    column, row = np.floor(x + 0.5), np.floor(y + 0.5)
    if codec.name == "msra":
        x, y = column, row
    heatmap, reached = np.zeros((height, width)), False
    for j in range(height):
        for i in range(width):
            within = abs(i - column) <= 3 * sigma and abs(j - row) <= 3 * sigma
            reached |= within
            if within or codec.name in ("dark", "mmpose_dark"):
                heatmap[j, i] = np.exp(-((i - x) ** 2 + (j - y) ** 2) / (2 * sigma**2))
    return (heatmap, 1.0) if reached else (heatmap * 0, 0.0)


@every_codec
def test_targets_are_those_of_the_papers(codec: Codec) -> None:
    rng = np.random.default_rng(2)
    reach = 6 * codec.sigma
    points = rng.uniform(-reach, np.array(codec.input_size) + reach, (2, 17, 2)).astype(np.float32)
    heatmaps, weight = encode(torch.from_numpy(points), torch.ones(2, 17), codec)
    wanted = [loop_target(point.astype(float), codec) for point in points.reshape(-1, 2)]
    np.testing.assert_allclose(heatmaps.reshape(34, *heatmaps.shape[2:]), [one for one, _ in wanted], atol=2e-6)
    assert weight.flatten().tolist() == [one for _, one in wanted]
    assert 0 < weight.mean() < 1


def test_a_target_by_hand() -> None:
    """At (21, 38) with stride 4: 5.25 and 9.5; the nearest pixel is (5, 10)."""
    sizes, point = ((64, 96), (16, 24), 4.0), torch.tensor([[[21.0, 38.0]]])
    rounded = encode(point, torch.ones(1, 1), Codec("msra", *sizes))[0][0, 0]
    assert rounded[10, 5] == 1
    assert rounded[10, 6] == pytest.approx(np.exp(-0.5))
    assert rounded[13, 2] == pytest.approx(np.exp(-9))
    assert rounded[14, 5] == rounded[10, 1] == 0
    exact = encode(point, torch.ones(1, 1), Codec("mmpose_dark", *sizes))[0][0, 0]
    assert exact[10, 5] == pytest.approx(np.exp(-(0.25**2 + 0.5**2) / 2))
    assert exact[14, 5] == pytest.approx(np.exp(-(0.25**2 + 4.5**2) / 2))
    torch.testing.assert_close(rounded, encode(point, torch.ones(1, 1), Codec("msra", *sizes))[0][0, 0])


def test_a_target_of_udp_by_hand() -> None:
    """Input 61 x 93 has strides 60 / 15 = 92 / 23 = 4 between pixel centres."""
    codec = Codec("udp", (61, 93), (16, 24), 61 / 16)  # sigma 1 in heatmap pixels
    heatmap = encode(torch.tensor([[[21.0, 38.0]]]), torch.ones(1, 1), codec)[0][0, 0]
    assert heatmap[10, 5] == pytest.approx(np.exp(-(0.25**2 + 0.5**2) / 2))
    assert heatmap[13, 5] > 0
    assert heatmap[14, 5] == 0  # four rows from the pixel nearest to the keypoint, though a sigma of 3.5 from itself
    assert heatmap[7, 5] > 0


@every_codec
def test_nothing_is_learnt_from_keypoints_without_place_or_far_outside(codec: Codec) -> None:
    reach = 3 * codec.sigma_heatmap
    places = torch.tensor([[[5.0, 4.0], [5.0, 4.0], [-reach, 4.0], [-reach - 1, 4.0], [5.0, -reach - 1]]])
    last = torch.tensor([[[codec.heatmap_size[0] - 1 + reach, 4.0], [codec.heatmap_size[0] + reach, 4.0]]])
    points = torch.cat([places, last], dim=1) * stride_of(codec)
    heatmaps, weight = encode(points, torch.tensor([[0.5, 0, 1, 1, 1, 1, 1]]), codec)
    assert weight.tolist() == [[0.5, 0, 1, 0, 0, 1, 0]]
    assert heatmaps.flatten(2).amax(-1).gt(0).tolist() == [[True, False, True, False, False, True, False]]


# The way back.


@every_codec
@pytest.mark.parametrize("decoding", ["codec", *DECODINGS])
def test_every_way_back_is_within_half_a_heatmap_pixel(codec: Codec, decoding: str) -> None:
    """Also in corners and half a pixel beyond the last one."""
    places = random_places(codec)
    error = (places_of(decode(encode_places(places, codec), codec, decoding), codec) - places).abs()
    assert error.max() < 0.5 + 1e-3
    assert not in_interior(places, codec).all()


@exact_codec
def test_the_way_back_of_unrounded_targets(codec: Codec) -> None:
    """Nearly exact where the blur sees all around the peak, a quarter of a heatmap pixel at borders."""
    places = random_places(codec)
    error = (places_of(decode(encode_places(places, codec), codec, "codec"), codec) - places).abs().amax(-1)
    interior = in_interior(places, codec)
    assert interior.sum() > 50
    assert error[interior].max() < 1e-3
    assert error.max() < 0.25


@rounded_codec
def test_rounded_targets_come_back_as_their_pixel(codec: Codec) -> None:
    """No decoding can know more; DARK at a border must not know less."""
    places = random_places(codec)
    heatmaps = encode_places(places, codec)
    for decoding in DECODINGS:
        found = places_of(decode(heatmaps, codec, decoding), codec)
        torch.testing.assert_close(found, (places + 0.5).floor(), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "own"), [("msra", "quarter"), ("dark", "dark"), ("mmpose_dark", "dark"), ("udp", "dark")]
)
def test_codecs_have_their_own_decoding(name: str, own: str) -> None:
    codec = Codec(name, *SIZES["64x96"])
    heatmaps = torch.rand(4, 17, 24, 16, generator=torch.Generator().manual_seed(0))
    others = {decoding: decode(heatmaps, codec, decoding).keypoints_input for decoding in DECODINGS}
    assert torch.equal(decode(heatmaps, codec, "codec").keypoints_input, others.pop(own))
    assert not any(torch.equal(decode(heatmaps, codec, "codec").keypoints_input, other) for other in others.values())


# Decodings, on heatmaps as of a trained network: peaks of any height and slant on a rough ground that also goes below
# zero.


def trained_heatmaps(codec: Codec, noise: float, seed: int = 0) -> np.ndarray:
    """(6, 17, h, w); noise is relative to the peak."""
    rng = np.random.default_rng(seed)
    width, height = codec.heatmap_size
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    x, y, along, across, angle = (
        rng.uniform(low, high, (6, 17, 1, 1))
        for low, high in [(0, width - 1), (0, height - 1), (1.0, 1.3), (0.8, 1.0), (0, np.pi)]
    )
    u = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    v = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    clean = np.exp(-((u / along) ** 2 + (v / across) ** 2) / (2 * codec.sigma_heatmap**2))
    rough = clean + rng.normal(scale=noise, size=clean.shape)
    return (rough * rng.uniform(0.3, 1.1, (6, 17, 1, 1))).astype(np.float32)


def peaks_of(heatmaps: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray, int, int]]:
    """(person, keypoint), heatmap, column and row of its highest pixel."""
    for index in np.ndindex(*heatmaps.shape[:2]):
        row, column = np.unravel_index(heatmaps[index].argmax(), heatmaps.shape[2:])
        yield index, heatmaps[index].astype(float), int(column), int(row)


def loop_quarter(heatmap: np.ndarray, column: int, row: int) -> tuple[float, float]:
    """HRNet's: a quarter of a pixel towards the second highest neighbour, not in the two outermost pixels."""
    height, width = heatmap.shape
    if not (1 < column < width - 1 and 1 < row < height - 1):
        return column, row
    return (
        column + 0.25 * np.sign(heatmap[row, column + 1] - heatmap[row, column - 1]),
        row + 0.25 * np.sign(heatmap[row + 1, column] - heatmap[row - 1, column]),
    )


def loop_dark(heatmap: np.ndarray, column: int, row: int, sigma: float) -> tuple[float, float]:
    """DARK, equations 6 to 10: blur with the target's Gaussian (zeros outside), log, mu = m - D''(m)^-1 D'(m)."""
    radius = int(np.ceil(2.5 * sigma))
    padded = np.pad(heatmap, radius + 1)
    logs = np.zeros((3, 3))
    for j in range(3):
        for i in range(3):
            total, norm = 0.0, 0.0
            for down in range(-radius, radius + 1):
                for right in range(-radius, radius + 1):
                    weight = np.exp(-(down**2 + right**2) / (2 * sigma**2))
                    total += weight * padded[row + j + down + radius, column + i + right + radius]
                    norm += weight
            logs[j, i] = np.log(max(total / norm, 1e-10))
    slope = np.array([logs[1, 2] - logs[1, 0], logs[2, 1] - logs[0, 1]]) / 2
    cross = (logs[2, 2] - logs[2, 0] - logs[0, 2] + logs[0, 0]) / 4
    curve_x, curve_y = (side[0] - 2 * side[1] + side[2] for side in (logs[1], logs[:, 1]))
    step = -np.linalg.inv(np.array([[curve_x, cross], [cross, curve_y]])) @ slope
    return column + step[0], row + step[1]


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_quarter_is_that_of_a_plain_loop(noise: float) -> None:
    codec = Codec("msra", *SIZES["64x96"])
    heatmaps = trained_heatmaps(codec, noise)
    found = places_of(decode(torch.from_numpy(heatmaps), codec, "quarter"), codec)
    for index, heatmap, column, row in peaks_of(heatmaps):
        assert tuple(found[index].tolist()) == loop_quarter(heatmap, column, row)


@pytest.mark.parametrize("name", ["dark", "udp"])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03])
def test_dark_is_that_of_a_plain_loop_in_the_interior(name: str, noise: float) -> None:
    codec = Codec(name, *SIZES["stride 1"])
    heatmaps = trained_heatmaps(codec, noise)
    found = places_of(decode(torch.from_numpy(heatmaps), codec, "dark"), codec).numpy()
    compared = 0
    for index, heatmap, column, row in peaks_of(heatmaps):
        if 6 <= column < heatmap.shape[1] - 6 and 6 <= row < heatmap.shape[0] - 6:
            np.testing.assert_allclose(found[index], loop_dark(heatmap, column, row, 2.0), atol=1e-4)
            compared += 1
    assert compared > 40


def loop_taylor(heatmap: np.ndarray, column: int, row: int, size: int = 11) -> tuple[float, float]:
    """DarkPose's: blurred on zeros with cv2, scaled to the old maximum, differences over two pixels, inner peaks."""
    border = size // 2
    padded = cv2.GaussianBlur(np.pad(heatmap, border), (size, size), 0)[border:-border, border:-border]
    logs = np.log(np.maximum(padded * heatmap.max() / padded.max(), 1e-10))
    height, width = heatmap.shape
    if not (1 < column < width - 2 and 1 < row < height - 2):
        return column, row

    def at(right: int, down: int) -> float:
        return float(logs[row + down, column + right])

    slope = np.array([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)]) / 2
    cross = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    curve_x, curve_y = ((at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4, (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4)
    step = -np.linalg.inv(np.array([[curve_x, cross], [cross, curve_y]])) @ slope
    return column + step[0], row + step[1]


def loop_mirrored(heatmap: np.ndarray, column: int, row: int, size: int = 11) -> tuple[float, float]:
    """ViTPose's, after UDP's: cv2's own border, log of 0.001 to 50, edges repeated, one diagonal for the cross term."""
    logs = np.pad(np.log(np.clip(cv2.GaussianBlur(heatmap, (size, size), 0), 0.001, 50)), 1, mode="edge")

    def at(right: int, down: int) -> float:
        return float(logs[row + 1 + down, column + 1 + right])

    slope = np.array([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)]) / 2
    curve_x, curve_y = at(1, 0) - 2 * at(0, 0) + at(-1, 0), at(0, 1) - 2 * at(0, 0) + at(0, -1)
    cross = (at(1, 1) - at(1, 0) - at(0, 1) + 2 * at(0, 0) - at(-1, 0) - at(0, -1) + at(-1, -1)) / 2
    hessian = np.array([[curve_x, cross], [cross, curve_y]]) + np.finfo(np.float32).eps * np.eye(2)
    step = -np.linalg.inv(hessian) @ slope
    return column + step[0], row + step[1]


@pytest.mark.parametrize(("sizes", "size"), [(SIZES["192x256"], 11), (LARGE, 17)], ids=["192x256", "288x384"])
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
@pytest.mark.parametrize(
    ("name", "loop"), [("dark", loop_taylor), ("mmpose_dark", loop_taylor), ("udp", loop_mirrored)]
)
def test_published_is_that_of_a_plain_loop_borders_too(
    name: str, loop: Loop, noise: float, sizes: tuple[tuple[int, int], tuple[int, int], float], size: int
) -> None:
    codec = Codec(name, *sizes)
    places, (width, height) = random_places(codec), codec.heatmap_size  # many at borders
    places[0, :4] = torch.tensor([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    targets = encode_places(places, codec).numpy()
    rough = targets + np.random.default_rng(1).normal(scale=noise, size=targets.shape).astype(np.float32)
    heatmaps = np.concatenate([rough, trained_heatmaps(codec, noise)])
    wanted = np.zeros((*heatmaps.shape[:2], 2))
    edges = np.zeros(heatmaps.shape[:2], dtype=int)
    for index, heatmap, column, row in peaks_of(heatmaps):
        wanted[index] = loop(heatmap, column, row, size)
        edges[index] = (column in (0, width - 1)) + (row in (0, height - 1))
    assert (edges > 0).sum() > 50
    assert (edges == 2).sum() > 2
    exact, single = torch.from_numpy(heatmaps).double(), torch.from_numpy(heatmaps)
    np.testing.assert_allclose(places_of(decode(exact, codec, "published"), codec), wanted, rtol=0, atol=1e-4)
    # Where the mirror leaves a flat top, float32 rounds more.
    np.testing.assert_allclose(places_of(decode(single, codec, "published"), codec), wanted, rtol=0, atol=1e-3)


def test_published_is_a_quarter_for_msra() -> None:
    codec = Codec("msra", *SIZES["64x96"])
    heatmaps = torch.from_numpy(trained_heatmaps(codec, 0.03))
    assert torch.equal(decode(heatmaps, codec, "published").keypoints_input, decode(heatmaps, codec, "quarter")[0])


@exact_codec
def test_the_published_way_back_is_exact_where_the_blur_sees_all(codec: Codec) -> None:
    """To a thousandth of a heatmap pixel at sigma 2; at 1 the kernel of five pixels is hardly a Gaussian."""
    places = random_places(codec)
    heatmaps, interior = encode_places(places, codec), in_interior(places, codec)
    error = (places_of(decode(heatmaps, codec, "published"), codec) - places).abs().amax(-1)
    assert interior.sum() > 40
    assert error[interior].max() < (0.01 if codec.sigma_heatmap == 1 else 1e-3)
    assert error[~interior].max() > 0.4  # what the codec's own decoding is there for


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 1e-3), (0.01, 0.25)])
def test_dark_is_that_of_transformers_in_the_interior(noise: float, tolerance: float) -> None:
    """The same top of a Gaussian; theirs blurs with sigma 0.8 whatever the target, so more of the noise stays."""
    codec = Codec("udp", *SIZES["192x256"])
    heatmaps = trained_heatmaps(codec, noise)
    peaks = np.array([(column, row) for _, _, column, row in peaks_of(heatmaps)], dtype=float).reshape(6, 17, 2)
    wanted = post_dark_unbiased_data_processing(peaks.copy(), heatmaps, kernel=11)
    found = places_of(decode(torch.from_numpy(heatmaps), codec, "dark"), codec).numpy()
    interior = ((peaks >= 6) & (peaks < np.array(codec.heatmap_size) - 6)).all(-1)
    assert interior.sum() > 40
    assert np.abs(found - wanted)[interior].max() < tolerance
    assert np.abs(wanted - peaks)[interior].max() > 0.4  # there was something to refine


def test_dark_loses_less_to_noise_than_argmax_also_at_borders() -> None:
    codec = Codec("udp", *SIZES["192x256"])
    places = random_places(codec)
    heatmaps = encode_places(places, codec)
    rough = heatmaps + 0.03 * torch.randn(heatmaps.shape, generator=torch.Generator().manual_seed(0))
    at_border = ~in_interior(places, codec)
    errors = {
        name: (places_of(decode(rough, codec, name), codec) - places)[at_border].square().mean().sqrt().item()
        for name in ("argmax", "dark")
    }
    assert errors["dark"] < 0.3 * errors["argmax"]


@every_codec
def test_dark_never_leaves_the_neighbourhood_of_the_peak(codec: Codec) -> None:
    width, height = codec.heatmap_size
    heatmaps = torch.rand(4, 17, height, width, generator=torch.Generator().manual_seed(0)) - 0.3
    peak = places_of(decode(heatmaps, codec, "argmax"), codec)
    step = places_of(decode(heatmaps, codec, "dark"), codec) - peak
    assert step.isfinite().all()
    assert step.abs().max() <= codec.sigma_heatmap + 1e-3


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("decoding", EVERY_DECODING)
@pytest.mark.parametrize("name", CODECS)
def test_a_flat_heatmap_gives_its_first_pixel(name: str, decoding: str, value: float) -> None:
    codec = Codec(name, *SIZES["64x96"])
    decoded = decode(torch.full((1, 2, 24, 16), value), codec, decoding)
    assert decoded.keypoints_input.abs().max() <= codec.stride[0]
    assert decoded.score.tolist() == [[value, value]]


@pytest.mark.parametrize("decoding", EVERY_DECODING)
@pytest.mark.parametrize("name", CODECS)
def test_score_is_the_peak(name: str, decoding: str) -> None:
    codec = Codec(name, *SIZES["64x96"])
    heatmaps = torch.zeros(1, 2, 24, 16)
    heatmaps[0, 0, 3, 4] = 0.7
    decoded = decode(heatmaps, codec, decoding)
    torch.testing.assert_close(decoded.score, torch.tensor([[0.7, 0.0]]))
    assert places_of(decoded, codec)[0, 0].tolist() == pytest.approx([4, 3], abs=1e-3)


@every_codec
@pytest.mark.parametrize("decoding", EVERY_DECODING)
def test_persons_and_keypoints_do_not_see_each_other(codec: Codec, decoding: str) -> None:
    heatmaps = torch.from_numpy(trained_heatmaps(codec, 0.03))
    whole = decode(heatmaps, codec, decoding).keypoints_input
    alone = decode(heatmaps[2:3, 5:6], codec, decoding).keypoints_input
    torch.testing.assert_close(whole[2, 5], alone[0, 0], rtol=0, atol=1e-4)


@every_codec
@pytest.mark.parametrize("decoding", EVERY_DECODING)
def test_a_mirrored_heatmap_gives_mirrored_places(codec: Codec, decoding: str) -> None:
    """Quarter steps differ in the two outermost pixels, as published."""
    heatmaps = torch.from_numpy(trained_heatmaps(codec, 0.03))
    plain = places_of(decode(heatmaps, codec, decoding), codec)
    mirrored = places_of(decode(heatmaps.flip((-1, -2)), codec, decoding), codec)
    last = torch.tensor(codec.heatmap_size) - 1
    quarter = decoding == "quarter" or (codec.name, decoding) == ("msra", "published")
    kept = ((plain > 3) & (plain < last - 3)).all(-1) if quarter else torch.ones(6, 17, dtype=torch.bool)
    torch.testing.assert_close(mirrored[kept], (last - plain)[kept], rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_are_kept(dtype: torch.dtype) -> None:
    codec = Codec("udp", *SIZES["64x96"])
    points = torch.full((1, 2, 2), 20.0, dtype=dtype)
    heatmaps, weight = encode(points, torch.ones(1, 2), codec)
    decoded = decode(heatmaps, codec, "dark")
    assert heatmaps.dtype == decoded.keypoints_input.dtype == decoded.score.dtype == points.dtype
    assert weight.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_codec
@pytest.mark.parametrize("decoding", EVERY_DECODING)
def test_on_a_gpu_all_is_as_on_the_cpu(codec: Codec, decoding: str) -> None:
    places = random_places(codec) * stride_of(codec)
    weight = torch.ones(places.shape[:2])
    here, there = encode(places, weight, codec), encode(places.cuda(), weight.cuda(), codec)
    torch.testing.assert_close(here[0], there[0].cpu(), rtol=0, atol=1e-5)
    assert torch.equal(here[1], there[1].cpu())
    heatmaps = torch.from_numpy(trained_heatmaps(codec, 0.03))
    found = decode(heatmaps.cuda(), codec, decoding).keypoints_input.cpu()
    torch.testing.assert_close(found, decode(heatmaps, codec, decoding).keypoints_input, rtol=0, atol=1e-2)
