"""Keypoints to heatmaps and back: the published codecs, as pure functions on any device.

    name          target                                    decoding   geometry
    msra          Gaussian around the nearest pixel         quarter    HRNet's   (Xiao et al. 2018; Sun et al. 2019)
    dark          Gaussian around the true place            dark       aligned   (Zhang et al., CVPR 2020; TransPose)
    mmpose_dark   as dark                                   dark       HRNet's   (mmpose's DARK)
    udp           Gaussian around the true place, cut off   dark       aligned   (Huang et al., CVPR 2020; ViTPose)

In the aligned geometry input and heatmap share their corner pixel centres; in HRNet's only the centre of pixel 0, and a
mirrored heatmap is off by 1 - 1 / stride of a pixel, which the flip test makes up for by a shift of one.

A codec's own decoding ("codec") is right at the borders of a heatmap too; "published" refines as its authors' code,
which differs within the blur's reach of a border: take it to compare with published numbers.
Letters: B batch, K keypoints, h w heatmap height and width.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TRUNCATE = 3.0  # in sigma: how far a target reaches, and how far outside a keypoint may lie to be learnt from
LOG_FLOOR = 1e-10  # raw heatmaps may be negative
BORDER_ROUNDS = 2  # of Newton's steps for peaks near a border
DIFFERENCES_1D = torch.tensor([[-0.5, 1.0], [0.0, -2.0], [0.5, 1.0]])
"""(3, 2): of three values along a line, the first derivative and the second one."""


def _differences() -> Tensor:
    first, second = DIFFERENCES_1D.unbind(-1)
    middle = torch.tensor([0.0, 1.0, 0.0])
    products = [(middle, first), (first, middle), (middle, second), (second, middle), (first, first)]
    return torch.stack([torch.outer(down, across) for down, across in products], dim=-1).flatten(0, 1)


DIFFERENCES = _differences()
"""(9, 5): of values (3, 3) in rows, the derivatives by x, by y, twice by x, twice by y, and by both."""


class Form(NamedTuple):
    """What makes a codec. `rounded`: centred on a pixel; `cut`: 0 beyond three sigma of that pixel."""

    rounded: bool
    cut: bool
    decoding: str
    aligned: bool


CODECS = {
    "msra": Form(rounded=True, cut=True, decoding="quarter", aligned=False),
    "dark": Form(rounded=False, cut=False, decoding="dark", aligned=True),
    "mmpose_dark": Form(rounded=False, cut=False, decoding="dark", aligned=False),
    "udp": Form(rounded=False, cut=True, decoding="dark", aligned=True),
}


class Codec(NamedTuple):
    """One of `CODECS` with its sizes (w, h); `sigma` in input pixels, the same for every heatmap stride."""

    name: str
    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float

    @property
    def aligned(self) -> bool:
        """Whether lengths are counted between pixel centres (UDP)."""
        return CODECS[self.name].aligned

    @property
    def shift(self) -> bool:
        """Whether the flip test moves mirrored heatmaps by one pixel: not where they are off by half of one or less."""
        return not self.aligned and self.stride[0] > 2

    @property
    def stride(self) -> tuple[float, float]:
        """Input pixels per heatmap pixel, (x, y)."""
        less = 1 if self.aligned else 0
        (in_w, in_h), (map_w, map_h) = self.input_size, self.heatmap_size
        return (in_w - less) / (map_w - less), (in_h - less) / (map_h - less)

    @property
    def sigma_heatmap(self) -> float:
        """Sigma in heatmap pixels."""
        return self.sigma * self.heatmap_size[0] / self.input_size[0]


def encode(keypoints_input: Tensor, weight: Tensor, codec: Codec) -> tuple[Tensor, Tensor]:
    """Target heatmaps of a batch, on the device of the keypoints.

    Args:
        keypoints_input: (B, K, 2) in input pixels.
        weight: (B, K), 0 for keypoints without a position.
        codec: form, sizes and sigma.

    Returns:
        Heatmaps (B, K, h, w), peak 1 where they are centred on a pixel, and target_weight (B, K): `weight`, but 0 where
        no heatmap pixel lies within three sigma of the pixel nearest to the keypoint.

    In HRNet's geometry the input reaches 3/4 of a heatmap pixel (at stride 4) beyond the last pixel centre: a rounded
    target there has its centre outside, and its highest pixel is the last one.
    """
    form = CODECS[codec.name]
    place = keypoints_input / torch.tensor(codec.stride, dtype=keypoints_input.dtype, device=weight.device)
    pixel = (place + 0.5).floor()
    center = pixel if form.rounded else place
    reach = TRUNCATE * codec.sigma_heatmap
    profiles, near = [], weight > 0
    for axis, length in enumerate(codec.heatmap_size):
        grid = torch.arange(length, dtype=place.dtype, device=weight.device)
        within = (grid - pixel[..., axis, None]).abs() <= reach  # (B, K, w) or (B, K, h)
        profile = torch.exp(-((grid - center[..., axis, None]) ** 2) / (2 * codec.sigma_heatmap**2))
        profiles.append(profile * within if form.cut else profile)
        near = near & within.any(-1)
    across, down = profiles[0], profiles[1] * near[..., None]
    return down[..., :, None] * across[..., None, :], weight * near  # (B, K, h, w), (B, K)


class Decoded(NamedTuple):
    keypoints_input: Tensor  # (B, K, 2) input pixels
    score: Tensor  # (B, K) heatmap peak


def decode(heatmaps: Tensor, codec: Codec, decoding: str) -> Decoded:
    """Keypoints of heatmaps (B, K, h, w), by one of `DECODINGS`, by the "codec"'s own, or as "published" with it."""
    if decoding == "published":
        refine = PUBLISHED_STEPS[codec.name]
    else:
        refine = DECODINGS[CODECS[codec.name].decoding if decoding == "codec" else decoding]
    score, peak = _peaks(heatmaps)
    points = peak + refine(heatmaps, peak, codec.sigma_heatmap)
    return Decoded(points * torch.tensor(codec.stride, dtype=points.dtype, device=points.device), score)


def _peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """The highest value (B, K) of each heatmap and its pixel (B, K, 2), the first of equals from row to row.

    First the band of rows (of up to 32 bands), then the place in it: on a CPU a place takes far longer to find
    than a value.
    """
    height, width = heatmaps.shape[-2:]
    bands = heatmaps.reshape(*heatmaps.shape[:2], math.gcd(height, 32), -1)  # (B, K, bands, pixels)
    highest = bands.amax(-1)
    band = highest.argmax(-1, keepdim=True)  # (B, K, 1)
    first = torch.arange(band.numel(), device=band.device) * bands.shape[-2]  # of each heatmap's bands
    within = bands.flatten(0, 2).index_select(0, first + band.flatten()).argmax(-1).view(band.shape[:2])
    place = band[..., 0] * bands.shape[-1] + within
    return highest.gather(-1, band)[..., 0], torch.stack([place % width, place // width], dim=-1)


def stay(heatmaps: Tensor, peak: Tensor, sigma: float) -> Tensor:  # noqa: ARG001  # one signature for all
    """The centre of the highest pixel: no step."""
    return torch.zeros_like(peak, dtype=heatmaps.dtype)


def quarter_step(heatmaps: Tensor, peak: Tensor, sigma: float) -> Tensor:  # noqa: ARG001
    """A quarter of a pixel towards the higher neighbour on each axis, for inner peaks.

    Inner is from the third column and row on to the last but one, as in HRNet's code.
    """
    around = _surroundings(heatmaps, peak, 1)
    difference = torch.stack([around[..., 1, 2] - around[..., 1, 0], around[..., 2, 1] - around[..., 0, 1]], dim=-1)
    last = peak.new_tensor([heatmaps.shape[-1] - 1, heatmaps.shape[-2] - 1])
    inner = ((peak > 1) & (peak < last)).all(-1, keepdim=True)
    return difference.sign() * 0.25 * inner


def dark_step(heatmaps: Tensor, peak: Tensor, sigma: float) -> Tensor:
    """One Newton step on the log of the heatmap, blurred with the target's sigma (DARK, section 3.2).

    Where the blur sees all around the peak (six pixels at sigma 2) this is the published step. Nearer to a border
    DARK's blur takes zeros beyond it and pulls the peak inwards by up to a pixel, for which it leaves the two outermost
    pixels unrefined; ViTPose's blur mirrors the heatmap and refines every pixel. Here, what a target centred on the
    peak loses in a blur with zeros is added back, in a second round for a target where the first one led. Two more
    differences: a step is taken only where the log is concave, and reaches no further than sigma (at least a pixel).
    """
    kernel = _gaussian(sigma, max(1, math.ceil(2.5 * sigma)))
    radius, limit = len(kernel) // 2 + 1, max(1.0, sigma)
    values, place = _windows(heatmaps, peak, radius)  # (N, rows, columns), (N, 2)
    columns, rows = (_three_blurs(length, kernel).to(heatmaps) for length in (values.shape[2], values.shape[1]))
    x, y = place.unbind(-1)
    blurred = rows.index_select(0, y) @ values @ columns.index_select(0, x).mT  # (N, 3, 3)
    derivatives = blurred.clamp_min(LOG_FLOOR).log().flatten(1) @ DIFFERENCES.to(heatmaps)  # (N, 5)
    step = _newton(derivatives, limit)
    size = peak.new_tensor([heatmaps.shape[-1], heatmaps.shape[-2]])
    pixel = peak.flatten(0, 1)
    near = ((pixel < radius) | (pixel >= size - radius)).any(-1).nonzero()[:, 0]
    corrected = torch.zeros_like(step[near])
    for _ in range(BORDER_ROUNDS):
        lost = _lost_at_borders(pixel[near], corrected, size, kernel.to(heatmaps), sigma)
        corrected = _newton(derivatives[near] + lost, limit)
    return step.index_copy(0, near, corrected).view_as(peak)


def taylor_step(heatmaps: Tensor, peak: Tensor, sigma: float) -> Tensor:
    """DARK's own step, as in its code, TransPose's and mmpose's: zeros beyond the border, second differences over two
    pixels, none for the two outermost pixels, no limit."""
    blurred = blur(heatmaps, sigma, mirrored=False)
    top, blurred_top = (maps.amax((-2, -1), keepdim=True) for maps in (heatmaps, blurred))
    scale = torch.where(blurred_top == 0, 1.0, top / blurred_top)  # a heatmap of zeros has no other
    around = _surroundings((blurred * scale).clamp_min(LOG_FLOOR).log(), peak, 2)  # (B, K, 5, 5)
    here, row, column = around[..., 2, 2], around[..., 2, :], around[..., :, 2]
    gradient = torch.stack([row[..., 3] - row[..., 1], column[..., 3] - column[..., 1]], dim=-1) / 2
    curve_x = (row[..., 4] - 2 * here + row[..., 0]) / 4
    curve_y = (column[..., 4] - 2 * here + column[..., 0]) / 4
    cross = (around[..., 3, 3] - around[..., 1, 3] - around[..., 3, 1] + around[..., 1, 1]) / 4
    last = peak.new_tensor([heatmaps.shape[-1] - 2, heatmaps.shape[-2] - 2])
    inner = ((peak > 1) & (peak < last)).all(-1, keepdim=True)
    return torch.where(inner, _solve(gradient, curve_x, curve_y, cross), 0.0)


def mirrored_step(heatmaps: Tensor, peak: Tensor, sigma: float) -> Tensor:
    """The step of UDP in the code of mmpose 0.x, ViTPose's: mirrored borders, log between 0.001 and 50, edges repeated
    for the differences, a cross difference of one diagonal, no limit. mmpose 1.x has zeros beyond the border."""
    logs = blur(heatmaps, sigma, mirrored=True).clamp(0.001, 50).log()
    around = _surroundings(logs, peak, 1)
    above, here, below = (around[..., row, 1] for row in range(3))
    left, right = around[..., 1, 0], around[..., 1, 2]
    gradient = torch.stack([right - left, below - above], dim=-1) / 2
    cross = (around[..., 2, 2] - right - below + 2 * here - left - above + around[..., 0, 0]) / 2
    eps = torch.finfo(torch.float32).eps
    return _solve(gradient, right - 2 * here + left + eps, below - 2 * here + above + eps, cross)


def _solve(gradient: Tensor, curve_x: Tensor, curve_y: Tensor, cross: Tensor) -> Tensor:
    """Newton's step (..., 2) from a gradient and the three second derivatives; 0 where they are singular."""
    determinant = curve_x * curve_y - cross**2
    singular = determinant == 0
    gradient_x, gradient_y = gradient.unbind(-1)
    step = torch.stack([cross * gradient_y - curve_y * gradient_x, cross * gradient_x - curve_x * gradient_y], dim=-1)
    return torch.where(singular[..., None], 0.0, step / torch.where(singular, 1.0, determinant)[..., None])


def blur(heatmaps: Tensor, sigma: float, *, mirrored: bool) -> Tensor:
    """The whole heatmaps (B, K, h, w) blurred as published; beyond the borders they are `mirrored`, or 0.

    Kernel size and sigma are tied by OpenCV's rule: 11 pixels at sigma 2, 17 at 3, where it blurs with 2.9 (DARK's own
    configs leave 11). As matrices, since convolutions on a GPU round to ten bits unless told otherwise.
    """
    reach = max(1, round((sigma - 0.8) / 0.3) + 1)
    kernel = _gaussian(0.3 * (reach - 1) + 0.8, reach)
    down, across = (_blur_matrix(length, kernel, mirrored).to(heatmaps) for length in heatmaps.shape[-2:])
    return down @ heatmaps @ across.T


def _three_blurs(length: int, kernel: Tensor) -> Tensor:
    """(length, 3, length): for each place the kernel around the place before it, itself and the next one."""
    reach, pixels = len(kernel) // 2, torch.arange(length)
    before = pixels - torch.arange(-1, length + 1)[:, None] + reach  # (length + 2, length), places in the kernel
    blurs = functional.pad(kernel, (1, 1))[(before + 1).clamp(0, len(kernel) + 1)]
    return blurs.unfold(0, 3, 1).mT.contiguous()


def _blur_matrix(length: int, kernel: Tensor, mirrored: bool) -> Tensor:
    """(length, length): a row has the kernel around its own place, what lies beyond the ends mirrored in them or 0."""
    reach, pixels = len(kernel) // 2, torch.arange(length)
    places = pixels[:, None] + torch.arange(-reach, reach + 1)  # (length, n)
    if mirrored:
        period = 2 * (length - 1)  # the ends themselves are not repeated
        places = torch.minimum(places % period, -places % period)
    return ((places[..., None] == pixels) * kernel[:, None]).sum(1)


def _newton(derivatives: Tensor, limit: float) -> Tensor:
    """The step (N, 2), up to `limit` on each axis, to the top of the quadratics with derivatives (N, 5) as
    `DIFFERENCES` gives them; 0 where they are not concave."""
    gradient, (curve_x, curve_y, cross) = derivatives[:, :2], derivatives[:, 2:].unbind(-1)
    concave = (curve_x * curve_y - cross**2 > 1e-9) & (curve_x < 0)
    step = _solve(gradient, curve_x, curve_y, cross).clamp(-limit, limit)
    return torch.where(concave[:, None], step, 0.0)


def _lost_at_borders(peak: Tensor, step: Tensor, size: Tensor, kernel: Tensor, sigma: float) -> Tensor:
    """What zeros beyond the borders of a heatmap of `size` (w, h) take from the log of a blurred target that lies
    `step` (N, 2) off its highest pixel `peak` (N, 2): derivatives (N, 5) as `DIFFERENCES` gives them."""
    reach = len(kernel) // 2 + 1
    offsets = torch.arange(-reach, reach + 1, device=peak.device)
    places = peak[..., None] + offsets  # (N, 2, n)
    seen = (places >= 0) & (places < size[:, None])
    target = torch.exp(-((offsets - step[..., None]) ** 2) / (2 * sigma**2))
    blur = torch.stack([functional.pad(kernel, (shift, 2 - shift)) for shift in range(3)], dim=-1)  # (n, 3)
    lost = (target @ blur).log() - ((target * seen) @ blur).log()  # (N, 2, 3)
    along = lost @ DIFFERENCES_1D.to(lost)  # (N, axis, first and second derivative)
    return functional.pad(along.mT.flatten(1), (0, 1))  # the cross one is that of a product: 0


def _windows(heatmaps: Tensor, peak: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The values (N, rows, columns) up to `radius` around N = B * K pixels (B, K, 2), windows of equal size that were
    moved inside the borders, and the place (N, 2) of the pixel in its window."""
    height, width = heatmaps.shape[-2:]
    columns, rows = (min(length, 2 * radius + 1) for length in (width, height))
    pixel = peak.flatten(0, 1)
    start = (pixel - radius).clamp_min(0).minimum(pixel.new_tensor([width - columns, height - rows]))
    numbers = torch.arange(len(pixel), device=pixel.device)
    corner = (numbers * height + start[:, 1]) * width + start[:, 0]
    begins = corner[:, None] + torch.arange(rows, device=pixel.device) * width  # of the windows' rows
    values = heatmaps.flatten().unfold(0, columns, 1).index_select(0, begins.flatten())
    return values.view(-1, rows, columns), pixel - start


def _surroundings(heatmaps: Tensor, peak: Tensor, radius: int) -> Tensor:
    """The values (B, K, n, n) around pixels (B, K, 2), n = 2 radius + 1; beyond the borders those at them."""
    height, width = heatmaps.shape[-2:]
    places = peak[..., None] + torch.arange(-radius, radius + 1, device=peak.device)  # (B, K, 2, n)
    columns, rows = places.clamp_min(0).minimum(peak.new_tensor([width - 1, height - 1])[:, None]).unbind(-2)
    index = (rows[..., :, None] * width + columns[..., None, :]).flatten(2)
    return heatmaps.flatten(2).gather(-1, index).reshape(*peak.shape[:2], 2 * radius + 1, 2 * radius + 1)


def _gaussian(sigma: float, reach: int) -> Tensor:
    """A kernel of sum 1 and 2 reach + 1 pixels."""
    kernel = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


DECODINGS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "argmax": stay,
    "quarter": quarter_step,
    "dark": dark_step,
}
"""By name: heatmaps (B, K, h, w), their highest pixels (B, K, 2) and the target's sigma in heatmap pixels give a step
(B, K, 2) in heatmap pixels."""

PUBLISHED_STEPS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "msra": quarter_step,
    "dark": taylor_step,
    "mmpose_dark": taylor_step,
    "udp": mirrored_step,
}
"""By codec: the refinement in its authors' code."""
