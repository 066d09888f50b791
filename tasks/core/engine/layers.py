"""What each layer of a language model keeps of the tokens it has read, and under which mask it attends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

Mask = torch.Tensor | dict[str, torch.Tensor | None]

SLABS = 8  # tensors that the keys and values of equally shaped layers are divided into
FULL, SLIDING, RECURRENT, CROSS, NOTHING = "full", "sliding", "recurrent", "cross", "nothing"
_KINDS: dict[type, str] = {
    DynamicLayer: FULL,
    DynamicSlidingWindowLayer: SLIDING,
    LinearAttentionLayer: RECURRENT,
    DummyLayer: NOTHING,  # uses another layer's keys and values, or none
}


class CannotFork(Exception):
    """The model's cache can't be shared by continuations; the message states why."""


@dataclass(frozen=True)
class Layers:
    """The kinds of a language model's layers, in order."""

    kinds: tuple[str, ...]
    types: tuple[str, ...]  # what the model's configuration calls them
    window: int | None  # tokens that a sliding layer attends to, the query included
    states: int = 1  # convolutional and recurrent states of a recurrent layer

    @property
    def recurrent(self) -> bool:
        """Some layer keeps a state instead of keys and values: it can be copied and advanced, but not cut."""
        return RECURRENT in self.kinds

    def empty_cache(self) -> Cache:
        """A cache that keeps all keys and values, those outside a sliding window too: a fork may need them."""
        layers: list[Any] = []
        for kind in self.kinds:
            if kind == RECURRENT:
                layers.append(LinearAttentionLayer(number_of_states=self.states))
            else:
                layers.append(DummyLayer() if kind == NOTHING else DynamicLayer())
        return Cache(layers=layers)

    def mask(self, full: torch.Tensor, distance: torch.Tensor | None) -> Mask:
        """The model's attention mask.

        Args:
            full: [B, 1, Q, columns] to add to attention logits, without regard to a window.
            distance: tokens from a column's to the query's, broadcasts against [B, Q, columns]; None only if no layer slides.
        """
        sliding = full
        if self.window is not None:
            assert distance is not None
            sliding = full.masked_fill((distance >= self.window)[:, None], torch.finfo(full.dtype).min)
        named: dict[str, torch.Tensor | None] = {}
        for type_, kind in zip(self.types, self.kinds, strict=True):
            if kind in (FULL, SLIDING):
                named[type_] = sliding if kind == SLIDING else full
            elif kind == RECURRENT:
                named[type_] = None  # nothing of what it is fed is padding
        if len(named) > 1:
            return named
        return sliding if SLIDING in self.kinds else full


def layers_of(model: Any) -> Layers:
    """The layers of a model's language model.

    Raises:
        CannotFork: a layer keeps something else than keys and values or states.
    """
    name, config = type(model).__name__, model.config.get_text_config()
    cross = frozenset(getattr(config, "cross_attention_layers", None) or ())
    cached = DynamicCache(config=config).layers
    other = sorted({type(layer).__name__ for layer in cached if type(layer) not in _KINDS})
    types = tuple(getattr(config, "layer_types", None) or ["full_attention"] * len(cached))
    if other:
        raise CannotFork(f"{name} keeps {', '.join(other)} in its cache")
    if "chunked_attention" in types:
        raise CannotFork(f"{name} attends in chunks of its text, which its cache doesn't show")
    kinds = tuple(CROSS if index in cross else _KINDS[type(layer)] for index, layer in enumerate(cached))
    if not {FULL, SLIDING} & set(kinds):
        raise CannotFork(f"{name} has no layer that attends to text")
    windows = {layer.sliding_window for layer in cached if isinstance(layer, DynamicSlidingWindowLayer)}
    if len(windows) > 1:
        raise CannotFork(f"{name} has sliding windows of several lengths: {sorted(windows)}")
    states = {layer.number_of_states for layer in cached if isinstance(layer, LinearAttentionLayer)}
    if len(states) > 1:
        raise CannotFork(f"{name} has recurrent layers with different numbers of states")
    return Layers(kinds, types, next(iter(windows), None), next(iter(states), 1))


class Entry(NamedTuple):
    """One tensor of a layer's cache."""

    layer: int
    part: str  # keys, values; conv, recurrent
    number: int = 0  # which of the layer's states


@dataclass(frozen=True)
class Layout:
    """Where the tensors of a cache are: keys and values of equal shape lie in slabs, so that one copy moves several layers."""

    slabs: tuple[tuple[Entry, ...], ...]
    cross: tuple[Entry, ...]
    states: tuple[Entry, ...]

    @classmethod
    def of(cls, cache: Cache, layers: Layers) -> Layout:
        """The layout of a cache that has read something.

        Raises:
            CannotFork: the model replaced a layer of the cache by one of another kind.
        """
        by_shape: dict[tuple[int, ...], list[Entry]] = {}
        cross, states = [], []
        for index, (layer, kind) in enumerate(zip(cache.layers, layers.kinds, strict=True)):
            if kind == RECURRENT and type(layer) is LinearAttentionLayer:
                for i in range(layers.states):
                    states += [
                        Entry(index, part, i)
                        for part in ("conv", "recurrent")
                        if getattr(layer, f"{part}_states")[i] is not None
                    ]
            elif kind == NOTHING and type(layer) is DummyLayer:
                continue
            elif type(layer) is not DynamicLayer or kind in (RECURRENT, NOTHING) or layer.keys is None:
                raise CannotFork(f"layer {index} of its cache is a {type(layer).__name__}, wanted one of kind {kind}")
            elif kind == CROSS:
                cross += [Entry(index, "keys"), Entry(index, "values")]
            else:
                for part in ("keys", "values"):
                    tensor = getattr(layer, part)
                    by_shape.setdefault((tensor.shape[1], tensor.shape[3]), []).append(Entry(index, part))
        slabs = []
        for entries in by_shape.values():
            size = -(-len(entries) // SLABS)
            slabs += [tuple(entries[at : at + size]) for at in range(0, len(entries), size)]
        return cls(tuple(slabs), tuple(cross), tuple(states))


def tensor_of(cache: Cache, entry: Entry) -> torch.Tensor:
    """A cache's tensor: keys or values [B, H, L, D], or a state [B, ...]."""
    layer = cache.layers[entry.layer]
    tensor = (
        getattr(layer, entry.part)
        if entry.part in ("keys", "values")
        else getattr(layer, f"{entry.part}_states")[entry.number]
    )
    assert isinstance(tensor, torch.Tensor)
    return tensor


def state_layer(count: int, entries: Sequence[Entry], tensors: Sequence[torch.Tensor]) -> LinearAttentionLayer:
    """A recurrent layer of a cache that holds `count` states of each kind, given as tensors [B, ...]."""
    layer = LinearAttentionLayer(number_of_states=count)
    for entry, tensor in zip(entries, tensors, strict=True):
        getattr(layer, f"{entry.part}_states")[entry.number] = tensor
        getattr(layer, f"is_{entry.part}_states_initialized")[entry.number] = True
        if entry.part == "conv":
            layer.conv_kernel_size[entry.number] = tensor.shape[-1]
        layer.has_previous_state[entry.number] = True
        vars(layer).update(dtype=tensor.dtype, device=tensor.device)
    return layer
