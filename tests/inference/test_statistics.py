"""Statistics of heatmaps, beside heatmaps made by hand and a plain loop."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.codec import Codec, encode
from bench.data.keypoints import flip_order
from bench.data.predictions import STATISTICS
from bench.inference.flip import flip_output
from bench.inference.statistics import HeatmapStatistics, heatmap_statistics
from models import PoseOutput

HEIGHT, WIDTH = 24, 18


def one(**values: float) -> HeatmapStatistics:
    """Of a heatmap of zeros but for pixels named "r<row>c<column>"."""
    heatmap = torch.zeros(1, 1, HEIGHT, WIDTH)
    for name, value in values.items():
        row, column = map(int, name[1:].split("c"))
        heatmap[0, 0, row, column] = value
    return heatmap_statistics(heatmap)


def random_heatmaps(seed: int = 0) -> Tensor:
    """Noise, half of it negative: no two values are equal."""
    return torch.randn(3, 17, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def gaussian() -> NDArray[np.float64]:
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 2.0**2))
    return kernel / kernel.sum()


def plain_blurred_peak(heatmap: NDArray[np.float64]) -> float:
    padded, weights = np.pad(heatmap, 5), np.outer(gaussian(), gaussian())
    return max(
        float((padded[row : row + 11, column : column + 11] * weights).sum())
        for row in range(heatmap.shape[0])
        for column in range(heatmap.shape[1])
    )


def plain_mass(heatmap: NDArray[np.float64]) -> float:
    return math.fsum(value for value in heatmap.ravel() if value > 0)


def plain_entropy(heatmap: NDArray[np.float64]) -> float:
    mass = plain_mass(heatmap)
    if mass == 0:
        return math.log(heatmap.size)
    return -math.fsum(value / mass * math.log(value / mass) for value in heatmap.ravel() if value > 0)


def plain_peak_gap(heatmap: NDArray[np.float64]) -> float:
    first_row, first_column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    second = 0.0
    for (row, column), value in np.ndenumerate(heatmap):
        far = max(abs(row - first_row), abs(column - first_column)) > 3
        around = heatmap[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if far and value >= around.max():
            second = max(second, float(value))
    return float(heatmap.max()) - second


PLAIN: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "blurred_peak": plain_blurred_peak,
    "mass": plain_mass,
    "entropy": plain_entropy,
    "peak_gap": plain_peak_gap,
}


def targets() -> Tensor:
    """Gaussians cut off: most pixels are equal, namely 0; some keypoints have no heatmap."""
    points = torch.rand(3, 17, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([72.0, 96.0])
    weight = (torch.arange(3 * 17).reshape(3, 17) % 5 > 0).float()
    return encode(points, weight, Codec("udp", (72, 96), (WIDTH, HEIGHT), 6.0))[0]


def test_the_predictions_file_has_all_of_them() -> None:
    assert HeatmapStatistics._fields == STATISTICS == tuple(PLAIN)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    "make", [random_heatmaps, targets, lambda: targets() + 0.05 * random_heatmaps(), lambda: -random_heatmaps().abs()]
)
def test_as_a_plain_loop_has_it(make: Callable[[], Tensor], name: str) -> None:
    heatmaps = make()
    found = getattr(heatmap_statistics(heatmaps), name)
    assert found.shape == (3, 17)
    assert found.dtype == torch.float32
    wanted = [[PLAIN[name](heatmap) for heatmap in person] for person in heatmaps.double().numpy()]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_one_pixel() -> None:
    found = one(r10c9=0.8)
    assert found.mass.item() == pytest.approx(0.8)
    assert found.entropy.item() == 0
    assert found.peak_gap.item() == pytest.approx(0.8)
    assert found.blurred_peak.item() == pytest.approx(0.8 * gaussian()[5] ** 2)


def test_the_blur_of_a_constant_is_the_constant_where_no_border_is_near() -> None:
    """It sees zeros beyond borders, as in DARK's code."""
    assert heatmap_statistics(torch.full((1, 1, HEIGHT, WIDTH), 0.4)).blurred_peak.item() == pytest.approx(0.4)
    assert heatmap_statistics(torch.full((1, 1, HEIGHT, 6), 0.4)).blurred_peak.item() < 0.36


@pytest.mark.parametrize("value", [0.0, -0.3])
def test_a_heatmap_of_nothing_is_as_uncertain_as_can_be(value: float) -> None:
    found = heatmap_statistics(torch.full((1, 1, HEIGHT, WIDTH), value))
    assert found.mass.item() == 0
    assert found.entropy.item() == pytest.approx(math.log(HEIGHT * WIDTH))
    assert found.peak_gap.item() == pytest.approx(value)


def test_entropy_of_equal_pixels_is_the_log_of_their_number() -> None:
    even = heatmap_statistics(torch.full((1, 1, HEIGHT, WIDTH), 1e-4))
    assert even.entropy.item() == pytest.approx(math.log(HEIGHT * WIDTH), rel=1e-5)
    assert one(r1c1=0.3, r9c9=0.3, r20c3=0.3, r3c14=0.3).entropy.item() == pytest.approx(math.log(4))


def test_entropy_and_nothing_else_is_blind_to_the_height() -> None:
    heatmaps = random_heatmaps()
    low, high = heatmap_statistics(heatmaps), heatmap_statistics(heatmaps * 1000)
    torch.testing.assert_close(high.entropy, low.entropy)
    for name in ("blurred_peak", "mass", "peak_gap"):
        torch.testing.assert_close(getattr(high, name), 1000 * getattr(low, name), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("other", "gap"),
    [
        ("r10c13", 0.3),  # four columns away
        ("r14c9", 0.3),  # four rows away
        ("r6c5", 0.3),
        ("r10c12", 0.8),  # within the 7 x 7 around the first
        ("r13c6", 0.8),
        ("r0c0", 0.3),  # at a corner
        ("r23c17", 0.3),
    ],
)
def test_the_second_peak_is_outside_of_the_first_ones_surroundings(other: str, gap: float) -> None:
    assert one(r10c9=0.8, **{other: 0.5}).peak_gap.item() == pytest.approx(gap)


def test_a_slope_of_the_first_peak_is_no_second_one() -> None:
    """A wide Gaussian reaches beyond the 7 x 7, but rises towards its peak."""
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    wide = torch.exp(-((rows - 11.2) ** 2 + (columns - 8.3) ** 2) / (2 * 5.0**2))[None, None]
    assert heatmap_statistics(wide).peak_gap.item() == wide.max().item()


def test_equal_peaks_far_apart_have_no_gap() -> None:
    assert one(r3c3=0.7, r20c10=0.7).peak_gap.item() == 0


def test_negative_second_peaks_do_not_widen_the_gap() -> None:
    heatmap = torch.full((1, 1, HEIGHT, WIDTH), -0.2)
    heatmap[..., 4, 4], heatmap[..., 15, 9] = 0.6, -0.1
    assert heatmap_statistics(heatmap).peak_gap.item() == pytest.approx(0.6)


def test_of_mirrored_heatmaps_they_are_those_of_the_partners() -> None:
    heatmaps = random_heatmaps()
    mirrored = heatmap_statistics(flip_output(PoseOutput(heatmaps, None), shift=False).heatmaps)
    for found, values in zip(mirrored, heatmap_statistics(heatmaps), strict=True):
        torch.testing.assert_close(found, values[:, flip_order()])


def test_each_heatmap_is_measured_by_itself() -> None:
    heatmaps = random_heatmaps()
    for name, values in heatmap_statistics(heatmaps)._asdict().items():
        alone = getattr(heatmap_statistics(heatmaps[1:2, 4:5]), name)
        torch.testing.assert_close(alone, values[1:2, 4:5])
