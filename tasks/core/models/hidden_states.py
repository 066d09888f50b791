"""The hidden states of one layer of a language model, without running the layers above it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def hidden_states(model: Any, layer: int | None, **inputs: Any) -> torch.Tensor | None:
    """Run a model without its language head; returns hidden states [B, L, D] of a layer.

    Args:
        model: with an inner `model`.
        layer: from the end: -1 is the last one after the final norm, -2 the output of the last but one layer, and so on to the
            embeddings. None: nothing is returned, and all layers run.
        inputs: of the model's forward.

    Raises:
        ValueError: for a layer that the model doesn't have.
    """
    if layer is None or layer == -1:
        states: torch.Tensor = model.model(**inputs).last_hidden_state
        return None if layer is None else states
    decoder = model.get_decoder()
    layers = decoder.layers
    below = len(layers) + 1 + layer  # layers that run
    if not 0 <= below < len(layers):
        raise ValueError(f"layer is {layer}: want -1 to {-len(layers) - 1}")
    caught: list[torch.Tensor] = []
    # Some models want a layer at least; what it computes is not used.
    with _only(decoder, max(1, below)) as kept:
        if below:
            hook = kept[-1].register_forward_hook(
                lambda module, args, out: caught.append(out[0] if isinstance(out, tuple) else out)
            )
        else:
            hook = kept[0].register_forward_pre_hook(
                lambda module, args, named: caught.append(args[0] if args else named["hidden_states"]), with_kwargs=True
            )
        try:
            model.model(**inputs)
        finally:
            hook.remove()
    return caught[-1]


@contextmanager
def _only(decoder: Any, count: int) -> Iterator[Any]:
    """The first `count` layers of a decoder, which has only these meanwhile."""
    layers = decoder.layers
    decoder.layers = layers[:count]
    try:
        yield decoder.layers
    finally:
        decoder.layers = layers
