"""A person in three dimensions: body sizes, pose and viewpoint give joints in camera axes.

Body axes: x to the person's left, y up, z forwards. Camera axes: x right, y down, z away from the viewer; metres. The
view is weak perspective: one scale per person.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.synthetic.pose import Limb, Pose

Floats = NDArray[np.float64]
SIDES = (("left", 1), ("right", -1))
TO_CAMERA = np.diag([1.0, -1.0, -1.0])  # a person with yaw 0 faces the viewer
DOWN, FORWARD = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])

# Landmarks of the face in units of the head's half axes (left, up, forward)
NOSE = np.array([0.0, -0.12, 1.1])
EYE = np.array([0.37, 0.16, 0.915])
EAR = np.array([1.07, -0.02, -0.08])


class Body(NamedTuple):
    """Lengths and half widths in metres; `girth` multiplies the thickness of limbs and torso."""

    height: float
    spine: float
    shoulder: float
    hip: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    head: tuple[float, float, float]
    girth: float


class Figure(NamedTuple):
    """`joints` by name (3,), `keypoints` (17, 3); frames have columns left, up, forward; all in camera axes."""

    body: Body
    pose: Pose
    joints: dict[str, Floats]
    keypoints: Floats
    pelvis_frame: Floats
    chest_frame: Floats
    head_frame: Floats


def sample_body(rng: np.random.Generator) -> Body:
    """An adult, or with probability 0.2 a child, whose head is larger and limbs shorter for the height."""
    child = rng.random() < 0.2
    height = rng.uniform(1.0, 1.4) if child else rng.normal(1.7, 0.08)
    unit = height / 1.72
    leg, arm, trunk, width, girth = rng.normal(1, (0.03, 0.03, 0.02, 0.06, 0.1)).tolist()
    leg *= 0.94 if child else 1
    head_unit = (0.62 * unit + 0.38) * rng.normal(1.13, 0.03)
    return Body(
        height=height,
        spine=0.5 * trunk * unit,
        shoulder=0.17 * width * unit,
        hip=0.092 * width * unit,
        upper_arm=0.285 * arm * unit,
        forearm=0.25 * arm * unit,
        thigh=0.43 * leg * unit,
        shin=0.415 * leg * unit,
        head=(0.084 * head_unit, 0.118 * head_unit, 0.1 * head_unit),
        girth=min(max(girth, 0.8), 1.3) * unit,
    )


def rotation(axis: int, degrees: float) -> Floats:
    """Right-handed rotation about axis 0, 1 or 2, (3, 3)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if axis == 0:
        return np.array([(1, 0, 0), (0, cos, -sin), (0, sin, cos)])
    if axis == 1:
        return np.array([(cos, 0, sin), (0, 1, 0), (-sin, 0, cos)])
    return np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)])


def build_figure(body: Body, pose: Pose, view: Floats) -> Figure:
    """Forward kinematics; `view` (3, 3) turns body axes before they become camera axes."""
    upright = TO_CAMERA @ view  # legs stay below a trunk that leans
    pelvis_frame = upright @ rotation(0, pose.lean)
    chest_frame = pelvis_frame @ _bend(pose.spine)
    head_frame = chest_frame @ _bend(pose.neck)
    joints = {"pelvis": np.zeros(3)}
    middle = pelvis_frame[:, 1] * 0.35 * body.spine
    joints["waist"] = middle
    joints["neck"] = middle + chest_frame[:, 1] * 0.65 * body.spine
    lift = 0.5 * body.head[1] * chest_frame[:, 1] + 1.05 * body.head[1] * head_frame[:, 1]
    joints["head"] = joints["neck"] + lift + 0.25 * body.head[2] * head_frame[:, 2]
    for (side, sign), arm, leg in zip(SIDES, pose.arms, pose.legs, strict=True):
        _add_arm(joints, side, sign, arm, body, chest_frame)
        joints[f"{side}_hip"] = pelvis_frame[:, 0] * sign * body.hip
        _add_leg(joints, side, sign, leg, body, upright)
    _add_face(joints, body, head_frame)
    keypoints = np.stack([joints[name] for name in KEYPOINT_NAMES])
    return Figure(body, pose, joints, keypoints, pelvis_frame, chest_frame, head_frame)


def _bend(angles: tuple[float, float, float]) -> Floats:
    forward, sideways, turn = angles
    return rotation(1, turn) @ rotation(0, forward) @ rotation(2, -sideways)


def _add_arm(joints: dict[str, Floats], side: str, sign: int, arm: Limb, body: Body, chest: Floats) -> None:
    raised = max(0.0, arm.spread - 60, arm.swing - 90) / 90  # the shoulder girdle rises with a raised arm
    shoulder = joints["neck"] + chest @ np.array([sign * body.shoulder, (-0.1 + 0.07 * min(raised, 1)) * body.spine, 0])
    frame = chest @ rotation(0, -arm.swing) @ rotation(2, sign * arm.spread) @ rotation(1, -sign * arm.twist)
    elbow = shoulder + frame @ DOWN * body.upper_arm
    direction = frame @ rotation(0, -arm.bend) @ DOWN
    joints[f"{side}_shoulder"], joints[f"{side}_elbow"] = shoulder, elbow
    joints[f"{side}_wrist"] = elbow + direction * body.forearm
    joints[f"{side}_hand"] = elbow + direction * (body.forearm + 0.1 * body.girth)


def _add_leg(joints: dict[str, Floats], side: str, sign: int, leg: Limb, body: Body, upright: Floats) -> None:
    frame = upright @ rotation(0, -leg.swing) @ rotation(2, sign * leg.spread) @ rotation(1, sign * leg.twist)
    knee = joints[f"{side}_hip"] + frame @ DOWN * body.thigh
    shin = frame @ rotation(0, leg.bend)
    joints[f"{side}_knee"] = knee
    joints[f"{side}_ankle"] = knee + shin @ DOWN * body.shin
    foot = shin @ rotation(0, 0.35 * leg.bend + 10)
    joints[f"{side}_heel"] = joints[f"{side}_ankle"] + (shin @ DOWN * 0.05 - foot @ FORWARD * 0.03) * body.girth
    joints[f"{side}_toe"] = joints[f"{side}_ankle"] + (shin @ DOWN * 0.06 + foot @ FORWARD * 0.15) * body.girth


def _add_face(joints: dict[str, Floats], body: Body, head: Floats) -> None:
    axes = head * np.array(body.head)  # columns scaled by the half axes
    joints["nose"] = joints["head"] + axes @ NOSE
    for side, sign in SIDES:
        mirror = np.array([sign, 1, 1])
        joints[f"{side}_eye"] = joints["head"] + axes @ (EYE * mirror)
        joints[f"{side}_ear"] = joints["head"] + axes @ (EAR * mirror)
