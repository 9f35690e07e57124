"""Two processes that share every batch, as a launcher starts them."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric

from bench.training.sharding import strategy_of


def run_pair(function: Callable[..., None], *arguments: Any) -> list[int | None]:
    """`function(rank, *arguments)` in two processes; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    pair = [context.Process(target=_as_launched, args=(function, rank, port, *arguments)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in reversed(pair):
        process.join()
    return [process.exitcode for process in pair]


def _as_launched(function: Callable[..., None], rank: int, port: int, *arguments: Any) -> None:
    """The environment says who is who."""
    torch.set_num_threads(1)
    who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "a"}
    os.environ |= {name: str(value) for name, value in (who | where).items()}
    function(rank, *arguments)


def launch(strategy: str) -> Fabric:
    """In one of the two."""
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy_of(strategy, 2))
    fabric.launch()
    return fabric
