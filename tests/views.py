"""Random views for tests: none of a kind unless asked for."""

from typing import NamedTuple


class Views(NamedTuple):
    flip: float = 0.0
    half_body: float = 0.0
    rotation: float = 0.0
    rotation_probability: float = 1.0
    scale: float = 0.0
    shift: float = 0.0
    shift_probability: float = 1.0


EVERYTHING = Views(
    flip=0.5, half_body=0.3, rotation=40, rotation_probability=0.6, scale=0.3, shift=0.1, shift_probability=0.5
)
