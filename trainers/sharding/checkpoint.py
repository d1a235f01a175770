"""Checkpoints of sharded models: each process writes what it holds, and any number of processes can read it.

By PyTorch's `torch.distributed.checkpoint`, in safetensors files: nothing is unpickled. Weights that are frozen are
left out, as they never change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_sharded
from torch.distributed.checkpoint.state_dict_saver import save as save_sharded

FOLDER = "sharded"
"""In a checkpoint."""


def save(models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Write the trained weights of models and the optimizer's state; all processes at once."""
    names = dict(_trained(models))
    state = {f"weight.{name}": parameter.detach() for name, parameter in names.items()}
    state |= {key: tensor for name, parameter in names.items() for key, tensor in _state(name, parameter, optimizer)}
    writer = HuggingFaceStorageWriter(str(checkpoint / FOLDER), save_distributed=True)
    save_sharded(state, storage_writer=writer)


def load_weights(models: Mapping[str, nn.Module], checkpoint: Path) -> None:
    """Read the trained weights of models, in place; all processes at once."""
    _read({f"weight.{name}": parameter.detach() for name, parameter in _trained(models)}, checkpoint)


def load_optimizer(models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Read the optimizer's state; what it had not seen when it was written, it has not seen now."""
    known = HuggingFaceStorageReader(str(checkpoint / FOLDER)).read_metadata().state_dict_metadata.keys()
    _touch(optimizer)
    state: dict[str, Tensor] = {}
    for name, parameter in _trained(models):
        own = dict(_state(name, parameter, optimizer))
        if own.keys() <= known:
            state |= own
        else:
            del optimizer.state[parameter]
    _read(state, checkpoint)


def _read(state: dict[str, Tensor], checkpoint: Path) -> None:
    if state:
        load_sharded(state, storage_reader=HuggingFaceStorageReader(str(checkpoint / FOLDER)))


def _trained(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for model, module in models.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield f"{model}.{name}", parameter


def _state(name: str, parameter: Tensor, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for key, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor):
            # A count has no dimension to be cut along.
            yield f"{key}.{name}", value if value.dim() else value.view(1)


def _touch(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer make its state, by a step that changes nothing."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def whole_state(model: Any, *, trained_only: bool) -> dict[str, Tensor]:
    """All weights of a sharded model, or those that are not frozen, on the CPU of the first process.

    Nothing on the others, which must take part.
    """
    frozen = {name for name, parameter in model.named_parameters() if trained_only and not parameter.requires_grad}
    first, state = torch.distributed.get_rank() == 0, {}
    for name, tensor in model.state_dict().items():
        if name in frozen:
            continue
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if first:
            state[name] = whole.cpu()
    return state
