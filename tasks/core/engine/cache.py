"""A key-value cache with spare columns: buffers, written in place, for rows that are padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DummyLayer, DynamicLayer

from tasks.core.engine.kv_prefix import KV, KVPrefix
from tasks.core.engine.layers import CROSS, NOTHING, RECURRENT, Entry, Layers, Layout, state_layer, tensor_of


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

    def release(self) -> None:
        """Let go of the buffer; only `used` stays."""
        self.all_keys = self.all_values = self.keys = self.values = self.all_keys.new_empty(0)


class Buffer:
    """The cache of a batch of rows: keys and values right-aligned at column `used`, states, and the image's keys and values."""

    def __init__(
        self, layers: Layers, layout: Layout, slabs: list[torch.Tensor], used: int, fixed: dict[Entry, torch.Tensor]
    ) -> None:
        """`slabs` as the layout has them, each [E, B, H, capacity, D]; `fixed`: states and cross-attention tensors [B, ...]."""
        self.slabs, self.layout = slabs, layout
        own = {e: slab[at] for slab, entries in zip(slabs, layout.slabs, strict=True) for at, e in enumerate(entries)}
        cached: list[Any] = []
        for index, kind in enumerate(layers.kinds):
            keys, values = Entry(index, "keys"), Entry(index, "values")
            if kind == CROSS:
                layer: Any = DynamicLayer()
                layer.lazy_initialization(fixed[keys], fixed[values])
                layer.keys, layer.values = fixed[keys], fixed[values]
            elif kind == RECURRENT:
                entries = [entry for entry in layout.states if entry.layer == index]
                layer = state_layer(layers.states, entries, [fixed[entry] for entry in entries])
            else:
                layer = DummyLayer() if kind == NOTHING else _BufferLayer(own[keys], own[values], used)
            cached.append(layer)
        self.cache = Cache(layers=cached)
        self._own = next(layer for layer in cached if isinstance(layer, _BufferLayer))

    @property
    def used(self) -> int:
        """Columns in use."""
        return self._own.used

    @property
    def capacity(self) -> int:
        """Columns in all."""
        return self.slabs[0].shape[3]

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values."""
        return self.slabs[0].dtype

    def release(self, index: int) -> None:
        """Free the slab `index`: its layers can't be used any more."""
        for entry in self.layout.slabs[index]:
            layer = self.cache.layers[entry.layer]
            if isinstance(layer, _BufferLayer):
                layer.release()  # `_own` is one of them: its views would keep a slab alive
            self.cache.layers[entry.layer] = DummyLayer()
        self.slabs[index] = self.slabs[index].new_empty(0)

    def states(self, row: int) -> tuple[torch.Tensor, ...]:
        """A row's convolutional and recurrent states, as the layout has them, cloned."""
        return tuple(tensor_of(self.cache, entry)[row].clone() for entry in self.layout.states)


def gather(prefixes: Sequence[KVPrefix], *, columns: int, extra: int) -> list[torch.Tensor]:
    """Slabs of B rows, each [E, B, H, columns + extra, D], with each prefix's keys and values up to column `columns`."""
    slabs = []
    for index in range(len(prefixes[0].kv)):
        slabs.append(new_slab(prefixes, index, columns + extra))
        for row, prefix in enumerate(prefixes):
            put_prefix(slabs[-1], index, row, prefix, columns)
    return slabs


def new_slab(prefixes: Sequence[KVPrefix], index: int, capacity: int) -> torch.Tensor:
    """An empty slab for a row after each prefix, [E, B, H, capacity, D]."""
    entries, heads, _, width = prefixes[0].kv[index].shape
    # Zeros, not empty: a masked column has weight 0, and 0 * NaN is not 0.
    return prefixes[0].kv[index].new_zeros(entries, len(prefixes), heads, capacity, width)


def put_prefix(slab: torch.Tensor, index: int, row: int, prefix: KVPrefix, end: int) -> None:
    """Copy a prefix's keys and values into its row of the slab `index`, up to column `end`."""
    for part in prefix.chain():
        start = end - prefix.length + part.before
        slab[:, row, :, start : start + part.length - part.before] = part.kv[index]


def attention_mask(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, Q, columns] to add to attention logits: 0 where `seen` [B, Q, columns], the smallest number elsewhere."""
    nothing = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return nothing.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def fixed_tensors(prefixes: Sequence[KVPrefix], states: Sequence[KV]) -> dict[Entry, torch.Tensor]:
    """Of each row's prefix and `states`: cross-attention tensors and states, each [B, ...]."""
    layout = prefixes[0].root.layout
    fixed = {
        entry: torch.stack([prefix.root.cross_kv[at] for prefix in prefixes]) for at, entry in enumerate(layout.cross)
    }
    return fixed | {entry: torch.stack([row[at] for row in states]) for at, entry in enumerate(layout.states)}
