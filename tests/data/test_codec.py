import numpy as np
import pytest
import torch

from bench.data.codec import Codec, decode_argmax, decode_dark, encode

CODECS = [Codec((64, 96), (16, 24), 4.0), Codec((64, 96), (32, 48), 4.0), Codec((192, 256), (48, 64), 8.0)]


def random_points(codec: Codec, margin: float) -> torch.Tensor:
    rng = np.random.default_rng(0)
    low, high = np.full(2, margin), np.array(codec.input_size) - 1 - margin
    return torch.from_numpy(rng.uniform(low, high, (8, 17, 2))).float()


@pytest.mark.parametrize("codec", CODECS)
def test_argmax_is_within_half_a_heatmap_pixel(codec: Codec) -> None:
    points = random_points(codec, margin=0)
    heatmaps, _ = encode(points, torch.ones(8, 17), codec)
    error = (decode_argmax(heatmaps, codec).keypoints_input - points).abs()
    assert (error <= torch.tensor(codec.stride) / 2 + 1e-3).all()


@pytest.mark.parametrize("codec", CODECS)
def test_dark_is_exact_for_a_whole_gaussian(codec: Codec) -> None:
    points = random_points(codec, margin=3 * codec.sigma)
    heatmaps, _ = encode(points, torch.ones(8, 17), codec)
    error = (decode_dark(heatmaps, codec).keypoints_input - points).abs()
    assert error.max() < 0.02 * codec.sigma


def test_dark_never_leaves_the_neighbourhood_of_the_peak() -> None:
    heatmaps = torch.rand(4, 17, 24, 16, generator=torch.Generator().manual_seed(0)) - 0.3
    codec = CODECS[0]
    step = decode_dark(heatmaps, codec).keypoints_input - decode_argmax(heatmaps, codec).keypoints_input
    assert (step.abs() <= torch.tensor(codec.stride) + 1e-4).all()


def test_target_at_a_heatmap_pixel_by_hand() -> None:
    codec = Codec((61, 93), (16, 24), 4.0)  # stride 60 / 15 = 92 / 23 = 4 exactly
    heatmaps, weight = encode(torch.tensor([[[20.0, 40.0]]]), torch.ones(1, 1), codec)
    assert heatmaps[0, 0, 10, 5] == 1
    np.testing.assert_allclose(heatmaps[0, 0, 10, 6], np.exp(-0.5), rtol=1e-6)  # one sigma to the right
    np.testing.assert_allclose(heatmaps[0, 0, 12, 5], np.exp(-2.0), rtol=1e-6)  # two sigma below
    assert weight[0, 0] == 1


def test_nothing_is_learnt_from_keypoints_without_place_or_far_outside() -> None:
    codec = CODECS[0]
    points = torch.tensor([[[20.0, 40.0], [20.0, 40.0], [-13.0, 40.0], [-11.0, 40.0]]])
    heatmaps, weight = encode(points, torch.tensor([[1.0, 0.0, 1.0, 1.0]]), codec)
    assert weight.tolist() == [[1, 0, 0, 1]]  # 3 sigma are 12 pixels
    assert heatmaps[0, 1:3].abs().sum() == 0
    assert heatmaps[0, 3].max() > 0


def test_score_is_the_peak() -> None:
    heatmaps = torch.zeros(1, 2, 24, 16)
    heatmaps[0, 0, 3, 4] = 0.7
    codec = CODECS[0]
    for decode in (decode_argmax, decode_dark):
        torch.testing.assert_close(decode(heatmaps, codec).score, torch.tensor([[0.7, 0.0]]))
    assert decode_argmax(heatmaps, codec).keypoints_input[0, 0].tolist() == pytest.approx([4 * 63 / 15, 3 * 95 / 23])


def test_a_peak_in_the_corner_stays_there() -> None:
    heatmaps = torch.zeros(1, 1, 24, 16)
    heatmaps[0, 0, 0, 0] = 1
    assert decode_dark(heatmaps, CODECS[0]).keypoints_input.abs().max() < CODECS[0].stride[0]
