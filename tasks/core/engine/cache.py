"""A key-value cache with spare columns: one buffer, written in place, for rows that are padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from tasks.core.engine.kv_prefix import KVPrefix


class _BufferLayer(DynamicLayer):
    """One layer's view of the buffer; `DynamicLayer` copies everything it holds at every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()
        self.all_keys, self.all_values, self.used = keys, values, used  # [B, H, capacity, D]
        self.keys, self.values = keys[:, :, :used], values[:, :, :used]
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values [B, H, n, D]; returns all of them."""
        end = self.used + key_states.shape[2]
        self.all_keys[:, :, self.used : end] = key_states
        self.all_values[:, :, self.used : end] = value_states
        self.used = end
        self.keys, self.values = self.all_keys[:, :, :end], self.all_values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.used


class Buffer:
    """Keys and values of a batch of rows, [2S, B, H, capacity, D], right-aligned at column `used`."""

    def __init__(
        self, tensor: torch.Tensor, used: int, cross_kv: torch.Tensor | None, cross_layers: frozenset[int]
    ) -> None:
        """Layers in the model's order; those at the indices `cross_layers` hold `cross_kv` [2C, B, H, T, D]."""
        self.tensor, self.cross_kv, self.cross_layers = tensor, cross_kv, cross_layers
        layers: list[DynamicLayer] = []
        own = cross_at = 0
        for index in range(tensor.shape[0] // 2 + len(cross_layers)):
            if index in cross_layers:
                assert cross_kv is not None
                layer = DynamicLayer()
                layer.lazy_initialization(cross_kv[cross_at], cross_kv[cross_at + 1])
                layer.keys, layer.values = cross_kv[cross_at], cross_kv[cross_at + 1]
                cross_at += 2
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
    def capacity(self) -> int:
        """Columns in all."""
        return self.tensor.shape[3]


def gather(prefixes: Sequence[torch.Tensor], ends: Sequence[int], *, columns: int, extra: int) -> torch.Tensor:
    """A buffer of B rows, [2S, B, H, columns + extra, D], with the prefix [2S, H, n, D] of row b up to column `ends[b]`."""
    layers, heads, _, width = prefixes[0].shape
    # Zeros, not empty: a masked column has weight 0, and 0 * NaN is not 0.
    tensor = prefixes[0].new_zeros(layers, len(prefixes), heads, columns + extra, width)
    for row, (prefix, end) in enumerate(zip(prefixes, ends, strict=True)):
        tensor[:, row, :, end - prefix.shape[2] : end] = prefix
    return tensor


def attention_mask(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, Q, columns] to add to attention logits: 0 where `seen` [B, Q, columns], the smallest number elsewhere."""
    nothing = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return nothing.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def cross_kv_of(prefixes: Sequence[KVPrefix]) -> torch.Tensor | None:
    """[2C, B, H, T, D] keys and values of cross-attention layers; None if the model has none."""
    parts = [prefix.root.cross_kv for prefix in prefixes if prefix.root.cross_kv is not None]
    return torch.stack(parts, dim=1) if parts else None
