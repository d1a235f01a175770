"""The weights of a policy, row by row, for processes that each keep only some of the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils.hub import cached_file

from steppo_gym.errors import DataError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class Weights(Protocol):
    """Something to read weights from."""

    def rows(self, name: str, first: int, number: int) -> Tensor:
        """Rows `first` to `first + number` of a weight."""
        ...


class FileWeights:
    """Weights in safetensors files, of which only what is asked for is read.

    Args:
        name: a folder, or a name on the Hub.
        revision: on the Hub.

    Raises:
        DataError: there are no such files.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name = name
        index = _file(name, INDEX, revision)
        if index is None:
            single = _file(name, SINGLE, revision)
            if single is None:
                raise DataError(f"--shard reads weights from {INDEX} or {SINGLE}, and {name} has neither.")
            with safe_open(single, "pt") as file:
                self._file_of: Mapping[str, str] = dict.fromkeys(file.keys(), single)
            return
        names = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        paths = {part: _file(name, part, revision) for part in set(names.values())}
        self._file_of = {weight: str(paths[part]) for weight, part in names.items()}

    def rows(self, name: str, first: int, number: int) -> Tensor:
        """Rows of a weight.

        Raises:
            DataError: it is in none of the files.
        """
        if name not in self._file_of:
            raise DataError(f"{self.name} has no weight {name}. Files with other names cannot be read with --shard.")
        with safe_open(self._file_of[name], "pt") as file:
            return file.get_slice(name)[first : first + number]


class ModelWeights:
    """Weights of a model in memory."""

    def __init__(self, model: Any) -> None:
        self._weights: Mapping[str, Tensor] = dict(model.state_dict())

    def rows(self, name: str, first: int, number: int) -> Tensor:
        """Rows of a weight.

        Raises:
            DataError: the model has none of this name.
        """
        if name not in self._weights:
            raise DataError(f"{name} cannot be sharded: it is no weight of the model that was given.")
        return self._weights[name][first : first + number]


@torch.no_grad()
def fill(model: Any, weights: Weights, prefix: str, device: torch.device) -> None:
    """Give a sharded model its weights: those on the meta device from `weights`, the others are moved.

    Args:
        model: after `shard`; a policy, or a critic whose backbone is the policy's.
        weights: of the policy, under the names that it has without adapters.
        prefix: of the backbone within the policy, such as "model".
        device: of this process.
    """
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    model._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device))
    parameters = dict(model.named_parameters())
    for name in missing:
        parameter: Any = parameters[name]
        shape, offset = compute_local_shape_and_global_offset(
            parameter.shape, parameter.device_mesh, parameter.placements
        )
        if shape[0]:
            parameter.to_local().copy_(weights.rows(plain_name(name, prefix), offset[0], shape[0]))


def plain_name(name: str, prefix: str) -> str:
    """The name of a parameter in the policy without adapters around it.

    "base_model.model.model.layers.0.mlp.up_proj.base_layer.weight" of a policy with adapters and
    "backbone.layers.0.mlp.up_proj.weight" of a critic are both "model.layers.0.mlp.up_proj.weight".
    """
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    name = name.replace(".original_module.", ".").replace(".modules_to_save.default.", ".")
    return f"{prefix}.{name.removeprefix('backbone.')}" if name.startswith("backbone.") else name


def _file(name: str, file: str, revision: str | None) -> str | None:
    return cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False)
