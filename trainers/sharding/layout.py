"""Which process holds which part of a model, by PyTorch's FSDP2 (`torch.distributed.fsdp.fully_shard`).

Every decoder layer is a unit: its weights are gathered when it runs and given up after it. What is outside of the
layers (embeddings, the last norm) is gathered for a whole pass. Gradients are averaged over the processes and spread
likewise after each backward pass, so that no process ever holds a whole gradient.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from steppo_gym.trainers.step_config import Shard


def make_mesh(mode: Shard, device_type: str) -> DeviceMesh:
    """All processes in a row; for `hybrid`, (nodes, processes of a node), with a copy of the model on every node."""
    world = torch.distributed.get_world_size()
    if mode == "full":
        return init_device_mesh(device_type, (world,))
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return init_device_mesh(device_type, (world // local, local), mesh_dim_names=("replicate", "shard"))


def shard(model: nn.Module, mesh: DeviceMesh, compute: torch.dtype | None) -> None:
    """Spread a model's weights, in place; those on the meta device stay there, each process with its part.

    Args:
        model: with decoder layers of transformers in it, or without any, which makes one unit of it.
        mesh: of `make_mesh`.
        compute: type of the matrix products, None for that of the weights.
    """
    precision = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    layers = _layer_names(model)
    for module in reversed(list(model.modules())):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, mp_policy=precision)
    # The whole as well, which FSDP would leave gathered after a pass: an optimizer made then would get those weights.
    fully_shard(model, mesh=mesh, mp_policy=precision, reshard_after_forward=True)


def _layer_names(model: nn.Module) -> set[str]:
    """The classes that transformers itself would not tear apart."""
    found = (getattr(module, "_no_split_modules", None) or () for module in model.modules())
    return {name for names in found for name in names}


def as_number(value: Any) -> Any:
    """A tensor that every process has a part of, as a whole one."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value
