"""What differs between architectures after a prompt is read: positions, cross-attention, and whether a cache can be forked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache, DynamicLayer

from tasks.core.engine.kv_prefix import KVPrefix, Root
from tasks.core.models.policy import Policy
from tasks.core.models.positions import as_position_ids, prompt_positions


class CannotFork(Exception):
    """The model's cache is not a plain list of keys and values; the message states why."""


def cross_layers(model: Any) -> frozenset[int]:
    """Indices of layers that attend to the image instead of the text (mllama)."""
    return frozenset(getattr(model.config.get_text_config(), "cross_attention_layers", None) or ())


class Prompt(NamedTuple):
    """A prompt that was read: its prefix, and what is needed to continue from a point within it."""

    prefix: KVPrefix
    ids: list[int]
    positions: torch.Tensor  # [axes, tokens]

    def image_prefix(self, tokens: int) -> KVPrefix:
        """The prefix of its first `tokens` tokens, which end with the image; the next token is text."""
        if not 0 < tokens < len(self.ids):
            raise ValueError(f"{tokens} of a prompt's {len(self.ids)} tokens: want at least one, and one left")
        return KVPrefix(
            parent=None,
            root=self.prefix.root,
            kv=self.prefix.kv[:, :, :tokens],
            length=tokens,
            pending=None,
            position=self.positions[:, tokens - 1],
            next_position=int(self.positions[0, tokens]),
            tokens=tuple(self.ids[:tokens]),
        )


def read_prompts(policy: Policy, inputs: dict[str, Any]) -> list[Prompt]:
    """Prefill prompts, each image encoded once. `inputs` are those of `policy.inputs`, B rows.

    Raises:
        CannotFork: the model's cache is not a list of keys and values.
    """
    model = policy.model
    mask = inputs["attention_mask"].long()
    positions = prompt_positions(model, inputs)
    out = model.model(**inputs, position_ids=as_position_ids(positions), use_cache=True)
    kv, cross_kv = _stacked(out.past_key_values, cross_layers(model))
    cross_mask = inputs.get("cross_attention_mask")
    prompts = []
    for row, ids in enumerate(inputs["input_ids"].tolist()):
        length = int(mask[row].sum())
        # Cloned: a slice would keep the whole batch in memory for as long as one row is used.
        prefix = KVPrefix(
            parent=None,
            root=Root(
                cross_kv=None if cross_kv is None else cross_kv[:, row].clone(),
                cross_mask=None if cross_mask is None else cross_mask[row, -1].clone(),
            ),
            kv=kv[:, row, :, kv.shape[3] - length : -1].clone(),
            length=length - 1,
            pending=ids[-1],
            position=positions[:, row, -1].clone(),
            next_position=int(positions[:, row, -1].max()) + 1,
            tokens=tuple(ids[-length:]),
        )
        prompts.append(Prompt(prefix, ids[-length:], positions[:, row, -length:].clone()))
    return prompts


def _stacked(cache: Cache, cross: frozenset[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """([2S, B, H, L, D] of self-attention layers, [2C, B, H, T, D] of cross-attention layers)."""
    own: list[torch.Tensor] = []
    cross_kv: list[torch.Tensor] = []
    for index, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer:
            raise CannotFork(f"layer {index} of its cache is a {type(layer).__name__}")
        assert layer.keys is not None
        assert layer.values is not None
        (cross_kv if index in cross else own).extend([layer.keys, layer.values])
    if len({tensor.shape for tensor in own}) != 1:
        raise CannotFork(f"its layers' keys and values differ in shape: {sorted({tuple(t.shape) for t in own})}")
    return torch.stack(own), torch.stack(cross_kv) if cross_kv else None


def continuation_inputs(prefixes: Sequence[KVPrefix], steps: int) -> dict[str, torch.Tensor]:
    """Extra model inputs of a continuation by `steps` tokens per row, beside ids, mask, positions and cache."""
    masks = [prefix.root.cross_mask for prefix in prefixes if prefix.root.cross_mask is not None]
    if not masks:
        return {}
    return {"cross_attention_mask": torch.stack(masks)[:, None].expand(-1, steps, -1, -1)}
