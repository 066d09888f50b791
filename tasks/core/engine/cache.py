"""A key-value cache with room to grow: one buffer, written in place, for rows that are padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from tasks.core.engine.kv_prefix import Place


class _BufferLayer(DynamicLayer):
    """One layer's view of the buffer; `DynamicLayer` copies everything it holds at every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()
        self.room_keys, self.room_values, self.used = keys, values, used  # [B, H, room, D]
        self.keys, self.values = keys[:, :, :used], values[:, :, :used]
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write behind what is there; returns all keys and values."""
        end = self.used + key_states.shape[2]
        self.room_keys[:, :, self.used : end] = key_states
        self.room_values[:, :, self.used : end] = value_states
        self.used = end
        self.keys, self.values = self.room_keys[:, :, :end], self.room_values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.used


class Buffer:
    """Keys and values of a batch of rows, [2S, B, H, room, D], right-aligned at column `used`."""

    def __init__(self, tensor: torch.Tensor, used: int, fixed: torch.Tensor | None, cross: frozenset[int]) -> None:
        """Layers in the model's order: `cross` names those that hold `fixed` [2C, B, H, T, D]."""
        self.tensor, self.fixed, self.cross = tensor, fixed, cross
        layers: list[DynamicLayer] = []
        own = fixed_at = 0
        for index in range(tensor.shape[0] // 2 + len(cross)):
            if index in cross:
                assert fixed is not None
                layer = DynamicLayer()
                layer.lazy_initialization(fixed[fixed_at], fixed[fixed_at + 1])
                layer.keys, layer.values = fixed[fixed_at], fixed[fixed_at + 1]
                fixed_at += 2
            else:
                layer = _BufferLayer(tensor[own], tensor[own + 1], used)
                own += 2
            layers.append(layer)
        self.cache = Cache(layers=list(layers))
        self._own = next(layer for layer in layers if isinstance(layer, _BufferLayer))

    @property
    def used(self) -> int:
        """Columns in use."""
        return self._own.used

    @property
    def room(self) -> int:
        """Columns there are."""
        return self.tensor.shape[3]


def gather(prefixes: Sequence[torch.Tensor], ends: Sequence[int], *, columns: int, extra: int) -> torch.Tensor:
    """Room for B rows, [2S, B, H, columns + extra, D], the prefix [2S, H, n, D] of row b written up to column `ends[b]`."""
    layers, heads, _, width = prefixes[0].shape
    # Zeros, not empty: a masked column's weight is 0, and 0 times not-a-number is not 0.
    tensor = prefixes[0].new_zeros(layers, len(prefixes), heads, columns + extra, width)
    for row, (prefix, end) in enumerate(zip(prefixes, ends, strict=True)):
        tensor[:, row, :, end - prefix.shape[2] : end] = prefix
    return tensor


def attention_mask(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, Q, columns] that a model adds to its attention: 0 where `seen` [B, Q, columns], the least number elsewhere."""
    nothing = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return nothing.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def fixed_of(places: Sequence[Place]) -> torch.Tensor | None:
    """[2C, B, H, T, D] of what cross-attention layers look at; None where the model has none."""
    parts = [place.root.fixed for place in places if place.root.fixed is not None]
    return torch.stack(parts, dim=1) if parts else None
