"""What a person wears: materials, garments and hair styles."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.synthetic.choice import choose, choose_weighted

Floats32 = NDArray[np.float32]
Rng = np.random.Generator
Colour = tuple[int, int, int]

SKIN = (
    (255, 224, 196), (241, 194, 160), (224, 172, 128), (198, 134, 92), (160, 104, 66), (124, 78, 50), (92, 60, 42),
)  # fmt: skip
HAIR = (
    (34, 28, 26), (62, 42, 30), (96, 62, 38), (150, 102, 56), (214, 172, 100), (170, 76, 40), (168, 164, 160),
)  # fmt: skip
CLOTH = (
    (206, 60, 54), (236, 128, 64), (244, 200, 84), (96, 160, 92), (52, 110, 90), (64, 130, 190), (44, 66, 128),
     (126, 88, 160), (224, 140, 164), (238, 234, 224), (140, 140, 146), (62, 62, 70), (150, 108, 78), (110, 190, 190),
)  # fmt: skip
TROUSERS = (
    (44, 58, 96), (82, 106, 150), (54, 54, 60), (120, 104, 82), (176, 160, 128), (98, 104, 72), (140, 140, 146),
     (120, 52, 56), (228, 224, 214),
)  # fmt: skip
HAIRLINES = {  # hair grows above these heights, at the head's depths -1, -0.45, 0, 0.4 and 1 (units of the half axes)
    "short": (-0.7, -0.6, 0.0, 0.42, 0.5),
    "fringe": (-0.75, -0.7, -0.2, 0.22, 0.36),
    "receding": (-0.65, -0.5, 0.05, 0.75, 0.9),
    "bald": (2, 2, 2, 2, 2),
    "covering": (-1.3, -1.3, -1.0, 0.3, 0.48),
    "cap": (-0.25, -0.1, 0.2, 0.42, 0.45),
}


class Material(NamedTuple):
    """Two RGB colours (3, 1, 1) mixed by a pattern that repeats every `period` metres."""

    colour: Floats32
    second: Floats32
    pattern: str
    period: float


class Look(NamedTuple):
    """`sleeve` and `leg` say how far cloth covers upper arm + forearm and thigh + shin, 0 to 2 segments."""

    skin: Material
    shirt: Material
    lower: Material
    shoes: Material
    hair: Material
    hat: Material
    sleeve: float
    leg: float
    skirt: float  # length in thighs, 0 for none
    looseness: float
    tucked: bool
    hairline: str
    hair_extra: str  # "none", "bob", "long", "ponytail", "bun"
    covers_ears: bool
    beard: bool
    glasses: bool


def sample_look(rng: Rng) -> Look:
    """Clothes, hair and skin, all independent but for what cannot be worn together."""
    skin = _tint(rng, choose(rng, SKIN), 8)
    hair = _tint(rng, choose(rng, HAIR), 8)
    extra = choose_weighted(rng, ("none", "bob", "long", "ponytail", "bun"), (0.55, 0.12, 0.15, 0.12, 0.06))
    lines, chances = ["short", "fringe", "receding", "bald", "cap"], [0.5, 0.2, 0.1, 0.06, 0.14]
    hairline = choose_weighted(rng, lines, chances) if extra == "none" else "short"
    covers = extra in ("bob", "long") and bool(rng.random() < 0.4)
    skirt = float(rng.uniform(0.5, 0.9)) if rng.random() < (0.1 if extra == "none" else 0.35) else 0.0
    shirt = _cloth(rng, CLOTH)
    lower = shirt if skirt and rng.random() < 0.5 else _cloth(rng, CLOTH if skirt else TROUSERS, plain=0.8)
    return Look(
        skin=Material(skin, skin, "plain", 1),
        shirt=shirt,
        lower=lower,
        shoes=_cloth(rng, CLOTH, plain=1),
        hair=Material(hair, hair * np.float32(0.8), "strands", 0.03),
        hat=_cloth(rng, CLOTH, plain=1),
        sleeve=choose_weighted(rng, (0.0, 0.45, 0.6, 1.3, 1.93), (0.1, 0.25, 0.2, 0.08, 0.37)),
        leg=0.0 if skirt else choose_weighted(rng, (0.5, 0.85, 1.95), (0.12, 0.16, 0.72)),
        skirt=skirt,
        looseness=float(rng.uniform(0.0, 0.022)),
        tucked=bool(rng.random() < 0.4),
        hairline="covering" if covers else hairline,
        hair_extra=extra,
        covers_ears=covers,
        beard=bool(extra == "none" and rng.random() < 0.15),
        glasses=bool(rng.random() < 0.12),
    )


def _tint(rng: Rng, base: Colour, spread: float) -> Floats32:
    offset = rng.normal(0, spread)
    channels = zip(base, rng.normal(0, spread / 2, 3).tolist(), strict=True)
    colour = [min(max(channel + offset + own, 12), 255) for channel, own in channels]
    return np.array(colour, np.float32)[:, None, None]


def _cloth(rng: Rng, palette: Sequence[Colour], plain: float = 0.5) -> Material:
    first, second = choose(rng, palette), choose(rng, CLOTH)
    name = "plain" if rng.random() < plain else choose(rng, ("hoops", "stripes", "checks", "dots"))
    return Material(_tint(rng, first, 12), _tint(rng, second, 12), name, float(rng.uniform(0.06, 0.14)))


def mix(material: Material, along: Floats32, across: Floats32) -> Floats32:
    """Colours (3, h, w), or (3, 1, 1) where plain, at the places `along` and `across` (h, w) in metres."""
    if material.pattern == "plain":
        return material.colour
    turn = np.float32(2 * np.pi / material.period)
    wave = {
        "hoops": lambda: np.sin(along * turn),
        "stripes": lambda: np.sin(across * turn),
        "checks": lambda: np.sin(along * turn) * np.sin(across * turn) * 1.5,
        "dots": lambda: (np.sin(along * turn) * np.sin(across * turn) - 0.45) * 2,
        "strands": lambda: np.sin(across * turn + 1.5 * np.sin(along * turn * 0.4)) - 0.6,
    }[material.pattern]()
    share = np.clip(0.5 + 1.5 * wave, 0, 1).astype(np.float32)
    mixed: Floats32 = material.colour + share * (material.second - material.colour)
    return mixed
