"""Body parts as painting jobs: what has which shape, where, and how deep in the scene."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bench.data.synthetic.canvas import (
    CIRCLE,
    Canvas,
    ColourAt,
    Floats,
    Ink,
    Ints,
    circles,
    fixed,
    hull,
    paint,
    stack,
    tubes,
)
from bench.data.synthetic.cloth import cloth_at, flat, sleeved
from bench.data.synthetic.figure import SIDES, Figure
from bench.data.synthetic.look import Look

PARTS = ("torso", "pelvis", "skirt", "neck", "skin", "hair", "back_hair", "nose", "brim",
         *(f"{side}_{limb}" for side, _ in SIDES
           for limb in ("ear", "upper_arm", "forearm", "hand", "thigh", "shin", "foot")))  # fmt: skip
NUMBER = {name: number for number, name in enumerate(PARTS, start=1)}


@dataclass(frozen=True)
class Placed:
    """A figure in the picture: `scale` pixels a metre, `origin` the pixel (x, y) of its pelvis."""

    figure: Figure
    look: Look
    scale: float
    origin: Floats

    def pixel(self, joint: str) -> Floats:
        """Where a joint is, (x, y)."""
        return self._pixels[joint]

    @cached_property
    def _pixels(self) -> dict[str, Floats]:
        joints = self.figure.joints
        return dict(zip(joints, self.flat(np.stack(list(joints.values()))), strict=True))

    def flat(self, points: Floats) -> Floats:
        """Camera metres (..., 3) -> image pixels (..., 2)."""
        return self.origin + self.scale * points[..., :2]


class Shape(NamedTuple):
    """One soft-shaded part; `joint` (x, y, radius) where it goes on into its neighbour."""

    depth: float
    part: str
    outlines: list[Ints]
    colour_at: ColourAt
    roundness: float
    joint: tuple[float, float, float] | None = None

    def draw(self, canvas: Canvas, owner: int) -> None:
        paint(canvas, self.outlines, Ink(self.colour_at, owner, NUMBER[self.part], self.roundness, self.joint))


def _ring(placed: Placed, center: Floats, frame: Floats, half_width: float, half_depth: float) -> Ints:
    """Outline of a horizontal cut through the trunk, (16, 2)."""
    ellipse = CIRCLE[:, :1] * frame[:, 0] * half_width + CIRCLE[:, 1:] * frame[:, 2] * half_depth
    return fixed(placed.flat(center + ellipse))


def trunk(placed: Placed) -> list[Shape]:
    """Torso, hips and neck."""
    figure, look, scale = placed.figure, placed.look, placed.scale
    joints, body, chest, pelvis = figure.joints, figure.body, figure.chest_frame, figure.pelvis_frame
    girth, spine = body.girth, body.spine
    loose = look.looseness * 0.7 * girth
    middle = 0.5 * (chest + pelvis)
    low = 0.16 if look.tucked or look.skirt else -0.1
    levels = (  # center, frame, half width, half depth
        (
            joints["pelvis"] + pelvis[:, 1] * low * spine,
            pelvis,
            body.hip + 0.055 * girth + loose,
            0.105 * girth + loose,
        ),
        (joints["waist"] + middle[:, 1] * 0.03, middle, 0.125 * girth + loose, 0.095 * girth + loose),
        (joints["neck"] - chest[:, 1] * 0.36 * spine, chest, 0.145 * girth + loose, 0.11 * girth + loose),
        (joints["neck"] - chest[:, 1] * 0.1 * spine, chest, body.shoulder * 0.97, 0.07 * girth),
        (joints["neck"] + chest[:, 1] * 0.02 * spine, chest, 0.06 * girth, 0.05 * girth),
    )
    torso = stack(np.stack([_ring(placed, *level) for level in levels]))
    neck, hips, roundness = placed.pixel("neck"), placed.pixel("pelvis"), 0.12 * girth * scale
    depth = float(0.5 * (joints["neck"] + joints["pelvis"])[2])
    head_side = placed.flat(0.35 * joints["neck"] + 0.65 * joints["head"])
    [throat] = tubes([(neck, 0.056 * girth * scale), (head_side, 0.05 * girth * scale)])
    turned_away = chest[2, 2] > 0.3  # seen from behind the collar hides the neck's base
    return [
        Shape(depth, "torso", torso, cloth_at(look.shirt, neck, hips, scale), roundness),
        *_hips(placed, depth),
        Shape(
            float(joints["neck"][2]) + (0.1 if turned_away else -0.02), "neck", throat, flat(look.skin), 0.05 * scale
        ),
    ]


def _hips(placed: Placed, torso_depth: float) -> list[Shape]:
    figure, look, scale = placed.figure, placed.look, placed.scale
    joints, body, pelvis = figure.joints, figure.body, figure.pelvis_frame
    unit, roundness = body.girth * scale, 0.12 * body.girth * scale
    hips = placed.pixel("pelvis")
    lower = cloth_at(look.lower, hips, 2 * hips - placed.pixel("neck"), scale)
    joint = [placed.pixel(f"{side}_hip") for side, _ in SIDES]
    around = circles(np.stack(joint), np.full(2, (0.082 + 0.5 * look.looseness) * unit))
    belt = _ring(placed, joints["pelvis"] + pelvis[:, 1] * 0.2 * body.spine, pelvis, body.hip + 0.05 * body.girth,
                 0.1 * body.girth)  # fmt: skip
    seat = np.concatenate([belt[None], around])
    shapes = [Shape(torso_depth + 0.04, "pelvis", [hull(seat)], lower, roundness)]
    if look.skirt:
        knees = np.stack([placed.pixel(f"{side}_knee") for side, _ in SIDES])
        hem = circles(
            (1 - look.skirt) * np.stack(joint) + look.skirt * knees, np.full(2, (0.09 + 0.03 * look.skirt) * unit)
        )
        depth = float(np.mean([joints[f"{side}_{end}"][2] for side, _ in SIDES for end in ("hip", "knee")]))
        shapes.append(Shape(depth - 0.13 * body.girth, "skirt", [hull(np.concatenate([seat, hem]))], lower, roundness))
    return shapes


def arm(placed: Placed, side: str) -> list[Shape]:
    """Upper arm, forearm and hand."""
    joints, look, scale = placed.figure.joints, placed.look, placed.scale
    unit = placed.figure.body.girth * scale
    shoulder, elbow, wrist, hand = (placed.pixel(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist", "hand"))
    loose = look.looseness if look.sleeve > 1 else 0.4 * look.looseness
    at_shoulder, at_elbow, below_elbow = (0.056 + loose) * unit, (0.043 + loose) * unit, (0.041 + loose) * unit
    at_wrist = (0.029 + 0.6 * loose * (look.sleeve > 1)) * unit
    upper, fore, palm = tubes(
        [(shoulder, at_shoulder), (elbow, at_elbow)],
        [(elbow, below_elbow), (0.65 * elbow + 0.35 * wrist, below_elbow), (wrist, at_wrist)],
        [(wrist, 0.027 * unit), (0.4 * wrist + 0.6 * hand, 0.04 * unit), (hand, 0.026 * unit)],
    )
    upper_colour = sleeved(look.shirt, look.skin, look.sleeve, shoulder, elbow, scale)
    fore_colour = sleeved(look.shirt, look.skin, look.sleeve - 1, elbow, wrist, scale)
    depths = [_between(joints, side, *ends) for ends in (("shoulder", "elbow"), ("elbow", "wrist"), ("wrist", "hand"))]
    names = [f"{side}_{limb}" for limb in ("upper_arm", "forearm", "hand")]
    return [  # an arm at the trunk's side is drawn over it
        Shape(depths[0] - 0.045, names[0], upper, upper_colour, at_shoulder, (*shoulder, at_shoulder)),
        Shape(depths[1] - 0.05, names[1], fore, fore_colour, below_elbow, (*elbow, below_elbow)),
        Shape(depths[2] - 0.05, names[2], palm, flat(look.skin), at_wrist, (*wrist, at_wrist)),
    ]


def _between(joints: dict[str, Floats], side: str, first: str, second: str) -> float:
    """Depth of a bone's middle."""
    return float(0.5 * (joints[f"{side}_{first}"][2] + joints[f"{side}_{second}"][2]))


def leg(placed: Placed, side: str) -> list[Shape]:
    """Thigh, shin and foot."""
    joints, look, scale = placed.figure.joints, placed.look, placed.scale
    unit = placed.figure.body.girth * scale
    hip, knee, ankle, heel, toe = (placed.pixel(f"{side}_{name}") for name in ("hip", "knee", "ankle", "heel", "toe"))
    loose = look.looseness if look.leg > 1 else 0.0
    at_hip, at_knee, at_ankle = (
        (0.086 + 0.5 * look.looseness) * unit,
        (0.06 + loose) * unit,
        (0.04 + 1.2 * loose) * unit,
    )
    thigh, shin, foot = tubes(
        [(hip, at_hip), (knee, at_knee)],
        [(knee, at_knee), (0.7 * knee + 0.3 * ankle, at_knee * 1.03), (ankle, at_ankle)],
        [(ankle, 0.036 * unit), (heel, 0.042 * unit), (0.5 * (heel + toe), 0.043 * unit), (toe, 0.033 * unit)],
    )
    thigh_colour = sleeved(look.lower, look.skin, look.leg, hip, knee, scale)
    shin_colour = sleeved(look.lower, look.skin, look.leg - 1, knee, ankle, scale)
    return [
        Shape(_between(joints, side, "hip", "knee"), f"{side}_thigh", thigh, thigh_colour, at_hip, (*hip, at_hip)),
        Shape(_between(joints, side, "knee", "ankle"), f"{side}_shin", shin, shin_colour, at_knee, (*knee, at_knee)),
        Shape(_between(joints, side, "ankle", "toe") + 0.03, f"{side}_foot", foot, flat(look.shoes), 0.04 * unit),
    ]
