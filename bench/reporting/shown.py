"""A picture with skeletons, and how likely each keypoint is there. Letters: N persons, K keypoints."""

from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bench.data.geometry import Floats
from bench.data.keypoints import NUM_KEYPOINTS, SKELETON
from bench.reporting.figures import house_style
from bench.reporting.pictures import CROSS, SIDE_COLOURS, side_of

LONG_SIDE = 8.0  # inches of a picture
NARROWEST = 5.6  # inches that the legend needs
STRIP = 0.95  # inches below the picture
FULL_SIZE = 3.0  # inches of a person whose marks have their full size; smaller persons have smaller ones
SCALE = mpl.colormaps["viridis"]  # neither of its ends is the colour of a side


class ShownPeople(NamedTuple):
    """What is drawn of people: `bbox` (N, 4) x, y, w, h and `keypoints` (N, K, 2) in pixels of the picture, calibrated
    `presence` (N, K) and which keypoints are called `present` (N, K)."""

    bbox: Floats
    keypoints: Floats
    presence: Floats
    present: NDArray[np.bool_]

    @classmethod
    def of(cls, bbox: Floats, keypoints: Floats, presence: Floats, threshold: float) -> "ShownPeople":
        """People whose keypoints are present where presence is at least `threshold`."""
        return cls(bbox, keypoints, presence, presence >= threshold)

    def take(self, places: NDArray[np.integer]) -> "ShownPeople":
        """Some of the people."""
        return ShownPeople(*(values[places] for values in self))


def draw_people(image: NDArray[np.uint8], people: ShownPeople, threshold: float, caption: str) -> Figure:
    """The picture (H, W, 3) as large as the page, and below it what the marks mean and who says so (`caption`)."""
    height, width = image.shape[:2]
    inches = LONG_SIDE / max(height, width)  # of a pixel
    picture = width * inches, height * inches
    page = max(picture[0], NARROWEST), picture[1] + STRIP
    with house_style():
        figure = Figure(figsize=page)
        left, bottom = (1 - picture[0] / page[0]) / 2, STRIP / page[1]
        ax = figure.add_axes((left, bottom, picture[0] / page[0], 1 - bottom))
        ax.imshow(image, interpolation="bilinear")
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        ax.set_axis_off()
        for bbox, *said in zip(*people, strict=True):
            _draw_person(ax, bbox, *said, size=float(np.clip(bbox[2:].max() * inches / FULL_SIZE, 0.5, 1.0)))
        _draw_legend(figure, page, threshold)
        figure.text(0.99, 0.03 * STRIP / page[1], caption, fontsize=7, color="0.35", ha="right", va="bottom")
    return figure


def _draw_person(
    ax: Axes, bbox: Floats, keypoints: Floats, presence: Floats, present: NDArray[np.bool_], *, size: float
) -> None:
    """Limbs between present keypoints, dots for present ones, hollow crosses for absent ones; `size` 1 is full."""
    x, y, w, h = bbox.tolist()
    ax.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor="white", linewidth=0.8, linestyle=(0, (4, 3))))
    for start, end in SKELETON:
        if present[start] and present[end]:
            line = keypoints[[start, end]]
            ax.plot(*line.T, color="black", linewidth=3.6 * size, alpha=0.55, solid_capstyle="round", zorder=3)
            colour = SIDE_COLOURS[side_of(start, end)]
            ax.plot(*line.T, color=colour, linewidth=2.1 * size, solid_capstyle="round", zorder=3)
    for k in range(NUM_KEYPOINTS):
        look = _dot(int(k), size) if present[k] else _cross(size)
        ax.plot(*keypoints[k], **look, zorder=5)
        ring: dict[str, Any] = {
            "marker": "o",
            "markerfacecolor": "none",
            "markeredgecolor": SCALE(presence[k]),
            "linestyle": "none",
        }
        ax.plot(*keypoints[k], **ring, markersize=11 * size, markeredgewidth=2.2 * size, zorder=4)


def _dot(keypoint: int, size: float) -> dict[str, Any]:
    colour = SIDE_COLOURS[side_of(keypoint, keypoint)]
    edge = {"markeredgecolor": "black", "markeredgewidth": 0.8 * size}
    return {"marker": "o", "markersize": 7 * size, "markerfacecolor": colour, "linestyle": "none", **edge}


def _cross(size: float) -> dict[str, Any]:
    return CROSS | {"markersize": CROSS["markersize"] * size, "markeredgewidth": CROSS["markeredgewidth"] * size}


def _draw_legend(figure: Figure, page: tuple[float, float], threshold: float) -> None:
    """Marks on the left, the scale of the rings on the right, below the picture."""
    dot: dict[str, Any] = {"marker": "o", "markeredgecolor": "black", "markeredgewidth": 0.8}
    handles = [
        Line2D([], [], color=SIDE_COLOURS["left"], **dot, label="called present: the person's left"),
        Line2D([], [], color=SIDE_COLOURS["right"], **dot, label="called present: the person's right"),
        Line2D([], [], **CROSS, label="called absent (where the run puts it)"),
    ]
    strip = STRIP / page[1]
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.01, strip / 2), fontsize=8)
    bar = figure.add_axes((0.52, 0.56 * strip, 0.44, 0.14 * strip))
    figure.colorbar(mpl.cm.ScalarMappable(Normalize(0, 1), SCALE), cax=bar, orientation="horizontal")
    bar.axvline(threshold, color="black", linewidth=1.4, ymin=-0.5, ymax=1.9, clip_on=False)
    bar.set_xticks([0, 0.5, 1])
    bar.tick_params(labelsize=7, length=2)
    bar.set_xlabel("ring: probability that the keypoint is there", fontsize=8, labelpad=1)
    bar.text(threshold, 2.1, f"called present from {threshold:.2f} on", fontsize=7, ha="center", va="bottom")
