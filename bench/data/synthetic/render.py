"""One person onto the canvas, body part by body part from far to near, and which keypoints are then seen."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.synthetic.canvas import CIRCLE, PARTS_PER_PERSON, Canvas, ColourAt, Floats, Floats32, circle, hull, paint, tube
from bench.data.synthetic.figure import EYE, SIDES, Figure
from bench.data.synthetic.head import paint_head
from bench.data.synthetic.look import Look, Material, mix

PARTS = ("torso", "pelvis", "skirt", "neck", "skin", "hair", "back_hair", "nose", "brim",
         *(f"{side}_{limb}" for side, _ in SIDES
           for limb in ("ear", "upper_arm", "forearm", "hand", "thigh", "shin", "foot")))  # fmt: skip
NUMBER = {name: number for number, name in enumerate(PARTS, start=1)}
FLESH = {
    "nose": ("nose",), "eye": ("skin",), "ear": ("ear",), "shoulder": ("upper_arm", "torso"),
    "elbow": ("upper_arm", "forearm"), "wrist": ("forearm", "hand"), "hip": ("thigh", "torso", "pelvis", "skirt"),
    "knee": ("thigh", "shin"), "ankle": ("shin", "foot"),
}  # fmt: skip
"""The parts on which a keypoint sits; of parts that come in pairs, its own side's."""

TRUNK_AXES = np.array([0.155, 0.105])  # half width and half depth, metres
UNDER_SKIN = 0.19  # a joint of the trunk is seen where the trunk's surface is at most this far in front of it, metres
FACING = -0.12  # an eye is seen while the skull's normal points at least this much to the viewer


class Placed(NamedTuple):
    """A figure in the picture: `scale` pixels a metre, `origin` the pixel (x, y) of its pelvis."""

    figure: Figure
    look: Look
    scale: float
    origin: Floats

    def pixel(self, joint: str) -> Floats:
        return self.flat(self.figure.joints[joint])

    def flat(self, points: Floats) -> Floats:
        """Camera metres (..., 3) -> image pixels (..., 2)."""
        return self.origin + self.scale * points[..., :2]


class Job(NamedTuple):
    depth: float
    draw: Callable[[], None]


def keypoint_pixels(placed: Placed) -> Floats:
    """(17, 2)."""
    return placed.flat(placed.figure.keypoints)


def draw_person(canvas: Canvas, placed: Placed, person: int) -> None:
    """Paint a person over what is there; `person` counts from 0."""
    base = PARTS_PER_PERSON * person
    jobs = [*_trunk(canvas, placed, base), *_head(canvas, placed, base)]
    for side, _ in SIDES:
        jobs += [*_arm(canvas, placed, base, side), *_leg(canvas, placed, base, side)]
    for job in sorted(jobs, key=lambda job: -job.depth):
        job.draw()


def visible_keypoints(canvas: Canvas, placed: Placed, person: int) -> NDArray[np.bool_]:
    """(17,): the pixel at the keypoint shows flesh of its own. Outside of the image nothing is seen."""
    height, width = canvas.parts.shape
    pixels = np.round(keypoint_pixels(placed)).astype(int)
    seen = np.zeros(len(KEYPOINT_NAMES), bool)
    for number, (name, (x, y)) in enumerate(zip(KEYPOINT_NAMES, pixels, strict=True)):
        if 0 <= x < width and 0 <= y < height:
            part = int(canvas.parts[y, x]) - PARTS_PER_PERSON * person
            seen[number] = part in _own_parts(name) and _faces_viewer(placed.figure, name, part)
    return seen


def _own_parts(name: str) -> set[int]:
    side, _, kind = name.rpartition("_")
    return {NUMBER[part] if part in NUMBER else NUMBER[f"{side}_{part}"] for part in FLESH[kind]}


def _faces_viewer(figure: Figure, name: str, part: int) -> bool:
    """Eyes look away with the head; a shoulder or hip can lie at the far side of the trunk that its pixel shows."""
    side, _, kind = name.rpartition("_")
    sign = 1 if side == "left" else -1
    if kind == "eye":
        normal = figure.head_frame @ (EYE * (sign, 1, 1) / np.array(figure.body.head))
        return bool(normal[2] / np.linalg.norm(normal) < FACING)
    if kind in ("shoulder", "hip") and PARTS[part - 1] in ("torso", "pelvis", "skirt"):
        frame = figure.chest_frame if kind == "shoulder" else figure.pelvis_frame
        middle = figure.joints["neck" if kind == "shoulder" else "pelvis"]
        return _distance_to_surface(frame, figure.joints[name] - middle, figure.body.girth) < UNDER_SKIN
    return True


def _distance_to_surface(frame: Floats, offset: Floats, girth: float) -> float:
    """From a point in an elliptic trunk towards the viewer, in metres of an adult."""
    axes = TRUNK_AXES * girth
    point = frame[:, [0, 2]].T @ offset / axes
    step = -frame[2, [0, 2]] / axes
    point /= max(1.0, float(np.linalg.norm(point)))
    square = max(float(step @ step), 1e-9)
    along = float(point @ step)
    return (-along + float(np.sqrt(along * along + square * (1 - point @ point)))) / square / girth


def _ring(placed: Placed, center: Floats, frame: Floats, half_width: float, half_depth: float) -> Floats:
    ellipse = CIRCLE[:, :1] * frame[:, 0] * half_width + CIRCLE[:, 1:] * frame[:, 2] * half_depth
    return placed.flat(center + ellipse)


def _stack(rings: Sequence[Floats]) -> list[Floats]:
    return [hull(low, high) for low, high in zip(rings, rings[1:], strict=False)]


def _cloth(material: Material, start: Floats, end: Floats, scale: float) -> ColourAt:
    """Colours in the frame of a bone from `start` to `end` (pixels)."""
    bone = end - start
    length = float(np.linalg.norm(bone))
    ax, ay = (bone / length if length > 1 else np.array([0.0, 1.0])) / scale

    def colour_at(x: Floats32, y: Floats32) -> Floats32:
        x, y = x - np.float32(start[0]), y - np.float32(start[1])
        return mix(material, x * np.float32(ax) + y * np.float32(ay), y * np.float32(ax) - x * np.float32(ay))

    return colour_at


def _sleeved(cloth: Material, skin: Material, hem: float, start: Floats, end: Floats, scale: float) -> ColourAt:
    """Cloth from `start` to the share `hem` of the bone, skin beyond."""
    if hem >= 1:
        return _cloth(cloth, start, end, scale)
    if hem <= 0:
        return lambda _x, _y: skin.colour
    bone = end - start
    square = max(float(bone @ bone), 1.0)
    under, edge = _cloth(cloth, start, end, scale), np.float32(np.sqrt(square))

    def colour_at(x: Floats32, y: Floats32) -> Floats32:
        along = (x - np.float32(start[0])) * np.float32(bone[0]) + (y - np.float32(start[1])) * np.float32(bone[1])
        share = np.clip((np.float32(hem) - along / np.float32(square)) * edge + 0.5, 0, 1)[..., None]
        return skin.colour + share * (under(x, y) - skin.colour)

    return colour_at


def _trunk(canvas: Canvas, placed: Placed, base: int) -> list[Job]:
    figure, look, scale = placed.figure, placed.look, placed.scale
    joints, body, chest, pelvis = figure.joints, figure.body, figure.chest_frame, figure.pelvis_frame
    g, spine = body.girth, body.spine
    loose = look.looseness * 0.7 * g
    middle = 0.5 * (chest + pelvis)
    low = 0.16 if look.tucked or look.skirt else -0.1
    rings = [
        _ring(placed, joints["pelvis"] + pelvis[:, 1] * low * spine, pelvis, body.hip + 0.055 * g + loose, 0.105 * g + loose),
        _ring(placed, joints["waist"] + middle[:, 1] * 0.03, middle, 0.125 * g + loose, 0.095 * g + loose),
        _ring(placed, joints["neck"] - chest[:, 1] * 0.36 * spine, chest, 0.145 * g + loose, 0.11 * g + loose),
        _ring(placed, joints["neck"] - chest[:, 1] * 0.1 * spine, chest, body.shoulder * 0.97, 0.07 * g),
        _ring(placed, joints["neck"] + chest[:, 1] * 0.02 * spine, chest, 0.06 * g, 0.05 * g),
    ]
    neck, hips = placed.pixel("neck"), placed.pixel("pelvis")
    roundness = 0.12 * g * scale
    torso_depth = float(0.5 * (joints["neck"] + joints["pelvis"])[2])
    shirt = _cloth(look.shirt, neck, hips, scale)
    jobs = [Job(torso_depth, lambda: paint(canvas, _stack(rings), shirt, base + NUMBER["torso"], roundness))]

    thigh_radius = (0.082 + 0.5 * look.looseness) * g
    hip_circles = [circle(placed.pixel(f"{side}_hip"), thigh_radius * scale) for side, _ in SIDES]
    belt = _ring(placed, joints["pelvis"] + pelvis[:, 1] * 0.2 * spine, pelvis, body.hip + 0.05 * g, 0.1 * g)
    seat = [hull(belt, *hip_circles)]
    lower = _cloth(look.lower, hips, hips + (hips - neck), scale)
    jobs.append(Job(torso_depth + 0.04, lambda: paint(canvas, seat, lower, base + NUMBER["pelvis"], roundness)))
    if look.skirt:
        hem = [
            circle(placed.flat(joints[f"{side}_hip"] + look.skirt * (joints[f"{side}_knee"] - joints[f"{side}_hip"])),
                   (0.09 + 0.03 * look.skirt) * g * scale)
            for side, _ in SIDES
        ]  # fmt: skip
        cone = [hull(belt, *hip_circles, *hem)]
        thighs = float(np.mean([joints[f"{side}_{end}"][2] for side, _ in SIDES for end in ("hip", "knee")]))
        depth = thighs - 0.13 * g
        jobs.append(Job(depth, lambda: paint(canvas, cone, lower, base + NUMBER["skirt"], roundness)))
    throat = tube([neck, placed.flat(0.35 * joints["neck"] + 0.65 * joints["head"])], [0.056 * g * scale, 0.05 * g * scale])
    facing = float(chest[2, 2])
    neck_depth = float(joints["neck"][2]) + (-0.02 if facing < 0.3 else 0.1)
    colour = look.skin.colour * np.float32(0.93)
    jobs.append(Job(neck_depth, lambda: paint(canvas, throat, lambda _x, _y: colour, base + NUMBER["neck"], 0.05 * scale)))
    return jobs


def _arm(canvas: Canvas, placed: Placed, base: int, side: str) -> list[Job]:
    joints, look, scale, g = placed.figure.joints, placed.look, placed.scale, placed.figure.body.girth
    shoulder, elbow, wrist, hand = (placed.pixel(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist", "hand"))
    loose = look.looseness if look.sleeve > 1 else 0.4 * look.looseness
    radii = np.array([0.056 + loose, 0.043 + loose, 0.04 + loose, 0.029 + 0.6 * loose * (look.sleeve > 1)]) * g * scale
    upper = tube([shoulder, elbow], radii[:2].tolist())
    fore = tube([elbow, elbow + 0.35 * (wrist - elbow), wrist], [radii[2], radii[2], radii[3]])
    palm = tube([wrist, wrist + 0.6 * (hand - wrist), hand], [0.027 * g * scale, 0.04 * g * scale, 0.026 * g * scale])
    upper_colour = _sleeved(look.shirt, look.skin, look.sleeve, shoulder, elbow, scale)
    fore_colour = _sleeved(look.shirt, look.skin, look.sleeve - 1, elbow, wrist, scale)
    depth = {name: float(joints[f"{side}_{name}"][2]) for name in ("shoulder", "elbow", "wrist", "hand")}
    upper_depth, fore_depth = 0.5 * (depth["shoulder"] + depth["elbow"]), 0.5 * (depth["elbow"] + depth["wrist"])
    number = {limb: base + NUMBER[f"{side}_{limb}"] for limb in ("upper_arm", "forearm", "hand")}
    return [
        Job(upper_depth - 0.045, lambda: paint(canvas, upper, upper_colour, number["upper_arm"], radii[0])),
        Job(fore_depth - 0.05, lambda: paint(canvas, fore, fore_colour, number["forearm"], radii[2])),
        Job(0.5 * (depth["wrist"] + depth["hand"]) - 0.05,
            lambda: paint(canvas, palm, lambda _x, _y: look.skin.colour, number["hand"], radii[3])),
    ]  # fmt: skip


def _leg(canvas: Canvas, placed: Placed, base: int, side: str) -> list[Job]:
    joints, look, scale, g = placed.figure.joints, placed.look, placed.scale, placed.figure.body.girth
    hip, knee, ankle, heel, toe = (placed.pixel(f"{side}_{name}") for name in ("hip", "knee", "ankle", "heel", "toe"))
    loose = look.looseness if look.leg > 1 else 0.0
    radii = np.array([0.086 + 0.5 * look.looseness, 0.06 + loose, 0.062 + loose, 0.04 + 1.2 * loose]) * g * scale
    thigh = tube([hip, knee], radii[:2].tolist())
    shin = tube([knee, knee + 0.3 * (ankle - knee), ankle], [radii[1], radii[2], radii[3]])
    foot = tube([heel, heel + 0.5 * (toe - heel), toe], [0.042 * g * scale, 0.043 * g * scale, 0.033 * g * scale])
    foot.append(hull(circle(ankle, 0.036 * g * scale), circle(heel, 0.04 * g * scale)))
    thigh_colour = _sleeved(look.lower, look.skin, look.leg, hip, knee, scale)
    shin_colour = _sleeved(look.lower, look.skin, look.leg - 1, knee, ankle, scale)
    depth = {name: float(joints[f"{side}_{name}"][2]) for name in ("hip", "knee", "ankle", "toe")}
    number = {limb: base + NUMBER[f"{side}_{limb}"] for limb in ("thigh", "shin", "foot")}
    return [
        Job(0.5 * (depth["hip"] + depth["knee"]), lambda: paint(canvas, thigh, thigh_colour, number["thigh"], radii[0])),
        Job(0.5 * (depth["knee"] + depth["ankle"]), lambda: paint(canvas, shin, shin_colour, number["shin"], radii[2])),
        Job(0.5 * (depth["ankle"] + depth["toe"]) + 0.03,
            lambda: paint(canvas, foot, lambda _x, _y: look.shoes.colour, number["foot"], radii[3])),
    ]  # fmt: skip


def _head(canvas: Canvas, placed: Placed, base: int) -> list[Job]:
    figure, look, scale = placed.figure, placed.look, placed.scale
    head, frame, axes = figure.joints["head"], figure.head_frame, np.array(figure.body.head)
    center, depth = placed.pixel("head"), float(figure.joints["head"][2])

    def blob(places: Sequence[tuple[float, float, float]], radii: Sequence[float]) -> list[Floats]:
        """A tube through places given in half axes, radii in half widths."""
        centers = placed.flat(head + np.array(places) @ (frame * axes).T)
        return tube(list(centers), [radius * axes[0] * scale for radius in radii])

    def job(part: str, places: Sequence[tuple[float, float, float]], radii: Sequence[float], material: Material) -> Job:
        outlines = blob(places, radii)
        nearness = float((frame * axes)[2] @ np.mean(places, axis=0))
        colour = _cloth(material, center, center - frame[:2, 1] * scale, scale)
        return Job(depth + nearness, lambda: paint(canvas, outlines, colour, base + NUMBER[part], radii[0] * axes[0] * scale))

    numbers = base + NUMBER["skin"], base + NUMBER["hair"]
    jobs = [Job(depth, lambda: paint_head(canvas, center, scale, frame, axes, look, numbers))]
    jobs.append(job("nose", [(0, 0.05, 0.98), (0, -0.14, 1.06)], [0.1, 0.17], look.skin))
    if look.hairline != "covering":
        for side, sign in SIDES:
            jobs.append(job(f"{side}_ear", [(sign * 1.04, 0.06, -0.08), (sign * 1.03, -0.12, -0.05)], [0.24, 0.17], look.skin))
    if look.hairline == "cap":
        jobs.append(job("brim", [(0.4, 0.46, 1.1), (0, 0.48, 1.5), (-0.4, 0.46, 1.1)], [0.22, 0.2, 0.22], look.hat))
    extra = {
        "bob": [([(0.62, 0.2, -0.4), (0.72, -1.0, -0.35)], [0.7, 0.45]), ([(-0.62, 0.2, -0.4), (-0.72, -1.0, -0.35)], [0.7, 0.45]),
                ([(0, 0, -0.55), (0, -1.0, -0.6)], [0.95, 0.75])],
        "long": [([(0.6, 0.2, -0.4), (0.75, -1.2, -0.5), (0.8, -2.1, -0.6)], [0.7, 0.5, 0.35]),
                 ([(-0.6, 0.2, -0.4), (-0.75, -1.2, -0.5), (-0.8, -2.1, -0.6)], [0.7, 0.5, 0.35]),
                 ([(0, 0, -0.55), (0, -1.2, -0.75), (0, -2.2, -0.9)], [0.95, 0.85, 0.6])],
        "ponytail": [([(0, 0.4, -1.0), (0, 0, -1.6), (0, -1.1, -1.6)], [0.3, 0.36, 0.16])],
        "bun": [([(0, 0.9, -0.75), (0, 1.0, -0.8)], [0.42, 0.42])],
    }.get(look.hair_extra, [])  # fmt: skip
    for places, radii in extra:
        jobs.append(job("back_hair", places, radii, look.hair))
    return jobs
