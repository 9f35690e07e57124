"""Body parts as painting jobs: what has which shape, where, and how deep in the scene."""

from typing import NamedTuple

import numpy as np

from bench.data.synthetic.canvas import CIRCLE, Canvas, ColourAt, Floats, Floats32, Ink, Ints, circles, fixed, hull, paint, stack, tubes
from bench.data.synthetic.figure import SIDES, Figure
from bench.data.synthetic.head import paint_head
from bench.data.synthetic.look import Look, Material, mix

PARTS = ("torso", "pelvis", "skirt", "neck", "skin", "hair", "back_hair", "nose", "brim",
         *(f"{side}_{limb}" for side, _ in SIDES
           for limb in ("ear", "upper_arm", "forearm", "hand", "thigh", "shin", "foot")))  # fmt: skip
NUMBER = {name: number for number, name in enumerate(PARTS, start=1)}


class Placed(NamedTuple):
    """A figure in the picture: `scale` pixels a metre, `origin` the pixel (x, y) of its pelvis."""

    figure: Figure
    look: Look
    scale: float
    origin: Floats

    def pixel(self, joint: str) -> Floats:
        """Where a joint is, (x, y)."""
        return self.flat(self.figure.joints[joint])

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


class Head(NamedTuple):
    """Skull, face and hair."""

    depth: float
    placed: Placed

    def draw(self, canvas: Canvas, owner: int) -> None:
        figure, look, scale, _ = self.placed
        numbers = NUMBER["skin"], NUMBER["hair"]
        axes = np.array(figure.body.head)
        paint_head(canvas, self.placed.pixel("head"), scale, figure.head_frame, axes, look, owner, numbers)


def body_jobs(placed: Placed) -> list[Shape | Head]:
    """All parts of a person in no order; the far ones, of large `depth` (metres), are to be drawn first."""
    jobs: list[Shape | Head] = [Head(float(placed.figure.joints["head"][2]), placed)]
    jobs += [*_trunk(placed), *_face_and_hair(placed)]
    for side, _ in SIDES:
        jobs += [*_arm(placed, side), *_leg(placed, side)]
    return jobs


def _ring(placed: Placed, center: Floats, frame: Floats, half_width: float, half_depth: float) -> Ints:
    """Outline of a horizontal cut through the trunk, (16, 2)."""
    ellipse = CIRCLE[:, :1] * frame[:, 0] * half_width + CIRCLE[:, 1:] * frame[:, 2] * half_depth
    return fixed(placed.flat(center + ellipse))


def _flat(material: Material) -> ColourAt:
    return lambda _x, _y: material.colour


def _cloth(material: Material, start: Floats, end: Floats, scale: float) -> ColourAt:
    """Colours in the frame of a bone from `start` to `end` (pixels)."""
    if material.pattern == "plain":
        return _flat(material)
    bone = end - start
    length = float(np.linalg.norm(bone))
    ax, ay = (bone / length if length > 1 else np.array([0.0, 1.0])).astype(np.float32) / np.float32(scale)

    def colour_at(x: Floats32, y: Floats32) -> Floats32:
        x, y = x - np.float32(start[0]), y - np.float32(start[1])
        return mix(material, x * ax + y * ay, y * ax - x * ay)

    return colour_at


def _sleeved(cloth: Material, skin: Material, hem: float, start: Floats, end: Floats, scale: float) -> ColourAt:
    """Cloth from `start` to the share `hem` of the bone, skin beyond."""
    if hem >= 1:
        return _cloth(cloth, start, end, scale)
    if hem <= 0:
        return _flat(skin)
    bone = (end - start).astype(np.float32)
    square = np.maximum(bone @ bone, np.float32(1))
    under, edge = _cloth(cloth, start, end, scale), np.sqrt(square)

    def colour_at(x: Floats32, y: Floats32) -> Floats32:
        along = ((x - np.float32(start[0])) * bone[0] + (y - np.float32(start[1])) * bone[1]) / square
        share = np.clip((np.float32(hem) - along) * edge + np.float32(0.5), 0, 1)
        return skin.colour + share * (under(x, y) - skin.colour)

    return colour_at


def _trunk(placed: Placed) -> list[Shape]:
    figure, look, scale = placed.figure, placed.look, placed.scale
    joints, body, chest, pelvis = figure.joints, figure.body, figure.chest_frame, figure.pelvis_frame
    girth, spine = body.girth, body.spine
    loose = look.looseness * 0.7 * girth
    middle = 0.5 * (chest + pelvis)
    low = 0.16 if look.tucked or look.skirt else -0.1
    levels = (  # center, frame, half width, half depth
        (joints["pelvis"] + pelvis[:, 1] * low * spine, pelvis, body.hip + 0.055 * girth + loose, 0.105 * girth + loose),
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
        Shape(depth, "torso", torso, _cloth(look.shirt, neck, hips, scale), roundness),
        *_hips(placed, depth),
        Shape(float(joints["neck"][2]) + (0.1 if turned_away else -0.02), "neck", throat, _flat(look.skin), 0.05 * scale),
    ]


def _hips(placed: Placed, torso_depth: float) -> list[Shape]:
    figure, look, scale = placed.figure, placed.look, placed.scale
    joints, body, pelvis = figure.joints, figure.body, figure.pelvis_frame
    unit, roundness = body.girth * scale, 0.12 * body.girth * scale
    hips = placed.pixel("pelvis")
    lower = _cloth(look.lower, hips, 2 * hips - placed.pixel("neck"), scale)
    joint = [placed.pixel(f"{side}_hip") for side, _ in SIDES]
    around = circles(np.stack(joint), np.full(2, (0.082 + 0.5 * look.looseness) * unit))
    belt = _ring(placed, joints["pelvis"] + pelvis[:, 1] * 0.2 * body.spine, pelvis, body.hip + 0.05 * body.girth,
                 0.1 * body.girth)  # fmt: skip
    seat = np.concatenate([belt[None], around])
    shapes = [Shape(torso_depth + 0.04, "pelvis", [hull(seat)], lower, roundness)]
    if look.skirt:
        ends = [hip + look.skirt * (placed.pixel(f"{side}_knee") - hip) for hip, (side, _) in zip(joint, SIDES, strict=True)]
        hem = circles(np.stack(ends), np.full(2, (0.09 + 0.03 * look.skirt) * unit))
        depth = float(np.mean([joints[f"{side}_{end}"][2] for side, _ in SIDES for end in ("hip", "knee")]))
        shapes.append(Shape(depth - 0.13 * body.girth, "skirt", [hull(np.concatenate([seat, hem]))], lower, roundness))
    return shapes


def _arm(placed: Placed, side: str) -> list[Shape]:
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
    upper_colour = _sleeved(look.shirt, look.skin, look.sleeve, shoulder, elbow, scale)
    fore_colour = _sleeved(look.shirt, look.skin, look.sleeve - 1, elbow, wrist, scale)
    return [
        Shape(_between(joints, side, "shoulder", "elbow") - 0.045, f"{side}_upper_arm", upper, upper_colour, at_shoulder,
              (*shoulder, at_shoulder)),
        Shape(_between(joints, side, "elbow", "wrist") - 0.05, f"{side}_forearm", fore, fore_colour, below_elbow,
              (*elbow, below_elbow)),
        Shape(_between(joints, side, "wrist", "hand") - 0.05, f"{side}_hand", palm, _flat(look.skin), at_wrist,
              (*wrist, at_wrist)),
    ]  # fmt: skip


def _between(joints: dict[str, Floats], side: str, first: str, second: str) -> float:
    """Depth of a bone's middle."""
    return float(0.5 * (joints[f"{side}_{first}"][2] + joints[f"{side}_{second}"][2]))


def _leg(placed: Placed, side: str) -> list[Shape]:
    joints, look, scale = placed.figure.joints, placed.look, placed.scale
    unit = placed.figure.body.girth * scale
    hip, knee, ankle, heel, toe = (placed.pixel(f"{side}_{name}") for name in ("hip", "knee", "ankle", "heel", "toe"))
    loose = look.looseness if look.leg > 1 else 0.0
    at_hip, at_knee, at_ankle = (0.086 + 0.5 * look.looseness) * unit, (0.06 + loose) * unit, (0.04 + 1.2 * loose) * unit
    thigh, shin, foot = tubes(
        [(hip, at_hip), (knee, at_knee)],
        [(knee, at_knee), (0.7 * knee + 0.3 * ankle, at_knee * 1.03), (ankle, at_ankle)],
        [(ankle, 0.036 * unit), (heel, 0.042 * unit), (0.5 * (heel + toe), 0.043 * unit), (toe, 0.033 * unit)],
    )
    thigh_colour = _sleeved(look.lower, look.skin, look.leg, hip, knee, scale)
    shin_colour = _sleeved(look.lower, look.skin, look.leg - 1, knee, ankle, scale)
    return [
        Shape(_between(joints, side, "hip", "knee"), f"{side}_thigh", thigh, thigh_colour, at_hip, (*hip, at_hip)),
        Shape(_between(joints, side, "knee", "ankle"), f"{side}_shin", shin, shin_colour, at_knee, (*knee, at_knee)),
        Shape(_between(joints, side, "ankle", "toe") + 0.03, f"{side}_foot", foot, _flat(look.shoes), 0.04 * unit),
    ]


Blob = tuple[list[tuple[float, float, float]], list[float]]  # places in half axes of the head, radii in its half widths
HAIR_BLOBS: dict[str, list[Blob]] = {
    "bob": [
        ([(0.62, 0.2, -0.4), (0.72, -1.0, -0.35)], [0.7, 0.45]),
        ([(-0.62, 0.2, -0.4), (-0.72, -1.0, -0.35)], [0.7, 0.45]),
        ([(0, 0, -0.55), (0, -1.0, -0.6)], [0.95, 0.75]),
    ],
    "long": [
        ([(0.6, 0.2, -0.4), (0.75, -1.2, -0.5), (0.8, -2.1, -0.6)], [0.7, 0.5, 0.35]),
        ([(-0.6, 0.2, -0.4), (-0.75, -1.2, -0.5), (-0.8, -2.1, -0.6)], [0.7, 0.5, 0.35]),
        ([(0, 0, -0.55), (0, -1.2, -0.75), (0, -2.2, -0.9)], [0.95, 0.85, 0.6]),
    ],
    "ponytail": [([(0, 0.4, -1.0), (0, 0, -1.6), (0, -1.1, -1.6)], [0.3, 0.36, 0.16])],
    "bun": [([(0, 0.9, -0.75), (0, 1.0, -0.8)], [0.42, 0.42])],
    "none": [],
}
NOSE_BLOB: Blob = ([(0, 0.05, 0.98), (0, -0.14, 1.06)], [0.1, 0.17])
EAR_BLOBS: dict[str, Blob] = {
    side: ([(sign * 1.04, 0.06, -0.08), (sign * 1.03, -0.12, -0.05)], [0.24, 0.17]) for side, sign in SIDES
}
BRIM_BLOB: Blob = ([(0.4, 0.46, 1.1), (0, 0.48, 1.5), (-0.4, 0.46, 1.1)], [0.22, 0.2, 0.22])


def _face_and_hair(placed: Placed) -> list[Shape]:
    """Tubes fixed to the head."""
    look = placed.look
    blobs = [("nose", NOSE_BLOB, look.skin)]
    if not look.covers_ears:
        blobs += [(f"{side}_ear", EAR_BLOBS[side], look.skin) for side, _ in SIDES]
    if look.hairline == "cap":
        blobs.append(("brim", BRIM_BLOB, look.hat))
    blobs += [("back_hair", blob, look.hair) for blob in HAIR_BLOBS[look.hair_extra]]
    axes = placed.figure.head_frame * np.array(placed.figure.body.head)  # columns scaled by the half axes
    unit = placed.figure.body.head[0] * placed.scale
    spheres = [placed.figure.joints["head"] + np.array(blob[0]) @ axes.T for _, blob, _ in blobs]
    outlines = tubes(
        *(list(zip(placed.flat(centers), unit * np.array(blob[1]), strict=True))
          for centers, (_, blob, _) in zip(spheres, blobs, strict=True))
    )  # fmt: skip
    center = placed.pixel("head")
    down = center - placed.figure.head_frame[:2, 1] * placed.scale
    return [
        Shape(float(centers[:, 2].mean()), part, outline, _cloth(material, center, down, placed.scale), blob[1][0] * unit)
        for centers, outline, (part, blob, material) in zip(spheres, outlines, blobs, strict=True)
    ]
