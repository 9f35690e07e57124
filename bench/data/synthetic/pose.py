"""Joint-angle prior: what people do with their arms and legs.

Angles are degrees from standing straight with hanging arms. Arms and legs are chosen together from plausible pairs,
then every angle varies, so that poses are many and none breaks a joint.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.data.synthetic.choice import choose, choose_weighted

Rng = np.random.Generator


class Limb(NamedTuple):
    """`swing` forward, `spread` away from the midline, `twist` (arms in, legs out), `bend` of elbow or knee."""

    swing: float
    spread: float
    twist: float
    bend: float


class Pose(NamedTuple):
    """`arms` and `legs` are (left, right); `spine`, `neck` are (forward, sideways to the left, turn to the left)."""

    lean: float
    spine: tuple[float, float, float]
    neck: tuple[float, float, float]
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    lying: bool
    seated: bool


def _limb(rng: Rng, swing: tuple[float, float], spread: tuple[float, float], twist: tuple[float, float],
          bend: tuple[float, float]) -> Limb:  # fmt: skip
    """Each angle uniform between its two bounds."""
    shares = rng.random(4).tolist()
    return Limb(
        *(low + (high - low) * share for (low, high), share in zip((swing, spread, twist, bend), shares, strict=True))
    )


ARMS: dict[str, Callable[[Rng], Limb]] = {
    "hang": lambda rng: _limb(rng, (-15, 15), (5, 22), (0, 50), (5, 40)),
    "hip": lambda rng: _limb(rng, (-25, -10), (40, 55), (70, 85), (80, 100)),
    "up": lambda rng: _limb(rng, (140, 180), (-5, 35), (-10, 20), (0, 50)),
    "wave": lambda rng: _limb(rng, (0, 30), (75, 110), (-110, -80), (40, 110)),
    "side": lambda rng: _limb(rng, (-10, 20), (65, 100), (-40, 40), (0, 40)),
    "point": lambda rng: _limb(rng, (65, 105), (-10, 35), (-10, 30), (0, 25)),
    "phone": lambda rng: _limb(rng, (25, 55), (10, 35), (0, 25), (125, 145)),
    "carry": lambda rng: _limb(rng, (5, 35), (5, 20), (0, 30), (70, 105)),
    "folded": lambda rng: _limb(rng, (25, 40), (5, 20), (60, 75), (95, 110)),
    "back": lambda rng: _limb(rng, (-40, -25), (10, 25), (60, 90), (40, 70)),
}
LEGS: dict[str, Callable[[Rng], Limb]] = {
    "stand": lambda rng: _limb(rng, (-4, 8), (1, 10), (5, 20), (0, 10)),
    "step": lambda rng: _limb(rng, (10, 32), (0, 8), (0, 15), (0, 20)),
    "trail": lambda rng: _limb(rng, (-28, -8), (0, 8), (0, 15), (5, 40)),
    "knee_up": lambda rng: _limb(rng, (45, 80), (0, 12), (0, 15), (50, 110)),
    "push_off": lambda rng: _limb(rng, (-35, -5), (0, 8), (0, 10), (20, 95)),
    "sit": lambda rng: _limb(rng, (75, 95), (2, 22), (0, 20), (65, 100)),
    "crouch": lambda rng: _limb(rng, (95, 120), (5, 30), (5, 25), (115, 140)),
    "wide": lambda rng: _limb(rng, (-5, 15), (14, 32), (5, 25), (0, 15)),
    "kneel": lambda rng: _limb(rng, (-12, 5), (0, 10), (0, 10), (85, 100)),
    "kick": lambda rng: _limb(rng, (40, 85), (0, 15), (0, 15), (0, 30)),
}


class Activity(NamedTuple):
    """`arms` and `legs`: choices of (one side, other side); the sides are dealt at random. `lean` is forward."""

    weight: float
    legs: tuple[tuple[str, str], ...]
    arms: tuple[tuple[str, str], ...]
    lean: tuple[float, float]


FREE_ARMS = (
    ("hang", "hang"), ("hang", "hang"), ("hang", "hip"), ("hip", "hip"), ("hang", "wave"), ("hang", "up"), ("up", "up"),
    ("side", "side"), ("hang", "point"), ("hang", "phone"), ("carry", "carry"), ("folded", "folded"), ("back", "back"),
    ("wave", "wave"), ("hang", "side"), ("hang", "carry"), ("hip", "wave"), ("point", "point"),
)  # fmt: skip
ACTIVITIES = {
    "stand": Activity(0.36, (("stand", "stand"), ("stand", "stand"), ("wide", "wide")), FREE_ARMS, (-4, 6)),
    "walk": Activity(0.18, (("step", "trail"),), (("hang", "hang"), ("hang", "carry"), ("hang", "phone")), (0, 8)),
    "run": Activity(0.12, (("knee_up", "push_off"),), (("carry", "carry"),), (5, 22)),
    "sit": Activity(0.13, (("sit", "sit"),), (*FREE_ARMS, *(("carry", "carry"),) * 6), (-8, 14)),
    "crouch": Activity(0.05, (("crouch", "crouch"), ("crouch", "kneel")), (("carry", "carry"), ("point", "carry")),
                       (15, 35)),
    "jump": Activity(0.06, (("wide", "wide"), ("knee_up", "push_off")), (("up", "up"), ("side", "side")), (-5, 10)),
    "kick": Activity(0.04, (("stand", "kick"),), (("side", "hang"), ("side", "side")), (-12, 0)),
    "bow": Activity(0.03, (("stand", "stand"), ("wide", "wide")), (("point", "point"), ("hang", "point")), (35, 70)),
    "lie": Activity(0.03, (("stand", "stand"), ("stand", "knee_up")), (("hang", "hang"), ("hang", "up")), (-3, 3)),
}  # fmt: skip


def sample_pose(rng: Rng) -> Pose:
    """A plausible pose: an activity, its limbs, then a turn of spine and head."""
    name = choose_weighted(rng, list(ACTIVITIES), [activity.weight for activity in ACTIVITIES.values()])
    activity = ACTIVITIES[name]
    flip = 1 if rng.random() < 0.5 else -1
    legs = choose(rng, activity.legs)[::flip]
    arms = choose(rng, activity.arms)[::flip]
    left_arm, right_arm = (ARMS[arm](rng) for arm in arms)
    left_leg, right_leg = (LEGS[leg](rng) for leg in legs)
    if name in ("walk", "run"):  # arms swing against the legs
        counter = (right_leg.swing - left_leg.swing) * (0.5 if name == "walk" else 0.4)
        left_arm = left_arm._replace(swing=left_arm.swing + counter)
        right_arm = right_arm._replace(swing=right_arm.swing - counter)
    spine, neck = rng.normal(0, (6, 5, 8)).tolist(), rng.normal((4, 0, 0), (9, 6, 24)).tolist()
    return Pose(
        lean=rng.uniform(*activity.lean),
        spine=(spine[0] + 3, spine[1], spine[2]),
        neck=(neck[0], neck[1], min(max(neck[2], -65), 65)),
        arms=(left_arm, right_arm),
        legs=(left_leg, right_leg),
        lying=name == "lie",
        seated=name == "sit",
    )
