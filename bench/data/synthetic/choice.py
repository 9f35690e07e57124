"""Quick draws: numpy's own choice takes longer than drawing a hand."""

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

Option = TypeVar("Option")


def choose(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """One of them, all alike."""
    return options[int(rng.random() * len(options))]


def choose_weighted(rng: np.random.Generator, options: Sequence[Option], weights: Sequence[float]) -> Option:
    """One of them with a chance in proportion to its weight, which is above 0."""
    total = list(accumulate(weights))
    return options[bisect(total, rng.random() * total[-1])]
