"""A key-value cache with one row per rollout slot, each row as long as its own context.

Transformers' dynamic cache appends the same number of columns to every row, so rows whose episodes differ in length
fill up with padding, and a row cannot start over alone. Here every row has its own length: new keys are written at the
row's own end, a row is cut back by forgetting its length, and attention sees exactly a row's own columns.

A forward pass works on adjacent rows, which is a view of the cache; picking rows one by one would copy all their keys
for every token. So contexts move instead, once each time the set of rows changes (`slots.py`).
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

PAGE = 2048
"""Columns by which a wide cache grows; a narrow one doubles. On a CPU the first has as many, see `zeros`."""


def grown(capacity: int, width: int) -> int:
    """Columns of a cache that had `capacity` of them and needs `width`.

    Doubling to the end would hold up to twice the memory that the contexts take.
    """
    return max(min(2 * capacity, capacity + PAGE), width)


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on a CPU the system gives memory to them page by page, once something is written there.

    Zeros that PyTorch writes everywhere took, with their copies as the cache grew, up to a third of the time of a
    rollout with a small policy: most contexts are much shorter than the longest.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype).view(*shape)


class SlotCacheLayer(CacheLayerMixin):
    """Keys and values of one layer: (rows, heads, capacity, head size), filled from the left row by row."""

    def __init__(self, owner: SlotCache) -> None:
        super().__init__()
        # The owner holds the layers. In a circle, gigabytes of keys would outlive a rollout until Python looks for one.
        self.owner: SlotCache = weakref.proxy(owner)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate for the heads and types of the first call."""
        self.keys, self.values = self._empty(key_states), self._empty(value_states)
        self.is_initialized = True

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        rows, capacity = self.owner.num_rows, self.owner.capacity
        return zeros((rows, like.shape[1], capacity, like.shape[3]), like.dtype, like.device)

    def tensors(self) -> list[torch.Tensor]:
        """Keys and values, nothing before the first call."""
        return [] if self.keys is None or self.values is None else [self.keys, self.values]

    def grow(self) -> None:
        """Enlarge to the owner's capacity, keeping what is there."""
        if self.keys is None or self.values is None:
            return
        old_keys, old_values = self.keys, self.values
        self.keys, self.values = self._empty(old_keys), self._empty(old_values)
        self.keys[:, :, : old_keys.shape[2]] = old_keys
        self.values[:, :, : old_values.shape[2]] = old_values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (rows, heads, new, head size) at each row's end and return all columns in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        for kept, new in zip(self.tensors(), (key_states, value_states), strict=True):
            size = new.shape[3]
            kept.view(-1, size).index_copy_(0, self.owner.flat_index(new.shape[1]), new.reshape(-1, size))
        assert self.keys is not None and self.values is not None
        rows, width = self.owner.rows, self.owner.width
        return self.keys[rows, :, :width], self.values[rows, :, :width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns in use and offset of the first."""
        return self.owner.width, 0

    def get_seq_length(self) -> int:
        """Columns in use; the caller passes position ids, so no row's own length is asked for."""
        return self.owner.width

    def get_max_length(self) -> int:
        """No maximum: the cache grows."""
        return -1


class SlotCache(Cache):
    """The cache of a model for `num_rows` contexts.

    Args:
        num_layers: layers of the model.
        num_rows: contexts.
        device: where masks and keys are.
        dtype: of the masks: that in which the model computes attention.
    """

    def __init__(
        self,
        num_layers: int,
        num_rows: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.num_rows, self.device, self.dtype = num_rows, device, dtype
        self.capacity = PAGE if torch.device(device).type == "cpu" else 256
        self.width = 0
        self.rows = slice(0, 0)
        self._columns = torch.zeros(0, 0, dtype=torch.long, device=device)
        self._flat_index: dict[int, torch.Tensor] = {}
        super().__init__(layers=[SlotCacheLayer(self) for _ in range(num_layers)])

    def address(self, rows: slice, lengths: torch.Tensor, new: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Say where the next forward writes: `new` columns after each row's own length.

        Args:
            rows: the B adjacent rows of the batch.
            lengths: (B,) int64, how many columns of each row are valid.
            new: columns to write; a row that has fewer new tokens writes padding behind its end, which its mask never
                shows.
            width: the largest of the lengths, plus `new`.

        Returns:
            position_ids: (B, new) int64.
            attention_mask: (B, 1, new, width) float, 0 where a query may look and the least number elsewhere: every
                implementation of attention adds it to the scores or does the same.
        """
        self.rows, self.width = rows, width
        self._columns = lengths[:, None] + torch.arange(new, device=self.device)
        self._flat_index = {}
        if width > self.capacity:
            self.capacity = grown(self.capacity, width)
            for layer in self.layers:
                layer.grow()  # type: ignore[union-attr]
        hidden = torch.arange(width, device=self.device) > self._columns[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device)
        return self._columns, mask.masked_fill_(hidden, torch.finfo(self.dtype).min)[:, None]

    def flat_index(self, num_heads: int) -> torch.Tensor:
        """(B * heads * new,) where the new keys go in (rows * heads * capacity, head size); one for all layers."""
        if num_heads not in self._flat_index:
            rows = torch.arange(self.rows.start, self.rows.stop, device=self.device)[:, None] * num_heads
            heads = (rows + torch.arange(num_heads, device=self.device)) * self.capacity
            self._flat_index[num_heads] = (heads[:, :, None] + self._columns[:, None]).flatten()
        return self._flat_index[num_heads]

    def move(self, sources: Sequence[int], targets: Sequence[int], width: int) -> None:
        """Copy the first `width` columns of rows into other rows; all are read before any is written."""
        read = torch.tensor(sources, device=self.device)
        written = torch.tensor(targets, device=self.device)
        for layer in self.layers:
            for kept in layer.tensors():  # type: ignore[union-attr]
                columns = kept[:, :, :width]
                columns.index_copy_(0, written, columns.index_select(0, read))
