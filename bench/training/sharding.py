"""Weights and optimiser shared out over the processes of a training (FSDP2), and their states, which are always whole.

Zhao et al., PyTorch FSDP (VLDB 2023). Every state and whole number here is asked for by all processes together.
"""

from typing import Any

import torch
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from models import PoseModel

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def strategy_of(name: str, num_processes: int) -> ModelParallelStrategy | str:
    """For Fabric; with `fsdp` every process holds an equal share of each weight, gradient and optimiser state."""
    if num_processes == 1:
        return "auto"
    if name == "fsdp":
        return ModelParallelStrategy(shard, data_parallel_size=num_processes, tensor_parallel_size=1)
    return name


def shard(model: PoseModel, mesh: DeviceMesh) -> PoseModel:
    """Share a model out in place: of the backbone's blocks one at a time is whole, all else during a whole pass."""
    processes = mesh["data_parallel"]
    model.to(memory_format=torch.contiguous_format)  # FSDP knows no other
    for block in model.backbone.blocks:
        fully_shard(block, mesh=processes)
    fully_shard(model, mesh=processes)
    model.register_forward_pre_hook(_share_buffers)
    return model


def _share_buffers(model: nn.Module, _: Any) -> None:
    """Batch statistics are those of the first process, as in DDP."""
    for buffer in model.buffers():
        distributed.broadcast(buffer, src=0)


def whole(number: Tensor) -> Tensor:
    """A number that may be shared out."""
    return number.full_tensor() if isinstance(number, DTensor) else number


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict on the CPU; of several processes the first alone gets it."""
    weights: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
    return {name: value.clone() for name, value in weights.items()}


def whole_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Of both, on the CPU, parameters by their names; of several processes the first alone gets it."""
    weights, optimizer_state = get_state_dict(model, optimizer, options=WHOLE)
    return {"weights": weights, "optimizer": optimizer_state}


def load_whole_state(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Be as when `state` was taken; every process gives it."""
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["weights"],
        optim_state_dict=state["optimizer"],
        options=StateDictOptions(full_state_dict=True),
    )
