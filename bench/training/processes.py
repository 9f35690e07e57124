"""What the processes of a training tell each other, one for each device; alone, a process hears itself."""

from typing import Any, TypeVar

from lightning_fabric import Fabric
from torch import Tensor, distributed

from bench.data.dataset import Part

Value = TypeVar("Value")


def part_of(fabric: Fabric) -> Part:
    """Of every batch, and of the persons to validate on."""
    return Part(fabric.global_rank, fabric.world_size)


def mean_of(fabric: Fabric, value: Tensor) -> Tensor:
    """Over all processes, the same for each."""
    mean = fabric.all_reduce(value, reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


def gather(fabric: Fabric, value: Value) -> list[Value]:
    """Everybody's, in the order of the processes."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    distributed.all_gather_object(values, value)
    return values
