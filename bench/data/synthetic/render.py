"""One person onto the canvas, body part by body part from far to near, and which keypoints are then seen."""

import numpy as np
from numpy.typing import NDArray

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.synthetic.canvas import Canvas, Floats
from bench.data.synthetic.figure import EYE, SIDES, Figure
from bench.data.synthetic.head import Head, face_and_hair
from bench.data.synthetic.parts import NUMBER, PARTS, Placed, Shape, arm, leg, trunk

FLESH = {
    "nose": ("nose",), "eye": ("skin",), "ear": ("ear",), "shoulder": ("upper_arm", "torso"),
    "elbow": ("upper_arm", "forearm"), "wrist": ("forearm", "hand"), "hip": ("thigh", "torso", "pelvis", "skirt"),
    "knee": ("thigh", "shin"), "ankle": ("shin", "foot"),
}  # fmt: skip
"""The parts on which a keypoint sits; of parts that come in pairs, its own side's."""


def _own_parts(name: str) -> set[int]:
    side, _, kind = name.rpartition("_")
    return {NUMBER[part] if part in NUMBER else NUMBER[f"{side}_{part}"] for part in FLESH[kind]}


OWN_PARTS = {name: _own_parts(name) for name in KEYPOINT_NAMES}
TRUNK_AXES = np.array([0.155, 0.105])  # half width and half depth, metres
UNDER_SKIN = 0.19  # a joint of the trunk is seen where the trunk's surface is at most this far in front of it, metres
FACING = -0.12  # an eye is seen while the skull's normal points at least this much to the viewer


def keypoint_pixels(placed: Placed) -> Floats:
    """(17, 2)."""
    return placed.flat(placed.figure.keypoints)


def draw_person(canvas: Canvas, placed: Placed, owner: int) -> None:
    """Paint a person over what is there; `owner`, from 1, says who it is on the canvas."""
    head = Head(float(placed.figure.joints["head"][2]), placed)
    jobs: list[Shape | Head] = [head, *trunk(placed), *face_and_hair(placed)]
    for side, _ in SIDES:
        jobs += [*arm(placed, side), *leg(placed, side)]
    for job in sorted(jobs, key=lambda job: -job.depth):
        job.draw(canvas, owner)


def visible_keypoints(canvas: Canvas, placed: Placed, owner: int) -> NDArray[np.bool_]:
    """(17,): the pixel at the keypoint shows flesh of its own. Outside of the image nothing is seen."""
    height, width = canvas.parts.shape
    pixels = np.round(keypoint_pixels(placed)).astype(int).tolist()
    seen = np.zeros(len(KEYPOINT_NAMES), bool)
    for number, (name, (x, y)) in enumerate(zip(KEYPOINT_NAMES, pixels, strict=True)):
        if 0 <= x < width and 0 <= y < height and canvas.owners[y, x] == owner:
            part = int(canvas.parts[y, x])
            seen[number] = part in OWN_PARTS[name] and _faces_viewer(placed.figure, name, part)
    return seen


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
