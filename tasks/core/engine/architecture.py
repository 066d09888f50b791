"""What differs between architectures once a prompt is read: positions, cross-attention, and whether a cache can be forked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache, DynamicLayer

from tasks.core.engine.kv_prefix import Place, Root
from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids, prompt_positions


class CannotFork(Exception):
    """A model whose cache is no plain list of keys and values; the message says why."""


def cross_layers(model: Any) -> frozenset[int]:
    """Indices of layers that look at the image instead of the text (mllama)."""
    return frozenset(getattr(model.config.get_text_config(), "cross_attention_layers", None) or ())


class Prompt(NamedTuple):
    """A prompt that was read: its place, and what is needed to go back into it."""

    place: Place
    ids: list[int]
    positions: torch.Tensor  # [axes, tokens]

    def image_place(self, tokens: int) -> Place:
        """The place behind its first `tokens` tokens, which end with the image; the next one is text."""
        if not 0 < tokens < len(self.ids):
            raise ValueError(f"{tokens} of a prompt's {len(self.ids)} tokens: want at least one, and one left")
        return Place(
            before=None,
            root=self.place.root,
            kv=self.place.kv[:, :, :tokens],
            length=tokens,
            pending=None,
            position=self.positions[:, tokens - 1],
            following=int(self.positions[0, tokens]),
        )


def read_prompts(policy: Policy, inputs: dict[str, Any]) -> list[Prompt]:
    """Prefill prompts, each image encoded once. `inputs` are those of `policy.inputs`, B rows.

    Raises:
        CannotFork: the cache that came out is no list of keys and values.
    """
    model = policy.model
    mask = inputs["attention_mask"].long()
    positions = prompt_positions(model, inputs)
    out = model.model(**inputs, position_ids=as_position_ids(positions), use_cache=True)
    kv, fixed = _stacked(out.past_key_values, cross_layers(model))
    cross_mask = inputs.get("cross_attention_mask")
    prompts = []
    for row, ids in enumerate(inputs["input_ids"].tolist()):
        length = int(mask[row].sum())
        # Cloned: a slice would keep the whole batch in memory for as long as one row lives.
        place = Place(
            before=None,
            root=Root(
                fixed=None if fixed is None else fixed[:, row].clone(),
                cross_mask=None if cross_mask is None else cross_mask[row, -1].clone(),
            ),
            kv=kv[:, row, :, kv.shape[3] - length : -1].clone(),
            length=length - 1,
            pending=ids[-1],
            position=positions[:, row, -1].clone(),
            following=int(positions[:, row, -1].max()) + 1,
        )
        prompts.append(Prompt(place, ids[-length:], positions[:, row, -length:].clone()))
    return prompts


def _stacked(cache: Cache, cross: frozenset[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """([2S, B, H, L, D] of self-attention layers, [2C, B, H, T, D] of cross-attention layers)."""
    own: list[torch.Tensor] = []
    fixed: list[torch.Tensor] = []
    for index, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer:
            raise CannotFork(f"layer {index} of its cache is a {type(layer).__name__}")
        assert layer.keys is not None
        assert layer.values is not None
        (fixed if index in cross else own).extend([layer.keys, layer.values])
    if len({tensor.shape for tensor in own}) != 1:
        raise CannotFork(f"its layers' keys and values differ in shape: {sorted({tuple(t.shape) for t in own})}")
    return torch.stack(own), torch.stack(fixed) if fixed else None


def continuation_inputs(places: Sequence[Place], steps: int) -> dict[str, torch.Tensor]:
    """What a continuation of `steps` tokens a row needs beside ids, mask, positions and cache."""
    masks = [place.root.cross_mask for place in places if place.root.cross_mask is not None]
    if not masks:
        return {}
    return {"cross_attention_mask": torch.stack(masks)[:, None].expand(-1, steps, -1, -1)}
