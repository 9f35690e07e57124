"""Work of many equal parts on all cores."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from bench.machine import num_cores

Part = TypeVar("Part")
Found = TypeVar("Found")


def map_on_cores(function: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """What the function, one of a module, finds for every part, in their order; what it raises is raised here."""
    num_processes = min(len(parts), num_cores())
    if num_processes < 2:
        return [function(part) for part in parts]
    with ProcessPoolExecutor(num_processes) as pool:
        return list(pool.map(function, parts))
