"""A key-value cache with room to grow: one buffer, written in place, for rows that are padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from tasks.core.engine.places import Place


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


def gather(
    places: Sequence[Place],
    *,
    extra: int,
    cross: frozenset[int],
    going: tuple[Buffer, Sequence[int], int] | None = None,
) -> Buffer:
    """A buffer of rows that go on (buffer, their rows, the longest's columns), then of new rows at `places`.

    Rows at one place follow one another, so that its keys and values are put together once. `extra`: columns to be written.
    """
    groups: list[tuple[Place, int]] = []
    for place in places:
        if groups and groups[-1][0] is place:
            groups[-1] = (place, groups[-1][1] + 1)
        else:
            groups.append((place, 1))
    old = len(going[1]) if going else 0
    columns = max([place.length for place, _ in groups] + ([going[2]] if going else []))
    like = going[0].tensor[:, 0] if going else places[0].kv  # [2S, H, *, D]
    layers, heads, _, width = like.shape
    # Zeros, not empty: a masked column's weight is 0, and 0 times not-a-number is not 0.
    tensor = like.new_zeros(layers, old + len(places), heads, columns + extra, width)
    if going:
        buffer, rows, longest = going
        index = torch.as_tensor(list(rows), device=tensor.device)
        kept = buffer.tensor[:, :, :, buffer.used - longest : buffer.used]
        tensor[:, :old, :, columns - longest : columns] = kept[:, index]
    at = old
    for place, count in groups:
        tensor[:, at : at + count, :, columns - place.length : columns] = place.path()[:, None]
        at += count
    return Buffer(tensor, columns, _fixed(places, going), cross)


def _fixed(places: Sequence[Place], going: tuple[Buffer, Sequence[int], int] | None) -> torch.Tensor | None:
    """[2C, B, H, T, D] of the same rows; None where the model has no cross-attention."""
    parts = [place.root.fixed[:, None] for place in places if place.root.fixed is not None]
    if going and going[0].fixed is not None:
        parts.insert(0, going[0].fixed[:, list(going[1])])
    return torch.cat(parts, dim=1) if parts else None
